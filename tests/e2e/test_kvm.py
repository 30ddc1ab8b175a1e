"""Guests of type kvm: they run where /dev/kvm really works, and are refused at once, with the reason, elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from xml.etree import ElementTree

from tests.e2e.guests import Guest
from tests.helpers.instance import Instance

PROMPT = 15.0  # seconds; looking for what KVM does takes 2, and is done once


def test_kvm(virtd: Instance, new_guest: Callable[..., Guest]) -> None:
    guest = new_guest("web1", kind="kvm")
    begin = time.monotonic()
    result = virtd.virsh_result("define", str(guest.file))
    if result.returncode == 0:
        result = virtd.virsh_result("start", "web1")
    assert time.monotonic() - begin < PROMPT

    capabilities = ElementTree.fromstring(virtd.virsh("capabilities"))
    types = {domain.attrib["type"] for domain in capabilities.findall("guest/arch[@name='x86_64']/domain")}
    assert "qemu" in types
    # What is said of the host is what can be done on it.
    assert ("kvm" in types) == (result.returncode == 0)
    asked = virtd.virsh_result("domcapabilities", "--virttype", "kvm")
    assert (asked.returncode == 0) == (result.returncode == 0)
    if result.returncode == 0:
        guest.wait()
    else:
        assert "kvm" in result.stderr.lower()
        assert "/dev/kvm" in result.stderr  # why
        assert virtd.virsh("list", "--name") == ""


def test_looking_for_kvm_holds_up_nobody_else(virtd: Instance, new_guest: Callable[..., Guest]) -> None:
    guest = new_guest("web1")
    begin = time.monotonic()
    virtd.virsh("define", str(guest.file))
    virtd.virsh("start", "web1")
    guest.wait()
    assert time.monotonic() - begin < PROMPT
