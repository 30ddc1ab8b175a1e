"""Events as libvirt 9.0.0 gives them: which, of what detail, with which id, in which order, to every subscriber."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.e2e.events import Event, Events, lifecycle, stopped
from tests.e2e.guests import Guest, appears, console, qemu
from tests.guests.bootsector import PANIC, POWER_OFF, REBOOT
from tests.helpers.console import Console
from tests.helpers.instance import Instance
from tests.helpers.waiting import SECONDS

DEFINED, UNDEFINED, STARTED, SUSPENDED, RESUMED, STOPPED, SHUTDOWN, CRASHED = 0, 1, 2, 3, 4, 5, 6, 8


def without_repeats(found: list[Event]) -> list[Event]:
    """REBOOT comes once for each reset of the machine, and SeaBIOS resets it again as it likes."""
    return [event for index, event in enumerate(found) if index == 0 or event != found[index - 1]]


def kinds(found: list[Event]) -> list[tuple[Any, ...]]:
    """The events without names and ids."""
    return [event.values if event.kind == "LIFECYCLE" else (event.kind,) for event in without_repeats(found)]


def test_the_life_of_a_guest(virtd: Instance, events: Events, new_guest: Callable[..., Guest]) -> None:
    guest = new_guest("web1", uuid="5d8d4e0d-6e4b-4a3f-9a0e-2b7f0a1c0001")
    events.take()

    virtd.virsh("define", str(guest.file))
    virtd.virsh("define", str(guest.file))
    assert events.take() == [lifecycle("web1", -1, DEFINED, 0), lifecycle("web1", -1, DEFINED, 1)]
    virtd.virsh("domrename", "web1", "web2")
    assert events.take() == [lifecycle("web1", -1, UNDEFINED, 1), lifecycle("web2", -1, DEFINED, 2)]
    virtd.virsh("domrename", "web2", "web1")
    virtd.virsh("autostart", "web1")
    assert len(events.take()) == 2  # of the rename: setting autostart tells nobody

    virtd.virsh("start", "web1")
    number = int(virtd.virsh("domid", "web1"))
    assert events.take() == [lifecycle("web1", number, RESUMED, 0), lifecycle("web1", number, STARTED, 0)]
    virtd.virsh("suspend", "web1")
    virtd.virsh("suspend", "web1")
    virtd.virsh("resume", "web1")
    assert events.take() == [lifecycle("web1", number, SUSPENDED, 0), lifecycle("web1", number, RESUMED, 0)]
    virtd.virsh("define", str(guest.file))
    virtd.virsh("undefine", "web1")
    virtd.virsh("define", str(guest.file))
    assert events.take() == [
        lifecycle("web1", number, DEFINED, 1),
        lifecycle("web1", number, UNDEFINED, 0),
        lifecycle("web1", number, DEFINED, 1),
    ]
    virtd.virsh_error("start", "web1")
    virtd.virsh("inject-nmi", "web1")
    virtd.virsh("send-key", "web1", "KEY_A")
    assert events.take() == []
    virtd.virsh("destroy", "web1")
    assert events.take() == [lifecycle("web1", number, SHUTDOWN, 2), lifecycle("web1", -1, STOPPED, 1)]
    virtd.virsh("undefine", "web1")
    assert events.take() == [lifecycle("web1", -1, UNDEFINED, 0)]


def test_started_paused(virtd: Instance, events: Events, defined: Callable[..., Guest]) -> None:
    defined("web1")
    events.take()
    virtd.virsh("start", "web1", "--paused")
    number = int(virtd.virsh("domid", "web1"))
    assert events.take() == [lifecycle("web1", number, STARTED, 0), lifecycle("web1", number, SUSPENDED, 0)]
    virtd.virsh("reset", "web1")
    assert events.take() == [Event("REBOOT", "web1", number, ())]


def test_shutdown_by_the_power_button(virtd: Instance, events: Events, running: Callable[..., Guest]) -> None:
    running("web1")
    number = int(virtd.virsh("domid", "web1"))
    events.take()
    virtd.virsh("shutdown", "web1")
    assert events.take(stopped) == [lifecycle("web1", number, SHUTDOWN, 1), lifecycle("web1", number, STOPPED, 0)]


def test_reset_and_reboot(virtd: Instance, events: Events, running: Callable[..., Guest]) -> None:
    guest = running("web1")
    number = int(virtd.virsh("domid", "web1"))
    events.take()
    for times, command in enumerate(("reset", "reboot"), start=2):
        virtd.virsh(command, "web1")
        guest.wait(times=times)
        assert without_repeats(events.take(bool)) == [Event("REBOOT", "web1", number, ())]


def test_a_killed_qemu(virtd: Instance, events: Events, running: Callable[..., Guest]) -> None:
    running("web1")
    number = int(virtd.virsh("domid", "web1"))
    events.take()
    os.kill(qemu(virtd, "web1"), signal.SIGKILL)
    assert events.take(stopped) == [lifecycle("web1", number, STOPPED, 5)]
    assert virtd.virsh("domstate", "--reason", "web1") == "shut off (crashed)"


@pytest.mark.parametrize(
    ("policy", "key", "expected", "state"),
    [
        ("", POWER_OFF, [(SHUTDOWN, 1), (STOPPED, 0)], "shut off (shutdown)"),
        ("<on_poweroff>restart</on_poweroff>", POWER_OFF, [("REBOOT",)], "running (booted)"),
        ("", REBOOT, [("REBOOT",)], "running (booted)"),
        ("<on_reboot>destroy</on_reboot>", REBOOT, [(SHUTDOWN, 1), (STOPPED, 0)], "shut off (shutdown)"),
        (
            "<on_crash>destroy</on_crash>",
            PANIC,
            [(SUSPENDED, 0), (CRASHED, 0), (STOPPED, 2)],
            "shut off (crashed)",
        ),
        (
            "<on_crash>restart</on_crash>",
            PANIC,
            [(SUSPENDED, 0), (CRASHED, 0), ("REBOOT",), (RESUMED, 0), ("REBOOT",)],
            "running (crashed)",
        ),
        ("<on_crash>preserve</on_crash>", PANIC, [(SUSPENDED, 0), (CRASHED, 0)], "crashed (panicked)"),
    ],
)
def test_what_a_guest_does_itself(
    virtd: Instance,
    events: Events,
    defined: Callable[..., Guest],
    policy: str,
    key: bytes,
    expected: list[tuple[Any, ...]],
    state: str,
) -> None:
    defined("web1", console=True, head=policy)
    virtd.virsh("start", "web1")
    with console(virtd, "web1") as terminal:
        events.take()
        terminal.type(key)
        if state.startswith("running"):
            terminal.until(b"virtd: booted")
        found = events.take(lambda found: kinds(found)[: len(expected)] == expected)
    assert kinds(found) == expected
    assert virtd.virsh("domstate", "--reason", "web1") == state


def test_metadata(virtd: Instance, events: Events, defined: Callable[..., Guest]) -> None:
    defined("web1")
    events.take()
    for _ in range(2):  # libvirt tells of it also when nothing has changed
        virtd.virsh("desc", "web1", "--title", "--new-desc", "the first")
    virtd.virsh("desc", "web1", "--new-desc", "a description")
    virtd.virsh("metadata", "web1", "http://example.org/1", "--key", "k", "--set", "<e/>")
    assert events.take() == [
        Event("METADATA_CHANGE", "web1", -1, (1, None)),
        Event("METADATA_CHANGE", "web1", -1, (1, None)),
        Event("METADATA_CHANGE", "web1", -1, (0, None)),
        Event("METADATA_CHANGE", "web1", -1, (2, "http://example.org/1")),
    ]


def test_every_subscriber_gets_every_event(
    virtd: Instance, libvirt: ModuleType, connect: Callable[..., Any], events: Events, defined: Callable[..., Guest]
) -> None:
    read_only = libvirt.openReadOnly(virtd.uri_ro)
    subscribers = [events, Events(libvirt, connect(), virtd, older=True), Events(libvirt, read_only, virtd)]
    defined("web1")
    for subscriber in subscribers:
        subscriber.take()
    virtd.virsh("start", "web1")
    virtd.virsh("destroy", "web1")
    expected, *others = [subscriber.take() for subscriber in subscribers]
    assert [event.values for event in expected] == [(RESUMED, 0), (STARTED, 0), (SHUTDOWN, 2), (STOPPED, 1)]
    assert others == [expected, expected]
    read_only.close()


def test_of_one_guest_only(
    virtd: Instance, libvirt: ModuleType, connection: Any, defined: Callable[..., Guest]
) -> None:
    defined("web1")
    defined("web2")
    events = Events(libvirt, connection, virtd, connection.lookupByName("web1"))
    for name in ("web2", "web1"):
        virtd.virsh("start", name)
        virtd.virsh("destroy", name)
    assert [event.guest for event in events.take()] == ["web1"] * 4


def test_no_more_after_the_end_of_the_subscription(
    virtd: Instance, libvirt: ModuleType, connection: Any, events: Events, defined: Callable[..., Guest]
) -> None:
    defined("web1")
    ended = Events(libvirt, connection, virtd)
    for callback in ended.callbacks:
        connection.domainEventDeregisterAny(callback)
    kept = Events(libvirt, connection, virtd)
    virtd.virsh("start", "web1", "--paused")
    assert [event.values for event in kept.take()] == [(STARTED, 0), (SUSPENDED, 0)]
    ended.wait(lambda found: found == [])


def test_none_is_lost_while_the_client_is_busy(
    virtd: Instance, libvirt: ModuleType, connect: Callable[..., Any], defined: Callable[..., Guest]
) -> None:
    # The client does not read for as long as its callback waits; its socket holds only some of what comes.
    defined("web1")
    connection, go_on, busy = connect(), threading.Event(), threading.Event()

    def wait(_connection: Any, _guest: Any, *_values: Any) -> None:
        busy.set()
        assert go_on.wait(SECONDS)

    events = Events(libvirt, connection, virtd)
    connection.domainEventRegister(wait, None)
    virtd.virsh("start", "web1", "--paused")
    assert busy.wait(SECONDS)
    # Together they are much longer than what a socket holds.
    expected = [f"http://example.org/{number % 2}/{'x' * 20000}" for number in range(40)]
    other = libvirt.open(virtd.uri)
    guest = other.lookupByName("web1")
    for uri in expected:
        guest.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "<e/>", "k", uri)
    other.close()
    go_on.set()
    found = [event.values for event in events.take() if event.kind == "METADATA_CHANGE"]
    assert found == [(libvirt.VIR_DOMAIN_METADATA_ELEMENT, uri) for uri in expected]


def test_virsh_event_shows_them(virtd: Instance, events: Events, defined: Callable[..., Guest]) -> None:
    defined("web1")
    command = ["virsh", "-c", virtd.uri, "event", "--all", "--loop"]
    with Console(command, env=virtd.environment) as shown:
        # virsh does not say when it has subscribed: the first event that it shows is the first one that counts.
        while not appears(shown, b"event 'metadata-change'"):
            virtd.virsh("desc", "web1", "--title", "--new-desc", "a title")
        virtd.virsh("start", "web1")
        virtd.virsh("suspend", "web1")
        virtd.virsh("resume", "web1")
        virtd.virsh("destroy", "web1")
        virtd.virsh("undefine", "web1")
        shown.until(b"Undefined Removed")
        shown.process.send_signal(signal.SIGINT)
        assert shown.until_end() == 0
    lines = [line for line in shown.output.decode().split("\r\n") if "'lifecycle'" in line]
    assert [line.removeprefix("event 'lifecycle' for domain 'web1': ") for line in lines] == [
        "Resumed Unpaused",
        "Started Booted",
        "Suspended Paused",
        "Resumed Unpaused",
        "Shutdown Finished after host request",
        "Stopped Destroyed",
        "Undefined Removed",
    ]


def test_virsh_shows_qemus_own_events(virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1")
    command = ["virsh", "-c", virtd.uri, "qemu-monitor-event", "web1", "--event", "stop", "--no-case", "--loop"]
    with Console(command, env=virtd.environment) as shown:
        while not appears(shown, b"event STOP"):
            virtd.virsh("suspend", "web1")
            virtd.virsh("resume", "web1")
        shown.process.send_signal(signal.SIGINT)
        assert shown.until_end() == 0
    lines = [line for line in shown.output.decode().split("\r\n") if line.startswith("event STOP")]
    wanted = re.compile(r"event STOP at \d+\.\d{6} for domain 'web1': <null>")
    assert [line for line in lines if wanted.fullmatch(line) is None] == []


def test_virsh_shows_that_a_disk_was_written_beyond_a_mark(virtd: Instance, running: Callable[..., Guest]) -> None:
    guest = running("web1")
    write = 'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write 4096 512"'
    command = ["virsh", "-c", virtd.uri, "event", "--event", "block-threshold", "--loop"]
    with Console(command, env=virtd.environment) as shown:
        while not appears(shown, b"event 'block-threshold'"):
            virtd.virsh("domblkthreshold", "web1", "vda", "4096")
            virtd.virsh("qemu-monitor-command", "web1", "--hmp", write)
        shown.process.send_signal(signal.SIGINT)
        assert shown.until_end() == 0
    assert f"dev: vda({guest.disk}) 4096 512".encode() in shown.output
