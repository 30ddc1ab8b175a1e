"""How libvirt writes names, texts and other people's elements, and the errors all documents have in common."""

import copy
import re
from collections.abc import Iterator
from typing import cast

from lxml import etree

from virtd import constants as c
from virtd.errors import VirtError

Element = etree._Element
NAMESPACES = {
    "qemu": "http://libvirt.org/schemas/domain/qemu/1.0",
    "dnsmasq": "http://libvirt.org/schemas/network/dnsmasq/1.0",
    "fs": "http://libvirt.org/schemas/storagepool/fs/1.0",
    "rbd": "http://libvirt.org/schemas/storagepool/rbd/1.0",
}
"""The namespaces that libvirt's documents know, by the prefix they are written with."""
_SPECIAL = re.compile("[<>&'\"\x00-\x08\x0b\x0c\x0e-\x1f]")
_ESCAPES = {ord(k): v for k, v in {"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;", "'": "&apos;"}.items()}
_ESCAPES.update({n: "" for n in range(32) if chr(n) not in "\t\n\r"})


def escape(text: str) -> str:
    """A text as libvirt writes it in attributes and elements; control characters are left out."""
    return text.translate(_ESCAPES) if _SPECIAL.search(text) else text


def text_of(el: Element) -> str:
    """All the text in an element, as XPath's string() gives it."""
    return (el.text or "") if len(el) == 0 else "".join(cast("Iterator[str]", el.itertext()))


def expanded(tag: str) -> str:
    """A name with libvirt's prefix, as lxml has it: {namespace}name."""
    prefix, colon, name = tag.rpartition(":")
    return f"{{{NAMESPACES[prefix]}}}{name}" if colon else tag


def local_name(el: Element) -> str:
    """An element's name without its namespace."""
    return el.tag.rpartition("}")[2]


def foreign_xml(el: Element) -> str:
    """An element whose children belong to others, without white space between elements.

    As in libvirt, each child must have a namespace, and only the first of a namespace counts.
    """
    twin = copy.deepcopy(el)
    twin.text = twin.tail = None
    seen: set[str] = set()
    for child in list(twin):
        child.tail = None
        name = child.tag if isinstance(child.tag, str) else ""
        namespace = name[1:].partition("}")[0] if name.startswith("{") else ""
        if not namespace or namespace in seen:
            twin.remove(child)
        seen.add(namespace)
    for one in twin.iter():
        blank = [(one.text or "").strip(), *((child.tail or "").strip() for child in one)]
        if len(one) and not any(blank):
            one.text = None
            for child in one:
                child.tail = None
    return etree.tostring(twin, encoding="unicode")


def indented(xml: str, level: int) -> str:
    """An element's lines, two spaces for each level, as libxml2 breaks them; mixed content stays as it is."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    wrapped = etree.fromstring("<x>" * level + xml + "</x>" * level, parser)
    lines = etree.tostring(wrapped, encoding="unicode", pretty_print=True).split("\n")
    return "\n".join(lines[level : -level - 1]) + "\n"


def unsupported(name: str) -> VirtError:
    """The error for something that libvirt knows and virtd does not."""
    return VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, f"'{name}' is not supported by virtd", domain=c.VIR_FROM_DOMAIN)


def missing_attribute(name: str, el: Element) -> VirtError:
    """The error for an attribute that must be there."""
    return VirtError(
        c.VIR_ERR_XML_ERROR,
        f"Missing required attribute '{name}' in element '{local_name(el)}'",
        domain=c.VIR_FROM_XML,
    )
