"""Guests' processors: how many, where they run, what they cost; and I/O threads."""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell import cpumaps, states, typed
from virtd.shell.acts import AFFECT, AFFECT_OPTIONS, affect
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Cell, Output, Plain, Single, Table
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIVE, _CONFIG = c.VIR_DOMAIN_AFFECT_LIVE, c.VIR_DOMAIN_AFFECT_CONFIG
# The tuning of an I/O thread: option, parameter and its type.
_IOTHREAD = (
    ("poll-max-ns", "poll_max_ns", c.VIR_TYPED_PARAM_ULLONG),
    ("poll-grow", "poll_grow", c.VIR_TYPED_PARAM_UINT),
    ("poll-shrink", "poll_shrink", c.VIR_TYPED_PARAM_UINT),
    ("thread-pool-min", "thread_pool_min", c.VIR_TYPED_PARAM_INT),
    ("thread-pool-max", "thread_pool_max", c.VIR_TYPED_PARAM_INT),
)


def host_cpus(session: Session) -> int:
    """How many CPUs the host has."""
    try:
        count: int = session.call("node_get_cpu_map", 0, 0, 0)[2]
    except VirtError:
        _, _, _, _, nodes, sockets, cores, threads = session.call("node_get_info")
        return int(nodes * sockets * cores * threads)
    return count


def vcpucount(session: Session, args: Args) -> Output:
    """virDomainGetVcpusFlags."""
    for one, other in (("live", "config"), ("active", "maximum"), ("guest", "config")):
        args.exclusive(one, other)
    domain = session.domain(args.required("domain"))
    flags = args.flags(AFFECT)
    if args.flag("guest"):
        return Single("vcpus", session.call("domain_get_vcpus_flags", domain, flags | c.VIR_DOMAIN_VCPU_GUEST))
    if args.flag("maximum") or args.flag("active") or flags or args.flag("current"):
        most = c.VIR_DOMAIN_VCPU_MAXIMUM if args.flag("maximum") else 0
        return Single("vcpus", session.call("domain_get_vcpus_flags", domain, flags | most))
    lines = []
    persistent, active = session.call("domain_is_persistent", domain), session.call("domain_is_active", domain)
    for kind, bit in (("maximum", c.VIR_DOMAIN_VCPU_MAXIMUM), ("current", 0)):
        for place, there, where in (("config", persistent, _CONFIG), ("live", active, _LIVE)):
            if there:
                lines.append((kind, place, session.call("domain_get_vcpus_flags", domain, where | bit)))
    text = "".join(f"{kind:<12} {place:<12} {count:>3}\n" for kind, place, count in lines)
    data: dict[str, dict[str, int]] = {}
    for kind, place, count in lines:
        data.setdefault(kind, {})[place] = count
    return Plain("vcpus", text, data)


def vcpuinfo(session: Session, args: Args) -> Output:
    """virDomainGetVcpus; of a guest that does not run virDomainGetVcpuPinInfo."""
    domain = session.domain(args.required("domain"))
    count = host_cpus(session)
    vcpus = session.call("domain_get_info", domain)[3]
    length = (count + 7) // 8
    blocks, found = [], []
    try:
        infos, maps = session.call("domain_get_vcpus", domain, vcpus, length)
    except VirtError as error:
        if error.code != c.VIR_ERR_OPERATION_INVALID or session.call("domain_is_active", domain):
            raise
        maps, number = session.call("domain_get_vcpu_pin_info", domain, vcpus, length, _CONFIG)
        infos = [None] * number
    for number, info in enumerate(infos):
        bits = maps[number * length : (number + 1) * length]
        numbers = cpumaps.of_host(count, bits)
        shown = f"{cpumaps.ranges(numbers)} (out of {count})" if args.flag("pretty") else cpumaps.letters(bits, count)
        facts: dict[str, Any] = {"vcpu": number, "affinity": numbers}
        lines = [f"{'VCPU:':<15} {number}"]
        if info is None:
            lines += [f"{'CPU:':<15} N/A", f"{'State:':<15} N/A", f"{'CPU time':<15} N/A"]
        else:
            facts |= {"cpu": info.cpu, "state": states.of(states.VCPU, info.state), "cpu_time_ns": info.cpu_time}
            lines += [f"{'CPU:':<15} {info.cpu}", f"{'State:':<15} {facts['state']}"]
            if info.cpu_time:
                lines.append(f"{'CPU time:':<15} {info.cpu_time / 1e9:.1f}s")
        blocks.append("\n".join([*lines, f"{'CPU Affinity:':<15} {shown}"]) + "\n")
        found.append(facts)
    return Plain("vcpus", "\n".join(blocks), found)


def vcpupin(session: Session, args: Args) -> Output | None:
    """virDomainGetVcpuPinInfo, virDomainPinVcpuFlags."""
    args.exclusive("live", "config")
    flags = affect(args)
    vcpu, cpulist = args.natural("vcpu"), args.text("cpulist")
    if cpulist is not None and vcpu is None:
        raise Failure("vcpupin: Missing vCPU number in pin mode.")
    domain = session.domain(args.required("domain"))
    count = host_cpus(session)
    if cpulist is not None:
        bits = cpumaps.parse(cpulist, count)
        if flags:
            session.call("domain_pin_vcpu_flags", domain, vcpu, bits, flags)
        elif args.flag("current"):
            session.call("domain_pin_vcpu_flags", domain, vcpu, bits, 0)
        else:
            session.call("domain_pin_vcpu", domain, vcpu, bits)
        return None
    live = flags & _LIVE or (not flags and session.call("domain_is_active", domain))
    where = _LIVE if live else _CONFIG
    vcpus = session.call("domain_get_vcpus_flags", domain, where | c.VIR_DOMAIN_VCPU_MAXIMUM)
    if vcpu is not None and vcpu >= vcpus:
        raise Failure(f"vcpu {vcpu} is out of range of {'live' if live else 'persistent'} cpu count {vcpus}")
    length = (count + 7) // 8
    maps, number = session.call("domain_get_vcpu_pin_info", domain, vcpus, length, flags)
    table = Table((("vcpu", "VCPU"), ("affinity", "CPU Affinity")))
    for one in range(number):
        if vcpu in (None, one):
            table.add(one, _affinity(count, maps[one * length : (one + 1) * length]))
    return table


def _affinity(count: int, bits: bytes) -> Cell:
    numbers = cpumaps.of_host(count, bits)
    return Cell(cpumaps.ranges(numbers), numbers)


def emulatorpin(session: Session, args: Args) -> Output | None:
    """virDomainGetEmulatorPinInfo, virDomainPinEmulator."""
    args.exclusive("live", "config")
    flags = affect(args)
    cpulist = args.text("cpulist")
    domain = session.domain(args.required("domain"))
    count = host_cpus(session)
    if cpulist is not None:
        session.call("domain_pin_emulator", domain, cpumaps.parse(cpulist, count), flags)
        return None
    bits, _ = session.call("domain_get_emulator_pin_info", domain, (count + 7) // 8, flags)
    affinity = _affinity(count, bits)
    heading = "" if session.quiet else f"emulator: CPU Affinity\n{'-' * 34}\n{'*: ':>10}"
    return Plain("affinity", f"{heading}{affinity.text}\n", affinity.value)


def setvcpus(session: Session, args: Args) -> None:
    """virDomainSetVcpus, virDomainSetVcpusFlags."""
    args.exclusive("guest", "config")
    args.requires("maximum", "config")
    flags = affect(args) | args.flags(
        {
            "maximum": c.VIR_DOMAIN_VCPU_MAXIMUM,
            "guest": c.VIR_DOMAIN_VCPU_GUEST,
            "hotpluggable": c.VIR_DOMAIN_VCPU_HOTPLUGGABLE,
        }
    )
    domain = session.domain(args.required("domain"))
    count = args.natural("count") or 0
    if count == 0:
        raise Failure("Can't set 0 processors for a VM")
    if flags or args.flag("current"):
        session.call("domain_set_vcpus_flags", domain, count, flags)
    else:
        session.call("domain_set_vcpus", domain, count)


def _enabled(args: Args) -> bool:
    """What --enable and --disable say.

    Raises:
        Failure: neither or both were given.
    """
    args.exclusive("enable", "disable")
    if not (args.flag("enable") or args.flag("disable")):
        raise Failure("one of --enable, --disable is required")
    return args.flag("enable")


def setvcpu(session: Session, args: Args) -> None:
    """virDomainSetVcpu."""
    on = _enabled(args)
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    session.call("domain_set_vcpu", domain, args.required("vcpulist"), int(on), flags)


def guestvcpus(session: Session, args: Args) -> Output | None:
    """virDomainGetGuestVcpus, virDomainSetGuestVcpus."""
    for name in ("enable", "disable"):
        args.requires(name, "cpulist")
    domain = session.domain(args.required("domain"))
    cpulist = args.text("cpulist")
    if cpulist is not None:
        session.call("domain_set_guest_vcpus", domain, cpulist, int(_enabled(args)), 0)
        return None
    found = session.call("domain_get_guest_vcpus", domain, 0)
    return Plain("vcpus", "".join(f"{one.field:<15}: {typed.text(one)}\n" for one in found), typed.data(found))


def cpu_stats(session: Session, args: Args) -> Output:
    """virDomainGetCPUStats."""
    name = args.required("domain")
    domain = session.domain(name)
    start, count = args.number("start"), args.number("count")
    if start is not None and start < 0:
        raise Failure("Invalid value for start CPU")
    if count is not None and count < 0:
        raise Failure("Invalid value for number of CPUs to show")
    total = args.flag("total") or (start is None and count is None)
    each = start is not None or count is not None or not args.flag("total")
    text = ""
    data: dict[str, Any] = {}
    with failing(f"Failed to retrieve CPU statistics for domain '{name}'"):
        if each:
            first = start or 0
            most = session.call("domain_get_cpu_stats", domain, 0, 0, 0, 0)[1]
            if first >= most:
                raise Failure(f"Start CPU {first} is out of range (min: 0, max: {most - 1})")
            number = most - first if count is None else count
            if number > most - first:
                text = f"Only {most - first} CPUs available to show\n"
                number = most - first
            fields = session.call("domain_get_cpu_stats", domain, 0, 0, 1, 0)[1]
            for cpu in range(first, first + number):
                found, _ = session.call("domain_get_cpu_stats", domain, fields, cpu, 1, 0)
                text += f"CPU{cpu}:\n{_times(found, ('cpu_time', 'vcpu_time'))}"
                data[str(cpu)] = typed.data(found)
        if total:
            fields = session.call("domain_get_cpu_stats", domain, 0, -1, 1, 0)[1]
            found, _ = session.call("domain_get_cpu_stats", domain, fields, -1, 1, 0)
            text += f"Total:\n{_times(found, ('cpu_time', 'user_time', 'system_time'))}"
            data["total"] = typed.data(found)
    return Plain("cpus", text, data)


def _times(found: list[Any], names: tuple[str, ...]) -> str:
    lines = ""
    for one in found:
        if one.field in names:
            time = one.value.value
            lines += f"\t{one.field:<12} {time // 10**9:>9}.{time % 10**9:09} seconds\n"
    return lines


# I/O threads


def iothreadinfo(session: Session, args: Args) -> Output:
    """virDomainGetIOThreadInfo."""
    args.exclusive("live", "config")
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    with failing("Unable to get domain IOThreads information"):
        threads, _ = session.call("domain_get_iothread_info", domain, flags)
    if not threads:
        return Plain("iothreads", "" if session.quiet else "No IOThreads found for the domain", [])
    count = host_cpus(session)
    table = Table((("id", "IOThread ID"), ("affinity", "CPU Affinity")))
    for thread in threads:
        table.add(thread.iothread_id, _affinity(count, thread.cpumap))
    return table


def _thread(args: Args, name: str) -> int:
    """The number of an I/O thread."""
    number = args.number(name)
    if number is None or number <= 0:
        raise Failure(f"Invalid IOThread id value: '{number}'")
    return number


def iothreadpin(session: Session, args: Args) -> None:
    """virDomainPinIOThread."""
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    thread = args.natural("iothread")
    bits = cpumaps.parse(args.required("cpulist"), host_cpus(session))
    session.call("domain_pin_iothread", domain, thread, bits, flags)


def iothreadadd(session: Session, args: Args) -> None:
    """virDomainAddIOThread."""
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    session.call("domain_add_iothread", domain, _thread(args, "id"), flags)


def iothreaddel(session: Session, args: Args) -> None:
    """virDomainDelIOThread."""
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    session.call("domain_del_iothread", domain, _thread(args, "id"), flags)


def iothreadset(session: Session, args: Args) -> None:
    """virDomainSetIOThreadParams."""
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    thread = _thread(args, "id")
    wanted = []
    for option, name, kind in _IOTHREAD:
        value = args.number(option, *typed.bounds(kind))
        if value is not None:
            wanted.append(typed.make(name, kind, value))
    if not wanted:
        raise Failure("Not enough arguments passed, nothing to set")
    session.call("domain_set_iothread_params", domain, thread, wanted, flags)


_THREAD = {"id": "iothread"}

COMMANDS = (
    Command(
        "cpu-stats", "<domain> [--total] [--start <number>] [--count <number>]", "show a guest's CPU time", cpu_stats
    ),
    Command(
        "emulatorpin",
        f"<domain> [--cpulist <string>] {AFFECT_OPTIONS}",
        "show or set which CPUs a guest's emulator uses",
        emulatorpin,
    ),
    Command(
        "guestvcpus",
        "<domain> [--cpulist <string>] [--enable] [--disable]",
        "show or change which processors a guest uses, by its agent",
        guestvcpus,
    ),
    Command("iothreadadd", f"<domain> <id:number> {AFFECT_OPTIONS}", "add an I/O thread", iothreadadd),
    Command(
        "iothreaddel", f"<domain> <id:number> {AFFECT_OPTIONS}", "remove an I/O thread", iothreaddel, kinds=_THREAD
    ),
    Command("iothreadinfo", f"<domain> {AFFECT_OPTIONS}", "show a guest's I/O threads", iothreadinfo),
    Command(
        "iothreadpin",
        f"<domain> <iothread:number> <cpulist> {AFFECT_OPTIONS}",
        "set which CPUs an I/O thread uses",
        iothreadpin,
    ),
    Command(
        "iothreadset",
        "<domain> <id:number> [--poll-max-ns <number>] [--poll-grow <number>] [--poll-shrink <number>] "
        f"[--thread-pool-min <number>] [--thread-pool-max <number>] {AFFECT_OPTIONS}",
        "tune an I/O thread",
        iothreadset,
        kinds=_THREAD,
    ),
    Command(
        "setvcpu",
        f"<domain> <vcpulist> [--enable] [--disable] {AFFECT_OPTIONS}",
        "plug single processors of a guest in or out",
        setvcpu,
    ),
    Command(
        "setvcpus",
        "<domain> <count:number> [--maximum] [--config] [--live] [--current] [--guest] [--hotpluggable]",
        "set how many processors a guest has",
        setvcpus,
    ),
    Command(
        "vcpucount",
        "<domain> [--maximum] [--active] [--live] [--config] [--current] [--guest]",
        "show how many processors a guest has",
        vcpucount,
    ),
    Command("vcpuinfo", "<domain> [--pretty]", "show what a guest's processors do", vcpuinfo),
    Command(
        "vcpupin",
        f"<domain> [--vcpu <number>] [--cpulist <string>] {AFFECT_OPTIONS}",
        "show or set which CPUs a guest's processors use",
        vcpupin,
    ),
)
