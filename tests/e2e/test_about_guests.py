"""What virsh tells of a guest: facts, XML, metadata."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.guests import Guest
from tests.helpers.instance import Instance

EXPECTED = Path(__file__).with_name("expected")


def table(text: str) -> dict[str, str]:
    """Lines of 'Name: value'."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def test_dominfo(virtd: Instance, defined: Callable[..., Guest]) -> None:
    guest = defined("web1", uuid="5d8d4e0d-6e4b-4a3f-9a0e-2b7f0a1c0001")
    off = {
        "Id": "-",
        "Name": "web1",
        "UUID": "5d8d4e0d-6e4b-4a3f-9a0e-2b7f0a1c0001",
        "OS Type": "hvm",
        "State": "shut off",
        "CPU(s)": "1",
        "Max memory": "32768 KiB",
        "Used memory": "32768 KiB",
        "Persistent": "yes",
        "Autostart": "disable",
        "Managed save": "no",
        "Security model": "none",
        "Security DOI": "0",
    }
    assert table(virtd.virsh("dominfo", "web1")) == off
    virtd.virsh("start", "web1")
    guest.wait()
    running = table(virtd.virsh("dominfo", "web1"))
    assert re.fullmatch(r"\d+\.\ds", running.pop("CPU time"))
    assert running == {**off, "Id": "1", "State": "running"}


def test_cpu_time_grows(virtd: Instance, connection: Any, running: Callable[..., Guest]) -> None:
    guest = running("web1")
    domain = connection.lookupByName("web1")
    state, most, memory, cpus, before = domain.info()
    assert (state, most, memory, cpus) == (1, 32768, 32768, 1)
    assert before > 0
    virtd.virsh("reset", "web1")
    guest.wait(times=2)
    assert domain.info()[4] > before
    assert domain.maxVcpus() == 1
    assert domain.maxMemory() == 32768
    assert domain.controlInfo() == [0, 0, 0]
    assert not domain.isUpdated()


def normal(xml: str) -> str:
    """A live XML without what differs from one start and one host to another, and without libvirt's cgroup."""
    for pattern, plain in (
        (r"id='\d+'>", "id='ID'>"),
        (r"/dev/pts/\d+", "/dev/pts/N"),
        (r"port='59\d\d'", "port='59NN'"),
        (r"<(image)?label>.*</(image)?label>", "<label/>"),
        (r" *<resource>\n.*\n *</resource>\n", ""),
        (r"machine='pc-(i440fx|q35)-[\d.]+'", r"machine='pc-\1-NEWEST'"),
    ):
        xml = re.sub(pattern, plain, xml)
    return xml


@pytest.mark.parametrize(
    ("machine", "options"),
    [
        ("pc", ""),
        ("pc", "--inactive"),
        ("pc", "--security-info"),
        ("pc", "--migratable"),
        ("q35", ""),
        ("q35", "--inactive"),
    ],
)
def test_dumpxml_is_what_libvirt_makes_of_the_same_guest(
    virtd: Instance, new_guest: Callable[..., Guest], machine: str, options: str
) -> None:
    # What is expected was written by libvirtd 9.0.0 (Debian 12).
    disk = new_guest("disk").disk
    made = (EXPECTED / f"{machine}.xml").read_text().replace("DISK", str(disk))
    virtd.define(made)
    expected = EXPECTED / f"{machine}{options or '--live'}.xml"
    if options != "--inactive":
        virtd.virsh("start", f"{machine}guest")
    found = virtd.virsh("dumpxml", f"{machine}guest", *options.split())
    assert normal(found).rstrip() == normal(expected.read_text().replace("DISK", str(disk))).rstrip()
    if options == "--inactive":
        # What virtd writes it also reads, and it means the same.
        virtd.define(found)
        assert virtd.virsh("dumpxml", f"{machine}guest") == found


def test_a_running_guest_keeps_its_xml_when_it_is_defined_anew(virtd: Instance, running: Callable[..., Guest]) -> None:
    guest = running("web1", uuid="5d8d4e0d-6e4b-4a3f-9a0e-2b7f0a1c0001")
    before = virtd.virsh("dumpxml", "web1")
    guest.file.write_text(guest.xml.replace("<vcpu>1</vcpu>", "<vcpu>3</vcpu>"))
    virtd.virsh("define", str(guest.file))
    assert virtd.virsh("dumpxml", "web1") == before
    assert "<vcpu placement='static'>3</vcpu>" in virtd.virsh("dumpxml", "web1", "--inactive")
    assert re.findall(r"\d+", virtd.virsh("vcpucount", "web1")) == ["3", "1", "3", "1"]
    virtd.virsh("destroy", "web1")
    assert "<vcpu placement='static'>3</vcpu>" in virtd.virsh("dumpxml", "web1")


def test_addresses_stay_when_a_device_is_added_before_them(virtd: Instance, defined: Callable[..., Guest]) -> None:
    guest = defined("web1", uuid="5d8d4e0d-6e4b-4a3f-9a0e-2b7f0a1c0001", devices="<memballoon model='virtio'/>")
    before = virtd.virsh("dumpxml", "web1")
    (balloon,) = re.findall(r"<memballoon.*?</memballoon>", before, re.S)
    interface = "<interface type='user'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface>"
    virtd.define(before.replace("</controller>", "</controller>" + interface, 1))
    after = virtd.virsh("dumpxml", "web1")
    assert balloon in after
    addresses = re.findall(r"<address type='pci'[^>]*>", after)
    assert len(addresses) == len(set(addresses)) == len(re.findall(r"<address type='pci'[^>]*>", before)) + 1
    virtd.virsh("start", "web1")
    guest.wait()


def test_titles_descriptions_and_metadata(virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1")
    key = ("http://example.org/1", "--key", "k")
    assert virtd.virsh("desc", "web1") == ""
    virtd.virsh("desc", "web1", "--config", "--live", "--new-desc", "serves the web")
    virtd.virsh("desc", "web1", "--live", "--title", "--new-desc", "<first> & last")
    virtd.virsh("metadata", "web1", *key, "--config", "--live", "--set", "<e a='1'><f>x</f></e>")
    assert virtd.virsh("desc", "web1") == "serves the web"
    assert virtd.virsh("desc", "web1", "--title") == "<first> & last"
    assert "<title>&lt;first&gt; &amp; last</title>" in virtd.virsh("dumpxml", "web1")
    assert virtd.virsh("metadata", "web1", *key) == '<e a="1">\n  <f>x</f>\n</e>'
    assert '<k:e xmlns:k="http://example.org/1" a="1">' in virtd.virsh("dumpxml", "web1", "--inactive")

    virtd.virsh("destroy", "web1")
    assert virtd.virsh("desc", "web1") == "serves the web"
    assert virtd.virsh("desc", "web1", "--title") == ""  # that was the running guest's
    virtd.virsh("metadata", "web1", *key, "--config", "--remove")
    assert virtd.virsh_error("metadata", "web1", *key) == (
        "metadata not found: Requested metadata element is not present"
    )
    assert virtd.virsh_error("desc", "web1", "--live", "--title", "--new-desc", "x").endswith(
        "Requested operation is not valid: domain is not running"
    )
