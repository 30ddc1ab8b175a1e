"""Processes for tests: run one under a keeper, look at what descends from one, end some.

Knows nothing of virtd.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.helpers.waiting import SECONDS, wait_ended

__all__ = ["Kept", "Process", "descendants", "end", "run_kept"]

_KEEPER = str(Path(__file__).with_name("keeper.py"))


class Process(NamedTuple):
    """A line of `ps`."""

    pid: int
    ppid: int
    state: str  # as in proc(5): R, S, D, Z, T…
    title: str


class Kept(NamedTuple):
    """What came out of run_kept."""

    keeper: subprocess.Popen[bytes]  # lives until all that the command started has ended
    result: subprocess.CompletedProcess[str]


def run_kept(command: Sequence[str], *, env: Mapping[str, str], stdin: str = "", seconds: float = SECONDS) -> Kept:
    """Run a command under a keeper (keeper.py), which stays as the ancestor of whatever the command leaves running.

    Waits until the command has ended and everybody has closed its standard output and error, as a shell's pipe or
    ssh would: a daemon that keeps them open is a bug that shows here. `stdin` must fit into a pipe (64 KiB). Raises
    subprocess.TimeoutExpired after `seconds`; everything started is killed then.
    """
    reader, writer = os.pipe()
    keeper = subprocess.Popen(
        [sys.executable, "-ISE", _KEEPER, str(writer), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[writer],
        env=dict(env),
    )
    os.close(writer)
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    with open(reader, "rb") as report, keeper.stdin as into, keeper.stdout as out, keeper.stderr as err:
        into.write(stdin.encode())
        into.close()
        try:
            status, output, errors = _read_all([report.fileno(), out.fileno(), err.fileno()], seconds)
        except TimeoutError:
            end(process.pid for process in descendants([keeper.pid]))
            keeper.wait(10)
            raise subprocess.TimeoutExpired(list(command), seconds) from None
    code = os.waitstatus_to_exitcode(int(status)) if status else 127
    return Kept(keeper, subprocess.CompletedProcess(list(command), code, output.decode(), errors.decode()))


def _read_all(descriptors: list[int], seconds: float) -> list[bytes]:
    """Read each of the descriptors to its end. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    read = {descriptor: bytearray() for descriptor in descriptors}
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    left = len(descriptors)
    while left:
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            raise TimeoutError
        for descriptor, _ in ready:
            data = os.read(descriptor, 65536)
            read[descriptor] += data
            if not data:
                poll.unregister(descriptor)
                left -= 1
    return [bytes(read[descriptor]) for descriptor in descriptors]


def descendants(roots: Iterable[int]) -> list[Process]:
    """All live processes below the given ones, which are not among them; zombies do not count as live."""
    children: dict[int, list[Process]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := _look(int(entry))) is not None:
            children.setdefault(process.ppid, []).append(process)
    found: list[Process] = []
    queue = list(roots)
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += [process.pid for process in below]
    return [process for process in found if process.state not in "ZX"]


def _look(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None  # it has ended since
    name, _, rest = stat.partition(b" (")[2].rpartition(b") ")
    state, ppid = rest.split()[:2]
    title = command.rstrip(b"\0").replace(b"\0", b" ") or b"[%s]" % name
    return Process(pid, int(ppid), state.decode(), title.decode(errors="replace"))


def end(pids: Iterable[int], seconds: float = SECONDS) -> None:
    """Kill processes and wait until they have ended. Those that are gone already do not matter."""
    pids = list(pids)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for pid in pids:
        wait_ended(pid, seconds)
