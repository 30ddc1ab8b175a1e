"""The groups of virConnectGetAllDomainStats: what each asks of QEMU, and what it makes of the answers.

A group is a line in GROUPS. What QEMU is not asked for, or did not answer, is left out; the rest is told all the same.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

from virtd import constants as c
from virtd.conf.domain.os import PERF_EVENTS
from virtd.drivers import typed
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.monitor import ask
from virtd.drivers.qemu.monitor.client import Command
from virtd.drivers.qemu.stats import blocks as statblocks
from virtd.drivers.qemu.stats import netstats, usage
from virtd.drivers.qemu.stats.facts import Facts
from virtd.drivers.qemu.stats.known import Known
from virtd.protocol.records import TypedParam

# virDomainMemoryStats and the balloon group: QEMU's name, the tag, the name in the group, divisor into libvirt's unit.
BALLOON_STATS = (
    ("stat-swap-in", c.VIR_DOMAIN_MEMORY_STAT_SWAP_IN, "swap_in", 1024),
    ("stat-swap-out", c.VIR_DOMAIN_MEMORY_STAT_SWAP_OUT, "swap_out", 1024),
    ("stat-major-faults", c.VIR_DOMAIN_MEMORY_STAT_MAJOR_FAULT, "major_fault", 1),
    ("stat-minor-faults", c.VIR_DOMAIN_MEMORY_STAT_MINOR_FAULT, "minor_fault", 1),
    ("stat-free-memory", c.VIR_DOMAIN_MEMORY_STAT_UNUSED, "unused", 1024),
    ("stat-total-memory", c.VIR_DOMAIN_MEMORY_STAT_AVAILABLE, "available", 1024),
    ("stat-available-memory", c.VIR_DOMAIN_MEMORY_STAT_USABLE, "usable", 1024),
    ("last-update", c.VIR_DOMAIN_MEMORY_STAT_LAST_UPDATE, "last-update", 1),
    ("stat-disk-caches", c.VIR_DOMAIN_MEMORY_STAT_DISK_CACHES, "disk_caches", 1024),
    ("stat-htlb-pgalloc", c.VIR_DOMAIN_MEMORY_STAT_HUGETLB_PGALLOC, "hugetlb_pgalloc", 1),
    ("stat-htlb-pgfail", c.VIR_DOMAIN_MEMORY_STAT_HUGETLB_PGFAIL, "hugetlb_pgfail", 1),
)
COUNTERS = "counters"  # what the supervisor answers, among the answers of QEMU
_NEVER_TOLD: shape.Table = {"last-update": 0, "stats": {}}  # … of a guest that is not asked
_UNKNOWN = (1 << 64) - 1  # what the guest has not told


def balloon_numbers(answer: shape.Table) -> list[tuple[int, str, int]]:
    """What a guest tells of its memory: tag, name and value of each number.

    Args:
        answer: the property guest-stats of the balloon.
    """
    stats = shape.table(answer, "stats", {})
    found = []
    for name, tag, short, divisor in BALLOON_STATS:
        value = shape.number(answer if name == "last-update" else stats, name, _UNKNOWN)
        if value not in (_UNKNOWN, -1):
            found.append((tag, short, value // divisor))
    return found


def _state(known: Known) -> list[TypedParam]:
    return [typed.integer("state.state", known.state[0]), typed.integer("state.reason", known.state[1])]


def _cpu(known: Known) -> list[TypedParam]:
    if known.status is None or known.status.process is None:
        return []
    pid = known.status.process.pid
    spent = usage.times(pid, known.group)
    success, fail = usage.halt_polling(pid)
    return [
        typed.unsigned_long("cpu.time", spent.total),
        typed.unsigned_long("cpu.user", spent.user),
        typed.unsigned_long("cpu.system", spent.system),
        typed.unsigned("cpu.cache.monitor.count", 0),
        typed.unsigned_long("cpu.haltpoll.success.time", success),
        typed.unsigned_long("cpu.haltpoll.fail.time", fail),
    ]


def _balloon(known: Known) -> list[TypedParam]:
    facts, status = known.facts, known.status
    if status is None:
        return [
            typed.unsigned_long("balloon.current", facts.current_memory),
            typed.unsigned_long("balloon.maximum", facts.memory),
        ]
    actual = shape.number(known.table("query-balloon"), "actual", 0) // 1024
    default = status.memory if facts.balloon is not None else facts.memory
    params = [
        typed.unsigned_long("balloon.current", actual or default),
        typed.unsigned_long("balloon.maximum", facts.memory),
    ]
    told = known.table("qom-get") if facts.stats_period else _NEVER_TOLD
    if facts.balloon is not None:
        params += [typed.unsigned_long(f"balloon.{name}", value) for _, name, value in balloon_numbers(told)]
    if status.process is not None:
        params.append(typed.unsigned_long("balloon.rss", usage.resident(status.process.pid)))
    return params


def _vcpu(known: Known) -> list[TypedParam]:
    facts, status = known.facts, known.status
    params = [typed.unsigned("vcpu.current", facts.vcpus), typed.unsigned("vcpu.maximum", facts.max_vcpus)]
    if status is None or status.process is None:
        return params
    for number, thread in sorted(usage.threads(status.process).vcpus.items()):
        used = usage.vcpu(status.process.pid, thread)
        params += [
            typed.integer(f"vcpu.{number}.state", c.VIR_VCPU_RUNNING),
            typed.unsigned_long(f"vcpu.{number}.time", used.time),
            typed.unsigned_long(f"vcpu.{number}.wait", used.wait),
            typed.unsigned_long(f"vcpu.{number}.delay", used.delay),
            *_vcpu_counters(known, number),
        ]
    return params


def _interface(known: Known) -> list[TypedParam]:
    if known.status is None:
        return []
    params = [typed.unsigned("net.count", len(known.facts.cards))]
    for number, card in enumerate(known.facts.cards):
        counters = None if card.target is None else netstats.read(card.target, swapped=card.kind != "direct")
        if card.target is None or counters is None:
            continue
        params.append(typed.string(f"net.{number}.name", card.target))
        params += [
            typed.unsigned_long(f"net.{number}.{way}.{what}", value)
            for (way, what), value in zip(netstats.NAMES, counters, strict=True)
        ]
    return params


def _perf(known: Known) -> list[TypedParam]:
    counted = known.table(COUNTERS)
    return [
        typed.unsigned_long(f"perf.{name}", shape.number(counted, name))
        for name in PERF_EVENTS.names
        if name in counted
    ]


def _iothread(known: Known) -> list[TypedParam]:
    if known.status is None or not known.facts.iothreads:
        return []
    answered = known.list("query-iothreads")
    params = [typed.unsigned("iothread.count", len(answered))]
    for one in answered:
        number = shape.text(one, "id").removeprefix("iothread")
        params += [
            typed.unsigned_long(f"iothread.{number}.poll-max-ns", shape.number(one, "poll-max-ns", 0)),
            typed.unsigned(f"iothread.{number}.poll-grow", shape.number(one, "poll-grow", 0)),
            typed.unsigned(f"iothread.{number}.poll-shrink", shape.number(one, "poll-shrink", 0)),
        ]
    return params


def _memory(known: Known) -> list[TypedParam]:
    """Memory bandwidth monitors need <memorytune>, which is not supported."""
    return []


_DIRTY_STATES = {
    "unstarted": c.VIR_DOMAIN_DIRTYRATE_UNSTARTED,
    "measuring": c.VIR_DOMAIN_DIRTYRATE_MEASURING,
    "measured": c.VIR_DOMAIN_DIRTYRATE_MEASURED,
}


_NEVER_MEASURED: shape.Table = {"status": "unstarted"}


def _dirty_rate(known: Known) -> list[TypedParam]:
    if known.status is None:
        return []
    answer = known.table("query-dirty-rate") or _NEVER_MEASURED
    state = _DIRTY_STATES.get(shape.text(answer, "status"), c.VIR_DOMAIN_DIRTYRATE_UNSTARTED)
    params = [
        typed.integer("dirtyrate.calc_status", state),
        typed.long("dirtyrate.calc_start_time", shape.number(answer, "start-time", 0)),
        typed.integer("dirtyrate.calc_period", shape.number(answer, "calc-time", 0)),
        typed.string("dirtyrate.calc_mode", shape.text(answer, "mode", "page-sampling")),
    ]
    if state == c.VIR_DOMAIN_DIRTYRATE_MEASURED:
        params.append(typed.long("dirtyrate.megabytes_per_second", shape.number(answer, "dirty-rate", 0)))
        params += [
            typed.unsigned_long(
                f"dirtyrate.vcpu.{shape.number(one, 'id')}.megabytes_per_second", shape.number(one, "dirty-rate", 0)
            )
            for one in shape.tables(answer, "vcpu-dirty-rate", [])
        ]
    return params


def _vm(known: Known) -> list[TypedParam]:
    return [param for one in known.list("query-stats vm") for param in _kvm(known, "vm", one, "vm")]


# What kind of number a counter of KVM is, as libvirt's names end.
_KVM_ENDINGS = {"cumulative": "sum", "instant": "cur", "peak": "max"}


def _kvm(known: Known, target: str, told: shape.Table, prefix: str) -> list[TypedParam]:
    """Counters of KVM; histograms are left out."""
    endings = {
        shape.text(one, "name"): _KVM_ENDINGS.get(shape.text(one, "type"))
        for schema in known.list("query-stats-schemas")
        if schema.get("target") == target
        for one in shape.tables(schema, "stats")
    }
    params = []
    for one in shape.tables(told, "stats", []):
        name, value = shape.text(one, "name"), one.get("value")
        ending = endings.get(name)
        if ending is None:
            continue
        if isinstance(value, bool):
            params.append(typed.boolean(f"{prefix}.{name}.{ending}", value))
        elif isinstance(value, int):
            params.append(typed.unsigned_long(f"{prefix}.{name}.{ending}", value))
    return params


def _vcpu_counters(known: Known, number: int) -> list[TypedParam]:
    """KVM's counters of one virtual CPU, which QEMU tells of by its own name for that."""
    names = {shape.number(one, "cpu-index"): one.get("qom-path") for one in known.list("query-cpus-fast")}
    for one in known.list("query-stats vcpu"):
        if one.get("qom-path") is not None and one.get("qom-path") == names.get(number):
            return _kvm(known, "vcpu", one, f"vcpu.{number}")
    return []


def _kvm_commands(target: str, *more: Command) -> Callable[[Facts, Guest], list[Command]]:
    """What a guest that KVM runs is asked (since QEMU 7.1)."""
    about = {"target": target, "providers": [{"provider": "kvm"}]}
    wanted: list[Command] = [("query-stats", about), ("query-stats-schemas", {"provider": "kvm"}), *more]
    return lambda facts, guest: wanted if facts.kvm else []


def _balloon_commands(facts: Facts, guest: Guest) -> list[Command]:
    """What is known without QEMU is not asked for: each command costs QEMU as much as the whole connection does."""
    found: list[Command] = []
    if facts.balloon is not None and facts.current_memory != facts.memory:
        found.append(("query-balloon", None))
    if facts.balloon is not None and facts.stats_period:
        found.append(
            ("qom-get", {"path": f"/machine/peripheral/{facts.balloon}", "property": "guest-stats"}),
        )
    return found


def _iothread_commands(facts: Facts, guest: Guest) -> list[Command]:
    return [("query-iothreads", None)] if facts.iothreads else []


def _dirty_rate_commands(facts: Facts, guest: Guest) -> list[Command]:
    return [("query-dirty-rate", None)] if os.path.exists(guest.dirty_rate_path) else []


class Group(NamedTuple):
    """A group: what makes its parameters, and what it has to ask of QEMU."""

    make: Callable[[Known], list[TypedParam]]
    ask: Callable[[Facts, Guest], list[Command]] = lambda facts, guest: []


GROUPS: dict[int, Group] = {
    c.VIR_DOMAIN_STATS_STATE: Group(_state),
    c.VIR_DOMAIN_STATS_CPU_TOTAL: Group(_cpu),
    c.VIR_DOMAIN_STATS_BALLOON: Group(_balloon, _balloon_commands),
    c.VIR_DOMAIN_STATS_VCPU: Group(_vcpu, _kvm_commands("vcpu", ("query-cpus-fast", None))),
    c.VIR_DOMAIN_STATS_INTERFACE: Group(_interface),
    c.VIR_DOMAIN_STATS_BLOCK: Group(statblocks.make, lambda facts, guest: statblocks.commands(facts)),
    c.VIR_DOMAIN_STATS_PERF: Group(_perf),
    c.VIR_DOMAIN_STATS_IOTHREAD: Group(_iothread, _iothread_commands),
    c.VIR_DOMAIN_STATS_MEMORY: Group(_memory),
    c.VIR_DOMAIN_STATS_DIRTYRATE: Group(_dirty_rate, _dirty_rate_commands),
    c.VIR_DOMAIN_STATS_VM: Group(_vm, _kvm_commands("vm")),
}
ALL = sum(GROUPS)


def commands(facts: Facts, guest: Guest, stats: int) -> list[Command]:
    """What QEMU has to be asked for some groups (VIR_DOMAIN_STATS_*)."""
    wanted = [command for bit, group in GROUPS.items() if stats & bit for command in group.ask(facts, guest)]
    return list({ask.key(command): command for command in wanted}.values())
