"""Registers of POWER's virtual I/O: what has one has it on every machine, even where QEMU then refuses the device."""

from collections.abc import Iterator

from virtd import constants as c
from virtd.conf.domain.base import Info, PciAddress, SpaprVioAddress
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import xml_error

CARD, SCSI = 0x1000, 0x2000
STEP = 0x1000


def users(domain: Domain) -> Iterator[tuple[Info, int, bool]]:
    """Who can have a register, which one it would like, and whether it can be nowhere else; in libvirt's order."""
    for interface in domain.interfaces:
        yield interface.info, CARD, interface.model == "spapr-vlan"
    for controller in domain.controllers:
        if controller.type == "scsi":
            yield controller.info, SCSI, controller.model == "ibmvscsi"


def assign_spapr(domain: Domain) -> None:
    """Give a register to whoever wants one.

    Raises:
        VirtError: VIR_ERR_XML_ERROR if two say they have the same.
    """
    registers: list[SpaprVioAddress] = []
    for info, wanted, only in users(domain):
        if only and not isinstance(info.address, SpaprVioAddress):
            given = isinstance(info.address, PciAddress) and not info.address.empty
            info.address = SpaprVioAddress(reg=0 if given else None)
        address = info.address
        if not isinstance(address, SpaprVioAddress):
            continue
        used = {one.reg for one in registers}
        if address.reg is None:
            address.reg = next(reg for reg in range(wanted, 1 << 32, STEP) if reg not in used)
        elif address.reg in used:
            raise xml_error(f"spapr-vio address 0x{address.reg:x} already in use", domain=c.VIR_FROM_QEMU)
        registers.append(address)
