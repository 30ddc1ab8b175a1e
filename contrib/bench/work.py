"""What is measured, as records, and the few things that all pieces of work need.

A piece of work is one line in a table WORKS of its module: what it is called, what the table of results says of it, the
function that does it once and returns what one unit of it took, and the bar, if there is one: the highest ratio
(virtd / libvirtd), or the highest figure, that virtd is meant to have.
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import libvirt
from servers import Server

from tests.guests.bootsector import write_boot_disk

SECONDS, BYTES, COUNT = "s", "B", ""


class Work(NamedTuple):
    """One piece of work, done by both servers in turn."""

    name: str
    text: str
    do: Callable[["Bench", Server], float]
    bar: float | None = None
    unit: str = SECONDS
    rounds: int | None = None  # for what takes long: so many at the most
    limit: float | None = None  # a bar that is a figure of virtd's, not a ratio


class Series(NamedTuple):
    """A piece of work whose cost is measured at several sizes."""

    name: str
    text: str
    do: Callable[["Bench", Server, int], float]
    bar: float | None = None


class Bench:
    """What all pieces of work share: a directory, a disk to boot from, and the XML of guests.

    Attributes:
        directory: everything that is written lies below.
        common: a server that both command line clients can be pointed at.
    """

    def __init__(self, directory: str, common: Server) -> None:
        self.directory = directory
        self.common = common
        # QEMU runs as another user.
        os.chmod(directory, 0o711)
        self.disk = write_boot_disk(Path(directory) / "boot.img")

    def xml(self, name: str) -> str:
        """A guest that boots a sector and halts: what is measured is the servers, not the guest."""
        return f"""<domain type='qemu'><name>bench-{name}</name><memory unit='MiB'>16</memory>
            <os><type arch='x86_64' machine='pc'>hvm</type></os>
            <devices><disk type='file'><driver name='qemu' type='raw'/><source file='{self.disk}'/>
              <target dev='vda' bus='virtio'/><readonly/></disk><serial type='pty'/></devices></domain>"""


def each(function: Callable[[], object], count: int) -> float:
    """The mean time of one call, in seconds, of as many as count."""
    begin = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - begin) / count


def median_of(times: int, function: Callable[[], float]) -> float:
    return statistics.median(function() for _ in range(times))


def together(clients: int, connect: Callable[[int], Callable[[], object]]) -> float:
    """The time that work of several clients takes, each a process of its own, begun by all at the same time.

    It ends when the last of them is done; they themselves, and their connections, end after that.

    Args:
        clients: how many.
        connect: makes, in the client's process, what is to be measured; gets the client's number.

    Raises:
        RuntimeError: a client failed.
    """
    ready, tell = os.pipe()
    gate, open_gate = os.pipe()
    end, open_end = os.pipe()
    children = []
    for number in range(clients):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(open_gate)
                os.close(open_end)
                act = connect(number)
                os.write(tell, b".")
                os.read(gate, 1)
                act()
                status = 0
                os.write(tell, b".")
                os.read(end, 1)
            finally:
                os._exit(status)
        children.append(pid)
    os.close(tell)
    _await_all(ready, clients)
    begin = time.perf_counter()
    os.close(open_gate)
    _await_all(ready, clients)
    taken = time.perf_counter() - begin
    os.close(open_end)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1]]
    for fd in (ready, gate, end):
        os.close(fd)
    if failed:
        raise RuntimeError(f"{len(failed)} of {clients} clients failed")
    return taken


def _await_all(pipe: int, clients: int) -> None:
    """Wait for a byte from each of so many clients, or for the end of all."""
    while clients and (told := os.read(pipe, clients)):
        clients -= len(told)


def ignore(function: Callable[[], object]) -> None:
    """Call it; libvirt's errors do not matter here."""
    with contextlib.suppress(libvirt.libvirtError):
        function()


def processes(match: Callable[[list[str]], bool]) -> Iterable[int]:
    """The pids of processes whose command line fits."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if match((entry / "cmdline").read_bytes().decode(errors="replace").split("\0")):
                    yield int(entry.name)


def qemu(name: str) -> int:
    """The pid of a guest's QEMU, whichever server's.

    Raises:
        LookupError: there is none.
    """
    for pid in processes(lambda words: any(word.startswith(f"guest={name},") for word in words)):
        return pid
    raise LookupError(name)


def scratch(bench: Bench) -> str:
    """A new directory for one piece of work."""
    return tempfile.mkdtemp(dir=bench.directory)
