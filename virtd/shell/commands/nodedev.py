"""Devices of the host."""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell.acts import document
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Cell, Fields, Lines, Output, Tree, yes
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# virConnectListAllNodeDeviceFlags: the capabilities in the order of their bits.
CAPABILITIES = (
    "system",
    "pci",
    "usb_device",
    "usb",
    "net",
    "scsi_host",
    "scsi_target",
    "scsi",
    "storage",
    "fc_host",
    "vports",
    "scsi_generic",
    "drm",
    "mdev_types",
    "mdev",
    "ccw",
    "css",
    "vdpa",
    "ap_card",
    "ap_queue",
    "ap_matrix",
    "vpd",
)
_ACTIVE, _INACTIVE = c.VIR_CONNECT_LIST_NODE_DEVICES_ACTIVE, c.VIR_CONNECT_LIST_NODE_DEVICES_INACTIVE


def find(session: Session, name: str) -> str:
    """The device of a name, or of the two world wide names of an HBA, parted by a comma.

    Returns:
        Its name, which is all that calls want of it.

    Raises:
        Failure: there is none.
    """
    wwnn, comma, wwpn = name.partition(",")
    for wwn in (wwnn, wwpn) if comma else ():
        if len(wwn) != 16 or not all(one in "0123456789abcdefABCDEF" for one in wwn):
            raise Failure(f"internal error: Malformed wwn: {wwn}")
    try:
        if comma:
            device = session.call("node_device_lookup_scsi_host_by_wwn", wwnn, wwpn, 0)
        else:
            device = session.call("node_device_lookup_by_name", name)
    except VirtError as error:
        raise Failure(f"Could not find matching device '{name}'", cause=error) from None
    return str(device.name)


def nodedev_list(session: Session, args: Args) -> Output:
    """virConnectListAllNodeDevices."""
    tree, cap = args.flag("tree"), args.text("cap")
    if args.flag("all") and args.flag("inactive"):
        raise Failure("Option --all is incompatible with --inactive")
    if tree and (cap is not None or args.flag("inactive")):
        raise Failure("Option --tree is incompatible with --cap and --inactive")
    flags = 0
    for name in (cap or "").split(","):
        if name and name not in CAPABILITIES:
            raise Failure("Invalid capability type")
        flags |= 1 << CAPABILITIES.index(name) if name else 0
    if args.flag("all"):
        flags |= _ACTIVE | _INACTIVE
    else:
        flags |= _INACTIVE if args.flag("inactive") else _ACTIVE
    with failing("Failed to list node devices"):
        devices = session.call("connect_list_all_node_devices", 1, flags)[0]
    names = sorted(device.name for device in devices)
    if not tree:
        return Lines(names)
    parents = {name: session.call("node_device_get_parent", name) for name in names if name != "computer"}
    return Tree({**({"computer": None} if "computer" in names else {}), **parents})


def nodedev_info(session: Session, args: Args) -> Output:
    """What several calls say of a device."""
    name = find(session, args.required("device"))
    fields = Fields(15)
    fields.add("Name:", name)
    parent = session.call("node_device_get_parent", name)
    fields.add("Parent:", Cell(parent or "", parent))
    for label, procedure in (("Active:", "node_device_is_active"), ("Persistent:", "node_device_is_persistent")):
        try:
            fields.add(label, yes(session.call(procedure, name)))
        except VirtError as error:
            if error.code != c.VIR_ERR_NO_SUPPORT:
                raise
            # Servers which cannot say so only have devices of that kind.
            fields.add(label, yes(1))
    try:
        fields.add("Autostart:", yes(session.call("node_device_get_autostart", name)))
    except VirtError:
        fields.add("Autostart:", Cell("no autostart", None))
    return fields


def nodedev_dumpxml(session: Session, args: Args) -> Output:
    """virNodeDeviceGetXMLDesc."""
    return document(args, session.call("node_device_get_xml_desc", find(session, args.required("device")), 0))


def _make(procedure: str, done: str, failed: str, flag: int) -> Any:
    """A command that makes a device from a file."""

    def function(session: Session, args: Args) -> None:
        path = args.required("file")
        text = read_text(path)
        with failing(failed.format(file=path)):
            device = session.call(procedure, text, args.flags({"validate": flag}))
        session.say(done.format(name=device.name, file=path) + "\n")

    return function


def _act(procedure: str, done: str, failed: str, *arguments: Any) -> Any:
    """A command that calls a procedure on a device."""

    def function(session: Session, args: Args) -> None:
        name = args.required("device")
        device = find(session, name)
        with failing(failed.format(name=name)):
            session.call(procedure, device, *arguments)
        session.say(done.format(name=name) + "\n")

    return function


def detach(session: Session, args: Args) -> None:
    """virNodeDeviceDetachFlags, virNodeDeviceDettach."""
    name, driver = args.required("device"), args.text("driver")
    device = find(session, name)
    with failing(f"Failed to detach device {name}"):
        if driver is not None:
            session.call("node_device_detach_flags", device, driver, 0)
        else:
            session.call("node_device_dettach", device)
    session.say(f"Device {name} detached\n")


def set_autostart(session: Session, args: Args) -> None:
    """virNodeDeviceSetAutostart."""
    name = args.required("device")
    device = find(session, name)
    verb = "unmark" if args.flag("disable") else "mark"
    with failing(f"failed to {verb} device {name} as autostarted"):
        session.call("node_device_set_autostart", device, int(not args.flag("disable")))
    session.say(f"Device {name} {verb}ed as autostarted\n")


_FILE = {"file": "path"}

COMMANDS = (
    Command("nodedev-autostart", "<device> [--disable]", "have a device started with the machine", set_autostart),
    Command(
        "nodedev-create",
        "<file> [--validate]",
        "make a device from an XML file, without a definition that stays",
        _make(
            "node_device_create_xml",
            "Node device {name} created from {file}",
            "Failed to create node device from {file}",
            c.VIR_NODE_DEVICE_CREATE_XML_VALIDATE,
        ),
        kinds=_FILE,
    ),
    Command(
        "nodedev-define",
        "<file> [--validate]",
        "define a device from an XML file",
        _make(
            "node_device_define_xml",
            "Node device '{name}' defined from '{file}'",
            "Failed to define node device from '{file}'",
            c.VIR_NODE_DEVICE_DEFINE_XML_VALIDATE,
        ),
        kinds=_FILE,
    ),
    Command(
        "nodedev-destroy",
        "<device>",
        "remove a device",
        _act("node_device_destroy", "Destroyed node device '{name}'", "Failed to destroy node device '{name}'"),
    ),
    Command("nodedev-detach", "<device> [--driver <string>]", "take a device from its driver, for a guest", detach),
    Command("nodedev-dumpxml", "<device> [--xpath =<string>] [--wrap]", "show a device's XML", nodedev_dumpxml),
    Command("nodedev-info", "<device>", "show the main facts about a device", nodedev_info),
    Command(
        "nodedev-list",
        "[--tree] [--cap <string>] [--inactive] [--all]",
        "show which devices the host has",
        nodedev_list,
        kinds={"cap": "device-capability"},
    ),
    Command(
        "nodedev-reattach",
        "<device>",
        "give a device back to its driver",
        _act("node_device_re_attach", "Device {name} re-attached", "Failed to re-attach device {name}"),
    ),
    Command(
        "nodedev-reset",
        "<device>",
        "reset a device",
        _act("node_device_reset", "Device {name} reset", "Failed to reset device {name}"),
    ),
    Command(
        "nodedev-start",
        "<device>",
        "start a device that is defined",
        _act("node_device_create", "Device {name} started", "Failed to start device {name}", 0),
    ),
    Command(
        "nodedev-undefine",
        "<device>",
        "remove the definition of a device",
        _act("node_device_undefine", "Undefined node device '{name}'", "Failed to undefine node device '{name}'", 0),
    ),
)
