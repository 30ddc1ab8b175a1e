"""<hostdev>: devices of the host that are given to the guest. The kinds are libvirt's subsystem types."""

from virtd import constants as c
from virtd.conf.domain.base import HEX4, HEX8, HEX16, Device
from virtd.conf.domain.disk import Auth, Host
from virtd.conf.xml.model import Element, Model, View, attr, flag, sub, subs
from virtd.conf.xml.types import ON_OFF, UINT, YES_NO, Choice

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED


class HostdevSource(Model, by="."):
    """Which device it is on the host."""


class UsbSource(HostdevSource, kind="usb"):
    """A USB device, by what it is or where it is."""

    startup_policy = attr("@startupPolicy", Choice("mandatory requisite optional"))
    guest_reset = attr("@guestReset", Choice("off uninitialized on"))
    vendor = attr("vendor/@id", HEX16)
    product = attr("product/@id", HEX16)
    bus = attr("address/@bus", UINT)
    device = attr("address/@device", UINT)


class PciSource(HostdevSource, kind="pci"):
    """A PCI device."""

    write_filtering = attr("@writeFiltering", YES_NO)
    domain = attr("address/@domain", HEX16, default=0)
    bus = attr("address/@bus", HEX8, default=0)
    slot = attr("address/@slot", HEX8, default=0)
    function = attr("address/@function", HEX4, default=0)


class ScsiSource(HostdevSource, kind="scsi"):
    """A SCSI logical unit, on the host or by iSCSI."""

    protocol = attr("@protocol", Choice("adapter iscsi"))
    name = attr("@name")
    adapter = attr("adapter/@name")
    bus = attr("address/@bus", UINT)
    target = attr("address/@target", UINT)
    unit = attr("address/@unit", UINT)
    hosts = subs("host", Host)
    auth = sub("auth", Auth)
    initiator = attr("initiator/iqn/@name")


class ScsiHostSource(HostdevSource, kind="scsi_host"):
    """A SCSI target in the host's kernel."""

    protocol = attr("@protocol", Choice("vhost"))
    wwpn = attr("@wwpn")


class MdevSource(HostdevSource, kind="mdev"):
    """A mediated device."""

    uuid = attr("address/@uuid")


class Hostdev(Device):
    """A device of the host."""

    mode = attr("@mode", Choice("subsystem capabilities"), default="subsystem")
    type = attr("@type", Choice("usb pci scsi scsi_host mdev storage misc net"))
    managed = attr("@managed", YES_NO)
    sgio = attr("@sgio", Choice("filtered unfiltered"))
    rawio = attr("@rawio", YES_NO)
    model = attr("@model")
    display = attr("@display", ON_OFF)
    ramfb = attr("@ramfb", ON_OFF)
    backend = attr("driver/@name", Choice("kvm vfio xen"))
    source = sub("source", HostdevSource, by="type", keep=True)
    readonly = flag("readonly")
    shareable = flag("shareable")

    def loaded(self, el: Element, view: View) -> None:
        """What is not said is off."""
        if self.mode == "subsystem":
            self.managed = bool(self.managed)
        if self.type == "mdev" and self.display is None:
            self.display = False
