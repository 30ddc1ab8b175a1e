"""Snapshots of guests. What lists them is in snapshotlist."""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell import xmltext
from virtd.shell.acts import document
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Fields, Output, Plain, Single, yes
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CREATE_FLAGS = {
    "redefine": c.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE,
    "current": c.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT,
    "no-metadata": c.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA,
    "halt": c.VIR_DOMAIN_SNAPSHOT_CREATE_HALT,
    "disk-only": c.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY,
    "reuse-external": c.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT,
    "quiesce": c.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE,
    "atomic": c.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC,
    "live": c.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE,
    "validate": c.VIR_DOMAIN_SNAPSHOT_CREATE_VALIDATE,
}
_REVERT_FLAGS = {
    "running": c.VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING,
    "paused": c.VIR_DOMAIN_SNAPSHOT_REVERT_PAUSED,
    "force": c.VIR_DOMAIN_SNAPSHOT_REVERT_FORCE,
    "reset-nvram": c.VIR_DOMAIN_SNAPSHOT_REVERT_RESET_NVRAM,
}
_DELETE_FLAGS = {
    "children": c.VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN,
    "children-only": c.VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY,
    "metadata": c.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY,
}


def find(session: Session, args: Args, domain: Any, *, must: bool = True) -> Any:
    """The snapshot that --snapshotname or --current means; None if neither was given and none is needed."""
    args.exclusive("current", "snapshotname")
    name = args.text("snapshotname")
    if args.flag("current"):
        return session.call("domain_snapshot_current", domain, 0)
    if name is not None:
        return session.call("domain_snapshot_lookup_by_name", domain, name, 0)
    if must:
        raise Failure("--snapshotname or --current is required")
    return None


def parent_of(session: Session, snapshot: Any) -> Any:
    """The parent of a snapshot; None if it has none."""
    try:
        return session.call("domain_snapshot_get_parent", snapshot, 0)
    except VirtError as error:
        if error.code != c.VIR_ERR_NO_DOMAIN_SNAPSHOT:
            raise
        return None


def _create(session: Session, domain: Any, xml: str, flags: int, path: str | None) -> None:
    """virDomainSnapshotCreateXML."""
    try:
        snapshot = session.call("domain_snapshot_create_xml", domain, xml, flags)
    except VirtError as error:
        # With --halt the guest, and a transient one altogether, may be gone before the answer is.
        if error.code != c.VIR_ERR_INVALID_ARG or not flags & c.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC:
            raise
        raise Failure("cannot create the snapshot in one step on this server", cause=error) from None
    source = f" from '{path}'" if path is not None else ""
    session.say(f"Domain snapshot {snapshot.name} created{source}")


def create(session: Session, args: Args) -> None:
    """virDomainSnapshotCreateXML, of a file's document."""
    args.requires("current", "redefine")
    domain = session.domain(args.required("domain"))
    path = args.text("xmlfile")
    xml = "<domainsnapshot/>" if path is None else read_text(path)
    _create(session, domain, xml, args.flags(_CREATE_FLAGS), path)


def create_as(session: Session, args: Args) -> Output | None:
    """virDomainSnapshotCreateXML, of a document made of options."""
    domain = session.domain(args.required("domain"))
    xml = xmltext.Builder()
    xml.start("domainsnapshot")
    for name in ("name", "description"):
        if args.text(name) is not None:
            xml.leaf(name, args.text(name))
    memory = args.text("memspec")
    if memory is not None:
        fields = _spec(memory, "memspec", ("snapshot", "file"), "file")
        xml.leaf("memory", snapshot=fields.get("snapshot"), file=fields.get("file"))
    if args.rest("diskspec"):
        xml.start("disks")
        for text in args.rest("diskspec"):
            _disk(xml, text)
        xml.end("disks")
    xml.end("domainsnapshot")
    if args.flag("print-xml"):
        return Plain("xml", f"{xml}\n", str(xml))
    _create(session, domain, str(xml), args.flags(_CREATE_FLAGS), None)
    return None


def _spec(text: str, kind: str, known: tuple[str, ...], first: str) -> dict[str, str]:
    """The parts of a text like NAME,KEY=VALUE,…; two commas stand for one that does not part."""
    fields: dict[str, str] = {}
    for number, part in enumerate(text.replace(",,", "\0").split(",")):
        key, sign, value = part.replace("\0", ",").partition("=")
        if sign and key in known:
            fields[key] = value
        elif number == 0 and (kind == "diskspec" or part.startswith("/")):
            fields[first] = part.replace("\0", ",")
        else:
            raise Failure(f"unable to parse {kind}: {text}")
    return fields


def _disk(xml: xmltext.Builder, text: str) -> None:
    fields = _spec(text, "diskspec", ("snapshot", "driver", "file", "stype"), "name")
    kind = fields.get("stype")
    if kind not in (None, "file", "block"):
        raise Failure(f"Unknown storage type: '{kind}'")
    shown = {"name": fields.get("name"), "snapshot": fields.get("snapshot"), "type": kind}
    if not ("driver" in fields or "file" in fields):
        xml.leaf("disk", **shown)
        return
    xml.start("disk", **{name: value for name, value in shown.items() if value is not None})
    if "driver" in fields:
        xml.leaf("driver", type=fields["driver"])
    if "file" in fields:
        xml.leaf("source", **{"dev" if kind == "block" else "file": fields["file"]})
    xml.end("disk")


def current(session: Session, args: Args) -> Output | None:
    """virDomainSnapshotCurrent; with a name, the change of which one that is."""
    for one, other in (("name", "snapshotname"), ("name", "security-info")):
        args.exclusive(one, other)
    domain = session.domain(args.required("domain"))
    wanted = args.text("snapshotname")
    secure = c.VIR_DOMAIN_SNAPSHOT_XML_SECURE
    if wanted is not None:
        found = session.call("domain_snapshot_lookup_by_name", domain, wanted, 0)
        xml = session.call("domain_snapshot_get_xml_desc", found, secure)
        flags = c.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE | c.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT
        session.call("domain_snapshot_create_xml", domain, xml, flags)
        session.say(f"Snapshot {wanted} set as current")
        return None
    if not session.call("domain_has_current_snapshot", domain, 0):
        raise Failure(f"domain '{domain.name}' has no current snapshot")
    snapshot = session.call("domain_snapshot_current", domain, 0)
    if args.flag("name"):
        return Single("name", snapshot.name, end="")
    xml = session.call("domain_snapshot_get_xml_desc", snapshot, secure if args.flag("security-info") else 0)
    return Plain("xml", xml)


def delete(session: Session, args: Args) -> None:
    """virDomainSnapshotDelete."""
    domain = session.domain(args.required("domain"))
    snapshot = find(session, args, domain)
    flags = args.flags(_DELETE_FLAGS)
    with failing(f"Failed to delete snapshot {snapshot.name}"):
        session.call("domain_snapshot_delete", snapshot, flags)
    what = " children" if args.flag("children-only") else ""
    session.say(f"Domain snapshot {snapshot.name}{what} deleted\n")


def dumpxml(session: Session, args: Args) -> Output:
    """virDomainSnapshotGetXMLDesc."""
    domain = session.domain(args.required("domain"))
    snapshot = session.call("domain_snapshot_lookup_by_name", domain, args.required("snapshotname"), 0)
    flags = c.VIR_DOMAIN_SNAPSHOT_XML_SECURE if args.flag("security-info") else 0
    return document(args, session.call("domain_snapshot_get_xml_desc", snapshot, flags))


def edit(session: Session, args: Args) -> None:
    """virDomainSnapshotCreateXML, of what an editor made of a snapshot's document."""
    from virtd.shell import editing

    args.exclusive("rename", "clone")
    domain = session.domain(args.required("domain"))
    snapshot = find(session, args, domain)
    flags = c.VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE
    if args.flag("current"):
        flags |= c.VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT

    def store(text: str) -> None:
        made = session.call("domain_snapshot_create_xml", domain, text, flags)
        if made.name != snapshot.name:
            if not (args.flag("rename") or args.flag("clone")):
                session.call("domain_snapshot_delete", made, c.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
                raise Failure(f"Must use --rename or --clone to change {snapshot.name} to {made.name}")
            if args.flag("rename"):
                session.call("domain_snapshot_delete", snapshot, c.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)

    editing.edit(
        session,
        lambda: str(session.call("domain_snapshot_get_xml_desc", snapshot, c.VIR_DOMAIN_SNAPSHOT_XML_SECURE)),
        store,
        f"Snapshot {snapshot.name} XML configuration not changed.",
        f"Snapshot {snapshot.name} edited.",
    )


def info(session: Session, args: Args) -> Output:
    """What several calls, and its document, say of a snapshot."""
    name = args.required("domain")
    domain = session.domain(name)
    snapshot = find(session, args, domain)
    root = xmltext.parse(session.call("domain_snapshot_get_xml_desc", snapshot, 0))
    state = root.findtext("state")
    if not state:
        raise Failure("unexpected problem reading snapshot xml")
    fields = Fields(15)
    fields.add("Name:", snapshot.name)
    fields.add("Domain:", domain.name)
    fields.add("Current:", yes(session.call("domain_snapshot_is_current", snapshot, 0)))
    fields.add("State:", state)
    fields.add("Location:", _location(root, state))
    parent = parent_of(session, snapshot)
    fields.add("Parent:", None if parent is None else parent.name)
    children = session.call("domain_snapshot_num_children", snapshot, 0)
    fields.add("Children:", children)
    descendants = children
    if children:
        descendants = session.call("domain_snapshot_num_children", snapshot, c.VIR_DOMAIN_SNAPSHOT_LIST_DESCENDANTS)
    fields.add("Descendants:", descendants)
    fields.add("Metadata:", yes(session.call("domain_snapshot_has_metadata", snapshot, 0)))
    return fields


def _location(root: Any, state: str) -> str:
    """Whether a snapshot lies in the disks' images or beside them."""
    if state == "disk-snapshot":
        return "external"
    places = {one.get("snapshot") for path in ("disks/disk", "memory") for one in root.iterfind(path)}
    return "external" if "external" in places else "internal"


def parent(session: Session, args: Args) -> Output:
    """virDomainSnapshotGetParent."""
    domain = session.domain(args.required("domain"))
    snapshot = find(session, args, domain)
    found = parent_of(session, snapshot)
    if found is None:
        raise Failure(f"snapshot '{snapshot.name}' has no parent")
    return Single("name", found.name, end="")


def revert(session: Session, args: Args) -> None:
    """virDomainRevertToSnapshot."""
    domain = session.domain(args.required("domain"))
    snapshot = find(session, args, domain)
    flags = args.flags(_REVERT_FLAGS)
    session.call("domain_revert_to_snapshot", snapshot, flags)
    session.say(f"Domain snapshot {snapshot.name} reverted\n")


_WHICH = "[--snapshotname <string>] [--current]"
_HOW = "[--no-metadata] [--halt] [--disk-only] [--reuse-external] [--quiesce] [--atomic] [--live] [--validate]"

COMMANDS = (
    Command(
        "snapshot-create",
        f"<domain> [--xmlfile <string>] [--redefine] [--current] {_HOW}",
        "make a snapshot from XML",
        create,
        kinds={"xmlfile": "path"},
    ),
    Command(
        "snapshot-create-as",
        f"<domain> [--name <string>] [--description <string>] [--print-xml] {_HOW} [--memspec =<string>] "
        "[<diskspec>...]",
        "make a snapshot from options",
        create_as,
    ),
    Command(
        "snapshot-current",
        "<domain> [--name] [--security-info] [--snapshotname <string>]",
        "show or set the current snapshot",
        current,
    ),
    Command(
        "snapshot-delete",
        f"<domain> {_WHICH} [--children] [--children-only] [--metadata]",
        "delete a snapshot",
        delete,
    ),
    Command(
        "snapshot-dumpxml",
        "<domain> <snapshotname> [--security-info] [--xpath =<string>] [--wrap]",
        "show a snapshot's XML",
        dumpxml,
    ),
    Command("snapshot-edit", f"<domain> {_WHICH} [--rename] [--clone]", "change a snapshot's XML in an editor", edit),
    Command("snapshot-info", f"<domain> {_WHICH}", "show the main facts about a snapshot", info),
    Command("snapshot-parent", f"<domain> {_WHICH}", "show the parent of a snapshot", parent),
    Command(
        "snapshot-revert",
        f"<domain> {_WHICH} [--running] [--paused] [--force] [--reset-nvram]",
        "bring a guest back to a snapshot",
        revert,
    ),
)
