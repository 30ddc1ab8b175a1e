"""<cpu>: the virtual CPU's model, features, topology and NUMA cells; <vcpu> and <vcpus>: how many there are."""

from virtd import constants as c
from virtd.conf.domain.errors import xml_error
from virtd.conf.xml.model import Element, Model, View, attr, missing_attribute, sub, subs
from virtd.conf.xml.types import BITMAP, INT, KIB, ON_OFF, POSITIVE, UINT, ULONG, YES_NO, Choice, Size
from virtd.errors import VirtError

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED

MODES = Choice("custom host-model host-passthrough maximum")
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

    level = attr("@level", UINT)
    associativity = attr("@associativity")
    policy = attr("@policy")
    size = attr("size/@value", KIB)
    line = attr("line/@value", Size("B", "bytes"))

    def loaded(self, el: Element, view: View) -> None:
        """Its size, and that of its lines, are known."""
        for name, value in (("size", self.size), ("line", self.line)):
            if value is None:
                raise xml_error(f"missing element or attribute './{name}/@value'", domain=c.VIR_FROM_XML)


CACHE_CHOICES = {
    "associativity": ("none", "direct", "full"),
    "policy": ("none", "writeback", "writethrough"),
}
MAX_CACHE_LEVEL = 3


def check_cell_cache(cache: CellCache, node: int) -> None:
    """A cache is told apart by its level, and works in a known way.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    if cache.level is None:
        raise xml_error(f"Missing 'level' attribute in cache element for NUMA node {node}")
    if not cache.level:
        raise xml_error(f"Invalid 'level' attribute in cache element for NUMA node {node}")
    for name, words in (("associativity", "cache associativity"), ("policy", "cache policy")):
        value = getattr(cache, name)
        if value is None:
            raise xml_error(f"Missing '{name}' attribute in cache element for NUMA node {node}")
        if value not in CACHE_CHOICES[name]:
            raise xml_error(f"Invalid {words} '{value}'")
    if cache.level > MAX_CACHE_LEVEL:
        raise xml_error("Ain't nobody heard of that much cache level")


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


LOCAL, FARTHEST = 10, 255
"""The distance of a cell from itself, and the largest there is."""


class Numa(Model):
    """The guest's NUMA cells."""

    cells = subs("cell", Cell)
    latencies = subs("interconnects/latency", Latency)
    bandwidths = subs("interconnects/bandwidth", Bandwidth)

    def loaded(self, el: Element, view: View) -> None:
        """Cells are numbered from 0; those without a number get theirs from their place."""
        if not self.cells:
            raise xml_error("NUMA topology defined without NUMA cells")
        for number, cell in enumerate(self.cells):
            cell.id = number if cell.id is None else cell.id
        self.cells.sort(key=lambda cell: cell.id or 0)
        ids = [cell.id for cell in self.cells]
        for number in range(len(ids)):
            if ids[number] in ids[:number]:
                raise xml_error(f"Duplicate NUMA cell info for cell id '{ids[number]}'")
        if ids != list(range(len(ids))):
            raise xml_error(
                "Exactly one 'cell' element per guest NUMA cell allowed, non-contiguous ranges or ranges not starting "
                "from 0 are not allowed"
            )
        for found in el.iterfind("cell/distances"):
            if found.find("sibling") is None:
                raise xml_error("NUMA distances defined without siblings")
        self.complete_distances()
        for cell in self.cells:
            levels: set[int | None] = set()
            for cache in cell.caches:
                check_cell_cache(cache, cell.id or 0)
                if cache.level in levels:
                    raise xml_error(f"Cache level '{cache.level}' already defined")
                levels.add(cache.level)
        self.check_interconnects()

    def complete_distances(self) -> None:
        """A distance holds in both directions, unless both are given; a cell is near to itself.

        Raises:
            VirtError: VIR_ERR_XML_ERROR.
        """
        known: dict[int, dict[int, int]] = {}
        for cell in self.cells:
            own = cell.id or 0
            for one in cell.distances:
                other, value = one.id or 0, one.value or 0
                if other >= len(self.cells):
                    raise xml_error(f"'sibling_id {other}' does not refer to a valid cell within NUMA 'cell id {own}'")
                if not LOCAL <= value <= FARTHEST or (value == LOCAL) != (other == own):
                    raise xml_error(f"'value {value}' is invalid for 'sibling id {other}' under NUMA 'cell id {own}'")
                known.setdefault(own, {own: LOCAL})[other] = value
                known.setdefault(other, {other: LOCAL}).setdefault(own, value)
        for cell in self.cells:
            row = known.get(cell.id or 0, {})
            cell.distances = [Distance(id=number, value=value) for number, value in sorted(row.items())]

    def check_interconnects(self) -> None:
        """What is said of the way between two cells is said once, of cells that there are.

        Raises:
            VirtError: VIR_ERR_XML_ERROR.
        """
        seen: set[tuple[object, ...]] = set()
        links: list[Latency | Bandwidth] = [*self.latencies, *self.bandwidths]
        for one in links:
            for name in ("initiator", "target"):
                if getattr(one, name) >= len(self.cells):
                    raise xml_error(f"'{name}' refers to a non-existent NUMA node")
            initiator, target = self.cells[one.initiator or 0], self.cells[one.target or 0]
            if not initiator.cpus:
                raise xml_error("NUMA nodes without CPUs can't be initiator")
            if one.cache and one.cache not in [cache.level for cache in target.caches]:
                raise xml_error("'cache' refers to a non-existent NUMA node cache")
            key = (type(one), one.initiator, one.target, one.cache, one.type)
            if key in seen:
                raise xml_error("Duplicate info for NUMA latencies")
            seen.add(key)


def cpu_error(text: str, code: int = c.VIR_ERR_XML_ERROR) -> VirtError:
    """An error of VIR_FROM_CPU."""
    return VirtError(code, text, domain=c.VIR_FROM_CPU)


def check_cache(el: Element) -> None:
    """There is one word on the CPU's caches, of one level.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    found = el.findall("cache")
    if len(found) > 1:
        raise cpu_error("at most one CPU cache element may be specified")
    for cache in found:
        level = cache.get("level")
        if level is not None and level.isdigit() and not 1 <= int(level) <= MAX_CACHE_LEVEL:
            raise cpu_error(f"invalid CPU cache level, must be in range [1,{MAX_CACHE_LEVEL}]")
        if cache.get("mode") is None:
            raise missing_attribute("mode", cache)
    found = el.findall("maxphysaddr")
    if found and found[0].get("mode") is None:
        raise missing_attribute("mode", found[0])


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
        if self.mode in ("host-passthrough", "maximum"):
            self.model = self.model_fallback = self.vendor_id = self.vendor = None
        check_cache(el)
        if el.find("vendor") is not None and el.find("model") is None:
            raise cpu_error("CPU vendor specified without CPU model")
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
