"""Secrets' XML, and how it is refused, as libvirt 9.0.0 does."""

import pytest

from virtd.conf.secret import format_secret, parse_secret
from virtd.errors import VirtError

UUID = "f52a81b2-424e-490c-823d-6bd4235bc572"


@pytest.mark.parametrize(
    ("usage", "element"),
    [("volume", "volume"), ("ceph", "name"), ("iscsi", "target"), ("tls", "name"), ("vtpm", "name")],
)
def test_usages(usage: str, element: str) -> None:
    xml = (
        f"<secret ephemeral='yes' private='no'>\n  <uuid>{UUID}</uuid>\n  <description>d &amp; e</description>\n"
        f"  <usage type='{usage}'>\n    <{element}>/a b</{element}>\n  </usage>\n</secret>\n"
    )
    secret = parse_secret(xml)
    assert format_secret(secret) == xml
    assert secret.usage_id == "/a b"


def test_the_least() -> None:
    secret = parse_secret("<secret><usage type='none'/><description></description></secret>")
    assert format_secret(secret) == (f"<secret ephemeral='no' private='no'>\n  <uuid>{secret.uuid}</uuid>\n</secret>\n")
    assert (secret.usage_type, secret.usage_id) == (0, "")


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<secrt/>", "XML error: expecting root element of 'secret', not 'secrt'"),
        ("<secret><uuid>zz</uuid></secret>", "internal error: malformed uuid element"),
        ("<secret ephemeral='x'/>", "XML error: invalid value of 'ephemeral'"),
        ("<secret private='x'/>", "XML error: invalid value of 'private'"),
        ("<secret><usage/></secret>", "XML error: unknown secret usage type"),
        ("<secret><usage type='b'/></secret>", "unsupported configuration: unknown secret usage type b"),
        (
            "<secret><usage type='volume'><volume/></usage></secret>",
            "internal error: volume usage specified, but volume path is missing",
        ),
        ("<secret><usage type='ceph'/></secret>", "internal error: Ceph usage specified, but name is missing"),
        ("<secret><usage type='iscsi'/></secret>", "internal error: iSCSI usage specified, but target is missing"),
        ("<secret><usage type='tls'/></secret>", "internal error: TLS usage specified, but name is missing"),
        ("<secret><usage type='vtpm'/></secret>", "internal error: vTPM usage specified, but name is missing"),
    ],
)
def test_refused(xml: str, message: str) -> None:
    with pytest.raises(VirtError) as failure:
        parse_secret(xml)
    assert failure.value.message == message
