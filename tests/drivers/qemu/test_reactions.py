"""What becomes of a guest when QEMU reports something, event by event, as libvirt 9.0.0 tells of it."""

import pytest

from virtd import constants as c
from virtd.drivers.qemu.monitor.qmp import Event
from virtd.drivers.qemu.run.reactions import Reaction, react
from virtd.drivers.qemu.status import Status, decode

RUNNING = (c.VIR_DOMAIN_RUNNING, c.VIR_DOMAIN_RUNNING_BOOTED)


def running(**policy: str) -> Status:
    return Status(name="g", uuid="0" * 36, id=1, state=RUNNING[0], reason=RUNNING[1], started=1.0, policy=dict(policy))


def play(status: Status, *events: tuple[str, dict[str, object]]) -> list[Reaction]:
    return [react(status, Event(name, data, 10 + number)) for number, (name, data) in enumerate(events)]


def told(reactions: list[Reaction]) -> list[tuple[str, list[object]]]:
    return [event for reaction in reactions for event in reaction.events]


def test_a_pause_and_a_resume_take_the_reasons_that_were_left_for_them() -> None:
    status = running()
    status.expected = {"STOP": c.VIR_DOMAIN_PAUSED_USER}
    assert told(play(status, ("STOP", {}))) == [("lifecycle", [3, 0])]
    assert (status.state, status.reason) == (c.VIR_DOMAIN_PAUSED, c.VIR_DOMAIN_PAUSED_USER)
    assert told(play(status, ("RESUME", {}))) == [("lifecycle", [4, 0])]
    assert (status.state, status.reason) == (c.VIR_DOMAIN_RUNNING, c.VIR_DOMAIN_RUNNING_UNPAUSED)
    assert status.expected == {}


def test_an_event_that_changes_nothing_tells_nothing() -> None:
    status = running()
    assert told(play(status, ("RESUME", {}), ("NIC_RX_FILTER_CHANGED", {}))) == []
    assert (status.state, status.reason) == RUNNING


@pytest.mark.parametrize(("data", "detail"), [({"guest": True}, 1), ({"guest": False}, 2), ({}, 0)])
def test_a_shutdown_ends_qemu(data: dict[str, object], detail: int) -> None:
    status = running()
    reactions = play(status, ("SHUTDOWN", data), ("STOP", {}))
    assert told(reactions) == [("lifecycle", [6, detail])]
    assert reactions[0].end == c.VIR_DOMAIN_SHUTOFF_SHUTDOWN
    assert status.state == c.VIR_DOMAIN_SHUTDOWN


def test_a_guest_that_reboots_only_seems_to_shut_down() -> None:
    status = running()
    status.reboots = True
    reactions = play(status, ("SHUTDOWN", {"guest": True}), ("STOP", {}), ("RESET", {}), ("RESUME", {}))
    assert told(reactions) == [("reboot", [])]
    assert reactions[0].commands == ["system_reset", "cont"]
    assert (status.state, status.reason) == RUNNING
    assert not status.reboots


def test_on_poweroff_restart_brings_the_guest_back() -> None:
    status = running(poweroff="restart")
    reactions = play(status, ("SHUTDOWN", {"guest": True}), ("STOP", {}), ("RESET", {}), ("RESUME", {}))
    assert told(reactions) == [("reboot", [])]
    assert reactions[0].end is None
    assert status.state == c.VIR_DOMAIN_RUNNING


def test_a_reset_that_is_to_end_the_guest_is_a_shutdown() -> None:
    status = running(poweroff="restart", reboot="destroy")
    reactions = play(status, ("SHUTDOWN", {"guest": True, "reason": "guest-reset"}))
    assert told(reactions) == [("lifecycle", [6, 1])]
    assert reactions[0].end == c.VIR_DOMAIN_SHUTOFF_SHUTDOWN


@pytest.mark.parametrize(("action", "events"), [("destroy", []), ("preserve", [("lifecycle", [6, 2])])])
def test_the_end_of_a_crashed_guest_is_told_as_shutdown_only_if_somebody_else_ends_it(
    action: str, events: list[tuple[str, list[object]]]
) -> None:
    status = running(crash=action)
    play(status, ("GUEST_PANICKED", {"action": "pause"}), ("STOP", {}))
    assert told(play(status, ("SHUTDOWN", {"guest": False, "reason": "host-signal"}))) == events


@pytest.mark.parametrize(
    ("action", "end", "state"),
    [
        ("destroy", c.VIR_DOMAIN_SHUTOFF_CRASHED, c.VIR_DOMAIN_CRASHED),
        ("preserve", None, c.VIR_DOMAIN_CRASHED),
        ("restart", None, c.VIR_DOMAIN_RUNNING),
    ],
)
def test_a_panic_does_what_on_crash_says(action: str, end: int | None, state: int) -> None:
    status = running(crash=action)
    panic = play(status, ("GUEST_PANICKED", {"action": "pause"}), ("STOP", {}))
    assert told(panic) == [("lifecycle", [3, 0]), ("lifecycle", [8, 0])]
    assert panic[0].end == end
    if action == "restart":
        assert panic[0].commands == ["system_reset", "cont"]
        assert told(play(status, ("RESET", {}), ("RESUME", {}))) == [("reboot", []), ("lifecycle", [4, 0])]
        assert status.reason == c.VIR_DOMAIN_RUNNING_CRASHED
    assert status.state == state


def test_an_io_error_names_the_disk_and_pauses_with_its_reason() -> None:
    status = running()
    status.disks = {"libvirt-1-format": ["virtio-disk0", "/images/a.qcow2"]}
    data = {"node-name": "libvirt-1-format", "action": "stop", "nospace": True}
    assert told(play(status, ("BLOCK_IO_ERROR", data), ("STOP", {}))) == [
        ("io-error", ["/images/a.qcow2", "virtio-disk0", 1]),
        ("io-error-reason", ["/images/a.qcow2", "virtio-disk0", 1, "enospc"]),
        ("lifecycle", [3, 2]),
    ]
    assert status.reason == c.VIR_DOMAIN_PAUSED_IOERROR


def test_a_watchdog_that_pauses_is_the_reason_of_the_pause() -> None:
    status = running()
    assert told(play(status, ("WATCHDOG", {"action": "pause"}), ("STOP", {}))) == [
        ("watchdog", [1]),
        ("lifecycle", [3, 3]),
    ]


def test_the_balloon_is_kept_in_kib() -> None:
    status = running()
    assert told(play(status, ("BALLOON_CHANGE", {"actual": 33554432}))) == [("balloon-change", [32768])]
    assert status.memory == 32768


def test_devices_go_or_stay() -> None:
    """What a guest has let go of is told once; what it keeps, and how much it uses of a memory device, each time."""
    status = running()
    gone: tuple[str, dict[str, object]] = ("DEVICE_DELETED", {"device": "net0", "path": "/x"})
    assert told(play(status, gone, ("DEVICE_DELETED", {"path": "/y"}), gone)) == [("device-removed", ["net0"])]
    kept: tuple[str, dict[str, object]] = ("DEVICE_UNPLUG_GUEST_ERROR", {"device": "dimm0", "path": "/x"})
    assert told(play(status, kept)) == [("device-removal-failed", ["dimm0"])]
    assert told(play(status, ("MEMORY_DEVICE_SIZE_CHANGE", {"id": "virtiomem0", "size": 4096, "qom-path": "/x"}))) == [
        ("memory-device-size-change", ["virtiomem0", 4096])
    ]


def test_a_graphics_client_comes_with_its_addresses() -> None:
    data = {
        "server": {"auth": "none", "family": "ipv4", "service": "5901", "host": "0.0.0.0"},
        "client": {"family": "ipv4", "service": "58425", "host": "127.0.0.1", "sasl_username": "luke"},
    }
    assert told(play(running(), ("VNC_INITIALIZED", data))) == [
        ("graphics", [1, [0, "127.0.0.1", "58425"], [0, "0.0.0.0", "5901"], "none", [["saslUsername", "luke"]]])
    ]


def test_a_status_survives_its_file() -> None:
    status = running(crash="preserve")
    status.expected = {"STOP": 1}
    status.disks = {"node": ["alias", "path"]}
    status.ports = [5900]
    assert decode(status.encode()) == status
