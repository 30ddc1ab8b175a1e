"""The lists of a guest's snapshots and checkpoints, which are alike."""

from __future__ import annotations

import time

from virtd import constants as c
from virtd.shell import xmltext
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure
from virtd.shell.output import Cell, Lines, Output, Table, Tree
from virtd.shell.session import Session
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FILTERS = {
    "leaves": c.VIR_DOMAIN_SNAPSHOT_LIST_LEAVES,
    "no-leaves": c.VIR_DOMAIN_SNAPSHOT_LIST_NO_LEAVES,
    "metadata": c.VIR_DOMAIN_SNAPSHOT_LIST_METADATA,
    "no-metadata": c.VIR_DOMAIN_SNAPSHOT_LIST_NO_METADATA,
    "inactive": c.VIR_DOMAIN_SNAPSHOT_LIST_INACTIVE,
    "active": c.VIR_DOMAIN_SNAPSHOT_LIST_ACTIVE,
    "disk-only": c.VIR_DOMAIN_SNAPSHOT_LIST_DISK_ONLY,
    "internal": c.VIR_DOMAIN_SNAPSHOT_LIST_INTERNAL,
    "external": c.VIR_DOMAIN_SNAPSHOT_LIST_EXTERNAL,
    "topological": c.VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL,
}


class Entry(NamedTuple):
    """A snapshot or checkpoint in a list."""

    name: str
    parent: str | None
    created: int  # seconds since 1970
    state: str


def read(name: str, document: str) -> Entry:
    """What a document says of a snapshot or checkpoint."""
    root = xmltext.parse(document)
    created = root.findtext("creationTime") or "0"
    return Entry(name, root.findtext("parent/name"), int(created), root.findtext("state") or "")


def show(args: Args, entries: list[Entry], *, states: bool) -> Output:
    """A list by the options --tree, --name and --parent.

    Args:
        args: the options.
        entries: what is in it, in the order of the names unless --topological was given.
        states: whether the table has a column for them.
    """
    if args.flag("tree"):
        return Tree({entry.name: entry.parent for entry in entries})
    if args.flag("name"):
        return Lines(entry.name for entry in entries)
    columns = [("name", "Name"), ("creation_time", "Creation Time")]
    if states:
        columns.append(("state", "State"))
    if args.flag("parent"):
        columns.append(("parent", "Parent"))
    table = Table(columns)
    for entry in entries:
        created = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(entry.created))
        row: list[Any] = [entry.name, Cell(created, entry.created)]
        if states:
            row.append(entry.state)
        if args.flag("parent"):
            row.append(Cell(entry.parent or "", entry.parent))
        table.add(*row)
    return table


def snapshot_list(session: Session, args: Args) -> Output:
    """virDomainListAllSnapshots, virDomainSnapshotListAllChildren."""
    for one, other in (("tree", "name"), ("parent", "roots"), ("parent", "tree"), ("roots", "tree")):
        args.exclusive(one, other)
    for other in ("from", "current"):
        args.exclusive("roots", other)
    begin = args.text("from")
    if begin is not None and args.flag("current"):
        raise Failure("--from and --current are mutually exclusive")
    domain = session.domain(args.required("domain"))
    start = None
    if begin is not None:
        start = session.call("domain_snapshot_lookup_by_name", domain, begin, 0)
    elif args.flag("current"):
        start = session.call("domain_snapshot_current", domain, 0)
    if args.flag("descendants") and start is None:
        raise Failure("--descendants requires either --from or --current")
    flags = args.flags(_FILTERS)
    if start is None:
        flags |= c.VIR_DOMAIN_SNAPSHOT_LIST_ROOTS if args.flag("roots") else 0
        found = session.call("domain_list_all_snapshots", domain, 1, flags)[0]
    else:
        flags |= c.VIR_DOMAIN_SNAPSHOT_LIST_DESCENDANTS if args.flag("descendants") or args.flag("tree") else 0
        found = session.call("domain_snapshot_list_all_children", start, 1, flags)[0]
        if args.flag("tree"):
            found = [start, *found]
    entries = [read(one.name, session.call("domain_snapshot_get_xml_desc", one, 0)) for one in found]
    if not args.flag("topological"):
        entries.sort(key=lambda entry: entry.name.casefold())
    return show(args, entries, states=True)


COMMANDS = (
    Command(
        "snapshot-list",
        "<domain> [--parent] [--roots] [--leaves] [--no-leaves] [--metadata] [--no-metadata] [--inactive] [--active] "
        "[--disk-only] [--internal] [--external] [--tree] [--from <string>] [--current] [--descendants] [--name] "
        "[--topological]",
        "show which snapshots a guest has",
        snapshot_list,
        kinds={"from": "snapshotname"},
    ),
)
