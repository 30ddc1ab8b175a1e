"""Devices of the host, made ready for a guest before it starts: found, taken from the host's drivers, claimed.

A device belongs to one guest at a time: a file by its name says to which, and goes with it. PCI devices whose
<hostdev> is managed are given to vfio-pci, and back to the host's own driver when the guest has ended; the others
somebody must have given to it before.
"""

import os
from typing import Any

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.base import PciAddress
from virtd.conf.domain.disk import NvmeSource
from virtd.conf.domain.hostdev import MdevSource, PciSource, ScsiHostSource, ScsiSource, UsbSource
from virtd.conf.domain.interface import HostdevSource, Interface
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.host import sysfs
from virtd.errors import VirtError
from virtd.state import files, undo
from virtd.state.paths import Paths

_NO_MAC = "00:00:00:00:00:00"
_Source = PciSource | NvmeSource | PciAddress


def prepare(config: Config, guest: Guest, claims: str, root: str = sysfs.ROOT) -> None:
    """Make a guest's devices of the host ready; what is to be undone stands in its undo file.

    Args:
        config: the live configuration: where USB devices are is written into it, and those are taken out that are
            not there and may be missing.
        guest: the guest's directory.
        claims: the directory where claims of devices lie.
        root: where /sys is.

    Raises:
        VirtError: what is missing, or who has the device.
    """
    for hostdev in list(config.hostdevs):
        match hostdev.source:
            case PciSource() as source:
                _check_vfio(hostdev.backend, root)
                hostdev.backend = "vfio"
                _pci(source, guest, claims, root, managed=bool(hostdev.managed))
            case UsbSource() as source:
                if not _find_usb(source, root):
                    config.hostdevs.remove(hostdev)
                    continue
                path = f"{claims}/usb-{source.bus}-{source.device}"
                _claim(path, "USB device", f"{source.bus:03}:{source.device:03}", guest)
            case MdevSource() as source:
                _mdev(source, guest, claims, root)
            case ScsiSource() as source if source.protocol != "iscsi":
                place = source.bus or 0, source.target or 0, source.unit or 0
                sysfs.scsi_generic(source.adapter or "", *place, root=root)
            case ScsiHostSource() if not os.path.exists("/dev/vhost-scsi"):
                text = "vhost-scsi device file '/dev/vhost-scsi' cannot be found"
                raise _error(c.VIR_ERR_CONFIG_UNSUPPORTED, text)
    for interface in config.interfaces:
        if isinstance(interface.source, HostdevSource):
            prepare_card(interface, interface.source, guest, claims, root)
    for disk in config.disks:
        if isinstance(disk.source, NvmeSource):
            _pci(disk.source, guest, claims, root, managed=bool(disk.source.managed))


def claims(paths: Paths) -> str:
    """The directory where an instance's claims of devices lie."""
    return f"{paths.runtime}/qemu-devices"


def address_of(source: _Source) -> str:
    """A PCI address as the kernel writes it."""
    return f"{source.domain:04x}:{source.bus:02x}:{source.slot:02x}.{source.function:x}"


def _check_vfio(backend: str | None, root: str) -> None:
    if backend in ("kvm", "xen"):
        text = f"host device backend '{backend}' is not supported: only VFIO is"
        raise _error(c.VIR_ERR_CONFIG_UNSUPPORTED, text)
    if not sysfs.supports_vfio(root):
        what = "host doesn't support passthrough of host PCI devices"
        text = "host doesn't support VFIO PCI passthrough" if backend == "vfio" else what
        raise _error(c.VIR_ERR_CONFIG_UNSUPPORTED, text)


def _pci(source: _Source, guest: Guest, claims: str, root: str, *, managed: bool) -> None:
    address = address_of(source)
    device = sysfs.pci_device(address, root)
    _claim(_claim_path(claims, address), "PCI device", address, guest)
    if sysfs.driver(device) == sysfs.VFIO:
        return
    if not managed:
        text = f"Unmanaged PCI device {address} must be manually detached from the host"
        raise _error(c.VIR_ERR_OPERATION_INVALID, text)
    undo.note(guest.undo_path, "pci", address=address, root=root, claim=_claim_path(claims, address))
    sysfs.bind(address, sysfs.VFIO, root)


def prepare_card(
    interface: Interface, source: HostdevSource, guest: Guest, claims: str, root: str = sysfs.ROOT
) -> None:
    """A virtual function of a network card, which gets the guest's MAC address before it is given away.

    Args:
        interface: the guest's card.
        source: which one of the host it is.
        guest, claims, root: as for prepare().

    Raises:
        VirtError: as prepare() does.
    """
    if not isinstance(source.address, PciAddress):
        text = "interface type 'hostdev' is supported with a PCI address only"
        raise _error(c.VIR_ERR_CONFIG_UNSUPPORTED, text)
    _check_vfio(source.backend, root)
    source.backend = "vfio"
    address = address_of(source.address)
    found = sysfs.virtual_function(address, root)
    if found is None:
        text = f"{address}: Interface type hostdev is currently supported on SR-IOV Virtual Functions only"
        raise _error(c.VIR_ERR_CONFIG_UNSUPPORTED, text)
    card, number = found
    tag = interface.vlan.tags[0].id if interface.vlan is not None and interface.vlan.tags else 0
    of = {"address": address, "root": root, "claim": _claim_path(claims, address)}
    undo.note(guest.undo_path, "vf", card=card, number=number, **of)
    _set_function(card, number, interface.mac or _NO_MAC, tag or 0)
    _pci(source.address, guest, claims, root, managed=bool(source.managed))


def _set_function(card: str, number: int, mac: str, vlan: int) -> None:
    from virtd.drivers.storage import programs  # few guests have such a card

    programs.run("ip", ["link", "set", "dev", card, "vf", str(number), "mac", mac, "vlan", str(vlan)])


def _find_usb(source: UsbSource, root: str) -> bool:
    """Find out where a USB device is; returns whether it is there, or else may be missing."""
    found = list(sysfs.usb_devices(root))
    by_place = [one for one in found if one[2:] == (source.bus, source.device)]
    if source.vendor is None:
        matching, what = by_place, f"bus:{source.bus} device:{source.device}"
    else:
        matching = [one for one in found if one[:2] == (source.vendor, source.product)]
        what = f"{source.vendor:x}:{source.product:x}"
        if source.bus:
            matching = [one for one in matching if one in by_place]
    if not matching:
        if source.startup_policy == "optional":
            return False
        raise _error(c.VIR_ERR_INTERNAL_ERROR, f"Did not find USB device {what}")
    if len(matching) > 1:
        text = f"Multiple USB devices for {what}, use <address> to specify one"
        raise _error(c.VIR_ERR_OPERATION_FAILED, text)
    source.bus, source.device = matching[0][2:]
    return True


def _mdev(source: MdevSource, guest: Guest, claims: str, root: str) -> None:
    if not sysfs.supports_vfio(root):
        raise _error(c.VIR_ERR_CONFIG_UNSUPPORTED, "Mediated host device assignment requires VFIO support")
    if not os.path.exists(f"{root}/bus/mdev/devices/{source.uuid}"):
        raise _error(c.VIR_ERR_DEVICE_MISSING, f"mediated device '{source.uuid}' not found")
    _claim(f"{claims}/mdev-{source.uuid}", "mediated device", str(source.uuid), guest)


def _claim_path(claims: str, address: str) -> str:
    """The file that says which guest has a PCI device."""
    return f"{claims}/pci-{address}"


def _claim(path: str, kind: str, what: str, guest: Guest) -> None:
    """Claim a device for a guest.

    Args:
        path: the file of the claim.
        kind, what: what the device is, for messages.
        guest: the guest's directory.

    Raises:
        VirtError: VIR_ERR_OPERATION_INVALID naming who has it.
    """
    files.make_directory(os.path.dirname(path))
    # Before it is made: whoever undoes what a former life has left of it sees that it is ours now.
    undo.note(guest.undo_path, "claim", path=path, status=guest.status_path)
    content = f"{guest.name}\n{guest.status_path}\n".encode()
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            other, status = _claimant(path)
            if os.path.exists(status) and status != guest.status_path:
                text = f"{kind} {what} is in use by driver QEMU, domain {other}"
                raise _error(c.VIR_ERR_OPERATION_INVALID, text) from None
            files.remove(path)  # left behind by a guest that a host took along when it went down
            continue
        except OSError as error:
            raise files.os_error(error, f"cannot write '{path}'") from None
        try:
            files.write_all(descriptor, content)
        finally:
            os.close(descriptor)
        return


def _claimant(path: str) -> tuple[str, str]:
    """Who has a device, as its claim says: the guest's name, and the path of its status."""
    name, _, status = (files.read(path) or b"").decode().partition("\n")
    return name, status.strip()


def _error(code: int, text: str) -> VirtError:
    return VirtError(code, text, domain=c.VIR_FROM_QEMU)


def _give_back(table: dict[str, Any]) -> None:
    """Give a PCI device back to the host's own driver."""
    sysfs.bind(table["address"], None, table["root"])


def _forget_function(table: dict[str, Any]) -> None:
    """Take the guest's address from a virtual function."""
    sysfs.pci_device(table["address"], table["root"])  # which may have gone
    _set_function(table["card"], table["number"], _NO_MAC, 0)


def _let_go(table: dict[str, Any]) -> None:
    """Remove a claim, unless it is another guest's."""
    if _claimant(table["path"])[1] == table["status"]:
        files.remove(table["path"])


undo.KINDS.update(claim=_let_go, pci=_give_back, vf=_forget_function)
