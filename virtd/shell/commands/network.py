"""Virtual networks, their leases and ports."""

from __future__ import annotations

from virtd import constants as c
from virtd import uuids
from virtd.errors import VirtError
from virtd.shell import acts
from virtd.shell.acts import act, autostart, dump_xml, find, identify
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Cell, Fields, Lines, Output, Table, yes
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FILTERS = {
    "persistent": c.VIR_CONNECT_LIST_NETWORKS_PERSISTENT,
    "transient": c.VIR_CONNECT_LIST_NETWORKS_TRANSIENT,
    "autostart": c.VIR_CONNECT_LIST_NETWORKS_AUTOSTART,
    "no-autostart": c.VIR_CONNECT_LIST_NETWORKS_NO_AUTOSTART,
}
_UPDATE_COMMANDS = {
    "modify": c.VIR_NETWORK_UPDATE_COMMAND_MODIFY,
    "delete": c.VIR_NETWORK_UPDATE_COMMAND_DELETE,
    "add-last": c.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST,
    "add": c.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST,
    "add-first": c.VIR_NETWORK_UPDATE_COMMAND_ADD_FIRST,
}
# virNetworkUpdateSection
SECTIONS = (
    "none",
    "bridge",
    "domain",
    "ip",
    "ip-dhcp-host",
    "ip-dhcp-range",
    "forward",
    "forward-interface",
    "forward-pf",
    "portgroup",
    "dns-host",
    "dns-txt",
    "dns-srv",
)
_ADDRESS_TYPES = ("ipv4", "ipv6")


def net_list(session: Session, args: Args) -> Output:
    """virConnectListAllNetworks."""
    flags = args.flags(_FILTERS)
    flags |= acts.which(args, c.VIR_CONNECT_LIST_NETWORKS_ACTIVE, c.VIR_CONNECT_LIST_NETWORKS_INACTIVE)
    if sum(args.flag(one) for one in ("table", "name", "uuid")) > 1:
        raise Failure("Only one argument from --table, --name and --uuid may be specified.")
    with failing("Failed to list networks"):
        networks = session.call("connect_list_all_networks", 1, flags)[0]
    networks = sorted(networks, key=lambda one: one.name.casefold())
    if args.flag("name"):
        return Lines(one.name for one in networks)
    if args.flag("uuid"):
        return Lines(uuids.to_text(one.uuid) for one in networks)
    columns = (("name", "Name"), ("state", "State"), ("autostart", "Autostart"), ("persistent", "Persistent"))
    table = Table(columns)
    for one in networks:
        active = session.call("network_is_active", one)
        table.add(
            one.name,
            Cell("active" if active else "inactive", "active" if active else "inactive"),
            acts.starts_itself(session, "network_get_autostart", one),
            yes(session.call("network_is_persistent", one)),
        )
    return table


def net_info(session: Session, args: Args) -> Output:
    """What several calls say of a network."""
    network = find(session, args, "network")
    fields = Fields(15)
    fields.add("Name:", network.name)
    fields.add("UUID:", uuids.to_text(network.uuid))
    fields.add("Active:", yes(session.call("network_is_active", network)))
    fields.add("Persistent:", yes(session.call("network_is_persistent", network)))
    fields.add("Autostart:", acts.starts_itself(session, "network_get_autostart", network))
    try:
        fields.add("Bridge:", session.call("network_get_bridge_name", network))
    except VirtError:
        pass  # it has none
    return fields


def net_doctor(session: Session, args: Args) -> Output:
    """What in the packet filter of this host keeps guests from a network that runs (virtd.drivers.network.doctor)."""
    from virtd.drivers.network import doctor, links

    name = args.required("network")
    network = find(session, args, "network")
    with failing(f"Failed to examine network {name}"):
        if not session.call("network_is_active", network):
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, f"network '{name}' is not active", domain=c.VIR_FROM_NETWORK)
        bridge = session.call("network_get_bridge_name", network)
        if not links.exists(bridge):
            text = f"bridge '{bridge}' of network '{name}' is not on this host; ask there"
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_NETWORK)
        found = doctor.examine(bridge)
    return Lines(found or [f"nothing on this host drops what network '{name}' lets through"])


def net_leases(session: Session, args: Args) -> Output:
    """virNetworkGetDHCPLeases."""
    import time

    name = args.required("network")
    network = find(session, args, "network")
    with failing(f"Failed to get leases info for {name}"):
        leases = session.call("network_get_dhcp_leases", network, args.text("mac"), 1, 0)[0]
    columns = (
        ("expiry_time", "Expiry Time"),
        ("mac", "MAC address"),
        ("protocol", "Protocol"),
        ("address", "IP address"),
        ("hostname", "Hostname"),
        ("client_id", "Client ID or DUID"),
    )
    table = Table(columns)
    # As virsh sorts them: by the time they end, then by address.
    for one in sorted(leases, key=lambda lease: lease.mac or ""):
        expiry = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.expirytime))
        kind = _ADDRESS_TYPES[one.type] if 0 <= one.type < 2 else ""
        table.add(Cell(expiry, one.expirytime), one.mac, kind, f"{one.ipaddr}/{one.prefix}", one.hostname, one.clientid)
    return table


def net_update(session: Session, args: Args) -> None:
    """virNetworkUpdate."""
    flags = acts.affect(args)
    name = args.required("network")
    network = find(session, args, "network")
    command, section = args.required("command"), args.required("section")
    if command not in _UPDATE_COMMANDS:
        raise Failure(f"unrecognized command name '{command}'")
    if section not in SECTIONS:
        raise Failure(f"unrecognized section name '{section}'")
    parent = args.number("parent-index")
    text = args.required("xml")
    if not text.startswith("<"):
        text = read_text(text)
    number = _UPDATE_COMMANDS[command]
    with failing(f"Failed to update network {name}"):
        # What libvirt's clients do: servers of before 2021 take the two the other way round.
        session.call(
            "network_update", network, number, SECTIONS.index(section), -1 if parent is None else parent, text, flags
        )
    if flags == c.VIR_NETWORK_UPDATE_AFFECT_CONFIG:
        what = "persistent config"
    elif flags & c.VIR_NETWORK_UPDATE_AFFECT_CONFIG:
        what = "persistent config and live state"
    elif flags & c.VIR_NETWORK_UPDATE_AFFECT_LIVE or session.call("network_is_active", network):
        what = "live state"
    else:
        what = "persistent config"
    session.say(f"Updated network {network.name} {what}")


# Ports


def _port(session: Session, args: Args) -> tuple[Any, Any]:
    """The network and the port that a command is about."""
    network = find(session, args, "network")
    text = args.required("port")
    try:
        uuid = uuids.to_bytes(text)
    except ValueError:
        uuid = b""
    try:
        if len(uuid) == 16:
            return network, session.call("network_port_lookup_by_uuid", network, uuid)
    except VirtError:
        pass  # virsh says no more of it
    raise Failure(f"failed to get network port '{text}'")


def port_list(session: Session, args: Args) -> Output:
    """virNetworkListAllPorts."""
    if args.flag("table") and args.flag("uuid"):
        raise Failure("Only one argument from --table and --uuid may be specified.")
    network = find(session, args, "network")
    ports = [uuids.to_text(port.uuid) for port in session.call("network_list_all_ports", network, 1, 0)[0]]
    return Lines(sorted(ports)) if args.flag("uuid") else Table((("uuid", "UUID"),), [[port] for port in sorted(ports)])


def port_create(session: Session, args: Args) -> None:
    """virNetworkPortCreateXML."""
    path = args.required("file")
    network = find(session, args, "network")
    flags = args.flags({"validate": c.VIR_NETWORK_PORT_CREATE_VALIDATE})
    document = read_text(path)
    with failing(f"Failed to create network from {path}"):
        port = session.call("network_port_create_xml", network, document, flags)
    session.say(f"Network port {uuids.to_text(port.uuid)} created from {path}\n")


def port_dumpxml(session: Session, args: Args) -> Output:
    """virNetworkPortGetXMLDesc."""
    return acts.document(args, session.call("network_port_get_xml_desc", _port(session, args)[1], 0))


def port_delete(session: Session, args: Args) -> None:
    """virNetworkPortDelete."""
    name = args.required("port")
    port = _port(session, args)[1]
    with failing(f"Failed to delete network port {name}"):
        session.call("network_port_delete", port, 0)
    session.say(f"Network port {name} deleted\n")


_FILE = {"file": "path"}

COMMANDS = (
    Command(
        "net-autostart",
        "<network> [--disable]",
        "have a network started with the machine",
        autostart("network", "network_set_autostart", "network {name}"),
    ),
    Command(
        "net-create",
        "<file> [--validate]",
        "start a network from an XML file, without a definition that stays",
        acts.make(
            "network_create_xml_flags",
            "Network {name} created from {file}",
            "Failed to create network from {file}",
            flags={"validate": c.VIR_NETWORK_CREATE_VALIDATE},
            plain="network_create_xml",
        ),
        kinds=_FILE,
    ),
    Command(
        "net-define",
        "<file> [--validate]",
        "define a network, or change its definition, from an XML file",
        acts.make(
            "network_define_xml_flags",
            "Network {name} defined from {file}",
            "Failed to define network from {file}",
            flags={"validate": c.VIR_NETWORK_DEFINE_VALIDATE},
            plain="network_define_xml",
        ),
        kinds=_FILE,
    ),
    Command(
        "net-destroy",
        "<network>",
        "stop a network",
        act("network", "network_destroy", "Network {name} destroyed", "Failed to destroy network {name}"),
    ),
    Command("net-dhcp-leases", "<network> [--mac <string>]", "show which addresses a network has lent", net_leases),
    Command("net-doctor", "<network>", "say what in the host's packet filter drops guests' packets", net_doctor),
    Command(
        "net-dumpxml",
        "<network> [--inactive] [--xpath =<string>] [--wrap]",
        "show a network's XML",
        dump_xml("network", "network_get_xml_desc", {"inactive": c.VIR_NETWORK_XML_INACTIVE}),
    ),
    Command(
        "net-edit",
        "<network>",
        "change a network's definition in an editor",
        acts.edit("network", "network_get_xml_desc", "network_define_xml", "Network", flags=c.VIR_NETWORK_XML_INACTIVE),
    ),
    Command("net-info", "<network>", "show the main facts about a network", net_info),
    Command(
        "net-list",
        "[--inactive] [--all] [--persistent] [--transient] [--autostart] [--no-autostart] [--uuid] [--name] [--table]",
        "show which networks there are",
        net_list,
    ),
    Command("net-name", "<network>", "show the name of a network", identify("network", "name", "uuid")),
    Command(
        "net-port-create",
        "<network> <file> [--validate]",
        "make a port of a network from an XML file",
        port_create,
        kinds=_FILE,
    ),
    Command("net-port-delete", "<network> <port>", "remove a port of a network", port_delete),
    Command(
        "net-port-dumpxml",
        "<network> <port> [--xpath =<string>] [--wrap]",
        "show the XML of a network's port",
        port_dumpxml,
    ),
    Command("net-port-list", "<network> [--uuid] [--table]", "show a network's ports", port_list),
    Command(
        "net-start",
        "<network>",
        "start a network that is defined",
        act("network", "network_create", "Network {name} started", "Failed to start network {name}", ways="name uuid"),
    ),
    Command(
        "net-undefine",
        "<network>",
        "remove the definition of a network",
        act("network", "network_undefine", "Network {name} has been undefined", "Failed to undefine network {name}"),
    ),
    Command(
        "net-update",
        "<network> <command> <section> <xml> [--parent-index <number>] [--config] [--live] [--current]",
        "change a part of a network",
        net_update,
        kinds={"command": "update-command", "section": "update-section", "xml": "path"},
    ),
    Command("net-uuid", "<network>", "show the UUID of a network", identify("network", "uuid", "name")),
)
