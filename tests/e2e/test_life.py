"""The life of a guest through Debian's virsh: every change is seen where libvirt shows it, with libvirt's words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.guests import Guest, qemu, wait_off
from tests.helpers.instance import Instance

UUID = "5d8d4e0d-6e4b-4a3f-9a0e-2b7f0a1c0001"


def state(virtd: Instance, name: str) -> str:
    """`virsh domstate --reason`."""
    return virtd.virsh("domstate", "--reason", name)


def test_from_define_to_undefine(virtd: Instance, new_guest: Callable[..., Guest]) -> None:
    guest = new_guest("web1", uuid=UUID)
    virtd.virsh("define", str(guest.file))
    assert state(virtd, "web1") == "shut off (unknown)"
    assert virtd.virsh("domid", "web1") == "-"
    assert virtd.virsh("domuuid", "web1") == UUID
    assert virtd.virsh("domname", UUID) == "web1"

    virtd.virsh("start", "web1")
    guest.wait()
    assert state(virtd, "web1") == "running (booted)"
    assert virtd.virsh("domname", virtd.virsh("domid", "web1")) == "web1"

    virtd.virsh("suspend", "web1")
    assert state(virtd, "web1") == "paused (user)"
    virtd.virsh("suspend", "web1")  # libvirt does not mind
    virtd.virsh("resume", "web1")
    assert state(virtd, "web1") == "running (unpaused)"

    virtd.virsh("destroy", "web1")
    assert state(virtd, "web1") == "shut off (destroyed)"
    assert virtd.virsh("domid", "web1") == "-"
    virtd.virsh("undefine", "web1")
    assert virtd.virsh("list", "--all", "--name") == ""


def test_the_power_button(virtd: Instance, running: Callable[..., Guest]) -> None:
    guest = running("web1")
    virtd.virsh("shutdown", "web1", "--mode", "acpi")
    guest.wait(b"[power button]")
    wait_off(virtd, "web1")
    assert state(virtd, "web1") == "shut off (shutdown)"


def test_a_guest_that_is_deaf_to_the_power_button_goes_on(virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1", then="ignore")
    virtd.virsh("shutdown", "web1")
    assert state(virtd, "web1") == "running (booted)"
    virtd.virsh("destroy", "web1", "--graceful")
    assert state(virtd, "web1") == "shut off (destroyed)"


def test_reboot_and_reset_keep_the_guest_and_its_id(virtd: Instance, running: Callable[..., Guest]) -> None:
    guest = running("web1")
    number, pid = virtd.virsh("domid", "web1"), qemu(virtd, "web1")
    virtd.virsh("reboot", "web1")
    guest.wait(times=2)
    assert guest.said().count(b"[power button]") == 1
    virtd.virsh("reset", "web1")
    guest.wait(times=3)
    assert guest.said().count(b"[power button]") == 1
    assert state(virtd, "web1") == "running (booted)"
    assert (virtd.virsh("domid", "web1"), qemu(virtd, "web1")) == (number, pid)
    # The reboot is over: the power button is a shutdown again.
    virtd.virsh("shutdown", "web1")
    wait_off(virtd, "web1")
    assert state(virtd, "web1") == "shut off (shutdown)"


def test_a_guest_that_powers_itself_off(virtd: Instance, defined: Callable[..., Guest]) -> None:
    defined("web1", then="poweroff")
    virtd.virsh("start", "web1", "--paused")
    assert state(virtd, "web1") == "paused (user)"
    virtd.virsh("resume", "web1")
    wait_off(virtd, "web1")
    assert state(virtd, "web1") == "shut off (shutdown)"


def test_a_transient_guest(virtd: Instance, new_guest: Callable[..., Guest]) -> None:
    guest = new_guest("web1", uuid=UUID)
    virtd.virsh("create", str(guest.file))
    guest.wait()
    assert virtd.virsh("list", "--transient", "--name").strip() == "web1"
    assert "Persistent:     no" in virtd.virsh("dominfo", "web1")
    # Defined while it runs, it becomes persistent; undefined, transient again.
    virtd.virsh("define", str(guest.file))
    assert "Persistent:     yes" in virtd.virsh("dominfo", "web1")
    virtd.virsh("undefine", "web1")
    assert state(virtd, "web1") == "running (booted)"
    assert virtd.virsh_error("undefine", "web1").endswith("cannot undefine transient domain")
    assert virtd.virsh_error("autostart", "web1").endswith("cannot set autostart for transient domain")
    virtd.virsh("destroy", "web1")
    assert virtd.virsh("list", "--all", "--name") == ""


def test_a_transient_guest_created_paused(virtd: Instance, new_guest: Callable[..., Guest]) -> None:
    guest = new_guest("web1")
    virtd.virsh("create", str(guest.file), "--paused")
    assert state(virtd, "web1") == "paused (user)"
    assert guest.said() == b""
    virtd.virsh("resume", "web1")
    guest.wait()


def test_a_defined_guest_can_be_started_from_other_xml(virtd: Instance, defined: Callable[..., Guest]) -> None:
    guest = defined("web1", uuid=UUID)
    guest.file.write_text(guest.xml.replace("<vcpu>1</vcpu>", "<vcpu>2</vcpu>"))
    virtd.virsh("create", str(guest.file))
    assert "CPU(s):         2" in virtd.virsh("dominfo", "web1")
    virtd.virsh("destroy", "web1")
    assert "CPU(s):         1" in virtd.virsh("dominfo", "web1")


def test_rename(virtd: Instance, defined: Callable[..., Guest]) -> None:
    defined("web1", uuid=UUID)
    defined("web2")
    virtd.virsh("autostart", "web1")
    virtd.virsh("domrename", "web1", "web3")
    assert virtd.virsh("domuuid", "web3") == UUID
    assert virtd.virsh("list", "--all", "--name").split() == ["web2", "web3"]
    assert virtd.virsh("list", "--all", "--autostart", "--name").split() == ["web3"]
    assert "<name>web3</name>" in virtd.virsh("dumpxml", "web3")
    assert virtd.virsh_error("domrename", "web3", "web2").endswith(
        "Requested operation is not valid: domain with name 'web2' already exists"
    )
    assert virtd.virsh_error("domrename", "web3", "web3").endswith("Can't rename domain to itself")
    virtd.virsh("start", "web3")
    assert virtd.virsh_error("domrename", "web3", "web4").endswith(
        "Requested operation is not valid: cannot rename active domain"
    )


def test_autostart_is_a_link_that_can_be_set_and_taken_away(virtd: Instance, defined: Callable[..., Guest]) -> None:
    defined("web1")
    assert "Autostart:      disable" in virtd.virsh("dominfo", "web1")
    virtd.virsh("autostart", "web1")
    virtd.virsh("autostart", "web1")
    assert "Autostart:      enable" in virtd.virsh("dominfo", "web1")
    virtd.virsh("autostart", "web1", "--disable")
    assert "Autostart:      disable" in virtd.virsh("dominfo", "web1")


def test_ids_are_not_used_twice(virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1")
    running("web2")
    first, second = int(virtd.virsh("domid", "web1")), int(virtd.virsh("domid", "web2"))
    virtd.virsh("destroy", "web2")
    virtd.virsh("start", "web2")
    assert first < second < int(virtd.virsh("domid", "web2"))


@pytest.mark.parametrize(
    ("machine", "bus"),
    [
        ("pc", "virtio"),
        ("pc", "ide"),
        ("pc", "sata"),
        ("pc", "scsi"),
        ("q35", "virtio"),
        ("q35", "sata"),
        ("q35", "scsi"),
    ],
)
def test_a_guest_boots_from_every_bus(running: Callable[..., Guest], machine: str, bus: str) -> None:
    guest = running("web1", machine=machine, bus=bus)
    assert guest.said().count(b"virtd: booted") == 1
