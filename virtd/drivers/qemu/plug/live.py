"""Devices that come and go while QEMU runs: the same description as on its command line, as commands.

The commands that a device is made of are run one by one; if one is refused, what those before it made is taken back. A
device goes when the guest lets go of it, which it need not; what is behind it in QEMU goes after it, by the same
description read backwards.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from virtd import constants as c
from virtd import deadlines
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.base import Device
from virtd.conf.domain.disk import Disk
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.command import Setup, disks, storage
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.host.binary import Binary
from virtd.drivers.qemu.monitor.client import Monitor, QMPError
from virtd.drivers.qemu.plug import unfinished
from virtd.drivers.qemu.plug.kinds import KINDS
from virtd.drivers.qemu.plug.qmpline import QmpLine, Step
from virtd.drivers.qemu.run import access, confine, labels, prepare
from virtd.drivers.qemu.status import Status
from virtd.errors import VirtError
from virtd.state import files
from virtd.state.faults import point

# How long a guest may take to let go of a device, before its caller is told that it has been asked to.
UNPLUG_SECONDS = 5.0
_NODE = re.compile(r"libvirt-([0-9]+)-")
_REFUSALS = ("DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR")


class Plug:
    """A device that is being plugged in, or the medium of one that is being changed; a context manager.

    Args:
        config: the live configuration with the device in it; aliases and addresses are assigned.
        binary: the QEMU that runs.
        guest: the guest's directory.
        status: the guest's facts.
        setup: what has been prepared for the device.
        user: who QEMU runs as.
        owners: where is written down whom files belong to.
    """

    def __init__(
        self,
        config: Config,
        binary: Binary,
        guest: Guest,
        status: Status,
        setup: Setup,
        *,
        user: confine.User | None,
        owners: str,
    ) -> None:
        self._config = config
        self._guest = guest
        self._user = user
        self._owners = owners
        self._monitor = guest.monitor()
        sets = [shape.number(one, "fdset-id") for one in self._monitor.query_list("query-fdsets")]
        self._line = QmpLine(config, binary, setup, 1 + max(sets, default=-1))
        self._next = 1 + max((int(match[1]) for node in status.disks if (match := _NODE.match(node))), default=0)

    def __enter__(self) -> "Plug":
        return self

    def __exit__(self, *_: object) -> None:
        self._line.command.close()
        self._monitor.close()

    @property
    def names(self) -> Mapping[str, tuple[str, str]]:
        """The names by which QEMU calls new disks, for the status."""
        return self._line.command.disks

    def plug(self, kind: str, device: Device) -> None:
        """Give a device to the guest.

        Args:
            kind: its kind.
            device: a device of the configuration; what is chosen is written into it.

        Raises:
            VirtError: why it cannot be plugged; then nothing of it is left.
        """
        describe = KINDS[kind].describe
        assert describe is not None
        if isinstance(device, Disk):
            disks.add_disk(self._line, device, self._images(device))
        else:
            describe(self._line, device)
        self._run(self._line.steps, alias=device.info.alias)
        prepare.find_terminals(self._config, self._monitor)
        prepare.find_memory(self._config, self._monitor)

    def insert(self, disk: Disk, *, force: bool) -> None:
        """Change the medium of a drive, which may be empty before and after.

        QMP commands: blockdev-open-tray, blockdev-remove-medium, blockdev-insert-medium, blockdev-close-tray.
        """
        images = self._images(disk)
        node = storage.add_images(self._line, disk, images)
        name = disks.qom_name(disk)
        disks.remember(self._line, disk, images)
        monitor = self._monitor
        old = _inserted(monitor, name)
        if node is not None:
            self._run(self._line.steps)
        try:
            _swap(monitor, name, old, node, force=force)
        except QMPError:
            if node is not None:
                _take_back(monitor, self._line.steps)
            raise
        if node is None:
            access.forget(disk.info.alias or "", monitor)
        if old is not None:
            _remove_nodes(monitor, old)

    def _images(self, disk: Disk) -> list[storage.Image]:
        images = storage.chain(disk, self._next, writable=not (disk.readonly or disk.device == "cdrom"))
        if images:
            prepare.number_images(disk, images[0].number)
        return images

    def _run(self, steps: list[Step], *, alias: str | None = None) -> None:
        command, monitor = self._line.command, self._monitor
        held = access.lock(command.images)
        try:
            if self._user is not None:
                whose = labels.whose(self._config, self._user)
                access.open_way(command, self._user, self._owners, self._guest.directory, whose)
            self._forget_locks()  # of the medium before
            if alias is not None:
                unfinished.note(self._guest, self._config, alias, self.names, steps)
            access.hand_over(held, monitor)
            self._execute(steps)
        finally:
            access.release(held)

    def _execute(self, steps: list[Step]) -> None:
        """Run commands; if one is refused, what those before it made is taken back."""
        done: list[Step] = []
        try:
            for step in steps:
                self._monitor.execute(step.command, step.arguments, () if step.fd is None else (step.fd,))
                done.append(step)
                point("plug.command")
        except QMPError:
            _take_back(self._monitor, done)
            self._forget_locks()
            files.remove(self._guest.plug_path)
            raise

    def _forget_locks(self) -> None:
        for alias in {use.alias for use in self._line.command.images}:
            access.forget(alias, self._monitor)


def unplug(guest: Guest, alias: str) -> bool:
    """Ask a guest to let go of a device; tells whether it has done so in time, and its supervisor has recorded that.

    QMP: device_del, and the event DEVICE_DELETED.

    Raises:
        VirtError: QEMU does not even ask the guest, or the guest refuses.
    """
    with guest.monitor() as monitor:
        try:
            monitor.execute("device_del", {"id": alias})
        except QMPError as error:
            if error.qmp_class != "DeviceNotFound":
                raise
            raise VirtError(c.VIR_ERR_DEVICE_MISSING, f"no device with alias {alias}") from None
        try:
            event = monitor.wait_event(
                "DEVICE_DELETED",
                *_REFUSALS,
                matching=lambda event: event.data.get("device") == alias,
                seconds=UNPLUG_SECONDS,
            )
        except deadlines.DeadlineExceeded:
            return False
    point("plug.deleted")
    with guest.control() as control:
        control.sync(event)
    if event.name in _REFUSALS:
        text = "unplug of device was rejected by the guest"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_QEMU)
    return True


def clean_up(config: Config, binary: Binary, guest: Guest, gone: Iterable[tuple[str, Any]]) -> None:
    """Remove what QEMU has behind devices that the guest has let go of; what is not there is no matter.

    Args:
        config: the live configuration that still has them.
        binary: the QEMU that runs.
        guest: the guest's directory.
        gone: the devices, each with its kind.
    """
    with guest.monitor() as monitor:
        for kind, device in gone:
            if isinstance(device, Disk):
                if device.source is not None and device.source.index:
                    _remove_nodes(monitor, f"libvirt-{device.source.index}-format")
                access.forget(device.info.alias or "", monitor)
                continue
            line = QmpLine(config, binary, Setup(private=guest.private))
            describe = KINDS[kind].describe
            if describe is not None:
                describe(line, device)
            _take_back(monitor, line.steps)
            _close_files(monitor, line.steps)


def _take_back(monitor: Monitor, done: list[Step]) -> None:
    """Take back what commands have made; what is not there is no matter."""
    back = [step.back for step in reversed(done)]
    monitor.execute_all([(step.command, step.arguments) for step in back if step is not None])


def _close_files(monitor: Monitor, steps: list[Step]) -> None:
    """Let QEMU close the files that back ends wrote to."""
    backends = [shape.table(step.arguments, "backend", {}) for step in steps if step.command == "chardev-add"]
    data = [shape.table(backend, "data", {}) for backend in backends]
    paths = {one.get(name) for one in data for name in ("out", "logfile")} - {None}
    if not paths:
        return
    for one in monitor.query_list("query-fdsets"):
        if any(fd.get("opaque") in paths for fd in shape.tables(one, "fds")):
            monitor.execute_all([("remove-fd", {"fdset-id": shape.number(one, "fdset-id")})])


def _swap(monitor: Monitor, drive: str, old: str | None, new: str | None, *, force: bool) -> None:
    """Exchange the medium of a drive.

    In one go, since a guest that boots may close the tray again at any time.

    Raises:
        QMPError: the drive keeps its tray closed; the old medium is in it.
    """
    where: dict[str, object] = {"id": drive}
    opened = ("blockdev-open-tray", {**where, "force": force})
    commands = [opened]
    if old is not None:
        commands.append(("blockdev-remove-medium", where))
    if new is not None:
        commands.append(("blockdev-insert-medium", {**where, "node-name": new}))
    failure = next((one for one in monitor.execute_all(commands) if isinstance(one, QMPError)), None)
    if failure is not None and old is not None:
        monitor.execute_all([opened, ("blockdev-insert-medium", {**where, "node-name": old})])
    monitor.execute_all([("blockdev-close-tray", where)])
    if failure is not None:
        raise failure


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
