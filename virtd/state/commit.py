"""The generation: one counter that tells every process whether anything changed.

All that others can see (a definition, a guest's status, an event in the journal) becomes visible inside a
*commit*, a critical section of a few renames under one flock. When it ends the counter is one higher, so a view
that was read under one value of the counter is right for as long as the value stands. Who finds another value is told
which files have been changed meanwhile (ring.py), and reads only these again.

A process can die inside a commit. While one is under way the counter's second word says who is at it, and since when.
A reader who finds it so trusts no view, and completes the commit of a writer that died: the files that it has not
changed stay as they are, and what it was about to tell of those that it has changed is told.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from virtd import constants as c
from virtd import deadlines
from virtd.errors import VirtError
from virtd.state import journal, locks, ring
from virtd.state.faults import point
from virtd.state.files import Pending, make_directory, os_error, read, remove, rename, write_all

# The counter; who is in a commit, and since when (0: nobody); how many changes of files there have been, and how many
# of them in commits that have ended.
_WORDS = struct.Struct("=QQQQ")


# A number of a process, below the milliseconds since the machine was booted (PID_MAX_LIMIT, <linux/threads.h>).
_PID_BITS = 22
_PID_MASK = (1 << _PID_BITS) - 1


class Change:
    """What one commit makes visible at its end, in this order: files, in the order in which they were named, then
    events.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        """
        Args:
            note: writes down, before it happens, that the file of a path is changed. For changes that the caller makes.
        """
        self.note = note
        self._steps: list[tuple[str, Callable[[], object]]] = []
        self._records: list[journal.Record] = []
        self._pending: list[Pending] = []

    def publish(self, pending: Pending) -> None:
        """Put a prepared file in its place."""
        self._pending.append(pending)
        self._step(pending.path, pending.publish)

    def rename(self, path: str, new: str) -> None:
        """Give a file that is to last another name in its directory."""
        self.note(new)
        self._step(path, lambda: rename(path, new, durable=True))

    def remove(self, path: str, *, durable: bool = False) -> None:
        """Remove a file, if it is there."""
        self._step(path, lambda: remove(path, durable=durable))

    def event(self, source: str, name: str, **values: object) -> None:
        """Tell all subscribers of something that happened.

        Args:
            source: the driver it comes from ('qemu', 'network', …).
            name: what happened, in that driver's terms.
            values: what is to be known of it; must fit into JSON.
        """
        self._records.append({"source": source, "name": name, **values})

    def _step(self, path: str, act: Callable[[], object]) -> None:
        self.note(path)
        self._steps.append((path, act))

    def discard(self) -> None:
        """Leave nothing beside the files of what has not been made visible."""
        for pending in self._pending:
            pending.discard()

    def carry_out(self, intent: Intent) -> None:
        """Do it all; only what has events is more than its steps, and so is written down before."""
        if self._records:
            intent.write([path for path, _ in self._steps], self._records)
        try:
            for _, act in self._steps:
                act()
            if self._records:
                journal.append(intent.journal, self._records)
        finally:
            if self._records:
                intent.forget()


class Intent:
    """What the commit that is under way will tell of, for whoever completes it if its writer dies."""

    def __init__(self, path: str, log: str) -> None:
        """
        Args:
            path: the file; there is none unless a commit is under way.
            log: the journal.
        """
        self._path = path
        self.journal = log

    def write(self, paths: list[str], records: list[journal.Record]) -> None:
        """Write down the files that will be changed, and the events."""
        content = json.dumps({"files": {path: _inode(path) for path in paths}, "records": records}).encode()
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                write_all(descriptor, content)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise os_error(error, f"cannot write '{self._path}'") from None

    def forget(self) -> None:
        """All has been told, or nothing is to be."""
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass

    def complete(self) -> None:
        """Tell what a writer that died had no time to tell, if any of its changes has been made: rather twice, when
        the change is made again, than not at all.
        """
        content = read(self._path)
        if content is None:
            return
        try:
            table = json.loads(content)
            files = table["files"]
            if not files or any(_inode(path) != inode for path, inode in files.items()):
                journal.append(self.journal, table["records"], again=True)
        except (ValueError, KeyError, VirtError):
            pass  # it died before it changed anything; or the disk is full, and nobody can be told
        self.forget()


def _mine() -> int:
    """What the second word says of this process."""
    return int(locks.now() * 1000) << _PID_BITS | os.getpid()


def _inode(path: str) -> int | None:
    """What tells a file from the one that takes its place."""
    try:
        return os.stat(path, follow_symlinks=False).st_ino
    except OSError:
        return None


class Generation:
    """The counter of one instance, mapped into this process."""

    def __init__(self, runtime: str) -> None:
        """
        Args:
            runtime: the instance's run-time directory; made if it is missing.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR.
        """
        self._path = f"{runtime}/generation"
        self._intent = Intent(f"{runtime}/generation.intent", f"{runtime}/journal")
        make_directory(self._intent.journal)
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = _WORDS.size + ring.SIZE
                if os.fstat(descriptor).st_size < size:
                    os.ftruncate(descriptor, size)
                self._map = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise os_error(error, f"cannot map '{self._path}'") from None
        self._ring = ring.Ring(self._map, _WORDS.size)

    def current(self) -> int | None:
        """The counter's value; None while a commit is under way, when no view can be trusted."""
        counter, busy, _, _ = _WORDS.unpack_from(self._map)
        if not busy:
            return int(counter)
        # Someone is at it now, or died at it. Only in the second case is the lock free.
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        else:
            return self._complete()
        finally:
            os.close(descriptor)

    @property
    def position(self) -> int:
        """Up to where changed_since() can be relied on later by who reads files now."""
        return int(_WORDS.unpack_from(self._map)[3])

    def changed_since(self, position: int) -> list[str] | None:
        """The files that commits have changed, or are about to change, since a position; None if that is not known."""
        changes = int(_WORDS.unpack_from(self._map)[2])
        return self._ring.read(position + 1, changes)

    @contextmanager
    def commit(self) -> Iterator[Change]:
        """Make changes visible to all at once, to processes that look and to those that wait for events.

        Nothing in the block may wait for anybody: everybody waits for it.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR; VIR_ERR_OPERATION_TIMEOUT, another process has been stopped inside a
                commit. Nothing has been changed then.
        """
        descriptor = self._open()
        try:
            if not locks.flock(descriptor, min(locks.TIMEOUT, deadlines.remaining(locks.TIMEOUT))):
                text = f"cannot acquire the lock of commits, '{self._path}' (held by {self._holder()}): "
                raise VirtError(c.VIR_ERR_OPERATION_TIMEOUT, text + "a process has been stopped inside one")
            if _WORDS.unpack_from(self._map)[1]:
                self._complete()
            counter, _, changes, ended = _WORDS.unpack_from(self._map)
            _WORDS.pack_into(self._map, 0, counter, _mine(), changes, ended)
            point("commit.begun")
            with _Completion(self):
                change = Change(self._note)
                try:
                    yield change
                    change.carry_out(self._intent)
                except BaseException:
                    change.discard()
                    raise
                point("commit.changed")
            point("commit.ended")
        finally:
            os.close(descriptor)

    def _holder(self) -> locks.Holder | str:
        """Who is in a commit."""
        busy = int(_WORDS.unpack_from(self._map)[1])
        pid = busy & _PID_MASK
        title = (read(f"/proc/{pid}/cmdline") or b"").rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        if not title:
            return "an unknown process"  # it has come out of it just now
        return locks.Holder(pid, f"'{title}'", max(0.0, locks.now() - (busy >> _PID_BITS) / 1000))

    def _complete(self) -> int:
        """End a commit, one's own or that of a writer that died; the lock is held."""
        self._intent.complete()
        counter, _, changes, _ = _WORDS.unpack_from(self._map)
        _WORDS.pack_into(self._map, 0, counter + 1, 0, changes, changes)
        return int(counter) + 1

    def _note(self, path: str) -> None:
        counter, busy, changes, ended = _WORDS.unpack_from(self._map)
        self._ring.write(changes + 1, path)
        _WORDS.pack_into(self._map, 0, counter, busy, changes + 1, ended)

    def _open(self) -> int:
        # A descriptor of one's own: a flock belongs to the open file, which forked processes would share.
        try:
            return os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise os_error(error, f"cannot open '{self._path}'") from None

    def subscribe(self) -> journal.Reader:
        """A reader of the events which begin now."""
        return journal.Reader(self._intent.journal)


class _Completion:
    """Ends the commit even if its block raised, or a step failed: what had been made visible by then is visible."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._generation._complete()
