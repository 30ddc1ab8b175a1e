"""The guest's memory: its size, what it is made of, NUMA cells, and memory that is plugged in."""

import os
import resource

from virtd.conf.domain.base import Info
from virtd.conf.domain.cpu import Cell, Cpu, Numa
from virtd.conf.domain.memory import MemoryBacking, NumaTune
from virtd.conf.domain.memorydevice import MemoryDevice
from virtd.conf.xml.types import format_ranges
from virtd.drivers.qemu.command.address import place
from virtd.drivers.qemu.command.line import Line, Properties, alias, internal, join, unsupported

_POLICIES = {"strict": "bind", "preferred": "preferred", "interleave": "interleave"}
_DEVICES = {
    "dimm": "pc-dimm",
    "nvdimm": "nvdimm",
    "virtio-pmem": "virtio-pmem-pci",
    "virtio-mem": "virtio-mem-pci",
}
_HIERARCHY = {None: "memory", 0: "memory", 1: "first-level", 2: "second-level", 3: "third-level"}
_CACHE_POLICIES = {"none": "none", "writeback": "write-back", "writethrough": "write-through"}
_ASSOCIATIVITY = {"none": "none", "direct": "direct", "full": "complex"}
_MODULE_KIB = 2048  # what the size of a memory module is a multiple of, on x86
_SELF_DISTANCE, _OTHER_DISTANCE = 10, 20


def add_memory(line: Line) -> None:
    """Add -m, the object that the machine's own memory is, and whether it is locked."""
    config = line.config
    plugged = sum(device.size or 0 for device in config.memory_devices)
    numa = _numa(line)
    whole = (config.memory or 0) - plugged
    kib = (_mebibytes(whole) if numa is None else sum(_mebibytes(cell.memory or 0) for cell in numa.cells)) * 1024
    if config.max_memory is not None:
        line.add("m", f"size={kib}k,slots={config.max_memory_slots or 0},maxmem={config.max_memory}k")
    elif plugged:
        raise unsupported("cannot use/hotplug a memory device when domain 'maxMemory' is not defined")
    else:
        line.add("m", str(kib // 1024))
    machine = line.binary.machine(config.os.machine or "")
    if uses_default_memory(line) and machine is not None and machine.ram_id is not None:
        _add_backend(line, _backend(line, machine.ram_id, kib * 1024, default=True))
    locked = config.memory_backing is not None and config.memory_backing.locked
    if locked:
        limit = config.memtune.hard_limit if config.memtune is not None else None
        line.command.locked = resource.RLIM_INFINITY if limit is None else limit * 1024
    line.list("overcommit", **{"mem-lock": locked})


def uses_default_memory(line: Line) -> bool:
    """Whether the machine's memory is one object, which -machine names."""
    machine = line.binary.machine(line.config.os.machine or "")
    return _numa(line) is None and machine is not None and machine.ram_id is not None


def add_numa(line: Line) -> None:
    """Add the NUMA cells."""
    numa = _numa(line)
    if numa is None:
        return
    machine = line.binary.machine(line.config.os.machine or "")
    backends = [_cell_backend(line, number, cell) for number, cell in enumerate(numa.cells)]
    plain = machine is not None and machine.numa_sizes and not any(_special(line, one) for one in backends)
    hmat = bool(numa.latencies or numa.bandwidths or any(cell.caches for cell in numa.cells))
    left = set(range(line.config.vcpu or 1)) - {cpu for cell in numa.cells for cpu in cell.cpus or ()}
    for number, (cell, backend) in enumerate(zip(numa.cells, backends, strict=True)):
        if not plain:
            _add_backend(line, backend)
        # CPUs that are in no cell are in the first.
        cpus = set(cell.cpus or ()) | (left if number == 0 else set())
        words: list[str | None] = ["node", f"nodeid={number}"]
        words += [f"cpus={part}" for part in format_ranges(cpus).split(",") if part]
        if hmat and cpus:
            words.append(f"initiator={number}")
        words.append(f"mem={_mebibytes(cell.memory or 0)}" if plain else f"memdev=ram-node{number}")
        line.add("numa", join(*words))
    _distances(line, numa)
    _interconnects(line, numa)


def add_devices(line: Line) -> None:
    """Add memory that is plugged in."""
    if len([device for device in line.config.memory_devices if device.model in ("dimm", "nvdimm")]) > (
        line.config.max_memory_slots or 0
    ):
        raise unsupported(
            f"memory device count '{len(line.config.memory_devices)}' exceeds slots count "
            f"'{line.config.max_memory_slots or 0}'"
        )
    for device in line.config.memory_devices:
        add_device(line, device)


def add_device(line: Line, device: MemoryDevice) -> None:
    """Add one memory device."""
    driver = _DEVICES.get(device.model or "")
    if driver is None:
        raise unsupported(f"memory model '{device.model}' is not supported")
    line.need(driver, f"memory model '{device.model}'")
    name = alias(device.info)
    _add_backend(line, _device_backend(line, device, name))
    virtio_mem = device.model == "virtio-mem"
    label = device.label_size * 1024 if device.label_size else None
    line.device(
        driver,
        node=None if device.model == "virtio-pmem" else device.node or 0,
        **{
            "label-size": label,
            "block-size": (device.block or 0) * 1024 if virtio_mem else None,
            "requested-size": (device.requested or 0) * 1024 or None if virtio_mem else None,
            "prealloc": True if virtio_mem and _immediate(line) else None,
            "uuid": device.uuid if device.model == "nvdimm" else None,
            "unarmed": True if device.readonly else None,
            "memdev": f"mem{name}",
            "id": name,
            **_slot(line, device.info),
        },
    )


def _immediate(line: Line) -> bool:
    """Whether memory is allocated before the guest asks for it."""
    backing = line.config.memory_backing
    return backing is not None and backing.allocation == "immediate"


def _slot(line: Line, info: Info) -> Properties:
    where = place(line, info)
    return {name: value for name, value in where.items() if not (name == "addr" and value is None)}


def _numa(line: Line) -> Numa | None:
    cpu = line.config.cpu or Cpu()
    return cpu.numa if cpu.numa is not None and cpu.numa.cells else None


def _mebibytes(kib: int) -> int:
    return (kib + 1023) // 1024


def _cell_backend(line: Line, number: int, cell: Cell) -> Properties:
    size = _mebibytes(cell.memory or 0) * 1024**2
    return _backend(line, f"ram-node{number}", size, cell=number, access=cell.access, discard=cell.discard)


def _special(line: Line, backend: Properties) -> bool:
    """Whether a cell's memory is more than a size."""
    return backend["qom-type"] != "memory-backend-ram" or bool({"host-nodes", "prealloc"} & backend.keys())


def _device_backend(line: Line, device: MemoryDevice, name: str) -> Properties:
    backend = _backend(
        line,
        f"mem{name}",
        -(-(device.size or 0) // _MODULE_KIB) * _MODULE_KIB * 1024,
        cell=device.node,
        access=device.access,
        discard=device.discard,
        path=device.path,
        page_kib=device.pagesize,
        nodes=device.nodemask,
    )
    if device.model == "virtio-pmem":
        backend["share"] = True
    if device.model == "virtio-mem":
        backend["reserve"] = False
        backend.pop("prealloc", None)
        backend.pop("prealloc-threads", None)
    if device.model == "nvdimm" and not device.pmem:
        backend["prealloc"] = True
    if device.alignsize is not None:
        backend["align"] = device.alignsize * 1024
    if device.pmem:
        backend["pmem"] = True
    if device.path is not None:
        line.uses(device.path, write=not device.readonly)
    return backend


def _backend(
    line: Line,
    name: str,
    size: int,
    *,
    default: bool = False,
    cell: int | None = None,
    access: str | None = None,
    discard: bool | None = None,
    path: str | None = None,
    page_kib: int | None = None,
    nodes: frozenset[int] | None = None,
) -> Properties:
    """The object that some of the guest's memory is.

    Args:
        name: its id.
        size: in bytes.
        default: whether it is the machine's one memory.
        cell: the NUMA cell it belongs to.
        access, discard: what the cell or device says of itself; else what the guest's memory backing says.
        path: the file it is, for a device that has one.
        page_kib, nodes: what the device says of page size and of the host's NUMA nodes.
    """
    config = line.config
    backing = config.memory_backing or MemoryBacking()
    # As in libvirt: what is said of the whole guest is looked at before its pages are, what a device says after that.
    placed = {} if nodes is not None else _host_nodes(config.numatune, cell, None)
    access = access if access is not None else backing.access
    page = page_kib if page_kib is not None else _huge_page(backing, cell)
    huge = page is not None and page > os.sysconf("SC_PAGE_SIZE") // 1024
    properties: Properties = {"qom-type": "memory-backend-ram", "id": name}
    if path is not None:
        properties |= {"qom-type": "memory-backend-file", "mem-path": path}
    elif backing.source == "memfd":
        properties["qom-type"] = "memory-backend-memfd"
        if huge:
            _hugetlbfs(page or 0)  # such pages are had where they can be mounted
            properties |= {"hugetlb": True, "hugetlbsize": (page or 0) * 1024}
    elif huge:
        properties |= {"qom-type": "memory-backend-file", "mem-path": _hugetlbfs(page or 0)}
    elif backing.source == "file" or access is not None:
        properties |= {"qom-type": "memory-backend-file", "mem-path": _file(line, name)}
    in_file = properties["qom-type"] == "memory-backend-file"
    if in_file and (backing.discard if discard is None else discard):
        properties["discard-data"] = True
    if access is not None and properties["qom-type"] != "memory-backend-ram":
        properties["share"] = access == "shared"
    if default and properties["qom-type"] != "memory-backend-ram":
        properties["x-use-canonical-path-for-ramblock-id"] = False
    if backing.allocation == "immediate" or huge:
        properties["prealloc"] = True
        properties["prealloc-threads"] = backing.allocation_threads
    properties["size"] = size
    return properties | (placed if nodes is None else _host_nodes(config.numatune, cell, nodes))


def _add_backend(line: Line, backend: Properties) -> None:
    """Add the object that some memory is; what allocates it at once, runs where it is to be."""
    if "prealloc" in backend and "host-nodes" in backend and line.binary.has("thread-context"):
        name = f"tc-{backend['id']}"
        line.object("thread-context", id=name, **{"node-affinity": backend["host-nodes"]})
        backend["prealloc-context"] = name
    line.json("object", backend)


def _huge_page(backing: MemoryBacking, cell: int | None) -> int | None:
    """The size of huge pages for a cell, in KiB; None for ordinary ones."""
    if backing.hugepages is None:
        return None
    if not backing.hugepages.pages:
        return _default_huge_page()
    whole = None
    for page in backing.hugepages.pages:
        if page.nodeset is None:
            whole = page.size
        elif (cell or 0) in page.nodeset:
            return page.size
    return whole


def _default_huge_page() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        for row in file:
            if row.startswith("Hugepagesize:"):
                return int(row.split()[1])
    raise unsupported("Unable to find any usable hugetlbfs mount for 0 KiB")


def _hugetlbfs(page_kib: int) -> str:
    """Where huge pages of a size can be had."""
    with open("/proc/mounts", encoding="utf-8", errors="surrogateescape") as file:
        mounts = [row.split() for row in file]
    found = [mount for mount in mounts if mount[2] == "hugetlbfs"]
    if not found:
        raise internal("hugetlbfs filesystem is not mounted or disabled by administrator config")
    for mount in found:
        if os.statvfs(mount[1]).f_bsize == page_kib * 1024:
            return mount[1]
    raise internal(f"Unable to find any usable hugetlbfs mount for {page_kib} KiB")


def _file(line: Line, name: str) -> str:
    """The file that some memory is. QEMU makes it, in a directory that is its own."""
    folder = line.setup.memory or f"{line.setup.private}/ram"
    # Memory of devices is called like the device.
    return f"{folder}/{name.removeprefix('mem') if name.startswith('mem') else name}"


def _host_nodes(tune: NumaTune | None, cell: int | None, nodes: frozenset[int] | None) -> Properties:
    mode, wanted = None, nodes
    if tune is not None:
        if tune.memory is not None:
            if tune.memory.placement == "auto":
                raise internal("Advice from numad is needed in case of automatic numa placement")
            mode, wanted = tune.memory.mode, nodes if nodes is not None else tune.memory.nodeset
        for node in tune.nodes:
            if cell is not None and node.cellid == cell:
                mode, wanted = node.mode, nodes if nodes is not None else node.nodeset
    if wanted is None:
        return {}
    if mode == "restrictive":
        return {}  # a matter of the control group, not of QEMU
    policy = _POLICIES[mode or "strict"]
    for node_number in sorted(wanted):
        if not os.path.isdir(f"/sys/devices/system/node/node{node_number}"):
            raise unsupported(f"NUMA node {node_number} is unavailable")
    return {"host-nodes": sorted(wanted), "policy": policy}


def _distances(line: Line, numa: Numa) -> None:
    given = {(number, one.id): one.value for number, cell in enumerate(numa.cells) for one in cell.distances}
    if not given:
        return
    for src in range(len(numa.cells)):
        for dst in range(len(numa.cells)):
            usual = _SELF_DISTANCE if src == dst else _OTHER_DISTANCE
            value = given.get((src, dst)) or given.get((dst, src)) or usual
            line.add("numa", f"dist,src={src},dst={dst},val={value}")


def _interconnects(line: Line, numa: Numa) -> None:
    """Latencies and bandwidths between cells, and caches beside their memory."""
    for latency in numa.latencies:
        line.list(
            "numa",
            "hmat-lb",
            initiator=latency.initiator,
            target=latency.target,
            hierarchy=_HIERARCHY[latency.cache],
            **{"data-type": f"{latency.type}-latency"},
            latency=latency.value,
        )
    for bandwidth in numa.bandwidths:
        line.list(
            "numa",
            "hmat-lb",
            initiator=bandwidth.initiator,
            target=bandwidth.target,
            hierarchy=_HIERARCHY[bandwidth.cache],
            **{"data-type": f"{bandwidth.type}-bandwidth"},
            bandwidth=f"{bandwidth.value}K",
        )
    for number, cell in enumerate(numa.cells):
        for cache in sorted(cell.caches, key=lambda one: one.level or 0):
            line.list(
                "numa",
                "hmat-cache",
                **{"node-id": number},
                size=f"{cache.size}K",
                level=cache.level,
                associativity=_ASSOCIATIVITY[cache.associativity or "none"],
                policy=_CACHE_POLICIES[cache.policy or "none"],
                line=cache.line,
            )
