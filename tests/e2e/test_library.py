"""The drivers as a library: what one process starts without any server, clients of a server see, and the reverse."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e import guests
from tests.e2e.events import Events, lifecycle
from tests.e2e.guests import PYTHON, Guest, qemu
from tests.helpers.instance import Instance


@pytest.fixture
def library(instance: Instance) -> Callable[..., str]:
    """library("start", "web1") -> what tests/e2e/library.py prints."""

    def library(*arguments: str) -> str:
        command = (PYTHON, "-m", "tests.e2e.library", f"qemu:///{instance.mode}", *arguments)
        return instance.run(*command).stdout.strip()

    return library


@contextmanager
def listening(instance: Instance, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process that uses the library and prints a guest's events; it listens already."""
    command = [PYTHON, "-m", "tests.e2e.library", f"qemu:///{instance.mode}", "events", name]
    with subprocess.Popen(command, env=instance.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_started_by_the_library_and_stopped_through_the_server(
    virtd: Instance, events: Events, defined: Callable[..., Guest], library: Callable[..., str]
) -> None:
    guest = defined("web1")
    events.take()
    library("start", "web1")
    guest.wait()
    number = int(virtd.virsh("domid", "web1"))
    assert events.take() == [lifecycle("web1", number, 4, 0), lifecycle("web1", number, 2, 0)]
    assert virtd.virsh("domstate", "--reason", "web1") == "running (booted)"
    assert virtd.virsh_error("start", "web1") == "Domain is already active"
    virtd.virsh("suspend", "web1")
    assert library("state", "web1") == "(3, 1)"
    with listening(virtd, "web1") as listener:
        virtd.virsh("destroy", "web1")
        assert listener.communicate(timeout=30)[0].split("\n")[:-1] == [f"web1 {number} 6 2", "web1 -1 5 1"]
    assert library("state", "web1") == "(5, 2)"


def test_started_through_the_server_and_stopped_by_the_library(
    virtd: Instance, events: Events, running: Callable[..., Guest], library: Callable[..., str]
) -> None:
    running("web1")
    number = int(virtd.virsh("domid", "web1"))
    assert f"web1:{number}" in library("list").split()
    events.take()
    library("destroy", "web1")
    assert events.take() == [lifecycle("web1", number, 6, 2), lifecycle("web1", -1, 5, 1)]
    assert virtd.virsh("domstate", "--reason", "web1") == "shut off (destroyed)"


def test_without_any_server(
    instance: Instance, library: Callable[..., str], need_program: Callable[[str], str]
) -> None:
    need_program("virsh")
    guest = guests.make(instance.root, "web1")
    instance.start()
    instance.virsh("define", str(guest.file))
    instance.stop()
    library("start", "web1")
    guest.wait()
    pid = qemu(instance, "web1")
    assert library("list") == "web1:1"
    assert {process.title.split()[0] for process in instance.processes()} == {"virtd:", guests.EMULATOR}
    # A server that comes later finds it.
    instance.start()
    assert instance.virsh("domid", "web1") == "1"
    assert qemu(instance, "web1") == pid
    instance.stop()
    library("destroy", "web1")
    assert instance.processes() == []
