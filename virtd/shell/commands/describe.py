"""What guests are called and what describes them: names, documents, titles, metadata, displays."""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell.acts import AFFECT_OPTIONS, affect, document, identify
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Output, Plain, Single
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_XML_FLAGS = {
    "inactive": c.VIR_DOMAIN_XML_INACTIVE,
    "security-info": c.VIR_DOMAIN_XML_SECURE,
    "update-cpu": c.VIR_DOMAIN_XML_UPDATE_CPU,
    "migratable": c.VIR_DOMAIN_XML_MIGRATABLE,
}
_VNC_PORTS = 5900  # VNC display 0


def dumpxml(session: Session, args: Args) -> Output:
    """virDomainGetXMLDesc."""
    domain = session.domain(args.required("domain"))
    return document(args, session.call("domain_get_xml_desc", domain, args.flags(_XML_FLAGS)))


def edit(session: Session, args: Args) -> None:
    """virDomainDefineXMLFlags, of what an editor made of the definition."""
    from virtd.shell import editing

    domain = session.domain(args.required("domain"))
    xml_flags = c.VIR_DOMAIN_XML_INACTIVE | c.VIR_DOMAIN_XML_SECURE
    define_flags = 0 if args.flag("skip-validate") else c.VIR_DOMAIN_DEFINE_VALIDATE
    editing.edit(
        session,
        lambda: str(session.call("domain_get_xml_desc", domain, xml_flags)),
        lambda text: session.call("domain_define_xml_flags", text, define_flags),
        f"Domain '{domain.name}' XML configuration not changed.",
        f"Domain '{domain.name}' XML configuration edited.",
    )


def desc(session: Session, args: Args) -> Output | None:
    """virDomainGetMetadata, virDomainSetMetadata: title and description."""
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    title = args.flag("title")
    kind = c.VIR_DOMAIN_METADATA_TITLE if title else c.VIR_DOMAIN_METADATA_DESCRIPTION
    noun = "title" if title else "description"
    wanted: str | None = " ".join(args.rest("new-desc")) if args.rest("new-desc") else None
    if wanted is None or args.flag("edit"):
        current = _metadata(session, domain, kind, flags)
        if not args.flag("edit"):
            missing = "" if session.quiet else f"No {noun} for domain: {domain.name}"
            return Plain(noun, current or missing, current)
        from virtd.shell import editing

        wanted = editing.edit_text(current if wanted is None else wanted).rstrip("\n")
        if wanted == current:
            session.say(f"Domain {noun} not changed\n")
            return None
    with failing(f"Failed to set new domain {noun}"):
        session.call("domain_set_metadata", domain, kind, wanted, None, None, flags)
    session.say(f"Domain {noun} updated successfully")
    return None


def _metadata(session: Session, domain: Any, kind: int, flags: int) -> str:
    """A guest's title or description; empty if it has none."""
    try:
        text: str = session.call("domain_get_metadata", domain, kind, None, flags)
    except VirtError as error:
        if error.code != c.VIR_ERR_NO_DOMAIN_METADATA:
            raise
        return ""
    return text


def metadata(session: Session, args: Args) -> Output | None:
    """virDomainGetMetadata, virDomainSetMetadata: an element of the user's own."""
    flags = affect(args)
    for one, other in (("edit", "set"), ("set", "remove"), ("edit", "remove")):
        args.exclusive(one, other)
    domain = session.domain(args.required("domain"))
    uri, key = args.required("uri"), args.text("key")
    new = args.text("set")
    element = c.VIR_DOMAIN_METADATA_ELEMENT

    def store(text: str | None) -> None:
        session.call("domain_set_metadata", domain, element, text, key, uri, flags)

    if (new is not None or args.flag("edit")) and key is None:
        raise Failure("namespace key is required when modifying metadata")
    if new is not None or args.flag("remove"):
        store(new)
        session.say("Metadata modified\n" if new is not None else "Metadata removed\n")
        return None

    def fetch() -> str:
        return str(session.call("domain_get_metadata", domain, element, uri, flags))

    def fetch_or_nothing() -> str:
        try:
            return fetch()
        except VirtError as error:
            if error.code != c.VIR_ERR_NO_DOMAIN_METADATA:
                raise
            return "\n"

    if args.flag("edit"):
        from virtd.shell import editing

        editing.edit(session, fetch_or_nothing, store, "Metadata not changed", "Metadata modified")
        return None
    return Single("metadata", fetch())


def to_native(session: Session, args: Args) -> Output:
    """virConnectDomainXMLToNative."""
    args.exclusive("domain", "xml")
    path, name = args.text("xml"), args.text("domain")
    if path is not None:
        xml = read_text(path)
    elif name is not None:
        flags = c.VIR_DOMAIN_XML_INACTIVE | c.VIR_DOMAIN_XML_SECURE
        xml = session.call("domain_get_xml_desc", session.domain(name), flags)
    else:
        raise Failure("need either domain or domain XML")
    return Single("native", session.call("connect_domain_xml_to_native", args.required("format"), xml, 0), end="")


def from_native(session: Session, args: Args) -> Output:
    """virConnectDomainXMLFromNative."""
    native = read_text(args.required("config"))
    return Single("xml", session.call("connect_domain_xml_from_native", args.required("format"), native, 0))


def _live(session: Session, args: Args, flags: int = 0) -> Any:
    """The root of a running guest's document."""
    from virtd.shell import xmltext

    domain = session.domain(args.required("domain"))
    if not session.call("domain_is_active", domain):
        raise Failure("Domain is not running")
    return xmltext.parse(session.call("domain_get_xml_desc", domain, flags))


def ttyconsole(session: Session, args: Args) -> Output:
    """The host's terminal of a guest's first console, from its document."""
    from virtd.shell import xmltext

    domain = session.domain(args.required("domain"))
    root = xmltext.parse(session.call("domain_get_xml_desc", domain, 0))
    path = xmltext.attribute(root, "devices/console", "tty")
    if not path:
        raise Failure
    return Single("tty", path)


def vncdisplay(session: Session, args: Args) -> Output:
    """Where a guest's VNC server listens, from its document."""
    root = _live(session, args)
    found = root.find("devices/graphics[@type='vnc']")
    port = _number(None if found is None else found.get("port"))
    if found is None or port is None or port < 0:
        raise Failure("Failed to get VNC port. Is this domain using VNC?")
    listen = found.get("listen") or ""
    return Single("display", f"{'' if listen == '0.0.0.0' else listen}:{port - _VNC_PORTS}")


def domdisplay(session: Session, args: Args) -> Output:
    """URIs for viewers of a guest's displays, from its document."""
    secret = args.flag("include-password")
    root = _live(session, args, c.VIR_DOMAIN_XML_SECURE if secret else 0)
    wanted = args.text("type")
    found = []
    for kind in ("vnc", "spice", "rdp", "dbus"):
        graphics = root.find(f"devices/graphics[@type='{kind}']")
        if graphics is not None and wanted in (None, kind):
            uri = _display(session, kind, graphics, secret=secret)
            found += [uri] if uri else []
    if not found:
        raise Failure(f"No graphical display with type '{wanted}' found" if wanted else "No graphical display found")
    shown = found if args.flag("all") else found[:1]
    return Plain("displays", "\n".join(shown) + ("\n" if args.flag("all") else ""), shown)


def _display(session: Session, kind: str, graphics: Any, *, secret: bool) -> str | None:
    """The URI of one display; None if nobody can connect to it."""
    if kind == "dbus":
        address = graphics.get("address") or ""
        if address.startswith("unix:path="):
            return f"dbus+unix://{address.removeprefix('unix:path=')}"
        return None
    socket = graphics.get("socket") or next((one.get("socket") for one in graphics.iter("listen")), None)
    port, tls_port = _number(graphics.get("port")), _number(graphics.get("tlsPort"))
    if not socket and port in (None, -1) and tls_port in (None, -1):
        return None
    if socket:
        return f"{kind}+unix://{socket}"
    password = graphics.get("passwd") if secret else None
    uri = f"{kind}://"
    if password and kind == "vnc":
        uri += f":{password}@"
    host = graphics.get("listen") or next((one.get("address") for one in graphics.iter("listen")), None)
    if host in (None, "", "0.0.0.0", "::"):
        host = _server(session) if host else "localhost"
    uri += f"[{host}]" if ":" in host else host
    if port is not None and port > 0:
        uri += f":{port - _VNC_PORTS if kind == 'vnc' else port}"
    parameters = []
    if tls_port is not None and tls_port > 0:
        parameters.append(f"tls-port={tls_port}")
    if password and kind != "vnc":
        parameters.append(f"password={password}")
    return uri + (f"?{'&'.join(parameters)}" if parameters else "")


def _server(session: Session) -> str:
    """The host that the connection's guests run on, as it can be reached from here."""
    authority = (session.uri or "").partition("://")[2].partition("/")[0]
    host = authority.rpartition("@")[2]
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] or "localhost"


def _number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


COMMANDS = (
    Command(
        "desc",
        f"<domain> {AFFECT_OPTIONS.replace('[--config] [--live]', '[--live] [--config]')} [--title] [--edit] "
        "[<new-desc>...]",
        "show or set a guest's description or title",
        desc,
    ),
    Command(
        "domdisplay",
        "<domain> [--include-password] [--type <string>] [--all]",
        "show where viewers reach a guest's displays",
        domdisplay,
        kinds={"type": "display-type"},
    ),
    Command("domid", "<domain>", "show the id of a guest", identify("domain", "id", "uuid name")),
    Command("domname", "<domain>", "show the name of a guest", identify("domain", "name", "id uuid")),
    Command("domuuid", "<domain>", "show the UUID of a guest", identify("domain", "uuid", "id name")),
    Command(
        "domxml-from-native",
        "<format> <config>",
        "turn a hypervisor's own configuration into XML",
        from_native,
        kinds={"config": "path"},
    ),
    Command(
        "domxml-to-native",
        "<format> [--domain =<string>] [--xml <string>]",
        "turn XML into the hypervisor's own configuration",
        to_native,
    ),
    Command(
        "dumpxml",
        "<domain> [--inactive] [--security-info] [--update-cpu] [--migratable] [--xpath =<string>] [--wrap]",
        "show a guest's XML",
        dumpxml,
    ),
    Command("edit", "<domain> [--skip-validate]", "change a guest's definition in an editor", edit),
    Command(
        "metadata",
        "<domain> <uri> [--live] [--config] [--current] [--edit] [--key <string>] [--set <string>] [--remove]",
        "show or change an element of one's own in a guest's XML",
        metadata,
    ),
    Command("ttyconsole", "<domain>", "show the host's terminal of a guest's console", ttyconsole),
    Command("vncdisplay", "<domain>", "show the VNC display of a guest", vncdisplay),
)
