"""<hostdev>: devices of the host that are given to the guest. The kinds are libvirt's subsystem types."""

import re

from virtd import constants as c
from virtd.conf.domain.base import HEX4, HEX8, HEX16, Device
from virtd.conf.domain.disk import Auth, Host
from virtd.conf.domain.errors import conf_error, internal_error, xml_error
from virtd.conf.domain.interface import Teaming
from virtd.conf.xml.model import Element, Model, View, attr, flag, missing_attribute, sub, subs
from virtd.conf.xml.types import ON_OFF, UINT0, UUID, YES_NO, Choice, Integer, Switch
from virtd.errors import VirtError

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED


WWPN = re.compile(r"naa\.[0-9a-fA-F]{16}")
ULONG0 = Integer(0, (1 << 64) - 1, base=0)
VENDOR = Integer(0, 0xFFFFFFFF, base=0, template="0x%04x", zero=False)


class YesOrNot(Switch):
    """A truth value of which only the yes is asked for."""

    def parse(self, text: str) -> bool:
        return text == "yes"


YES_OR_NOT = YesOrNot("yes", "no")


class HostdevSource(Model, by="."):
    """Which device it is on the host."""


class UsbSource(HostdevSource, kind="usb"):
    """A USB device, by what it is or where it is."""

    startup_policy = attr("@startupPolicy", Choice("mandatory requisite optional"))
    guest_reset = attr("@guestReset", Choice("off uninitialized on"))
    vendor = attr("vendor/@id", VENDOR)
    product = attr("product/@id", HEX16)
    bus = attr("address/@bus", UINT0)
    device = attr("address/@device", UINT0)

    def loaded(self, el: Element, view: View) -> None:
        """Both halves are needed."""
        for name in ("vendor", "product"):
            found = el.find(name)
            if found is not None and found.get("id") is None:
                raise missing_attribute("id", found)
        address = el.find("address")
        if address is not None:
            for name, value in (("bus", self.bus), ("device", self.device)):
                if value is None:
                    raise missing_attribute(name, address)
        elif self.vendor is not None and self.product is None:
            raise internal_error("missing product")
        elif self.product is not None and self.vendor is None:
            raise internal_error("missing vendor")


class PciSource(HostdevSource, kind="pci"):
    """A PCI device."""

    write_filtering = attr("@writeFiltering", YES_NO)
    domain = attr("address/@domain", HEX16, default=0)
    bus = attr("address/@bus", HEX8, default=0)
    slot = attr("address/@slot", HEX8, default=0)
    function = attr("address/@function", HEX4, default=0)

    def loaded(self, el: Element, view: View) -> None:
        """The bounds of an address."""
        for name, value, limit in (("bus", self.bus, 0xFF), ("slot", self.slot, 0x1F)):
            if value > limit:
                text = f"Invalid PCI address {name}='0x{value:x}', must be <= 0x{limit:X}"
                raise VirtError(c.VIR_ERR_XML_ERROR, text)


class ScsiSource(HostdevSource, kind="scsi"):
    """A SCSI logical unit, on the host or by iSCSI."""

    protocol = attr(
        "@protocol", Choice("adapter iscsi"), omit="adapter", bad=(UNSUPPORTED, "Unknown scsi subsystem protocol '%s'")
    )
    name = attr("@name")
    adapter = attr("adapter/@name")
    bus = attr("address/@bus", UINT0)
    target = attr("address/@target", UINT0)
    unit = attr("address/@unit", ULONG0)
    hosts = subs("host", Host)
    auth = sub("auth", Auth)
    initiator = attr("initiator/iqn/@name")

    def loaded(self, el: Element, view: View) -> None:
        """An iSCSI target has units, a host's adapter a name."""
        if self.protocol != "iscsi":
            if el.find("address") is None:
                raise xml_error("'address' must be specified for scsi hostdev source")
            address = el.find("address")
            for name in ("bus", "target", "unit"):
                if address is not None and getattr(self, name) is None:
                    raise missing_attribute(name, address)
            if self.adapter is None:
                raise xml_error("'adapter' name must be specified for scsi hostdev source")
        elif self.name is None:
            raise xml_error("missing iSCSI hostdev source path name")
        elif not self.hosts:
            raise xml_error("missing the host address for the iSCSI hostdev")
        elif len(self.hosts) > 1:
            raise xml_error("only one source host address may be specified for the iSCSI hostdev")
        if self.protocol != "iscsi":
            self.auth = self.initiator = None
            self.hosts = []
        if self.auth is not None and self.auth.secret is not None and self.auth.secret.type not in (None, "iscsi"):
            raise internal_error(f"hostdev invalid secret type '{self.auth.secret.type}'")
        if self.protocol == "iscsi" and self.name is not None and "/" not in self.name:
            self.name += "/0"


class ScsiHostSource(HostdevSource, kind="scsi_host"):
    """A SCSI target in the host's kernel."""

    protocol = attr("@protocol", Choice("vhost"), bad=(UNSUPPORTED, "Unknown scsi_host subsystem protocol '%s'"))
    wwpn = attr("@wwpn")

    def loaded(self, el: Element, view: View) -> None:
        """It has a name of the kernel's form."""
        if self.protocol is None:
            raise xml_error("Missing scsi_host subsystem protocol")
        if self.wwpn is None:
            raise xml_error("missing vhost-scsi hostdev source wwpn")
        if not WWPN.fullmatch(self.wwpn):
            raise xml_error("malformed 'wwpn' value")


class MdevSource(HostdevSource, kind="mdev"):
    """A mediated device."""

    uuid = attr("address/@uuid")

    def loaded(self, el: Element, view: View) -> None:
        """It has a name."""
        if self.uuid is None:
            raise conf_error("Missing 'uuid' attribute for element <address>")
        try:
            UUID.parse(self.uuid)
        except ValueError:
            raise internal_error("Cannot parse uuid attribute of element <address>") from None


CAPABILITY_TYPES = ("storage", "misc", "net")


def check_source(hostdev: "Hostdev") -> None:
    """A host device is somewhere on the host.

    Raises:
        VirtError: VIR_ERR_XML_ERROR or VIR_ERR_INTERNAL_ERROR.
    """
    if hostdev.type is None:
        raise xml_error("missing source address type")
    if (hostdev.type in CAPABILITY_TYPES) != (hostdev.mode == "capabilities"):
        raise conf_error(f"unknown host device source address type '{hostdev.type}'")
    if hostdev.mode == "capabilities":
        return
    if hostdev.source is None:
        raise xml_error("Missing <source> element in hostdev device")


class Hostdev(Device):
    """A device of the host."""

    mode = attr(
        "@mode", Choice("subsystem capabilities"), default="subsystem", bad=(UNSUPPORTED, "unknown hostdev mode '%s'")
    )
    type = attr(
        "@type",
        Choice("usb pci scsi scsi_host mdev storage misc net"),
        bad=(UNSUPPORTED, "unknown host device source address type '%s'"),
    )
    managed = attr("@managed", YES_OR_NOT)
    sgio = attr("@sgio", Choice("filtered unfiltered"))
    rawio = attr("@rawio", YES_NO)
    model = attr("@model", Choice("vfio-pci vfio-ccw vfio-ap virtio virtio-transitional virtio-non-transitional"))
    display = attr("@display", ON_OFF)
    ramfb = attr("@ramfb", ON_OFF)
    backend = attr("driver/@name", Choice("kvm vfio xen"))
    source = sub("source", HostdevSource, by="source_kind")
    readonly = flag("readonly")
    shareable = flag("shareable")
    teaming = sub("teaming", Teaming)

    @property
    def source_kind(self) -> str | None:
        """The type, if what is said of the source is to be read."""
        senseless = self.mode != "subsystem" or (self.type == "mdev" and self.model is None)
        return None if senseless else self.type

    def loaded(self, el: Element, view: View) -> None:
        """What is not said is off. The device must be named."""
        if self.type == "mdev" and self.model is None and self.mode == "subsystem" and el.find("source") is not None:
            raise missing_attribute("model", el)
        check_source(self)
        found = el.find("source")
        if found is not None and found.get("startupPolicy") is not None and self.type != "usb":
            raise conf_error("Setting startupPolicy is only allowed for USB devices")
        if self.model is not None and self.type not in ("mdev", "scsi_host"):
            raise xml_error(f"'model' attribute in <hostdev> is only supported when type='{self.type}'")
        for name in ("sgio", "rawio"):
            if getattr(self, name) is not None and self.type != "scsi":
                raise xml_error(f"{name} is only supported for scsi host device")
        if self.type != "mdev":
            self.display = self.ramfb = None
        if self.teaming is not None and self.teaming.type is None and self.teaming.persistent is None:
            self.teaming = None
        if self.mode == "subsystem":
            self.managed = bool(self.managed)
        if self.type == "mdev" and self.display is None:
            self.display = False
        if self.type != "scsi":
            self.readonly = self.shareable = False
