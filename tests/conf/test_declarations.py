"""Every declaration of a guest's model is exercised by a definition of which it is known what libvirt 9.0.0 makes.

golden/declarations.json: what libvirtd answered to small definitions. Of those it took, what is other than in the bare
guest of the same machine, as a diff; of those it refused, the error.
"""

import difflib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conf.declared import declarations, exercised
from virtd.conf.domain import format_domain, parse_domain
from virtd.conf.domain.parse import read_domain
from virtd.conf.host import GOLDEN_HOST
from virtd.errors import VirtError

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "declarations.json").read_text())
DEFINITIONS = sorted(GOLDEN.glob("*.in.xml"))

LIVE = """<domain type='qemu' id='3'><name>x</name><memory>1024</memory><os><type>hvm</type></os><devices>
<disk type='file'><source file='/a'><seclabel model='dac' labelskip='yes'/></source>
<backingStore type='file' index='2'><format type='raw'/><source file='/b'/></backingStore><target dev='vda'/></disk>
<interface type='user'><guest dev='a' actual='b'/></interface>
<interface type='user'><source dev='eth0'/><backend type='passt' logFile='/l'/></interface>
<console type='pty' tty='/dev/pts/1'><source path='/dev/pts/1'/></console>
<channel type='pty'><target type='virtio' name='a' state='connected'/></channel>
<memory model='virtio-mem'><target><size>1</size><block>1</block><current>1</current></target></memory>
</devices></domain>"""
"""What is said only of a running guest, and passt, which libvirt 9.0.0 knows but does not take from XML.

See test_domain_live.py for what becomes of it.
"""


def changes(xml: str, bare: str) -> list[str]:
    """What is other in a definition than in the bare guest's."""
    return list(difflib.unified_diff(bare.split("\n"), xml.split("\n"), lineterm="", n=0))[2:]


@pytest.mark.parametrize("case", CASES["accepted"], ids=range(len(CASES["accepted"])))
def test_accepted(case: dict[str, Any]) -> None:
    ours = format_domain(parse_domain(case["in"], GOLDEN_HOST))
    assert changes(ours, CASES["bare"][case["bare"]]) == case["changes"]


@pytest.mark.parametrize("case", CASES["refused"], ids=range(len(CASES["refused"])))
def test_refused(case: dict[str, object]) -> None:
    with pytest.raises(VirtError) as caught:
        parse_domain(str(case["in"]), GOLDEN_HOST)
    assert (caught.value.code, caught.value.message) == (case["code"], case["message"])


def test_every_declaration_is_exercised() -> None:
    documents = [case["in"] for kind in ("accepted", "refused") for case in CASES[kind]]
    documents += [path.read_text() for path in DEFINITIONS]
    seen = {name for document in documents for name in exercised(read_domain(document))}
    seen |= set(exercised(read_domain(LIVE, inactive=False)))
    assert sorted(declarations() - seen) == []
