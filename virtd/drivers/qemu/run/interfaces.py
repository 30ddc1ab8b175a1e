"""What a guest's network cards are plugged into: ports of networks, bridges, devices of the host.

Networks are another driver's. This one asks it for a port, as a client: inside a server over the server's own socket,
where a sibling process answers, else in this process. It knows no network's definition, dnsmasq or firewall.
"""

import os
import uuid
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.aliases import assign_aliases
from virtd.conf.domain.base import PciAddress
from virtd.conf.domain.interface import BridgeSource, DirectSource, HostdevSource, Interface, NetworkSource
from virtd.conf.netdev import Bandwidth, Vlan
from virtd.drivers.base import Context
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.run import bridgehelper, confine, hostdevices, networkports
from virtd.drivers.qemu.run.helpers import Helper
from virtd.errors import VirtError
from virtd.state import undo

if TYPE_CHECKING:
    from virtd.conf.network.port import Plug

# The types of interfaces that are connected here; all others are QEMU's own matter.
CONNECTED = ("network", "bridge", "ethernet", "direct")


class Plugged(NamedTuple):
    """What has been made for network cards.

    Attributes:
        user: who QEMU and the programs beside it run as.
        taps: the descriptors that QEMU gets, by the alias of the interface; they belong to the caller.
        vhosts: the same of the kernel's own back end of virtio.
        helpers: the programs that are to be started before QEMU has the cards.
    """

    user: confine.User | None
    taps: dict[str, list[int]]
    vhosts: dict[str, list[int]]
    helpers: list[Helper]

    def close(self) -> None:
        """Close all descriptors."""
        for helper in self.helpers:
            helper.close()
        for descriptors in (*self.taps.values(), *self.vhosts.values()):
            for descriptor in descriptors:
                os.close(descriptor)
            descriptors.clear()


def nothing(user: confine.User | None) -> Plugged:
    """What is there before any card is connected."""
    return Plugged(user, {}, {}, [])


def plug(context: Context, guest: Guest, config: Config, user: confine.User | None) -> Plugged:
    """Connect a guest's network cards; what is to be undone at its end stands in its undo file.

    Args:
        context: of the connection that starts the guest.
        guest: the guest's directory.
        config: its live configuration, into which names of links, bridges and ports are written.
        user: who QEMU runs as.

    Raises:
        VirtError: what is missing, such as a network that is not active.
    """
    plugged = nothing(user)
    try:
        for interface in config.interfaces:
            named = interface.type != "hostdev"
            plug_one(context, guest, interface, plugged)
            if named and isinstance(interface.source, HostdevSource):
                # Of a network's pool: only now is it known which one, and what it is.
                hostdevices.prepare_card(interface, interface.source, guest, hostdevices.claims(context.paths))
                if (interface.info.alias or "").startswith("net"):
                    interface.info.alias = None
        assign_aliases(config)
    except BaseException:
        plugged.close()
        raise
    return plugged


def plug_one(context: Context, guest: Guest, interface: Interface, plugged: Plugged) -> None:
    """Connect one network card, as plug() does; what is not connected here is left alone."""
    alias, mac = interface.info.alias, interface.mac
    assert alias is not None
    if interface.backend == "passt":
        from virtd.drivers.qemu.run import passt

        end, helper = passt.prepare(interface, guest, plugged.user)
        plugged.taps[alias] = [end]
        plugged.helpers.append(helper)
    if interface.type not in CONNECTED:
        return
    assert mac is not None
    if interface.filterref is not None:
        # Nothing here serves filters: none can be there.
        name = interface.filterref.filter
        text = f"referenced filter '{name}' is missing" if name else "filter binding has no filter reference"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NWFILTER)
    from virtd.drivers.network import taps  # a guest with nothing but user networks does without

    learning = connect(context, guest, interface)
    if isinstance(interface.source, HostdevSource):
        return
    switch = _switch(interface)
    virtio = (interface.model or "").startswith("virtio")
    queues = (interface.driver.queues if interface.driver is not None else None) or 1
    source = interface.source
    bridge = _bridge(interface)
    if isinstance(source, DirectSource):
        made = taps.make_macvtap(source.dev or "", source.mode, mac, guest.undo_path, queues=queues)
    elif not context.paths.privileged and bridge is not None and switch is None:
        name, descriptor = bridgehelper.make_tap(bridge, vnet_header=virtio)
        made = taps.Tap(name, [descriptor])
    else:
        made = taps.make(
            taps.Manner(
                bridge=bridge if switch is None else None,
                mac=mac,
                name=interface.target,
                queues=queues,
                vnet_header=virtio,
                mtu=interface.mtu,
                isolated=bool(interface.isolated),
                learning=learning,
                up=interface.link != "down",
            )
        )
    interface.target = made.name
    plugged.taps[alias] = made.fds
    if switch is not None:
        _join_switch(switch, interface, guest)
    limit(guest, interface, None, interface.bandwidth)
    if (
        not isinstance(source, DirectSource)
        and virtio
        and (interface.driver is None or interface.driver.name != "qemu")
    ):
        plugged.vhosts[alias] = taps.vhost(queues)


def connect(context: Context, guest: Guest, interface: Interface) -> bool:
    """Find out what an interface of a network is to be plugged into, and write it into the interface.

    Returns:
        Whether the bridge is to learn who is behind it.

    Raises:
        VirtError: the network is not there or not active, or has no room.
    """
    source = interface.source
    if not isinstance(source, NetworkSource):
        return True
    port = networkports.ask(context, guest, interface, source)
    interface.bandwidth = port.bandwidth.limits if port.bandwidth is not None else None
    interface.vlan, interface.virtualport = port.vlan, port.virtualport
    interface.isolated, interface.trust_guest_rx_filters = port.isolated, port.trust_guest_rx_filters
    if port.plug is None:
        return True
    place = {"network": source.network, "portgroup": source.portgroup, "portid": source.portid}
    match port.plug.type:
        case "direct":
            interface.type = "direct"
            interface.source = DirectSource(**place, dev=port.plug.dev, mode=port.plug.mode)
        case "bridge":
            interface.type = "bridge"
            interface.source = BridgeSource(**place, bridge=port.plug.bridge)
        case "hostdev-pci":
            interface.type = "hostdev"
            interface.source = _card(port.plug)
            interface.source.portid = source.portid
        case _:
            source.bridge = port.plug.bridge
    return port.plug.mac_table_manager != "libvirt"


def _card(plug: "Plug") -> HostdevSource:
    """The card of the host that a network has chosen from its pool."""
    place = plug.address
    assert place is not None
    address = PciAddress(domain=place.domain, bus=place.bus, slot=place.slot, function=place.function)
    address.host = True
    return HostdevSource(managed=plug.managed, backend=plug.driver, address=address)


def _switch(interface: Interface) -> str | None:
    """The Open vSwitch that an interface is plugged into; None for what is none.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, it asks for what only such a switch has.
    """
    port = interface.virtualport
    if port is not None and port.type == "openvswitch" and interface.type == "bridge":
        return _bridge(interface)
    if interface.vlan is not None:
        text = f"interface {interface.mac} - vlan tag not supported for this connection type"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_DOMAIN)
    return None


def _join_switch(switch: str, interface: Interface, guest: Guest) -> None:
    from virtd.drivers.network import openvswitch

    port, vlan = interface.virtualport, interface.vlan or Vlan()
    assert port is not None
    port.interfaceid = port.interfaceid or str(uuid.uuid4())
    native = next(((tag.id or 0, tag.native_mode) for tag in vlan.tags if tag.native_mode is not None), None)
    wanted = openvswitch.Port(
        mac=interface.mac or "",
        guest=guest.uuid,
        interface=port.interfaceid,
        profile=port.profileid,
        tags=tuple(tag.id or 0 for tag in vlan.tags),
        trunk=vlan.trunk == "yes",
        native=native,
    )
    openvswitch.add_port(switch, interface.target or "", wanted, guest.undo_path)


def _bridge(interface: Interface) -> str | None:
    source = interface.source
    return source.bridge if isinstance(source, NetworkSource | BridgeSource) else None


def limit(guest: Guest, interface: Interface, old: Bandwidth | None, new: Bandwidth | None) -> None:
    """Put other limits of traffic in force for a card that is connected.

    Args:
        guest: the guest's directory.
        interface: the card.
        old: the limits that it has.
        new: those that it is to have.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED.
    """
    if interface.target is None or (old is None and new is None):
        return
    from virtd.drivers.network import bandwidth

    if interface.type == "direct":
        # A macvtap is the guest's end, not the host's: what goes into it is what the guest sends.
        old, new = _mirrored(old), _mirrored(new)
    bandwidth.replace(interface.target, old, new, guest.undo_path)


def change_limits(context: Context, guest: Guest, interface: Interface, old: Bandwidth | None) -> None:
    """Put the limits in force that a connected card has by now, as limit() does; its network is told of them first.

    Raises:
        VirtError: VIR_ERR_OPERATION_INVALID, the network cannot guarantee as much; VIR_ERR_OPERATION_FAILED.
    """
    networkports.limit(context, interface, interface.bandwidth)
    try:
        limit(guest, interface, old, interface.bandwidth)
    except VirtError:
        networkports.limit(context, interface, old)
        raise


def renew_limits(interface: Interface) -> None:
    """Put that part of a card's limits in force again which consists of rules of the packet filter.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED.
    """
    if interface.target is None or interface.bandwidth is None or interface.type not in CONNECTED:
        return
    from virtd.drivers.network import bandwidth

    limits = _mirrored(interface.bandwidth) if interface.type == "direct" else interface.bandwidth
    assert limits is not None
    bandwidth.apply_rules(interface.target, limits)


def _mirrored(limits: Bandwidth | None) -> Bandwidth | None:
    if limits is None:
        return None
    return Bandwidth(inbound=limits.outbound, outbound=limits.inbound)


def isolate(interface: Interface) -> None:
    """Let the bridge treat a card that is connected as isolated, or not, as its description says by now."""
    from virtd.drivers.network import links

    if interface.target is not None:
        links.change_port(interface.target, isolated=bool(interface.isolated))


def release(guest: Guest, interface: Interface) -> None:
    """Undo what connecting one interface has done, beside its tap, which goes with QEMU's descriptor."""
    portid, target = getattr(interface.source, "portid", None), interface.target

    def meant(entry: dict[str, Any]) -> bool:
        kind = entry.get("kind")
        if kind == "port":
            return portid is not None and entry.get("port") == portid
        return (
            kind in ("macvtap", "limits", "ovs-port")
            and target is not None
            and target
            in (
                entry.get("name"),
                entry.get("device"),
            )
        )

    undo.undo_some(guest.undo_path, meant, f"guest '{guest.name}'")


def reconnect(context: Context, guest: Guest, old: Interface, new: Interface) -> None:
    """Move a card that is connected to another bridge, or give it another port of a network.

    Args:
        context: of the connection that changes the guest.
        guest: the guest's directory.
        old: the card as it is.
        new: what it is to be; completed here.

    Raises:
        VirtError: it cannot be moved, and stays where it is.
    """
    from virtd.drivers.network import links

    assert old.target is not None
    try:
        learning = connect(context, guest, new)
        before, after = _bridge(old), _bridge(new)
        switched = _switch(old) is not None or _switch(new) is not None
        if new.type == "direct" or after is None or before is None or switched:
            text = f"unable to change config on '{new.type}' network type"
            raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
        if not links.exists(after):
            text = f"bridge {after} doesn't exist"
            raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_QEMU)
        if before != after:
            links.change(old.target, master=after)
        links.change_port(old.target, isolated=bool(new.isolated), learning=learning)
        if not learning:
            links.add_forwarding(old.target, old.mac or "")
    except BaseException:
        release(guest, new)
        raise
    new.target = old.target
    left = Interface(source=old.source)
    release(guest, left)


def _of_module(kind: str, module: str) -> Callable[[dict[str, Any]], None]:
    """How a kind is undone that a module knows which says so when it is imported."""

    def undo_it(table: dict[str, Any]) -> None:
        import_module(module)
        undo.KINDS[kind](table)

    return undo_it


for _kind, _module in (("macvtap", "taps"), ("limits", "bandwidth"), ("ovs-port", "openvswitch")):
    undo.KINDS.setdefault(_kind, _of_module(_kind, f"virtd.drivers.network.{_module}"))
