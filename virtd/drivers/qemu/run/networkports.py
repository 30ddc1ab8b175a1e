"""Ports of virtual networks, as the guests' driver asks for them: it is a client of the network service.

Inside a server it asks over the server's own socket, where a sibling process answers, else in this process.
"""

import os
import uuid
from typing import TYPE_CHECKING

from virtd import constants as c
from virtd import uuids
from virtd.conf.domain.interface import BridgeSource, DirectSource, Interface, NetworkSource
from virtd.conf.netdev import PARAMETERS, Bandwidth
from virtd.drivers import open_connection, services, typed
from virtd.drivers.base import Context, Identity
from virtd.drivers.qemu.guest import Guest
from virtd.errors import VirtError
from virtd.protocol.records import Network, NetworkPort
from virtd.state import undo
from virtd.state.paths import Paths

if TYPE_CHECKING:
    from virtd.conf.network import NetworkPort as PortModel

# What is said of a port whose network has ended, and of one that has been given back.
_PORT_IS_GONE = (c.VIR_ERR_NO_NETWORK, c.VIR_ERR_NO_NETWORK_PORT, c.VIR_ERR_OPERATION_INVALID)


def ask(context: Context, guest: Guest, interface: Interface, source: NetworkSource) -> "PortModel":
    """Ask the network service for a port of the network that an interface is plugged into."""
    from virtd.conf.network import NetworkPort as Model
    from virtd.conf.network import format_port, parse_port
    from virtd.conf.network.port import PortBandwidth

    source.portid = str(uuid.uuid4())
    wanted = Model(
        uuid=source.portid,
        owner_name=guest.name,
        owner_uuid=guest.uuid,
        mac=interface.mac,
        group=source.portgroup,
        bandwidth=PortBandwidth.of(interface.bandwidth),
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


def limit(context: Context, interface: Interface, limits: Bandwidth | None) -> None:
    """Tell the network that an interface has a port of, if any, what its limits are now.

    Args:
        context: of the connection that changes the guest.
        interface: the interface.
        limits: its limits; without a guarantee among them, a network that has ended meanwhile does no harm.

    Raises:
        VirtError: VIR_ERR_OPERATION_INVALID, it cannot guarantee as much.
    """
    source = interface.source
    if not isinstance(source, NetworkSource | BridgeSource | DirectSource) or source.portid is None:
        return
    guaranteed = limits is not None and limits.inbound is not None and limits.inbound.floor
    connection = services.connect(context, "network")
    try:
        network: Network = connection.require("network_lookup_by_name", "virNetworkLookupByName")(source.network)
        rates = [(name, getattr(limits, way, None), field) for name, way, field in PARAMETERS]
        params = [typed.unsigned(name, value) for name, rate, field in rates if (value := getattr(rate, field, None))]
        port = NetworkPort(network, uuids.to_bytes(source.portid))
        connection.require("network_port_set_parameters", "virNetworkPortSetParameters")(port, params, 0)
    except VirtError as error:
        if guaranteed or error.code not in _PORT_IS_GONE:
            raise
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
        if error.code not in _PORT_IS_GONE:
            raise
    finally:
        connection.close()


undo.KINDS.update(port=_release_port)
