"""virConnectGetCapabilities: the host, and which guests can be had on it."""

from typing import TYPE_CHECKING

from virtd.conf.cpu.document import CpuDefinition
from virtd.conf.xml.types import format_ranges
from virtd.drivers.qemu.host import hostcpu, hostfacts, suspend
from virtd.drivers.qemu.host.arches import ARCHES, Arch, host_arch
from virtd.drivers.qemu.host.binary import Machine
from virtd.drivers.qemu.host.xmltext import Document, yes_no
from virtd.errors import VirtError

if TYPE_CHECKING:
    from virtd.drivers.qemu.host.capabilities import Capabilities

_MIB = 1024


def write(capabilities: "Capabilities") -> str:
    """The document."""
    doc = Document()
    with doc.element("capabilities"):
        doc.blank()
        _host(doc, capabilities)
        doc.blank()
        for arch in ARCHES:
            emulator = capabilities.find_emulator(arch.name)
            if emulator is not None:
                _guest(doc, capabilities, arch, emulator)
                doc.blank()
    return doc.text()


def _host(doc: Document, capabilities: "Capabilities") -> None:
    with doc.element("host"):
        doc.add("uuid", capabilities.host_uuid())
        _cpu(doc)
        _power_management(doc)
        doc.add("iommu", support=yes_no(hostfacts.has_iommu()))
        with doc.element("migration_features"):
            doc.add("live")
            with doc.element("uri_transports"):
                for transport in ("tcp", "rdma"):
                    doc.add("uri_transport", transport)
        _topology(doc)
        _caches(doc)
        _security(doc, capabilities)


def _power_management(doc: Document) -> None:
    names = [name for target, (_, name, _) in suspend.TARGETS.items() if suspend.can(target)]
    if not names:
        doc.add("power_management")
        return
    with doc.element("power_management"):
        for name in names:
            doc.add(name)


def _cpu(doc: Document) -> None:
    found, place = hostfacts.processor(), hostfacts.topology()
    with doc.element("cpu"):
        doc.add("arch", host_arch())
        described = _described()
        if described.model is not None:
            doc.add("model", described.model)
        if described.vendor is not None:
            doc.add("vendor", described.vendor)
        if found.microcode is not None:
            doc.add("microcode", version=found.microcode)
        doc.add("signature", family=found.family, model=found.model, stepping=found.stepping)
        doc.add("topology", sockets=place.sockets, dies=place.dies, cores=place.cores, threads=place.threads)
        if found.address_bits is not None:
            doc.add("maxphysaddr", mode="emulate", bits=found.address_bits)
        for name in described.policies:
            doc.add("feature", name=name)
        for size in hostfacts.page_sizes():
            doc.add("pages", unit="KiB", size=size)


def _described() -> CpuDefinition:
    """The host's CPU as a model; without one if there is none for it."""
    try:
        return hostcpu.definition()
    except VirtError:
        return CpuDefinition()


def _topology(doc: Document) -> None:
    cpus = hostfacts.topology().cpus
    nodes = hostfacts.nodes()
    with doc.element("topology"), doc.element("cells", num=len(nodes)):
        for node in nodes:
            with doc.element("cell", id=node.number):
                doc.add("memory", node.kib, unit="KiB")
                for size, count in node.pages.items():
                    doc.add("pages", count, unit="KiB", size=size)
                if node.distances:
                    with doc.element("distances"):
                        for number, value in node.distances:
                            doc.add("sibling", id=number, value=value)
                mine = [cpu for cpu in cpus if cpu.node == node.number]
                with doc.element("cpus", num=len(mine)):
                    for cpu in mine:
                        siblings = format_ranges(cpu.siblings)
                        doc.add(
                            "cpu",
                            id=cpu.number,
                            socket_id=cpu.socket,
                            die_id=cpu.die,
                            core_id=cpu.core,
                            siblings=siblings,
                        )


def _caches(doc: Document) -> None:
    found = hostfacts.caches()
    if not found:
        return
    with doc.element("cache"):
        for cache in found:
            whole = cache.kib % _MIB == 0
            size, unit = (cache.kib // _MIB, "MiB") if whole else (cache.kib, "KiB")
            cpus = format_ranges(cache.cpus)
            doc.add("bank", id=cache.number, level=cache.level, type=cache.kind, size=size, unit=unit, cpus=cpus)


def _security(doc: Document, capabilities: "Capabilities") -> None:
    with doc.element("secmodel"):
        doc.add("model", "none")
        doc.add("doi", 0)
    if not capabilities.paths.privileged:
        return
    user = capabilities.user
    label = user.label if user is not None else "+0:+0"
    with doc.element("secmodel"):
        doc.add("model", "dac")
        doc.add("doi", 0)
        for kind in ("kvm", "qemu"):
            doc.add("baselabel", label, type=kind)


def _guest(doc: Document, capabilities: "Capabilities", arch: Arch, emulator: str) -> None:
    binary = capabilities.binary(emulator)
    with doc.element("guest"):
        doc.add("os_type", "hvm")
        with doc.element("arch", name=arch.name):
            doc.add("wordsize", arch.bits)
            doc.add("emulator", emulator)
            for machine in binary.machines:
                _machine(doc, machine)
            doc.add("domain", type="qemu")
            if host_arch() in arch.hosts and capabilities.kvm().usable:
                doc.add("domain", type="kvm")
        with doc.element("features"):
            if arch.name == "i686":
                doc.add("pae")
                doc.add("nonpae")
            doc.add("acpi", default="on", toggle="yes")
            doc.add("apic", default="on", toggle="no")
            doc.add("cpuselection")
            doc.add("deviceboot")
            doc.add("disksnapshot", default="on", toggle="no")


def _machine(doc: Document, machine: Machine) -> None:
    if machine.name == "none":
        return
    deprecated = "yes" if machine.deprecated else None
    doc.add("machine", machine.name, maxCpus=machine.max_cpus, deprecated=deprecated)
    if machine.alias:
        doc.add("machine", machine.alias, canonical=machine.name, maxCpus=machine.max_cpus, deprecated=deprecated)
