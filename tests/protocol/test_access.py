"""What calls demand, and what a read-only connection may do, held against what libvirtd 9.0.0 does.

read_only.json holds the answers of a libvirtd 9.0.0 on its read-only socket: every procedure was called (arguments 1,
"x" and the like, flags 0), by the QEMU and by the test driver, which agree; then again with each of the flags 1, 2, 4
and 8, of which the answers that differ are listed. `null`: it was not refused; else the error's domain and detail.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from virtd import constants as c
from virtd.protocol import access, codec
from virtd.protocol.programs import METHODS, REMOTE
from virtd.protocol.records import Domain, StorageVol

MEASURED: dict[str, list[Any] | None] = json.loads(Path(__file__).with_name("read_only.json").read_text())
GUEST = Domain("x", bytes(16), 1)


def test_every_call_of_9_0_was_measured() -> None:
    asked = {name.partition(" ")[0] for name in MEASURED}
    newer = {procedure.method for number, procedure in REMOTE.procedures.items() if number > 443}
    wanted = {
        procedure.method
        for procedure in METHODS.values()
        if procedure.kind != "event" and procedure.program in ("remote", "qemu", "lxc")
    }
    assert asked == wanted - newer - {"connect_open"}


@pytest.mark.parametrize("case", MEASURED)
def test_read_only(case: str) -> None:
    method, _, changed = case.partition(" ")
    procedure = METHODS[method]
    values = dict.fromkeys(codec.argument_names(procedure), 0)
    if changed:
        name, _, value = changed.partition("=")
        assert name in values
        values[name] = int(value)
    args = tuple(values.values())
    refusal = MEASURED[case]
    assert access.read_only_allows(procedure, args) == (refusal is None)
    if refusal is not None:
        error = access.read_only_refusal(procedure, args)
        assert [error.domain, error.detail] == refusal
        assert error.code == c.VIR_ERR_OPERATION_DENIED
        assert str(error) == f"operation forbidden: {error.detail}"


@pytest.mark.parametrize(
    ("method", "args", "permissions"),
    [
        ("domain_suspend", (GUEST,), ["domain:suspend"]),
        ("connect_close", (), []),
        ("domain_get_xml_desc", (GUEST, 0), ["domain:read"]),
        ("domain_get_xml_desc", (GUEST, c.VIR_DOMAIN_XML_SECURE), ["domain:read", "domain:read_secure"]),
        ("domain_get_xml_desc", (GUEST, c.VIR_DOMAIN_XML_INACTIVE), ["domain:read"]),
        ("domain_attach_device_flags", (GUEST, "", 0), ["domain:write", "domain:save"]),
        ("domain_attach_device_flags", (GUEST, "", c.VIR_DOMAIN_AFFECT_LIVE), ["domain:write"]),
        ("domain_attach_device_flags", (GUEST, "", c.VIR_DOMAIN_AFFECT_CONFIG), ["domain:write", "domain:save"]),
        ("domain_interface_addresses", (GUEST, 0, 0), ["domain:read"]),
        (
            "domain_interface_addresses",
            (GUEST, c.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, 0),
            ["domain:read", "domain:write"],
        ),
        ("storage_vol_download", (StorageVol("p", "v", "k"), 0, 0, 0), ["storage_vol:data_read"]),
    ],
)
def test_required(method: str, args: tuple[Any, ...], permissions: list[str]) -> None:
    assert access.required(METHODS[method], args) == permissions


def test_newer_calls_go_by_their_rules() -> None:
    assert access.read_only_allows(METHODS["network_get_metadata"], (("n", bytes(16)), 0, None, 0))
    assert not access.read_only_allows(METHODS["domain_graphics_reload"], (GUEST, 0, 0))
    assert not access.read_only_allows(METHODS["node_device_update"], (("d",), "", 1))
