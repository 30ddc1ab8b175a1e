"""How the guest's memory, CPUs and I/O are laid out on the host: backing, limits, pinning, NUMA policy."""

from virtd import constants as c
from virtd.conf.domain.errors import conf_error, detail_error, xml_error
from virtd.conf.domain.resctrl import CacheTune, MemTune
from virtd.conf.xml.model import Element, Model, View, attr, flag, missing_attribute, sub, subs
from virtd.conf.xml.types import BITMAP, CPUSET, INT, KIB, LONG, NODESET, POSITIVE, UINT, ULONG, Choice, Type

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED

SCHEDULERS = Choice("batch idle fifo rr")
BAD_MODE = (UNSUPPORTED, "Unsupported NUMA memory tuning mode '%s'")
MEMORY_MODES = Choice("strict preferred interleave restrictive")


class HugePage(Model):
    """Pages of one size, for some of the NUMA cells."""

    size = attr("@size", KIB, required=True)
    nodeset = attr("@nodeset", NODESET)

    def loaded(self, el: Element, view: View) -> None:
        """Pages have a size."""
        if not self.size:
            raise detail_error("hugepage size can't be zero")


class HugePages(Model):
    """That huge pages are used; the default size if no page is named."""

    pages = subs("page", HugePage)


class MemoryBacking(Model):
    """What the guest's memory is made of."""

    hugepages = sub("hugepages", HugePages, keep=True)
    nosharepages = flag("nosharepages")
    locked = flag("locked")
    source = attr(
        "source/@type", Choice("file anonymous memfd"), bad=(UNSUPPORTED, "unknown memoryBacking/source/type '%s'")
    )
    access = attr("access/@mode", Choice("shared private"), bad=(UNSUPPORTED, "unknown memoryBacking/access/mode '%s'"))
    allocation = attr(
        "allocation/@mode",
        Choice("immediate ondemand"),
        bad=(UNSUPPORTED, "unknown memoryBacking/allocation/mode '%s'"),
    )
    allocation_threads = attr("allocation/@threads", POSITIVE)
    discard = flag("discard")


UNLIMITED = 9007199254740991
"""What stands for no limit, KiB."""


class MemoryTune(Model):
    """Limits of the cgroup memory controller, KiB."""

    hard_limit = attr("hard_limit", KIB, omit=UNLIMITED)
    soft_limit = attr("soft_limit", KIB, omit=UNLIMITED)
    min_guarantee = attr("min_guarantee", KIB, omit=0)
    swap_hard_limit = attr("swap_hard_limit", KIB, omit=UNLIMITED)


class BlkioDevice(Model):
    """Limits for one block device."""

    path = attr("path")
    weight = attr("weight", UINT, omit=0, bad=(UNSUPPORTED, "could not parse weight %s"))
    read_iops = attr("read_iops_sec", UINT, omit=0, bad=(UNSUPPORTED, "could not parse read iops sec %s"))
    write_iops = attr("write_iops_sec", UINT, omit=0, bad=(UNSUPPORTED, "could not parse write iops sec %s"))
    read_bytes = attr("read_bytes_sec", ULONG, omit=0, bad=(UNSUPPORTED, "could not parse read bytes sec %s"))
    write_bytes = attr("write_bytes_sec", ULONG, omit=0, bad=(UNSUPPORTED, "could not parse write bytes sec %s"))


class Lenient(Type[int]):
    """A number; what is none is 0, that is, not there."""

    def parse(self, text: str) -> int:
        try:
            return UINT.parse(text)
        except ValueError:
            return 0


LENIENT = Lenient()


class BlkioTune(Model):
    """Limits of the cgroup I/O controller."""

    weight = attr("weight", LENIENT, omit=0)
    devices = subs("device", BlkioDevice)

    def loaded(self, el: Element, view: View) -> None:
        """Each device is named, and once."""
        seen: set[str] = set()
        for device in self.devices:
            text = None
            if device.path is None:
                text = "missing per-device path"
            elif device.path in seen:
                text = f"duplicate blkio device path '{device.path}'"
            if text is not None:
                raise conf_error(text)
            seen.add(device.path or "")
        self.devices = [one for one in self.devices if any(getattr(one, name) for name in one.fields if name != "path")]


class VcpuPin(Model):
    """On which host CPUs a virtual one may run."""

    vcpu = attr("@vcpu", UINT, required=True)
    cpuset = attr("@cpuset", CPUSET)


class EmulatorPin(Model):
    """On which host CPUs the emulator's own threads may run."""

    cpuset = attr("@cpuset", CPUSET)


class IothreadPin(Model):
    """On which host CPUs an I/O thread may run."""

    iothread = attr("@iothread", POSITIVE, required=True)
    cpuset = attr("@cpuset", CPUSET)


def check_priority(scheduler: str | None, priority: int | None, el: Element) -> int | None:
    """The priority that goes with a scheduler.

    Raises:
        VirtError: VIR_ERR_XML_ERROR if it is missing.
    """
    if scheduler not in ("fifo", "rr"):
        return None
    if priority is None:
        raise missing_attribute("priority", el)
    return priority


class VcpuSched(Model):
    """How some virtual CPUs are scheduled."""

    vcpus = attr("@vcpus", BITMAP)
    scheduler = attr("@scheduler", SCHEDULERS, required=True)
    priority = attr("@priority", INT)

    def loaded(self, el: Element, view: View) -> None:
        """Real time needs a priority, the others have none."""
        self.priority = check_priority(self.scheduler, self.priority, el)


class IothreadSched(Model):
    """How some I/O threads are scheduled."""

    iothreads = attr("@iothreads", BITMAP)
    scheduler = attr("@scheduler", SCHEDULERS, required=True)
    priority = attr("@priority", INT)

    def loaded(self, el: Element, view: View) -> None:
        """Real time needs a priority, the others have none."""
        self.priority = check_priority(self.scheduler, self.priority, el)


class EmulatorSched(Model):
    """How the emulator's own threads are scheduled."""

    scheduler = attr("@scheduler", SCHEDULERS, required=True)
    priority = attr("@priority", INT)

    def loaded(self, el: Element, view: View) -> None:
        """Real time needs a priority, the others have none."""
        self.priority = check_priority(self.scheduler, self.priority, el)


PERIOD, QUOTA = (1000, 1000000), (1000, 17592186044415)
TUNE_LIMITS = (
    ("shares", 2, 262144),
    ("period", *PERIOD),
    ("quota", *QUOTA),
    ("global_period", *PERIOD),
    ("global_quota", *QUOTA),
    ("emulator_period", *PERIOD),
    ("emulator_quota", *QUOTA),
    ("iothread_period", *PERIOD),
    ("iothread_quota", *QUOTA),
)


class CpuTune(Model):
    """Shares, quotas, pinning and scheduling of CPUs."""

    shares = attr("shares", ULONG)
    period = attr("period", ULONG, omit=0)
    quota = attr("quota", LONG, omit=0)
    global_period = attr("global_period", ULONG, omit=0)
    global_quota = attr("global_quota", LONG, omit=0)
    emulator_period = attr("emulator_period", ULONG, omit=0)
    emulator_quota = attr("emulator_quota", LONG, omit=0)
    iothread_period = attr("iothread_period", ULONG, omit=0)
    iothread_quota = attr("iothread_quota", LONG, omit=0)
    vcpupins = subs("vcpupin", VcpuPin)
    emulatorpin = sub("emulatorpin", EmulatorPin)
    iothreadpins = subs("iothreadpin", IothreadPin)
    emulatorsched = sub("emulatorsched", EmulatorSched)
    vcpuscheds = subs("vcpusched", VcpuSched)
    iothreadscheds = subs("iothreadsched", IothreadSched)
    cachetunes = subs("cachetune", CacheTune)
    memorytunes = subs("memorytune", MemTune)

    def loaded(self, el: Element, view: View) -> None:
        """The kernel's bounds, and what is said once."""
        for name in ("emulatorpin", "emulatorsched"):
            if len(el.findall(name)) > 1:
                raise xml_error(f"only one {name} is supported")


class NumaMemory(Model):
    """From which host nodes the guest's memory is taken."""

    mode = attr("@mode", MEMORY_MODES, bad=BAD_MODE)
    nodeset = attr("@nodeset", NODESET)
    placement = attr(
        "@placement", Choice("static auto"), bad=(UNSUPPORTED, "Unsupported NUMA memory placement mode '%s'")
    )


class NumaNode(Model):
    """The same for one cell of the guest."""

    cellid = attr("@cellid", UINT, required=True)
    mode = attr("@mode", MEMORY_MODES, default="strict", bad=BAD_MODE)
    nodeset = attr(
        "@nodeset",
        NODESET,
        required=(c.VIR_ERR_XML_ERROR, "Missing required nodeset attribute in memnode element"),
    )


class NumaTune(Model):
    """NUMA policy of the guest's memory."""

    memory = sub("memory", NumaMemory)
    nodes = subs("memnode", NumaNode)


class IothreadDef(Model):
    """One I/O thread."""

    id = attr("@id", POSITIVE, required=True)
    pool_min = attr("@thread_pool_min", INT)
    pool_max = attr("@thread_pool_max", INT)
