"""What remote URIs say."""

import pytest

from virtd import constants as c
from virtd.drivers.remote.address import parse
from virtd.errors import VirtError
from virtd.state import paths

HERE = paths.below("/r", privileged=True)


@pytest.mark.parametrize(
    ("uri", "name", "transport", "where"),
    [
        ("qemu+unix:///system?socket=/a/b", "qemu:///system", "unix", "/a/b"),
        ("test+unix:///default?x=1&socket=/s&y=a%26b", "test:///default?x=1&y=a%26b", "unix", "/s"),
        ("qemu+unix:///system", "qemu:///system", "unix", "/r/run/libvirt/libvirt-sock"),
        ("qemu:///system", "qemu:///system", "unix", "/r/run/libvirt/libvirt-sock"),
        ("qemu+tcp://host/system", "qemu:///system", "tcp", "host:16509"),
        ("qemu+tcp://host:99/system?name=test:///default", "test:///default", "tcp", "host:99"),
        ("qemu+tcp://[::1]:99/system", "qemu:///system", "tcp", "::1:99"),
        ("qemu+tcp:///system", "qemu:///system", "tcp", "localhost:16509"),
        ("qemu://host/system", "qemu:///system", "tls", "host:16514"),
        ("qemu+ssh://me@host/session", "qemu:///session", "ssh", "host:0"),
        ("network+unix:///system?socket=/s", "network:///system", "unix", "/s"),
    ],
)
def test_parse(uri: str, name: str, transport: str, where: str) -> None:
    address = parse(uri, HERE)
    assert (address.uri, address.name, address.transport) == (uri, name, transport)
    assert where == (address.socket if transport == "unix" else f"{address.host}:{address.port}")


def test_user_and_options() -> None:
    address = parse("qemu+ssh://me@host:2222/system?keyfile=k&no_verify=1&extra=2", HERE)
    assert (address.user, address.port) == ("me", 2222)
    assert dict(address.options) == {"keyfile": "k", "no_verify": "1"}
    assert address.name == "qemu:///system?extra=2"


def test_default_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert parse("qemu+unix:///system", HERE, read_only=True).socket == "/r/run/libvirt/libvirt-sock-ro"
    assert parse("qemu+unix:///session", HERE).socket == "/run/user/7/libvirt/libvirt-sock"
    session = HERE._replace(privileged=False)
    assert parse("qemu+unix:///session", session).socket == "/r/run/libvirt/libvirt-sock"
    assert parse("qemu+unix:///system", session).socket == "/run/libvirt/libvirt-sock"


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("qemu+foo:///system", "remote_open: transport in URL not recognised (should be unix|"),
        ("qemu+unix://host/system", "using unix socket and remote server 'host' is not supported."),
        ("qemu+tcp://host:x/system", "cannot parse URI qemu+tcp://host:x/system"),
        ("qemu+tcp://[::/system", "cannot parse URI"),
    ],
)
def test_no_address(uri: str, text: str) -> None:
    with pytest.raises(VirtError) as caught:
        parse(uri, HERE)
    assert (caught.value.code, caught.value.domain) == (c.VIR_ERR_INVALID_ARG, c.VIR_FROM_REMOTE)
    assert caught.value.detail.startswith(text)
