"""What the host is: processors, memory, NUMA nodes, caches. Read from /proc and /sys each time it is asked for.

This module knows no QEMU and no XML.
"""

import os
import re
import socket
from collections.abc import Callable
from typing import NamedTuple

SYS = "/sys"
PROC = "/proc"


class Processor(NamedTuple):
    """The first processor of the host, as /proc/cpuinfo describes it."""

    vendor: str  # 'Intel', 'AMD', 'Hygon', or as it calls itself
    family: int
    model: int
    stepping: int
    microcode: int | None
    address_bits: int | None
    mhz: int
    flags: frozenset[str]  # by the kernel's names


class Cpu(NamedTuple):
    """One logical CPU and where it is."""

    number: int
    socket: int
    die: int
    core: int
    siblings: tuple[int, ...]
    node: int


class Cache(NamedTuple):
    """A cache that several CPUs share."""

    number: int
    level: int
    kind: str  # 'both', 'code', 'data'
    kib: int
    cpus: tuple[int, ...]


class Node(NamedTuple):
    """A NUMA node."""

    number: int
    kib: int
    pages: dict[int, int]  # page size in KiB → how many, those of the usual size first
    distances: tuple[tuple[int, int], ...]


class Topology(NamedTuple):
    """How the CPUs are arranged; sockets, cores and so on are counted per the level above."""

    cpus: tuple[Cpu, ...]
    nodes: int
    sockets: int
    dies: int
    cores: int
    threads: int


_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "Hygon"}


def processor() -> Processor:
    """The first processor."""
    with open(f"{PROC}/cpuinfo", encoding="utf-8", errors="replace") as file:
        # A machine may have hundreds; the first one's lines end with an empty one.
        fields: dict[str, str] = {}
        for line in file:
            name, colon, value = line.partition(":")
            if not colon:
                break
            fields[name.strip()] = value.strip()
    bits = re.match(r"(\d+) bits physical", fields.get("address sizes", ""))
    microcode = fields.get("microcode")
    return Processor(
        vendor=_VENDORS.get(fields.get("vendor_id", ""), fields.get("vendor_id", "")),
        family=int(fields.get("cpu family", 0)),
        model=int(fields.get("model", 0)),
        stepping=int(fields.get("stepping", 0)) if fields.get("stepping", "").isdigit() else 0,
        microcode=int(microcode, 0) if microcode else None,
        address_bits=int(bits.group(1)) if bits else None,
        mhz=int(float(fields.get("cpu MHz", 0))),
        flags=frozenset(fields.get("flags", "").split()),
    )


def topology() -> Topology:
    """The CPUs that are online, and how they are arranged.

    An arrangement that is not the same everywhere counts as one socket with all CPUs as its cores, as libvirt says.
    """
    of_node = {cpu: node for node in node_numbers() for cpu in ranges(_read(f"{_node(node)}/cpulist"))}
    cpus = []
    for number in ranges(_read(f"{SYS}/devices/system/cpu/online") or "0"):
        place = f"{SYS}/devices/system/cpu/cpu{number}/topology"
        cpus.append(
            Cpu(
                number,
                max(0, _integer(f"{place}/physical_package_id")),
                max(0, _integer(f"{place}/die_id")),
                max(0, _integer(f"{place}/core_id")),
                tuple(ranges(_read(f"{place}/thread_siblings_list") or str(number))),
                of_node.get(number, 0),
            )
        )
    nodes = len({cpu.node for cpu in cpus}) or 1
    sockets = _per(cpus, lambda cpu: cpu.node, lambda cpu: cpu.socket)
    dies = _per(cpus, lambda cpu: (cpu.node, cpu.socket), lambda cpu: cpu.die)
    cores = _per(cpus, lambda cpu: (cpu.node, cpu.socket, cpu.die), lambda cpu: cpu.core)
    threads = max((len(cpu.siblings) for cpu in cpus), default=1)
    if nodes * sockets * dies * cores * threads != len(cpus):
        nodes, sockets, dies, cores, threads = 1, 1, 1, len(cpus), 1
    return Topology(tuple(cpus), nodes, sockets, dies, cores, threads)


def memory_kib() -> int:
    """How much memory the NUMA nodes have together."""
    return sum(node.kib for node in nodes())


def page_sizes() -> list[int]:
    """The sizes of pages that can be had, in KiB, the usual size first."""
    names = os.listdir(f"{SYS}/kernel/mm/hugepages") if os.path.isdir(f"{SYS}/kernel/mm/hugepages") else []
    huge = sorted(int(found.group(1)) for name in names if (found := re.fullmatch(r"hugepages-(\d+)kB", name)))
    return [os.sysconf("SC_PAGE_SIZE") // 1024, *huge]


def node_numbers() -> list[int]:
    """The numbers of the NUMA nodes; of a kernel without NUMA, one."""
    return ranges(_read(f"{SYS}/devices/system/node/online") or "0")


def nodes() -> list[Node]:
    """The NUMA nodes with their memory."""
    numbers = node_numbers()
    return [_one_node(number, numbers) for number in numbers]


def caches() -> list[Cache]:
    """The caches of level 3 and above, each once."""
    found: dict[tuple[int, int, str], Cache] = {}
    for number in ranges(_read(f"{SYS}/devices/system/cpu/online") or "0"):
        place = f"{SYS}/devices/system/cpu/cpu{number}/cache"
        if not os.path.isdir(place):
            continue
        for name in sorted(os.listdir(place)):
            if not name.startswith("index") or (level := _integer(f"{place}/{name}/level")) < 3:
                continue
            kinds = {"Unified": "both", "Instruction": "code", "Data": "data"}
            kind = kinds.get(_read(f"{place}/{name}/type"), "both")
            cpus = tuple(ranges(_read(f"{place}/{name}/shared_cpu_list")))
            identity = _integer(f"{place}/{name}/id", 0)
            found.setdefault(
                (level, identity, kind), Cache(identity, level, kind, _kib(_read(f"{place}/{name}/size")), cpus)
            )
    return sorted(found.values(), key=lambda cache: (cache.level, cache.number))


def has_iommu() -> bool:
    """Whether the kernel has put devices into IOMMU groups."""
    groups = f"{SYS}/kernel/iommu_groups"
    return os.path.isdir(groups) and bool(os.listdir(groups))


def hostname() -> str:
    """The host's name, with its domain where that is known."""
    name = socket.gethostname()
    if "." in name or name.startswith("localhost"):
        return name
    try:
        found = socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)
    except OSError:
        return name
    full = found[0][3]
    return full if full and not full.startswith("localhost") else name


def ranges(text: str) -> list[int]:
    """The numbers in a text as the kernel writes sets ('0-3,8')."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            numbers += range(int(first), int(last or first) + 1)
    return numbers


def _one_node(number: int, others: list[int]) -> Node:
    text = _read(f"{_node(number)}/meminfo")
    found = re.search(r"MemTotal:\s*(\d+) kB", text)
    kib = int(found.group(1)) if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    base, *huge = page_sizes()
    counts = {}
    for size in huge:
        counts[size] = max(0, _integer(f"{_node(number)}/hugepages/hugepages-{size}kB/nr_hugepages"))
    rest = kib - sum(size * count for size, count in counts.items())
    distances = [int(value) for value in _read(f"{_node(number)}/distance").split()]
    return Node(number, kib, {base: rest // base, **counts}, tuple(zip(others, distances, strict=False)))


def _node(number: int) -> str:
    return f"{SYS}/devices/system/node/node{number}"


def _per(cpus: list[Cpu], outer: Callable[[Cpu], object], inner: Callable[[Cpu], object]) -> int:
    """The largest number of different inner places in one outer place."""
    groups: dict[object, set[object]] = {}
    for cpu in cpus:
        groups.setdefault(outer(cpu), set()).add(inner(cpu))
    return max((len(group) for group in groups.values()), default=1)


def _read(path: str) -> str:
    """A file's text; '' if there is none, as kernels differ in what they show."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _integer(path: str, default: int = -1) -> int:
    text = _read(path)
    return int(text) if text.lstrip("-").isdigit() else default


def _kib(text: str) -> int:
    number, unit = text.rstrip("KMG"), text[-1:]
    return int(number or 0) * {"M": 1024, "G": 1024**2}.get(unit, 1)
