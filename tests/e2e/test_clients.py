"""How clients come, and how they go: TCP, and every way of vanishing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from tests.e2e import guests
from tests.e2e.events import Events, lifecycle, stopped
from tests.e2e.guests import Guest, processes, qemu, wait_off
from tests.helpers.instance import Instance
from tests.helpers.waiting import SECONDS, wait_ended, wait_for


def free_port() -> int:
    """A TCP port of this host that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def interactive(virtd: Instance, *command: str) -> Iterator[subprocess.Popen[str]]:
    """An interactive virsh that is given a command, and then waits for the next one."""
    with subprocess.Popen(
        ["virsh", "--quiet", "--connect", virtd.uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=virtd.environment,
    ) as virsh:
        assert virsh.stdin is not None
        try:
            virsh.stdin.write(f"{' '.join(command)}\n")
            virsh.stdin.flush()
            yield virsh
        finally:
            virsh.kill()


def test_tcp(instance: Instance) -> None:
    port = free_port()
    instance.start("--listen-tcp", f"127.0.0.1:{port}")
    guest = guests.make(instance.root, "web1")
    uri = f"qemu+tcp://127.0.0.1:{port}/{instance.mode}"

    def virsh(*command: str) -> str:
        return instance.run("virsh", "--quiet", "--connect", uri, *command).stdout.strip()

    virsh("define", str(guest.file))
    virsh("start", "web1")
    guest.wait()
    assert virsh("list", "--name") == instance.virsh("list", "--name") == "web1"
    assert instance.virsh("domstate", "web1") == "running"
    virsh("suspend", "web1")
    virsh("destroy", "web1")
    assert virsh("domstate", "--reason", "web1") == "shut off (destroyed)"


def test_tcp_is_not_offered_to_the_world_unasked(instance: Instance) -> None:
    result = instance.start("--listen-tcp", f"0.0.0.0:{free_port()}", check=False)
    assert result.returncode != 0
    assert "auth_tcp" in result.stderr
    assert instance.pid is None


@pytest.mark.parametrize("command", [["start", "web1"], ["create", "XML"]])
def test_autodestroy_ends_the_guest_with_its_client(
    virtd: Instance, defined: Callable[..., Guest], new_guest: Callable[..., Guest], events: Events, command: list[str]
) -> None:
    guest = defined("web1") if command[0] == "start" else new_guest("web1")
    command = [str(guest.file) if word == "XML" else word for word in command]
    events.take()
    with interactive(virtd, *command, "--autodestroy") as virsh:
        guest.wait()
        pid, number = qemu(virtd, "web1"), int(virtd.virsh("domid", "web1"))
        # Other clients come and go, and change nothing.
        virtd.virsh("suspend", "web1")
        virtd.virsh("resume", "web1")
        assert not wait_ended(pid, 0)
        events.take()
        virsh.kill()
        assert wait_ended(pid, SECONDS)
    assert events.take(stopped) == [lifecycle("web1", number, 6, 2), lifecycle("web1", -1, 5, 1)]
    if command[0] == "start":
        assert virtd.virsh("domstate", "--reason", "web1") == "shut off (destroyed)"
    else:
        assert virtd.virsh("list", "--all", "--name") == "fence"


def test_autodestroy_on_a_connection_that_is_closed(
    virtd: Instance, libvirt: ModuleType, defined: Callable[..., Guest]
) -> None:
    defined("web1")
    connection = libvirt.open(virtd.uri)
    guest = connection.lookupByName("web1")
    guest.createWithFlags(libvirt.VIR_DOMAIN_START_AUTODESTROY)
    del guest
    assert connection.close() == 0
    wait_off(virtd, "web1")
    # Without it a guest stays.
    virtd.virsh("start", "web1")
    assert virtd.virsh("list", "--name") == "web1"


@pytest.fixture
def gate(virtd: Instance) -> Path:
    """A FIFO. Whoever starts the emulator beside it opens it for writing, and waits for its reader."""
    path = virtd.root / "guests"
    path.mkdir()
    path.chmod(0o777)
    os.mkfifo(path / "gate")
    (path / "gate").chmod(0o666)
    real = shutil.which("qemu-system-x86_64")
    emulator = path / "qemu-system-x86_64"
    # Probing, which starts it without a name, goes straight through.
    emulator.write_text(f'#!/bin/sh\ncase " $* " in *" -name "*) echo > {path}/gate ;; esac\nexec {real} "$@"\n')
    emulator.chmod(0o755)
    return path / "gate"


def test_a_client_that_vanishes_in_the_middle_of_a_start(
    virtd: Instance, gate: Path, defined: Callable[..., Guest]
) -> None:
    guest = defined("web1", devices=f"<emulator>{gate.with_name('qemu-system-x86_64')}</emulator>")
    with subprocess.Popen(["virsh", "--connect", virtd.uri, "start", "web1"], env=virtd.environment) as virsh:
        wait_for(lambda: processes(virtd, "echo > ") or processes(virtd, "/bin/sh"), "an emulator that waits")
        virsh.kill()
    # While it starts, it is nobody's, and everybody else is served.
    assert virtd.virsh("list", "--all", "--name") == "web1"
    with open(gate, encoding="ascii") as file:
        file.read()
    guest.wait()
    wait_for(lambda: virtd.virsh("domstate", "web1") == "running", "a guest that runs")
    assert virtd.virsh_error("start", "web1") == "Domain is already active"
    virtd.virsh("suspend", "web1")
    virtd.virsh("destroy", "web1")


def test_the_worker_is_killed_in_the_middle_of_a_start(
    virtd: Instance, gate: Path, defined: Callable[..., Guest]
) -> None:
    defined("web1", devices=f"<emulator>{gate.with_name('qemu-system-x86_64')}</emulator>")
    with subprocess.Popen(
        ["virsh", "--connect", virtd.uri, "start", "web1"], env=virtd.environment, stderr=subprocess.DEVNULL
    ) as virsh:
        wait_for(lambda: processes(virtd, "/bin/sh"), "an emulator that waits")
        assert virtd.kill("DomainCreate web1")
        assert virsh.wait(10) == 1
    # The supervisor undoes what its starter left.
    wait_for(lambda: not processes(virtd, "virtd: guest web1"), "the end of the supervisor")
    assert processes(virtd, "/bin/sh") == []
    assert virtd.virsh("domstate", "--reason", "web1") == "shut off (unknown)"
    virtd.virsh("undefine", "web1")
    assert virtd.virsh("list", "--all", "--name") == ""


def test_many_clients_that_are_killed(virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1")
    for _ in range(3):
        clients = [
            subprocess.Popen(
                ["virsh", "--connect", virtd.uri, "event", "--all", "--loop"],
                env=virtd.environment,
                stdout=subprocess.DEVNULL,
            )
            for _ in range(6)
        ]
        virtd.virsh("suspend", "web1")
        virtd.virsh("resume", "web1")
        for client in clients:
            client.kill()
            client.wait()
    assert virtd.virsh("list", "--name") == "web1"
    wait_for(lambda: re.search(r"\(0 clients", guests.processes(virtd, "virtd: accepting")[0].title), "no clients")
    assert len(processes(virtd, "virtd: worker")) == 0


def test_a_server_for_one_client_on_its_standard_input(instance: Instance) -> None:
    # As ssh and inetd start it; virsh has a transport that runs any command.
    script = instance.root / "serve"
    script.write_text(f"#!/bin/sh\nexec {guests.PYTHON} -m virtd.server.main --root {instance.root} --inetd\n")
    script.chmod(0o755)
    guest = guests.make(instance.root, "web1")
    uri = f"qemu+ext:///{instance.mode}?command={script}"

    def virsh(*command: str) -> str:
        return instance.run("virsh", "--quiet", "--connect", uri, *command).stdout.strip()

    virsh("define", str(guest.file))
    virsh("start", "web1")
    guest.wait()
    assert virsh("list", "--name") == "web1"
    wait_for(lambda: not processes(instance, "virtd: worker"), "no workers, who end with their clients")
    assert [process.title for process in processes(instance, "virtd:")] == ["virtd: guest web1"]
    virsh("suspend", "web1")
    assert virsh("domstate", "--reason", "web1") == "paused (user)"
    virsh("destroy", "web1")
    wait_for(lambda: not instance.processes(), "nothing that is left")
