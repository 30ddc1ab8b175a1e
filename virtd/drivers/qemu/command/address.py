"""Where devices are plugged in: libvirt's addresses as QEMU's bus and address properties."""

from virtd.conf.domain.base import (
    CcidAddress,
    DimmAddress,
    DriveAddress,
    Info,
    IsaAddress,
    PciAddress,
    UsbAddress,
    VirtioSerialAddress,
)
from virtd.drivers.qemu.command.line import Line, Properties, alias, unsupported

_ROOTS = {"pci-root": "pci.0", "pcie-root": "pcie.0"}


def place(line: Line, info: Info) -> Properties:
    """The properties which say where a device is.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED for a kind of address that no device here can have.
    """
    address = info.address
    if address is None:
        return {}
    if isinstance(address, PciAddress):
        return _pci(line, address, info)
    if isinstance(address, UsbAddress):
        return {"bus": f"{alias(line.controller('usb', address.bus).info)}.0", "port": address.port}
    if isinstance(address, VirtioSerialAddress):
        bus = f"{alias(line.controller('virtio-serial', address.controller).info)}.{address.bus}"
        return {"bus": bus, "nr": address.port}
    if isinstance(address, CcidAddress):
        return {"bus": f"{alias(line.controller('ccid', address.controller).info)}.0"}
    if isinstance(address, IsaAddress):
        return {"iobase": address.iobase, "irq": address.irq}
    if isinstance(address, DimmAddress):
        return {"slot": address.slot, "addr": address.base}
    if isinstance(address, DriveAddress):
        return {}  # only disks and SCSI host devices have it, and what it means depends on the controller
    raise unsupported(f"address type '{address.kind}' is not supported on this machine")


def pci_bus(line: Line, index: int) -> str:
    """QEMU's name of a PCI bus."""
    controller = line.controller("pci", index)
    return _ROOTS.get(controller.model or "", alias(controller.info))


def _pci(line: Line, address: PciAddress, info: Info) -> Properties:
    if address.domain:
        raise unsupported("Only PCI device addresses with domain=0 are supported")
    where = f"0x{address.slot:x}" + (f".0x{address.function:x}" if address.function else "")
    return {
        "bus": pci_bus(line, address.bus),
        "multifunction": address.multifunction,
        "acpi-index": info.acpi_index,
        "addr": where,
    }


def rom(info: Info) -> Properties:
    """What a PCI device's option ROM is."""
    if info.rom_enabled is False:
        return {"romfile": ""}
    bar = None if info.rom_bar is None else int(info.rom_bar)
    return {"rombar": bar, "romfile": info.rom_file}
