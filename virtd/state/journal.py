"""The journal: events as lines of JSON, appended by whoever causes them, read by each subscriber at its own pace.

It lies in segments (journal/1, journal/2, …). A writer, who is inside a commit and so alone, begins a new segment
when the last one is full, and removes the oldest; a reader who is slow keeps its segment open and misses nothing
until it is a whole set of segments behind.

A line is written by one write(). If a writer dies in it or the disk fills up, the rest of the line is missing; the
next writer closes it with a newline, and readers pass over it.
"""

import json
import os
from collections.abc import Sequence

from virtd.state import inotify
from virtd.state.faults import point
from virtd.state.files import os_error, write_all

SEGMENT_SIZE = 4 << 20  # bytes
SEGMENTS_KEPT = 8

Record = dict[str, object]


def _segments(directory: str) -> list[int]:
    return sorted(int(name) for name in os.listdir(directory) if name.isdigit())


def append(directory: str, records: Sequence[Record], *, again: bool = False) -> None:
    """Append records; to be called inside a commit only.

    Args:
        directory: the journal.
        records: what to append; must fit into JSON.
        again: whether somebody who has died may have appended them already, and nobody anything since.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    try:
        _append(directory, b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in records), again)
    except OSError as failure:
        raise os_error(failure, f"cannot write the event journal '{directory}'") from None


def _append(directory: str, lines: bytes, again: bool) -> None:
    point("journal.append", fails=True)
    segments = _segments(directory) or [1]
    path = f"{directory}/{segments[-1]}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if again and os.pread(descriptor, len(lines), max(0, size - len(lines))) == lines:
            return
        torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
        write_all(descriptor, (b"\n" if torn else b"") + lines)
    finally:
        os.close(descriptor)
    point("journal.appended")
    if size >= SEGMENT_SIZE:
        _turn(directory, segments)


def _turn(directory: str, segments: list[int]) -> None:
    descriptor = os.open(f"{directory}/{segments[-1] + 1}", os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    for number in segments[: -SEGMENTS_KEPT + 1]:
        os.unlink(f"{directory}/{number}")


class Reader:
    """One subscriber's place in the journal, and a descriptor that says when there is more."""

    def __init__(self, directory: str) -> None:
        """
        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR if the system's limit of watches is reached.
        """
        self._directory = directory
        # The watch comes first: what is written between it and the seek is read, not lost.
        self._watch = inotify.Watch(directory, inotify.IN_MODIFY | inotify.IN_CREATE)
        self._segment = (_segments(directory) or [1])[-1]
        self._descriptor = -1
        self._rest = b""
        if self._open():
            os.lseek(self._descriptor, 0, os.SEEK_END)

    def fileno(self) -> int:
        """Readable when records may have come."""
        return self._watch.fileno()

    def read(self, most: int = 1000) -> list[Record]:
        """The records that came since the last call, oldest first.

        Args:
            most: about how many to return at once. If that many are returned, there may be more, and the
                descriptor will not tell of them: call again.
        """
        records: list[Record] = []
        self._watch.clear()
        while len(records) < most and (lines := self._lines()):
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue  # a writer died inside this line
                if isinstance(record, dict):
                    records.append(record)
        return records

    def close(self) -> None:
        self._watch.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lines(self) -> list[bytes]:
        while self._open():
            chunk = os.read(self._descriptor, 65536)
            if chunk:
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                if lines:
                    return lines
            elif not self._advance():
                break
        return []

    def _open(self) -> bool:
        if self._descriptor < 0:
            try:
                path = f"{self._directory}/{self._segment}"
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
        return True

    def _advance(self) -> bool:
        """Go on to the next segment, if there is one: then this one has ended."""
        later = [number for number in _segments(self._directory) if number > self._segment]
        if not later or os.fstat(self._descriptor).st_size > os.lseek(self._descriptor, 0, os.SEEK_CUR):
            return bool(later)
        os.close(self._descriptor)
        self._descriptor = -1
        self._rest = b""
        self._segment = later[0]
        return True
