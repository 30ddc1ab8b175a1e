"""What a running QEMU uses, as the kernel counts it: CPU time, memory, and that of each of its threads.

Nothing here asks QEMU: it works of a guest that hangs, too. QEMU names its threads (debug-threads), which tells virtual
CPUs and I/O threads from the rest.
"""

import os
import re
from typing import NamedTuple

from virtd.state.process import Process, stat_fields

TICK = 10_000_000  # ns: USER_HZ is 100 on all of Linux's machines
_PAGE = os.sysconf("SC_PAGESIZE")
_VCPU = re.compile(rb"CPU (\d+)/")
_IOTHREAD = re.compile(rb"IO iothread(\d+)")
# How many guests' threads a process keeps in mind.
_KEPT = 1024


class Times(NamedTuple):
    """CPU time in ns."""

    user: int
    system: int

    @property
    def total(self) -> int:
        return self.user + self.system


class Threads(NamedTuple):
    """The threads of a QEMU that are of interest: number of the virtual CPU, or of the I/O thread → thread id."""

    vcpus: dict[int, int]
    iothreads: dict[int, int]


class VcpuUse(NamedTuple):
    """A virtual CPU: time it ran, host CPU it ran on last, time it waited for I/O and for a CPU; ns."""

    time: int
    cpu: int
    wait: int
    delay: int


_threads: dict[tuple[int, int], tuple[frozenset[str], Threads, dict[str, bytes]]] = {}


def times(pid: int, group: str | None = None) -> Times:
    """The CPU time of a process with all its threads.

    Args:
        pid: the process.
        group: its control group, whose counters are finer; None if it has none of its own.
    """
    if group is not None:
        found = _group_times(f"{group}/cpu.stat")
        if found is not None:
            return found
    fields = stat_fields(pid)
    return Times(0, 0) if fields is None else Times(int(fields[11]) * TICK, int(fields[12]) * TICK)


def _group_times(path: str) -> Times | None:
    try:
        with open(path, encoding="ascii") as file:
            table = dict(line.split() for line in file)
        return Times(int(table["user_usec"]) * 1000, int(table["system_usec"]) * 1000)
    except (OSError, ValueError, KeyError):
        return None


def resident(pid: int) -> int:
    """The memory of a process that is in RAM, in KiB."""
    fields = stat_fields(pid)
    return 0 if fields is None else int(fields[21]) * _PAGE // 1024


def threads(process: Process) -> Threads:
    """The threads of a QEMU. Names are read of new threads only."""
    directory = f"/proc/{process.pid}/task"
    try:
        ids = frozenset(os.listdir(directory))
    except OSError:
        return Threads({}, {})
    key = process.pid, process.start
    known = _threads.get(key)
    if known is not None and known[0] == ids:
        return known[1]
    before = known[2] if known is not None else {}
    # A thread that has just been started may not have its own name yet.
    names = {
        number: name
        if (name := before.get(number, b"")) and not name.startswith(b"qemu-")
        else _name(directory, number)
        for number in ids
    }
    found = Threads({}, {})
    for number, name in names.items():
        for pattern, table in ((_VCPU, found.vcpus), (_IOTHREAD, found.iothreads)):
            match = pattern.match(name)
            if match is not None:
                table[int(match[1])] = int(number)
    if len(_threads) >= _KEPT:
        _threads.clear()
    _threads[key] = ids, found, names
    return found


def _name(directory: str, number: str) -> bytes:
    try:
        with open(f"{directory}/{number}/comm", "rb") as file:
            return file.read()
    except OSError:
        return b""


def vcpu(pid: int, thread: int) -> VcpuUse:
    """What the thread of a virtual CPU has used."""
    directory = f"/proc/{pid}/task/{thread}"
    try:
        with open(f"{directory}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        with open(f"{directory}/schedstat", "rb") as file:
            delay = int(file.read().split()[1])
    except (OSError, IndexError):
        return VcpuUse(0, -1, 0, 0)
    return VcpuUse((int(fields[11]) + int(fields[12])) * TICK, int(fields[36]), _waited(directory), delay)


def _waited(directory: str) -> int:
    """How long a thread slept in I/O, which the kernel counts only if it is told to (kernel.sched_schedstats)."""
    try:
        with open(f"{directory}/sched", "rb") as file:
            for line in file:
                if line.startswith((b"se.statistics.wait_sum", b"wait_sum")):
                    return int(float(line.rpartition(b":")[2]) * 1_000_000)
    except OSError:
        pass
    return 0


def halt_polling(pid: int) -> tuple[int, int]:
    """How long KVM polled for halted CPUs with and without success, in ns, where debugfs tells."""
    base = "/sys/kernel/debug/kvm"
    try:
        names = [name for name in os.listdir(base) if name.startswith(f"{pid}-")]
    except OSError:
        return 0, 0
    counters = [0, 0]
    for directory in names:
        for place, name in enumerate(("halt_poll_success_ns", "halt_poll_fail_ns")):
            try:
                with open(f"{base}/{directory}/{name}", encoding="ascii") as file:
                    counters[place] += int(file.read())
            except (OSError, ValueError):
                pass
    return counters[0], counters[1]
