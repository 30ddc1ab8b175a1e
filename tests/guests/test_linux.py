"""The Linux guest does in plain QEMU what the tests of virtd rely on."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.guests import linux
from tests.guests.qemu import Qemu


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_boots_to_a_shell_with_network_and_heeds_the_power_button(
    linux_guest: linux.Guest, need_program: Callable[[str], str], machine: str
) -> None:
    need_program("qemu-system-x86_64")
    with Qemu(
        "-kernel", str(linux_guest.kernel), "-initrd", str(linux_guest.initrd),
        "-append", linux_guest.command_line("virtd.net=dhcp", "virtd.run=echo_said_$((6*7))"),
        "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net",
        machine=machine, memory_mib=192,
    ) as qemu:  # fmt: skip
        qemu.command("cont")
        qemu.until(b"virtd: address 10.0.2.15", 60)
        qemu.until(linux.READY.encode())
        qemu.until(b"said 42")
        qemu.send(b"echo shell $((7*6))\n")
        qemu.until(b"shell 42")
        qemu.command("system_powerdown")
        assert qemu.event("SHUTDOWN") == {"guest": True, "reason": "guest-shutdown"}


def test_is_built_once_and_readable_by_everybody(linux_guest: linux.Guest) -> None:
    before = [path.stat().st_mtime_ns for path in linux_guest]
    with ProcessPoolExecutor(2) as pool:
        again = list(pool.map(_build, range(4)))
    assert again == [linux_guest] * 4
    assert [path.stat().st_mtime_ns for path in linux_guest] == before
    assert all(path.stat().st_mode & 0o004 for path in linux_guest)
    assert linux_guest.initrd.parent.stat().st_uid == os.getuid()


def _build(_number: int) -> linux.Guest:
    return linux.build()
