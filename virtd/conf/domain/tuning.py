"""What follows from a definition's words on placement: NUMA policy, vCPUs, I/O threads, schedulers, labels."""

from typing import TypeVar

from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import conf_error, internal_error, xml_error
from virtd.conf.domain.memory import IothreadDef, IothreadSched, NumaMemory, NumaTune, VcpuSched
from virtd.conf.domain.os import PERF_EVENTS

S = TypeVar("S", VcpuSched, IothreadSched)


def finish(domain: Domain) -> None:
    """Bring the definition into libvirt's form.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED for what contradicts itself.
    """
    sort_idmap(domain)
    fill_iothreads(domain)
    fill_vcpupins(domain)
    fill_placement(domain)
    tune = domain.cputune
    if tune is not None:
        present = frozenset(range(min(domain.vcpu or 1, 1 << 16)))
        tune.cachetunes = [one for one in tune.cachetunes if one.partitions and (one.vcpus or present) & present]
        tune.memorytunes = [one for one in tune.memorytunes if one.partitions and (one.vcpus or present) & present]
        tune.vcpuscheds = [
            VcpuSched(vcpus=frozenset((n,)), scheduler=one.scheduler, priority=one.priority)
            for one in tune.vcpuscheds
            for n in sorted(one.vcpus or ())
        ]
        tune.iothreadscheds = [
            IothreadSched(iothreads=frozenset((n,)), scheduler=one.scheduler, priority=one.priority)
            for one in tune.iothreadscheds
            for n in sorted(one.iothreads or ())
        ]
    domain.perf.sort(key=lambda event: PERF_EVENTS.names.index(event.name or ""))
    fill_seclabels(domain)
    fill_pages(domain)


def fill_pages(domain: Domain) -> None:
    """A guest without NUMA cells has one, number 0: pages for it are for all of the memory."""
    backing, cpu = domain.memory_backing, domain.cpu
    if backing is None or backing.hugepages is None or (cpu is not None and cpu.numa is not None and cpu.numa.cells):
        return
    for page in backing.hugepages.pages:
        if page.nodeset == frozenset((0,)):
            page.nodeset = None


def sort_idmap(domain: Domain) -> None:
    """Ranges of ids stand in order."""
    for ranges in (domain.uidmap, domain.gidmap):
        ranges.sort(key=lambda one: one.start or 0)


def fill_iothreads(domain: Domain) -> None:
    """Number the I/O threads that are not named: the lowest free numbers. If none is named, none is shown."""
    named = domain.iothread_ids
    if domain.iothreads is None and named:
        domain.iothreads = len(named)
    count = max(domain.iothreads or 0, len(named))
    domain.iothreads = count or None
    if not named:
        return
    used = {one.id for one in named}
    for one in named:
        if sum(other.id == one.id for other in named) > 1:
            raise xml_error(f"duplicate iothread id '{one.id}' found")
    number = 0
    while len(named) < count:
        number += 1
        if number not in used:
            named.append(IothreadDef(id=number))


def fill_vcpupins(domain: Domain) -> None:
    """A vCPU is pinned once; pins of vCPUs that there are not are left out."""
    tune = domain.cputune
    if tune is None:
        return
    seen: set[int | None] = set()
    for pin in tune.vcpupins:
        if pin.vcpu in seen:
            raise internal_error(f"duplicate vcpupin for vcpu '{pin.vcpu}'")
        seen.add(pin.vcpu)
    tune.vcpupins = [pin for pin in tune.vcpupins if (pin.vcpu or 0) < (domain.vcpu or 1)]
    tune.vcpupins.sort(key=lambda pin: pin.vcpu or 0)


NOTHING = (None, None, None)


def fill_placement(domain: Domain) -> None:
    """Placement by numad of memory and of vCPUs follow from each other."""
    tune = domain.numatune
    memory = tune.memory if tune is not None else None
    if tune is not None and memory is not None and (memory.mode, memory.nodeset, memory.placement) == NOTHING:
        tune.memory = memory = None
    if memory is not None:
        if memory.placement is None:
            memory.placement = "static" if memory.nodeset is not None else domain.vcpu_placement
            if memory.placement == "static" and memory.nodeset is None:
                raise conf_error("nodeset for NUMA memory tuning must be set if 'placement' is 'static'")
        elif memory.placement == "static" and memory.nodeset is None:
            raise conf_error("nodeset for NUMA memory tuning must be set if 'placement' is 'static'")
        if memory.placement == "auto":
            memory.nodeset = None
        else:
            memory.placement = None
        memory.mode = memory.mode or "strict"
    pinned = domain.cputune is not None and (
        domain.cputune.vcpupins or domain.cputune.emulatorpin is not None or domain.cputune.iothreadpins
    )
    by_numad = memory is not None and memory.placement == "auto"
    if by_numad and domain.vcpu_cpuset is None and not pinned:
        domain.vcpu_placement = "auto"
    if domain.vcpu_placement == "auto":
        domain.vcpu_cpuset = None
        if memory is None and not (tune is not None and tune.nodes):
            domain.numatune = tune = tune or NumaTune()
            tune.memory = NumaMemory(mode="strict", placement="auto")
    if tune is not None and tune.nodes:
        if (domain.vcpu_placement == "auto" and memory is None) or by_numad:
            raise conf_error("Per-node binding is not compatible with automatic NUMA placement.")
        if domain.cpu is None or domain.cpu.numa is None:
            raise xml_error("Element 'memnode' is invalid without any guest NUMA cells")
        cells = {cell.id for cell in domain.cpu.numa.cells}
        seen: set[int | None] = set()
        for node in tune.nodes:
            if node.cellid not in cells:
                raise xml_error("Argument 'cellid' in memnode element must correspond to existing guest's NUMA cell")
            if node.cellid in seen:
                raise xml_error(f"Multiple memnode elements with cellid {node.cellid}")
            seen.add(node.cellid)
        if memory is not None and memory.mode == "restrictive" and any(n.mode != memory.mode for n in tune.nodes):
            raise xml_error(
                "'restrictive' mode is required in memnode element when mode is 'restrictive' in memory element"
            )
        tune.nodes.sort(key=lambda node: node.cellid or 0)


def fill_seclabels(domain: Domain) -> None:
    """What each type of label says of relabelling. Without a security driver on the host, one of no model is none."""
    for label in domain.seclabels:
        if label.type == "none" and label.relabel:
            raise conf_error("resource relabeling is not compatible with 'none' label type")
        if label.type == "dynamic" and label.relabel is False:
            raise conf_error("dynamic label type must use resource relabeling")
        if label.type == "static" and label.label is None:
            raise xml_error("security label is missing")
        if label.type != "static":
            label.label = None
    if len(domain.seclabels) == 1 and domain.seclabels[0].model is None:
        label = domain.seclabels[0]
        if label.type not in ("none", "dynamic") or label.baselabel is not None:
            raise xml_error("missing security model in domain seclabel")
        label.type, label.model, label.baselabel = "none", "none", None
    domain.seclabels = [label for label in domain.seclabels if label.type is not None]
    for label in domain.seclabels:
        label.relabel = {"none": None, "dynamic": True}.get(label.type or "", bool(label.relabel))
