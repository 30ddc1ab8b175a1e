"""Domain XML against what libvirt 9.0.0 made of the same input, byte for byte, and its errors, word for word.

golden/NAME.in.xml and NAME.out.xml: a definition and libvirt's inactive XML of it. golden/errors.json: documents it
refused. golden/rules.json: for each of its refusals a smallest guest, in pieces.
"""

import json
import re
from pathlib import Path

import pytest

from virtd.conf.domain import format_domain, parse_domain
from virtd.conf.host import GOLDEN_HOST
from virtd.errors import VirtError

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name.removesuffix(".in.xml") for path in GOLDEN.glob("*.in.xml"))
ERRORS = json.loads((GOLDEN / "errors.json").read_text())
RULES = json.loads((GOLDEN / "rules.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_definition(name: str) -> None:
    source = (GOLDEN / f"{name}.in.xml").read_text()
    theirs = (GOLDEN / f"{name}.out.xml").read_text()
    assert format_domain(parse_domain(source, GOLDEN_HOST)) == theirs


@pytest.mark.parametrize("name", CASES)
def test_result_is_stable(name: str) -> None:
    """What was written is read as the same, addresses and all; only controllers are sorted, as libvirt does then."""
    theirs = (GOLDEN / f"{name}.out.xml").read_text()
    domain = parse_domain(theirs, GOLDEN_HOST)
    ours = format_domain(domain)
    if name != "chardevs":  # here libvirt numbers the virtio console anew, once
        assert sorted(ours.split("\n")) == sorted(theirs.split("\n"))
    assert parse_domain(ours, GOLDEN_HOST) == domain
    assert domain.copy() == domain


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: re.sub(r"\W+", "-", case["message"])[:60])
def test_refusal(case: dict[str, object]) -> None:
    with pytest.raises(VirtError) as caught:
        parse_domain(str(case["xml"]), GOLDEN_HOST)
    error = caught.value
    assert (error.code, error.message) == (case["code"], case["message"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: re.sub(r"\W+", "-", rule["message"])[:60])
def test_rule(rule: dict[str, str]) -> None:
    xml = (
        f"<domain type='qemu'><name>x</name><memory>1000000</memory>{rule.get('top', '')}"
        f"<os><type arch='x86_64' machine='{rule.get('machine', 'pc')}'>hvm</type></os>{rule.get('middle', '')}"
        f"<devices>{rule.get('devices', '')}</devices></domain>"
    )
    with pytest.raises(VirtError) as caught:
        parse_domain(xml, GOLDEN_HOST)
    assert (caught.value.code, caught.value.message) == (rule["code"], rule["message"])


def test_copies_share_nothing() -> None:
    domain = parse_domain((GOLDEN / "linux-pc.in.xml").read_text(), GOLDEN_HOST)
    before = format_domain(domain)
    twin = domain.copy()
    twin.disks[0].target = "vdz"
    twin.os.boot.clear()
    twin.interfaces.pop()
    assert format_domain(domain) == before
    assert twin != domain
