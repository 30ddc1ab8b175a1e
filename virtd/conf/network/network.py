"""<network>: the root of the model."""

from virtd import constants as c
from virtd.conf.netdev import Bandwidth, VirtualPort, Vlan
from virtd.conf.network.dns import Dns
from virtd.conf.network.forward import OWN_BRIDGE, sub_forward
from virtd.conf.network.ip import Ip, Route, refuse
from virtd.conf.xml.model import NAMESPACES, Element, Model, View, attr, raw, sub, subs
from virtd.conf.xml.types import MAC, TEXT, UINT, ULONG, UUID, YES_NO


class PortGroup(Model):
    """What guests get who ask for the group."""

    name = attr("@name")
    default = attr("@default")
    trust_guest_rx_filters = attr("@trustGuestRxFilters", YES_NO)
    vlan = sub("vlan", Vlan)
    virtualport = sub("virtualport", VirtualPort)
    bandwidth = sub("bandwidth", Bandwidth, keep=True)

    def loaded(self, el: Element, view: View) -> None:
        """It has a name."""
        if self.name is None:
            raise refuse("Missing required name attribute in portgroup")
        self.default = "yes" if self.default == "yes" else None
        no_floor(self.bandwidth)
        if self.bandwidth is not None and self.bandwidth.empty:
            self.bandwidth = None


class DnsmasqOption(Model):
    """A line for dnsmasq's configuration."""

    value = attr("@value", required=(c.VIR_ERR_INTERNAL_ERROR, "No dnsmasq options value specified"))


class Network(Model):
    """A virtual network."""

    connections = attr("@connections", UINT, live=True, omit=0)
    dnsmasq_namespace = attr(
        "@xmlns:dnsmasq", TEXT, default=NAMESPACES["dnsmasq"], when=lambda n, view: bool(n.dnsmasq_options)
    )
    ipv6 = attr("@ipv6")
    trust_guest_rx_filters = attr("@trustGuestRxFilters", YES_NO)
    name = attr("name")
    uuid = attr("uuid", UUID, bad=(c.VIR_ERR_INTERNAL_ERROR, "malformed uuid element"))
    title = attr("title")
    description = attr("description")
    metadata = raw("metadata")
    forward = sub_forward()
    bridge = attr("bridge/@name")
    zone = attr("bridge/@zone")
    stp = attr("bridge/@stp")
    delay = attr("bridge/@delay")
    mac_table_manager = attr("bridge/@macTableManager")
    mtu = attr("mtu/@size")
    mac = attr("mac/@address")
    domain = attr("domain/@name")
    domain_local_only = attr("domain/@localOnly", YES_NO, when=lambda n, view: n.domain is not None)
    dns = sub("dns", Dns)
    vlan = sub("vlan", Vlan)
    bandwidth = sub("bandwidth", Bandwidth, keep=True)
    isolated = attr("port/@isolated", YES_NO)
    ips = subs("ip", Ip, keep=True)
    routes = subs("route", Route)
    virtualport = sub("virtualport", VirtualPort)
    portgroups = subs("portgroup", PortGroup)
    dnsmasq_options = subs("dnsmasq:options/dnsmasq:option", DnsmasqOption)

    @property
    def mode(self) -> str:
        """The forward mode; "none" for an isolated network."""
        return "none" if self.forward is None else self.forward.mode

    @property
    def own_bridge(self) -> bool:
        """Whether the network has a bridge of its own."""
        return self.mode in OWN_BRIDGE

    def ips_of(self, version: int) -> list[Ip]:
        """The addresses of one version, 4 or 6."""
        return [ip for ip in self.ips if ip.version == version]

    def dhcp_of(self, version: int) -> Ip | None:
        """The address of a version for which DHCP is configured."""
        return next((ip for ip in self.ips_of(version) if ip.dhcp and (ip.dhcp.ranges or ip.dhcp.hosts)), None)

    def portgroup(self, name: str | None) -> PortGroup | None:
        """The port group of a name, or the default one."""
        for group in self.portgroups:
            if group.name == name if name is not None else group.default == "yes":
                return group
        return None

    def loaded(self, el: Element, view: View) -> None:
        """Check and normalise what stands at the top."""
        if self.ipv6 not in (None, "", "yes", "no"):
            raise refuse(f"Invalid ipv6 setting '{self.ipv6}' in network '{{network}}'")
        self.ipv6 = "yes" if self.ipv6 == "yes" else None
        no_floor(self.bandwidth)
        if self.bandwidth is not None and self.bandwidth.empty:
            self.bandwidth = None
        self._check_bridge()
        self.mtu = _mtu(self.mtu)
        if self.virtualport is not None and self.virtualport.type is None:
            raise refuse("missing required virtualport type")

    def _check_bridge(self) -> None:
        # An empty text is the same as none, and of stp only "off" has a meaning.
        self.bridge, self.mac, self.delay = self.bridge or None, self.mac or None, self.delay or None
        if self.delay is not None:
            try:
                self.delay = ULONG.format(ULONG.parse(self.delay))
            except ValueError:
                raise refuse("Invalid delay value in network '{network}'") from None
        if self.mac_table_manager not in (None, "", "kernel", "libvirt"):
            text = f"Invalid macTableManager setting '{self.mac_table_manager}' in network '{{network}}'"
            raise refuse(text)
        self.mac_table_manager = self.mac_table_manager or None
        if self.mac is not None:
            try:
                mac = MAC.parse(self.mac)
            except ValueError:
                raise refuse(f"Invalid bridge mac address '{self.mac}' in network '{{network}}'") from None
            if int(mac[:2], 16) & 1:
                raise refuse(f"Invalid multicast bridge mac address '{mac}' in network '{{network}}'")
            self.mac = mac


def no_floor(bandwidth: Bandwidth | None) -> None:
    """Refuse a guarantee where only guests' interfaces can have one."""
    if bandwidth is not None and bandwidth.inbound is not None and bandwidth.inbound.floor is not None:
        raise refuse("floor attribute is not supported for this config", c.VIR_ERR_CONFIG_UNSUPPORTED)


def _mtu(text: str | None) -> str | None:
    """The MTU as libvirt keeps it: an unsigned number of 32 bits (a negative one wraps around), 0 for none."""
    if not text:
        return None
    digits = text.strip(" \t\n")
    sign, digits = (digits[:1], digits[1:]) if digits[:1] in "+-" else ("", digits)
    if not (digits.isascii() and digits.isdigit()) or int(digits) >= 1 << 32:
        raise refuse(f"Invalid mtu size '{text}' in network '{{network}}'")
    value = int(digits) if sign != "-" else -int(digits) % (1 << 32)
    return str(value) if value else None
