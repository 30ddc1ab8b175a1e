"""<cpu>: the virtual CPU's model, features, topology and NUMA cells; <vcpu> and <vcpus>: how many there are."""

from virtd import constants as c
from virtd.conf.xml.model import Element, Model, View, attr, missing_attribute, sub, subs
from virtd.conf.xml.types import BITMAP, INT, KIB, ON_OFF, POSITIVE, UINT, ULONG, YES_NO, Choice, Size
from virtd.errors import VirtError

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED

MODES = Choice("custom host-model host-passthrough maximum")
CACHE_POLICIES = Choice("none writeback writethrough")
MEMORY_LATENCIES = Choice("access read write")


class CpuFeature(Model):
    """A feature that is added to the model or taken from it."""

    policy = attr(
        "@policy", Choice("force require optional disable forbid"), bad=(UNSUPPORTED, "Invalid CPU feature policy")
    )
    name = attr("@name", required=(c.VIR_ERR_XML_ERROR, "Invalid CPU feature name"))


class Distance(Model):
    """How far one NUMA cell is from another."""

    id = attr("@id", UINT, required=True)
    value = attr("@value", UINT, required=True)


class CellCache(Model):
    """A side cache of a cell's memory."""

    level = attr("@level", UINT, required=True)
    associativity = attr("@associativity", Choice("none direct full"), required=True)
    policy = attr("@policy", CACHE_POLICIES, required=True)
    size = attr("size/@value", KIB)
    line = attr("line/@value", Size("bytes", "bytes"))


class Latency(Model):
    """How long an access from one cell to another's memory takes."""

    initiator = attr("@initiator", UINT, required=True)
    target = attr("@target", UINT, required=True)
    cache = attr("@cache", UINT)
    type = attr("@type", MEMORY_LATENCIES, required=True)
    value = attr("@value", ULONG, required=True)


class Bandwidth(Model):
    """How much memory traffic goes from one cell to another."""

    initiator = attr("@initiator", UINT, required=True)
    target = attr("@target", UINT, required=True)
    cache = attr("@cache", UINT)
    type = attr("@type", MEMORY_LATENCIES, required=True)
    value = attr("@value", KIB, required=True)


class Cell(Model):
    """A NUMA cell of the guest."""

    id = attr("@id", UINT)
    cpus = attr("@cpus", BITMAP)
    memory = attr("@memory", KIB, required=True)
    access = attr("@memAccess", Choice("shared private"))
    discard = attr("@discard", YES_NO)
    distances = subs("distances/sibling", Distance)
    caches = subs("cache", CellCache)


class Numa(Model):
    """The guest's NUMA cells."""

    cells = subs("cell", Cell)

    def loaded(self, el: Element, view: View) -> None:
        """Cells are numbered from 0; those without a number get theirs from their place."""
        for number, cell in enumerate(self.cells):
            cell.id = number if cell.id is None else cell.id
        self.cells.sort(key=lambda cell: cell.id or 0)

    latencies = subs("interconnects/latency", Latency)
    bandwidths = subs("interconnects/bandwidth", Bandwidth)


def cpu_error(text: str, code: int = c.VIR_ERR_XML_ERROR) -> VirtError:
    """An error of VIR_FROM_CPU."""
    return VirtError(code, text, domain=c.VIR_FROM_CPU)


class Cpu(Model):
    """What CPU the guest sees."""

    mode = attr("@mode", MODES, bad=(UNSUPPORTED, "Invalid mode attribute '%s'"))
    match = attr("@match", Choice("minimum exact strict"))
    check = attr("@check", Choice("none partial full"))
    migratable = attr("@migratable", ON_OFF)
    model_fallback = attr("model/@fallback", Choice("allow forbid"), bad=(UNSUPPORTED, "Invalid fallback attribute"))
    vendor_id = attr("model/@vendor_id")
    model = attr("model")
    vendor = attr("vendor")
    sockets = attr("topology/@sockets", POSITIVE)
    dies = attr("topology/@dies", POSITIVE)
    cores = attr("topology/@cores", POSITIVE)
    threads = attr("topology/@threads", POSITIVE)
    cache_level = attr("cache/@level", INT)
    cache_mode = attr("cache/@mode", Choice("emulate passthrough disable"))
    addr_mode = attr("maxphysaddr/@mode", Choice("emulate passthrough"))
    addr_bits = attr("maxphysaddr/@bits", UINT)
    features = subs("feature", CpuFeature)
    numa = sub("numa", Numa)

    def loaded(self, el: Element, view: View) -> None:
        """What goes together."""
        custom = self.mode in (None, "custom")
        if self.migratable is not None and self.mode not in ("host-passthrough", "maximum"):
            raise cpu_error(
                "Attribute migratable is only allowed for 'host-passthrough' / 'maximum' CPU mode", UNSUPPORTED
            )
        if self.model is None:
            self.model_fallback = None
            if self.vendor is not None:
                raise cpu_error("CPU vendor specified without CPU model")
            if self.features and custom:
                raise cpu_error("Non-empty feature list specified without CPU model")
        elif self.vendor_id is not None and len(self.vendor_id) != 12:
            raise cpu_error("vendor_id must be exactly 12 characters long")
        topology = el.find("topology")
        if topology is not None:
            for name in ("sockets", "cores", "threads"):
                if getattr(self, name) is None:
                    raise missing_attribute(name, topology)
        names = [feature.name for feature in self.features]
        for name_ in names:
            if names.count(name_) > 1:
                raise cpu_error(f"CPU feature '{name_}' specified more than once")


class Vcpu(Model):
    """One virtual CPU, for those that can be plugged and unplugged one by one."""

    id = attr("@id", UINT, required=True)
    enabled = attr("@enabled", YES_NO, required=True)
    hotpluggable = attr("@hotpluggable", YES_NO)
    order = attr("@order", POSITIVE)
