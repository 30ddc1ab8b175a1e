"""How the guest's memory, CPUs and I/O are laid out on the host: backing, limits, pinning, NUMA policy."""

from virtd import constants as c
from virtd.conf.xml.model import Model, attr, flag, sub, subs
from virtd.conf.xml.types import BITMAP, CPUSET, INT, KIB, LONG, NODESET, POSITIVE, UINT, ULONG, Choice

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED

SCHEDULERS = Choice("batch idle fifo rr")
MEMORY_MODES = Choice("strict preferred interleave restrictive")


class HugePage(Model):
    """Pages of one size, for some of the NUMA cells."""

    size = attr("@size", KIB, required=True)
    nodeset = attr("@nodeset", NODESET)


class HugePages(Model):
    """That huge pages are used; the default size if no page is named."""

    pages = subs("page", HugePage)


class MemoryBacking(Model):
    """What the guest's memory is made of."""

    hugepages = sub("hugepages", HugePages, keep=True)
    nosharepages = flag("nosharepages")
    locked = flag("locked")
    source = attr("source/@type", Choice("file anonymous memfd"))
    access = attr("access/@mode", Choice("shared private"))
    allocation = attr("allocation/@mode", Choice("immediate ondemand"))
    allocation_threads = attr("allocation/@threads", POSITIVE)
    discard = flag("discard")


class MemoryTune(Model):
    """Limits of the cgroup memory controller, KiB."""

    hard_limit = attr("hard_limit", KIB)
    soft_limit = attr("soft_limit", KIB)
    min_guarantee = attr("min_guarantee", KIB)
    swap_hard_limit = attr("swap_hard_limit", KIB)


class BlkioDevice(Model):
    """Limits for one block device."""

    path = attr("path")
    weight = attr("weight", UINT, bad=(c.VIR_ERR_XML_ERROR, "could not parse weight %s"))
    read_iops = attr("read_iops_sec", UINT, bad=(c.VIR_ERR_XML_ERROR, "could not parse read iops sec %s"))
    write_iops = attr("write_iops_sec", UINT, bad=(c.VIR_ERR_XML_ERROR, "could not parse write iops sec %s"))
    read_bytes = attr("read_bytes_sec", ULONG, bad=(c.VIR_ERR_XML_ERROR, "could not parse read bytes sec %s"))
    write_bytes = attr("write_bytes_sec", ULONG, bad=(c.VIR_ERR_XML_ERROR, "could not parse write bytes sec %s"))


class BlkioTune(Model):
    """Limits of the cgroup I/O controller."""

    weight = attr("weight", UINT, omit=0)
    devices = subs("device", BlkioDevice)


class VcpuPin(Model):
    """On which host CPUs a virtual one may run."""

    vcpu = attr("@vcpu", UINT, required=True)
    cpuset = attr("@cpuset", CPUSET)


class EmulatorPin(Model):
    """On which host CPUs the emulator's own threads may run."""

    cpuset = attr("@cpuset", CPUSET)


class IothreadPin(Model):
    """On which host CPUs an I/O thread may run."""

    iothread = attr("@iothread", UINT, required=True)
    cpuset = attr("@cpuset", CPUSET)


class VcpuSched(Model):
    """How some virtual CPUs are scheduled."""

    vcpus = attr("@vcpus", BITMAP)
    scheduler = attr("@scheduler", SCHEDULERS)
    priority = attr("@priority", INT)


class IothreadSched(Model):
    """How some I/O threads are scheduled."""

    iothreads = attr("@iothreads", BITMAP)
    scheduler = attr("@scheduler", SCHEDULERS)
    priority = attr("@priority", INT)


class EmulatorSched(Model):
    """How the emulator's own threads are scheduled."""

    scheduler = attr("@scheduler", SCHEDULERS)
    priority = attr("@priority", INT)


class CpuTune(Model, refuse="cachetune memorytune"):
    """Shares, quotas, pinning and scheduling of CPUs."""

    shares = attr("shares", ULONG)
    period = attr("period", ULONG)
    quota = attr("quota", LONG)
    global_period = attr("global_period", ULONG)
    global_quota = attr("global_quota", LONG)
    emulator_period = attr("emulator_period", ULONG)
    emulator_quota = attr("emulator_quota", LONG)
    iothread_period = attr("iothread_period", ULONG)
    iothread_quota = attr("iothread_quota", LONG)
    vcpupins = subs("vcpupin", VcpuPin)
    emulatorpin = sub("emulatorpin", EmulatorPin)
    iothreadpins = subs("iothreadpin", IothreadPin)
    emulatorsched = sub("emulatorsched", EmulatorSched)
    vcpuscheds = subs("vcpusched", VcpuSched)
    iothreadscheds = subs("iothreadsched", IothreadSched)


class NumaMemory(Model):
    """From which host nodes the guest's memory is taken."""

    mode = attr("@mode", MEMORY_MODES)
    nodeset = attr("@nodeset", NODESET)
    placement = attr("@placement", Choice("static auto"))


class NumaNode(Model):
    """The same for one cell of the guest."""

    cellid = attr("@cellid", UINT)
    mode = attr("@mode", MEMORY_MODES)
    nodeset = attr("@nodeset", NODESET)


class NumaTune(Model):
    """NUMA policy of the guest's memory."""

    memory = sub("memory", NumaMemory)
    nodes = subs("memnode", NumaNode)


class IothreadDef(Model):
    """One I/O thread."""

    id = attr("@id", POSITIVE, required=True)
    pool_min = attr("@thread_pool_min", INT)
    pool_max = attr("@thread_pool_max", INT)
