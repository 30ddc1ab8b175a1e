"""qemu.conf, and what it makes of displays: TLS for real, with certificates made here."""

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.qemu.instance import Instance
from virtd import constants as c
from virtd.conf.domain.display import SpiceGraphics, VncGraphics
from virtd.drivers.qemu.host import settings
from virtd.errors import VirtError


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


@pytest.fixture
def certificates(instance: Instance) -> Path:
    """An authority, and a server's certificate, under the names that QEMU looks for, where its user gets to."""
    folder = Path(instance.root) / "pki"
    folder.mkdir(mode=0o755)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    run = lambda *words: subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)  # noqa: E731
    run("req", "-x509", *key, "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca-cert.pem")
    san = "subjectAltName=IP:127.0.0.1"
    signed = ("-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-addext", "basicConstraints=critical,CA:FALSE")
    run(
        "req",
        "-x509",
        *key,
        "-subj",
        "/CN=server",
        "-addext",
        san,
        *signed,
        "-keyout",
        "server-key.pem",
        "-out",
        "server-cert.pem",
    )
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def configure(instance: Instance, text: str) -> None:
    """Write the instance's qemu.conf; a connection that is opened then knows of it."""
    folder = instance.driver.paths.config
    os.makedirs(folder, exist_ok=True)
    Path(folder, "qemu.conf").write_text(text)
    instance.driver.close()
    instance.driver = instance.open()


def test_what_is_said_and_what_follows(tmp_path: Path) -> None:
    (tmp_path / "qemu.conf").write_text(
        '# a comment\nuser = "nobody"\nvnc_listen = "0.0.0.0"\nvnc_tls = 1\ndefault_tls_x509_cert_dir = "/d"\n'
        'default_tls_x509_verify = 0\nspice_tls_x509_cert_dir = "/s"\nnbd_tls_x509_verify = 1\nmax_files = 5\n'
    )
    said = settings.load(str(tmp_path))
    assert (said.user, said.group, said.vnc_listen, said.spice_listen) == ("nobody", None, "0.0.0.0", "127.0.0.1")
    assert said.vnc == settings.Tls(True, "/d", False)
    assert said.spice == settings.Tls(False, "/s", False)
    assert said.nbd == settings.Tls(False, "/d", True)
    assert settings.load(str(tmp_path / "nonesuch")) == settings.Settings()


@pytest.mark.parametrize("line", ["vnc_tls = 'yes'", "user = 5", "vnc_tls ="])
def test_what_makes_no_sense(tmp_path: Path, line: str) -> None:
    (tmp_path / "qemu.conf").write_text(f"\n{line}\n")
    with pytest.raises(VirtError, match=r"qemu.conf:[23]") as caught:
        settings.load(str(tmp_path))
    assert caught.value.code == c.VIR_ERR_CONF_SYNTAX


def context(certificates: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates / "ca-cert.pem"))


def test_spice_with_tls(instance: Instance, certificates: Path) -> None:
    configure(instance, f'spice_tls = 1\nspice_tls_x509_cert_dir = "{certificates}"\n')
    xml = instance.xml(devices="<graphics type='spice' autoport='yes' defaultMode='secure'/>")
    domain = instance.driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    (graphics,) = instance.driver.live(instance.driver.guests.find(domain)).graphics
    assert isinstance(graphics, SpiceGraphics)
    assert not graphics.port
    assert graphics.tls_port
    with (
        socket.create_connection(("127.0.0.1", graphics.tls_port), 5) as plain,
        context(certificates).wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        assert client.version() is not None


def test_vnc_with_tls(instance: Instance, certificates: Path) -> None:
    """VNC begins in plain text, and offers VeNCrypt (19) only."""
    configure(instance, f'vnc_tls = 1\nvnc_tls_x509_cert_dir = "{certificates}"\nvnc_tls_x509_verify = 0\n')
    xml = instance.xml(devices="<graphics type='vnc'/>")
    domain = instance.driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    (graphics,) = instance.driver.live(instance.driver.guests.find(domain)).graphics
    assert isinstance(graphics, VncGraphics)
    with socket.create_connection(("127.0.0.1", graphics.port or 0), 5) as client:
        client.sendall(client.recv(12, socket.MSG_WAITALL))
        assert client.recv(2, socket.MSG_WAITALL) == b"\1\x13"
        client.sendall(b"\x13" + client.recv(0))
        assert client.recv(2, socket.MSG_WAITALL) == b"\0\2"
        client.sendall(b"\0\2")
        client.recv(2, socket.MSG_WAITALL)  # accepted, and one kind
        (kind,) = {client.recv(4, socket.MSG_WAITALL)}
        client.sendall(kind)
        assert client.recv(1) == b"\1"
        with context(certificates).wrap_socket(client, server_hostname="127.0.0.1") as encrypted:
            assert encrypted.version() is not None


def test_who_guests_run_as(instance: Instance) -> None:
    if os.geteuid():
        pytest.skip("users are changed by root only")
    configure(instance, 'user = "nobody"\ngroup = "nogroup"\n')
    domain = instance.driver.domain_create_xml(instance.xml(), c.VIR_DOMAIN_START_PAUSED)
    assert os.stat(f"/proc/{instance.qemu(domain)}").st_uid == 65534
