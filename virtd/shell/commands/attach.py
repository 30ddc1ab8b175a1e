"""Disks, interfaces and media, plugged in and out by options."""

from __future__ import annotations

import os
import stat

from virtd import constants as c
from virtd.shell import rates, xmltext
from virtd.shell.command import Args, Command
from virtd.shell.commands.devices import PERSISTENT, attach, detach, document_of, where
from virtd.shell.commands.monitor import source_of
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Output, Plain
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The addresses that --address takes, by their prefixes: the numbers' names, and how each is written.
_ADDRESSES: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "pci": ("pci", (("domain", "0x{:04x}"), ("bus", "0x{:02x}"), ("slot", "0x{:02x}"), ("function", "0x{:x}"))),
    "scsi": ("drive", (("controller", "{}"), ("bus", "{}"), ("unit", "{}"))),
    "ide": ("drive", (("controller", "{}"), ("bus", "{}"), ("unit", "{}"))),
    "sata": ("drive", (("controller", "{}"), ("bus", "{}"), ("unit", "{}"))),
    "ccw": ("ccw", (("cssid", "0x{:02x}"), ("ssid", "0x{:01x}"), ("devno", "0x{:04x}"))),
    "usb": ("usb", (("bus", "{}"), ("port", "{}"))),
}
_HEXADECIMAL = ("pci", "ccw")


def address_of(text: str) -> dict[str, str] | None:
    """The attributes of an address that a user wrote, such as pci:0000.00.11.0; None if it is none."""
    kind, _, rest = text.partition(":")
    if kind not in _ADDRESSES:
        return None
    name, fields = _ADDRESSES[kind]
    parts = rest.split(".")
    try:
        numbers = [int(part, 16 if kind in _HEXADECIMAL else 10) for part in parts]
    except ValueError:
        return None
    if len(numbers) != len(fields):
        return None
    attributes = {field: form.format(number) for (field, form), number in zip(fields, numbers, strict=True)}
    return {"type": name, **attributes}


# Which addresses fit a disk, by how its target begins, and what is said of others.
_FITTING = {
    "vd": (("pci", "ccw"), "expecting a pci:0000.00.00.00 or ccw:00.0.0000 address."),
    "sd": (("scsi", "sata", "usb"), "expecting a scsi:00.00.00 or usb:00.00 or sata:00.00.00 address."),
    "hd": (("ide",), "expecting an ide:00.00.00 address."),
}


def _check_address(target: str, text: str) -> None:
    prefix = text.partition(":")[0]
    fitting, problem = _FITTING.get(target[:2], ((prefix,), ""))
    if prefix not in fitting:
        raise Failure(problem)


def _disk_type(source: str) -> str:
    """Whether a path is a block device's, as far as it can be seen from here."""
    try:
        return "block" if stat.S_ISBLK(os.stat(source).st_mode) else "file"
    except OSError:
        return "file"


def disk_xml(args: Args) -> str:
    """The document of the disk that options describe."""
    source, kind, mode = args.required("source", empty=True), args.text("type"), args.text("mode")
    if mode is not None and mode not in ("readonly", "shareable"):
        raise Failure(f"No support for {mode} in command 'attach-disk'")
    place = args.text("sourcetype") or ("network" if args.text("source-protocol") else _disk_type(source))
    if place not in ("file", "block", "network"):
        raise Failure(f"Unknown source type: '{place}'")
    wwn = args.text("wwn")
    if wwn is not None and (len(wwn) != 16 or not all(one in "0123456789abcdefABCDEF" for one in wwn)):
        raise Failure(f"internal error: Malformed wwn: {wwn}")
    address = None
    if args.text("address") is not None:
        address = address_of(args.required("address"))
        if address is None:
            raise Failure("Invalid address.")
        _check_address(args.required("target"), args.required("address"))
        if args.flag("multifunction"):
            address["multifunction"] = "on"
    xml = xmltext.Builder()
    rawio = {"rawio": "yes"} if args.flag("rawio") else {}
    xml.start("disk", type=place, **({"device": kind} if kind else {}), **rawio)
    driver = {"name": "driver", "type": "subdriver", "iothread": "iothread", "cache": "cache", "io": "io"}
    chosen = {attribute: args.text(option) for attribute, option in driver.items() if args.text(option)}
    if chosen:
        xml.leaf("driver", **chosen)
    if place == "network":
        _network_source(args, xml, source)
    else:
        xml.leaf("source", **{"dev" if place == "block" else "file": source})
    xml.leaf("target", dev=args.required("target"), bus=args.text("targetbus"))
    if mode is not None:
        xml.leaf(mode)
    if args.text("serial"):
        xml.leaf("serial", args.text("serial"))
    if args.text("alias"):
        xml.leaf("alias", name=args.text("alias"))
    if wwn:
        xml.leaf("wwn", wwn)
    if address is not None:
        xml.leaf("address", **address)
    xml.end("disk")
    return str(xml)


def _network_source(args: Args, xml: xmltext.Builder, source: str) -> None:
    host, transport = args.text("source-host-name"), args.text("source-host-transport")
    socket = args.text("source-host-socket")
    attributes = {"protocol": args.text("source-protocol"), "name": source or None}
    if not (host or transport or socket):
        xml.leaf("source", **attributes)
        return
    xml.start("source", **attributes)
    name, port = host, None
    if host and ":" in host:
        name, _, port = host.rpartition(":")
    xml.leaf("host", transport=transport, socket=socket, name=name, port=port)
    xml.end("source")


def _remove(element: Any, tag: str) -> None:
    """Remove an element from another one; the blanks around it stay."""
    found = element.find(tag)
    if found is not None:
        before = found.getprevious()
        if before is None:
            element.text = (element.text or "") + (found.tail or "")
        else:
            before.tail = (before.tail or "") + (found.tail or "")
        element.remove(found)


def _attach(session: Session, args: Args, what: str, xml: str) -> Output | None:
    if args.flag("print-xml"):
        return Plain("xml", xml)
    domain = session.domain(args.required("domain"))
    with failing(f"Failed to attach {what}"):
        attach(session, args, domain, xml)
    session.say(f"{what.capitalize()} attached successfully\n")
    return None


def attach_disk(session: Session, args: Args) -> Output | None:
    """virDomainAttachDevice of a disk."""
    return _attach(session, args, "disk", disk_xml(args))


def _find_disk(session: Session, domain: Any, flags: int, name: str, *, removable: bool = False) -> Any:
    """The disk in a guest's document that has a source or a target."""
    for disk in document_of(session, domain, flags).iterfind("devices/disk"):
        if removable and disk.get("device") not in ("cdrom", "floppy"):
            continue
        if name in (xmltext.attribute(disk, "target", "dev"), source_of(disk)):
            return disk
    raise Failure(f"No disk found whose source path or target is {name}")


def detach_disk(session: Session, args: Args) -> Output | None:
    """virDomainDetachDevice of a disk."""
    domain = session.domain(args.required("domain"))
    flags = where(session, args, domain)
    disk = _find_disk(session, domain, flags, args.required("target"))
    _remove(disk, "backingStore")
    xml = xmltext.piece(disk)
    if args.flag("print-xml"):
        return Plain("xml", xml)
    with failing("Failed to detach disk"):
        detach(session, args, domain, xml)
    session.say("Disk detached successfully\n")
    return None


def change_media(session: Session, args: Args) -> Output | None:
    """virDomainUpdateDeviceFlags of a drive with another medium, or none."""
    from lxml import etree

    for one, other in (("eject", "insert"), ("eject", "update"), ("insert", "update"), ("eject", "block")):
        args.exclusive(one, other)
    path = args.required("path")
    source = None if args.flag("eject") else args.text("source")
    domain = session.domain(args.required("domain"))
    flags = where(session, args, domain)
    disk = _find_disk(session, domain, flags, path, removable=True)
    if not args.flag("eject") and source is None:
        raise Failure("New disk media source was not specified")
    if args.flag("insert") and source_of(disk) is not None:
        raise Failure(f"The disk device '{path}' already has media")
    if args.flag("eject") and disk.find("source") is None:
        raise Failure(f"The disk device '{path}' doesn't have media")
    for tag in ("source", "backingStore"):
        _remove(disk, tag)
    if source is not None:
        block = args.flag("block")
        disk.set("type", "block" if block else "file")
        made = etree.Element("source", {"dev" if block else "file": source})
        target = disk.find("target")
        place = len(disk) if target is None else list(disk).index(target)
        made.tail = disk.text
        disk.insert(place, made)
    xml = xmltext.piece(disk)
    if args.flag("print-xml"):
        return Plain("xml", xml)
    if args.flag("force"):
        flags |= c.VIR_DOMAIN_DEVICE_MODIFY_FORCE
    action = "insert" if args.flag("insert") else "eject" if args.flag("eject") else "update"
    with failing(f"Failed to complete action {action} on media"):
        session.call("domain_update_device_flags", domain, xml, flags)
    session.write(f"Successfully {action}{'' if action.endswith('e') else 'e'}d media.")
    return None


# Interfaces


def interface_xml(args: Args) -> str:
    """The document of the interface that options describe."""
    kind, source = args.required("type"), args.required("source")
    inbound, outbound = args.text("inbound"), args.text("outbound")
    xml = xmltext.Builder()
    xml.start("interface", type=kind, **({"managed": "yes"} if args.flag("managed") else {}))
    match kind:
        case "network" | "bridge":
            xml.leaf("source", **{kind: source})
        case "direct":
            xml.leaf("source", dev=source)
        case "hostdev":
            address = address_of(f"pci:{source}")
            if address is None:
                raise Failure(f"cannot parse pci address '{source}' for network interface")
            xml.start("source")
            xml.leaf("address", **address)
            xml.end("source")
        case "vhostuser":
            mode = args.text("source-mode")
            if mode is None:
                raise Failure("source-mode is mandatory")
            xml.leaf("source", type="unix", path=source, mode=mode)
        case _:
            raise Failure(f"No support for {kind} in command 'attach-interface'")
    for option, tag, attribute in (
        ("target", "target", "dev"),
        ("mac", "mac", "address"),
        ("script", "script", "path"),
        ("model", "model", "type"),
        ("alias", "alias", "name"),
    ):
        if args.text(option):
            xml.leaf(tag, **{attribute: args.text(option)})
    if inbound or outbound:
        xml.start("bandwidth")
        if inbound:
            rate = rates.parse(inbound)
            if not rate.average and not rate.floor:
                raise Failure("either inbound average or floor is mandatory")
            _rate(xml, "inbound", rate, floor=True)
        if outbound:
            rate = rates.parse(outbound)
            if not rate.average:
                raise Failure("outbound average is mandatory")
            _rate(xml, "outbound", rate, floor=False)
        xml.end("bandwidth")
    xml.end("interface")
    return str(xml)


def _rate(xml: xmltext.Builder, tag: str, rate: rates.Rate, *, floor: bool) -> None:
    fields = {
        "average": rate.average,
        "peak": rate.peak,
        "burst": rate.burst,
        **({"floor": rate.floor} if floor else {}),
    }
    xml.leaf(tag, **{name: number for name, number in fields.items() if number})


def attach_interface(session: Session, args: Args) -> Output | None:
    """virDomainAttachDevice of an interface."""
    mode = args.text("source-mode")
    if mode is not None and mode not in ("server", "client"):
        raise Failure(f"Invalid source mode: {mode}")
    return _attach(session, args, "interface", interface_xml(args))


def _find_interface(session: Session, domain: Any, flags: int, kind: str, mac: str | None) -> Any:
    found = [
        one for one in document_of(session, domain, flags).iterfind("devices/interface") if one.get("type") == kind
    ]
    failed = "Failed to detach interface"
    if not found:
        raise Failure(f"No interface found whose type is {kind}", failed)
    if mac is None:
        if len(found) > 1:
            raise Failure(f"Domain has {len(found)} interfaces. Please specify which one to detach using --mac", failed)
        return found[0]
    same = [one for one in found if (xmltext.attribute(one, "mac", "address") or "").lower() == mac.lower()]
    if not same:
        raise Failure(f"No interface with MAC address {mac} was found", failed)
    if len(same) > 1:
        text = f"Domain has multiple interfaces matching MAC address {mac}. "
        text += "You must use detach-device and specify the device pci address to remove it."
        raise Failure(text, failed)
    return same[0]


def detach_interface(session: Session, args: Args) -> Output | None:
    """virDomainDetachDevice of an interface."""
    domain = session.domain(args.required("domain"))
    flags = where(session, args, domain)
    interface = _find_interface(session, domain, flags, args.required("type"), args.text("mac"))
    xml = xmltext.piece(interface)
    if args.flag("print-xml"):
        return Plain("xml", xml)
    with failing("Failed to detach interface"):
        detach(session, args, domain, xml)
    session.say("Interface detached successfully\n")
    return None


COMMANDS = (
    Command(
        "attach-disk",
        "<domain> <source> <target> [--targetbus <string>] [--driver <string>] [--subdriver <string>] "
        "[--iothread <string>] [--cache <string>] [--io <string>] [--type <string>] [--mode <string>] "
        "[--sourcetype <string>] [--serial <string>] [--wwn <string>] [--alias <string>] [--rawio] "
        "[--address <string>] [--multifunction] [--print-xml] [--source-protocol <string>] "
        "[--source-host-name <string>] [--source-host-transport <string>] [--source-host-socket <string>] "
        f"{PERSISTENT}",
        "plug in a disk",
        attach_disk,
        kinds={"source": "path", "type": "disk-device"},
        aliases={"shareable": ("mode", "shareable")},
    ),
    Command(
        "attach-interface",
        "<domain> <type> <source> [--target <string>] [--mac <string>] [--script <string>] [--model <string>] "
        f"[--alias <string>] [--inbound <string>] [--outbound <string>] {PERSISTENT} [--print-xml] [--managed] "
        "[--source-mode <string>]",
        "plug in a network interface",
        attach_interface,
        kinds={"type": "interface-type", "source": "network"},
    ),
    Command(
        "change-media",
        "<domain> <path> [--source <string>] [--eject] [--insert] [--update] [--current] [--live] [--config] "
        "[--force] [--print-xml] [--block]",
        "change what is in a guest's CD or floppy drive",
        change_media,
        kinds={"path": "disk", "source": "path"},
    ),
    Command(
        "detach-disk",
        f"<domain> <target> {PERSISTENT} [--print-xml]",
        "unplug a disk",
        detach_disk,
        kinds={"target": "disk"},
    ),
    Command(
        "detach-interface",
        f"<domain> <type> [--mac <string>] {PERSISTENT} [--print-xml]",
        "unplug a network interface",
        detach_interface,
        kinds={"type": "interface-type"},
    ),
)
