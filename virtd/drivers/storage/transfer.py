"""Upload and download: the content of volumes as streams.

The process that serves the call moves data between the volume and its end of a pipe, the connection's worker between
the other end and the client; where it can, the kernel does it, and neither of them sees a byte. An upload changes the
volume in place, as its offset and length ask for. With holes asked for, those of the volume are sent as such, and
those that come become holes.
"""

import errno
import os
from collections.abc import Callable

from virtd import constants as c
from virtd.drivers import holes
from virtd.drivers.base import Reply, Stream
from virtd.drivers.storage.driverbase import Located, StorageBase
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import StorageVol
from virtd.state import files

_CHUNK = 1 << 20  # bytes
_BLOCK = 1 << 16  # bytes: the least hole that is looked for
_REST = 1 << 63  # bytes: more than there can be
_ZEROS = bytes(_CHUNK)
_Punch = Callable[[int, int, int], bool]
_PUNCH = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, fallocate(2)


class Transfer(StorageBase):
    """Moving volumes' content."""

    def storage_vol_download(self, volume: StorageVol, offset: int, length: int, flags: int) -> Reply:
        """virStorageVolDownload."""
        unsupported_flags(flags, c.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM, "storageVolDownload")
        located = self._content(volume, "download")
        descriptor = _open(located.path, os.O_RDONLY)

        def work(writer: int, sparse: bool) -> None:
            send = _send_sparsely if sparse else _send
            try:
                send(writer, descriptor, offset, length or None, located.path)
            finally:
                os.close(writer)

        return Reply(stream=_stream(work, "read"))

    def storage_vol_upload(self, volume: StorageVol, offset: int, length: int, flags: int) -> Reply:
        """virStorageVolUpload."""
        unsupported_flags(flags, c.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM, "storageVolUpload")
        located = self._content(volume, "upload")
        lock = self.pools.jobs.volume(located.path, "virStorageVolUpload")
        try:
            descriptor = _open(located.path, os.O_RDWR)
        except VirtError:
            lock.release()
            raise
        sparse = bool(flags & c.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)

        def work(reader: int, heads: bool) -> None:
            with lock:
                try:
                    _receive(reader, descriptor, offset, length or None, located.path, heads=heads, sparse=sparse)
                finally:
                    os.close(reader)
            self.refreshed(located.entry)

        return Reply(stream=_stream(work, "write"))

    def _content(self, volume: StorageVol, direction: str) -> Located:
        """A volume that has content of its own."""
        self.answering(self.pools.find_name(volume.pool))
        located, facts = self.look(volume)
        self.pools.backend(self.pools.config(located.entry)).check_transfer(direction)
        if facts.type == "dir":
            error = OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            raise files.os_error(error, f"Unable to open stream for '{located.path}'") from None
        return located


def _stream(work: Callable[[int, bool], None], direction: str) -> Stream:
    """A stream through a pipe, which can be made one with holes.

    Args:
        work: gets this side's end of the pipe, which it closes, and whether parts have heads.
        direction: "read": the client reads, this side writes; or "write".
    """
    reader, writer = holes.pipe()
    ours, theirs = (writer, reader) if direction == "read" else (reader, writer)

    def sparse() -> Stream:
        return Stream(theirs, lambda: work(ours, True), holes=True)

    return Stream(theirs, lambda: work(ours, False), sparse=sparse)


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        failure = files.os_error(error, f"cannot open volume '{path}'")
        failure.domain = c.VIR_FROM_STORAGE
        raise failure from None


def _send(writer: int, descriptor: int, offset: int, length: int | None, path: str) -> None:
    """Send a volume's content, from offset on, at most length bytes."""
    try:
        left = _REST if length is None else length
        while left and (sent := os.sendfile(writer, descriptor, offset, min(left, _CHUNK))):
            offset += sent
            left -= sent
    except BrokenPipeError:
        pass  # the client has had enough
    except OSError as error:
        raise files.os_error(error, f"cannot read volume '{path}'") from None
    finally:
        os.close(descriptor)


def _send_sparsely(writer: int, descriptor: int, offset: int, length: int | None, path: str) -> None:
    """As _send(), with holes."""
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        end = end if length is None else min(end, offset + length)
        for _ in holes.send_file(writer, descriptor, offset, end):
            pass
    except BrokenPipeError:
        pass  # the client has had enough
    except OSError as error:
        raise files.os_error(error, f"cannot read volume '{path}'") from None
    finally:
        os.close(descriptor)


class _Target:
    """The volume that an upload writes to.

    Args:
        descriptor: the open volume; it is closed at the end of a with block.
        offset: where to begin.
        length: how many bytes may come; None for any number.
        sparse: whether zeros become holes.
    """

    def __init__(self, descriptor: int, offset: int, length: int | None, *, sparse: bool) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.end = None if length is None else offset + length
        self.size = _size(descriptor)
        self.punch = _puncher() if sparse else None
        self._splices = True

    def announce(self, length: int) -> None:
        """Refuse data beyond what was announced."""
        if self.end is not None and self.offset + length > self.end:
            failure = files.os_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "cannot write to stream")
            failure.domain = c.VIR_FROM_STREAMS
            raise failure

    def advance(self, length: int) -> None:
        self.offset += length
        self.size = max(self.size, self.offset)

    def clear(self, length: int) -> None:
        """Take a hole."""
        self.announce(length)
        _clear(self.descriptor, length, self.offset, self.size, self.punch)
        self.advance(length)

    def fill(self, reader: int, most: int) -> int:
        """Move data from a pipe into the volume; returns how much came, 0 at the end."""
        got = self._move(reader, most)
        self.advance(got)
        return got

    def _move(self, reader: int, most: int) -> int:
        if self.end is not None:
            # One byte more than was announced is enough to know.
            most = min(most, self.end - self.offset + 1)
        if self._splices and (self.end is None or self.offset + most <= self.end):
            try:
                return os.splice(reader, self.descriptor, most, offset_dst=self.offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._splices = False  # this file system cannot take pages from a pipe
        data = os.read(reader, most)
        self.announce(len(data))
        _write(self.descriptor, memoryview(data), self.offset)
        return len(data)


def _size(descriptor: int) -> int:
    """A volume's length in bytes, be it a file or a device."""
    return os.lseek(descriptor, 0, os.SEEK_END)


def _receive(
    reader: int, descriptor: int, offset: int, length: int | None, path: str, *, heads: bool, sparse: bool
) -> None:
    """Write what comes into a volume, from offset on, at most length bytes."""
    try:
        target = _Target(descriptor, offset, length, sparse=sparse)
        if heads:
            _receive_parts(reader, target)
        elif target.punch is None:
            while target.fill(reader, _CHUNK):
                pass
        else:
            _receive_zeros(reader, target, target.punch)
        if sparse and _size(descriptor) < target.size:
            os.ftruncate(descriptor, target.size)
    except OSError as error:
        raise files.os_error(error, f"cannot write volume '{path}'") from None
    finally:
        os.close(descriptor)


def _receive_parts(reader: int, target: _Target) -> None:
    """Take data and holes, as their heads say."""
    while head := os.read(reader, holes.HEAD_SIZE):
        is_hole, left = holes.parse(head)
        if is_hole:
            target.clear(left)
            continue
        target.announce(left)
        while left:
            got = target.fill(reader, min(left, _CHUNK))
            if not got:
                raise OSError(errno.EIO, "the data ends in the middle")
            left -= got


def _receive_zeros(reader: int, target: _Target, punch: _Punch) -> None:
    """Take data of which the zeros are to become holes."""
    view = memoryview(bytearray(_CHUNK))
    while got := _fill(reader, view):
        target.announce(got)
        _write_sparsely(target.descriptor, view[:got], target.offset, target.size, punch)
        target.advance(got)


def _fill(reader: int, view: memoryview) -> int:
    """Fill a buffer, or what there is before the end: whole buffers make whole holes."""
    got = 0
    while got < len(view) and (more := os.readv(reader, [view[got:]])):
        got += more
    return got


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data = data[written:]
        offset += written


def _write_sparsely(descriptor: int, data: memoryview, offset: int, size: int, punch: _Punch) -> None:
    """Write data, leaving out the blocks of zeros; where there was something, it is given back."""
    if data == memoryview(_ZEROS)[: len(data)]:
        _clear(descriptor, len(data), offset, size, punch)
        return
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        if block == memoryview(_ZEROS)[: len(block)]:
            _clear(descriptor, len(block), offset + start, size, punch)
        else:
            _write(descriptor, block, offset + start)


def _clear(descriptor: int, length: int, offset: int, size: int, punch: _Punch | None) -> None:
    """Make zeros of a part of a file, up to its present size; what is beyond is a hole when the file is extended."""
    inside = min(length, max(0, size - offset))
    if inside and (punch is None or not punch(descriptor, offset, inside)):
        for start in range(0, inside, _CHUNK):
            _write(descriptor, memoryview(_ZEROS)[: inside - start], offset + start)


def _puncher() -> _Punch:
    """A function that makes a hole, and tells whether the file system could."""
    import ctypes

    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

    def punch(descriptor: int, offset: int, length: int) -> bool:
        return not fallocate(descriptor, _PUNCH, offset, length)

    return punch
