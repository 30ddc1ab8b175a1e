"""The one-sector guest does in plain QEMU what the tests of virtd rely on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guests import bootsector
from tests.guests.bootsector import assemble, boot_sector
from tests.guests.qemu import Qemu, disk

MACHINES = ("pc", "q35")
BOOTED = bootsector.MESSAGE.encode() + b"\r\n"


@pytest.fixture(autouse=True)
def _qemu(need_program: Callable[[str], str]) -> None:
    need_program("qemu-system-x86_64")


@pytest.mark.parametrize("machine", MACHINES)
def test_serves_bytes_keys_nmi_and_the_power_button(boot_disk: Callable[..., Path], machine: str) -> None:
    with Qemu(*disk(boot_disk()), machine=machine) as qemu:
        qemu.command("cont")
        qemu.until(BOOTED)
        qemu.send(b"hello")
        qemu.until(b"hello")
        qemu.command("send-key", keys=[{"type": "qcode", "data": "a"}])
        qemu.until(b"[key 1E][key 9E]")
        qemu.command("inject-nmi")
        qemu.until(b"[nmi]")
        qemu.command("system_powerdown")
        qemu.until(b"[power button]")
        assert qemu.event("SHUTDOWN") == {"guest": True, "reason": "guest-shutdown"}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("action", "order"),
    [("serve", bootsector.POWER_OFF), ("ignore", bootsector.POWER_OFF), ("poweroff", b"")],
)
def test_powers_off(boot_disk: Callable[..., Path], machine: str, action: str, order: bytes) -> None:
    with Qemu(*disk(boot_disk(action)), machine=machine) as qemu:
        qemu.command("cont")
        qemu.until(BOOTED)
        qemu.send(order)
        assert qemu.event("SHUTDOWN") == {"guest": True, "reason": "guest-shutdown"}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("action", "order"), [("serve", bootsector.REBOOT), ("reboot", b"")])
def test_reboots(boot_disk: Callable[..., Path], machine: str, action: str, order: bytes) -> None:
    with Qemu(*disk(boot_disk(action)), machine=machine) as qemu:
        qemu.command("cont")
        qemu.until(BOOTED)
        qemu.send(order)
        assert qemu.event("RESET") == {"guest": True, "reason": "guest-reset"}
        qemu.until(BOOTED + BOOTED)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("action", "order"), [("serve", bootsector.PANIC), ("panic", b"")])
def test_panics(boot_disk: Callable[..., Path], machine: str, action: str, order: bytes) -> None:
    with Qemu(*disk(boot_disk(action)), "-device", "pvpanic", machine=machine) as qemu:
        qemu.command("cont")
        qemu.until(BOOTED)
        qemu.send(order)
        assert qemu.event("GUEST_PANICKED")["action"] == "pause"


@pytest.mark.parametrize("action", ["ignore", "halt"])
def test_does_not_react_to_the_power_button(boot_disk: Callable[..., Path], action: str) -> None:
    with Qemu(*disk(boot_disk(action))) as qemu:
        qemu.command("cont")
        qemu.until(BOOTED)
        qemu.command("system_powerdown")
        qemu.event("POWERDOWN")
        if action == "ignore":
            qemu.send(b"still here")
            qemu.until(b"still here")
        assert qemu.command("query-status")["status"] == "running"


def test_prints_the_message_it_is_given(boot_disk: Callable[..., Path]) -> None:
    message = "the longest line that fits on a screen ".ljust(80, ".")
    with Qemu(*disk(boot_disk(message=message))) as qemu:
        qemu.command("cont")
        qemu.until(message.encode() + b"\r\n")


def test_is_a_boot_sector_with_room_for_a_partition_table() -> None:
    sector = boot_sector()
    assert len(sector) == 512
    assert sector[-2:] == b"\x55\xaa"
    assert not any(sector[446:-2])


def test_refuses_a_message_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="shorten"):
        boot_sector("x" * 200)


def test_assembler_resolves_labels_and_refuses_what_is_too_far() -> None:
    code = assemble(
        "a: 90 ; nop\n eb a~1\n e9 other~2\n be text@", 0x100, strings={"text": "T"}, aliases={"other": "a"}
    )
    assert code == bytes.fromhex("90 ebfd e9faff be0901") + b"T\0"
    far = "a: " + "90 " * 200 + "eb a~1"
    with pytest.raises(ValueError, match="too far"):
        assemble(far, 0, strings={}, aliases={})
