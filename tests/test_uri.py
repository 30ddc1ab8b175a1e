"""URIs taken apart, held against urllib where the two mean the same."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from virtd import uri as uris


@pytest.mark.parametrize(
    "text",
    [
        "qemu:///system",
        "qemu+ssh://me@host:22/session?keyfile=/a%20b&no_tty=1",
        "qemu+tcp://[::1]:99/system",
        "qemu+tcp://[fe80::1]/system#part",
        "QEMU:///system?a=b=c&a&x=%C3%A4",
        "/no/scheme?q=1",
        "test:default",
        "qemu://",
        "",
        "esx://a%40b:secret@host",
    ],
)
def test_the_parts(text: str) -> None:
    ours, theirs = uris.split(text), urlsplit(text)
    assert (ours.scheme, ours.authority, ours.path, ours.query) == theirs[:4]
    assert (ours.host, ours.port) == (theirs.hostname or "", theirs.port)
    assert ours.user == uris.unquote(theirs.username or "")
    assert ours.options == parse_qsl(theirs.query, keep_blank_values=True)


def test_what_is_left_of_a_query() -> None:
    parts = uris.split("q:///?a=1&b=%26&soc%6bet=/s&c")
    assert parts.without(frozenset(("a", "socket"))) == "b=%26&c"
    assert uris.split("q:///?a=1").without(frozenset("a")) == ""
    assert uris.split("q:///?a=1+1").options == [("a", "1+1")]  # libvirt's plus is a plus
    assert uris.split("q:///?a=%ff").options == [("a", "\udcff")]


@pytest.mark.parametrize("text", ["q://h:x/", "q://h:65536/", "q://h:-1/", "q://h:\N{SUPERSCRIPT TWO}/"])
def test_no_port(text: str) -> None:
    with pytest.raises(ValueError, match="is no port"):
        _ = uris.split(text).port


@pytest.mark.parametrize("text", ["q://[::1/", "q://::1]/"])
def test_open_brackets(text: str) -> None:
    with pytest.raises(ValueError, match="bracket"):
        uris.split(text)
