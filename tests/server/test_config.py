"""virtd.conf: its syntax, its settings, and the words for what is wrong with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.harness import TOP
from tests.server.manpage import settings_section
from virtd import constants as c
from virtd.conffile import parse
from virtd.errors import VirtError
from virtd.server import log
from virtd.server.config import CHECKS, Config, load
from virtd.server.options import BY_NAME, OPTIONS, UNUSED


def settings(text):
    return [(setting.name, setting.value, setting.line) for setting in parse(text, "f")]


def test_syntax():
    assert settings("") == []
    assert settings("# only a comment") == []
    text = """
# comment
a = 5   # behind
b="x # no comment";c='y "z"'
d = [ "one",
      "two", # comment inside
      3, ]
e = []
f = -7
g = \"\"\"two
lines\"\"\"
"""
    assert settings(text) == [
        ("a", 5, 3),
        ("b", "x # no comment", 4),
        ("c", 'y "z"', 4),
        ("d", ["one", "two", 3], 5),
        ("e", [], 8),
        ("f", -7, 9),
        ("g", "two\nlines", 10),
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('a "x"', "f:1: expecting an assignment"),
        ("a", "f:1: expecting an assignment"),
        ("\n\n= 5", "f:3: expecting a name"),
        ("a = x", "f:1: expecting a value"),
        ("a =", "f:1: expecting a value"),
        ('a = "x\n', "f:1: unterminated string"),
        ('a = "x\n"', "f:1: unterminated string"),
        ("a = 5 5", "f:1: expecting a separator"),
        ('a = [ "x"\n', "f:2: list is not closed with ]"),
        ('a = [ "x" "y" ]', "f:1: expecting a separator in list"),
        ("a = [ , ]", "f:1: expecting a value"),
    ],
)
def test_syntax_errors_are_worded_as_libvirt_does(text, what):
    with pytest.raises(VirtError) as info:
        parse(text, "f")
    assert info.value.message == f"configuration file syntax error: {what}"
    assert info.value.code == c.VIR_ERR_CONF_SYNTAX


@given(st.text(max_size=200))
def test_no_text_does_anything_but_parse_or_fail_well(text):
    """Invariant: a configuration file is understood, or refused by a VirtError."""
    try:
        Config("f", text)
    except VirtError:
        pass


@given(st.lists(st.sampled_from(['"', "'", "[", "]", "=", "#", "\n", ";", ",", " ", "a", "max_clients", "5", "-"])))
def test_nor_does_what_looks_like_one(tokens):
    try:
        Config("f", "".join(tokens))
    except VirtError:
        pass


def test_defaults():
    settings = Config()
    assert settings.number("max_clients") == 5000
    assert settings.number("max_client_requests") >= 32
    assert settings.mode("unix_sock_ro_perms") == 0o777
    assert settings.text("unix_sock_group") is None
    assert settings.outputs() is None
    assert settings.unused == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('max_clients = "abc"', "internal error: f:1: expected an unsigned integer for 'max_clients' parameter"),
        ("max_clients = -5", "internal error: f:1: expected an unsigned integer for 'max_clients' parameter"),
        (
            "max_clients = 99999999999999999999",
            "internal error: f:1: value for 'max_clients' parameter must be in range 0:4294967295",
        ),
        ("\nunix_sock_dir = 5", "internal error: f:2: expected a string for 'unix_sock_dir' parameter"),
        ('auth_unix_rw = "foo"', "unsupported configuration: f:1: auth_unix_rw: unsupported auth foo"),
        ('auth_tcp = "sasl"', "unsupported configuration: f:1: auth_tcp: auth sasl is not supported yet, only none"),
        ('access_drivers = [ "a", 5 ]', "internal error: f:1: expected a string list for 'access_drivers' parameter"),
        (
            'access_drivers = [ "polkit" ]',
            "unsupported configuration: f:1: access_drivers: access driver polkit is not supported yet, only nop",
        ),
        ("listen_tls = 1", "unsupported configuration: f:1: listen_tls: not supported yet"),
        ("listen_tcp = 2", "internal error: f:1: expected 0 or 1 for 'listen_tcp' parameter"),
        ("nosuch = 1", "unsupported configuration: f:1: unknown setting 'nosuch'"),
        (
            "max_clients = 1\nmax_clients = 2",
            "configuration file syntax error: f:2: 'max_clients' was set in line 1 already",
        ),
        ('unix_sock_rw_perms = "rw"', "internal error: f:1: expected permissions in octal for 'unix_sock_rw_perms'"),
        ("log_level = 5", "internal error: f:1: expected a level from 1 to 4 for 'log_level' parameter"),
        ('log_outputs = "3:journald"', "unsupported configuration: f:1: log_outputs: cannot log to '3:journald'"),
    ],
)
def test_wrong_values(text, message):
    with pytest.raises(VirtError) as info:
        Config("f", text)
    assert info.value.message.startswith(message)


def test_right_values():
    text = """
unix_sock_dir = "/somewhere"
unix_sock_rw_perms = "0770"
tcp_port = 1234
listen_tls = 0
auth_unix_rw = "none"
access_drivers = [ "nop" ]
keepalive_interval = -1
log_outputs = "3:stderr 1:file:/x/y 4:syslog:virtd"
"""
    settings = Config("f", text)
    assert settings.text("unix_sock_dir") == "/somewhere"
    assert settings.mode("unix_sock_rw_perms") == 0o770
    assert settings.text("tcp_port") == "1234"
    assert settings.number("keepalive_interval") == -1
    assert settings.outputs() == [
        log.Output(log.WARNING, "stderr"),
        log.Output(log.DEBUG, "file", "/x/y"),
        log.Output(log.ERROR, "syslog", "virtd"),
    ]


def test_what_only_libvirtd_needs_is_reported():
    settings = Config("f", 'max_workers = 20\nca_file = "/x"\n')
    assert settings.unused == {
        "max_workers": "each client and each call that waits has a process of its own",
        "ca_file": "TLS is not supported yet",
    }


def test_load(tmp_path):
    assert load(None, str(tmp_path / "missing")).path is None
    with pytest.raises(VirtError, match=r"Failed to open file '.*missing': No such file or directory"):
        load(str(tmp_path / "missing"), "")
    with pytest.raises(VirtError, match=r"Failed to open file '.*': Is a directory"):
        load(str(tmp_path), "")
    (tmp_path / "a.conf").write_bytes(b'unix_sock_dir = "/\xff"\n')
    settings = load(str(tmp_path / "a.conf"), "")
    assert settings.text("unix_sock_dir") == "/\udcff"


def test_the_table_is_sound():
    assert not set(BY_NAME) & set(UNUSED)
    for option in BY_NAME.values():
        assert option.type in CHECKS
        assert option.meaning.endswith(".")
    assert {option.type for option in BY_NAME.values()} == set(CHECKS)
    assert sum(len(group) for group in OPTIONS.values()) == len(BY_NAME)


def test_libvirtds_own_file_is_understood():
    """Every setting that Debian's libvirtd.conf shows in a comment is one that virtd knows, or says why not."""
    try:
        with open("/etc/libvirt/libvirtd.conf") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        pytest.skip("libvirtd is not installed here")
    known = {*BY_NAME, *UNUSED}
    shown = {
        line[1:].partition("=")[0].strip()
        for line in lines
        if line.startswith("#")
        and line[1:2].isalpha()
        and "=" in line
        and " " not in line[1:].partition("=")[0].strip()
    }
    assert len(shown) > 40
    assert shown - known == set()


def test_the_man_page_has_the_table():
    page = (TOP / "man/virtd.conf.5").read_text()
    assert settings_section() in page, "run: python3 -m tests.server.manpage"
