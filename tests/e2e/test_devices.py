"""Guests with what people give them: each device is there, works as far as can be seen from outside, and is confined
with the rest of QEMU.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.guests import Guest, qemu
from tests.helpers.instance import Instance
from tests.helpers.waiting import wait_for

EVERYTHING = """
    <interface type='user'><model type='virtio'/></interface>
    <interface type='user'><model type='e1000'/></interface>
    <controller type='scsi' model='virtio-scsi'/>
    <controller type='usb' model='qemu-xhci'/>
    <controller type='virtio-serial'/>
    <disk type='file' device='cdrom'><target dev='sdb' bus='sata'/><readonly/></disk>
    <console type='pty'><target type='virtio' port='1'/></console>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <input type='tablet' bus='usb'/>
    <input type='keyboard' bus='usb'/>
    <graphics type='vnc' autoport='yes' listen='127.0.0.1'/>
    <video><model type='virtio'/></video>
    <sound model='ich6'/>
    <watchdog model='i6300esb' action='reset'/>
    <memballoon model='virtio'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
"""


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_everything_at_once(virtd: Instance, running: Callable[..., Guest], machine: str) -> None:
    head = "<cpu mode='custom'><model>qemu64</model></cpu><clock offset='localtime'/>"
    running("web1", machine=machine, head=head, devices=EVERYTHING)
    live = virtd.virsh("dumpxml", "web1")
    # Every device has its place, and no two the same.
    addresses = re.findall(r"<address type='pci'[^>]*>", live)
    assert len(addresses) == len(set(addresses)) >= 10
    aliases = re.findall(r"<alias name='(\w[\w.-]*)'/>", live)
    for device in ("net0", "net1", "video0", "balloon0", "rng0", "watchdog0", "channel0"):
        assert device in aliases
    virtd.virsh("reset", "web1")
    virtd.virsh("destroy", "web1")
    virtd.virsh("start", "web1")
    assert re.findall(r"<address type='pci'[^>]*>", virtd.virsh("dumpxml", "web1")) == addresses


def test_vnc(virtd: Instance, running: Callable[..., Guest]) -> None:
    for name in ("web1", "web2"):
        running(name, devices="<graphics type='vnc' autoport='yes' listen='127.0.0.1'/>")
    ports = []
    for name in ("web1", "web2"):
        display = virtd.virsh("domdisplay", name)
        assert display.startswith("vnc://127.0.0.1:")
        ports.append(5900 + int(display.rpartition(":")[2]))
        assert virtd.virsh("vncdisplay", name) == f"127.0.0.1:{ports[-1] - 5900}"
        with socket.create_connection(("127.0.0.1", ports[-1]), 10) as sock:
            assert sock.recv(12).startswith(b"RFB 003.")
    assert len(set(ports)) == 2


@pytest.mark.parametrize("model", ["vga", "cirrus", "virtio", "bochs", "qxl"])
def test_video(virtd: Instance, root: Path, running: Callable[..., Guest], model: str) -> None:
    running("web1", devices=f"<video><model type='{model}'/></video>")
    picture = root / "picture.png"
    virtd.virsh("screenshot", "web1", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_disks_of_all_formats(
    virtd: Instance, need_program: Callable[[str], str], new_guest: Callable[..., Guest]
) -> None:
    need_program("qemu-img")
    guest = new_guest("web1")
    for image_format in ("qcow2", "raw", "vmdk"):
        image = guest.disk.with_suffix(f".{image_format}")
        virtd.run("qemu-img", "convert", "-O", image_format, str(guest.disk), str(image))
        xml = guest.xml.replace(f"file='{guest.disk}'", f"file='{image}'")
        virtd.define(
            xml.replace("type='raw'", f"type='{image_format}'").replace("web1</name>", f"{image_format}</name>")
        )
        virtd.virsh("start", image_format)
        guest.wait()
        virtd.virsh("destroy", image_format)
        assert guest.output is not None
        guest.output.unlink()


def test_a_disk_of_another_user_is_given_to_qemu_and_back(virtd: Instance, running: Callable[..., Guest]) -> None:
    guest = running("web1")
    before = guest.disk.stat()
    virtd.virsh("destroy", "web1")
    after = guest.disk.stat()
    assert (after.st_uid, after.st_gid) == (os.geteuid(), os.getegid())
    assert before.st_mode == after.st_mode


def test_qemu_is_confined(virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1")
    text = Path(f"/proc/{qemu(virtd, 'web1')}/status").read_text()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in text.splitlines())}
    assert status["Seccomp"] == ["2"]
    assert status["NoNewPrivs"] == ["1"]
    assert int(status["CapEff"][0], 16) == 0
    if os.geteuid() == 0 and "libvirt-qemu" in {user.pw_name for user in pwd.getpwall()}:
        assert set(status["Uid"]) == {str(pwd.getpwnam("libvirt-qemu").pw_uid)}
        # No file or socket of the server's is for it.
        files = [path for part in ("etc", "var", "run/virtd") for path in (virtd.root / part).rglob("*")]
        assert {
            path.name
            for path in files
            if path.lstat().st_uid == 0 and not path.is_dir() and not path.is_symlink() and path.stat().st_mode & 0o077
        } <= {"virtd.pid"}


def test_descriptors_of_the_client_s(connection: Any, defined: Callable[..., Guest]) -> None:
    # SeaBIOS writes its messages to the port 0x402, which leads to the descriptor here.
    extra = ["-add-fd", "fd=3,set=7", "-chardev", "file,id=said,path=/dev/fdset/7"]
    extra += ["-device", "isa-debugcon,iobase=0x402,chardev=said"]
    arguments = "".join(f"<qemu:arg value='{word}'/>" for word in extra)
    guest = defined("web1")
    xml = guest.xml.replace("<domain ", "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' ", 1)
    domain = connection.lookupByName("web1")
    xml = xml.replace("<name>", f"<uuid>{domain.UUIDString()}</uuid><name>", 1)
    connection.defineXML(xml.replace("</domain>", f"<qemu:commandline>{arguments}</qemu:commandline></domain>"))
    said = guest.disk.with_suffix(".said")
    with said.open("wb") as file:
        domain.createWithFiles([file.fileno()])
    guest.wait()
    wait_for(lambda: b"SeaBIOS" in said.read_bytes(), "what SeaBIOS says")
