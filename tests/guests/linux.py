"""A small Linux guest: the host distribution's own kernel, and an initrd made of busybox, the modules a guest needs
and one script.

    guest = build()
    guest.kernel, guest.initrd      for <kernel> and <initrd>
    guest.command_line("console=ttyS0", "virtd.net=dhcp")

It boots in about 3 s under TCG. What it does follows from its command line (tests/guests/init.sh, which is its
first process): it prints READY on its console and gives a root shell there; the power button ends it (acpid);
`poweroff`, `reboot` and `echo c > /proc/sysrq-trigger` do what they say; virtd.net=dhcp brings up its first network
interface and prints its address. With build(agent=True) it has the distribution's qemu-ga, which serves the channel
that is meant for it, a user who has logged in, and on virtd.mount=vda a file system on that disk.

The initrd lies in a cache directory under the digest of all it is made from, and is built once, whoever comes first.
This module knows nothing of virtd, QEMU's command line or pytest.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import lzma
import os
import platform
import re
import shutil
import stat
import struct
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["READY", "Guest", "build"]

READY: Final = "virtd: guest ready"

_INIT: Final = Path(__file__).with_name("init.sh")

# Modules to load, in this order; what they depend on goes with them. A kernel that has one built in, or not at all,
# is fine.
_MODULES: Final = (
    "button",
    "evdev",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_balloon",
    "virtio-rng",
    "pvpanic-pci",
    "pvpanic-mmio",
    "pvpanic",
    "ahci",
    "ata_piix",
    "virtio_scsi",
    "sd_mod",
    "sr_mod",
    "af_packet",
    "virtiofs",
    "overlay",
)


class Guest(NamedTuple):
    """What to boot."""

    kernel: Path
    initrd: Path

    def command_line(self, *more: str) -> str:
        """The kernel's command line: quiet, with a console on the first serial port, and with `more` behind."""
        # On a busy machine the guest's timer may tick too late for its check, and the kernel panics.
        return " ".join(("console=ttyS0", "quiet", "panic=-1", "nokaslr", "no_timer_check", *more))


def build(*, agent: bool = False) -> Guest:
    """Find a kernel and busybox on this host and make an initrd for them, or take the one made before.

    Args:
        agent: put QEMU's guest agent into it.

    Raises FileNotFoundError, naming what is missing: a kernel with its modules, a static busybox, or qemu-ga.
    """
    kernel, modules = _find_kernel()
    busybox = _find_busybox()
    cache = _cache_directory()
    digest = hashlib.sha256()
    for source in (busybox, _INIT, Path(__file__)):
        digest.update(source.read_bytes())
    digest.update(f"{modules} {modules.stat().st_mtime_ns}".encode())
    program = _find_agent() if agent else None
    if program is not None:
        digest.update(program.read_bytes())
    initrd = cache / f"initrd-{digest.hexdigest()[:16]}.gz"

    def archive() -> bytes:
        # Linux unpacks one archive after another.
        return _archive(busybox, modules) + (b"" if program is None else _agent_archive(program))

    with open(cache / "lock", "a", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not initrd.exists():
            temporary = initrd.with_suffix(".new")
            temporary.write_bytes(gzip.compress(archive(), compresslevel=1, mtime=0))
            temporary.rename(initrd)
        readable = cache / f"vmlinuz-{modules.name}"  # as in /boot, where on some distributions only root may read it
        if not readable.exists():
            temporary = readable.with_suffix(".new")
            shutil.copyfile(kernel, temporary)
            temporary.rename(readable)
    return Guest(readable, initrd)


def _cache_directory() -> Path:
    """A directory that QEMU's user can read, too: below /var/tmp, which unlike a home directory everybody may enter."""
    directory = Path(f"/var/tmp/virtd-test-guest-{os.getuid()}")
    directory.mkdir(mode=0o755, exist_ok=True)
    if directory.lstat().st_uid != os.getuid() or not stat.S_ISDIR(directory.lstat().st_mode):
        raise PermissionError(f"{directory} belongs to somebody else")
    return directory


def _find_kernel() -> tuple[Path, Path]:
    """The newest kernel that has modules, a cloud kernel before others: the image and the directory of its modules."""
    found = []
    for modules in Path("/lib/modules").glob("*"):
        for kernel in (Path(f"/boot/vmlinuz-{modules.name}"), modules / "vmlinuz"):
            if kernel.is_file() and (modules / "modules.dep").is_file():
                version = tuple(int(number) for number in re.findall(r"\d+", modules.name))
                found.append(("cloud" in modules.name, version, kernel, modules))
                break
    if not found:
        raise FileNotFoundError(f"kernel with its modules (/boot/vmlinuz-*, /lib/modules/*) for {platform.machine()}")
    return max(found)[2:]


def _find_busybox() -> Path:
    """A busybox that needs no libraries."""
    for name in ("busybox", "busybox-static", "busybox.static"):
        path = shutil.which(name)
        if path is not None and b"ld-linux" not in Path(path).read_bytes()[:4096]:
            return Path(path)
    raise FileNotFoundError("statically linked busybox")


def _find_agent() -> Path:
    """QEMU's guest agent, of this machine or as contrib/test has unpacked it."""
    found = shutil.which("qemu-ga", path="/usr/sbin:/usr/bin")
    path = Path(found) if found is not None else Path(__file__).parents[2] / ".venv/unpacked/usr/sbin/qemu-ga"
    if not path.exists():
        raise FileNotFoundError("qemu-ga, which contrib/test installs")
    return path


_PASSWD: Final = "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/home/guest:/bin/sh\n"
_GROUP: Final = "root:x:0:\nguest:x:1000:\n"
_SHADOW: Final = "root:*:19000:0:99999:7:::\nguest:*:19000:0:99999:7:::\n"
_OS_RELEASE: Final = 'ID=virtd-test\nNAME="Guest of the tests"\nPRETTY_NAME="Guest of the tests 1"\nVERSION_ID=1\n'
# What the agent runs. busybox has no chpasswd; this one knows passwords that are encrypted already.
_CHPASSWD: Final = """#!/bin/sh
IFS=: read -r user password
sed -i "s|^$user:[^:]*:|$user:$password:|" /etc/shadow
"""
_SHUTDOWN: Final = """#!/bin/sh
case $1 in -r) exec /sbin/reboot ;; *) exec /sbin/poweroff ;; esac
"""


def _agent_archive(program: Path) -> bytes:
    """The agent with its libraries, and what it tells of."""
    archive = _Cpio()
    files = {Path("/sbin/qemu-ga"): program}
    listed = subprocess.run(["ldd", str(program)], stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in re.findall(r"(?:=> |^\s*)(/\S+)", listed, re.MULTILINE):
        files[Path(name)] = Path(name)
    made: set[Path] = {Path("/"), Path("/etc"), Path("/sbin"), Path("/lib")}
    homes = [Path("/root"), Path("/home/guest"), Path("/mnt"), Path("/var/run")]
    for directory in sorted({parent for path in (*files, *(home / "x" for home in homes)) for parent in path.parents}):
        if directory not in made:
            archive.directory(str(directory)[1:])
    for path, source in files.items():
        archive.file(str(path)[1:], source.read_bytes(), 0o755)
    texts = {"etc/passwd": _PASSWD, "etc/group": _GROUP, "etc/shadow": _SHADOW, "etc/os-release": _OS_RELEASE}
    for name, text in texts.items():
        archive.file(name, text.encode(), 0o644)
    for name, text in {"sbin/chpasswd": _CHPASSWD, "sbin/shutdown": _SHUTDOWN}.items():
        archive.file(name, text.encode(), 0o755)
    # utmp(5): a user process of root on the first terminal, since 2023.
    entry = struct.pack(
        "=hxxi32s4s32s256shhiii4i20x", 7, 1, b"ttyS0", b"S0", b"root", b"", 0, 0, 0, 1_700_000_000, 0, *[0] * 4
    )
    archive.file("var/run/utmp", entry, 0o644)
    return archive.end()


def _archive(busybox: Path, modules: Path) -> bytes:
    """The initrd, not yet compressed."""
    archive = _Cpio()
    for directory in ("bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "lib", "proc", "run", "sbin", "sys", "tmp"):
        archive.directory(directory)
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3)
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    archive.file("init", _INIT.read_bytes().replace(b"@READY@", READY.encode()), 0o755)
    archive.file("etc/acpi/PWRF/00000080", b"#!/bin/sh\nexec /sbin/poweroff\n", 0o755)
    # As the first process is no init that would do it, these ask the kernel.
    for command in ("poweroff", "reboot", "halt"):
        archive.file(f"sbin/{command}", f"#!/bin/sh\nsync\nexec busybox {command} -f\n".encode(), 0o755)
    for number, module in enumerate(_with_dependencies(modules)):
        archive.file(f"lib/{number:02}-{module.name.partition('.')[0]}.ko", _module(module), 0o644)
    return archive.end()


def _with_dependencies(modules: Path) -> list[Path]:
    """The files of _MODULES and of all they depend on, in the order in which they can be loaded."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        name, _, rest = line.partition(":")
        needs[name] = rest.split()
    by_name = {Path(file).name.partition(".")[0].replace("-", "_"): file for file in needs}
    order: list[str] = []
    for name in _MODULES:
        file = by_name.get(name.replace("-", "_"))
        if file is not None:
            # modules.dep lists the direct dependency first, the one everything rests on last.
            order += [each for each in (*reversed(needs[file]), file) if each not in order]
    return [modules / file for file in order]


def _module(file: Path) -> bytes:
    """A module as the kernel loads it: distributions compress them, each in another way."""
    if file.suffix == ".xz":
        return lzma.decompress(file.read_bytes())
    if file.suffix == ".gz":
        return gzip.decompress(file.read_bytes())
    if file.suffix == ".zst":
        return subprocess.run(["zstd", "-dcq", str(file)], stdout=subprocess.PIPE, check=True).stdout
    return file.read_bytes()


class _Cpio:
    """An archive in cpio's "newc" format, the one Linux unpacks (Documentation/driver-api/early-userspace/buffer-
    format.rst).
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._inode = 0

    def directory(self, name: str) -> None:
        self._entry(name, stat.S_IFDIR | 0o755, b"", (0, 0))

    def file(self, name: str, data: bytes, mode: int) -> None:
        self._entry(name, stat.S_IFREG | mode, data, (0, 0))

    def device(self, name: str, major: int, minor: int) -> None:
        self._entry(name, stat.S_IFCHR | 0o600, b"", (major, minor))

    def end(self) -> bytes:
        self._entry("TRAILER!!!", 0, b"", (0, 0))
        return bytes(self._data)

    def _entry(self, name: str, mode: int, data: bytes, device: tuple[int, int]) -> None:
        self._inode += 1
        path = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device of the file (2), of a device file (2), length of the
        # name, checksum
        numbers = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        self._data += b"070701" + b"".join(b"%08x" % number for number in numbers) + path
        self._pad()
        self._data += data
        self._pad()

    def _pad(self) -> None:
        self._data += bytes(-len(self._data) % 4)
