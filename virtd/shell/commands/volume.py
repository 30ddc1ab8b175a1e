"""Volumes of storage pools."""

from __future__ import annotations

from virtd import constants as c
from virtd import uuids
from virtd.errors import VirtError
from virtd.shell import jobwatch, states, units, xmltext
from virtd.shell.acts import document
from virtd.shell.command import Args, Command
from virtd.shell.commands.pool import pretty
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Cell, Fields, Output, Plain, Single, Table
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

ALGORITHMS = ("zero", "nnsa", "dod", "bsi", "gutmann", "schneier", "pfitzner7", "pfitzner33", "random", "trim")
_MAKE_FLAGS = {
    "prealloc-metadata": c.VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA,
    "reflink": c.VIR_STORAGE_VOL_CREATE_REFLINK,
    "validate": c.VIR_STORAGE_VOL_CREATE_VALIDATE,
}


def find(session: Session, args: Args, ways: str = "name key path") -> Any:
    """The volume that a command is about."""
    pool = args.text("pool") if any(option.name == "pool" for option in args.command.options) else None
    return session.volume(args.required("vol"), pool, ways)


def _pool(session: Session, args: Args) -> Any:
    return session.pool(args.required("pool"))


def vol_list(session: Session, args: Args) -> Output:
    """virStoragePoolListAllVolumes."""
    pool = _pool(session, args)
    with failing("Failed to list volumes"):
        volumes = session.call("storage_pool_list_all_volumes", pool, 1, 0)[0]
    columns = [("name", "Name"), ("path", "Path")]
    if args.flag("details"):
        columns += [("type", "Type"), ("capacity", "Capacity"), ("allocation", "Allocation")]
    table = Table(columns)
    for one in sorted(volumes, key=lambda volume: volume.name.casefold()):
        row: list[Any] = [one.name, session.call("storage_vol_get_path", one)]
        if args.flag("details"):
            kind, capacity, allocation = session.call("storage_vol_get_info", one)
            row += [states.of(states.VOLUME, kind), pretty(capacity), pretty(allocation)]
        table.add(*row)
    return table


def vol_info(session: Session, args: Args) -> Output:
    """virStorageVolGetInfo, virStorageVolGetInfoFlags."""
    volume = find(session, args)
    physical = args.flag("physical")
    fields = Fields(15)
    fields.add("Name:", volume.name)
    if physical:
        kind, capacity, allocation = session.call("storage_vol_get_info_flags", volume, c.VIR_STORAGE_VOL_GET_PHYSICAL)
    else:
        kind, capacity, allocation = session.call("storage_vol_get_info", volume)
    fields.add("Type:", states.of(states.VOLUME, kind))
    for label, size in (("Capacity:", capacity), ("Physical:" if physical else "Allocation:", allocation)):
        fields.add(label, Cell(f"{size} bytes", size) if args.flag("bytes") else pretty(size))
    return fields


def vol_dumpxml(session: Session, args: Args) -> Output:
    """virStorageVolGetXMLDesc."""
    return document(args, session.call("storage_vol_get_xml_desc", find(session, args), 0))


def vol_key(session: Session, args: Args) -> Output:
    """The key of a volume."""
    return Single("key", find(session, args).key)


def vol_path(session: Session, args: Args) -> Output:
    """virStorageVolGetPath."""
    return Single("path", session.call("storage_vol_get_path", find(session, args)))


def vol_name(session: Session, args: Args) -> Output:
    """The name of a volume."""
    return Single("name", find(session, args, "key path").name)


def vol_pool(session: Session, args: Args) -> Output:
    """virStoragePoolLookupByVolume."""
    volume = find(session, args, "key path")
    with failing("failed to get parent pool"):
        pool = session.call("storage_pool_lookup_by_volume", volume)
    return Single("uuid", uuids.to_text(pool.uuid)) if args.flag("uuid") else Single("name", pool.name)


def vol_create(session: Session, args: Args) -> None:
    """virStorageVolCreateXML."""
    pool = _pool(session, args)
    path = args.required("file")
    text = read_text(path)
    with failing(f"Failed to create vol from {path}"):
        volume = session.call("storage_vol_create_xml", pool, text, args.flags(_MAKE_FLAGS))
    session.say(f"Vol {volume.name} created from {path}\n")


def _copying(session: Session, source: Any, pool: Any) -> AbstractContextManager[None]:
    """A context that says how far a copy of a volume is, by how much fuller its pool has become."""
    name = f"copying {source.name}"
    try:
        _, _, wanted = session.call("storage_vol_get_info", source)
        before = session.call("storage_pool_get_info", pool)[2]
    except VirtError:
        return jobwatch.waiting(name)

    def measure() -> tuple[int, int]:
        return max(0, session.call("storage_pool_get_info", pool)[2] - before), wanted

    return jobwatch.waiting(name, measure)


def vol_create_from(session: Session, args: Args) -> None:
    """virStorageVolCreateXMLFrom."""
    pool = _pool(session, args)
    path = args.required("file")
    source = session.volume(args.required("vol"), args.text("inputpool"), option="inputpool")
    text = read_text(path)
    with failing(f"Failed to create vol from {path}"), _copying(session, source, pool):
        volume = session.call("storage_vol_create_xml_from", pool, text, source, args.flags(_MAKE_FLAGS))
    session.say(f"Vol {volume.name} created from input vol {source.name}\n")


def _size(text: str) -> int:
    """A size that a user wrote.

    Raises:
        Failure: it is none.
    """
    try:
        return units.parse_size(text, 1, 2**64 - 1)
    except units.SizeError as error:
        raise Failure(f"Malformed size {text}", *error.reasons) from None


def vol_create_as(session: Session, args: Args) -> Output | None:
    """virStorageVolCreateXML, of a document made of options."""
    pool = _pool(session, args)
    name = args.required("name")
    capacity, allocation = args.required("capacity"), args.text("allocation")
    backing, backing_format = args.text("backing-vol"), args.text("backing-vol-format")
    xml = xmltext.Builder()
    xml.start("volume")
    xml.leaf("name", name)
    xml.leaf("capacity", _size(capacity))
    if allocation is not None:
        xml.leaf("allocation", _size(allocation))
    if args.text("format") is not None:
        xml.start("target")
        xml.leaf("format", type=args.text("format"))
        xml.end("target")
    if backing is not None:
        xml.start("backingStore")
        xml.leaf("path", session.call("storage_vol_get_path", _backing(session, pool, backing)))
        if backing_format is not None:
            xml.leaf("format", type=backing_format)
        xml.end("backingStore")
    xml.end("volume")
    if args.flag("print-xml"):
        return Plain("xml", str(xml))
    with failing(f"Failed to create vol {name}"):
        session.call("storage_vol_create_xml", pool, str(xml), args.flags(_MAKE_FLAGS))
    session.say(f"Vol {name} created\n")
    return None


def _backing(session: Session, pool: Any, text: str) -> Any:
    """The volume that another one is to lie on: by its name in the pool, its key or its path."""
    calls = (
        ("storage_vol_lookup_by_name", (pool, text)),
        ("storage_vol_lookup_by_key", (text,)),
        ("storage_vol_lookup_by_path", (text,)),
    )
    cause = None
    for call, values in calls:
        try:
            return session.call(call, *values)
        except VirtError as error:
            cause = error
    raise Failure(f"failed to get vol '{text}'", cause=cause)


def vol_clone(session: Session, args: Args) -> Output | None:
    """virStorageVolCreateXMLFrom, of the document of the volume with another name."""
    source = find(session, args)
    with failing("failed to get parent pool"):
        pool = session.call("storage_pool_lookup_by_volume", source)
    name = args.required("newname")
    root = xmltext.parse(session.call("storage_vol_get_xml_desc", source, 0))
    found = root.find("name")
    if found is not None:
        found.text = name
    from lxml import etree

    text: str = etree.tostring(root, encoding="unicode", pretty_print=True)
    if args.flag("print-xml"):
        return Plain("xml", text.rstrip("\n"))
    with failing(f"Failed to clone vol from {source.name}"), _copying(session, source, pool):
        made = session.call("storage_vol_create_xml_from", pool, text, source, args.flags(_MAKE_FLAGS))
    session.say(f"Vol {made.name} cloned from {source.name}\n")
    return None


def vol_delete(session: Session, args: Args) -> None:
    """virStorageVolDelete."""
    name = args.required("vol")
    volume = find(session, args)
    flags = c.VIR_STORAGE_VOL_DELETE_WITH_SNAPSHOTS if args.flag("delete-snapshots") else 0
    with failing(f"Failed to delete vol {name}"):
        session.call("storage_vol_delete", volume, flags)
    session.say(f"Vol {name} deleted\n")


def vol_resize(session: Session, args: Args) -> None:
    """virStorageVolResize."""
    delta, shrink = args.flag("delta"), args.flag("shrink")
    flags = c.VIR_STORAGE_VOL_RESIZE_ALLOCATE if args.flag("allocate") else 0
    flags |= c.VIR_STORAGE_VOL_RESIZE_DELTA if delta else 0
    flags |= c.VIR_STORAGE_VOL_RESIZE_SHRINK if shrink else 0
    volume = find(session, args)
    text = args.required("capacity")
    if text.startswith("-"):
        # A size to be taken away is one by which the volume changes.
        if not shrink:
            raise Failure("negative size requires --shrink")
        text, delta = text[1:], True
        flags |= c.VIR_STORAGE_VOL_RESIZE_DELTA
    how = f"by {text}" if delta else f"to {text}"
    size = _size(text)
    with failing(f"Failed to change size of volume '{volume.name}' {how}"):
        session.call("storage_vol_resize", volume, size, flags)
    session.say(f"Size of volume '{volume.name}' successfully changed {how}\n")


def vol_wipe(session: Session, args: Args) -> None:
    """virStorageVolWipe, virStorageVolWipePattern."""
    volume = find(session, args)
    name, algorithm = args.required("vol"), args.text("algorithm")
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise Failure(f"Unsupported algorithm '{algorithm}'")
    with failing(f"Failed to wipe vol {name}"), jobwatch.waiting(f"wiping {name}"):
        if algorithm is None:
            session.call("storage_vol_wipe", volume, 0)
        else:
            session.call("storage_vol_wipe_pattern", volume, ALGORITHMS.index(algorithm), 0)
    session.say(f"Vol {name} wiped\n")


_FILE = {"file": "path"}

COMMANDS = (
    Command(
        "vol-clone",
        "<vol> <newname> [--pool <string>] [--prealloc-metadata] [--reflink] [--print-xml]",
        "copy a volume within its pool",
        vol_clone,
    ),
    Command(
        "vol-create",
        "<pool> <file> [--prealloc-metadata] [--validate]",
        "make a volume from an XML file",
        vol_create,
        kinds=_FILE,
    ),
    Command(
        "vol-create-as",
        "<pool> <name> <capacity> [--allocation <string>] [--format <string>] [--backing-vol <string>] "
        "[--backing-vol-format <string>] [--prealloc-metadata] [--print-xml]",
        "make a volume from options",
        vol_create_as,
        kinds={"format": "volume-format", "backing-vol": "vol", "backing-vol-format": "volume-format"},
    ),
    Command(
        "vol-create-from",
        "<pool> <file> <vol> [--inputpool <string>] [--prealloc-metadata] [--reflink] [--validate]",
        "make a volume from an XML file, with the content of another",
        vol_create_from,
        kinds={**_FILE, "inputpool": "pool"},
    ),
    Command("vol-delete", "<vol> [--pool <string>] [--delete-snapshots]", "delete a volume", vol_delete),
    Command("vol-dumpxml", "<vol> [--pool <string>] [--xpath =<string>] [--wrap]", "show a volume's XML", vol_dumpxml),
    Command(
        "vol-info",
        "<vol> [--pool <string>] [--bytes] [--physical]",
        "show the main facts about a volume",
        vol_info,
    ),
    Command("vol-key", "<vol> [--pool <string>]", "show the key of a volume", vol_key),
    Command("vol-list", "<pool> [--details]", "show which volumes a pool has", vol_list),
    Command("vol-name", "<vol>", "show the name of a volume", vol_name),
    Command("vol-path", "<vol> [--pool <string>]", "show the path of a volume", vol_path),
    Command("vol-pool", "<vol> [--uuid]", "show the pool of a volume", vol_pool),
    Command(
        "vol-resize",
        "<vol> <capacity> [--pool <string>] [--allocate] [--delta] [--shrink]",
        "change the size of a volume",
        vol_resize,
    ),
    Command(
        "vol-wipe",
        "<vol> [--pool <string>] [--algorithm <string>]",
        "overwrite a volume, so that nothing of it can be read again",
        vol_wipe,
        kinds={"algorithm": "wipe-algorithm"},
    ),
)
