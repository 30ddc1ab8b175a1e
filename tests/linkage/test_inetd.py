"""virtd started for each client by the real xinetd and openbsd-inetd, with the files of contrib/."""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guests import xml
from tests.helpers.instance import REPOSITORY, Instance
from tests.helpers.processes import end
from tests.helpers.waiting import wait_ended
from tests.linkage.conftest import free_port, talk, write_program

CONTRIB = REPOSITORY / "contrib"


def owner() -> str:
    """The user of this process, as inetd's files name it."""
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


class Inetd:
    """A running super-server, which starts virtd for an instance."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.port = free_port()
        self.uri = f"qemu+tcp://127.0.0.1:{self.port}/{instance.mode}"
        self.config = instance.root / "inetd.conf"
        # The real virtd, but of this source tree; nothing else is changed on the way.
        self.virtd = write_program(
            instance.root / "virtd",
            f"#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m virtd.server.main "
            f'--root {instance.root} "$@"\n',
        )

    def adapt(self, source: Path, options: str = "") -> None:
        """Make a configuration of our own of the one in contrib: another port, another user, another place."""
        text = source.read_text().replace("/usr/bin/virtd", str(self.virtd)).replace("16509", str(self.port))
        assert str(self.virtd) in text
        text = re.sub(r"(user\s*= )root", rf"\1{owner()}", text)
        self.config.write_text(text.replace(" root ", f" {owner()} ") + options)

    def start(self, *command: str) -> None:
        """Start it; returns when it listens."""
        self.instance.run("sh", "-c", f"{shlex.join(command)} </dev/null >/dev/null 2>&1 &")
        deadline = time.monotonic() + 20
        # Neither of the two says when it has got so far.
        while self._refuses():
            assert time.monotonic() < deadline
            select.select([], [], [], 0.02)

    def _refuses(self) -> bool:
        # It is bound, and not yet connected to, so that no virtd is started for this.
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", self.port))
            except OSError:
                return False
        return True

    def stop(self) -> None:
        """End it."""
        end(process.pid for process in self.instance.processes() if process.title.split()[0].endswith("inetd"))

    def virsh(self, *command: str, check: bool = True) -> str:
        """Debian's virsh on this port."""
        result = self.instance.run("virsh", "--quiet", "-c", self.uri, *command, check=check)
        return (result.stdout + result.stderr).strip()


@pytest.fixture(params=["xinetd", "openbsd-inetd"])
def inetd(request: pytest.FixtureRequest, instance: Instance, programs: None) -> Iterator[Inetd]:
    """Each of the two."""
    if shutil.which("apt-get") is None:
        pytest.skip("only Debian and Ubuntu have both")
    made = Inetd(instance)
    if request.param == "xinetd":
        need: Callable[[str], str] = request.getfixturevalue("need_program")
        made.adapt(CONTRIB / "xinetd/virtd")
        made.start(need("xinetd"), "-dontfork", "-f", str(made.config), "-pidfile", str(instance.root / "pid"))
    else:
        made.adapt(CONTRIB / "inetd/inetd.conf")
        program = REPOSITORY / ".venv/unpacked/usr/sbin/inetd"
        if not program.exists():
            request.getfixturevalue("need_program")("inetd")
            program = Path(shutil.which("inetd") or "")
        made.start(str(program), "-i", str(made.config))
    yield made
    made.stop()


def workers(instance: Instance) -> list[int]:
    """The virtds that serve somebody."""
    return [process.pid for process in instance.processes() if process.title.startswith("virtd: worker")]


def test_a_guest_by_virsh(inetd: Inetd, boot_disk: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "web.xml").write_text(xml.boot_domain("web", boot_disk()))
    inetd.virsh("define", str(tmp_path / "web.xml"))
    inetd.virsh("start", "web")
    assert inetd.virsh("list", "--name") == "web"
    talk(inetd.uri, inetd.instance, b"by inetd")
    # A daemon on the same directory sees the same guest.
    inetd.instance.start()
    assert inetd.instance.virsh("domstate", "web") == "running"
    inetd.virsh("destroy", "web")
    assert inetd.instance.virsh("list", "--all", "--inactive", "--name") == "web"
    inetd.virsh("undefine", "web")


def test_many_clients(inetd: Inetd) -> None:
    """Each has a process, which ends with it."""
    clients = [socket.create_connection(("127.0.0.1", inetd.port)) for _ in range(8)]
    answers = [inetd.virsh("list", "--all") for _ in range(2)]
    assert answers == ["", ""]
    pids = workers(inetd.instance)
    for client in clients:
        client.close()
    assert all(wait_ended(pid, 20) for pid in pids)


def test_an_address_that_everybody_reaches_is_refused(instance: Instance, serve_inetd: Callable[..., bytes]) -> None:
    assert serve_inetd("") == b""
    log = instance.root / "var/log/virtd/virtd.log"
    assert "is not served: it comes from another host, and virtd.conf does not set auth_tcp" in log.read_text()
    assert len(serve_inetd('auth_tcp = "none"\n')) > 28


@pytest.fixture
def serve_inetd(instance: Instance) -> Callable[..., bytes]:
    """Do what inetd does, for a client that came by an address of this host other than loopback."""
    from virtd.protocol.messages import make_call
    from virtd.protocol.programs import METHODS

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            own = probe.getsockname()[0]
        except OSError:
            pytest.skip("this host has no address but loopback")

    def serve(config: str) -> bytes:
        import subprocess

        (instance.root / "etc/virtd").mkdir(parents=True, exist_ok=True)
        (instance.root / "etc/virtd/virtd.conf").write_text(config)
        with socket.create_server((own, 0)) as server, socket.create_connection(server.getsockname()) as client:
            sock, _ = server.accept()
            command = [sys.executable, "-m", "virtd.server.main", "--root", str(instance.root), "--inetd"]
            with sock:
                running = subprocess.Popen(command, stdin=sock, stdout=sock, stderr=sock)
            client.sendall(make_call(METHODS["auth_list"], 1, ()).to_bytes())
            client.shutdown(socket.SHUT_WR)
            client.settimeout(20)
            heard = b""
            while True:
                try:
                    data = client.recv(4096)
                except ConnectionResetError:
                    break
                if not data:
                    break
                heard += data
            running.wait(20)
        return heard

    return serve
