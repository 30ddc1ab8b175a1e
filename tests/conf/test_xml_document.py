"""Malformed documents: libvirt's shape of the error, and nothing that reaches outside or grows without bound."""

import pytest

from virtd import constants as c
from virtd.conf.domain import parse_domain
from virtd.conf.host import GOLDEN_HOST
from virtd.conf.xml.document import MAX_SIZE, parse_document
from virtd.errors import VirtError


def refusal(xml: str) -> VirtError:
    with pytest.raises(VirtError) as caught:
        parse_document(xml, "domain_definition", domain=c.VIR_FROM_DOMAIN)
    return caught.value


def test_place_line_and_arrow() -> None:
    error = refusal("<domain type='qemu'>\n<name>&foo;</name></domain>")
    assert error.code == c.VIR_ERR_XML_DETAIL
    assert error.domain == c.VIR_FROM_DOMAIN
    assert error.message == "(domain_definition):2: Entity 'foo' not defined\n<name>&foo;</name></domain>\n-----------^"


@pytest.mark.parametrize("xml", ["", " ", "\n\n"])
def test_empty(xml: str) -> None:
    assert "(domain_definition):" in refusal(xml).message


def test_entities_are_not_followed() -> None:
    root = parse_document("<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><d>&b;</d>", "d")
    assert "a" not in "".join(str(text) for text in root.itertext() if isinstance(text, str) and text != "&b;")
    root = parse_document('<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><d>&x;</d>', "d")
    assert "root:" not in "".join(str(text) for text in root.itertext())


def test_size_and_depth_are_bounded() -> None:
    assert refusal("<d>" + "x" * MAX_SIZE + "</d>").code == c.VIR_ERR_XML_ERROR
    assert refusal("<d>" * 5000).code == c.VIR_ERR_XML_DETAIL


def test_nesting_as_deep_as_the_parser_allows() -> None:
    chain = (
        "<backingStore type='file'><format type='raw'/><source file='/x'/>" * 240
        + "<backingStore/>"
        + "</backingStore>" * 240
    )
    xml = (
        "<domain type='qemu'><name>x</name><memory>1000</memory><os><type>hvm</type></os><devices><disk>"
        f"<source file='/x'/>{chain}<target dev='vda'/></disk></devices></domain>"
    )
    domain = parse_domain(xml, GOLDEN_HOST)
    assert domain.copy() == domain


def test_declared_encodings() -> None:
    assert parse_document("<?xml version='1.0' encoding='UTF-8'?><d>\u00e4</d>", "d").text == "\u00e4"
    assert refusal("<?xml version='1.0' encoding='nonsense'?><d/>").code == c.VIR_ERR_XML_DETAIL
