"""Serial ports and consoles: how many there can be."""

from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import conf_error, internal_error

MAX_ISA_SERIALS = 4


def check_isa_serials(domain: Domain) -> None:
    """A PC has four serial ports; those that are said to be ISA have each a number of their own."""
    used: set[int] = set()
    for serial in domain.serials:
        if serial.target_type != "isa-serial":
            continue
        if serial.port is not None:
            if serial.port in used:
                raise internal_error(f"target port '{serial.port}' already allocated")
            number = serial.port
        else:
            number = next(n for n in range(len(used) + 1) if n not in used)
            serial.port = number
        if number >= MAX_ISA_SERIALS:
            raise internal_error(f"Maximum supported number of ISA serial ports is '{MAX_ISA_SERIALS}'")
        used.add(number)


def check_consoles(domain: Domain) -> None:
    """Only one console can stand for a serial port."""
    if any(console.target_type in (None, "serial") for console in domain.consoles[1:]):
        raise conf_error("Only the first console can be a serial port")
