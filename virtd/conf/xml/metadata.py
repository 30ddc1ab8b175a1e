"""<metadata>: the users' own elements, one for each namespace, found and replaced by it.

Works on the text of the whole element; what holds it (a guest, a network) is not known here.
"""

from lxml import etree

from virtd.conf.xml.document import parse_document


def _parse(text: str, domain: int | None = None) -> etree._Element:
    return parse_document(text, "metadata_xml", domain=domain)


def _elements(whole: str | None) -> list[etree._Element]:
    """The users' elements in <metadata>."""
    return [element for element in _parse(whole) if isinstance(element.tag, str)] if whole else []


def extract(whole: str | None, uri: str) -> str | None:
    """The element of a namespace, without the namespace; None if there is none."""
    for element in _elements(whole):
        if etree.QName(element).namespace == uri:
            found = _renamed(element, uri, None, {})
            etree.indent(found)
            return etree.tostring(found, encoding="unicode", with_tail=False)
    return None


def replaced(whole: str | None, metadata: str | None, key: str, uri: str, domain: int) -> str | None:
    """<metadata> with the element of a namespace replaced by another one, or removed; None if nothing is left.

    Args:
        whole: the element <metadata>; None if there is none.
        metadata: the new element; None to remove what is there.
        key: the prefix of the namespace.
        uri: the namespace.
        domain: the VIR_FROM_* constant of errors.

    Raises:
        VirtError: VIR_ERR_XML_DETAIL, the new element is not well-formed.
    """
    kept = [element for element in _elements(whole) if etree.QName(element).namespace != uri]
    if metadata:
        kept.append(_renamed(_parse(metadata, domain), None, uri, {key: uri}))
    content = "".join(etree.tostring(element, encoding="unicode", with_tail=False) for element in kept)
    return f"<metadata>{content}</metadata>" if content else None


def _renamed(
    element: etree._Element, before: str | None, after: str | None, prefixes: dict[str, str]
) -> etree._Element:
    """A copy of an element in which one namespace has been replaced by another."""
    name = etree.QName(element)
    if name.namespace == before:
        name = etree.QName(after, name.localname)
    copy = etree.Element(name, nsmap=prefixes)
    for attribute, value in element.attrib.items():
        copy.set(attribute, value)
    copy.text = element.text
    for child in element:
        if isinstance(child.tag, str):
            twin = _renamed(child, before, after, {})
            twin.tail = child.tail
            copy.append(twin)
    return copy
