"""Devices of the host as the kernel shows them in /sys: where they are, and which driver a PCI device has.

Documentation/ABI/testing/sysfs-bus-pci, -bus-usb, -bus-mdev and vfio.rst of the kernel say what the files mean. The
root is a parameter, so that tests can make up a host.
"""

import os
from collections.abc import Iterator

from virtd import constants as c
from virtd.errors import VirtError
from virtd.state import files

ROOT = "/sys"
VFIO = "vfio-pci"
DEVICE = "/dev/vfio/vfio"


def supports_vfio(root: str = ROOT) -> bool:
    """Whether devices can be given away by VFIO: there is an IOMMU, and the driver's device."""
    groups = f"{root}/kernel/iommu_groups"
    return os.path.isdir(groups) and bool(os.listdir(groups)) and os.path.exists(DEVICE)


def pci_device(address: str, root: str = ROOT) -> str:
    """The directory of a PCI device.

    Args:
        address: as '0000:01:00.0'.
        root: where /sys is.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, there is none.
    """
    path = f"{root}/bus/pci/devices/{address}"
    try:
        os.stat(f"{path}/config")
    except OSError as error:
        failure = files.os_error(error, f"Device {address} not found: could not access {path}/config")
        raise failure from None
    return path


def driver(device: str) -> str | None:
    """The name of the driver that a device has; None if it has none."""
    link = f"{device}/driver"
    return os.path.basename(os.readlink(link)) if os.path.islink(link) else None


def iommu_group(device: str) -> str | None:
    """The IOMMU group of a device: the name of its file below /dev/vfio."""
    link = f"{device}/iommu_group"
    return os.path.basename(os.readlink(link)) if os.path.islink(link) else None


def virtual_function(address: str, root: str = ROOT) -> tuple[str, int] | None:
    """Of which network card a PCI device is a virtual function, and which; None if it is none.

    Args:
        address: the device's.
        root: where /sys is.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, there is no such device.
    """
    physical = f"{pci_device(address, root)}/physfn"
    if not os.path.isdir(f"{physical}/net"):
        return None
    for name in os.listdir(physical):
        number = name.removeprefix("virtfn")
        if number.isdigit() and os.path.basename(os.readlink(f"{physical}/{name}")) == address:
            return sorted(os.listdir(f"{physical}/net"))[0], int(number)
    return None


def bind(address: str, wanted: str | None, root: str = ROOT) -> None:
    """Give a PCI device to a driver.

    Args:
        address: the device's.
        wanted: the driver; None for the one that the kernel chooses itself.
        root: where /sys is.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, the kernel refuses; VIR_ERR_INTERNAL_ERROR, the driver does not take it.
    """
    device = pci_device(address, root)
    if wanted is not None and driver(device) == wanted:
        return
    _write(f"{device}/driver_override", f"{wanted or ''}\n")
    if os.path.exists(f"{device}/driver"):
        _write(f"{device}/driver/unbind", address)
    _write(f"{root}/bus/pci/drivers_probe", address)
    if wanted is not None and driver(device) != wanted:
        text = f"PCI device {address} could not be bound to driver '{wanted}': is its module loaded?"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_QEMU)


def usb_devices(root: str = ROOT) -> Iterator[tuple[int, int, int, int]]:
    """The USB devices of the host: vendor, product, bus, number.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, it has no USB.
    """
    path = f"{root}/bus/usb/devices"
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise files.os_error(error, f"cannot open directory '{path}'") from None
    for name in names:
        words = [files.read(f"{path}/{name}/{one}") for one in ("idVendor", "idProduct", "busnum", "devnum")]
        if None not in words:
            vendor, product, bus, number = ((word or b"0").decode().strip() for word in words)
            yield int(vendor, 16), int(product, 16), int(bus), int(number)


def scsi_generic(adapter: str, bus: int, target: int, unit: int, root: str = ROOT) -> str:
    """The path of the generic device of a SCSI logical unit.

    Args:
        adapter: 'scsi_host0'.
        bus, target, unit: its place there.
        root: where /sys is.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, there is none; VIR_ERR_INTERNAL_ERROR, no such adapter can be.
    """
    host = adapter.removeprefix("scsi_host")
    if not host.isdigit() or host == adapter:
        text = f"Cannot parse adapter '{adapter}'"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_QEMU)
    path = f"{root}/bus/scsi/devices/{host}:{bus}:{target}:{unit}/scsi_generic"
    try:
        names = os.listdir(path)
    except OSError as error:
        raise files.os_error(error, f"cannot open directory '{path}'") from None
    if not names:
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"no device found in '{path}'", domain=c.VIR_FROM_QEMU)
    return f"/dev/{names[0]}"


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise files.os_error(error, f"Failed to write '{text.strip()}' to '{path}'") from None
