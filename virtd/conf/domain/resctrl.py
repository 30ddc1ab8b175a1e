"""Parts of the host's caches and of its memory's bandwidth for some virtual CPUs, as the kernel's resctrl gives them.

What is wrong in here libvirt sees after pins and schedulers: an element only reads itself, `check` looks at them all.
"""

from itertools import combinations

from virtd import constants as c
from virtd.conf.domain.errors import xml_error
from virtd.conf.xml.model import Element, Model, View, attr, missing_attribute, subs
from virtd.conf.xml.types import BITMAP, KIB, UINT, Bitmap, Choice
from virtd.errors import VirtError

MONITOR_LEVEL = 3


class LenientBitmap(Bitmap):
    """A set of numbers; what is none is empty."""

    def parse(self, text: str) -> frozenset[int]:
        try:
            return super().parse(text)
        except VirtError:
            return frozenset()


LENIENT_BITMAP = LenientBitmap()


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

    def loaded(self, el: Element, view: View) -> None:
        """It is said whom it watches."""
        parent = el.getparent()
        if self.level is None and parent is not None and parent.tag == "cachetune":
            raise missing_attribute("level", el)
        if self.vcpus is None:
            raise xml_error("Missing monitor attribute 'vcpus'")


class BandwidthPart(Model):
    """A part of the bandwidth of the memory of one node of the host, in per cent."""

    id = attr("@id", UINT, required=True)
    bandwidth = attr("@bandwidth", UINT, required=True)


class Group(Model):
    """Some virtual CPUs that share what they are given."""

    vcpus = attr("@vcpus", LENIENT_BITMAP)
    vcpus_text: str | None = None
    """What was said of them, for messages."""

    def loaded(self, el: Element, view: View) -> None:
        """What is wrong is told when all is read."""
        self.vcpus_text = el.get("vcpus")


class CacheTune(Group):
    """Parts of the host's caches for some virtual CPUs."""

    vcpus = attr("@vcpus", LENIENT_BITMAP)
    caches = subs("cache", CachePart)
    monitors = subs("monitor", Monitor)

    @property
    def partitions(self) -> bool:
        """Whether it asks for anything."""
        return bool(self.caches or self.monitors)


class MemTune(Group):
    """Parts of the memory's bandwidth for some virtual CPUs."""

    vcpus = attr("@vcpus", LENIENT_BITMAP)
    nodes = subs("node", BandwidthPart)
    monitors = subs("monitor", Monitor)

    @property
    def partitions(self) -> bool:
        """Whether it asks for anything."""
        return bool(self.nodes or self.monitors)


def check(vcpus: int, cachetunes: list[CacheTune], memorytunes: list[MemTune]) -> None:
    """Look at all parts together.

    Args:
        vcpus: how many virtual CPUs there can be.
        cachetunes, memorytunes: what each group is given.

    Raises:
        VirtError: VIR_ERR_XML_ERROR or VIR_ERR_INVALID_ARG.
    """
    present = frozenset(range(min(vcpus, 1 << 16)))
    seen: list[frozenset[int]] = []
    for cachetune in cachetunes:
        check_group("cachetune", cachetune)
        check_caches(cachetune)
        monitors("cachetune", cachetune)
        own = (cachetune.vcpus or frozenset()) & present
        if own and cachetune.partitions:
            if own in seen:
                raise xml_error("Identical vcpus in cachetunes found")
            apart(own, seen)
            seen.append(own)
    given: set[tuple[frozenset[int], int | None]] = set()
    for memorytune in memorytunes:
        check_group("memorytune", memorytune)
        own = (memorytune.vcpus or frozenset()) & present
        for node in memorytune.nodes:
            text = None
            if (node.bandwidth or 0) > 100:
                text = "Memory Bandwidth value exceeding 100 is invalid."
            elif (own, node.id) in given or [one.id for one in memorytune.nodes].count(node.id) > 1:
                text = f"Memory Bandwidth already defined for node {node.id}"
            if text is not None:
                raise xml_error(text, domain=c.VIR_FROM_RESCTRL)
            given.add((own, node.id))
        monitors("memorytune", memorytune)
        if own and memorytune.partitions:
            apart(own, [other for other in seen if other != own])
            seen.append(own)


def check_group(name: str, group: Group) -> None:
    """It is said who shares.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    if group.vcpus_text is None and group.vcpus is None:
        raise xml_error(f"Missing {name} attribute 'vcpus'")
    if not group.vcpus:
        raise xml_error(f"Invalid {name} attribute 'vcpus' value '{group.vcpus_text}'")


def check_caches(group: CacheTune) -> None:
    """No part of a cache is given twice; code and data are the two parts of both.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    for number, one in enumerate(group.caches):
        for other in group.caches[:number]:
            same = (one.level, one.id) == (other.level, other.id)
            if same and (one.type == other.type or "both" in (one.type, other.type)):
                text = f"Colliding cache allocations for cache level '{one.level}' id '{one.id}', type '{one.type}'"
                raise xml_error(text, domain=c.VIR_FROM_RESCTRL)


def monitors(name: str, group: CacheTune | MemTune) -> None:
    """Each watches some of the group, and none another one's.

    Raises:
        VirtError: VIR_ERR_XML_ERROR or VIR_ERR_INVALID_ARG.
    """
    for monitor in group.monitors:
        if name == "cachetune" and monitor.level != MONITOR_LEVEL:
            raise xml_error(f"Invalid monitor cache level '{monitor.level}'")
        wrong = None
        if not (monitor.vcpus or frozenset()) <= (group.vcpus or frozenset()):
            wrong = "Monitor vcpus conflicts with allocation"
        if wrong is not None:
            raise VirtError(c.VIR_ERR_INVALID_ARG, wrong, domain=c.VIR_FROM_DOMAIN)
    for one, other in combinations([monitor.vcpus or frozenset() for monitor in group.monitors], 2):
        if one & other:
            same = "Identical vcpus found in same type monitors"
            text = same if one == other else "vcpus overlaps in resctrl groups"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_DOMAIN)


def apart(own: frozenset[int], others: list[frozenset[int]]) -> None:
    """No virtual CPU is in two groups.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    if any(own & other for other in others):
        raise xml_error("Overlapping vcpus in resctrls")
