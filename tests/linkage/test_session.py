"""A user's server is started by libvirt's library itself when somebody asks for qemu:///session."""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guests import xml
from tests.guests.bootsector import write_boot_disk
from tests.helpers.instance import REPOSITORY, Instance
from tests.helpers.waiting import wait_ended
from tests.linkage.conftest import NOBODY, write_program


class User:
    """A user without privileges, with directories of their own, for whom nothing has ever been started."""

    def __init__(self, instance: Instance, need: Callable[[str], str]) -> None:
        self.instance = instance
        self.home = home = instance.root / "home"
        home.mkdir()
        (home / "lib").mkdir()
        self.log = home / "started"
        script = f'#!/bin/sh\necho "$@" >>{self.log}\n'
        script += f'PYTHONPATH={REPOSITORY} exec {sys.executable} -m virtd.server.main "$@"\n'
        write_program(home / "lib/libvirtd", script)
        self.become: list[str] = []
        if os.geteuid() == 0:
            self.become = [need("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            for path in (home, home / "lib", home / "lib/libvirtd"):
                os.chown(path, NOBODY, NOBODY)
        # The others of the XDG directories libvirt does not pass on.
        names = {"XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache"}
        for directory in names.values():
            (home / directory).mkdir()
            if self.become:
                os.chown(home / directory, NOBODY, NOBODY)
        self.environment = {
            **{name: str(home / directory) for name, directory in names.items()},
            "HOME": str(home),
            "LIBVIRTD_PATH": str(home / "lib"),
            "VIRTD_ROOT": "",
        }

    def virsh(self, *command: str) -> str:
        """Debian's virsh as this user."""
        run = [*self.become, "virsh", "--quiet", "-c", "qemu:///session", *command]
        return self.instance.run(*run, env=self.environment).stdout.strip()

    @property
    def pid(self) -> int:
        """The server that was started."""
        pid = self._listening()
        assert pid
        return pid

    def _listening(self) -> int:
        """The process that has made the socket (SO_PEERCRED, unix(7)); 0 if nobody serves it."""
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(self.home / "run/libvirt/libvirt-sock"))
            except OSError:
                return 0
            return struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]

    def stop(self) -> None:
        """End it."""
        if pid := self._listening():
            os.kill(pid, signal.SIGTERM)
            assert wait_ended(pid, 15)


@pytest.fixture
def user(request: pytest.FixtureRequest, instance: Instance, need_program: Callable[[str], str]) -> Iterator[User]:
    """A user."""
    if os.geteuid() == 0:
        request.getfixturevalue("nobody")
    need_program("virsh")
    made = User(instance, need_program)
    yield made
    made.stop()


def test_virsh_starts_it(user: User) -> None:
    assert user.virsh("uri") == "qemu:///session"
    assert user.log.read_text() == "--timeout=120\n"
    assert (user.home / "run/libvirt/libvirt-sock").stat().st_mode & 0o777 == 0o700
    disk = write_boot_disk(user.home / "boot.img", "virtd: booted", "serve")
    disk.chmod(0o666)
    (user.home / "web.xml").write_text(xml.boot_domain("web", disk))
    user.virsh("create", str(user.home / "web.xml"))
    assert user.virsh("list", "--name") == "web"
    [owner] = {Path(f"/proc/{pid}").stat().st_uid for pid in (user.pid, _qemu(user.instance))}
    assert owner == (NOBODY if os.geteuid() == 0 else os.geteuid())
    # The guest outlives the server, and the next client starts another.
    first = user.pid
    user.stop()
    assert user.virsh("list", "--name") == "web"
    assert user.pid != first
    assert user.log.read_text() == "--timeout=120\n" * 2
    user.virsh("destroy", "web")


def _qemu(instance: Instance) -> int:
    [pid] = [process.pid for process in instance.processes() if "qemu-system" in process.title.split()[0]]
    return pid


def test_what_it_says_is_in_a_file(user: User) -> None:
    """It is started without anybody who reads its standard error."""
    conf = user.home / "config/virtd/virtd.conf"
    conf.parent.mkdir()
    conf.write_text("max_workers = 7\n")
    if os.geteuid() == 0:
        os.chown(conf.parent, NOBODY, NOBODY)
    user.virsh("uri")
    [log] = user.home.rglob("virtd.log")
    assert "max_workers has no effect" in log.read_text()
