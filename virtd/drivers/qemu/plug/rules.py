"""Which devices can come to a running guest and leave it, in libvirt's words.

What QEMU itself refuses is not repeated here.
"""

from typing import Any

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.base import DriveAddress
from virtd.conf.domain.chardev import Console
from virtd.conf.domain.controller import Controller
from virtd.conf.domain.devices import Vsock, Watchdog
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.display import Input
from virtd.conf.domain.filesystem import Filesystem
from virtd.conf.domain.hostdev import Hostdev
from virtd.conf.domain.interface import Interface
from virtd.drivers.qemu.command import storage
from virtd.drivers.qemu.plug.config import unsupported
from virtd.drivers.qemu.plug.kinds import KINDS
from virtd.errors import VirtError
from virtd.state import files

_UNPLUGGABLE_BUSES = ("virtio", "usb", "scsi")
_CD_BUSES = ("usb", "scsi")
# The types of interfaces that come while a guest runs.
_CARDS = ("user", "network", "bridge", "ethernet", "direct", "vhostuser", "vdpa", "hostdev")
_INPUT_BUSES = ("usb", "virtio")


def check_attach(config: Config, kind: str, device: Any) -> None:
    """Refuse a device that cannot be plugged in.

    Args:
        config: the live configuration, without it.
        kind: its kind.
        device: the device as the client describes it.

    Raises:
        VirtError: VIR_ERR_OPERATION_UNSUPPORTED, or why not.
    """
    if KINDS[kind].describe is None:
        raise unsupported("attach", kind, live=True)
    match device:
        case Disk():
            if device.device == "floppy":
                raise _never("floppy device hotplug isn't supported")
        case Interface():
            if device.type not in _CARDS:
                raise _never(f"hotplug of interface type of {device.type} is not implemented yet")
        case Controller():
            if device.type != "scsi":
                raise _never(f"'{device.type}' controller cannot be hot plugged.")
            if any((one.type, one.index) == (device.type, device.index) for one in config.controllers):
                text = f"target {device.type}:{device.index} already exists"
                raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_QEMU)
        case Watchdog():
            if config.watchdogs:
                raise _not_now("domain already has a watchdog")
            if device.model != "i6300esb":
                raise _never(f"hotplug of watchdog of model {device.model} is not supported")
        case Vsock():
            if config.vsock is not None:
                raise _not_now("the domain already has a vsock device")
        case Input():
            if device.bus not in _INPUT_BUSES:
                raise _never(f"input device on bus '{device.bus or 'none'}' cannot be hot plugged.")
        case Filesystem():
            if device.driver is None or device.driver.type != "virtiofs":
                raise _never("only virtiofs filesystems can be hotplugged")
        case Console():
            if device.target_type in (None, "serial"):
                text = "unsupported console target type serial"
                raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)


def check_detach(config: Config, kind: str, device: Any) -> None:
    """Refuse a device that cannot be taken away, one of the guest's own.

    Raises:
        VirtError: VIR_ERR_OPERATION_UNSUPPORTED, or why not.
    """
    check_detachable(kind, device)
    match device:
        case Disk():
            if device.device == "floppy" or (device.device == "cdrom" and device.bus not in _CD_BUSES):
                raise _never(f"disk device type '{device.device}' cannot be detached")
            if device.bus not in _UNPLUGGABLE_BUSES:
                raise _never("This type of disk cannot be hot unplugged")
        case Controller():
            users: list[Disk | Hostdev] = [*config.disks, *config.hostdevs]
            if any(_is_on(one, device) for one in users):
                text = "device cannot be detached: device is busy"
                raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_QEMU)


def check_detachable(kind: str, device: Any) -> None:
    """Refuse what no guest lets go of, whether it has it or not.

    Raises:
        VirtError: VIR_ERR_OPERATION_UNSUPPORTED.
    """
    if KINDS[kind].describe is None:
        raise unsupported("detach", kind, live=True)
    match device:
        case Controller():
            if device.type != "scsi":
                raise _never(f"'{device.type}' controller cannot be hot unplugged.")
        case Input():
            if device.bus == "ps2":
                raise _never(f"input device on bus '{device.bus}' cannot be detached")


def check_saved(kind: str, device: Any, verb: str) -> None:
    """Refuse a device that a definition cannot get or lose by itself.

    Args:
        kind: its kind.
        device: the device.
        verb: 'attach' or 'detach'.

    Raises:
        VirtError: VIR_ERR_OPERATION_UNSUPPORTED, VIR_ERR_OPERATION_INVALID.
    """
    if "a" not in KINDS[kind].saved:
        raise unsupported(verb, kind, live=False)
    if isinstance(device, Console) and device.target_type in (None, "serial"):
        text = f"{verb}ing serial console is not supported"
        raise _never(text) if verb == "attach" else _not_now(text)


def _is_on(device: Disk | Hostdev, controller: Controller) -> bool:
    place = device.info.address
    scsi = device.type == "scsi" if isinstance(device, Hostdev) else device.bus == "scsi"
    return scsi and isinstance(place, DriveAddress) and place.controller == controller.index


def check_source(device: Any) -> None:
    """Say what is missing before QEMU does.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    if not isinstance(device, Disk):
        return
    path = storage.local_path(device.source)
    if path is not None and files.identity(path) is None:
        text = f"Cannot access storage file '{path}': No such file or directory"
        raise VirtError(c.VIR_ERR_SYSTEM_ERROR, text, domain=c.VIR_FROM_STORAGE)


def _never(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)


def _not_now(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_QEMU)
