"""The tables are whole and consistent with themselves."""

import subprocess
import sys

import pytest

from virtd import constants as c
from virtd.protocol import access, codec, notation
from virtd.protocol.procedure import CHANGE, EVENT, INSTANT, QUERY, Procedure
from virtd.protocol.programs import METHODS, PROGRAMS, REMOTE
from virtd.protocol.tables import admin, net, remote

ALL = list(METHODS.values())


def test_every_program_is_complete() -> None:
    counts = {program.name: len(program.procedures) for program in PROGRAMS.values()}
    assert counts == {"remote": 453, "qemu": 7, "lxc": 1, "admin": 19, "keepalive": 2}
    assert sum(counts.values()) == len(METHODS) == 482
    for program in PROGRAMS.values():
        assert list(program.procedures) == list(range(1, len(program.procedures) + 1))


def test_every_type_is_there() -> None:
    """714 types belong to one procedure each; the others are shared, and what is optional needs no name here."""
    own = sum(bool(fields) for procedure in ALL for fields in codec.signature(procedure))
    assert own == 714
    assert len(remote.TYPES) + len(admin.TYPES) + len(net.TYPES) == 42


def test_program_numbers() -> None:
    assert {program.name: program.number for program in PROGRAMS.values()} == {
        "remote": 0x20008086,
        "qemu": 0x20008087,
        "lxc": 0x00068000,
        "admin": 0x06900690,
        "keepalive": 0x6B656570,
    }
    assert {program.version for program in PROGRAMS.values()} == {1}


@pytest.mark.parametrize("procedure", ALL, ids=lambda procedure: procedure.method)
def test_line(procedure: Procedure) -> None:
    """What a line says can be read, and its parts do not contradict each other."""
    arguments, results = codec.signature(procedure)
    names = [field.name for field in arguments]
    assert len(set(names)) == len(names)
    assert procedure.kind in (INSTANT, QUERY, CHANGE, EVENT)
    if procedure.kind == EVENT:
        assert not results
        assert not procedure.api
        assert not procedure.acl
    else:
        assert procedure.api.startswith("vir") or procedure.method.startswith("auth_")
    assert procedure.stream in (None, "read", "write", "both")
    if procedure.stream:
        assert procedure.kind == CHANGE
    assert bool(procedure.sparse) <= bool(procedure.stream)
    assert procedure.fds in (None, "call", "reply", "both")
    access.rules(procedure)
    if not procedure.auth:
        assert not procedure.opened


def test_what_needs_no_open_connection() -> None:
    assert {procedure.method for procedure in ALL if not procedure.opened} == {
        "admin_connect_close",
        "admin_connect_open",
        "auth_list",
        "auth_polkit",
        "auth_sasl_init",
        "auth_sasl_start",
        "auth_sasl_step",
        "connect_close",
        "connect_open",
        "connect_supports_feature",
    }


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("connect_list_all_domains", INSTANT),
        ("domain_get_xml_desc", INSTANT),
        ("connect_domain_event_callback_register_any", INSTANT),
        ("domain_get_job_info", QUERY),
        ("connect_get_all_domain_stats", QUERY),
        ("domain_create_with_flags", CHANGE),
        ("domain_screenshot", CHANGE),
        ("domain_abort_job", CHANGE),
        ("domain_event_lifecycle", EVENT),
    ],
)
def test_kind(method: str, kind: str) -> None:
    assert METHODS[method].kind == kind


def test_whatever_is_named_set_or_destroy_is_no_question() -> None:
    """A call that alters a guest must not run in the worker, nor be tried twice."""
    words = {"SET", "CREATE", "DEFINE", "UNDEFINE", "DESTROY", "DELETE", "ATTACH", "DETACH", "RESUME", "SUSPEND"}
    wrong = [
        procedure
        for procedure in ALL
        if procedure.kind in (INSTANT, QUERY)
        and words & set(procedure.name.split("_"))
        and procedure.name != "CONNECT_SET_IDENTITY"
    ]
    assert not wrong


def test_sparse_streams() -> None:
    assert REMOTE.named["STORAGE_VOL_UPLOAD"].sparse == c.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM
    assert REMOTE.named["STORAGE_VOL_DOWNLOAD"].sparse == c.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM


@pytest.mark.parametrize("text", ["dom domain", "(dom: domain", "(dom: domain<)", "(dom:domain)", "(: int)"])
def test_bad_notation(text: str) -> None:
    with pytest.raises(ValueError, match=r"structure|field"):
        notation.parse_fields(text, {})


def test_unknown_limit() -> None:
    with pytest.raises(KeyError):
        notation.parse_fields("(names: string<NO_SUCH_MAX>)", remote.LIMITS)


def test_import_is_light() -> None:
    """What every start-up pays for the protocol: no heavy module comes along with it."""
    code = "import sys, virtd.protocol.framing; print(' '.join(sys.modules))"
    modules = set(subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True).stdout.split())
    assert not modules & {"asyncio", "dataclasses", "inspect", "importlib.metadata", "lxml", "logging", "socket"}
