"""What follows from a definition's words on placement: NUMA policy, vCPUs, I/O threads, schedulers, labels."""

from typing import TypeVar

from virtd.conf.domain.basics import conf_error
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.memory import IothreadDef, IothreadSched, NumaMemory, NumaTune, VcpuSched

S = TypeVar("S", VcpuSched, IothreadSched)


def finish(domain: Domain) -> None:
    """Bring the definition into libvirt's form.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED for what contradicts itself.
    """
    fill_iothreads(domain)
    fill_placement(domain)
    tune = domain.cputune
    if tune is not None:
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
    fill_seclabels(domain)


def fill_iothreads(domain: Domain) -> None:
    """Number the I/O threads that are not named: the lowest free numbers. If none is named, none is shown."""
    named = domain.iothread_ids
    if domain.iothreads is None and named:
        domain.iothreads = len(named)
    count = max(domain.iothreads or 0, len(named))
    if count:
        domain.iothreads = count
    if not named:
        return
    used = {one.id for one in named}
    number = 0
    while len(named) < count:
        number += 1
        if number not in used:
            named.append(IothreadDef(id=number))


def fill_placement(domain: Domain) -> None:
    """Placement by numad of memory and of vCPUs follow from each other."""
    tune = domain.numatune
    memory = tune.memory if tune is not None else None
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
        if domain.vcpu_placement == "auto" or by_numad:
            raise conf_error("Per-node binding is not compatible with automatic NUMA placement.")
        tune.nodes.sort(key=lambda node: node.cellid or 0)


def fill_seclabels(domain: Domain) -> None:
    """Without a security driver on the host, a label of no particular driver is none."""
    if len(domain.seclabels) == 1 and domain.seclabels[0].model is None:
        label = domain.seclabels[0]
        label.type, label.model, label.relabel = "none", "none", None
