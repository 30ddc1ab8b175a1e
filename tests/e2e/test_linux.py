"""A real operating system: Linux boots, speaks on its console, and shuts down when its power button is pressed."""

from __future__ import annotations

import pytest

from tests.e2e.guests import wait_off
from tests.guests.linux import READY, Guest
from tests.guests.xml import linux_domain
from tests.helpers.instance import Instance


@pytest.mark.parametrize("machine", ["q35"])
def test_linux(virtd: Instance, linux_guest: Guest, machine: str) -> None:
    virtd.define(linux_domain("linux", linux_guest, machine=machine))
    virtd.virsh("start", "linux", "--paused")
    with virtd.console("linux") as console:
        console.until(b"Escape character")
        virtd.virsh("resume", "linux")
        console.until(READY.encode(), 90)
        console.type(b"echo $((6 * 7)) on $(uname -s)\n")
        console.until(b"42 on Linux", 30)
        virtd.virsh("shutdown", "linux")
        assert console.until_end(60) == 0
    wait_off(virtd, "linux")
    assert virtd.virsh("domstate", "--reason", "linux") == "shut off (shutdown)"
