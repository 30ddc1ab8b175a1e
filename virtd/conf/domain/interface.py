"""<interface>: the guest's network cards, and what they are connected to.

The kinds of InterfaceSource are libvirt's interface types.
"""

import re
from uuid import uuid4

from virtd import constants as c
from virtd.conf.domain.base import Address, Device, PciAddress, Reconnect, VirtioOptions
from virtd.conf.domain.errors import conf_error, xml_error
from virtd.conf.netdev import Bandwidth, VirtualPort, Vlan
from virtd.conf.network import sockaddr
from virtd.conf.network.ip import Route as NetworkRoute
from virtd.conf.xml.model import Element, Model, View, attr, inline, sub, subs
from virtd.conf.xml.types import LONG, MAC, ON_OFF, POSITIVE, UINT, ULONG, UUID, YES_NO, Choice
from virtd.errors import VirtError

TYPES = Choice("user ethernet vhostuser server client mcast network bridge internal direct hostdev udp vdpa null vds")
MODEL_NAME = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
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


PREFIXES = {4: 32, 6: 128}


class Ip(Model):
    """An address, of the guest's or the host's end."""

    address = attr("@address", required=(c.VIR_ERR_XML_ERROR, "Missing required address in <ip>"))
    family = attr("@family")
    prefix = attr("@prefix", UINT, omit=0, bad=(c.VIR_ERR_XML_ERROR, "Invalid prefix value '%s' in <ip>"))
    peer = attr("@peer")

    def loaded(self, el: Element, view: View) -> None:
        """The family is that of the address."""
        version = {"ipv4": 4, "ipv6": 6}.get(self.family or "")
        for name in ("address", "peer"):
            text = getattr(self, name)
            found = sockaddr.parse(text) if text is not None else None
            if text is not None and (found is None or version not in (None, found.version)):
                raise xml_error(f"Invalid {name} '{text}' in <ip>")
            if found is not None:
                setattr(self, name, str(found))
                version = found.version
        self.family = f"ipv{version}"
        if (self.prefix or 0) > PREFIXES[version or 4]:
            raise xml_error(f"Invalid prefix value '{self.prefix}' in <ip>")


class Route(NetworkRoute):
    """A route in the guest or on the host's end."""

    def loaded(self, el: Element, view: View) -> None:
        """The same as a network's, but for whose it is."""
        try:
            super().loaded(el, view)
        except VirtError as error:
            text = (error.str2 or "").replace("{network}", "guest interface")
            raise VirtError(error.code, text, domain=c.VIR_FROM_NETWORK) from None


class Local(Model):
    """The near end of a UDP connection."""

    address = attr("@address")
    port = attr("@port", UINT)


PORT_NEEDS = {
    "802.1Qbg": ("managerid", "typeid", "typeidversion"),
    "802.1Qbh": ("profileid",),
    "midonet": ("interfaceid",),
}
PORT_MADE = {"802.1Qbg": ("instanceid",), "openvswitch": ("interfaceid",), "": ("instanceid", "interfaceid")}


def complete_port(port: VirtualPort) -> None:
    """What each kind of switch must know of a guest's port; ids that only tell it apart are made.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    kind = port.type or ""
    for name in PORT_NEEDS.get(kind, ()):
        if getattr(port, name) is None:
            text = f"missing {name} in <virtualport type='{kind}'>"
            raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_NET)
    for made in PORT_MADE.get(kind, ()):
        if getattr(port, made) is None:
            setattr(port, made, str(uuid4()))


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

    type = attr("@type", Choice("persistent transient"), bad=(UNSUPPORTED, "unknown teaming type '%s'"))
    persistent = attr("@persistent")


class InterfaceSource(Model, by="."):
    """What an interface is connected to."""


class UserSource(InterfaceSource, kind="user null"):
    """QEMU's own user mode network, or passt's, which may be told by which device of the host it goes out."""

    dev = attr("source/@dev")


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


class SocketSource(InterfaceSource, kind="client mcast"):
    """A tunnel between QEMUs by a socket."""

    address = attr("source/@address", required=True)
    port = attr("source/@port", UINT, required=True)
    local: Local | None = None


class UdpSource(SocketSource, kind="udp"):
    """A tunnel of datagrams, which is bound to an address, too."""

    address = attr("source/@address", required=True)
    port = attr("source/@port", UINT, required=True)
    local = sub("source/local", Local)

    def loaded(self, el: Element, view: View) -> None:
        """Both ends are somewhere."""
        if self.local is None:
            raise xml_error("'<local>' element missing for 'udp' socket interface")


class ServerSource(InterfaceSource, kind="server"):
    """The end of such a tunnel that waits for the other."""

    address = attr("source/@address")
    port = attr("source/@port", UINT, required=True)


class VdpaSource(InterfaceSource, kind="vdpa"):
    """A vDPA device."""

    dev = attr("source/@dev", required=True)


class VdsSource(InterfaceSource, kind="vds"):
    """A port of a switch of VMware's."""

    switch = attr("source/@switchid", UUID, required=True)
    port = attr("source/@portid", LONG, default=0)
    group = attr("source/@portgroupid")
    connection = attr("source/@connectionid", LONG, default=0)


class SourceAddress(Address, by="@type", missing=(c.VIR_ERR_XML_ERROR, "missing source address type")):
    """Where a card is on the host."""


SourceAddress.kinds = Address.kinds


class HostdevSource(InterfaceSource, kind="hostdev"):
    """A network card of the host that is given to the guest."""

    managed = attr("@managed", YES_NO)
    backend = attr("driver/@name", Choice("kvm vfio xen"))
    startup_policy = attr("source/@startupPolicy")
    address = sub("source/address", SourceAddress)

    portid: str | None = None
    """The port of the network whose pool it comes from, which no XML tells."""

    def loaded(self, el: Element, view: View) -> None:
        """It is somewhere."""
        if isinstance(self.address, PciAddress):
            self.address.host = True
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
    backend = attr("backend/@type", Choice("passt"))
    tap = attr("backend/@tap")
    vhost = attr("backend/@vhost")
    log_file = attr("backend/@logFile")
    filterref = sub("filterref", FilterRef)
    sndbuf = attr("tune/sndbuf", ULONG)
    teaming = sub("teaming", Teaming)
    link = attr("link/@state", Choice("up down"), bad=(UNSUPPORTED, "unknown interface link state '%s'"))
    mtu = attr("mtu/@size", UINT)
    coalesce_frames = attr("coalesce/rx/frames/@max", UINT, omit=0)

    driver_virtio: VirtioOptions | None = None
    """What was said of virtio, be it a virtio card or not."""

    @classmethod
    def entered(cls, el: Element) -> None:
        """Only a network shares its bandwidth out by classes."""
        bandwidth = el.find("bandwidth")
        if bandwidth is not None and bandwidth.get("classID") is not None and el.get("type") != "network":
            text = "classID attribute not supported on <bandwidth> in this usage context"
            raise VirtError(c.VIR_ERR_XML_DETAIL, text)

    def loaded(self, el: Element, view: View) -> None:
        """What the type says of other values."""
        if self.model is not None and not MODEL_NAME.fullmatch(self.model):
            text = "Model name contains invalid characters"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_DOMAIN)
        if self.type in NEED_SOURCE and el.find("source") is None:
            raise xml_error(f"interface type='{self.type}' requires a 'source' element")
        if self.model is None and self.type == "vdpa":
            self.model = "virtio"
        if self.mac is not None and int(self.mac[:2], 16) & 1:
            given = el.find("mac")
            shown = given.get("address") if given is not None else ""
            raise xml_error(f"expected unicast mac address, found multicast '{shown}'")
        if self.type != "ethernet" and (el.find("source/ip") is not None or el.find("source/route") is not None):
            raise conf_error(
                "Invalid attempt to set network interface host-side IP route and/or address info on interface of type "
                f"'{self.type}'. This is only supported on interfaces of type 'ethernet'"
            )
        if self.backend == "passt" and self.type != "user":
            raise conf_error("The 'passt' backend can only be used with interface type='user'")
        if self.backend is None and isinstance(self.source, UserSource):
            self.source.dev = None
        if self.virtualport is not None:
            if self.type not in ("network", "bridge", "direct", "hostdev"):
                text = f"<virtualport> element unsupported for <interface type='{self.type}'>"
                raise conf_error(text)
            if self.virtualport.type is None and self.type != "network":
                raise VirtError(c.VIR_ERR_XML_ERROR, "missing required virtualport type")
            complete_port(self.virtualport)
        inbound = self.bandwidth.inbound if self.bandwidth is not None else None
        if inbound is not None and inbound.floor is not None and self.type != "network":
            raise VirtError(UNSUPPORTED, "floor attribute is not supported for this config")
        virtio = (self.model or "").startswith("virtio")
        if self.driver is not None:
            self.driver_virtio = self.driver.virtio
            known = ("kvm", "vfio", "xen") if self.type == "hostdev" else ("qemu", "vhost")
            if self.driver.name not in (None, *known) and (virtio or self.type == "hostdev"):
                text = f"Invalid value for attribute 'name' in element 'driver': '{self.driver.name}'."
                raise xml_error(text, domain=c.VIR_FROM_XML)
        if self.type == "hostdev" or not (self.model or "").startswith("virtio"):
            self.driver = self.vhost = None
        elif self.driver is not None and self.driver.queues == 1:
            self.driver.queues = None
        if self.type not in ("ethernet", "network", "bridge"):
            self.filterref = None
        if self.target is not None and not view.live and self.target.startswith(("vnet", "macvtap", "macvlan")):
            self.target = None
