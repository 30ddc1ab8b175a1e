"""From a text to an element tree: libxml2 with everything off that reaches outside or grows without bound.

Errors of the syntax have libvirt's shape: where, what, the line, and an arrow below it.
"""

from lxml import etree

from virtd import constants as c
from virtd.errors import VirtError

Element = etree._Element

MAX_SIZE = 10 * 1024 * 1024
"""How large a document may be, in bytes; on the wire a string is at most 4 MiB."""


def parse_document(xml: str, what: str, *, domain: int | None = None) -> Element:
    """Parse a document and return its root element.

    Args:
        xml: the document.
        what: how errors call it, for instance "domain_definition".
        domain: the VIR_FROM_* constant for syntax errors.

    Raises:
        VirtError: VIR_ERR_XML_DETAIL with libxml2's message if it is not well formed.
    """
    data = xml.encode("utf-8", "surrogateescape")
    if len(data) > MAX_SIZE:
        raise VirtError(c.VIR_ERR_XML_ERROR, f"document is larger than {MAX_SIZE} bytes", domain=domain)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as err:
        entries = list(parser.error_log)
        if only_namespaces(entries):
            # For libxml2's own users such a document is well formed; its names are just not in a namespace.
            parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, recover=True)
            return etree.fromstring(data, parser)
        raise VirtError(c.VIR_ERR_XML_DETAIL, syntax_error(err, entries, data, what), domain=domain) from None
    except ValueError as err:
        raise VirtError(c.VIR_ERR_XML_DETAIL, f"({what}):1: {err}\n(null)\n^", domain=domain) from None
    return root


def only_namespaces(entries: "list[etree._LogEntry]") -> bool:
    """Whether nothing is wrong but prefixes that were not declared."""
    return bool(entries) and all(entry.domain == etree.ErrorDomains.NAMESPACE for entry in entries)


def syntax_error(err: etree.XMLSyntaxError, entries: "list[etree._LogEntry]", data: bytes, what: str) -> str:
    """libvirt's words for a syntax error: the place, libxml2's message, the line and an arrow."""
    line, column = err.position
    message = str(err.msg).rpartition(", line ")[0] or str(err.msg)
    if entries:
        # libvirt names the first one that is fatal.
        first = next((one for one in entries if one.level == etree.ErrorLevels.FATAL), entries[-1])
        line, column, message = first.line, first.column, first.message.rstrip("\n")
    lines = data.split(b"\n")
    if data and not data.strip():
        blank = data.decode("utf-8", "replace").rpartition("\n")[2]
        text = "Start tag expected, '<' not found"
        return f"({what}):{len(lines)}: {text}\n{blank}\n{'-' * len(blank)}^"
    if not data:
        return f"({what}):1: Document is empty\n(null)\n^"
    shown = lines[line - 1] if 0 < line <= len(lines) else b""
    text = shown.decode("utf-8", "replace").rstrip("\r") or "(null)"
    return f"({what}):{line}: {message}\n{text}\n{'-' * max(column - 1, 0)}^"
