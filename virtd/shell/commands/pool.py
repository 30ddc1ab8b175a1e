"""Storage pools."""

from __future__ import annotations

from virtd import constants as c
from virtd import uuids
from virtd.shell import acts, states, units
from virtd.shell.acts import act, autostart, dump_xml, find, identify
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Cell, Fields, Lines, Output, Plain, Table, yes
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FILTERS = {
    "persistent": c.VIR_CONNECT_LIST_STORAGE_POOLS_PERSISTENT,
    "transient": c.VIR_CONNECT_LIST_STORAGE_POOLS_TRANSIENT,
    "autostart": c.VIR_CONNECT_LIST_STORAGE_POOLS_AUTOSTART,
    "no-autostart": c.VIR_CONNECT_LIST_STORAGE_POOLS_NO_AUTOSTART,
}
TYPES = {
    "dir": c.VIR_CONNECT_LIST_STORAGE_POOLS_DIR,
    "fs": c.VIR_CONNECT_LIST_STORAGE_POOLS_FS,
    "netfs": c.VIR_CONNECT_LIST_STORAGE_POOLS_NETFS,
    "logical": c.VIR_CONNECT_LIST_STORAGE_POOLS_LOGICAL,
    "disk": c.VIR_CONNECT_LIST_STORAGE_POOLS_DISK,
    "iscsi": c.VIR_CONNECT_LIST_STORAGE_POOLS_ISCSI,
    "iscsi-direct": c.VIR_CONNECT_LIST_STORAGE_POOLS_ISCSI_DIRECT,
    "scsi": c.VIR_CONNECT_LIST_STORAGE_POOLS_SCSI,
    "mpath": c.VIR_CONNECT_LIST_STORAGE_POOLS_MPATH,
    "rbd": c.VIR_CONNECT_LIST_STORAGE_POOLS_RBD,
    "sheepdog": c.VIR_CONNECT_LIST_STORAGE_POOLS_SHEEPDOG,
    "gluster": c.VIR_CONNECT_LIST_STORAGE_POOLS_GLUSTER,
    "zfs": c.VIR_CONNECT_LIST_STORAGE_POOLS_ZFS,
    "vstorage": c.VIR_CONNECT_LIST_STORAGE_POOLS_VSTORAGE,
}
_BUILD_FLAGS = {
    "no-overwrite": c.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE,
    "overwrite": c.VIR_STORAGE_POOL_BUILD_OVERWRITE,
}
BUILD_OPTIONS = "[--build] [--no-overwrite] [--overwrite]"


def build_flags(args: Args) -> int:
    """The flags of a start that may build the pool first."""
    args.exclusive("overwrite", "no-overwrite")
    return args.flags(
        {
            "build": c.VIR_STORAGE_POOL_CREATE_WITH_BUILD,
            "overwrite": c.VIR_STORAGE_POOL_CREATE_WITH_BUILD_OVERWRITE,
            "no-overwrite": c.VIR_STORAGE_POOL_CREATE_WITH_BUILD_NO_OVERWRITE,
        }
    )


def pretty(size: int) -> Cell:
    """A size as pools and volumes show it."""
    number, unit = units.pretty(size)
    return Cell(f"{number:.2f} {unit}", size)


def pool_list(session: Session, args: Args) -> Output:
    """virConnectListAllStoragePools."""
    flags = args.flags(_FILTERS)
    flags |= acts.which(args, c.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE, c.VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE)
    for kind in (args.text("type") or "").split(","):
        if kind and kind not in TYPES:
            raise Failure(f"Invalid pool type '{kind}'")
        flags |= TYPES.get(kind, 0)
    with failing("Failed to list pools"):
        pools = session.call("connect_list_all_storage_pools", 1, flags)[0]
    pools = sorted(pools, key=lambda one: one.name.casefold())
    if args.flag("uuid") or args.flag("name"):
        return Lines(_brief(args, one) for one in pools)
    if args.flag("details"):
        return _details(session, pools)
    table = Table((("name", "Name"), ("state", "State"), ("autostart", "Autostart")))
    for one in pools:
        state = "active" if session.call("storage_pool_is_active", one) else "inactive"
        table.add(one.name, state, acts.starts_itself(session, "storage_pool_get_autostart", one))
    return table


def _brief(args: Args, pool: Any) -> Cell:
    """A pool in a list of names only; virsh has always padded them."""
    shown = {}
    text = ""
    if args.flag("uuid"):
        shown["uuid"] = uuids.to_text(pool.uuid)
        text += f"{shown['uuid']:<36}" + (" " if args.flag("name") else "")
    if args.flag("name"):
        shown["name"] = pool.name
        text += f"{pool.name:<20}"
    return Cell(text, shown if len(shown) > 1 else next(iter(shown.values())))


def _details(session: Session, pools: list[Any]) -> Output:
    columns = (
        ("name", "Name"),
        ("state", "State"),
        ("autostart", "Autostart"),
        ("persistent", "Persistent"),
        ("capacity", "Capacity"),
        ("allocation", "Allocation"),
        ("available", "Available"),
    )
    table = Table(columns)
    for one in pools:
        state, *sizes = session.call("storage_pool_get_info", one)
        shown: list[Any] = [None] * 3
        if state in (c.VIR_STORAGE_POOL_RUNNING, c.VIR_STORAGE_POOL_DEGRADED):
            shown = [pretty(size) for size in sizes]
        persistent = yes(session.call("storage_pool_is_persistent", one))
        table.add(
            one.name,
            states.of(states.POOL, state),
            acts.starts_itself(session, "storage_pool_get_autostart", one),
            persistent,
            *shown,
        )
    return table


def pool_info(session: Session, args: Args) -> Output:
    """What several calls say of a pool."""
    pool = find(session, args, "pool")
    fields = Fields(15)
    fields.add("Name:", pool.name)
    fields.add("UUID:", uuids.to_text(pool.uuid))
    state, capacity, allocation, available = session.call("storage_pool_get_info", pool)
    fields.add("State:", states.of(states.POOL, state))
    fields.add("Persistent:", yes(session.call("storage_pool_is_persistent", pool)))
    fields.add("Autostart:", acts.starts_itself(session, "storage_pool_get_autostart", pool))
    if state in (c.VIR_STORAGE_POOL_RUNNING, c.VIR_STORAGE_POOL_DEGRADED):
        for label, size in (("Capacity:", capacity), ("Allocation:", allocation), ("Available:", available)):
            fields.add(label, size if args.flag("bytes") else pretty(size))
    return fields


def pool_start(session: Session, args: Args) -> None:
    """virStoragePoolCreate."""
    flags = build_flags(args)
    name = args.required("pool")
    pool = find(session, args, "pool")
    with failing(f"Failed to start pool {name}"):
        session.call("storage_pool_create", pool, flags)
    session.say(f"Pool {name} started\n")


def pool_create(session: Session, args: Args) -> None:
    """virStoragePoolCreateXML."""
    flags = build_flags(args)
    path = args.required("file")
    document = read_text(path)
    with failing(f"Failed to create pool from {path}"):
        pool = session.call("storage_pool_create_xml", document, flags)
    session.say(f"Pool {pool.name} created from {path}\n")


def pool_build(session: Session, args: Args) -> None:
    """virStoragePoolBuild."""
    args.exclusive("overwrite", "no-overwrite")
    name = args.required("pool")
    pool = find(session, args, "pool")
    with failing(f"Failed to build pool {name}"):
        session.call("storage_pool_build", pool, args.flags(_BUILD_FLAGS))
    session.say(f"Pool {name} built\n")


def capabilities(session: Session, args: Args) -> Output:
    """virConnectGetStoragePoolCapabilities."""
    with failing("failed to get storage pool capabilities"):
        return Plain("xml", session.call("connect_get_storage_pool_capabilities", 0) + "\n")


_FILE = {"file": "path"}

COMMANDS = (
    Command(
        "pool-autostart",
        "<pool> [--disable]",
        "have a pool started with the machine",
        autostart("pool", "storage_pool_set_autostart", "pool {name}"),
    ),
    Command("pool-build", "<pool> [--no-overwrite] [--overwrite]", "make what a pool lies on", pool_build),
    Command("pool-capabilities", "", "show what kinds of pools there can be, as XML", capabilities),
    Command(
        "pool-create",
        f"<file> {BUILD_OPTIONS}",
        "start a pool from an XML file, without a definition that stays",
        pool_create,
        kinds=_FILE,
    ),
    Command(
        "pool-define",
        "<file> [--validate]",
        "define a pool, or change its definition, from an XML file",
        acts.make(
            "storage_pool_define_xml",
            "Pool {name} defined from {file}",
            "Failed to define pool from {file}",
            flags={"validate": c.VIR_STORAGE_POOL_DEFINE_VALIDATE},
        ),
        kinds=_FILE,
    ),
    Command(
        "pool-delete",
        "<pool>",
        "delete what a pool lies on, and all that is in it",
        act("pool", "storage_pool_delete", "Pool {name} deleted", "Failed to delete pool {name}", 0),
    ),
    Command(
        "pool-destroy",
        "<pool>",
        "stop a pool; what is in it stays",
        act("pool", "storage_pool_destroy", "Pool {name} destroyed", "Failed to destroy pool {name}"),
    ),
    Command(
        "pool-dumpxml",
        "<pool> [--inactive] [--xpath =<string>] [--wrap]",
        "show a pool's XML",
        dump_xml("pool", "storage_pool_get_xml_desc", {"inactive": c.VIR_STORAGE_XML_INACTIVE}),
    ),
    Command(
        "pool-edit",
        "<pool>",
        "change a pool's definition in an editor",
        acts.edit(
            "pool",
            "storage_pool_get_xml_desc",
            "storage_pool_define_xml",
            "Pool",
            0,
            flags=c.VIR_STORAGE_XML_INACTIVE,
        ),
    ),
    Command("pool-info", "<pool> [--bytes]", "show the main facts about a pool", pool_info),
    Command(
        "pool-list",
        "[--inactive] [--all] [--transient] [--persistent] [--autostart] [--no-autostart] [--type <string>] "
        "[--details] [--uuid] [--name]",
        "show which pools there are",
        pool_list,
        kinds={"type": "pool-type"},
    ),
    Command("pool-name", "<pool>", "show the name of a pool", identify("pool", "name", "uuid")),
    Command(
        "pool-refresh",
        "<pool>",
        "look again at what is in a pool",
        act("pool", "storage_pool_refresh", "Pool {name} refreshed", "Failed to refresh pool {name}", 0),
    ),
    Command("pool-start", f"<pool> {BUILD_OPTIONS}", "start a pool that is defined", pool_start),
    Command(
        "pool-undefine",
        "<pool>",
        "remove the definition of a pool",
        act("pool", "storage_pool_undefine", "Pool {name} has been undefined", "Failed to undefine pool {name}"),
    ),
    Command("pool-uuid", "<pool>", "show the UUID of a pool", identify("pool", "uuid", "name")),
)
