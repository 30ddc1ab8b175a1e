"""What guests' interfaces and virtual networks say alike: virtual ports of a switch, VLANs, limits of bandwidth.

The checks are libvirt's, with its words; where a value stands (in a guest, a network, a port group) is not known here.
"""

from virtd import constants as c
from virtd.conf.xml.model import Element, Model, View, attr, sub, subs
from virtd.conf.xml.types import UINT, ULONG, UUID, Choice, Integer
from virtd.errors import VirtError

# The parameters of a virtual port that each kind of switch takes.
_PARAMETERS = {
    "802.1Qbg": {"managerid", "typeid", "typeidversion", "instanceid"},
    "802.1Qbh": {"profileid"},
    "openvswitch": {"interfaceid", "profileid"},
    "midonet": {"interfaceid"},
}
# In the order in which libvirt names the first one that is too many.
_ALL_PARAMETERS = ("managerid", "typeid", "typeidversion", "instanceid", "profileid", "interfaceid")
_IGNORED = {("midonet", "profileid")}  # libvirt drops it without a word
_LONGEST_PROFILE = 39
_LAST_VLAN = 4095
_NUMBER = Integer(0, (1 << 32) - 1, base=0)
_BAD_NUMBER = "cannot parse value of {0} parameter"
_BAD_UUID = "cannot parse {0} parameter as a uuid"


def refuse(text: str, code: int = c.VIR_ERR_XML_ERROR, domain: int | None = None) -> VirtError:
    """An error in a document."""
    return VirtError(code, text, domain=domain)


class VirtualPort(Model):
    """What a switch needs to know of the port (802.1Qbg, 802.1Qbh, Open vSwitch, midonet)."""

    type = attr(
        "@type",
        Choice("802.1Qbg 802.1Qbh openvswitch midonet"),
        bad=(c.VIR_ERR_CONFIG_UNSUPPORTED, "unknown virtualport type %s"),
    )
    managerid = attr("parameters/@managerid", _NUMBER, bad=(c.VIR_ERR_XML_ERROR, _BAD_NUMBER.format("managerid")))
    typeid = attr("parameters/@typeid", _NUMBER, bad=(c.VIR_ERR_XML_ERROR, _BAD_NUMBER.format("typeid")))
    typeidversion = attr(
        "parameters/@typeidversion", _NUMBER, bad=(c.VIR_ERR_XML_ERROR, _BAD_NUMBER.format("typeidversion"))
    )
    instanceid = attr("parameters/@instanceid", UUID, bad=(c.VIR_ERR_XML_ERROR, _BAD_UUID.format("instanceid")))
    interfaceid = attr("parameters/@interfaceid", UUID, bad=(c.VIR_ERR_XML_ERROR, _BAD_UUID.format("interfaceid")))
    profileid = attr("parameters/@profileid")

    def loaded(self, el: Element, view: View) -> None:
        """Check the values' bounds, and that the kind of switch takes them."""
        if self.managerid is not None and self.managerid > 0xFF:
            raise refuse("value of managerid out of range")
        if self.typeid is not None and self.typeid > 0xFFFFFF:
            raise refuse("value for typeid out of range")
        if self.typeidversion is not None and self.typeidversion > 0xFF:
            raise refuse("value of typeidversion out of range")
        if self.profileid is not None and len(self.profileid.encode()) > _LONGEST_PROFILE:
            raise refuse("profileid parameter too long")
        if self.type is None:
            return
        for name in _ALL_PARAMETERS:
            if getattr(self, name) is None or name in _PARAMETERS[self.type]:
                continue
            if (self.type, name) not in _IGNORED:
                text = f"extra {name} unsupported in <virtualport type='{self.type}'>"
                raise refuse(text, domain=c.VIR_FROM_NET)
            setattr(self, name, None)

    @property
    def empty(self) -> bool:
        """Whether it says nothing at all."""
        return self.type is None and all(getattr(self, name) is None for name in _ALL_PARAMETERS)


class VlanTag(Model):
    """One VLAN of a port."""

    id = attr("@id", UINT, required=True)
    native_mode = attr("@nativeMode", Choice("tagged untagged"))


class Vlan(Model):
    """The VLANs of a port."""

    trunk = attr("@trunk")
    tags = subs("tag", VlanTag)

    def loaded(self, el: Element, view: View) -> None:
        """Check the tags, and that more than one of them make a trunk."""
        if not self.tags:
            raise refuse("missing tag id - each <vlan> must have at least one <tag id='n'/> subelement")
        for tag in self.tags:
            if tag.id is not None and tag.id > _LAST_VLAN:
                raise refuse(f"vlan tag id {tag.id} too large (maximum {_LAST_VLAN})")
        native = sum(tag.native_mode is not None for tag in self.tags)
        if native > 1:
            raise refuse("duplicate native vlan setting")
        trunk = self.trunk or None
        if trunk not in (None, "yes") and len(self.tags) > 1:
            text = f"invalid \"trunk='{trunk}'\" in <vlan> - trunk='yes' is required for more than one vlan tag"
            raise refuse(text)
        if trunk not in (None, "yes", "no"):
            raise refuse(f"invalid \"trunk='{trunk}'\" in <vlan> - must be yes or no")
        self.trunk = "yes" if trunk == "yes" or len(self.tags) > 1 else None


def _limit(name: str) -> tuple[int, str]:
    return c.VIR_ERR_CONFIG_UNSUPPORTED, f"could not convert bandwidth {name} value '%s'"


class Rate(Model):
    """A limit of traffic in KiB/s, bursts in KiB."""

    average = attr("@average", ULONG, omit=0, bad=_limit("average"))
    peak = attr("@peak", ULONG, omit=0, bad=_limit("peak"))
    floor = attr("@floor", ULONG, omit=0, bad=_limit("floor"))
    burst = attr("@burst", ULONG, omit=0, bad=_limit("burst"))

    def loaded(self, el: Element, view: View) -> None:
        """A limit needs an average or a guarantee."""
        if self.average is None and self.floor is None:
            raise refuse("Missing mandatory average or floor attributes", c.VIR_ERR_XML_DETAIL)
        if self.average is None and (self.peak is not None or self.burst is not None):
            text = "'peak' and 'burst' require 'average' attribute"
            raise refuse(text, c.VIR_ERR_CONFIG_UNSUPPORTED)
        if el.tag == "outbound" and self.floor is not None:
            text = "'floor' attribute allowed only in <inbound> element"
            raise refuse(text, c.VIR_ERR_CONFIG_UNSUPPORTED)


class Bandwidth(Model):
    """Limits of traffic, as the guest's end sees it."""

    inbound = sub("inbound", Rate, only=(c.VIR_ERR_XML_DETAIL, "Only one child <inbound> element allowed"))
    outbound = sub("outbound", Rate, only=(c.VIR_ERR_XML_DETAIL, "Only one child <outbound> element allowed"))

    @property
    def empty(self) -> bool:
        """Whether it limits nothing; libvirt keeps a limit that is zero, but not one that is not there."""
        return self.inbound is None and self.outbound is None


# The typed parameters that say the same: name, direction, field.
PARAMETERS = tuple(
    (f"{direction}.{field}", direction, field)
    for direction, fields in (
        ("inbound", ("average", "peak", "burst", "floor")),
        ("outbound", ("average", "peak", "burst")),
    )
    for field in fields
)
