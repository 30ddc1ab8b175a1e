"""The names that devices have in a running guest, as libvirt gives them: net0, virtio-disk0, ide0-0-1, pci.3."""

from collections.abc import Sequence

from virtd.conf.domain.base import Device, DimmAddress, DriveAddress
from virtd.conf.domain.basics import is_i440fx, is_q35
from virtd.conf.domain.controller import Controller
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.implicit import disk_index, find_controller

_MEMORY_ALIASES = {"virtio-pmem": "virtiopmem", "virtio-mem": "virtiomem", "sgx-epc": "epc"}


def assign_aliases(domain: Domain) -> None:
    """Name every device that has no name yet. Names that the user chose (ua-…) stay."""
    for disk in domain.disks:
        disk.info.alias = disk.info.alias or disk_alias(domain, disk)
    for controller in domain.controllers:
        controller.info.alias = controller.info.alias or controller_alias(domain, controller)
    one_by_one: list[tuple[str, Sequence[Device]]] = [
        ("fs", domain.filesystems),
        ("net", [one for one in domain.interfaces if one.type != "hostdev"]),
        ("smartcard", domain.smartcards),
        ("serial", domain.serials),
        ("parallel", domain.parallels),
        ("channel", domain.channels),
        ("input", domain.inputs),
        ("sound", domain.sounds),
        ("video", domain.videos),
        ("hostdev", [*(one for one in domain.interfaces if one.type == "hostdev"), *domain.hostdevs]),
        ("redir", domain.redirdevs),
        ("hub", domain.hubs),
        ("rng", domain.rngs),
        ("shmem", domain.shmems),
        ("tpm", domain.tpms),
        ("watchdog", domain.watchdogs),
    ]
    for number, console in enumerate(domain.consoles):
        if number == 0 and console.target_type == "serial" and domain.serials:
            continue  # shares the first serial port's
        console.info.alias = console.info.alias or f"console{number}"
    for prefix, devices in one_by_one:
        number_devices(prefix, devices)
    for device in domain.memory_devices:
        address = device.info.address
        if isinstance(address, DimmAddress) and address.slot is not None and device.info.alias is None:
            device.info.alias = f"{device.model}{address.slot}"
    for kind in dict.fromkeys(device.model for device in domain.memory_devices):
        number_devices(
            _MEMORY_ALIASES.get(kind or "", kind or "dimm"), [d for d in domain.memory_devices if d.model == kind]
        )
    if domain.memballoon is not None and domain.memballoon.model != "none":
        number_devices("balloon", [domain.memballoon])
    if domain.iommu is not None:
        number_devices("iommu", [domain.iommu])
    if domain.vsock is not None:
        number_devices("vsock", [domain.vsock])


def number_devices(prefix: str, devices: Sequence[Device]) -> None:
    """Give the nameless devices of a kind the lowest numbers behind the highest in use."""
    last = -1
    for device in devices:
        alias = device.info.alias
        if alias is not None and alias.startswith(prefix) and alias[len(prefix) :].isdigit():
            last = max(last, int(alias[len(prefix) :]))
    for device in devices:
        if device.info.alias is None:
            last += 1
            device.info.alias = f"{prefix}{last}"


def disk_alias(domain: Domain, disk: Disk) -> str:
    """A disk's name says where it is plugged in, or which one it is."""
    address = disk.info.address
    if not isinstance(address, DriveAddress):
        return f"{disk.bus}-disk{disk_index(disk.target or '')}"
    if disk.bus == "scsi":
        controller = find_controller(domain, "scsi", address.controller)
        if controller is not None and controller.model != "lsilogic":
            return f"scsi{address.controller}-{address.bus}-{address.target}-{address.unit}"
    return f"{disk.bus}{address.controller}-{address.bus}-{address.unit}"


def controller_alias(domain: Domain, controller: Controller) -> str:
    """A controller's name; those of the chip set have QEMU's own."""
    machine = domain.os.machine or ""
    if controller.type == "pci":
        return "pcie.0" if controller.model == "pcie-root" else f"pci.{controller.index}"
    if controller.index == 0:
        if controller.type == "usb":
            return "usb"
        if (controller.type == "ide" and is_i440fx(machine)) or (controller.type == "sata" and is_q35(machine)):
            return "ide"
    return f"{controller.type}{controller.index}"
