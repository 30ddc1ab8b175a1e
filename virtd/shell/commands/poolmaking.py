"""Pools made of options, and the search for what could become one."""

from virtd.shell.command import Args, Command
from virtd.shell.commands.pool import BUILD_OPTIONS, build_flags
from virtd.shell.failure import failing
from virtd.shell.output import Output, Plain
from virtd.shell.session import Session, read_text
from virtd.shell.xmltext import Builder

_OPTIONS = (
    "<name> <type> [--print-xml] [--source-host <string>] [--source-path <string>] [--source-dev <string>] "
    "[--source-name <string>] [--target <string>] [--source-format <string>] [--auth-type <string>] "
    "[--auth-username <string>] [--secret-usage <string>] [--secret-uuid <string>] [--adapter-name <string>] "
    "[--adapter-wwnn <string>] [--adapter-wwpn <string>] [--adapter-parent <string>] [--adapter-parent-wwnn <string>] "
    "[--adapter-parent-wwpn <string>] [--adapter-parent-fabric-wwn <string>] [--source-protocol-ver <string>] "
    "[--source-initiator <string>]"
)
# The options that say where a pool comes from; with one of them it has a source.
_SOURCES = (
    "source-host",
    "source-path",
    "source-dev",
    "source-name",
    "source-format",
    "auth-type",
    "adapter-name",
    "adapter-wwnn",
    "source-protocol-ver",
    "source-initiator",
)


def build_xml(args: Args) -> str:
    """The document of a pool that options describe."""
    xml = Builder()
    xml.start("pool", type=args.required("type"))
    xml.leaf("name", args.required("name"))
    if any(args.text(name) for name in _SOURCES):
        _source(args, xml)
    target = args.text("target")
    if target:
        xml.start("target")
        xml.leaf("path", target)
        xml.end("target")
    xml.end("pool")
    return str(xml)


def _source(args: Args, xml: Builder) -> None:
    xml.start("source")
    for option, tag, attribute in (
        ("source-host", "host", "name"),
        ("source-path", "dir", "path"),
        ("source-dev", "device", "path"),
    ):
        text = args.text(option)
        if text:
            xml.leaf(tag, **{attribute: text})
    name = args.text("adapter-name")
    wwnn, wwpn = args.text("adapter-wwnn"), args.text("adapter-wwpn")
    if name:
        xml.leaf("adapter", type="scsi_host", name=name)
    elif wwnn and wwpn:
        xml.leaf(
            "adapter",
            type="fc_host",
            parent=args.text("adapter-parent"),
            parent_wwnn=args.text("adapter-parent-wwnn"),
            parent_wwpn=args.text("adapter-parent-wwpn"),
            parent_fabric_wwn=args.text("adapter-parent-fabric-wwn"),
            wwnn=wwnn,
            wwpn=wwpn,
        )
    initiator = args.text("source-initiator")
    if initiator:
        xml.start("initiator")
        xml.leaf("iqn", name=initiator)
        xml.end("initiator")
    kind, user = args.text("auth-type"), args.text("auth-username")
    usage, uuid = args.text("secret-usage"), args.text("secret-uuid")
    if kind and user and (usage or uuid):
        xml.start("auth", type=kind, username=user)
        xml.leaf("secret", **({"usage": usage} if usage else {"uuid": uuid}))
        xml.end("auth")
    for option, tag, attribute in (("source-format", "format", "type"), ("source-protocol-ver", "protocol", "ver")):
        text = args.text(option)
        if text:
            xml.leaf(tag, **{attribute: text})
    if args.text("source-name"):
        xml.leaf("name", args.text("source-name"))
    xml.end("source")


def define_as(session: Session, args: Args) -> Output | None:
    """virStoragePoolDefineXML."""
    xml = build_xml(args)
    if args.flag("print-xml"):
        return Plain("xml", xml)
    name = args.required("name")
    with failing(f"Failed to define pool {name}"):
        pool = session.call("storage_pool_define_xml", xml, 0)
    session.say(f"Pool {pool.name} defined\n")
    return None


def create_as(session: Session, args: Args) -> Output | None:
    """virStoragePoolCreateXML."""
    flags = build_flags(args)
    xml = build_xml(args)
    if args.flag("print-xml"):
        return Plain("xml", xml)
    name = args.required("name")
    with failing(f"Failed to create pool {name}"):
        pool = session.call("storage_pool_create_xml", xml, flags)
    session.say(f"Pool {pool.name} created\n")
    return None


def _found(session: Session, kind: str, description: str | None) -> Output:
    with failing(f"Failed to find any {kind} pool sources"):
        return Plain("xml", session.call("connect_find_storage_pool_sources", kind, description, 0))


def find_sources(session: Session, args: Args) -> Output:
    """virConnectFindStoragePoolSources."""
    path = args.text("srcSpec")
    return _found(session, args.required("type"), None if path is None else read_text(path))


def find_sources_as(session: Session, args: Args) -> Output:
    """virConnectFindStoragePoolSources, with a description made of options."""
    host, port, initiator = args.text("host"), args.text("port"), args.text("initiator")
    description = None
    if host is not None:
        xml = Builder()
        xml.start("source")
        xml.leaf("host", name=host, port=port)
        if initiator is not None:
            xml.start("initiator")
            xml.leaf("iqn", name=initiator)
            xml.end("initiator")
        xml.end("source")
        description = str(xml)
    return _found(session, args.required("type"), description)


_KINDS = {"type": "pool-type", "source-path": "path", "source-dev": "path", "target": "path", "secret-uuid": "secret"}

COMMANDS = (
    Command(
        "find-storage-pool-sources",
        "<type> [--srcSpec <string>]",
        "look for what pools could be made of",
        find_sources,
        kinds={"type": "pool-type", "srcSpec": "path"},
    ),
    Command(
        "find-storage-pool-sources-as",
        "<type> [--host <string>] [--port <string>] [--initiator <string>]",
        "look on a host for what pools could be made of",
        find_sources_as,
        kinds={"type": "pool-type"},
    ),
    Command(
        "pool-create-as",
        f"{_OPTIONS} {BUILD_OPTIONS}",
        "start a pool from options, without a definition that stays",
        create_as,
        kinds=_KINDS,
    ),
    Command("pool-define-as", _OPTIONS, "define a pool from options", define_as, kinds=_KINDS),
)
