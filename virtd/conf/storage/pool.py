"""<pool>: the root of the model of a storage pool, its defaults and rules."""

import uuid

from virtd import constants as c
from virtd.conf.storage.basics import FOUND, Permissions, clean_path, merge_repeated
from virtd.conf.storage.source import Source
from virtd.conf.storage.types import POOL_TYPES, PoolType
from virtd.conf.xml.model import NAMESPACES, Element, Model, View, attr, part, sub, subs, write_document
from virtd.conf.xml.read import read_document, read_element, root_element
from virtd.conf.xml.types import TEXT, UUID, YES_NO, Choice
from virtd.errors import VirtError

INVALID = c.VIR_ERR_XML_ERROR
# Where a type has no path of its own choice, it follows from the source's name.
_FIXED_TARGETS = {"logical": "/dev/", "zfs": "/dev/zvol/"}
_MISSING = {
    "host": "missing storage pool source host name",
    "dir": "missing storage pool source path",
    "adapter": "missing storage pool source adapter",
    "device": "missing storage pool source device name",
}


class MountOption(Model):
    """An option for mount(8)."""

    name = attr("@name")

    def loaded(self, el: Element, view: View) -> None:
        """It must have a name."""
        if self.name is None:
            raise VirtError(INVALID, "no fs mount option name specified", domain=c.VIR_FROM_STORAGE)


class CephOption(Model):
    """An option of Ceph's, for RBD."""

    name = attr("@name")
    value = attr("@value")

    def loaded(self, el: Element, view: View) -> None:
        """Both must be there, and say something."""
        text = None
        if self.name is None:
            text = "no rbd option name specified"
        elif not self.name:
            text = "empty rbd option name specified"
        elif self.value is None:
            text = f"no rbd option value specified for name '{self.name}'"
        elif not self.value:
            text = f"empty rbd option value specified for name '{self.name}'"
        if text is not None:
            raise VirtError(INVALID, text, domain=c.VIR_FROM_STORAGE)


class Target(Model):
    """Where a pool's volumes appear."""

    path = attr("path")
    permissions = sub("permissions", Permissions)


class Pool(Model):
    """A storage pool."""

    type = attr("@type", Choice(POOL_TYPES), required=True)
    fs_namespace = attr("@xmlns:fs", TEXT, default=NAMESPACES["fs"], when=lambda pool, view: bool(pool.mount_options))
    rbd_namespace = attr("@xmlns:rbd", TEXT, default=NAMESPACES["rbd"], when=lambda pool, view: bool(pool.ceph_options))
    name = attr("name")
    uuid = attr("uuid", UUID, bad=(INVALID, "malformed uuid element"))
    capacity = attr("capacity", FOUND, default=0)
    allocation = attr("allocation", FOUND, default=0)
    available = attr("available", FOUND, default=0)
    cow = attr("features/cow/@state", YES_NO)
    source = part("source", Source, keep=True)
    target = sub("target", Target)
    mount_options = subs("fs:mount_opts/fs:option", MountOption)
    ceph_options = subs("rbd:config_opts/rbd:option", CephOption)

    @property
    def traits(self) -> PoolType:
        """What its type says of it."""
        assert self.type is not None
        return POOL_TYPES[self.type]

    @property
    def path(self) -> str:
        """Its target's path; empty if it has none."""
        return "" if self.target is None else self.target.path or ""


def parse_pool(xml: str) -> Pool:
    """A pool from its XML: parsed, defaults filled in, checked.

    Raises:
        VirtError: with libvirt's code for what is wrong.
    """
    root = root_element(xml, "pool", "storage_pool_definition", c.VIR_FROM_STORAGE)
    merge_repeated(root, "target")
    pool = read_element(root, Pool, c.VIR_FROM_STORAGE)
    kind, source = pool.traits, pool.source
    source.keep_only(kind)
    _check_name(pool)
    pool.uuid = pool.uuid or str(uuid.uuid4())
    if not source.name and "name" in kind.demanded and pool.type != "rbd":
        source.name = pool.name
    _check_source(pool)
    _set_target(pool)
    if pool.cow is not None and pool.type not in ("fs", "dir"):
        text = "cow feature may only be used for 'fs' and 'dir' pools"
        raise VirtError(c.VIR_ERR_NO_SUPPORT, text, domain=c.VIR_FROM_STORAGE)
    if pool.type == "netfs" and source.protocol is not None and source.format not in ("nfs", "auto"):
        text = f"storage pool protocol ver unsupported for pool type '{source.format}'"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
    if pool.type not in ("fs", "netfs"):
        pool.mount_options = []
    if pool.type != "rbd":
        pool.ceph_options = []
    if not kind.served:
        text = f"missing backend for pool type {kind.number} ({kind.name})"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE)
    return pool


def format_pool(pool: Pool) -> str:
    """The XML of a pool, as libvirt writes it."""
    text = write_document(pool, "pool", View(live=True))
    # The one element that libvirt never writes in the short form.
    return text.replace("\n  <source/>\n", "\n  <source>\n  </source>\n", 1)


def parse_source(xml: str) -> Source:
    """The <source> document that describes where to look for pools.

    Raises:
        VirtError: with libvirt's code for what is wrong.
    """
    return read_document(xml, Source, "source", "storage_source_specification", c.VIR_FROM_STORAGE)


def format_sources(sources: list[Source]) -> str:
    """The <sources> document: what was found."""
    bodies = [write_document(source, "source", View(live=True)) for source in sources]
    lines = [f"  {line}\n" for body in bodies for line in body.splitlines()]
    return "<sources>\n" + "".join(lines) + "</sources>\n"


def _check_name(pool: Pool) -> None:
    if pool.name is None and "name" in pool.traits.source:
        pool.name = pool.source.name
    if not pool.name:
        raise VirtError(INVALID, "missing pool source name element", domain=c.VIR_FROM_STORAGE)
    if "/" in pool.name:
        raise VirtError(INVALID, f"name {pool.name} cannot contain '/'", domain=c.VIR_FROM_STORAGE)
    if "\n" in pool.name:
        raise VirtError(c.VIR_ERR_XML_DETAIL, "invalid char in name: \n", domain=c.VIR_FROM_XML)


def _check_source(pool: Pool) -> None:
    """Refuse a source that does not say what its type needs."""
    source, demanded = pool.source, pool.traits.demanded
    for part_name, present in (
        ("host", bool(source.hosts)),
        ("dir", source.dir is not None),
        ("adapter", source.adapter is not None),
        ("device", bool(source.devices)),
    ):
        if part_name in demanded and not present:
            raise VirtError(INVALID, _MISSING[part_name], domain=c.VIR_FROM_STORAGE)
    if source.dir is not None:
        source.dir = clean_path(source.dir)
    if source.adapter is not None:
        source.adapter.check()
    if pool.type == "rbd" and not source.name:
        raise VirtError(INVALID, "element 'name' is mandatory for RBD pool", domain=c.VIR_FROM_STORAGE)
    if pool.type == "iscsi-direct" and source.initiator is None:
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, "missing initiator IQN", domain=c.VIR_FROM_STORAGE)


def _set_target(pool: Pool) -> None:
    fixed = _FIXED_TARGETS.get(pool.type or "")
    if fixed is not None:
        pool.target = pool.target or Target()
        pool.target.path = f"{fixed}{pool.source.name}"
    elif not pool.traits.target:
        pool.target = None
    elif not pool.path:
        raise VirtError(INVALID, "missing storage pool target path", domain=c.VIR_FROM_STORAGE)
    else:
        assert pool.target is not None
        pool.target.path = clean_path(pool.path)
