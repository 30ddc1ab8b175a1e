"""Pools' XML: what libvirt 9.0.0 makes of documents, and how it refuses them (pools.json was written by it)."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtd.conf.secret import format_secret, parse_secret
from virtd.conf.storage import POOL_TYPES, format_pool, format_volume, parse_pool, parse_volume
from virtd.conf.storage.capabilities import format_capabilities
from virtd.errors import VirtError

GOLDENS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "pools.json").read_text())
UUID = re.compile("<uuid>[^<]*</uuid>")


@pytest.mark.parametrize("golden", GOLDENS, ids=range(len(GOLDENS)))
def test_golden(golden: dict[str, Any]) -> None:
    source = golden["in"]
    if "error" in golden:
        with pytest.raises(VirtError) as failure:
            parse_pool(source)
        error = failure.value
        assert [error.code, error.domain, error.message] == golden["error"]
        return
    text = format_pool(parse_pool(source))
    # What virtd has written it reads as the same.
    assert format_pool(parse_pool(text)) == text
    if "<uuid>" not in source:
        text = UUID.sub("<uuid>GENERATED</uuid>", text)
    assert text == golden["out"]


def test_a_new_pool_gets_a_uuid() -> None:
    xml = "<pool type='dir'><name>a</name><target><path>/x</path></target></pool>"
    first, second = parse_pool(xml), parse_pool(xml)
    assert first.uuid != second.uuid


def test_numbers_are_those_of_the_lists_flags() -> None:
    assert [kind.number for kind in POOL_TYPES.values()] == list(range(14))
    assert len({kind.flag for kind in POOL_TYPES.values()}) == 14


def test_capabilities() -> None:
    text = format_capabilities({"dir"})
    assert "<pool type='dir' supported='yes'>\n    <volOptions>\n      <defaultFormat type='raw'/>\n" in text
    assert "<pool type='zfs' supported='no'>\n  </pool>\n" in text


VOLUME = (
    "<volume type='file'><name>a</name><capacity unit='MiB'>1</capacity><target><format type='qcow2'/><permissions>"
    "<mode>0644</mode><owner>5</owner></permissions><encryption format='luks'><secret type='passphrase' usage='x'/>"
    "<cipher name='aes' size='256'/></encryption><compat>1.1</compat><clusterSize unit='KiB'>64</clusterSize>"
    "<features><lazy_refcounts/></features></target><backingStore><path>/b</path></backingStore></volume>"
)
SECRET = (
    "<secret private='no'><uuid>f52a81b2-424e-490c-823d-6bd4235bc572</uuid>"
    "<usage type='ceph'><name>n</name></usage></secret>"
)
PARTS = re.compile("<[^>]*>|[^<]+")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_documents_are_refused_or_read(data: st.DataObject) -> None:
    """Whatever becomes of a document, there is a VirtError or an object that can be written and read again."""
    source = data.draw(st.sampled_from([golden["in"] for golden in GOLDENS] + [VOLUME, SECRET] * 40))
    parts = PARTS.findall(source)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(parts) - 1))
        match data.draw(st.sampled_from(["drop", "copy", "text"])):
            case "drop" if len(parts) > 1:
                del parts[place]
            case "copy":
                parts.insert(place, parts[data.draw(st.integers(0, len(parts) - 1))])
            case _:
                parts[place] = re.sub(
                    "[0-9a-z]+",
                    data.draw(st.sampled_from(["", "-1", "x", "99999999999999999999"])),
                    parts[place],
                    count=1,
                )
    text = "".join(parts)
    for parse, write in (
        (parse_pool, format_pool),
        (lambda xml: parse_volume(xml, POOL_TYPES["dir"]), format_volume),
        (parse_secret, format_secret),
    ):
        try:
            found = parse(text)
        except VirtError:
            continue
        written = write(found)
        assert write(parse(written)) == written
