"""What happens between a starter and the supervisor that it forks, which starts QEMU and the programs beside it.

They talk over a socket, the leash: a line of JSON each way. If the starter dies before the guest is published, the
leash is cut, and the supervisor ends QEMU and undoes what was done.
"""

import json
import os
import signal
import socket
from typing import NamedTuple

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.command import Command
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.monitor.client import MonitorClosed
from virtd.drivers.qemu.run import confine, helpers, supervisor
from virtd.drivers.qemu.run.ending import leave
from virtd.drivers.qemu.status import Status
from virtd.errors import VirtError
from virtd.state import files, locks, undo
from virtd.state.commit import Generation
from virtd.state.faults import point
from virtd.state.process import Process, detach

# How long the supervisor may take for one step.
_STEP_SECONDS = 30.0


class Spawn(NamedTuple):
    """What the supervisor needs to start QEMU, and the programs beside it.

    Attributes:
        command: QEMU's command line, and the descriptors it takes along.
        environment: all of its environment.
        user: who it runs as.
        group: its control group.
        passed: descriptors of the client's, which become 3, 4, …
        helpers: what is started before it.
    """

    command: Command
    environment: dict[str, str]
    user: confine.User | None
    group: str | None
    passed: list[int]
    helpers: list[helpers.Helper]


def supervise(
    guest: Guest, generation: Generation, definition: str, found: Status, spawn: Spawn, log_path: str
) -> socket.socket:
    """Fork the supervisor, which starts QEMU; returns the leash.

    Args:
        guest: the guest's directory.
        generation: the instance's generation.
        definition: path of the persistent definition, which exists or not.
        found: the guest's status so far.
        spawn: what is to be started.
        log_path: the guest's log.
    """
    ours, theirs = socket.socketpair()
    leash = confine.raised(theirs.detach())

    def body() -> None:
        with socket.socket(fileno=leash) as connection:
            try:
                kept = _place(spawn)
                lock = locks.acquire(guest.supervisor_path, "the supervisor")
                if deadlines.readable(leash, 0):
                    # The starter has died already. Either it has a successor, or nobody needs the directory any more,
                    # which the lock may have made again.
                    leave(guest)
                    return
                process = _spawn(guest, found, spawn, kept)
                point("start.spawned")
                watch = supervisor.Supervisor(guest, generation, definition, found, child=True)
            except VirtError as error:
                _say(connection, {"error": error.detail, "code": error.code})
                return
            watch.attach(connection)
            _say(connection, {"process": {"pid": process.pid, "start": process.start}})
            watch.run()
            lock.release()
            # Nobody waits for this process any more: it has time for what it has had to leave behind, or others.
            undo.retry(os.path.dirname(guest.directory))

    of_helpers = [descriptor for helper in spawn.helpers for descriptor in helper.descriptors]
    detach(body, f"virtd: guest {guest.name}", log_path, [leash, *spawn.command.fds, *spawn.passed, *of_helpers])
    os.close(leash)
    for descriptor in spawn.passed:
        os.close(descriptor)
    return ours


def process(leash: socket.socket) -> Process:
    """The QEMU that the supervisor has started; raises as publish."""
    table = shape.table(_hear(leash), "process")
    return Process(shape.number(table, "pid"), shape.number(table, "start"))


def publish(leash: socket.socket, *, detail: int, reason: int, paused: bool) -> None:
    """Let the supervisor make the start known; from then on the guest lives by itself.

    Args:
        leash: the connection to it.
        detail: VIR_DOMAIN_EVENT_STARTED_* of the event.
        reason: VIR_DOMAIN_RUNNING_* of the state.
        paused: whether it stays paused.

    Raises:
        MonitorClosed: QEMU has ended.
        VirtError: what the supervisor could not do.
    """
    request = {"do": "publish", "detail": detail, "reason": reason, "paused": paused}
    leash.sendall(json.dumps(request).encode() + b"\n")
    _hear(leash)


def _place(spawn: Spawn) -> list[int]:
    """Give the client's descriptors the numbers that it counts on; returns all that QEMU keeps."""
    numbers = []
    for number, descriptor in enumerate(spawn.passed, start=3):
        os.dup2(descriptor, number, inheritable=False)
        os.close(descriptor)
        numbers.append(number)
    return [*numbers, *spawn.command.fds]


def end_orphan(guest: Guest) -> None:
    """End the QEMU of a supervisor that was killed during the start; the supervisor's lock is free."""
    left = guest.status()
    if left is None or left.process is None:
        return
    try:
        descriptor = os.pidfd_open(left.process.pid)
    except ProcessLookupError:
        return
    try:
        if left.process.alive():  # not the next process of this number
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            deadlines.readable(descriptor, supervisor.KILL_SECONDS)
    finally:
        os.close(descriptor)


def _spawn(guest: Guest, found: Status, spawn: Spawn, kept: list[int]) -> Process:
    """Start QEMU and what runs beside it as children of this process, and keep none of their descriptors."""

    def record(pid: int) -> None:
        found.process = Process.of(pid)
        files.replace(guest.status_path, found.encode(), durable=False)

    try:
        for helper in spawn.helpers:
            helpers.start(helper, guest.undo_path)
        pid = confine.spawn(
            spawn.command.argv,
            environment=spawn.environment,
            output=2,  # the guest's log
            fds=kept,
            user=spawn.user,
            group=spawn.group,
            cpus=spawn.command.cpus,
            locked=spawn.command.locked,
            record=record,
        )
    finally:
        for descriptor in kept:
            os.close(descriptor)
    return Process.of(pid)


def _say(connection: socket.socket, message: dict[str, object]) -> None:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass  # the starter has died; that is seen by reading


def _hear(leash: socket.socket) -> shape.Table:
    """What the supervisor says; raises as publish."""
    line = b""
    while not line.endswith(b"\n"):
        if not deadlines.readable(leash.fileno(), _STEP_SECONDS):
            raise deadlines.DeadlineExceeded("QEMU did not start in time")
        # No further than the line's end: when QEMU ends at once, that is said right behind.
        seen = leash.recv(65536, socket.MSG_PEEK)
        chunk = leash.recv(seen.find(b"\n") + 1 or len(seen)) if seen else b""
        if not chunk:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "the supervisor ended during the start", domain=c.VIR_FROM_QEMU)
        line += chunk
    answer = shape.as_table(json.loads(line), "answer")
    if "exited" in answer:
        raise MonitorClosed("QEMU has ended")
    if "error" in answer:
        raise VirtError(shape.number(answer, "code"), shape.text(answer, "error"), domain=c.VIR_FROM_QEMU)
    return answer
