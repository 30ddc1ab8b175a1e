"""What a guest's network cards are plugged into: ports of networks, bridges, devices of the host.

Networks are another driver's. This one asks it for a port, as a client: inside a server over the server's own socket,
where a sibling process answers, else in this process. It knows no network's definition, dnsmasq or firewall.
"""

import os
import uuid
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from virtd import constants as c
from virtd import uuids
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.interface import BridgeSource, DirectSource, Interface, NetworkSource
from virtd.drivers import open_connection, services
from virtd.drivers.base import Context, Identity
from virtd.drivers.qemu.guest import Guest
from virtd.errors import VirtError
from virtd.protocol.records import Network, NetworkPort
from virtd.state import undo
from virtd.state.paths import Paths

if TYPE_CHECKING:
    from virtd.conf.network import NetworkPort as PortModel

# The types of interfaces that are connected here; all others are QEMU's own matter.
CONNECTED = ("network", "bridge", "ethernet", "direct")


class Plugged(NamedTuple):
    """The descriptors that QEMU gets, by the alias of the interface; they belong to the caller."""

    taps: dict[str, list[int]]
    vhosts: dict[str, list[int]]

    def close(self) -> None:
        """Close all of them."""
        for descriptors in (*self.taps.values(), *self.vhosts.values()):
            for descriptor in descriptors:
                os.close(descriptor)
            descriptors.clear()


def plug(context: Context, guest: Guest, config: Config) -> Plugged:
    """Connect a guest's network cards; what is to be undone at its end stands in its undo file.

    Args:
        context: of the connection that starts the guest.
        guest: the guest's directory.
        config: its live configuration, into which names of links, bridges and ports are written.

    Raises:
        VirtError: what is missing, such as a network that is not active.
    """
    plugged = Plugged({}, {})
    try:
        for interface in config.interfaces:
            if interface.type in CONNECTED:
                _plug(context, guest, interface, plugged)
    except BaseException:
        plugged.close()
        raise
    return plugged


def _plug(context: Context, guest: Guest, interface: Interface, plugged: Plugged) -> None:
    from virtd.drivers.network import taps  # a guest with nothing but user networks does without

    alias, mac = interface.info.alias, interface.mac
    assert alias is not None
    assert mac is not None
    virtio = (interface.model or "").startswith("virtio")
    queues = (interface.driver.queues if interface.driver is not None else None) or 1
    isolated, learning = bool(interface.isolated), True
    bridge: str | None = None
    source = interface.source
    match source:
        case NetworkSource():
            port = _ask_for_port(context, guest, interface, source)
            if port.plug is not None and port.plug.type == "direct":
                made = taps.make_macvtap(str(port.plug.dev), str(port.plug.mode), mac, guest.undo_path, queues=queues)
                interface.target = made.name
                plugged.taps[alias] = made.fds
                return
            bridge = source.bridge = None if port.plug is None else port.plug.bridge
            isolated = isolated or bool(port.isolated)
            learning = port.plug is None or port.plug.mac_table_manager != "libvirt"
        case BridgeSource():
            bridge = source.bridge
        case DirectSource():
            made = taps.make_macvtap(source.dev or "", source.mode, mac, guest.undo_path, queues=queues)
            interface.target = made.name
            plugged.taps[alias] = made.fds
            return
    made = taps.make(
        taps.Manner(
            bridge=bridge,
            mac=mac,
            name=interface.target,
            queues=queues,
            vnet_header=virtio,
            mtu=interface.mtu,
            isolated=isolated,
            learning=learning,
            up=interface.link != "down",
        )
    )
    interface.target = made.name
    plugged.taps[alias] = made.fds
    if virtio and (interface.driver is None or interface.driver.name != "qemu"):
        plugged.vhosts[alias] = taps.vhost(queues)


def _ask_for_port(context: Context, guest: Guest, interface: Interface, source: NetworkSource) -> "PortModel":
    """Ask the network service for a port of the network that an interface is plugged into."""
    from virtd.conf.network import NetworkPort as Model
    from virtd.conf.network import format_port, parse_port

    source.portid = source.portid or str(uuid.uuid4())
    wanted = Model(
        uuid=source.portid,
        owner_name=guest.name,
        owner_uuid=guest.uuid,
        mac=interface.mac,
        group=source.portgroup,
        bandwidth=interface.bandwidth,
        vlan=interface.vlan,
        virtualport=interface.virtualport,
        isolated=interface.isolated,
        trust_guest_rx_filters=interface.trust_guest_rx_filters,
    )
    connection = services.connect(context, "network")
    try:
        network: Network = connection.require("network_lookup_by_name", "virNetworkLookupByName")(source.network)
        undo.note(
            guest.undo_path,
            "port",
            paths=list(context.paths),
            network=uuids.to_text(network.uuid),
            name=network.name,
            port=source.portid,
        )
        port: NetworkPort = connection.require("network_port_create_xml", "virNetworkPortCreateXML")(
            network, format_port(wanted), 0
        )
        return parse_port(connection.require("network_port_get_xml_desc", "virNetworkPortGetXMLDesc")(port, 0))
    finally:
        connection.close()


def _release_port(table: dict[str, object]) -> None:
    """Give a port back; one that is gone already, with its network perhaps, needs no undoing."""
    values = table["paths"]
    assert isinstance(values, list)
    pid = os.getpid()
    paths = Paths(*values)
    context = Context(paths, Identity(os.geteuid(), os.getegid(), pid, "local"), pid)
    network = Network(str(table["name"]), uuids.to_bytes(str(table["network"])))
    connection = open_connection(f"network:///{paths.mode}", context)
    try:
        delete = connection.require("network_port_delete", "virNetworkPortDelete")
        delete(NetworkPort(network, uuids.to_bytes(str(table["port"]))), 0)
    except VirtError as error:
        if error.code not in (c.VIR_ERR_NO_NETWORK, c.VIR_ERR_NO_NETWORK_PORT, c.VIR_ERR_OPERATION_INVALID):
            raise
    finally:
        connection.close()


def _remove_macvtap(table: dict[str, object]) -> None:
    """Remove a macvtap; the module that makes them knows how, and says so when it is imported."""
    import_module("virtd.drivers.network.taps")
    undo.KINDS["macvtap"](table)


undo.KINDS.update(port=_release_port)
undo.KINDS.setdefault("macvtap", _remove_macvtap)
