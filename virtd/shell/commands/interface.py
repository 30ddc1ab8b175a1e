"""Network interfaces of the host, as far as its own configuration knows them."""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell import acts, xmltext
from virtd.shell.acts import act, dump_xml, find
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Output, Single, Table
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxml.etree import _Element


def iface_list(session: Session, args: Args) -> Output:
    """virConnectListAllInterfaces."""
    flags = acts.which(args, c.VIR_CONNECT_LIST_INTERFACES_ACTIVE, c.VIR_CONNECT_LIST_INTERFACES_INACTIVE)
    with failing("Failed to list interfaces"):
        interfaces = session.call("connect_list_all_interfaces", 1, flags)[0]
    table = Table((("name", "Name"), ("state", "State"), ("mac", "MAC Address")))
    for one in sorted(interfaces, key=lambda interface: interface.name.casefold()):
        table.add(one.name, "active" if session.call("interface_is_active", one) else "inactive", one.mac)
    return table


def iface_mac(session: Session, args: Args) -> Output:
    """The MAC address of an interface."""
    return Single("mac", find(session, args, "interface", "name").mac)


def iface_name(session: Session, args: Args) -> Output:
    """The name of an interface."""
    return Single("name", find(session, args, "interface", "mac").name)


def _transaction(procedure: str, done: str, failed: str) -> Any:
    """A command that begins or ends a change of the host's configuration."""

    def function(session: Session, args: Args) -> None:
        with failing(failed):
            session.call(procedure, 0)
        session.say(f"{done}\n")

    return function


def _inactive(session: Session, interface: Any) -> _Element:
    """The root of an interface's configured document."""
    text = session.call("interface_get_xml_desc", interface, c.VIR_INTERFACE_XML_INACTIVE)
    root = xmltext.parse(text)
    if not root.get("type"):
        raise Failure(f"Existing device {interface.name} has no type")
    return root


# What belongs to a network device itself; all else of its configuration goes to the bridge that it becomes part of.
_OWN = ("mac", "link", "bond", "vlan")


def iface_bridge(session: Session, args: Args) -> None:
    """virInterfaceDefineXML of a new bridge, which takes over an interface and its configuration."""
    from lxml import etree

    interface = find(session, args, "interface", "name")
    name = args.required("bridge")
    delay = args.natural("delay") or 0
    try:
        session.call("interface_lookup_by_name", name)
    except VirtError:
        pass  # as it should be
    else:
        raise Failure(f"Network device {name} already exists")
    root = _inactive(session, interface)
    kind = root.get("type") or ""
    if kind == "bridge":
        raise Failure(f"Existing device {interface.name} is already a bridge")
    bridge = etree.SubElement(root, "bridge", stp="off" if args.flag("no-stp") else "on", delay=str(delay))
    port = etree.SubElement(bridge, "interface", type=kind, name=interface.name)
    for child in list(root):
        if child.tag in _OWN:
            port.append(child)
    root.set("type", "bridge")
    root.set("name", name)
    with failing(f"Failed to define new bridge interface {name}"):
        made = session.call("interface_define_xml", etree.tostring(root, encoding="unicode"), 0)
    session.say(f"Created bridge {name} with attached device {interface.name}\n")
    if not args.flag("no-start"):
        with failing(f"Failed to start bridge interface {name}"):
            session.call("interface_create", made, 0)
        session.say(f"Bridge interface {name} started\n")


def iface_unbridge(session: Session, args: Args) -> None:
    """The reverse of iface-bridge."""
    from lxml import etree

    name = args.required("bridge")
    bridge = session.interface(name, "name")
    root = _inactive(session, bridge)
    if root.get("type") != "bridge":
        raise Failure(f"Device {name} is not a bridge")
    node = root.find("bridge")
    if node is None:
        raise Failure("No bridge node in xml document")
    ports = node.findall("interface")
    if len(ports) != 1:
        raise Failure("Multiple interfaces attached to bridge" if ports else "No interface attached to bridge")
    port = ports[0]
    port_name, kind = port.get("name"), port.get("type")
    if not port_name:
        raise Failure(f"Device attached to bridge {name} has no name")
    if not kind:
        raise Failure(f"Attached device {port_name} has no type")
    root.set("type", kind)
    root.set("name", port_name)
    for child in list(port):
        root.append(child)
    root.remove(node)
    if session.call("interface_is_active", bridge):
        with failing(f"Failed to destroy bridge interface {name}"):
            session.call("interface_destroy", bridge, 0)
    with failing(f"Failed to undefine bridge interface {name}"):
        session.call("interface_undefine", bridge)
    with failing(f"Failed to define new interface {port_name}"):
        made = session.call("interface_define_xml", etree.tostring(root, encoding="unicode"), 0)
    session.say(f"Device {port_name} un-attached from bridge {name}\n")
    if not args.flag("no-start"):
        with failing(f"Failed to start interface {port_name}"):
            session.call("interface_create", made, 0)
        session.say(f"Interface {port_name} started\n")


_TRANSACTION = "etwork config change transaction"

COMMANDS = (
    Command(
        "iface-begin",
        "",
        "remember the host's configuration, to be able to go back to it",
        _transaction("interface_change_begin", f"N{_TRANSACTION} started", f"Failed to begin n{_TRANSACTION}"),
    ),
    Command(
        "iface-bridge",
        "<interface> <bridge> [--no-stp] [--delay <number>] [--no-start]",
        "make a bridge of an interface",
        iface_bridge,
        kinds={"bridge": "name"},
    ),
    Command(
        "iface-commit",
        "",
        "keep the changes made since iface-begin",
        _transaction("interface_change_commit", f"N{_TRANSACTION} committed", f"Failed to commit n{_TRANSACTION}"),
    ),
    Command(
        "iface-define",
        "<file> [--validate]",
        "configure an interface from an XML file",
        acts.make(
            "interface_define_xml",
            "Interface {name} defined from {file}",
            "Failed to define interface from {file}",
            flags={"validate": c.VIR_INTERFACE_DEFINE_VALIDATE},
        ),
        kinds={"file": "path"},
    ),
    Command(
        "iface-destroy",
        "<interface>",
        "take an interface down",
        act("interface", "interface_destroy", "Interface {name} destroyed", "Failed to destroy interface {name}", 0),
    ),
    Command(
        "iface-dumpxml",
        "<interface> [--inactive] [--xpath =<string>] [--wrap]",
        "show an interface's XML",
        dump_xml("interface", "interface_get_xml_desc", {"inactive": c.VIR_INTERFACE_XML_INACTIVE}),
    ),
    Command(
        "iface-edit",
        "<interface>",
        "change an interface's configuration in an editor",
        acts.edit(
            "interface",
            "interface_get_xml_desc",
            "interface_define_xml",
            "Interface",
            0,
            flags=c.VIR_INTERFACE_XML_INACTIVE,
        ),
    ),
    Command("iface-list", "[--inactive] [--all]", "show which interfaces the host has", iface_list),
    Command("iface-mac", "<interface>", "show the MAC address of an interface", iface_mac),
    Command("iface-name", "<interface>", "show the name of an interface", iface_name),
    Command(
        "iface-rollback",
        "",
        "go back to the configuration of iface-begin",
        _transaction(
            "interface_change_rollback", f"N{_TRANSACTION} rolled back", f"Failed to rollback n{_TRANSACTION}"
        ),
    ),
    Command(
        "iface-start",
        "<interface>",
        "bring an interface up",
        act("interface", "interface_create", "Interface {name} started", "Failed to start interface {name}", 0),
    ),
    Command(
        "iface-unbridge",
        "<bridge> [--no-start]",
        "undo a bridge and give its configuration back to its interface",
        iface_unbridge,
        kinds={"bridge": "interface"},
    ),
    Command(
        "iface-undefine",
        "<interface>",
        "remove the configuration of an interface",
        act("interface", "interface_undefine", "Interface {name} undefined", "Failed to undefine interface {name}"),
    ),
)
