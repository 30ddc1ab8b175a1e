"""What statistics need of a guest's XML, read in a tenth of the time that the whole model takes.

Only files that virtd itself wrote are read here: they are known to be right.
"""

from typing import NamedTuple

from lxml import etree

from virtd.drivers.qemu import stored
from virtd.state import files, kept

# Where the name of an image stands, by the kind of its source.
_SOURCE_NAMES = ("file", "dev", "dir", "name", "volume", "path")


class ImageFacts(NamedTuple):
    """An image: the name of its source, its number (0 unless the guest runs), its format, whether it is local.

    A plain one is a whole file that nobody has encrypted: the host knows all of its sizes.
    """

    path: str | None
    number: int
    format: str
    local: bool
    plain: bool


class DiskFacts(NamedTuple):
    """A disk: its names in the guest and in QEMU, and its images from the top; none if the drive is empty."""

    target: str
    alias: str
    images: list[ImageFacts]


class CardFacts(NamedTuple):
    """A network card: its device on the host, if it has one, and whether that is seen from the guest's side."""

    target: str | None
    mac: str
    kind: str


class Facts(NamedTuple):
    """A guest."""

    memory: int  # KiB
    current_memory: int  # KiB
    vcpus: int
    max_vcpus: int
    iothreads: int
    balloon: str | None  # alias of the balloon device
    stats_period: int  # how often the guest tells of its memory, in s; 0: never
    disks: list[DiskFacts]
    cards: list[CardFacts]
    kvm: bool
    counted: bool  # whether some of the host's performance counters are kept for it


Sizes = tuple[int, int, int]  # memory and current memory in KiB, virtual CPUs

# How many guests a process keeps them of.
_FACTS_KEPT = 4096
_SIZES_KEPT = 1 << 15

_facts: dict[str, tuple[files.Identity, Facts]] = {}
_sizes: dict[str, tuple[files.Identity, Sizes]] = {}


def sizes(path: str) -> Sizes | None:
    """How large a guest is that does not run, by its definition; None if virtd did not write it as it is."""

    def make(content: bytes) -> Sizes | None:
        written = stored.untouched(content)
        if written is None:
            return None
        found = _gather(_parse(written[0]), devices=False)
        return found.memory, found.current_memory, found.vcpus

    return kept.get(_sizes, path, make, most=_SIZES_KEPT)


def read(path: str) -> Facts | None:
    """The facts of the guest whose XML a file holds; None if there is no such file (any more)."""
    return kept.get(_facts, path, lambda content: _gather(_parse(content)), most=_FACTS_KEPT)


def _parse(content: bytes) -> etree._Element:
    return etree.fromstring(content, etree.XMLParser(resolve_entities=False, no_network=True))


def _gather(root: etree._Element, *, devices: bool = True) -> Facts:
    vcpu = root.find("vcpu")
    most = _number(None if vcpu is None else vcpu.text, 1)
    balloon = root.find("devices/memballoon")
    model = None if balloon is None else balloon.get("model")
    period = None if balloon is None else balloon.find("stats")
    return Facts(
        memory=_number(root.findtext("memory"), 0),
        current_memory=_number(root.findtext("currentMemory"), 0),
        vcpus=_number(None if vcpu is None else vcpu.get("current"), most),
        max_vcpus=most,
        iothreads=_number(root.findtext("iothreads"), 0),
        balloon=None if balloon is None or model == "none" else _alias(balloon) or "balloon0",
        stats_period=_number(None if period is None else period.get("period"), 0),
        disks=[_disk(element) for element in root.iterfind("devices/disk")] if devices else [],
        cards=[_card(element) for element in root.iterfind("devices/interface")] if devices else [],
        kvm=root.get("type") == "kvm",
        counted=root.find("perf/event[@enabled='yes']") is not None,
    )


def _disk(element: etree._Element) -> DiskFacts:
    target = element.find("target")
    images = []
    driver = element.find("driver")
    level: etree._Element | None = element
    kind = "raw" if driver is None else driver.get("type") or "raw"
    while level is not None:
        source = level.find("source")
        if source is not None:
            name = next((value for key in _SOURCE_NAMES if (value := source.get(key)) is not None), None)
            # The top image's number stands in its source, that of one below in its own element.
            index = source.get("index") or level.get("index")
            found = level.get("type")
            plain = found == "file" and kind in ("raw", "qcow2") and not _special(level, source)
            images.append(ImageFacts(name, _number(index, 0), kind, found in ("file", "block"), plain))
        level = level.find("backingStore")
        kind = "raw"
        if level is not None:
            form = level.find("format")
            kind = "raw" if form is None else form.get("type") or "raw"
    return DiskFacts("" if target is None else target.get("dev") or "", _alias(element) or "", images)


def _special(level: etree._Element, source: etree._Element) -> bool:
    """Whether an image is encrypted, a part of a file only, or one that a client has opened."""
    inner = any(one.find(name) is not None for one in (level, source) for name in ("encryption", "slices"))
    return inner or source.get("fdgroup") is not None


def _card(element: etree._Element) -> CardFacts:
    target, mac = element.find("target"), element.find("mac")
    return CardFacts(
        None if target is None else target.get("dev"),
        "" if mac is None else mac.get("address") or "",
        element.get("type") or "",
    )


def _alias(element: etree._Element) -> str | None:
    found = element.find("alias")
    return None if found is None else found.get("name")


def _number(text: str | None, default: int) -> int:
    return int(text) if text else default
