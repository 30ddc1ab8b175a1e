"""Flags that nobody knows are refused as libvirtd 9.0.0 refuses them, by every procedure that takes flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import flags
from tests.helpers.instance import Instance
from virtd import constants as c

EXPECTED: Final = Path(__file__).parent / "expected" / "flags.json"
# What libvirt 9.0.0 says of calls that it, or its QEMU driver, does not have.
MISSING: Final = (c.VIR_ERR_NO_SUPPORT, c.VIR_ERR_RPC)


def test_every_procedure_refuses_what_libvirt_refuses(virtd: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTD_ROOT", str(virtd.root))
    expected = json.loads(EXPECTED.read_text())
    served, wrong = 0, {}
    with flags.connected(virtd.uri) as connection, flags.subjects(connection) as subjects:
        for procedure in flags.procedures():
            said = flags.ask(connection, procedure, subjects)
            if said[0] is not None and said[0][0] == c.VIR_ERR_NO_SUPPORT:
                continue
            served += 1
            wanted = expected[procedure.method]
            if wanted[0] is not None and wanted[0][0] in MISSING:
                if said[0] is None or not said[0][2].startswith("unsupported flags (0x40000000) in function "):
                    wrong[procedure.method] = (wanted, said)
            elif said != wanted:
                wrong[procedure.method] = (wanted, said)
    assert not wrong
    assert served > 150
