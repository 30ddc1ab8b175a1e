"""Checkpoints of guests: from which on it is known what has changed on their disks."""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell import xmltext
from virtd.shell.acts import document
from virtd.shell.command import Args, Command
from virtd.shell.commands import snapshotlist
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Fields, Output, Plain, Single
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CREATE_FLAGS = {
    "redefine": c.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE,
    "redefine-validate": c.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE,
    "quiesce": c.VIR_DOMAIN_CHECKPOINT_CREATE_QUIESCE,
}
_XML_FLAGS = {
    "security-info": c.VIR_DOMAIN_CHECKPOINT_XML_SECURE,
    "no-domain": c.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN,
    "size": c.VIR_DOMAIN_CHECKPOINT_XML_SIZE,
}
_DELETE_FLAGS = {
    "children": c.VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN,
    "children-only": c.VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN_ONLY,
    "metadata": c.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY,
}
_LIST_FLAGS = {
    "leaves": c.VIR_DOMAIN_CHECKPOINT_LIST_LEAVES,
    "no-leaves": c.VIR_DOMAIN_CHECKPOINT_LIST_NO_LEAVES,
    "topological": c.VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL,
}


def _find(session: Session, args: Args) -> tuple[Any, Any]:
    """The guest and the checkpoint that a command is about."""
    domain = session.domain(args.required("domain"))
    name = args.text("checkpointname")
    if name is None:
        raise Failure("--checkpointname is required")
    return domain, session.call("domain_checkpoint_lookup_by_name", domain, name, 0)


def _parent(session: Session, checkpoint: Any) -> str | None:
    try:
        return str(session.call("domain_checkpoint_get_parent", checkpoint, 0).name)
    except VirtError as error:
        if error.code != c.VIR_ERR_NO_DOMAIN_CHECKPOINT:
            raise
        return None


def _create(session: Session, domain: Any, xml: str, flags: int, path: str | None) -> None:
    """virDomainCheckpointCreateXML."""
    checkpoint = session.call("domain_checkpoint_create_xml", domain, xml, flags)
    source = f" from '{path}'" if path is not None else ""
    session.say(f"Domain checkpoint {checkpoint.name} created{source}")


def create(session: Session, args: Args) -> None:
    """virDomainCheckpointCreateXML, of a file's document."""
    domain = session.domain(args.required("domain"))
    path = args.text("xmlfile")
    xml = "<domaincheckpoint/>" if path is None else read_text(path)
    _create(session, domain, xml, args.flags(_CREATE_FLAGS), path)


def create_as(session: Session, args: Args) -> Output | None:
    """virDomainCheckpointCreateXML, of a document made of options."""
    domain = session.domain(args.required("domain"))
    xml = xmltext.Builder()
    xml.start("domaincheckpoint")
    for name in ("name", "description"):
        if args.text(name) is not None:
            xml.leaf(name, args.text(name))
    if args.rest("diskspec"):
        xml.start("disks")
        for text in args.rest("diskspec"):
            disk, *parts = text.split(",")
            fields = dict(part.split("=", 1) for part in parts if "=" in part)
            if len(fields) != len(parts) or set(fields) - {"checkpoint", "bitmap"}:
                raise Failure(f"unable to parse diskspec: {text}")
            xml.leaf("disk", name=disk, checkpoint=fields.get("checkpoint"), bitmap=fields.get("bitmap"))
        xml.end("disks")
    xml.end("domaincheckpoint")
    if args.flag("print-xml"):
        return Plain("xml", f"{xml}\n", str(xml))
    _create(session, domain, str(xml), args.flags(_CREATE_FLAGS), None)
    return None


def delete(session: Session, args: Args) -> None:
    """virDomainCheckpointDelete."""
    _, checkpoint = _find(session, args)
    with failing(f"Failed to delete checkpoint {checkpoint.name}"):
        session.call("domain_checkpoint_delete", checkpoint, args.flags(_DELETE_FLAGS))
    what = " children" if args.flag("children-only") else ""
    session.say(f"Domain checkpoint {checkpoint.name}{what} deleted\n")


def dumpxml(session: Session, args: Args) -> Output:
    """virDomainCheckpointGetXMLDesc."""
    _, checkpoint = _find(session, args)
    return document(args, session.call("domain_checkpoint_get_xml_desc", checkpoint, args.flags(_XML_FLAGS)))


def edit(session: Session, args: Args) -> None:
    """virDomainCheckpointCreateXML, of what an editor made of a checkpoint's document."""
    from virtd.shell import editing

    domain, checkpoint = _find(session, args)

    def store(text: str) -> None:
        name = xmltext.parse(text).findtext("name")
        if name != checkpoint.name:
            raise Failure(f"Cannot rename checkpoint {checkpoint.name} to {name}")
        session.call("domain_checkpoint_create_xml", domain, text, c.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE)

    editing.edit(
        session,
        lambda: str(session.call("domain_checkpoint_get_xml_desc", checkpoint, c.VIR_DOMAIN_CHECKPOINT_XML_SECURE)),
        store,
        f"Checkpoint {checkpoint.name} XML configuration not changed.",
        f"Checkpoint {checkpoint.name} edited.",
    )


def _children(session: Session, checkpoint: Any, flags: int) -> int:
    return int(session.call("domain_checkpoint_list_all_children", checkpoint, 0, flags)[1])


def info(session: Session, args: Args) -> Output:
    """What several calls say of a checkpoint."""
    domain, checkpoint = _find(session, args)
    fields = Fields(15)
    fields.add("Name:", checkpoint.name)
    fields.add("Domain:", domain.name)
    fields.add("Parent:", _parent(session, checkpoint))
    fields.add("Children:", _children(session, checkpoint, 0))
    fields.add("Descendants:", _children(session, checkpoint, c.VIR_DOMAIN_CHECKPOINT_LIST_DESCENDANTS))
    return fields


def checkpoint_list(session: Session, args: Args) -> Output:
    """virDomainListAllCheckpoints, virDomainCheckpointListAllChildren."""
    for one, other in (("parent", "roots"), ("parent", "tree"), ("roots", "tree"), ("roots", "from"), ("name", "tree")):
        args.exclusive(one, other)
    domain = session.domain(args.required("domain"))
    begin = args.text("from")
    flags = args.flags(_LIST_FLAGS)
    if begin is None:
        if args.flag("descendants"):
            raise Failure("--descendants requires --from")
        flags |= c.VIR_DOMAIN_CHECKPOINT_LIST_ROOTS if args.flag("roots") else 0
        found = session.call("domain_list_all_checkpoints", domain, 1, flags)[0]
    else:
        start = session.call("domain_checkpoint_lookup_by_name", domain, begin, 0)
        flags |= c.VIR_DOMAIN_CHECKPOINT_LIST_DESCENDANTS if args.flag("descendants") or args.flag("tree") else 0
        found = session.call("domain_checkpoint_list_all_children", start, 1, flags)[0]
        if args.flag("tree"):
            found = [start, *found]
    no_domain = c.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
    entries = [
        snapshotlist.read(one.name, session.call("domain_checkpoint_get_xml_desc", one, no_domain)) for one in found
    ]
    if not args.flag("topological"):
        entries.sort(key=lambda entry: entry.name.casefold())
    return snapshotlist.show(args, entries, states=False)


def parent(session: Session, args: Args) -> Output:
    """virDomainCheckpointGetParent."""
    _, checkpoint = _find(session, args)
    found = _parent(session, checkpoint)
    if found is None:
        raise Failure(f"checkpoint '{checkpoint.name}' has no parent")
    return Single("name", found, end="")


_WHICH = "<domain> [--checkpointname <string>]"

COMMANDS = (
    Command(
        "checkpoint-create",
        "<domain> [--xmlfile <string>] [--redefine] [--redefine-validate] [--quiesce]",
        "make a checkpoint from XML",
        create,
        kinds={"xmlfile": "path"},
    ),
    Command(
        "checkpoint-create-as",
        "<domain> [--name <string>] [--description <string>] [--print-xml] [--quiesce] [<diskspec>...]",
        "make a checkpoint from options",
        create_as,
    ),
    Command(
        "checkpoint-delete",
        f"{_WHICH} [--children] [--children-only] [--metadata]",
        "delete a checkpoint",
        delete,
    ),
    Command(
        "checkpoint-dumpxml",
        f"{_WHICH} [--security-info] [--no-domain] [--size] [--xpath =<string>] [--wrap]",
        "show a checkpoint's XML",
        dumpxml,
    ),
    Command("checkpoint-edit", _WHICH, "change a checkpoint's XML in an editor", edit),
    Command("checkpoint-info", _WHICH, "show the main facts about a checkpoint", info),
    Command(
        "checkpoint-list",
        "<domain> [--parent] [--roots] [--leaves] [--no-leaves] [--tree] [--from <string>] [--descendants] [--name] "
        "[--topological]",
        "show which checkpoints a guest has",
        checkpoint_list,
        kinds={"from": "checkpointname"},
    ),
    Command("checkpoint-parent", _WHICH, "show the parent of a checkpoint", parent),
)
