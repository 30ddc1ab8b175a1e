"""Places that devices can have, whatever they are: what libvirt and its QEMU driver check of every address."""

from virtd import constants as c
from virtd.conf.domain.base import CcwAddress, Device, DriveAddress, PciAddress, SpaprVioAddress
from virtd.conf.domain.check.rules import Context, Rule, Rules
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.errors import internal_error, qemu_error
from virtd.conf.domain.hostdev import Hostdev
from virtd.conf.domain.implicit import find_controller

MAX_REGISTER = 0xFFFFFFFF


def check_drive(x: Context, address: DriveAddress, bus: str) -> None:
    """What places there are on a disk controller.

    Raises:
        VirtError: of VIR_FROM_QEMU.
    """
    if bus == "scsi":
        controller = find_controller(x.domain, "scsi", address.controller)
        if address.bus:
            raise internal_error("SCSI controller only supports 1 bus", domain=c.VIR_FROM_QEMU)
        if controller is not None and controller.model == "lsilogic" and address.target:
            raise qemu_error("target must be 0 for controller model 'lsilogic'")
        return
    if bus in ("ide", "fdc") and address.controller:
        name = "IDE" if bus == "ide" else bus
        raise internal_error(f"Only 1 {name} controller is supported", domain=c.VIR_FROM_QEMU)
    if bus == "fdc" and address.bus:
        raise internal_error("Only 1 fdc bus is supported", domain=c.VIR_FROM_QEMU)
    if bus == "sata" and address.bus:
        raise qemu_error("bus must be 0 for sata controller")
    if bus in ("ide", "fdc", "sata") and address.target:
        raise qemu_error(f"target must be 0 for {'controller fdc' if bus == 'fdc' else bus + ' controller'}")


def check_place(x: Context, device: Device) -> None:
    """A disk is on its own bus; for everything else such a place is one of SCSI."""
    if isinstance(device.info.address, DriveAddress):
        check_drive(x, device.info.address, device.bus or "" if isinstance(device, Disk) else "scsi")


COMMON: Rules = (
    Rule(
        lambda x, d: d.info.address is not None and d.info.address.kind == "unassigned" and not isinstance(d, Hostdev),
        "address of type 'unassigned' is supported only for hostdevs",
    ),
)
"""What libvirt itself asks of every device."""

QEMU: Rules = (
    Rule(
        lambda x, d: isinstance(d.info.address, PciAddress) and d.info.address.has_zpci,
        "This QEMU binary doesn't support zPCI",
    ),
    Rule(
        lambda x, d: isinstance(d.info.address, SpaprVioAddress) and (d.info.address.reg or 0) > MAX_REGISTER,
        "spapr-vio reg='0x{d.info.address.reg:x}' exceeds maximum possible value (0xffffffff)",
    ),
    Rule(
        lambda x, d: isinstance(d.info.address, CcwAddress),
        "cannot use CCW address type for device '{d.info.shown_alias}' using machine type '{x.domain.os.machine}'",
    ),
    check_place,
    Rule(
        lambda x, d: (
            (d.info.rom_enabled is not None or d.info.rom_bar is not None or d.info.rom_file is not None)
            and d.info.address is not None
            and d.info.address.kind not in ("pci", "unassigned")
        ),
        "ROM tuning is only supported for PCI devices",
    ),
    Rule(
        lambda x, d: (
            d.info.acpi_index is not None
            and d.info.address is not None
            and d.info.address.kind not in ("pci", "unassigned")
        ),
        "ACPI index is only supported for PCI devices",
    ),
)
"""What the QEMU driver asks of every device."""
