"""Locks between processes: flock on freshly opened descriptors, with a bounded wait.

The kernel frees a lock when its last descriptor is closed, however its holder ended, so that no lock is ever
stale. The text in the file says who holds the lock, for which call, since when. It is for people and error messages;
and as a holder wipes it when it gives the lock back, whoever comes next knows of one that died, and can clear away
what that one left.

A lock file may be unlinked by its holder (a guest's directory goes when the guest ends). Whoever gets the lock
therefore looks whether the path still names the file it locked, and begins again if not.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from contextlib import contextmanager

from virtd import constants as c
from virtd import deadlines
from virtd.errors import VirtError
from virtd.state.faults import point
from virtd.state.files import make_directory, os_error
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

_ATTEMPTS = 1000  # to open a file in a directory which others keep removing
_NOTE_SIZE = 192  # bytes; a note is about half of that
TIMEOUT = deadlines.PATIENCE  # seconds


class MissingError(VirtError):
    """The directory that a lock lies in is not there, and was not to be made."""

    def __init__(self, path: str) -> None:
        super().__init__(c.VIR_ERR_SYSTEM_ERROR, f"cannot open lock file '{path}': No such file or directory")


class _Expired(Exception):
    """The interval timer rang while flock() waited."""


def now() -> float:
    """Seconds since the machine was booted: the same for all processes, and nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _ring(signum: int, frame: object) -> NoReturn:
    raise _Expired


class Lock:
    """A lock that is held. Its descriptor is not inherited by programs, but by forked children."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        # Whether the holder before may have died with it: also True for the first holder since the machine was booted.
        self.abandoned = False

    def fileno(self) -> int:
        return self.descriptor

    def say(self, call: str) -> None:
        """Write into the file who holds the lock and for which call; for error messages only."""
        self._note(json.dumps({"pid": os.getpid(), "call": call, "since": now()}).encode())

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self.descriptor >= 0:
            self._note(b"")
            point("lock.release")
            self.pass_on()

    def _note(self, text: bytes) -> None:
        try:
            # Padded, as cutting a file costs some file systems milliseconds; JSON does not mind spaces at its end.
            os.pwrite(self.descriptor, text.ljust(max(_NOTE_SIZE, os.fstat(self.descriptor).st_size)), 0)
        except OSError:
            pass  # a full disk: the lock is held all the same, only nobody will be told by whom

    def _look_back(self) -> None:
        try:
            note = os.pread(self.descriptor, _NOTE_SIZE, 0)
            self.abandoned = not note or bool(note.strip())
        except OSError:
            self.abandoned = True

    def pass_on(self) -> None:
        """Let go of the descriptor only: another process has it, too, and goes on holding the lock."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Holder(NamedTuple):
    """Who holds a lock, as the file says: right for as long as the lock is held."""

    pid: int
    call: str
    seconds: float  # for so long already

    def __str__(self) -> str:
        return f"pid {self.pid} in {self.call} for {self.seconds:.0f} s"


def holder(path: str) -> Holder | None:
    """Who holds a lock that is held; None if the holder has not yet said so."""
    try:
        with open(path, encoding="utf-8") as file:
            note = json.load(file)
        return Holder(int(note["pid"]), str(note["call"]), max(0.0, now() - float(note["since"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def probe(path: str) -> tuple[bool, Holder | None]:
    """Whether anybody holds a lock, and who, without waiting and without taking it.

    The look itself holds a shared lock for a moment, which other looks do not mind; whoever wants the lock then
    should grant that moment and not give up at once.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False, None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False, None
    except BlockingIOError:
        return True, holder(path)
    finally:
        os.close(descriptor)


def acquire(
    path: str, call: str, *, timeout: float | None = None, what: str = "state change lock", make: bool = True
) -> Lock:
    """Take a lock, waiting for its holder if need be.

    Args:
        path: the lock file; it is made if it is missing.
        call: what the lock is taken for (a libvirt API name), for the messages of those who wait.
        timeout: the longest wait in seconds; by default what is left of the call's deadline, at most TIMEOUT.
            With 0 there is no wait.
        what: the lock's name in the error message.
        make: whether its directory is made, too. Not by who does not see to it that the directory goes again.

    Raises:
        VirtError: VIR_ERR_OPERATION_TIMEOUT naming the holder, its call and since when.
        MissingError: there is no such directory, or no more.
    """
    if timeout is None:
        timeout = min(TIMEOUT, deadlines.remaining(TIMEOUT))
    end = time.monotonic() + timeout
    while True:
        lock = Lock(path, _open(path, make=make))
        try:
            if not flock(lock.descriptor, 0):
                before, begun = holder(path), time.monotonic()
                if not flock(lock.descriptor, end - begun):
                    raise _not_acquired(path, what, before, time.monotonic() - begun)
            if _still_named(lock):
                lock._look_back()
                lock.say(call)
                point("lock.taken")
                return lock
        except BaseException:
            lock.pass_on()
            raise
        lock.pass_on()


def _not_acquired(path: str, what: str, before: Holder | None, waited: float) -> VirtError:
    now = holder(path)
    if now is None and before is not None:
        # One gives it back and another one gets it just now: of those who kept us from it, one is known.
        now = before._replace(seconds=before.seconds + waited)
    text = f"cannot acquire {what} (held by {now or 'an unknown process'})"
    return VirtError(c.VIR_ERR_OPERATION_TIMEOUT, text)


def attempt(path: str, call: str, *, make: bool = True) -> Lock | None:
    """Take a lock if nobody holds it; None if somebody does. Otherwise as acquire()."""
    while True:
        try:
            return acquire(path, call, timeout=0, make=make)
        except VirtError as error:
            if error.code != c.VIR_ERR_OPERATION_TIMEOUT:
                raise
        # Unless that was only somebody who looked: he does not hold it, and is not going to do what we would.
        if probe(path)[0]:
            return None


@contextmanager
def held(path: str, call: str, *, timeout: float | None = None, what: str = "state change lock") -> Iterator[Lock]:
    """Hold a lock for the length of a with block; see acquire()."""
    lock = acquire(path, call, timeout=timeout, what=what)
    try:
        yield lock
    finally:
        lock.release()


def _open(path: str, *, make: bool) -> int:
    """Open the lock file; its directory may go at any moment, with the last holder of another lock in it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    for _ in range(_ATTEMPTS):
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError as error:
            missing = error
        except OSError as error:
            raise os_error(error, f"cannot open lock file '{path}'") from None
        if not make:
            raise MissingError(path)
        make_directory(os.path.dirname(path))
    raise os_error(missing, f"cannot open lock file '{path}'")


def flock(descriptor: int, seconds: float) -> bool:
    """Lock an open file with a bound; tells whether it is locked.

    The interval timer interrupts the system call; there is no polling.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        if seconds <= 0:
            return False
    previous = signal.signal(signal.SIGALRM, _ring)
    try:
        # The repetition catches the case that the first ring falls between setitimer() and flock().
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return True
    except _Expired:
        return False
    finally:
        _silence(previous)


def _silence(previous: object) -> None:
    """Stop the timer and put the old handler back, even if the timer rings in the middle of it."""
    while True:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)  # type: ignore[arg-type]
            return
        except _Expired:
            continue


def _still_named(lock: Lock) -> bool:
    """Whether the path still names the locked file: its last holder may have unlinked it."""
    try:
        there = os.stat(lock.path)
    except FileNotFoundError:
        return False
    mine = os.fstat(lock.descriptor)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
