"""What the parts of a network must have to do with each other, and the defaults that follow from the mode.

In the order in which libvirt checks: of several mistakes the first is reported. Nothing here asks the host.
"""

from virtd.conf.netdev import VirtualPort
from virtd.conf.network import sockaddr
from virtd.conf.network.forward import Forward
from virtd.conf.network.ip import UNSUPPORTED, refuse
from virtd.conf.network.network import Network


def finish(network: Network) -> None:
    """Check a network as a whole, and fill in what follows from its mode; it is changed.

    Raises:
        VirtError: what is wrong with it.
    """
    _check_routes(network)
    _check_forward(network)
    _finish_bridge(network)
    _check_mode(network)
    _check_devices(network)
    _check_dhcp(network)
    _check_portgroups(network)
    _check_vlans(network)


def _check_routes(network: Network) -> None:
    """A gateway must be reached directly."""
    for route in network.routes:
        gateway = sockaddr.parse(route.gateway or "")
        if not any(ip.prefix_length >= 0 and gateway in ip.network for ip in network.ips):
            text = f"unreachable static route gateway '{route.gateway}' specified for network '{{network}}'"
            raise refuse(text, UNSUPPORTED)


def _check_forward(network: Network) -> None:
    mode, forward = network.mode, network.forward or Forward()
    options = network.stp is not None or network.zone is not None or network.delay is not None
    if mode in ("nat", "route", "open"):
        if not network.ips:
            raise refuse(f"{mode} forwarding requested, but no IP address provided for network '{{network}}'")
        if len(forward.interfaces) > 1:
            text = "multiple forwarding interfaces specified for network '{network}', only one is supported"
            raise refuse(text)
        if mode == "open" and forward.interfaces:
            raise refuse("forward dev not allowed for network '{network}' with forward mode='open'")
    if network.own_bridge:
        return
    if mode != "bridge" and network.bridge is not None:
        raise refuse(f"bridge name not allowed in {mode} mode (network '{{network}}')")
    if mode != "bridge" and network.mac_table_manager is not None:
        raise refuse(f"bridge macTableManager setting not allowed in {mode} mode (network '{{network}}')")
    if options:
        allowed = "bridge delay/stp/zone options only allowed in route, nat, and isolated mode"
        raise refuse(f"{allowed}, not in {mode} (network '{{network}}')")
    if mode == "bridge" and network.bridge is not None and (forward.interfaces or forward.pfs or forward.addresses):
        only = "A network with forward mode='bridge' can specify a bridge name or a forward dev, but not both"
        raise refuse(f"{only} (network '{{network}}')")
    if network.mtu is not None:
        allowed = "mtu size only allowed in open, route, nat, and isolated mode"
        raise refuse(f"{allowed}, not in {mode} (network '{{network}}')")


def _finish_bridge(network: Network) -> None:
    """The values that every bridge of a network's own has."""
    if network.own_bridge:
        network.stp = "off" if network.stp == "off" else "on"
        network.delay = network.delay or "0"


def _check_devices(network: Network) -> None:
    """Cards are handed over by their address, and used by their name."""
    if network.mode == "hostdev" and network.forward is not None and network.forward.interfaces:
        dev = network.forward.interfaces[0].dev
        needed = "but hostdev networks require all devices to be listed by PCI address, not network device name"
        raise refuse(f"hostdev network '{{network}}' lists '{dev}' in the device pool, {needed}", UNSUPPORTED)
    if network.mode != "hostdev" and network.forward is not None and network.forward.addresses:
        only = "This is only supported for networks with forward mode 'hostdev'"
        text = f"network '{{network}}' has forward mode '{network.mode}'  but lists a device by PCI address"
        raise refuse(f"{text} in the device pool. {only}", UNSUPPORTED)


def _check_mode(network: Network) -> None:
    """What only a bridge of the network's own can have."""
    if network.own_bridge:
        return
    # Switches and forwarders alone are let through.
    dns = network.dns is not None and bool(network.dns.txts or network.dns.srvs or network.dns.hosts)
    for name, there in (
        ("<mac>", network.mac is not None),
        ("<ip>", bool(network.ips)),
        ("<dns>", dns),
        ("<domain>", network.domain is not None),
        ("network-wide <bandwidth>", network.bandwidth is not None and network.bridge is None),
    ):
        if there:
            text = f"Unsupported {name} element in network {{network}} with forward mode='{network.mode}'"
            raise refuse(text, UNSUPPORTED)


def _check_dhcp(network: Network) -> None:
    for version in (4, 6):
        found = [ip for ip in network.ips_of(version) if ip.dhcp and (ip.dhcp.ranges or ip.dhcp.hosts)]
        if len(found) > 1:
            text = f"Multiple IPv{version} dhcp sections found -- dhcp is supported only for a single IPv{version}"
            raise refuse(f"{text} address on each network", UNSUPPORTED)


def _check_portgroups(network: Network) -> None:
    default = None
    for number, group in enumerate(network.portgroups):
        if any(group.name == before.name for before in network.portgroups[:number]):
            text = f"multiple <portgroup> elements with the same name ({group.name}) in network '{{network}}'"
            raise refuse(text, UNSUPPORTED)
        if group.default == "yes":
            if default is not None:
                text = f"network '{{network}}' has multiple default <portgroup> elements ({default} and {group.name})"
                raise refuse(f"{text}, but only one default is allowed", UNSUPPORTED)
            default = group.name
        if group.bandwidth is not None and not network.own_bridge and network.bridge is None:
            text = f"Unsupported <bandwidth> element in network '{{network}}' in portgroup '{group.name}'"
            raise refuse(f"{text} with forward mode='{network.mode}'", UNSUPPORTED)


def _check_vlans(network: Network) -> None:
    """Only Open vSwitch and cards that are handed to guests know VLANs."""
    cards = network.mode in ("hostdev", "passthrough")
    bad = network.vlan is not None and not (cards or _switched(network, network.virtualport))
    for group in network.portgroups:
        if group.vlan is not None and group.virtualport is not None:
            bad = bad or not _switched(network, group.virtualport)
        elif group.vlan is not None:
            bad = bad or not (cards or _switched(network, network.virtualport))
    if bad:
        text = "<vlan> element specified for network {network}, whose type doesn't support vlan configuration"
        raise refuse(text, UNSUPPORTED)


def _switched(network: Network, port: VirtualPort | None) -> bool:
    """Whether a port is one of an Open vSwitch."""
    return network.mode == "bridge" and port is not None and port.type == "openvswitch"
