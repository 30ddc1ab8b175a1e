"""The host and the connection: what they are, and how much of them is free."""

from __future__ import annotations

import time

from virtd import LIBVIRT_VERSION
from virtd import constants as c
from virtd.shell import cpumaps, xmltext
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Cell, Fields, Output, Plain, Single
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TARGETS = ("mem", "disk", "hybrid")  # virNodeSuspendTarget
_CPU_TIMES = ("user", "system", "idle", "iowait", "intr")
_MEMORY_TUNING = ("shm_pages_to_scan", "shm_sleep_millisecs", "shm_merge_across_nodes")


def number_of(version: int) -> str:
    """A version as people write it; 1,000,000 times major + 1,000 times minor + release."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"


def capabilities(session: Session, args: Args) -> Output:
    """virConnectGetCapabilities."""
    with failing("failed to get capabilities"):
        text = session.call("connect_get_capabilities")
    return Plain("xml", f"{text}\n")


def hostname(session: Session, args: Args) -> Output:
    """virConnectGetHostname."""
    with failing("failed to get hostname"):
        return Single("hostname", session.call("connect_get_hostname"))


def sysinfo(session: Session, args: Args) -> Output:
    """virConnectGetSysinfo."""
    with failing("failed to get sysinfo"):
        return Plain("xml", session.call("connect_get_sysinfo", 0))


def uri(session: Session, args: Args) -> Output:
    """virConnectGetURI."""
    return Single("uri", session.connect().uri)


def version(session: Session, args: Args) -> Output:
    """virConnectGetVersion, virConnectGetLibVersion."""
    with failing("failed to get hypervisor type"):
        kind = session.call("connect_get_type")
    own = number_of(LIBVIRT_VERSION)
    fields = Fields(0)
    fields.add("Compiled against library:", Cell(f"libvirt {own}", own), "library")
    fields.add("Using library:", Cell(f"libvirt {own}", own), "using_library")
    fields.add("Using API:", Cell(f"{kind} {own}", kind), "hypervisor")
    with failing("failed to get the hypervisor version"):
        number = session.call("connect_get_version")
    if number:
        text = number_of(number)
        fields.add("Running hypervisor:", Cell(f"{kind} {text}", text), "hypervisor_version")
    else:
        text = f"Cannot extract running {kind} hypervisor version"
        return Plain("version", fields.text(_plain(), quiet=True) + text + "\n", fields.data())
    if args.flag("daemon"):
        with failing("failed to get the daemon version"):
            fields.add("Running against daemon:", number_of(session.call("connect_get_lib_version")), "daemon")
    return fields


def _plain() -> Any:
    from virtd.shell.output import Style

    return Style(False)


def nodeinfo(session: Session, args: Args) -> Output:
    """virNodeGetInfo."""
    with failing("failed to get node information"):
        model, memory, cpus, mhz, nodes, sockets, cores, threads = session.call("node_get_info")
    fields = Fields(20)
    fields.add("CPU model:", model.rstrip(b"\0").decode(errors="surrogateescape"))
    fields.add("CPU(s):", cpus, "cpus")
    fields.add("CPU frequency:", Cell(f"{mhz} MHz", mhz), "cpu_mhz")
    fields.add("CPU socket(s):", sockets, "sockets")
    fields.add("Core(s) per socket:", cores, "cores_per_socket")
    fields.add("Thread(s) per core:", threads, "threads_per_core")
    fields.add("NUMA cell(s):", nodes, "numa_cells")
    fields.add("Memory size:", Cell(f"{memory} KiB", memory), "memory_kib")
    return fields


def nodecpumap(session: Session, args: Args) -> Output:
    """virNodeGetCPUMap."""
    with failing("Unable to get cpu map"):
        bits, online, count = session.call("node_get_cpu_map", 1, 1, 0)
    numbers = [cpu for cpu in range(count) if cpumaps.has(bits, cpu)]
    shown = cpumaps.ranges(numbers) if args.flag("pretty") else cpumaps.letters(bits, count)
    fields = Fields(15)
    fields.add("CPUs present:", count)
    fields.add("CPUs online:", online)
    fields.add("CPU map:", Cell(shown, numbers))
    return fields


def nodecpustats(session: Session, args: Args) -> Output:
    """virNodeGetCPUStats: times since the host was started, or how they were spent in a second."""
    cpu = args.number("cpu")
    number = c.VIR_NODE_CPU_STATS_ALL_CPUS if cpu is None else cpu
    stats = _cpu_times(session, number)
    fields = Fields(15)
    if not args.flag("percent"):
        for name in _CPU_TIMES:
            if name in stats:
                fields.add(f"{name}:", Cell(f"{stats[name]:>20}", stats[name]), f"{name}_ns")
        if "utilization" in stats:
            fields.add("usage:", Cell(f"{stats['utilization']:>5.1f}%", stats["utilization"]), "usage_percent")
        return fields
    if "utilization" in stats:
        fields.add("usage:", Cell(f"{stats['utilization']:>5.1f}%", stats["utilization"]), "usage_percent")
        return fields
    time.sleep(1)  # what is asked for is the use during one second
    later = _cpu_times(session, number)
    spent = {name: later[name] - stats[name] for name in _CPU_TIMES if name in stats and name in later}
    total = sum(spent.values()) or 1
    usage = (spent.get("user", 0) + spent.get("system", 0)) / total * 100
    fields.add("usage:", Cell(f"{usage:>5.1f}%", round(usage, 1)), "usage_percent")
    for name, span in spent.items():
        share = span / total * 100
        fields.add(f"{name}:", Cell(f"{share:>5.1f}%", round(share, 1)), f"{name}_percent")
    return fields


def _cpu_times(session: Session, cpu: int) -> dict[str, int]:
    with failing("Unable to get node cpu stats"):
        _, count = session.call("node_get_cpu_stats", cpu, 0, 0)
        stats, _ = session.call("node_get_cpu_stats", cpu, count, 0)
    times = {stat.field: stat.value for stat in stats}
    if "kernel" in times:
        times["system"] = times.pop("kernel")
    return times


def nodememstats(session: Session, args: Args) -> Output:
    """virNodeGetMemoryStats."""
    cell = args.number("cell")
    number = c.VIR_NODE_MEMORY_STATS_ALL_CELLS if cell is None else cell
    with failing("Unable to get number of memory stats"):
        _, count = session.call("node_get_memory_stats", 0, number, 0)
    with failing("Unable to get memory stats"):
        stats, _ = session.call("node_get_memory_stats", count, number, 0)
    lines = "".join(f"{stat.field:<7}: {stat.value:>20} KiB\n" for stat in stats)
    return Plain("memory", lines, {f"{stat.field}_kib": stat.value for stat in stats})


def _cell_numbers(session: Session) -> list[int]:
    """The numbers of the host's NUMA nodes, from its capabilities."""
    with failing("unable to get node capabilities"):
        root = xmltext.parse(session.call("connect_get_capabilities"))
    numbers = [cell.get("id") for cell in root.iterfind("host/topology/cells/cell")]
    if not numbers:
        raise Failure("could not get information about NUMA topology")
    return [int(number or 0) for number in numbers]


def freecell(session: Session, args: Args) -> Output:
    """virNodeGetFreeMemory, virNodeGetCellsFreeMemory."""
    args.exclusive("all", "cellno")
    cell = args.number("cellno")
    if args.flag("all"):
        found = {}
        for number in _cell_numbers(session):
            with failing(f"failed to get free memory for NUMA node number: {number}"):
                found[number] = session.call("node_get_cells_free_memory", number, 1)[0] // 1024
        text = "".join(f"{number:>5}: {free:>10} KiB\n" for number, free in found.items())
        if not session.quiet:
            text += f"--------------------\n{'Total':>5}: {sum(found.values()):>10} KiB\n"
        return Plain("free_kib", text, {str(number): free for number, free in found.items()})
    if cell is None:
        free = session.call("node_get_free_memory") // 1024
        return Plain("free_kib", f"Total: {free} KiB\n", free)
    if cell < -1:
        raise Failure("cell number must be non-negative integer or -1")
    found_list = session.call("node_get_cells_free_memory", cell, 1)
    free = found_list[0] // 1024
    return Plain("free_kib", f"{cell}: {free} KiB\n", free)


def freepages(session: Session, args: Args) -> Output:
    """virNodeGetFreePages."""
    args.exclusive("all", "cellno")
    cell, size = args.number("cellno", -1), args.scaled("pagesize", 1024, 2**32 * 1024 - 1)
    kib = None if size is None else size // 1024
    if args.flag("all"):
        root = xmltext.parse(session.call("connect_get_capabilities"))
        found: dict[str, Any] = {}
        text = ""
        for number in _cell_numbers(session):
            pages = root.iterfind(f"host/topology/cells/cell[@id='{number}']/pages")
            sizes = sorted(int(page.get("size") or 0) for page in pages) or _page_sizes(root)
            counts = session.call("node_get_free_pages", sizes, number, 1, 0)
            found[str(number)] = {str(one): count for one, count in zip(sizes, counts, strict=True)}
            text += f"Node {number}:\n" + "".join(
                f"{one}KiB: {count}\n" for one, count in zip(sizes, counts, strict=True)
            )
            text += "\n"
        return Plain("free_pages", text, found)
    if cell is None:
        raise Failure("missing cellno argument")
    if kib is None:
        raise Failure("missing pagesize argument")
    counts = session.call("node_get_free_pages", [kib], cell, 1, 0)
    return Plain("free_pages", f"{kib}KiB: {counts[0]}\n", {str(kib): counts[0]})


def _page_sizes(root: Any) -> list[int]:
    return sorted(int(page.get("size") or 0) for page in root.iterfind("host/cpu/pages"))


def allocpages(session: Session, args: Args) -> None:
    """virNodeAllocPages."""
    args.exclusive("all", "cellno")
    size = args.scaled("pagesize", 1024, 2**32 * 1024 - 1) or 0
    count = args.natural("pagecount", 2**64 - 1) or 0
    cell = args.number("cellno", -1)
    first = -1 if cell is None else cell
    cells = 1
    if args.flag("all"):
        cells = len(_cell_numbers(session))
        first = 0
    flags = c.VIR_NODE_ALLOC_PAGES_ADD if args.flag("add") else c.VIR_NODE_ALLOC_PAGES_SET
    session.call("node_alloc_pages", [size // 1024], [count], first, cells, flags)


def node_memory_tune(session: Session, args: Args) -> Output | None:
    """virNodeGetMemoryParameters, virNodeSetMemoryParameters."""
    from virtd.shell import typed

    wanted = []
    for name in _MEMORY_TUNING:
        value = args.natural(name.replace("_", "-"))
        if value is not None:
            wanted.append(typed.make(name, c.VIR_TYPED_PARAM_UINT, value))
    if wanted:
        with failing("Unable to change memory parameters"):
            session.call("node_set_memory_parameters", wanted, 0)
        return None
    with failing("Unable to get number of memory parameters"):
        _, count = session.call("node_get_memory_parameters", 0, c.VIR_TYPED_PARAM_STRING_OKAY)
    with failing("Unable to get memory parameters"):
        found, _ = session.call("node_get_memory_parameters", count, c.VIR_TYPED_PARAM_STRING_OKAY)
    text = "Shared memory:\n" + "".join(f"\t{one.field:<15} {typed.text(one)}\n" for one in found)
    return Plain("shared_memory", text, typed.data(found))


def nodesevinfo(session: Session, args: Args) -> Output:
    """virNodeGetSEVInfo."""
    from virtd.shell import typed

    with failing("Unable to get host SEV information"):
        _, count = session.call("node_get_sev_info", 0, 0)
        found, _ = session.call("node_get_sev_info", count, 0)
    return Plain("sev", "".join(f"{one.field:<18}: {typed.text(one)}\n" for one in found), typed.data(found))


def nodesuspend(session: Session, args: Args) -> None:
    """virNodeSuspendForDuration."""
    target = args.required("target")
    duration = args.number("duration", -(2**63), 2**63 - 1) or 0
    if target not in _TARGETS:
        raise Failure("Invalid target")
    if duration < 0:
        raise Failure("Invalid duration")
    with failing("The host was not suspended"):
        session.call("node_suspend_for_duration", _TARGETS.index(target), duration, 0)


COMMANDS = (
    Command(
        "allocpages",
        "<pagesize:number> <pagecount:number> [--cellno <number>] [--add] [--all]",
        "change how many huge pages the host keeps",
        allocpages,
    ),
    Command("capabilities", "", "show what host and hypervisor can do, as XML", capabilities),
    Command("freecell", "[--cellno <number>] [--all]", "show free memory, of NUMA nodes or in all", freecell),
    Command(
        "freepages",
        "[--cellno <number>] [--pagesize <number>] [--all]",
        "show free pages of NUMA nodes, by their size",
        freepages,
    ),
    Command("hostname", "", "show the host's name", hostname),
    Command(
        "node-memory-tune",
        "[--shm-pages-to-scan <number>] [--shm-sleep-millisecs <number>] [--shm-merge-across-nodes <number>]",
        "show or change how the host merges equal pages",
        node_memory_tune,
    ),
    Command("nodecpumap", "[--pretty]", "show which of the host's CPUs are online", nodecpumap),
    Command(
        "nodecpustats", "[--cpu <number>] [--percent]", "show what the host's CPUs spent their time on", nodecpustats
    ),
    Command("nodeinfo", "", "show the host's processors and memory", nodeinfo),
    Command("nodememstats", "[--cell <number>]", "show how the host's memory is used", nodememstats),
    Command("nodesevinfo", "", "show what the host offers of AMD SEV", nodesevinfo),
    Command(
        "nodesuspend",
        "<target> <duration:number>",
        "put the host to sleep for some seconds",
        nodesuspend,
        kinds={"target": "suspend-target"},
    ),
    Command("sysinfo", "", "show what the host's firmware says of it, as XML", sysinfo),
    Command("uri", "", "show the connection's URI", uri),
    Command("version", "[--daemon]", "show the versions of client, hypervisor and server", version),
)
