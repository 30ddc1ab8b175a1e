"""A guest's shares, limits, pins and schedulers, put in force at its start, before its first instruction.

Limits of the whole guest are files of its control group (cgroup v2); those of single threads are files of threaded
groups below it, one for each virtual CPU, each I/O thread, and QEMU's other threads. Pins and schedulers are the
threads' own, and need no group. What cannot be had on this host is refused in libvirt's words before QEMU starts.
"""

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.memory import BlkioTune, CpuTune, MemoryTune
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.monitor.client import Monitor
from virtd.drivers.qemu.run import cgroup, perf
from virtd.errors import VirtError
from virtd.state import files

_MOST_WEIGHT = 10_000  # cgroup v2 counts in 1..10000
_PERIOD = 100_000  # the kernel's own, in µs
_SCHEDULERS = {"batch": os.SCHED_BATCH, "idle": os.SCHED_IDLE, "fifo": os.SCHED_FIFO, "rr": os.SCHED_RR}
# io.max: fields of a device's limits, the kernel's keys.
_IO_LIMITS = (("read_bytes", "rbps"), ("write_bytes", "wbps"), ("read_iops", "riops"), ("write_iops", "wiops"))
_MISSING = {
    "io": ("Block I/O tuning is not available in session mode", "Block I/O tuning is not available on this host"),
    "memory": ("Memory tuning is not available in session mode", "Memory cgroup is not available on this host"),
    "cpu": ("CPU tuning is not available in session mode", "CPU tuning is not available on this host"),
}


class Threads(NamedTuple):
    """The ids of QEMU's threads: of virtual CPUs and I/O threads by their numbers, and of all others."""

    vcpus: dict[int, int]
    iothreads: dict[int, int]
    others: list[int]


def check(config: Config, group: str | None, *, privileged: bool) -> None:
    """Refuse what cannot be put in force on this host.

    Args:
        config: the guest's configuration.
        group: its control group; None if it has none.
        privileged: system mode.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED; VIR_ERR_ARGUMENT_UNSUPPORTED for a performance event.
    """
    there = frozenset() if group is None else cgroup.controllers(group)
    for controller, wanted in (
        ("io", _says(config.blkiotune)),
        ("memory", _says(config.memtune)),
        ("cpu", config.cputune is not None and bool(_whole(config.cputune))),
    ):
        if wanted and controller not in there:
            raise _unsupported(_MISSING[controller][privileged])
    tune = config.cputune or CpuTune()
    if any(_limits(tune, prefix) for prefix in ("", "emulator_", "iothread_")) and "cpu" not in there:
        raise _unsupported("cgroup cpu is required for scheduler tuning")
    if any(one.partitions for one in tune.cachetunes) or any(one.partitions for one in tune.memorytunes):
        # Nobody would give them out.
        raise _unsupported("Resource control is not supported on this host")
    numbers = iothread_numbers(config)
    for pin in tune.iothreadpins:
        if pin.iothread not in numbers:
            raise _unsupported(f"Cannot find 'iothread' : {pin.iothread}")
    for name in counted(config):
        if name not in perf.EVENTS:
            text = f"unable to enable host cpu perf event for {name}"
            raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text, domain=c.VIR_FROM_PERF)


def counted(config: Config) -> list[str]:
    """The host's performance counters that are to be kept for a guest."""
    return [event.name or "" for event in config.perf if event.enabled]


def set_group(config: Config, group: str | None) -> None:
    """Set the limits of a guest as a whole; QEMU comes under them when it is put into the group.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, the kernel does not take one.
    """
    if group is None:
        return
    if config.blkiotune is not None:
        set_io(group, config.blkiotune)
    if config.memtune is not None:
        _set_memory(group, config.memtune)
    for name, text in _whole(config.cputune or CpuTune()).items():
        cgroup.write(group, name, text)
    memory = config.numatune.memory if config.numatune is not None else None
    bound = memory is not None and memory.mode in ("strict", "restrictive", None)
    if memory is not None and bound and memory.nodeset and "cpuset" in cgroup.controllers(group):
        cgroup.write(group, "cpuset.mems", ",".join(map(str, sorted(memory.nodeset))))


def set_threads(config: Config, monitor: Monitor, pid: int, group: str | None, undo_path: str) -> None:
    """Pin and schedule QEMU's threads, and limit them.

    Args:
        config: the guest's configuration.
        monitor: QEMU's (QMP: query-cpus-fast, query-iothreads).
        pid: its process.
        group: its control group, if it has one.
        undo_path: the guest's undo file, where groups that are made are noted.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, the kernel refuses.
    """
    tune = config.cputune
    if tune is None:
        return
    threads = find(monitor, pid)
    set_vcpus(tune, threads.vcpus, group, undo_path)
    for thread_pin in tune.iothreadpins:
        if thread_pin.iothread in threads.iothreads:
            pin([threads.iothreads[thread_pin.iothread]], thread_pin.cpuset or frozenset())
    if tune.emulatorpin is not None:
        pin(threads.others, tune.emulatorpin.cpuset or frozenset())
    for one in tune.iothreadscheds:
        named = (threads.iothreads[n] for n in one.iothreads or () if n in threads.iothreads)
        _schedule(named, one.scheduler, one.priority)
    if tune.emulatorsched is not None:
        _schedule(threads.others, tune.emulatorsched.scheduler, tune.emulatorsched.priority)
    if group is not None:
        _limit_others(group, tune, threads, undo_path)


def set_vcpus(tune: CpuTune, vcpus: Mapping[int, int], group: str | None, undo_path: str) -> None:
    """Pin, schedule and limit the threads of virtual CPUs: of all at the start, of those that are plugged in later.

    Args:
        tune: what is said of them.
        vcpus: the threads by the CPUs' numbers.
        group, undo_path: as for set_threads(), which raises the same.
    """
    for one in tune.vcpupins:
        if one.vcpu is not None and one.vcpu in vcpus:
            pin([vcpus[one.vcpu]], one.cpuset or frozenset())
    for some in tune.vcpuscheds:
        _schedule((vcpus[number] for number in some.vcpus or () if number in vcpus), some.scheduler, some.priority)
    if group is not None:
        limited = {f"vcpu{number}": [thread] for number, thread in vcpus.items()}
        _limit(group, _limits(tune, ""), limited, undo_path)


def limit_threads(group: str, tune: CpuTune, threads: Threads, undo_path: str) -> None:
    """Limit threads by groups of their own below the guest's; raises as set_threads."""
    _limit(group, _limits(tune, ""), {f"vcpu{number}": [one] for number, one in threads.vcpus.items()}, undo_path)
    _limit_others(group, tune, threads, undo_path)


def _limit_others(group: str, tune: CpuTune, threads: Threads, undo_path: str) -> None:
    limited = {f"iothread{number}": [thread] for number, thread in threads.iothreads.items()}
    _limit(group, _limits(tune, "iothread_"), limited, undo_path)
    _limit(group, _limits(tune, "emulator_"), {"emulator": threads.others}, undo_path)


def _limit(group: str, limit: str | None, groups: Mapping[str, list[int]], undo_path: str) -> None:
    """Put threads into groups below the guest's, each of which has a limit; None for no limit, and no groups."""
    if limit is None:
        return
    for name, members in groups.items():
        path = cgroup.make_threaded(group, name, undo_path)
        cgroup.write(path, "cpu.max", limit)
        for thread in members:
            cgroup.write(path, "cgroup.threads", str(thread))


def find(monitor: Monitor, pid: int) -> Threads:
    """QEMU's threads (QMP: query-cpus-fast, query-iothreads)."""
    cpus = vcpu_threads(monitor)
    iothreads = {
        int(shape.text(one, "id").removeprefix("iothread")): shape.number(one, "thread-id")
        for one in monitor.query_list("query-iothreads")
        if shape.text(one, "id").removeprefix("iothread").isdigit()
    }
    known = {*cpus.values(), *iothreads.values()}
    others = [int(number) for number in os.listdir(f"/proc/{pid}/task") if int(number) not in known]
    return Threads(cpus, iothreads, others)


def vcpu_threads(monitor: Monitor) -> dict[int, int]:
    """The threads of virtual CPUs by their numbers (QMP: query-cpus-fast)."""
    found = monitor.query_list("query-cpus-fast")
    return {shape.number(one, "cpu-index"): shape.number(one, "thread-id") for one in found}


def iothread_numbers(config: Config) -> list[int]:
    """The numbers of a guest's I/O threads: those that are named, then the lowest that are free."""
    numbers = [one.id or 0 for one in config.iothread_ids]
    candidates = (number for number in range(1, 1 << 31) if number not in numbers)
    missing = (config.iothreads or 0) - len(numbers)
    return numbers + [number for number, _ in zip(candidates, range(missing), strict=False)]


def pin(threads: Iterable[int], cpus: frozenset[int]) -> None:
    """Let threads run on some CPUs only.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, none of the CPUs is there.
    """
    for thread in threads:
        try:
            os.sched_setaffinity(thread, cpus)
        except ProcessLookupError:
            continue  # it has ended meanwhile
        except OSError as error:
            raise files.os_error(error, f"cannot set CPU affinity on process {thread}") from None


def _schedule(threads: Iterable[int], scheduler: str | None, priority: int | None) -> None:
    for thread in threads:
        try:
            os.sched_setscheduler(thread, _SCHEDULERS[scheduler or "batch"], os.sched_param(priority or 0))
        except ProcessLookupError:
            continue
        except OSError as error:
            raise files.os_error(error, f"Cannot set scheduler parameters for pid {thread}") from None


def _says(model: BlkioTune | MemoryTune | None) -> bool:
    return model is not None and any(getattr(model, name) for name in model.fields)


def _whole(tune: CpuTune) -> dict[str, str]:
    """The files that limit the guest's CPUs as a whole."""
    found = {}
    if tune.shares:
        found["cpu.weight"] = str(min(_MOST_WEIGHT, tune.shares))
    limit = _limits(tune, "global_")
    return found | ({"cpu.max": limit} if limit else {})


def _limits(tune: CpuTune, prefix: str) -> str | None:
    """What cpu.max is for a kind of threads."""
    quota, period = getattr(tune, f"{prefix}quota"), getattr(tune, f"{prefix}period")
    if not quota and not period:
        return None
    return f"{quota if quota and quota > 0 else 'max'} {period or _PERIOD}"


def _set_memory(group: str, tune: MemoryTune) -> None:
    for name, kib in (("max", tune.hard_limit), ("high", tune.soft_limit), ("swap.max", _swap(tune))):
        if kib is not None:
            cgroup.write(group, f"memory.{name}", str(kib * 1024))


def _swap(tune: MemoryTune) -> int | None:
    """What of libvirt's limit of memory and swap together is for swap."""
    return None if tune.swap_hard_limit is None else max(0, tune.swap_hard_limit - (tune.hard_limit or 0))


def set_io(group: str, tune: BlkioTune, lifted: Mapping[str, Iterable[str]] | None = None) -> None:
    """Set the limits of a guest's I/O.

    Args:
        group: its control group.
        tune: the limits.
        lifted: what is no limit any more: path of the device → fields of the model.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, there is no such device, or the kernel does not take it.
    """
    for path, fields in (lifted or {}).items():
        keys = [f"{key}=max" for name, key in _IO_LIMITS if name in fields]
        if keys:
            cgroup.write(group, "io.max", " ".join([_number(path), *keys]))
    if tune.weight:
        _set_weight(group, "default", tune.weight)
    for device in tune.devices:
        number = _number(device.path or "")
        if device.weight:
            _set_weight(group, number, device.weight)
        limits = [f"{key}={getattr(device, name)}" for name, key in _IO_LIMITS if getattr(device, name)]
        if limits:
            cgroup.write(group, "io.max", " ".join([number, *limits]))


def _set_weight(group: str, what: str, weight: int) -> None:
    # The scheduler bfq has a file of its own.
    name = next((one for one in ("io.bfq.weight", "io.weight") if os.path.exists(f"{group}/{one}")), "io.weight")
    cgroup.write(group, f"{name}", f"{what} {weight}")


def _number(path: str) -> str:
    try:
        found = os.stat(path).st_rdev
    except OSError as error:
        raise files.os_error(error, f"Path '{path}' is not accessible") from None
    return f"{os.major(found)}:{os.minor(found)}"


def _unsupported(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
