"""Guests of the end-to-end tests: the one-sector guest, with its serial port in a file that can be waited on.

Knows of virtd only what an administrator sees: XML, file names that the test chose, and processes' titles.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.guests import bootsector
from tests.guests.xml import boot_domain
from tests.helpers.console import Console
from tests.helpers.instance import Instance
from tests.helpers.processes import Process
from tests.helpers.waiting import SECONDS, ends, wait_for

__all__ = [
    "BOOTED",
    "EMULATOR",
    "PYTHON",
    "Guest",
    "appears",
    "console",
    "make",
    "process",
    "processes",
    "qemu",
]

BOOTED = bootsector.MESSAGE.encode()
PYTHON = sys.executable
EMULATOR = "/usr/bin/qemu-system-x86_64"


@dataclass(frozen=True)
class Guest:
    """A guest as a test made it; virtd may not know it yet.

    Attributes:
        name: its name.
        xml: its domain XML.
        file: a file with that XML, for virsh.
        disk: its disk image.
        output: where its serial port writes to; None if that is a console.
    """

    name: str
    xml: str
    file: Path
    disk: Path
    output: Path | None

    def said(self) -> bytes:
        """What the guest has written to its serial port so far."""
        assert self.output is not None, "this guest's serial port is a console"
        return self.output.read_bytes() if self.output.exists() else b""

    def wait(self, text: bytes = BOOTED, times: int = 1) -> None:
        """Wait until the guest has written a text so many times. Raises AssertionError if it does not come."""
        assert self.output is not None, "this guest's serial port is a console"
        what = f"guest '{self.name}' saying {text!r} {times} times"
        wait_for(lambda: self.said().count(text) >= times, what, directory=self.output.parent)


def make(
    root: Path,
    name: str,
    then: str = "serve",
    *,
    console: bool = False,
    uuid: str | None = None,
    machine: str = "pc",
    bus: str = "virtio",
    kind: str = "qemu",
    head: str = "",
    devices: str = "",
) -> Guest:
    """Make the disk and the XML of a guest.

    Args:
        root: the directory of the instance it is for; files go below it.
        name: the guest's name.
        then: what it does when it has booted (tests.guests.bootsector.ACTIONS).
        console: whether its serial port is a terminal, for `virsh console`, and not a file.
        uuid: its uuid; None leaves the choice to virtd.
        machine: its machine type.
        bus: of its disk.
        kind: type of the domain: 'qemu' or 'kvm'.
        head: XML before <devices>.
        devices: XML of further devices.
    """
    directory = root / "guests"
    directory.mkdir(exist_ok=True)
    # QEMU's user creates files there, wherever virtd does not do so for it.
    directory.chmod(0o777)
    disk = bootsector.write_boot_disk(directory / f"{name}.img", then=then)
    output = None if console else directory / f"{name}.serial"
    xml = boot_domain(name, disk, uuid=uuid, machine=machine, bus=bus, head=head, devices=devices)
    xml = xml.replace("<domain type='qemu'>", f"<domain type='{kind}'>")
    if output is not None:
        assert "<serial type='pty'/>" in xml
        xml = xml.replace("<serial type='pty'/>", f"<serial type='file'><source path='{output}' append='on'/></serial>")
    file = directory / f"{name}.xml"
    file.write_text(xml)
    return Guest(name, xml, file, disk, output)


def processes(instance: Instance, title: str) -> list[Process]:
    """The processes of an instance whose title contains a text."""
    return [process for process in instance.processes() if title in process.title]


def process(instance: Instance, title: str) -> int:
    """The pid of the one process of an instance whose title contains a text. Raises AssertionError if it is not one."""
    found = processes(instance, title)
    assert len(found) == 1, f"{title!r} is the title of {found}, of {instance.processes()}"
    return found[0].pid


def qemu(instance: Instance, name: str) -> int:
    """The pid of a running guest's QEMU. Raises AssertionError if there is none."""
    return process(instance, f"-name guest={name},")


def wait_off(instance: Instance, name: str) -> None:
    """Wait until a guest that is about to end has done so, and this has been recorded: its supervisor is gone."""
    for supervisor in processes(instance, f"virtd: guest {name}"):
        ends(supervisor.pid)


def appears(shown: Console, text: bytes) -> bool:
    """Whether a text is shown soon, behind the last one waited for."""
    try:
        shown.until(text, 0.2)
    except AssertionError:
        if shown.process.poll() is not None:
            raise
        return False
    return True


@contextmanager
def console(instance: Instance, name: str, *options: str) -> Iterator[Console]:
    """`virsh console` of a guest that runs, and has it: what the guest says from now on is shown.

    virsh does not say when it has the console, and QEMU drops what the guest says before. So the guest is made to say
    something until that comes.
    """
    deadline = time.monotonic() + SECONDS
    with instance.console(name, *options) as opened:
        while not appears(opened, b"[nmi]"):
            assert time.monotonic() < deadline, f"the guest says nothing, but {opened.output!r}"
            instance.virsh("inject-nmi", name)
        yield opened
