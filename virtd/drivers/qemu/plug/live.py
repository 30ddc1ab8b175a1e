"""Devices that come and go while QEMU runs: the same description as on its command line, as commands.

What the command line would say of a device is turned into QMP commands one by one; if one is refused, what those before
it made is taken back. A device goes when the guest lets go of it, which it need not.
"""

import json
import re
from collections.abc import Mapping

from virtd import constants as c
from virtd import deadlines
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.devices import Rng
from virtd.conf.domain.disk import BackingStore, Disk
from virtd.conf.domain.interface import Interface
from virtd.drivers.qemu.command import Setup, disks, extras, net, storage
from virtd.drivers.qemu.command.line import Line
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.host.binary import Binary
from virtd.drivers.qemu.monitor.client import Monitor, QMPError
from virtd.drivers.qemu.run import access, confine
from virtd.drivers.qemu.status import Status
from virtd.errors import VirtError

Pluggable = Disk | Interface | Rng

# How long a guest may take to let go of a device, before its caller is told that it has been asked to.
UNPLUG_SECONDS = 5.0
# Options of the command line, and the commands that do the same.
_COMMANDS = {"-blockdev": "blockdev-add", "-netdev": "netdev_add", "-object": "object-add", "-device": "device_add"}
# The commands that take back what those made, and the property which names it.
_UNDO = {
    "blockdev-add": ("blockdev-del", "node-name", "node-name"),
    "netdev_add": ("netdev_del", "id", "id"),
    "object-add": ("object-del", "id", "id"),
}
_Command = tuple[str, dict[str, object]]
_NODE = re.compile(r"libvirt-([0-9]+)-")


class Plug:
    """What a device is made of in QEMU.

    Args:
        config: the live configuration with the device in it; aliases and addresses are assigned.
        binary: the QEMU that runs.
        guest: the guest's directory.
        status: the guest's facts.
        owners: where is written down whom files belong to.
    """

    def __init__(self, config: Config, binary: Binary, guest: Guest, status: Status, owners: str) -> None:
        self._owners = owners
        self._line = Line(config, binary, Setup(private=guest.private))
        self._guest = guest
        self._next = 1 + max((int(match[1]) for node in status.disks if (match := _NODE.match(node))), default=0)

    @property
    def names(self) -> Mapping[str, tuple[str, str]]:
        """The names by which QEMU calls new disks, for the status."""
        return self._line.command.disks

    def plug(self, device: Pluggable, user: confine.User | None) -> None:
        """Give a device to the guest.

        Args:
            device: a device of the configuration; what is chosen is written into it.
            user: who QEMU runs as.

        Raises:
            VirtError: why it cannot be plugged; then nothing of it is left.
        """
        match device:
            case Disk():
                disks.add_disk(self._line, device, self._images(device))
            case Interface():
                if device.type != "user":
                    text = f"an interface of type '{device.type}' cannot be plugged into a running guest"
                    raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
                net.add_interface(self._line, device)
            case Rng():
                extras.add_rng(self._line, device)
        self._run(user)

    def insert(self, disk: Disk, user: confine.User | None, *, force: bool) -> None:
        """Change the medium of a drive, which may be empty before and after.

        QMP commands: blockdev-open-tray, blockdev-remove-medium, blockdev-insert-medium, blockdev-close-tray.
        """
        images = self._images(disk)
        node = storage.add_images(self._line, disk, images)
        name = disks.qom_name(disk)
        disks.remember(self._line, disk, images)
        with self._guest.monitor() as monitor:
            old = _inserted(monitor, name)
            monitor.execute("blockdev-open-tray", {"id": name, "force": force})
            if old is not None:
                monitor.execute("blockdev-remove-medium", {"id": name})
            try:
                if node is not None:
                    self._run(user, monitor)
                    monitor.execute("blockdev-insert-medium", {"id": name, "node-name": node})
            except VirtError:
                _undo(monitor, self._commands())
                if old is not None:
                    monitor.execute("blockdev-insert-medium", {"id": name, "node-name": old})
                monitor.execute("blockdev-close-tray", {"id": name})
                raise
            monitor.execute("blockdev-close-tray", {"id": name})
            if node is None:
                access.forget(disk.info.alias or "", monitor)
            if old is not None:
                _remove_nodes(monitor, old)

    def _images(self, disk: Disk) -> list[storage.Image]:
        images = storage.chain(disk, self._next, writable=not (disk.readonly or disk.device == "cdrom"))
        for image in images:
            image.source.index = image.number
        if images and disk.backing is None:
            disk.backing = BackingStore()  # the end of the chain
        return images

    def _commands(self) -> list[_Command]:
        words = self._line.command.argv[1:]
        found = []
        for option, value in zip(words[::2], words[1::2], strict=True):
            command = _COMMANDS.get(option)
            if command is None:
                text = f"what option '{option}' does cannot be done while the guest runs"
                raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
            found.append((command, json.loads(value)))
        return found + self._line.command.commands

    def _run(self, user: confine.User | None, monitor: Monitor | None = None) -> None:
        commands = self._commands()
        held = access.lock(self._line.command.images)
        try:
            if user is not None:
                access.open_way(self._line.command, user, self._owners, self._guest.directory)
            if monitor is not None:
                for alias in {use.alias for use in self._line.command.images}:
                    access.forget(alias, monitor)
                access.hand_over(held, monitor)
                for name, arguments in commands:
                    monitor.execute(name, arguments)
                return
            with self._guest.monitor() as own:
                self._execute(own, commands, held)
        finally:
            access.release(held)

    def _execute(self, monitor: Monitor, commands: list[_Command], held: list[access.Held]) -> None:
        """Run commands; if one is refused, what those before it made is taken back."""
        done: list[_Command] = []
        access.hand_over(held, monitor)
        try:
            for name, arguments in commands:
                monitor.execute(name, arguments)
                done.append((name, arguments))
        except QMPError:
            _undo(monitor, done)
            for alias in {use.alias for use in self._line.command.images}:
                access.forget(alias, monitor)
            raise


def unplug(guest: Guest, alias: str) -> bool:
    """Ask a guest to let go of a device; tells whether it has done so in time, and its supervisor has recorded that.

    QMP: device_del, and the event DEVICE_DELETED.

    Raises:
        VirtError: QEMU does not even ask the guest.
    """
    with guest.monitor() as monitor:
        monitor.execute("device_del", {"id": alias})
        try:
            event = monitor.wait_event(
                "DEVICE_DELETED", matching=lambda event: event.data.get("device") == alias, seconds=UNPLUG_SECONDS
            )
        except deadlines.DeadlineExceeded:
            return False
    with guest.control() as control:
        control.sync(event)
    return True


def devices(config: Config) -> list[Pluggable]:
    """The devices of a guest that can come and go while it runs."""
    return [*config.disks, *config.interfaces, *config.rngs]


def clean_up(guest: Guest, gone: list[Pluggable]) -> None:
    """Remove what QEMU has behind devices that the guest has let go of; what is not there is no matter."""
    with guest.monitor() as monitor:
        for device in gone:
            alias = device.info.alias
            match device:
                case Disk():
                    if device.source is not None and device.source.index:
                        _remove_nodes(monitor, f"libvirt-{device.source.index}-format")
                    access.forget(alias or "", monitor)
                case Interface():
                    monitor.execute_all([("netdev_del", {"id": f"host{alias}"})])
                case Rng():
                    monitor.execute_all([("object-del", {"id": f"obj{alias}"})])


def _undo(monitor: Monitor, done: list[_Command]) -> None:
    """Take back what commands have made; what is not there is no matter."""
    undo = []
    for name, arguments in reversed(done):
        if name in _UNDO:
            command, key, argument = _UNDO[name]
            undo.append((command, {argument: arguments[key]}))
    monitor.execute_all(undo)


def _inserted(monitor: Monitor, name: str) -> str | None:
    """The node of the image in a drive; None if it is empty."""
    for one in monitor.query_list("query-block"):
        if one.get("qdev") == name:
            inserted = one.get("inserted")
            node = inserted.get("node-name") if isinstance(inserted, dict) else None
            return node if isinstance(node, str) else None
    return None


def _remove_nodes(monitor: Monitor, top: str) -> None:
    """Remove the nodes of a chain of images that no device uses any more, from the top."""
    match = _NODE.match(top)
    if match is None:
        return
    number = int(match[1])
    while True:
        names = [f"libvirt-{number}-{part}" for part in ("format", "storage")]
        results = monitor.execute_all([("blockdev-del", {"node-name": name}) for name in names])
        if any(isinstance(result, QMPError) for result in results):
            return  # there are no more, or they belong to another disk
        number += 1
