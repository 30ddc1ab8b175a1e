"""<interface>: the guest's network cards, and what they are connected to.

The kinds of InterfaceSource are libvirt's interface types.
"""

from uuid import uuid4

from virtd import constants as c
from virtd.conf.domain.base import Address, Device, Reconnect, VirtioOptions
from virtd.conf.domain.errors import conf_error, xml_error
from virtd.conf.netdev import Bandwidth
from virtd.conf.xml.model import Element, Model, View, attr, inline, sub, subs
from virtd.conf.xml.types import MAC, ON_OFF, POSITIVE, UINT, ULONG, YES_NO, Choice
from virtd.errors import VirtError

TYPES = Choice("user ethernet vhostuser server client mcast network bridge internal direct hostdev udp vdpa null vds")
UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED


NEED_SOURCE = (
    "network",
    "bridge",
    "direct",
    "vdpa",
    "vhostuser",
    "internal",
    "hostdev",
    "vds",
    "server",
    "client",
    "mcast",
    "udp",
)


class Ip(Model):
    """An address, of the guest's or the host's end."""

    address = attr("@address", required=True)
    family = attr("@family", Choice("ipv4 ipv6"))
    prefix = attr("@prefix", UINT)
    peer = attr("@peer")

    def loaded(self, el: Element, view: View) -> None:
        """The family is that of the address."""
        self.family = "ipv6" if ":" in (self.address or "") else "ipv4"


class Route(Model):
    """A route."""

    family = attr("@family")
    address = attr("@address")
    netmask = attr("@netmask")
    prefix = attr("@prefix", UINT)
    gateway = attr("@gateway")
    metric = attr("@metric", UINT)


class Local(Model):
    """The near end of a UDP connection."""

    address = attr("@address")
    port = attr("@port", UINT)


PORT_NEEDS = {
    "802.1Qbg": ("managerid", "typeid", "typeidversion"),
    "802.1Qbh": ("profileid",),
    "midonet": ("interfaceid",),
}


class VirtualPort(Model):
    """What a switch needs to know of the port (802.1Qbg, 802.1Qbh, Open vSwitch, midonet)."""

    type = attr(
        "@type",
        Choice("none 802.1Qbg 802.1Qbh openvswitch midonet"),
        omit="none",
        bad=(UNSUPPORTED, "unknown virtualport type %s"),
    )
    managerid = attr("parameters/@managerid", UINT)
    typeid = attr("parameters/@typeid", UINT)
    typeidversion = attr("parameters/@typeidversion", UINT)
    instanceid = attr("parameters/@instanceid")
    interfaceid = attr("parameters/@interfaceid")
    profileid = attr("parameters/@profileid")

    def loaded(self, el: Element, view: View) -> None:
        """What each kind of switch must know; ids that identify the port are made."""
        for name in PORT_NEEDS.get(self.type or "", ()):
            if getattr(self, name) is None:
                text = f"missing {name} in <virtualport type='{self.type}'>"
                raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_DEVICE)
        if self.type == "802.1Qbg" and self.instanceid is None:
            self.instanceid = str(uuid4())
        if self.type == "openvswitch" and self.interfaceid is None:
            self.interfaceid = str(uuid4())


class VlanTag(Model):
    """One VLAN of a port."""

    id = attr("@id", UINT, required=True)
    native_mode = attr("@nativeMode", Choice("tagged untagged"))


MAX_VLAN = 4095


class Vlan(Model):
    """The VLANs of a port."""

    trunk = attr("@trunk", YES_NO)
    tags = subs("tag", VlanTag)

    def loaded(self, el: Element, view: View) -> None:
        """Several VLANs make a trunk."""
        text = None
        if not self.tags:
            text = "missing tag id - each <vlan> must have at least one <tag id='n'/> subelement"
        elif any((tag.id or 0) > MAX_VLAN for tag in self.tags):
            wrong = next(tag.id for tag in self.tags if (tag.id or 0) > MAX_VLAN)
            text = f"vlan tag id {wrong} too large (maximum {MAX_VLAN})"
        elif len(self.tags) > 1 and self.trunk is False:
            text = "invalid \"trunk='no'\" in <vlan> - trunk='yes' is required for more than one vlan tag"
        elif sum(tag.native_mode is not None for tag in self.tags) > 1:
            text = "duplicate native vlan setting"
        if text is not None:
            raise VirtError(c.VIR_ERR_XML_ERROR, text)
        if len(self.tags) > 1 or any(tag.native_mode is not None for tag in self.tags):
            self.trunk = True


class Offloads(Model):
    """What virtio may leave to the other side."""

    csum = attr("@csum", ON_OFF)
    gso = attr("@gso", ON_OFF)
    tso4 = attr("@tso4", ON_OFF)
    tso6 = attr("@tso6", ON_OFF)
    ecn = attr("@ecn", ON_OFF)
    ufo = attr("@ufo", ON_OFF)
    mrg_rxbuf = attr("@mrg_rxbuf", ON_OFF)


class InterfaceDriver(Model):
    """How a virtio card works inside."""

    name = attr("@name", Choice("qemu vhost vfio kvm xen"))
    txmode = attr("@txmode", Choice("iothread timer"))
    ioeventfd = attr("@ioeventfd", ON_OFF)
    event_idx = attr("@event_idx", ON_OFF)
    queues = attr("@queues", UINT, omit=0)
    rx_queue_size = attr("@rx_queue_size", UINT)
    tx_queue_size = attr("@tx_queue_size", UINT)
    rss = attr("@rss", ON_OFF)
    rss_hash_report = attr("@rss_hash_report", ON_OFF)
    virtio = inline(VirtioOptions)
    host = sub("host", Offloads)
    guest = sub("guest", Offloads)


class FilterParameter(Model):
    """A variable of a network filter."""

    name = attr("@name")
    value = attr("@value")


class FilterRef(Model):
    """The network filter of an interface."""

    filter = attr("@filter", required=True)
    parameters = subs("parameter", FilterParameter)


class Teaming(Model):
    """Two cards that back up each other."""

    type = attr("@type", Choice("persistent transient"))
    persistent = attr("@persistent")


class InterfaceSource(Model, by="."):
    """What an interface is connected to."""


class UserSource(InterfaceSource, kind="user null"):
    """QEMU's own user mode network."""


class EthernetSource(InterfaceSource, kind="ethernet"):
    """A tap device and nothing else."""

    ips = subs("source/ip", Ip)
    routes = subs("source/route", Route)


class VhostUserSource(InterfaceSource, kind="vhostuser"):
    """A socket of a process that is the switch."""

    type = attr("source/@type", Choice("unix"), required=True)
    path = attr("source/@path", required=True)
    mode = attr("source/@mode", Choice("client server"), required=True)
    reconnect = sub("source/reconnect", Reconnect)


class NetworkSource(InterfaceSource, kind="network"):
    """A virtual network."""

    network = attr("source/@network", required=True)
    portgroup = attr("source/@portgroup")
    portid = attr("source/@portid", live=True)
    bridge = attr("source/@bridge", live=True)


class BridgeSource(InterfaceSource, kind="bridge"):
    """A bridge of the host; while the guest runs, perhaps as what a network has chosen."""

    network = attr("source/@network", live=True)
    portgroup = attr("source/@portgroup", live=True)
    portid = attr("source/@portid", live=True)
    bridge = attr("source/@bridge", required=True)


class InternalSource(InterfaceSource, kind="internal"):
    """A network within one host."""

    name = attr("source/@name", required=True)


class DirectSource(InterfaceSource, kind="direct"):
    """A macvtap on a device of the host; while the guest runs, perhaps as what a network has chosen."""

    network = attr("source/@network", live=True)
    portgroup = attr("source/@portgroup", live=True)
    portid = attr("source/@portid", live=True)
    dev = attr("source/@dev", required=True)
    mode = attr(
        "source/@mode",
        Choice("vepa private bridge passthrough"),
        default="vepa",
        bad=(UNSUPPORTED, "unknown mode '%s'"),
    )


class SocketSource(InterfaceSource, kind="udp client mcast"):
    """A tunnel between QEMUs by a socket."""

    address = attr("source/@address", required=True)
    port = attr("source/@port", UINT, required=True)
    local = sub("source/local", Local)


class ServerSource(InterfaceSource, kind="server"):
    """The end of such a tunnel that waits for the other."""

    address = attr("source/@address")
    port = attr("source/@port", UINT, required=True)


class VdpaSource(InterfaceSource, kind="vdpa"):
    """A vDPA device."""

    dev = attr("source/@dev", required=True)


class HostdevSource(InterfaceSource, kind="hostdev"):
    """A network card of the host that is given to the guest."""

    managed = attr("@managed", YES_NO)
    backend = attr("driver/@name", Choice("kvm vfio xen"))
    startup_policy = attr("source/@startupPolicy")
    address = sub("source/address", Address)

    def loaded(self, el: Element, view: View) -> None:
        """It is somewhere."""
        if self.address is None and el.find("source") is not None:
            raise xml_error("missing source address type")


class PortRange(Model):
    """Ports that are forwarded, or not."""

    start = attr("@start", POSITIVE)
    end = attr("@end", POSITIVE)
    to = attr("@to", POSITIVE)
    exclude = attr("@exclude", YES_NO)


class PortForward(Model):
    """Ports of the host that lead to the guest."""

    proto = attr("@proto", Choice("tcp udp"), required=True)
    address = attr("@address")
    dev = attr("@dev")
    ranges = subs("range", PortRange)


class Interface(Device):
    """A network card."""

    type = attr("@type", TYPES, default="user")
    trust_guest_rx_filters = attr("@trustGuestRxFilters", YES_NO)
    mac = attr("mac/@address", MAC, bad=(c.VIR_ERR_XML_ERROR, "unable to parse mac address '%s'"))
    mac_type = attr("mac/@type", Choice("generated static"), bad=(UNSUPPORTED, "unknown mac address type '%s'"))
    mac_check = attr("mac/@check", YES_NO)
    source = inline(InterfaceSource, by="type")
    vlan = sub("vlan", Vlan)
    virtualport = sub("virtualport", VirtualPort)
    bandwidth = sub("bandwidth", Bandwidth)
    isolated = attr("port/@isolated", YES_NO)
    ips = subs("ip", Ip)
    routes = subs("route", Route)
    port_forwards = subs("portForward", PortForward)
    script = attr("script/@path")
    downscript = attr("downscript/@path")
    backenddomain = attr("backenddomain/@name")
    target = attr("target/@dev")
    target_managed = attr("target/@managed", YES_NO)
    guest = attr("guest/@dev")
    guest_actual = attr("guest/@actual", live=True)
    model = attr("model/@type")
    driver = sub("driver", InterfaceDriver)
    backend_type = attr("backend/@type", Choice("default"), omit="default")
    tap = attr("backend/@tap")
    vhost = attr("backend/@vhost")
    log_file = attr("backend/@logFile")
    filterref = sub("filterref", FilterRef)
    sndbuf = attr("tune/sndbuf", ULONG)
    teaming = sub("teaming", Teaming)
    link = attr("link/@state", Choice("up down"), bad=(UNSUPPORTED, "unknown interface link state '%s'"))
    mtu = attr("mtu/@size", UINT)
    coalesce_frames = attr("coalesce/rx/frames/@max", UINT, omit=0)

    def loaded(self, el: Element, view: View) -> None:
        """What the type says of other values."""
        if self.type in NEED_SOURCE and el.find("source") is None:
            raise xml_error(f"interface type='{self.type}' requires a 'source' element")
        if self.model is None and self.type == "vdpa":
            self.model = "virtio"
        if self.mac is not None and int(self.mac[:2], 16) & 1:
            given = el.find("mac")
            text = given.get("address") if given is not None else ""
            raise xml_error(f"expected unicast mac address, found multicast '{text}'")
        if self.virtualport is not None:
            if self.type not in ("network", "bridge", "direct", "hostdev"):
                text = f"<virtualport> element unsupported for <interface type='{self.type}'>"
                raise conf_error(text)
            if self.virtualport.type in (None, "none") and self.type != "network":
                raise VirtError(c.VIR_ERR_XML_ERROR, "missing required virtualport type")
        inbound = self.bandwidth.inbound if self.bandwidth is not None else None
        if inbound is not None and inbound.floor is not None and self.type != "network":
            raise VirtError(UNSUPPORTED, "floor attribute is not supported for this config")
        if self.type == "hostdev" or not (self.model or "").startswith("virtio"):
            self.driver = self.vhost = None
        elif self.driver is not None and self.driver.queues == 1:
            self.driver.queues = None
        if self.type not in ("ethernet", "network", "bridge"):
            self.filterref = None
        if self.target is not None and not view.live and self.target.startswith(("vnet", "macvtap", "macvlan")):
            self.target = None
