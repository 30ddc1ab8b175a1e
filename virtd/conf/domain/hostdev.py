"""<hostdev>: devices of the host that are given to the guest. The kinds are libvirt's subsystem types."""

import re

from virtd import constants as c
from virtd.conf.domain.base import HEX4, HEX8, HEX16, Device
from virtd.conf.domain.disk import Auth, Host
from virtd.conf.domain.errors import conf_error, internal_error, xml_error
from virtd.conf.domain.interface import Teaming
from virtd.conf.xml.model import Element, Model, View, attr, flag, missing_attribute, sub, subs
from virtd.conf.xml.types import ON_OFF, UINT, YES_NO, Choice, Integer
from virtd.errors import VirtError

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED


WWPN = re.compile(r"naa\.5[0-9a-fA-F]{15}")
VENDOR = Integer(0, 0xFFFFFFFF, base=0, template="0x%04x", zero=False)


class HostdevSource(Model, by="."):
    """Which device it is on the host."""


class UsbSource(HostdevSource, kind="usb"):
    """A USB device, by what it is or where it is."""

    startup_policy = attr("@startupPolicy", Choice("mandatory requisite optional"))
    guest_reset = attr("@guestReset", Choice("off uninitialized on"))
    vendor = attr("vendor/@id", VENDOR)
    product = attr("product/@id", HEX16)
    bus = attr("address/@bus", UINT)
    device = attr("address/@device", UINT)

    def loaded(self, el: Element, view: View) -> None:
        """Both halves are needed."""
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
        for name, value, limit in (("bus", self.bus, 0xFF), ("slot", self.slot, 0x1F), ("function", self.function, 7)):
            if value > limit:
                bound = f"0x{limit:X}" if limit > 7 else str(limit)
                text = f"Invalid PCI address {name}='0x{value:x}', must be <= {bound}"
                raise VirtError(c.VIR_ERR_XML_ERROR, text)


class ScsiSource(HostdevSource, kind="scsi"):
    """A SCSI logical unit, on the host or by iSCSI."""

    protocol = attr(
        "@protocol", Choice("adapter iscsi"), omit="adapter", bad=(UNSUPPORTED, "Unknown scsi subsystem protocol '%s'")
    )
    name = attr("@name")
    adapter = attr("adapter/@name")
    bus = attr("address/@bus", UINT)
    target = attr("address/@target", UINT)
    unit = attr("address/@unit", UINT)
    hosts = subs("host", Host)
    auth = sub("auth", Auth)
    initiator = attr("initiator/iqn/@name")

    def loaded(self, el: Element, view: View) -> None:
        """An iSCSI target has units, a host's adapter a name."""
        if self.protocol != "iscsi":
            if self.adapter is None:
                raise xml_error("'adapter' name must be specified for scsi hostdev source")
            if el.find("address") is None:
                raise xml_error("'address' must be specified for scsi hostdev source")
        elif self.name is None:
            raise xml_error("missing iSCSI hostdev source path name")
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


def check_source(hostdev: "Hostdev") -> None:
    """A host device is somewhere on the host.

    Raises:
        VirtError: VIR_ERR_XML_ERROR or VIR_ERR_INTERNAL_ERROR.
    """
    if hostdev.type is None:
        raise xml_error("missing source address type")
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
    managed = attr("@managed", YES_NO)
    sgio = attr("@sgio", Choice("filtered unfiltered"))
    rawio = attr("@rawio", YES_NO)
    model = attr("@model", Choice("vfio-pci vfio-ccw vfio-ap virtio virtio-transitional virtio-non-transitional"))
    display = attr("@display", ON_OFF)
    ramfb = attr("@ramfb", ON_OFF)
    backend = attr("driver/@name", Choice("kvm vfio xen"))
    source = sub("source", HostdevSource, by="type")
    readonly = flag("readonly")
    shareable = flag("shareable")
    teaming = sub("teaming", Teaming)

    def loaded(self, el: Element, view: View) -> None:
        """What is not said is off. The device must be named."""
        if self.mode == "subsystem":
            check_source(self)
        if self.mode == "subsystem":
            self.managed = bool(self.managed)
        if self.type == "mdev" and self.model is None:
            raise missing_attribute("model", el)
        if self.type == "mdev" and self.display is None:
            self.display = False
        if self.type != "scsi":
            self.readonly = self.shareable = False
            self.sgio = self.rawio = None
