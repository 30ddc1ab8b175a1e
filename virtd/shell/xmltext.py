"""Documents as the shell reads them: what an XPath expression finds, an attribute here and there, pieces written.

Documents come from drivers, and from files of the user; entities and the network are off all the same.
"""

from __future__ import annotations

from virtd.shell.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxml.etree import _Element


def parse(text: str, *, blanks: bool = False) -> _Element:
    """The root of a document.

    Args:
        text: the document.
        blanks: keep the blanks between elements, so that a piece of it can be written as it was.

    Raises:
        Failure: it is not well-formed.
    """
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=not blanks)
    try:
        return etree.fromstring(text.encode("utf-8", "surrogateescape"), parser)
    except etree.XMLSyntaxError as error:
        raise Failure(f"Failed to parse XML: {error}") from None


def piece(element: _Element) -> str:
    """An element as it stands in its document."""
    from lxml import etree

    text: str = etree.tostring(element, encoding="unicode", with_tail=False)
    return text


def extract(text: str, expression: str, *, wrap: bool) -> str:
    """What an XPath expression finds in a document, as text, each on lines of its own.

    Args:
        text: the document.
        expression: finds elements, attributes or texts.
        wrap: put what was found into one element `nodes`.

    Raises:
        Failure: the expression finds no nodes but a value, or is none.
    """
    from lxml import etree

    root = parse(text)
    try:
        found = root.xpath(expression)
    except etree.XPathError as error:
        raise Failure(f"internal error: Incorrect xpath '{expression}'", f"XPath error : {error}") from None
    if not isinstance(found, list):
        raise Failure(f"internal error: Incorrect xpath '{expression}'")
    if wrap:
        nodes = etree.Element("nodes")
        for node in found:
            _put(nodes, node)
        return _dump(nodes)
    return "".join(_dump(node) for node in found)


def _put(parent: _Element, node: Any) -> None:
    if not isinstance(node, str):
        node.tail = None
        parent.append(node)
    elif getattr(node, "is_attribute", False):
        parent.set(node.attrname, str(node))  # type: ignore[attr-defined]
    elif len(parent):
        parent[-1].tail = (parent[-1].tail or "") + node
    else:
        parent.text = (parent.text or "") + node


def _dump(node: Any) -> str:
    from lxml import etree

    if isinstance(node, str):
        if getattr(node, "is_attribute", False):
            return f' {node.attrname}="{escape(node)}"\n'  # type: ignore[attr-defined]
        return f"{escape(node)}\n"
    text: str = etree.tostring(node, encoding="unicode", pretty_print=True, with_tail=False)
    return text.rstrip("\n") + "\n"


def escape(text: str) -> str:
    """A text as it stands in a document."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&apos;")):
        text = text.replace(character, entity)
    return text


def attribute(element: _Element | None, path: str, name: str) -> str | None:
    """An attribute of an element below another one.

    Args:
        element: where to begin; None: there is nothing.
        path: from there to the attribute's element, "." for itself.
        name: of the attribute.
    """
    found = None if element is None else element.find(path)
    return None if found is None else found.get(name)


class Builder:
    """Writes a small document in libvirt's style: single quotes, indented by two blanks."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0

    def start(self, tag: str, **attributes: Any) -> None:
        """Begin an element that has others in it."""
        self._add(f"<{tag}{_attributes(attributes)}>")
        self._depth += 1

    def end(self, tag: str) -> None:
        """End it."""
        self._depth -= 1
        self._add(f"</{tag}>")

    def leaf(self, tag: str, text: Any = None, **attributes: Any) -> None:
        """An element with a text in it, or with nothing. Attributes that are None are left out."""
        if text is None:
            self._add(f"<{tag}{_attributes(attributes)}/>")
        else:
            self._add(f"<{tag}{_attributes(attributes)}>{escape(str(text))}</{tag}>")

    def _add(self, line: str) -> None:
        self._lines.append("  " * self._depth + line + "\n")

    def __str__(self) -> str:
        return "".join(self._lines)


def _attributes(attributes: dict[str, Any]) -> str:
    return "".join(
        f" {name.rstrip('_').replace('__', ':')}='{escape(str(value))}'"
        for name, value in attributes.items()
        if value is not None
    )
