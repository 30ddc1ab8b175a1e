"""<source> of a pool: where its storage comes from."""

from virtd import constants as c
from virtd.conf.secret.reference import SecretReference
from virtd.conf.storage.basics import POSITION
from virtd.conf.storage.types import PoolType
from virtd.conf.xml.model import Element, Model, View, attr, sub, subs
from virtd.conf.xml.types import INT, UINT0, YES_NO, Choice, Integer
from virtd.errors import VirtError

INVALID = c.VIR_ERR_XML_ERROR
UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED


class Host(Model):
    """A server."""

    name = attr("@name")
    port = attr("@port", INT, omit=0)

    def loaded(self, el: Element, view: View) -> None:
        """It must have a name."""
        if self.name is None:
            raise VirtError(INVALID, "missing storage pool host name", domain=c.VIR_FROM_STORAGE)


class FreeExtent(Model):
    """A part of a disk that is in no partition, in bytes; the end is the first one behind it."""

    start = attr("@start", POSITION)
    end = attr("@end", POSITION)


class Device(Model):
    """A block device, or what stands for one (an iSCSI target).

    What is free on a disk is told of an active pool; what a client says of it does not count.
    """

    path = attr("@path")
    part_separator = attr("@part_separator", YES_NO)
    free = subs("freeExtent", FreeExtent)

    def loaded(self, el: Element, view: View) -> None:
        """It must have a path."""
        if self.path is None:
            raise VirtError(INVALID, "missing storage pool source device path", domain=c.VIR_FROM_STORAGE)
        self.free = []


class PciAddress(Model):
    """Where a SCSI host adapter sits."""

    domain = attr("@domain", Integer(0, (1 << 32) - 1, base=0, template="0x%04x"), default=0)
    bus = attr("@bus", Integer(0, (1 << 32) - 1, base=0, template="0x%02x"), default=0)
    slot = attr("@slot", Integer(0, (1 << 32) - 1, base=0, template="0x%02x"), default=0)
    function = attr("@function", Integer(0, (1 << 32) - 1, base=0, template="0x%x"), default=0)

    def loaded(self, el: Element, view: View) -> None:
        """Check the bounds."""
        for name, limit, shown in (
            ("domain", 0xFFFF, "0xFFFF"),
            ("bus", 0xFF, "0xFF"),
            ("slot", 0x1F, "0x1F"),
            ("function", 7, "7"),
        ):
            value = getattr(self, name)
            if value > limit:
                text = f"Invalid PCI address {name}='0x{value:x}', must be <= {shown}"
                raise VirtError(INVALID, text, domain=c.VIR_FROM_NONE)


def _check_untyped(adapter: Element) -> None:
    """Refuse what only one type of adapter has, if the type is not said."""
    if any(adapter.get(name) is not None for name in ("wwnn", "wwpn", "parent")):
        text = "Use of 'wwnn', 'wwpn', and 'parent' attributes requires use of the adapter 'type'"
        raise VirtError(INVALID, text, domain=c.VIR_FROM_STORAGE)


class ParentAddress(Model):
    """A SCSI host adapter by its place, which stays the same when numbers change."""

    unique_id = attr("@unique_id", UINT0, bad=(INVALID, "Missing or invalid scsi adapter 'unique_id' value"))
    address = sub("address", PciAddress, keep=True)

    def loaded(self, el: Element, view: View) -> None:
        """Both must be there, and the adapter must say that it is a SCSI host."""
        adapter = el.getparent()
        if adapter is not None and adapter.get("type") is None:
            _check_untyped(adapter)
            text = "Use of 'parentaddr' element requires use of the adapter 'type'"
            raise VirtError(INVALID, text, domain=c.VIR_FROM_STORAGE)
        if self.unique_id is None:
            text = "Missing or invalid scsi adapter 'unique_id' value"
            raise VirtError(INVALID, text, domain=c.VIR_FROM_STORAGE)
        if self.address is None:
            raise VirtError(INVALID, "Missing scsi_host PCI address element", domain=c.VIR_FROM_STORAGE)


class Adapter(Model):
    """A SCSI host adapter, real (scsi_host) or a virtual port of Fibre Channel (fc_host)."""

    type = attr("@type", Choice("scsi_host fc_host"))
    name = attr("@name")
    parent = attr("@parent")
    managed = attr("@managed", YES_NO)
    parent_wwnn = attr("@parent_wwnn")
    parent_wwpn = attr("@parent_wwpn")
    parent_fabric_wwn = attr("@parent_fabric_wwn")
    wwnn = attr("@wwnn")
    wwpn = attr("@wwpn")
    parent_address = sub("parentaddr", ParentAddress)

    def loaded(self, el: Element, view: View) -> None:
        """Without a type it is a SCSI host; what belongs to the other type is refused or dropped."""
        if self.type is None:
            _check_untyped(el)
            if self.name is None:
                return
            self.type = "scsi_host"
        if self.type == "scsi_host":
            for name in ("parent", "managed", "parent_wwnn", "parent_wwpn", "parent_fabric_wwn", "wwnn", "wwpn"):
                setattr(self, name, None)
        else:
            self.name = self.parent_address = None

    def check(self) -> None:
        """Whether it says which adapter is meant.

        Raises:
            VirtError: VIR_ERR_XML_ERROR, VIR_ERR_INTERNAL_ERROR.
        """
        text = None
        if self.type == "scsi_host":
            if self.name is None and self.parent_address is None:
                text = "Either 'name' or 'parent' must be specified for the 'scsi_host' adapter"
            elif self.name is not None and self.parent_address is not None:
                text = "Both 'name' and 'parent' cannot be specified for the 'scsi_host' adapter"
        elif self.wwnn is None or self.wwpn is None:
            text = "'wwnn' and 'wwpn' must be specified for adapter type 'fchost'"
        else:
            _check_wwn(self.wwnn)
            _check_wwn(self.wwpn)
            if self.parent_wwnn is not None and self.parent_wwpn is None:
                text = f"when providing parent_wwnn='{self.parent_wwnn}', the parent_wwpn must also be provided"
            elif self.parent_wwpn is not None and self.parent_wwnn is None:
                text = f"when providing parent_wwpn='{self.parent_wwpn}', the parent_wwnn must also be provided"
            for name in (self.parent_wwnn, self.parent_wwpn, self.parent_fabric_wwn):
                if text is None and name is not None:
                    _check_wwn(name)
        if text is not None:
            raise VirtError(INVALID, text, domain=c.VIR_FROM_STORAGE)


def _check_wwn(name: str) -> None:
    if len(name) != 16 or not all(ch in "0123456789abcdefABCDEF" for ch in name):
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"Malformed wwn: {name}", domain=c.VIR_FROM_NONE)


class Auth(Model):
    """Who we are to a storage server."""

    type = attr("@type")
    username = attr("@username")
    secret = sub("secret", SecretReference)

    def loaded(self, el: Element, view: View) -> None:
        """All three must be there."""
        if not self.username:
            raise VirtError(INVALID, "missing username for auth", domain=c.VIR_FROM_STORAGE)
        if self.type is not None and self.type not in ("chap", "ceph"):
            raise VirtError(UNSUPPORTED, f"unknown auth type '{self.type}'", domain=c.VIR_FROM_STORAGE)
        if self.secret is None:
            raise VirtError(INVALID, "Missing <secret> element in auth", domain=c.VIR_FROM_STORAGE)
        if self.type is None:
            raise VirtError(UNSUPPORTED, "storage pool missing auth type", domain=c.VIR_FROM_STORAGE)


class Source(Model):
    """Where a pool's storage comes from. What the type of pool does not use is dropped."""

    hosts = subs("host", Host)
    devices = subs("device", Device)
    dir = attr("dir/@path")
    adapter = sub("adapter", Adapter)
    name = attr("name")
    initiator = attr("initiator/iqn/@name")
    format = attr("format/@type")
    auth = sub("auth", Auth)
    protocol = attr("protocol/@ver")
    vendor = attr("vendor/@name")
    product = attr("product/@name")

    def loaded(self, el: Element, view: View) -> None:
        """What is empty is not there."""
        for name in ("initiator", "vendor", "product", "protocol"):
            if not getattr(self, name):
                setattr(self, name, None)
        if self.adapter is not None and self.adapter.type is None:
            self.adapter = None

    def keep_only(self, kind: PoolType) -> None:
        """Drop what a type of pool does not use.

        Raises:
            VirtError: VIR_ERR_CONFIG_UNSUPPORTED, it has no such format.
        """
        if not kind.formats:
            self.format = None
        elif self.format is None:
            self.format = kind.default_format
        elif self.format not in kind.formats:
            raise VirtError(UNSUPPORTED, f"unknown pool format type {self.format}", domain=c.VIR_FROM_STORAGE)
        if "host" not in kind.source:
            self.hosts = []
        if "device" not in kind.source:
            self.devices = []
        for name in ("dir", "adapter", "name", "initiator"):
            if name not in kind.source:
                setattr(self, name, None)
