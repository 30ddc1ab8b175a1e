"""What virtd does not choose: a disk that is full, a clock that jumps, clients that do not behave."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.guests import bootsector
from tests.guests.xml import boot_domain
from tests.helpers.instance import Instance, make_root
from tests.server.harness import Client, private
from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol.messages import REPLY, make_call
from virtd.protocol.programs import METHODS
from virtd.protocol.records import Domain

PATIENCE = 3  # seconds, for what has 30 in earnest


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTD_PATIENCE", str(PATIENCE))


def connect(instance: Instance) -> Client:
    return Client(str(instance.socket), timeout=60, uri=f"qemu:///{instance.mode}")


def define(client: Client, root: Path, name: str) -> Domain:
    disk = bootsector.write_boot_disk(root / f"{name}.img", then="serve")
    domain: Domain = client.call("domain_define_xml_flags", boot_domain(name, disk), 0)
    return domain


def state(client: Client, domain: Domain) -> int:
    found: int = client.call("domain_get_state", domain, 0)[0]
    return found


# A full disk


@pytest.fixture
def small() -> Iterator[Instance]:
    """An instance whose directory is a file system of few MiB."""
    if os.geteuid():
        pytest.skip("only root can mount")
    root = make_root()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "virtd-test", str(root)]
    if subprocess.run(mount, check=False).returncode:
        lacking("right to mount")
    instance = Instance(root)
    try:
        yield instance
        left = instance.finish()
    finally:
        subprocess.run(["umount", "--lazy", root], check=True)
        root.rmdir()
    assert not left


def fill(root: Path) -> Path:
    """Leave not a byte free."""
    path = root / "filling"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return path


def test_a_full_disk(patience: None, small: Instance) -> None:
    instance, root = small, small.root
    instance.start()
    with connect(instance) as client:
        running, other, off = (define(client, root, name) for name in ("running", "other", "off"))
        for domain in (running, other):
            client.call("domain_create_with_flags", domain, 0)
        xml = client.call("domain_get_xml_desc", off, c.VIR_DOMAIN_XML_INACTIVE)
        filling = fill(root)
        new = boot_domain("new", root / "off.img")
        for call in (
            ("domain_define_xml_flags", new, 0),
            ("domain_rename", off, "renamed", 0),
            ("domain_set_metadata", off, c.VIR_DOMAIN_METADATA_TITLE, "a title" * 2000, None, None, 0),
            ("domain_create_with_flags", off, 0),
        ):
            with pytest.raises(VirtError, match="No space left on device"):
                client.call(*call)
        assert {domain.name for domain in client.call("connect_list_all_domains", 1, 0)[0]} == {
            "running",
            "other",
            "off",
        }
        assert client.call("domain_get_xml_desc", off, c.VIR_DOMAIN_XML_INACTIVE) == xml
        # It is paused, and as long as that cannot be written down, the caller is not told that it is.
        with pytest.raises(VirtError):
            client.call("domain_suspend", running)
        client.call("domain_destroy_flags", other, 0)
        assert state(client, other) == c.VIR_DOMAIN_SHUTOFF
        filling.unlink()
        client.call("domain_suspend", running)
        assert state(client, running) == c.VIR_DOMAIN_PAUSED
        client.call("domain_resume", running)
        client.call("domain_define_xml_flags", new, 0)
        client.call("domain_rename", off, "renamed", 0)
        client.call("domain_create_with_flags", other, 0)
        assert not [path for path in root.rglob("*") if path.name.endswith(".new")]
    logs = "".join(path.read_text(errors="replace") for path in (root / "var/log").rglob("*.log"))
    assert "Traceback" not in logs


# A clock that is set

_CLOCK = """
import os, time

_real = time.time
def _time():
    try:
        with open(os.environ["CLOCK_OFFSET"]) as file:
            offset = float(file.read() or 0)
    except OSError:
        return _real()
    open(os.environ["CLOCK_OFFSET"] + ".seen", "w").close()
    return _real() + offset
time.time = _time
"""


@pytest.fixture
def clock(instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], object]:
    """clock(seconds) sets the clock of all of the instance's processes, beside the right time."""
    (tmp_path / "sitecustomize.py").write_text(_CLOCK)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("CLOCK_OFFSET", str(tmp_path / "offset"))
    return lambda seconds: (tmp_path / "offset").write_text(str(seconds))


def test_a_clock_that_jumps(
    instance: Instance, clock: Callable[[float], object], patience: None, tmp_path: Path
) -> None:
    instance.start()
    year = 365 * 86400.0
    with connect(instance) as client, connect(instance) as other:
        domain = define(client, instance.root, "web1")
        for jump in (year, -year, 0):
            client.call("domain_create_with_flags", domain, 0)
            clock(jump)
            client.call("domain_suspend", domain)
            assert state(other, domain) == c.VIR_DOMAIN_PAUSED
            client.call("domain_resume", domain)
            assert state(other, domain) == c.VIR_DOMAIN_RUNNING
            assert len(client.call("connect_get_all_domain_stats", [], 0, 0)) == 1
            client.call("domain_destroy_flags", domain, 0)
    assert (tmp_path / "offset.seen").exists(), "nobody has looked at this clock"


def test_a_wait_is_as_long_as_it_is_whatever_the_clock_says(
    instance: Instance, clock: Callable[[float], object], patience: None
) -> None:
    """The clock is set back by a year while a call waits for a guest that hangs: the call ends all the same."""
    instance.start()
    with connect(instance) as client:
        domain = define(client, instance.root, "web1")
        client.call("domain_create_with_flags", domain, 0)
        qemu = next(process.pid for process in instance.processes() if "-name guest=web1," in process.title)
        os.kill(qemu, 19)
        try:
            first, second = client.send("domain_suspend", domain), client.send("domain_suspend", domain)
            clock(-365 * 86400.0)
            for call in (first, second):
                with pytest.raises(VirtError) as caught:
                    client.reply(call)
                assert caught.value.code == c.VIR_ERR_OPERATION_TIMEOUT
        finally:
            os.kill(qemu, 18)


# Clients


def test_a_client_that_sends_a_byte_at_a_time(virtd: Instance) -> None:
    data = make_call(METHODS["connect_open"], 1, (f"qemu:///{virtd.mode}", 0)).to_bytes()
    slow = Client(str(virtd.socket), opened=False)
    with slow, connect(virtd) as other:
        for byte in data:
            # Nobody waits for it: another one is served after every byte.
            other.call("connect_list_all_domains", 1, 0)
            assert select.select([slow.sock], [], [], 0) == ([], [], [])
            slow.raw(bytes([byte]))
        answer = slow.receive()
        assert answer is not None
        assert (answer.type, answer.serial, answer.status) == (REPLY, 1, 0)


def test_clients_that_begin_a_message_and_fall_silent(virtd: Instance) -> None:
    data = make_call(METHODS["connect_open"], 1, (f"qemu:///{virtd.mode}", 0)).to_bytes()
    halves = []
    for length in range(1, len(data), 3):
        halves.append(Client(str(virtd.socket), opened=False))
        halves[-1].raw(data[:length])
    with connect(virtd) as other:
        other.call("connect_list_all_domains", 1, 0)
        for half in halves[::2]:
            half.sock.shutdown(socket.SHUT_WR)  # a connection that is only half there
            assert half.receive() is None
        other.call("connect_list_all_domains", 1, 0)
    for half in halves:
        half.close()


def test_a_client_that_never_reads(virtd: Instance) -> None:
    """It is read from no more when it has enough to read; what it asked for comes when it wants it."""
    with connect(virtd) as deaf, connect(virtd) as other:
        before = {p.pid: private(p.pid) for p in virtd.processes() if p.title.startswith("virtd: worker for")}
        call = make_call(METHODS["connect_get_capabilities"], 7, ()).to_bytes()
        deaf.sock.setblocking(False)
        sent = 0
        rest = b""
        while True:
            try:
                done = deaf.sock.send(rest or call)
            except BlockingIOError:
                if not select.select([], [deaf.sock], [], 1)[1]:
                    break
                continue
            rest = (rest or call)[done:]
            sent += not rest
        assert sent > 100
        other.call("connect_list_all_domains", 1, 0)
        for pid, size in before.items():
            assert private(pid) < size + (8 << 20)
        deaf.sock.settimeout(30)
        for _ in range(sent):
            answer = deaf.receive()
            assert answer is not None
            assert answer.serial == 7
