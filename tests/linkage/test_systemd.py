"""The units of contrib/systemd: by systemd's own checker, and started as systemd starts them."""

from __future__ import annotations

import configparser
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.instance import REPOSITORY, Instance
from tests.helpers.waiting import wait_ended

XML = "<domain type='qemu'><name>quiet</name><memory>16384</memory><os><type arch='x86_64'>hvm</type></os></domain>"
UNITS = REPOSITORY / "contrib/systemd"


def unit(name: str) -> configparser.ConfigParser:
    """A unit, read."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / name).read_text())
    return parser


def test_the_units_are_valid(tmp_path: Path, need_program: Callable[[str], str]) -> None:
    program = need_program("systemd-analyze")
    for source in UNITS.iterdir():
        text = source.read_text()
        (tmp_path / source.name).write_text(text.replace("/usr/bin/virtd", shutil.which("true") or ""))
    result = subprocess.run(
        [program, "verify", "--man=no", *(str(path) for path in tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


def listen(instance: Instance, name: str) -> socket.socket:
    """Listen as a socket unit says, below the instance's root."""
    section = unit(name)["Socket"]
    path = Path(f"{instance.root}{section['ListenStream']}")
    path.parent.mkdir(parents=True, exist_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    path.chmod(int(section["SocketMode"], 8))
    sock.listen()
    return sock


def command(instance: Instance, name: str) -> list[str]:
    """The program of a service unit, from this source tree and on the instance's root."""
    program, *options = unit(name)["Service"]["ExecStart"].split()
    assert program == "/usr/bin/virtd"
    return [sys.executable, "-m", "virtd.server.main", "--root", str(instance.root), *options]


def test_socket_activation(instance: Instance, tmp_path: Path) -> None:
    """Clients that come before the server are served when it is up; files of sockets are systemd's to remove."""
    listeners = {name: listen(instance, name) for name in ("virtd.socket", "virtd-ro.socket")}
    waiting = subprocess.Popen(
        ["virsh", "--quiet", "-c", instance.uri, "uri"], stdout=subprocess.PIPE, text=True, env=instance.environment
    )
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(tmp_path / "notify"))
    notified.settimeout(30)
    environment = {
        **instance.environment,
        "LISTEN_FDS": str(len(listeners)),
        "LISTEN_FDNAMES": ":".join(listeners),
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
    }
    pid = os.fork()
    if not pid:
        try:
            high = [os.dup2(sock.fileno(), 100 + number) for number, sock in enumerate(listeners.values())]
            for number, descriptor in enumerate(high):
                os.dup2(descriptor, 3 + number, inheritable=True)
            program = command(instance, "virtd.service")
            os.execve(program[0], program, {**environment, "LISTEN_PID": str(os.getpid())})
        finally:
            os._exit(127)
    try:
        assert "READY=1" in notified.recv(4096).decode().splitlines()
        assert waiting.communicate(timeout=20)[0].strip() == instance.uri
        assert instance.virsh("list", "--all") == ""
        if instance.mode == "system":
            (tmp_path / "quiet.xml").write_text(XML)
            error = instance.virsh_error("define", str(tmp_path / "quiet.xml"), read_only=True)
            assert "read only access" in error
    finally:
        os.kill(pid, 15)
        os.waitpid(pid, 0)
        notified.close()
        for sock in listeners.values():
            sock.close()
    assert instance.socket.exists()
    assert instance.socket_ro.exists()


@pytest.mark.parametrize("read_only", [False, True])
def test_a_process_for_each_client(instance: Instance, read_only: bool) -> None:
    """Accept=yes: the connection is standard input and output."""
    suffix = "-ro" if read_only else ""
    assert unit(f"virtd-each{suffix}.socket")["Socket"]["Accept"] == "yes"
    service = unit(f"virtd-each{suffix}@.service")["Service"]
    assert (service["StandardInput"], service["StandardOutput"]) == ("socket", "socket")
    with listen(instance, f"virtd-each{suffix}.socket") as listener:
        (instance.root / "quiet.xml").write_text(XML)
        client = subprocess.Popen(
            [
                "virsh",
                "-q",
                "-c",
                instance.uri_ro if read_only else instance.uri,
                "define",
                f"{instance.root}/quiet.xml",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        listener.settimeout(20)
        sock, _ = listener.accept()
        with sock:
            program = command(instance, f"virtd-each{suffix}@.service")
            server = subprocess.Popen(program, stdin=sock, stdout=sock, env=instance.environment)
        said = client.communicate(timeout=30)[0]
    assert ("read only access" in said) == read_only, said
    assert wait_ended(server.pid, 20)
    assert server.wait() == 0
