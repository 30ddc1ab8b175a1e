"""What libvirt checks of character devices: serial ports, consoles, channels, and what stands behind them."""

from virtd.conf.domain.chardev import (
    CharSource,
    Console,
    DbusSource,
    FileSource,
    NmdmSource,
    Parallel,
    PathSource,
    Serial,
    SpicePortSource,
    SpiceVmcSource,
    TcpSource,
    UdpSource,
    UnixSource,
)
from virtd.conf.domain.devices import EgdBackend, PassthroughSmartcard
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import conf_error, internal_error

MAX_ISA_SERIALS = 4


def check_sources(domain: Domain) -> None:
    """A back end that has a path must say it."""
    for redirdev in domain.redirdevs:
        if isinstance(redirdev.source, FileSource | PathSource | UnixSource) and redirdev.source.path is None:
            raise internal_error("Missing source path attribute for char device")
    sources: list[CharSource] = [device.source for device in domain.serials]
    sources += [device.source for device in domain.parallels]
    paired = bool(domain.serials) and bool(domain.consoles) and domain.consoles[0].target_type == "serial"
    sources += [device.source for device in domain.consoles[paired:]]
    sources += [rng.backend.source for rng in domain.rngs if isinstance(rng.backend, EgdBackend)]
    sources += [card.source for card in domain.smartcards if isinstance(card, PassthroughSmartcard)]
    for source in sources:
        if isinstance(source, FileSource | PathSource | UnixSource) and source.path is None:
            raise internal_error("Missing source path attribute for char device")
    for channel in domain.channels:
        sources.append(channel.source)
        if isinstance(channel.source, FileSource | PathSource) and channel.source.path is None:
            raise internal_error("Missing source path attribute for char device")
        if isinstance(channel.source, UnixSource) and channel.target_type == "guestfwd" and channel.source.path is None:
            raise internal_error("Missing source path attribute for char device")
    plain: list[Serial | Parallel | Console] = [*domain.serials, *domain.parallels, *domain.consoles[1:]]
    for device in plain:
        if isinstance(device.source, SpiceVmcSource):
            raise conf_error("spicevmc device type only supports virtio")
    for source in sources:
        if isinstance(source, SpicePortSource | DbusSource) and source.channel is None:
            raise conf_error("Missing source channel attribute for char device")
        if isinstance(source, NmdmSource) and (source.master is None) != (source.slave is None):
            raise internal_error("Should define both master and slave path attributes for nmdm device")
        if isinstance(source, TcpSource):
            if source.host is None:
                raise internal_error("Missing source host attribute for char device")
            if source.service is None:
                raise internal_error("Missing source service attribute for char device")
        elif isinstance(source, UdpSource) and not source.sends:
            raise internal_error("Missing source service attribute for char device")


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
