"""How a network comes up and goes down: its bridge, addresses, routes, rules and dnsmasq.

The caller holds the network's lock. What is done is written down before it is done (virtd.state.undo), so that whoever
cleans up after a failure, or after a process that died in the middle, undoes it wholly.
"""

import ipaddress
import os

from virtd import constants as c
from virtd.conf.network import Network, sockaddr
from virtd.conf.network.forward import Nat, NatPort
from virtd.drivers.network import bandwidth, dnsmasq, firewall, links, portfiles, supervisor
from virtd.drivers.network.running import Running, Status
from virtd.errors import VirtError
from virtd.state import files, undo
from virtd.state.faults import point

_DEFAULT_METRIC = 1  # of static routes (libvirt's default)
_NAT_PORTS = ("1024", "65535")


def bring_up(running: Running, status: Status, network: Network) -> None:
    """Make everything that a network needs; it has been claimed.

    Args:
        running: the network's directory.
        status: what is known of it; changed, and written to disk.
        network: what it is to be: its live configuration.

    Raises:
        VirtError: what kept it from coming up; the caller tears down then what there is.
    """
    if network.own_bridge:
        _bring_up_bridge(running, status, network)
    elif network.forward is not None and network.forward.pfs and not portfiles.pool(network):
        text = f"No usable Vf's present on SRIOV PF {network.forward.pfs[0].dev}"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NETWORK)
    elif network.bandwidth is not None:
        text = f"network '{network.name}' limits the bandwidth of a bridge that is not its own"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, f"{text}, which is not supported by virtd")


def _bring_up_bridge(running: Running, status: Status, network: Network) -> None:
    assert network.bridge is not None
    assert network.mac is not None
    bridge = network.bridge
    undo.note(running.undo_path, "bridge", name=bridge, mac=network.mac)
    links.add_bridge(
        bridge,
        mac=network.mac,
        mtu=int(network.mtu) if network.mtu is not None else None,
        stp=network.stp != "off",
        delay=int(network.delay or 0),
        vlan_filtering=network.mac_table_manager == "libvirt",
    )
    point("network.bridge")
    _set_ipv6(bridge, bool(network.ips_of(6)))
    if network.mode in firewall.FILTERED:
        undo.note(running.undo_path, "rules", bridge=bridge)
        firewall.apply(network)
        point("network.rules")
    for ip in network.ips:
        links.add_address(bridge, ipaddress.ip_interface((ip.host_address, ip.network.prefixlen)))
    links.change(bridge, up=True)
    point("network.up")
    if network.bandwidth is not None:
        bandwidth.apply(bridge, network.bandwidth, running.undo_path, shared=True)
    for route in network.routes:
        gateway = sockaddr.parse(route.gateway or "")
        assert gateway is not None
        links.add_route(bridge, route.network, gateway, route.metric or _DEFAULT_METRIC)
    if network.mode in ("nat", "route", "open"):
        _forward(network)
    if dnsmasq.needed(network):
        status.dnsmasq = True
        files.replace(running.status_path, status.encode(), durable=False)
        dnsmasq.write(network, running.files)
        supervisor.launch(running, bridge)
        point("network.served")


def _set_ipv6(bridge: str, wanted: bool) -> None:
    """Let the bridge have IPv6 or not, and never take part in what guests advertise."""
    directory = f"ipv6/conf/{bridge}"
    if not os.path.isdir(f"/proc/sys/net/{directory}"):
        if wanted:
            text = f"the kernel has no IPv6 for interface '{bridge}'"
            raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)
        return
    links.write_sysctl(f"{directory}/disable_ipv6", str(int(not wanted)))
    links.write_sysctl(f"{directory}/accept_ra", "0")
    links.write_sysctl(f"{directory}/autoconf", "0")


def _forward(network: Network) -> None:
    """Let the host forward packets. It stays so: others may rely on it by the time the network ends."""
    if network.ips_of(4):
        links.write_sysctl("ipv4/ip_forward", "1")
    if network.ips_of(6):
        links.write_sysctl("ipv6/conf/all/forwarding", "1")


def tear_down(running: Running, status: Status | None) -> None:
    """Undo everything that a network's start did, as far as that went; can be done twice.

    Raises:
        VirtError: a process does not end.
    """
    supervisor.stop(running)
    point("network.stopped")
    undo.undo(running.undo_path, f"network '{running.name}'")
    for path in running.files.all:
        files.remove(path)
    if status is not None and status.bridge:
        files.forget(running.lease_status(status.bridge))
        files.forget(running.mac_map(status.bridge))


def restart_dnsmasq(running: Running, status: Status, network: Network) -> None:
    """Let dnsmasq begin anew with what the network is now; it keeps its leases.

    Raises:
        VirtError: it cannot; it runs as before then, or not at all.
    """
    before = files.read(running.files.configuration)
    dnsmasq.configuration(network, running.files)  # what cannot be said to it does no harm
    if status.dnsmasq:
        supervisor.stop(running)
    if not dnsmasq.needed(network):
        status.dnsmasq = False
        return
    status.dnsmasq = True
    dnsmasq.write(network, running.files)
    try:
        supervisor.launch(running, status.bridge)
    except VirtError:
        if before is not None:
            files.replace(running.files.configuration, before, durable=False, mode=0o644)
            supervisor.launch(running, status.bridge)
        raise


def reapply_rules(network: Network) -> None:
    """Put the rules of a running network in force again, whatever somebody else has done to them.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED.
    """
    if network.own_bridge and network.bridge is not None:
        firewall.apply(network)
        if network.bandwidth is not None:
            bandwidth.apply_rules(network.bridge, network.bandwidth)


def live_of(config: Network) -> Network:
    """The live configuration of a network that is about to be started from its definition."""
    live = config.copy()
    if live.mode == "nat" and live.forward is not None:
        nat = live.forward.nat or Nat()
        if not nat.ports:
            nat.ports = [NatPort(start=_NAT_PORTS[0], end=_NAT_PORTS[1])]
        live.forward.nats = [nat]
    return live


def _undo_bridge(table: dict[str, int | str]) -> None:
    """Remove a network's bridge, not another one that got the name."""
    name = str(table["name"])
    if any(link.name == name and link.mac == table["mac"] for link in links.links()):
        links.remove(name, kind="bridge")


def _undo_rules(table: dict[str, int | str]) -> None:
    """Remove a network's table of rules."""
    firewall.remove(str(table["bridge"]))


undo.KINDS.update(bridge=_undo_bridge, rules=_undo_rules)
