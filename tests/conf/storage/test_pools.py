"""Pools' XML: what libvirt 9.0.0 makes of documents, and how it refuses them (pools.json was written by it)."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from virtd.conf.storage import POOL_TYPES, format_pool, parse_pool
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
