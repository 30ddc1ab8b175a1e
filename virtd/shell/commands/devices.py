"""Devices of guests, plugged in and out as their XML says."""

from __future__ import annotations

from virtd import constants as c
from virtd.shell import xmltext
from virtd.shell.acts import AFFECT_OPTIONS, affect
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Output, Plain
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PERSISTENT = f"[--persistent] {AFFECT_OPTIONS}"


def where(session: Session, args: Args, domain: Any) -> int:
    """The flags of a change of devices: --persistent, --config, --live, --current.

    Raises:
        Failure: they contradict each other.
    """
    for other in ("config", "live", "current"):
        if other != "config":
            args.exclusive("persistent", other)
    flags = affect(args)
    if args.flag("persistent"):
        # What it has always meant: for good, and now if there is a now.
        flags |= c.VIR_DOMAIN_AFFECT_CONFIG
        if session.call("domain_is_active", domain):
            flags |= c.VIR_DOMAIN_AFFECT_LIVE
    return flags


def attach(session: Session, args: Args, domain: Any, xml: str) -> None:
    """virDomainAttachDevice, virDomainAttachDeviceFlags."""
    flags = where(session, args, domain)
    if flags or args.flag("current"):
        session.call("domain_attach_device_flags", domain, xml, flags)
    else:
        session.call("domain_attach_device", domain, xml)


def detach(session: Session, args: Args, domain: Any, xml: str) -> None:
    """virDomainDetachDevice, virDomainDetachDeviceFlags."""
    flags = where(session, args, domain)
    if flags or args.flag("current"):
        session.call("domain_detach_device_flags", domain, xml, flags)
    else:
        session.call("domain_detach_device", domain, xml)


def _of_file(act: Callable[[Session, Args, Any, str], None], verb: str) -> Callable[[Session, Args], None]:
    """A command that attaches or detaches a device of a file's XML."""

    def function(session: Session, args: Args) -> None:
        path = args.required("file")
        domain = session.domain(args.required("domain"))
        text = read_text(path)
        with failing(f"Failed to {verb} device from {path}"):
            act(session, args, domain, text)
        session.say(f"Device {verb}ed successfully\n")

    return function


def detach_alias(session: Session, args: Args) -> None:
    """virDomainDetachDeviceAlias."""
    alias = args.required("alias")
    domain = session.domain(args.required("domain"))
    with failing(f"Failed to detach device with alias {alias}"):
        session.call("domain_detach_device_alias", domain, alias, affect(args))
    session.say("Device detach request sent successfully\n")


def update_device(session: Session, args: Args) -> None:
    """virDomainUpdateDeviceFlags."""
    path = args.required("file")
    domain = session.domain(args.required("domain"))
    flags = where(session, args, domain)
    text = read_text(path)
    if args.flag("force"):
        flags |= c.VIR_DOMAIN_DEVICE_MODIFY_FORCE
    with failing(f"Failed to update device from {path}"):
        session.call("domain_update_device_flags", domain, text, flags)
    session.say("Device updated successfully\n")


def document_of(session: Session, domain: Any, flags: int) -> Any:
    """The root of the document that a change with these flags is about, with its blanks."""
    inactive = c.VIR_DOMAIN_XML_INACTIVE if flags & c.VIR_DOMAIN_AFFECT_CONFIG else 0
    return xmltext.parse(session.call("domain_get_xml_desc", domain, inactive), blanks=True)


def set_link(session: Session, args: Args) -> Output | None:
    """virDomainUpdateDeviceFlags, of an interface with another link state."""
    from lxml import etree

    name, state = args.required("interface"), args.required("state")
    domain = session.domain(args.required("domain"))
    if state not in ("up", "down"):
        raise Failure(f"invalid link state '{state}'")
    flags = c.VIR_DOMAIN_AFFECT_CONFIG if args.flag("config") else c.VIR_DOMAIN_AFFECT_LIVE
    if not session.call("domain_is_active", domain):
        flags = c.VIR_DOMAIN_AFFECT_CONFIG
    found = None
    cards = document_of(session, domain, flags).findall("devices/interface")
    if not cards:
        raise Failure("Failed to extract interface information or no interfaces found")
    for one in cards:
        if name in (xmltext.attribute(one, "mac", "address"), xmltext.attribute(one, "target", "dev")):
            found = one
    if found is None:
        raise Failure(f"interface '{name}' not found")
    link = found.find("link")
    if link is None:
        link = etree.SubElement(found, "link")
    link.set("state", state)
    xml = xmltext.piece(found)
    if args.flag("print-xml"):
        return Plain("xml", xml)
    with failing("Failed to update interface link state"):
        session.call("domain_update_device_flags", domain, xml, flags)
    session.say("Device updated successfully\n")
    return None


def update_memory(session: Session, args: Args) -> Output | None:
    """virDomainUpdateDeviceFlags, of a memory device of another size."""
    args.exclusive("node", "alias")
    flags = affect(args)
    alias, node = args.text("alias"), args.natural("node")
    size = args.scaled("requested-size", 1024)
    domain = session.domain(args.required("domain"))
    found = [
        one
        for one in document_of(session, domain, flags).iterfind("devices/memory")
        if (alias is None or xmltext.attribute(one, "alias", "name") == alias)
        and (node is None or (one.findtext("target/node") or "").strip() == str(node))
    ]
    if not found:
        raise Failure("no memory device found")
    if len(found) > 1:
        raise Failure("multiple memory devices found, use --alias or --node to select one")
    requested = found[0].find("target/requested")
    if size is not None:
        if requested is None:
            raise Failure("virtio-mem device is missing <requested/>")
        requested.set("unit", "KiB")
        requested.text = str(size // 1024)
    xml = xmltext.piece(found[0])
    if args.flag("print-xml"):
        return Plain("xml", xml)
    session.call("domain_update_device_flags", domain, xml, flags)
    return None


_FILE = {"file": "path"}

COMMANDS = (
    Command(
        "attach-device",
        f"<domain> <file> {PERSISTENT}",
        "plug in a device from an XML file",
        _of_file(attach, "attach"),
        kinds=_FILE,
    ),
    Command(
        "detach-device",
        f"<domain> <file> {PERSISTENT}",
        "unplug a device from an XML file",
        _of_file(detach, "detach"),
        kinds=_FILE,
    ),
    Command(
        "detach-device-alias",
        f"<domain> <alias> {AFFECT_OPTIONS}",
        "unplug the device that has an alias",
        detach_alias,
        kinds={"alias": "device-alias"},
    ),
    Command(
        "domif-setlink",
        "<domain> <interface> <state> [--config] [--print-xml]",
        "plug the cable of a guest's interface in or out",
        set_link,
        kinds={"interface": "guest-interface", "state": "link-state"},
    ),
    Command(
        "update-device",
        f"<domain> <file> {PERSISTENT} [--force]",
        "change a device as an XML file says",
        update_device,
        kinds=_FILE,
    ),
    Command(
        "update-memory-device",
        f"<domain> {AFFECT_OPTIONS} [--print-xml] [--alias <string>] [--node <number>] [--requested-size <number>]",
        "change the size of a guest's memory device",
        update_memory,
        kinds={"alias": "device-alias"},
    ),
)
