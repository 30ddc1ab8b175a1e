"""The kinds of devices: what their elements are called, where a configuration has them, and what can become of each.

A new kind is a line in the table. How QEMU is told of a device is not said here, but by the functions that describe it
on the command line.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from virtd.conf.domain import Domain as Config
from virtd.conf.domain.base import Device
from virtd.conf.domain.chardev import Channel, Console, Parallel, Serial
from virtd.conf.domain.controller import Controller
from virtd.conf.domain.devices import Balloon, Hub, Iommu, Panic, Rng, Shmem, Vsock, Watchdog
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.display import Audio, Graphics, Input, Sound, Video
from virtd.conf.domain.filesystem import Filesystem
from virtd.conf.domain.hostdev import Hostdev
from virtd.conf.domain.interface import Interface
from virtd.conf.domain.memorydevice import MemoryDevice
from virtd.conf.domain.redirect import RedirDevice, Smartcard
from virtd.conf.domain.tpm import Tpm
from virtd.drivers.qemu.command import controllers, disks, display, extras, hostdevs, memory, net, ports, storage
from virtd.drivers.qemu.command.line import Line

Describe = Callable[[Line, Any], None]


class Kind(NamedTuple):
    """A kind of device.

    Attributes:
        model: its class.
        field: where a configuration has its devices, a list, or the one.
        describe: tells a line of one that comes while the guest runs; None: none can come or go.
        saved: what can become of one in a definition, as letters: a(ttach and detach), u(pdate).
        changed: whether one can be changed while the guest runs.
        called: what libvirt calls it in messages about changes, if not as its element.
    """

    model: Any
    field: str
    describe: Describe | None = None
    saved: str = ""
    changed: bool = False
    called: str | None = None

    @property
    def single(self) -> bool:
        """Whether a guest has one at most."""
        return self.field in ("memballoon", "iommu", "vsock")


def _disk(line: Line, disk: Disk) -> None:
    """A disk whose images have their numbers."""
    writable = not (disk.readonly or disk.device == "cdrom")
    number = disk.source.index if disk.source is not None else None
    disks.add_disk(line, disk, storage.chain(disk, number or 1, writable=writable))


KINDS: dict[str, Kind] = {
    "disk": Kind(Disk, "disks", _disk, "au", changed=True),
    "interface": Kind(Interface, "interfaces", net.add_interface, "au", changed=True),
    "controller": Kind(Controller, "controllers", controllers.add_controller, "a"),
    "rng": Kind(Rng, "rngs", extras.add_rng, "a"),
    "watchdog": Kind(Watchdog, "watchdogs", extras.add_watchdog, "a"),
    "input": Kind(Input, "inputs", display.add_input, "a"),
    "hostdev": Kind(Hostdev, "hostdevs", hostdevs.add_hostdev, "a"),
    "redirdev": Kind(RedirDevice, "redirdevs", ports.add_redirdev, "a"),
    "filesystem": Kind(Filesystem, "filesystems", extras.add_filesystem, "a"),
    "shmem": Kind(Shmem, "shmems", extras.add_shmem, "a"),
    "memory": Kind(MemoryDevice, "memory_devices", memory.add_device, "au", changed=True),
    "vsock": Kind(Vsock, "vsock", extras.add_vsock, "a"),
    "serial": Kind(Serial, "serials", ports.add_serial, "a", called="chr"),
    "parallel": Kind(Parallel, "parallels", ports.add_parallel, "a", called="chr"),
    "console": Kind(Console, "consoles", ports.add_console, "a", called="chr"),
    "channel": Kind(Channel, "channels", ports.add_channel, "a", called="chr"),
    "sound": Kind(Sound, "sounds", saved="a"),
    "graphics": Kind(Graphics, "graphics", saved="u", changed=True),
    "video": Kind(Video, "videos"),
    "tpm": Kind(Tpm, "tpms"),
    "panic": Kind(Panic, "panics"),
    "hub": Kind(Hub, "hubs"),
    "smartcard": Kind(Smartcard, "smartcards"),
    "memballoon": Kind(Balloon, "memballoon"),
    "iommu": Kind(Iommu, "iommu"),
    "audio": Kind(Audio, "audios"),
}


def devices(config: Config, kind: str) -> list[Any]:
    """The devices of a kind that a guest has."""
    found = getattr(config, KINDS[kind].field)
    if KINDS[kind].single:
        return [] if found is None else [found]
    return list(found)


def all_devices(config: Config) -> Iterator[tuple[str, Any]]:
    """All devices of a guest that can be told by an alias, each with its kind."""
    for kind in KINDS:
        for device in devices(config, kind):
            if isinstance(device, Device):
                yield kind, device


def insert(config: Config, kind: str, device: Device) -> None:
    """Put a device into a configuration, behind the others of its kind."""
    if KINDS[kind].single:
        setattr(config, KINDS[kind].field, device)
    else:
        getattr(config, KINDS[kind].field).append(device)


def remove(config: Config, kind: str, device: Device) -> None:
    """Take a device, which is one of the configuration's own, out of it."""
    if KINDS[kind].single:
        setattr(config, KINDS[kind].field, None)
        return
    found = getattr(config, KINDS[kind].field)
    found[:] = [one for one in found if one is not device]
