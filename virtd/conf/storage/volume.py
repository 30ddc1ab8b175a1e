"""<volume>: the root of the model of a volume, its defaults and rules."""

import copy
from collections.abc import Container

from virtd import constants as c
from virtd.conf.storage.basics import BYTES, POSITION, Permissions, merge_repeated
from virtd.conf.storage.encryption import Encryption
from virtd.conf.storage.types import BACKING_FORMATS, VOLUME_TYPES, PoolType
from virtd.conf.xml.model import Element, Model, View, attr, flag, part, sub, subs, write_document
from virtd.conf.xml.read import errors_from, read_element, root_element
from virtd.conf.xml.types import TEXT, Size
from virtd.errors import VirtError

INVALID = c.VIR_ERR_XML_ERROR
UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED
# libvirt speaks of the capacity, whichever of the sizes is wrong.
_BAD_SIZE = (INVALID, "malformed capacity element")


class _ClusterSize(Size):
    """A size that libvirt writes with the unit 'B'."""

    def __init__(self) -> None:
        super().__init__("bytes", "bytes")
        self.unit = "B"


class Timestamps(Model):
    """When a file was read, written, changed and made: seconds with nanoseconds, as text."""

    atime = attr("atime")
    mtime = attr("mtime")
    ctime = attr("ctime")
    btime = attr("btime")


class Features(Model):
    """What a qcow2 image has more than the least."""

    lazy_refcounts = flag("lazy_refcounts")
    extended_l2 = flag("extended_l2")


class Target(Model):
    """What a volume is like where it appears."""

    path = attr("path")
    format = attr("format/@type")
    permissions = sub("permissions", Permissions)
    timestamps = sub("timestamps", Timestamps)
    encryption = sub("encryption", Encryption)
    compat = attr("compat")
    cluster_size = attr("clusterSize", _ClusterSize(), bad=_BAD_SIZE)
    features = sub("features", Features, keep=True)
    nocow = flag("nocow", when=lambda target, view: False)

    def loaded(self, el: Element, view: View) -> None:
        """The version of qcow2 is a number with a dot, its features are known; times are found and not told."""
        if not view.live:
            self.timestamps = None
        if self.compat is not None:
            left, dot, right = self.compat.partition(".")
            if not (dot and left.isascii() and left.isdigit() and right.isascii() and right.isdigit()):
                text = "forbidden characters in 'compat' attribute"
                raise VirtError(INVALID, text, domain=c.VIR_FROM_STORAGE)
        elif self.features is not None:
            self.compat = "1.1"
        for child in el.iterfind("features/*"):
            if child.tag not in ("lazy_refcounts", "extended_l2"):
                text = f"unsupported feature {child.tag}"
                raise VirtError(UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)


class Backing(Model):
    """The image that has what a volume does not hold itself."""

    path = attr("path")
    format = attr("format/@type")
    permissions = sub("permissions", Permissions)
    timestamps = sub("timestamps", Timestamps)

    def loaded(self, el: Element, view: View) -> None:
        """An unsaid format is raw."""
        if not view.live:
            self.timestamps = None
        if self.format is None:
            self.format = "raw"
        elif self.format not in BACKING_FORMATS[1:]:
            raise VirtError(UNSUPPORTED, f"unknown volume format type {self.format}", domain=c.VIR_FROM_STORAGE)


class Extent(Model):
    """A part of a device, in bytes; the end is the first one behind it."""

    start = attr("@start", POSITION)
    end = attr("@end", POSITION)


class SourceDevice(Model):
    """A device that a volume lies on, and where on it."""

    path = attr("@path")
    extents = subs("extent", Extent)


class Volume(Model):
    """A volume of a storage pool; sizes in bytes."""

    type = attr("@type", TEXT)
    name = attr("name")
    key = attr("key")
    devices = subs("source/device", SourceDevice)
    capacity = attr("capacity", BYTES, bad=_BAD_SIZE)
    allocation = attr("allocation", BYTES, bad=_BAD_SIZE)
    physical = attr("physical", BYTES, bad=_BAD_SIZE)
    target = part("target", Target, keep=True)
    backing = sub("backingStore", Backing)

    @property
    def path(self) -> str:
        """Where it appears."""
        return self.target.path or ""


def parse_volume(xml: str, kind: PoolType, *, sizes_optional: bool = False) -> Volume:
    """A volume that a client describes: parsed, defaults filled in, checked.

    Args:
        xml: the document.
        kind: what type of pool it is for.
        sizes_optional: take one without a capacity: it is that of another volume.

    Raises:
        VirtError: with libvirt's code for what is wrong.
    """
    root = root_element(xml, "volume", "storage_volume_definition", c.VIR_FROM_STORAGE)
    if not (root.findtext("name") or ""):
        raise VirtError(INVALID, "missing volume name element", domain=c.VIR_FROM_STORAGE)
    said = root.get("type")
    if said is not None and said not in VOLUME_TYPES:
        raise VirtError(UNSUPPORTED, f"unknown volume type '{said}'", domain=c.VIR_FROM_STORAGE)
    for tag in ("target", "backingStore"):
        merge_repeated(root, tag)
    # What is wrong is said in libvirt's order: what is read here is read again at the end, with everything else.
    backed = bool(root.findtext("backingStore/path"))
    for part_names in (("backingStore",) if backed else (), ("capacity", "allocation", "physical")):
        read_element(_only(root, part_names), Volume, c.VIR_FROM_STORAGE)
    if not backed:
        for element in root.findall("backingStore"):
            root.remove(element)
        if not (root.findtext("capacity") or sizes_optional):
            raise VirtError(INVALID, "missing capacity element", domain=c.VIR_FROM_STORAGE)
    image_format = _format(root, kind)
    volume = read_element(root, Volume, c.VIR_FROM_STORAGE)
    volume.target.format = image_format
    # Both are where the pool puts it, whatever the client says.
    volume.key = volume.target.path = volume.physical = None
    volume.devices = []
    return volume


def read_volume(xml: str) -> Volume:
    """A volume from XML that virtd wrote itself."""
    root = root_element(xml, "volume", "storage_volume_definition", c.VIR_FROM_STORAGE)
    with errors_from(c.VIR_FROM_STORAGE):
        return Volume.read(root, View(live=True))


def format_volume(volume: Volume) -> str:
    """The XML of a volume, as libvirt writes it."""
    return write_document(volume, "volume", View(live=True))


def _only(root: Element, tags: Container[str]) -> Element:
    """A document's root with some of its children alone."""
    found = copy.copy(root)
    for child in list(found):
        if child.tag not in tags:
            found.remove(child)
    return found


def _format(root: Element, kind: PoolType) -> str | None:
    """The format of a volume, as it is said or by default; None if those of its pool have none."""
    element = root.find("target/format")
    said = None if element is None else element.get("type") or None
    # Pools of images on a server take any format's name, and none but raw then.
    known = kind.volumes or (BACKING_FORMATS if kind.default_volume is not None else ())
    if not known:
        return None
    if said is None:
        return kind.default_volume
    if said not in known or (said == "none" and kind.default_volume != "none"):
        raise VirtError(UNSUPPORTED, f"unknown volume format type {said}", domain=c.VIR_FROM_STORAGE)
    return said
