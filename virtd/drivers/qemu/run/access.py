"""Whether a guest may have its images: nobody else writes to them, and QEMU's user can get at them.

An image is locked as long as a QEMU has it: by a lock of an open file (fcntl(2), F_OFD_SETLK) on one byte far beyond
those that QEMU locks itself. It is on the file, so that it holds whatever name the file is opened by, for system and
session, for volumes and images below others. The descriptor is handed to QEMU, which lets go of it when it ends,
however it ends, and keeps it whatever becomes of us. A guest that writes alone locks alone; those that share an image,
or only read it, share the lock. Why a lock is not to be had is found out when it is not.
"""

import contextlib
import fcntl
import os
import re
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from virtd import constants as c
from virtd.drivers.qemu.monitor.client import Monitor
from virtd.drivers.qemu.run import owners
from virtd.drivers.qemu.run.confine import User, may_use
from virtd.errors import VirtError
from virtd.state import files

if TYPE_CHECKING:
    from virtd.drivers.qemu.command import Command

_BYTE = 0x76697274
_FLOCK = struct.Struct("hhqqi0q")  # struct flock, fcntl(2)
_NAME = re.compile(rb"(?:^|,)guest=((?:[^,]|,,)*)")
_FILES = re.compile(rb'"filename":"((?:[^"\\]|\\.)*)"')


class Use(NamedTuple):
    """An image that a guest uses.

    Attributes:
        path: the file or block device.
        alias: of the disk.
        alone: whether nobody else may use it.
    """

    path: str
    alias: str
    alone: bool


class Owner(NamedTuple):
    """Who a file is to belong to.

    Attributes:
        user: who; None: it is let be.
        always: even if he can use it as it is.
    """

    user: User | None
    always: bool = False


class Held(NamedTuple):
    """A lock: its name at QEMU, and the open file that it is on."""

    name: str
    descriptor: int


def lock(uses: Iterable[Use]) -> list[Held]:
    """Lock images for a guest; the descriptors are the caller's.

    Raises:
        VirtError: VIR_ERR_RESOURCE_BUSY naming who has one of them; VIR_ERR_SYSTEM_ERROR, it cannot be opened.
    """
    wanted: dict[tuple[int, int], Use] = {}
    for use in uses:
        found = _look(use.path)
        if stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode):
            known = wanted.setdefault((found.st_dev, found.st_ino), use)
            if known is not use:
                # A guest that uses an image twice is QEMU's to judge.
                wanted[found.st_dev, found.st_ino] = known._replace(alone=known.alone or use.alone)
    held: list[Held] = []
    numbers: dict[str, int] = {}
    try:
        for use in wanted.values():
            number = numbers[use.alias] = numbers.get(use.alias, -1) + 1
            descriptor = _take(use)
            if descriptor is not None:
                held.append(Held(f"{use.alias}-lock{number}", descriptor))
    except BaseException:
        release(held)
        raise
    return held


def hand_over(held: Iterable[Held], monitor: Monitor) -> None:
    """Let QEMU hold locks from now on (QMP: getfd)."""
    for one in held:
        monitor.execute("getfd", {"fdname": one.name}, fds=[one.descriptor])


def forget(alias: str, monitor: Monitor) -> None:
    """Let QEMU let go of the locks of a disk (QMP: closefd)."""
    number = 0
    with contextlib.suppress(VirtError):
        while True:
            monitor.execute("closefd", {"fdname": f"{alias}-lock{number}"})
            number += 1


def release(held: list[Held]) -> None:
    """Let go of locks in this process; where they were handed over they stay."""
    while held:
        os.close(held.pop().descriptor)


def open_way(
    command: "Command", user: User, records: str, guest: str, whose: Callable[[str], Owner] | None = None
) -> None:
    """Let QEMU's user have the files that a command opens.

    Args:
        command: the command.
        user: who QEMU runs as.
        records: where is written down whom files belong to (owners.py).
        guest: the guest's directory.
        whose: who a file is to belong to; by default all of them to QEMU's user.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR; of an image it says what keeps him from it.
    """
    images = {use.path for use in command.images}
    for path, writable in command.files:
        owner = Owner(user) if whose is None else whose(path)
        if owner.user is not None:
            owners.lend(records, path, owner.user, guest, write=writable, always=owner.always)
        if path in images:
            check_entry(path, user, write=writable)


def check_entry(path: str, user: User, *, write: bool) -> None:
    """Refuse a file that QEMU's user cannot get at, naming what keeps him from it.

    Args:
        path: the file, which has been given to him if that was needed.
        user: who QEMU runs as.
        write: whether he is to write to it.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    parts = os.path.realpath(path).split("/")
    steps = [("/".join(parts[:count]) or "/", os.X_OK) for count in range(1, len(parts))]
    steps.append((os.path.realpath(path), os.R_OK | (os.W_OK if write else 0)))
    with contextlib.suppress(OSError):
        if all(may_use(os.stat(place), user, wanted) for place, wanted in steps):
            return
    # Access lists and servers know more than the bits say: only trying tells.
    number = _try_as(user, steps)
    if number is None:
        return
    place = steps[number][0]
    what = "may not enter directory" if number < len(steps) - 1 else "may not open"
    text = f"Cannot access storage file '{path}' (as uid:{user.uid}, gid:{user.gid}): the user {what} '{place}'"
    raise VirtError(c.VIR_ERR_SYSTEM_ERROR, text, domain=c.VIR_FROM_STORAGE)


def _try_as(user: User, steps: list[tuple[str, int]]) -> int | None:
    """The first of some steps which a user cannot take; None if he can take all."""
    pid = os.fork()
    if not pid:
        try:
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            for number, (place, wanted) in enumerate(steps):
                if not os.access(place, wanted):
                    os._exit(min(number, 254))
            os._exit(255)
        finally:
            os._exit(255)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if code in (255, -9) else code


def _look(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        failure = files.os_error(error, f"Cannot access storage file '{path}'")
        failure.domain = c.VIR_FROM_STORAGE
        raise failure from None


def _take(use: Use) -> int | None:
    """Lock an image; None on a file system that has no locks: QEMU's own are all there is then."""
    access = os.O_RDWR if use.alone else os.O_RDONLY
    try:
        descriptor = os.open(use.path, access | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        failure = files.os_error(error, f"Cannot access storage file '{use.path}'")
        failure.domain = c.VIR_FROM_STORAGE
        raise failure from None
    kind = fcntl.F_WRLCK if use.alone else fcntl.F_RDLCK
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, _BYTE, 1, 0))
    except (BlockingIOError, PermissionError):
        found = os.fstat(descriptor)
        os.close(descriptor)
        other = next(_users(found), None)
        who = "something else" if other is None else f"guest '{other}'"
        text = f"image '{use.path}' is in use by {who}"
        raise VirtError(c.VIR_ERR_RESOURCE_BUSY, text, domain=c.VIR_FROM_QEMU) from None
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _users(found: os.stat_result) -> Iterator[str]:
    """The names of the guests, whoever's, that have a file open or on their command line."""
    same = (found.st_dev, found.st_ino)
    for process in os.listdir("/proc"):
        if not process.isdigit():
            continue
        try:
            with open(f"/proc/{process}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            name = _NAME.search(words[words.index(b"-name") + 1])
        except (OSError, ValueError, IndexError):
            continue
        if name is not None and same in _opened(process, words):
            yield os.fsdecode(name[1].replace(b",,", b","))


def _opened(process: str, words: list[bytes]) -> Iterator[tuple[int, int]]:
    """The files of a process, as far as they may be seen."""
    try:
        paths = [f"/proc/{process}/fd/{number}".encode() for number in os.listdir(f"/proc/{process}/fd")]
    except OSError:
        paths = []
    for path in (*paths, *(name for word in words for name in _FILES.findall(word))):
        with contextlib.suppress(OSError):
            found = os.stat(path)
            yield found.st_dev, found.st_ino
