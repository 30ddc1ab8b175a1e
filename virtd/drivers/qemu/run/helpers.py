"""Programs that run beside QEMU and end with it: emulated TPMs, file systems, reservations, displays' buses, GPUs.

The supervisor starts them before QEMU, since it is there as long as the guest. Most end by themselves when QEMU lets
go of their socket; those that would not are written down, and ended by whoever cleans up after the guest.
"""

import os
import shutil
import signal
import stat
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.run import confine, described
from virtd.errors import VirtError
from virtd.state import files, inotify, undo
from virtd.state.process import Process

DIRECTORIES = ("/etc/qemu/vhost-user", "/usr/share/qemu/vhost-user")
# How long a program may take until its socket is there.
_READY_SECONDS = 10.0
_POLL_SECONDS = 0.001
# How long one may take to end when it is asked to.
_END_SECONDS = 2.0
_ACCEPTS = 1 << 16  # __SO_ACCEPTCON, <linux/net.h>


class Helper(NamedTuple):
    """A program that is started before QEMU.

    Attributes:
        argv: the program and its arguments.
        descriptors: what it keeps open, under these numbers.
        user: who it runs as; None for who runs this.
        privileged: whether it keeps what root may do.
        ready: the socket that it makes, or the file that it writes its process id to, which has to be there before
            QEMU is started.
        owner: whom that socket is to belong to.
        bound: whether it has to be ended, as nothing that QEMU does ends it.
    """

    argv: list[str]
    descriptors: list[int]
    user: confine.User | None = None
    privileged: bool = False
    ready: str | None = None
    owner: confine.User | None = None
    bound: bool = True

    def close(self) -> None:
        """Close its descriptors in this process."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


def start(helper: Helper, undo_path: str, output: int = 2) -> None:
    """Start a program, as a child of this process.

    Args:
        helper: the program; its descriptors are closed here.
        undo_path: the guest's undo file.
        output: the guest's log.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, it cannot be run; VIR_ERR_INTERNAL_ERROR, it has ended, or does nothing.
    """
    watch = None
    try:
        if helper.ready is not None:
            files.remove(helper.ready)  # of one that was here before
            undo.note(undo_path, "file", path=helper.ready)
            watch = inotify.Watch(os.path.dirname(helper.ready), inotify.IN_CREATE | inotify.IN_MODIFY)
        pid = confine.spawn(
            helper.argv,
            environment={"PATH": confine.PATH, "LC_ALL": "C"},
            output=output,
            fds=helper.descriptors,
            user=helper.user,
            privileged=helper.privileged,
        )
        if helper.bound:
            process = Process.of(pid)
            undo.note(undo_path, "process", pid=process.pid, start=process.start)
        if helper.ready is not None and watch is not None:
            _await(helper, watch, pid)
    finally:
        helper.close()
        if watch is not None:
            watch.close()


def start_beside(wanted: list[Helper], undo_path: str, log_path: str) -> None:
    """Start programs for a guest that runs already; they outlive this process. Raises as start()."""
    if not wanted:
        return
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        for helper in wanted:
            start(helper, undo_path, log)
    finally:
        os.close(log)


def device_program(kind: str, *, unless: str | None = None) -> tuple[str, Mapping[str, Any]]:
    """A program for a kind of vhost-user device, by the descriptions that distributions ship (QEMU, vhost-user.json).

    Args:
        kind: 'fs', 'gpu'.
        unless: the path of the program that is to be taken in any case.

    Returns:
        Its path, and its description.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, there is none.
    """
    if unless is not None:
        return unless, {}
    for table in described.read(DIRECTORIES):
        if table.get("type") == kind:
            return shape.text(table, "binary"), table
    name = {"fs": "virtiofsd"}.get(kind, f"vhost-user-{kind}")
    raise VirtError(c.VIR_ERR_OPERATION_FAILED, f"Unable to find a satisfying {name}", domain=c.VIR_FROM_QEMU)


def program(name: str, package: str) -> str:
    """The path of a program.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED naming the package that has it.
    """
    path = shutil.which(name, path=confine.PATH)
    if path is None:
        text = f"Unable to find '{name}' binary in $PATH: it is in the package {package}"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    return path


def _await(helper: Helper, watch: inotify.Watch, pid: int) -> None:
    """Wait until a program is ready, and give its socket to whom it is for."""
    assert helper.ready is not None
    name = os.path.basename(helper.argv[0])
    descriptor = os.pidfd_open(pid)
    end = time.monotonic() + _READY_SECONDS
    try:
        while not _is_ready(helper.ready):
            # The name of the socket has its event, but none for the moment after that when it can be connected to.
            left = _POLL_SECONDS if os.path.exists(helper.ready) else end - time.monotonic()
            found = deadlines.any_readable((watch.fileno(), descriptor), max(left, 0))
            if descriptor in found:
                text = f"'{name}' ended with {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"
                raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_QEMU)
            if time.monotonic() >= end:
                raise deadlines.DeadlineExceeded(f"'{name}' was not ready in time", domain=c.VIR_FROM_QEMU)
            watch.clear()
    finally:
        os.close(descriptor)
    if helper.owner is not None:
        os.chown(helper.ready, helper.owner.uid, helper.owner.gid)


def _is_ready(path: str) -> bool:
    """Whether a file has content, or somebody listens on a socket; that is told without connecting to it, as many a
    program serves one client only.
    """
    try:
        found = os.stat(path)
    except OSError:
        return False
    if not stat.S_ISSOCK(found.st_mode):
        return found.st_size > 0
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as sockets:
        # Num RefCount Protocol Flags Type St Inode Path
        fields = (line.rstrip("\n").split(maxsplit=7) for line in sockets)
        return any(row[7:] == [path] and int(row[3], 16) & _ACCEPTS for row in fields)


def _end(table: dict[str, Any]) -> None:
    """End a program that would not end by itself, or on being asked: qemu-pr-helper forgets a SIGTERM that comes while
    it starts.
    """
    process = Process(table["pid"], table["start"])
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.alive():
                signal.pidfd_send_signal(descriptor, number)
                deadlines.readable(descriptor, _END_SECONDS)
        if process.alive():
            raise deadlines.DeadlineExceeded(f"process {process.pid} does not end")
    except ProcessLookupError:
        pass  # it has ended by itself
    finally:
        os.close(descriptor)


undo.KINDS["process"] = _end
