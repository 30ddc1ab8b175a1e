"""Documents about the host and its emulators, kept as they were written until something they tell of changes.

They take milliseconds to make, and clients ask for them again and again. Each is kept in the process and, for other
processes, in the cache directory, together with all it depends on (`facts`): what that is can be looked at in a
fraction of the time. Whatever a document tells of must be in the facts, or be found out anew at the next boot.

This module knows no XML.
"""

import functools
import glob
import hashlib
import os
from collections.abc import Callable, Iterable

from virtd import LIBVIRT_VERSION
from virtd.drivers.qemu.host import hostfacts, kvm, suspend
from virtd.drivers.qemu.run import confine, firmware
from virtd.errors import VirtError
from virtd.state import files, locks

# Where emulators are looked for, and what comes beside them: modules, firmwares. A file that comes or goes changes its
# directory.
PLACES = (*confine.PATH.split(":"), "/usr/libexec")
_MODULES = ("/usr/lib", "/usr/lib64", "/usr/lib/*-linux-*")
_FIRMWARES = (*firmware.DIRECTORIES, "/usr/share/OVMF", "/usr/share/qemu")
# How many documents a process keeps: one of the host, and one for each sort of guest that clients ask about.
_KEPT = 64


class Written:
    """The documents of one instance.

    Args:
        cache: the instance's cache directory.
    """

    def __init__(self, cache: str) -> None:
        self._directory = f"{cache}/qemu"
        self._kept: dict[tuple[str | None, ...], tuple[bytes, str]] = {}

    def get(self, what: tuple[str | None, ...], about: Iterable[object], make: Callable[[], str]) -> str:
        """A document.

        Args:
            what: which one.
            about: what it depends on beside the facts.
            make: writes it anew; what it raises is not kept.
        """
        key = f"{facts()!r} {list(about)!r}".encode(errors="surrogateescape")
        known = self._kept.get(what)
        if known is not None and known[0] == key:
            return known[1]
        path = f"{self._directory}/{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}.document"
        digest = hashlib.sha256(key).hexdigest().encode()
        mark, _, text = (files.read(path) or b"").partition(b"\n")
        if mark != digest:
            text = make().encode(errors="surrogateescape")
            self._save(path, digest + b"\n" + text)
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[what] = key, text.decode(errors="surrogateescape")
        return self._kept[what][1]

    def _save(self, path: str, content: bytes) -> None:
        try:
            files.make_directory(self._directory)
            # Two who write the same file at once would spoil it; who comes second need not write.
            lock = locks.attempt(f"{path}.lock", "writing a document")
            if lock is None:
                return
            try:
                files.replace(path, content, durable=False)
            finally:
                lock.release()
        except VirtError:
            pass  # a cache that cannot be written makes things slow, not wrong


def facts() -> list[object]:
    """What documents about the host depend on, as values that differ when it does.

    What cannot change while the host is up is there by the boot's id. Sizes of memory count as a whole: one that moves
    from a NUMA node to another without a change of the sum is not noticed.
    """
    system = hostfacts.SYS
    nodes = _text(f"{system}/devices/system/node/online")
    return [
        _code(),
        _boot(),
        os.sysconf("SC_PHYS_PAGES"),
        _text(f"{system}/devices/system/cpu/online"),
        nodes,
        _text(f"{system}/devices/system/cpu/cpu0/microcode/version"),
        [_text(path) for path in _pools(system, nodes)],
        hostfacts.has_iommu(),
        *map(_stamp, (kvm.DEVICE, f"{system}/module/kvm", suspend.MANAGED)),
        places(),
    ]


def places() -> list[tuple[int, ...] | None]:
    """What changes when a file comes or goes in one of the directories where emulators and their files lie."""
    return [_stamp(path) for path in _places()]


def emulator(path: str | None) -> object:
    """What a document about an emulator depends on: the file itself."""
    return None if path is None else (path, _stamp(path))


@functools.cache
def _code() -> tuple[object, ...]:
    """The version of what writes: another one may write otherwise."""
    here = os.path.dirname(__file__)
    names = ("capsxml", "domaincaps", "hostcpu", "hostfacts", "cpumodels", "probe")
    return (LIBVIRT_VERSION, *(_stamp(f"{here}/{name}.py") for name in names))


@functools.cache
def _boot() -> str:
    return _text(f"{hostfacts.PROC}/sys/kernel/random/boot_id")


@functools.cache
def _places() -> list[str]:
    """The directories that are looked into, and those in which others could appear, each once."""
    parents = [place for pattern in _MODULES for place in glob.glob(pattern)]
    modules = [name for parent in parents for name in (parent, f"{parent}/qemu")]
    return list({os.path.realpath(name): name for name in (*PLACES, *_FIRMWARES, *modules)}.values())


def _stamp(path: str) -> tuple[int, ...] | None:
    """What changes when a file or directory is another one, or has changed; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if path.startswith(("/dev/", hostfacts.SYS)):
        # Their times change by use.
        return found.st_dev, found.st_ino, found.st_rdev, found.st_mode, found.st_uid, found.st_gid
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@functools.lru_cache(maxsize=8)
def _pools(system: str, nodes: str) -> list[str]:
    """The files that say how many huge pages there are of each size, on the host and on each NUMA node."""
    places = [f"{system}/devices/system/node/node{number}/hugepages" for number in hostfacts.ranges(nodes)]
    return [
        f"{place}/{name}/nr_hugepages"
        for place in (f"{system}/kernel/mm/hugepages", *places)
        if os.path.isdir(place)
        for name in os.listdir(place)
    ]


def _text(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 4096).decode("ascii", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
