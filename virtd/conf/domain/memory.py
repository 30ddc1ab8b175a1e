"""How the guest's memory, CPUs and I/O are laid out on the host: backing, limits, pinning, NUMA policy."""

from virtd import constants as c
from virtd.conf.domain.errors import conf_error, detail_error, internal_error, xml_error
from virtd.conf.xml.model import Element, Model, View, attr, flag, missing_attribute, sub, subs
from virtd.conf.xml.types import BITMAP, CPUSET, INT, KIB, LONG, NODESET, POSITIVE, UINT, ULONG, Bitmap, Choice, Type
from virtd.errors import VirtError

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


class LenientBitmap(Bitmap):
    """A set of numbers; what is none is empty."""

    def parse(self, text: str) -> frozenset[int]:
        try:
            return super().parse(text)
        except VirtError:
            return frozenset()


LENIENT_BITMAP = LenientBitmap()


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


class CachePart(Model):
    """A part of a cache of the host."""

    id = attr("@id", UINT, required=True)
    level = attr("@level", UINT, required=True)
    type = attr("@type", Choice("both code data"), required=True)
    size = attr("@size", KIB)

    def loaded(self, el: Element, view: View) -> None:
        """It has a size."""
        if self.size is None:
            raise xml_error("missing element or attribute './@size'", domain=c.VIR_FROM_XML)


class Monitor(Model):
    """What some virtual CPUs use of a cache or of the memory's bandwidth is counted."""

    level = attr("@level", UINT)
    vcpus = attr("@vcpus", BITMAP)


class BandwidthPart(Model):
    """A part of the bandwidth of the memory of one node of the host, in per cent."""

    id = attr("@id", UINT, required=True)
    bandwidth = attr("@bandwidth", UINT, required=True)


MONITOR_LEVEL = 3


def check_resctrl(name: str, tune: "CacheTune | MemTune", el: Element) -> None:
    """Which virtual CPUs share a part of something, and which of them are watched.

    Raises:
        VirtError: VIR_ERR_XML_ERROR or VIR_ERR_INVALID_ARG.
    """
    text = el.get("vcpus")
    if text is None:
        raise xml_error(f"Missing {name} attribute 'vcpus'")
    if not tune.vcpus:
        raise xml_error(f"Invalid {name} attribute 'vcpus' value '{text}'")
    seen: list[frozenset[int] | None] = []
    for monitor, found in zip(tune.monitors, el.findall("monitor"), strict=True):
        if name == "cachetune":
            if monitor.level is None:
                raise missing_attribute("level", found)
            if monitor.level != MONITOR_LEVEL:
                raise xml_error(f"Invalid monitor cache level '{monitor.level}'")
        if monitor.vcpus is None:
            raise xml_error("Missing monitor attribute 'vcpus'")
        wrong = None
        if not monitor.vcpus <= tune.vcpus:
            wrong = "Monitor vcpus conflicts with allocation"
        elif monitor.vcpus in seen:
            wrong = "Identical vcpus found in same type monitors"
        if wrong is not None:
            raise VirtError(c.VIR_ERR_INVALID_ARG, wrong, domain=c.VIR_FROM_DOMAIN)
        seen.append(monitor.vcpus)


class CacheTune(Model):
    """Parts of the host's caches for some virtual CPUs."""

    vcpus = attr("@vcpus", LENIENT_BITMAP)
    caches = subs("cache", CachePart)
    monitors = subs("monitor", Monitor)

    @property
    def partitions(self) -> bool:
        """Whether it asks for anything."""
        return bool(self.caches or self.monitors)

    def loaded(self, el: Element, view: View) -> None:
        """No part of a cache is given twice."""
        check_resctrl("cachetune", self, el)
        seen: set[tuple[int | None, int | None, str | None]] = set()
        for cache in self.caches:
            key = (cache.level, cache.id, cache.type)
            if key in seen:
                text = (
                    f"Colliding cache allocations for cache level '{cache.level}' id '{cache.id}', type '{cache.type}'"
                )
                raise xml_error(text, domain=c.VIR_FROM_RESCTRL)
            seen.add(key)


class MemTune(Model):
    """Parts of the memory's bandwidth for some virtual CPUs."""

    vcpus = attr("@vcpus", LENIENT_BITMAP)
    nodes = subs("node", BandwidthPart)
    monitors = subs("monitor", Monitor)

    @property
    def partitions(self) -> bool:
        """Whether it asks for anything."""
        return bool(self.nodes or self.monitors)

    def loaded(self, el: Element, view: View) -> None:
        """Parts of a hundred, each node's once."""
        check_resctrl("memorytune", self, el)
        seen: set[int | None] = set()
        for node in self.nodes:
            if (node.bandwidth or 0) > 100:
                raise xml_error("Memory Bandwidth value exceeding 100 is invalid.", domain=c.VIR_FROM_RESCTRL)
            if node.id in seen:
                raise xml_error(f"Memory Bandwidth already defined for node {node.id}", domain=c.VIR_FROM_RESCTRL)
            seen.add(node.id)


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
        self.cachetunes = [one for one in self.cachetunes if one.partitions]
        self.memorytunes = [one for one in self.memorytunes if one.partitions]
        parts = [one.vcpus for one in self.cachetunes]
        if len(set(parts)) != len(parts):
            raise xml_error("Identical vcpus in cachetunes found")
        for one in self.memorytunes:
            if any(one.vcpus != part and (one.vcpus or frozenset()) & (part or frozenset()) for part in parts):
                raise xml_error("Overlapping vcpus in resctrls")
        if len(el.findall("emulatorpin")) > 1:
            raise xml_error("only one emulatorpin is supported")
        if len(el.findall("emulatorsched")) > 1:
            raise xml_error("only one emulatorsched is supported")
        pinned = [pin.iothread for pin in self.iothreadpins]
        for number in pinned:
            if pinned.count(number) > 1:
                raise internal_error(f"duplicate iothreadpin for same iothread '{number}'")
        pins: list[tuple[str, frozenset[int] | None]] = [("vcpupin", pin.cpuset) for pin in self.vcpupins]
        pins += [("iothreadpin", pin.cpuset) for pin in self.iothreadpins]
        pins += [("emulatorpin", pin.cpuset) for pin in (self.emulatorpin,) if pin is not None]
        for kind, cpuset in pins:
            if cpuset is None:
                raise internal_error(f"missing cpuset for {kind}")
        for kind, field, scheds in (
            ("vcpusched", "vcpus", [one.vcpus for one in self.vcpuscheds]),
            ("iothreadsched", "iothreads", [one.iothreads for one in self.iothreadscheds]),
        ):
            seen: set[int] = set()
            for numbers in scheds:
                if numbers is None:
                    text = f"Missing attribute '{field}' in element '{kind}'"
                    raise xml_error(text)
                if seen & numbers:
                    text = f"'{kind}' attributes '{field}' must not overlap"
                    raise detail_error(text)
                seen |= numbers


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
