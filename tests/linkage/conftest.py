"""A real sshd on loopback, for one instance of virtd: own keys, own configuration, own port."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.guests import appears
from tests.helpers.console import Console
from tests.helpers.instance import REPOSITORY, Instance
from tests.helpers.processes import end
from tests.helpers.waiting import wait_ended
from virtd.drivers.base import Context, Identity
from virtd.state import paths

NOBODY = 65534

_SERVER = """\
ListenAddress 127.0.0.1
Port {port}
PidFile {here}/pid
HostKey {here}/host
AuthorizedKeysFile {here}/client.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv PATH={here}/far:/usr/bin:/bin VIRTD_ROOT={root}
"""

_CLIENT = """\
Host far
    HostName 127.0.0.1
    Port {port}
Host *
    IdentityFile {here}/client
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {here}/known_hosts
    GlobalKnownHostsFile /dev/null
"""


def free_port() -> int:
    """A port on which nobody listens just now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def write_program(path: Path, text: str) -> Path:
    """Write an executable file."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def talk(uri: str, instance: Instance, text: bytes) -> None:
    """`virsh console` of the guest "web" by a URI: the guest says something, and is said something, and answers.

    virsh does not say when it has the console, and the terminal itself would answer till then: so the guest is made to
    say something (a non-maskable interrupt does it) until that comes.
    """
    with Console(["virsh", "-c", uri, "console", "web"], env=instance.environment) as console:
        while not appears(console, b"[nmi]"):
            instance.run("virsh", "-c", uri, "inject-nmi", "web")
        console.type(text)
        console.until(text)
        console.leave()


class Sshd:
    """A running sshd, whose sessions work with an instance's root.

    Attributes:
        command: an `ssh` with a configuration of its own, as ?command= takes it. For it the server is called "far".
    """

    def __init__(self, instance: Instance, need: Callable[[str], str]) -> None:
        self.instance = instance
        self.here = here = instance.root / "ssh"
        here.mkdir()
        (here / "far").mkdir()
        self.helper = write_program(
            here / "far/virt-ssh-helper",
            f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m virtd.server.sshhelper "$@"\n',
        )
        for key in ("host", "client"):
            instance.run(need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(here / key))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # as the package's service does
        self.port = self._start(need("sshd"))
        words = (here / "host.pub").read_text().split()
        (here / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {words[0]} {words[1]}\n")
        (here / "config").write_text(_CLIENT.format(port=self.port, here=here))
        self.command = write_program(here / "ssh", f'#!/bin/sh\nexec {need("ssh")} -F {here}/config "$@"\n')

    def _start(self, program: str) -> int:
        """Start sshd; returns when it listens."""
        said = self.here / "said"
        os.mkfifo(said)
        reader = os.open(said, os.O_RDWR)
        with open(reader, "rb") as lines:
            while True:
                port = free_port()
                (self.here / "sshd_config").write_text(
                    _SERVER.format(port=port, here=self.here, root=self.instance.root)
                )
                run = f"{program} -D -e -f {self.here}/sshd_config 2<>{shlex.quote(str(said))} </dev/null >/dev/null &"
                self.instance.run("sh", "-c", run)
                for line in lines:
                    if b"Server listening" in line:
                        return port
                    if b"Cannot bind" in line:
                        break

    def uri(self, *options: str, path: str = "", host: str = "far") -> str:
        """A URI by which a client comes to the instance."""
        wanted = "&".join((f"command={self.command}", *options))
        return f"qemu+ssh://{host}/{path or self.instance.mode}?{wanted}"

    @property
    def pid(self) -> int:
        """The listening process."""
        return int((self.here / "pid").read_text())

    def sessions(self) -> list[int]:
        """The processes of sshd that serve somebody, the innermost last."""
        return sorted(process.pid for process in self.instance.processes() if process.title.startswith("sshd: "))

    def stop(self) -> None:
        """End it. Sessions that have lost their clients end by themselves."""
        sessions = [pid for pid in self.sessions() if pid != self.pid]
        for pid in sessions:
            wait_ended(pid, 10)
        end([self.pid])


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs for administrators are found, too."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")


@pytest.fixture
def sshd(instance: Instance, need_program: Callable[[str], str], programs: None) -> Iterator[Sshd]:
    """A running sshd for an instance, for which no virtd runs yet."""
    made = Sshd(instance, need_program)
    yield made
    made.stop()


@pytest.fixture
def nobody() -> int:
    """A user without privileges whom root can become, if that user can run this Python and this virtd."""
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable]
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import virtd.server.main"
    if subprocess.run([*command, "-c", code], capture_output=True, cwd="/", check=False).returncode:
        pytest.skip(f"nobody but root can run {sys.executable} and read {REPOSITORY}")
    return NOBODY


@pytest.fixture
def context(instance: Instance) -> Context:
    """What a driver is told of a connection that a test opens."""
    identity = Identity(os.getuid(), os.getgid(), os.getpid(), "local")
    return Context(paths.below(str(instance.root)), identity, os.getpid())
