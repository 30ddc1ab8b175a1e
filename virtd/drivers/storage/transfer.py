"""Upload and download: the content of volumes as streams.

The process that serves the call copies between the volume and its end of a socket, the connection's worker between
the other end and the client. An upload changes the volume in place, as its offset and length ask for. With holes
asked for, those of the volume are sent as such, and those that come, and zeros that come, become holes.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterator

from virtd import constants as c
from virtd.drivers import holes
from virtd.drivers.base import Reply, Stream
from virtd.drivers.storage.driverbase import Located, StorageBase
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import StorageVol
from virtd.state import files

_CHUNK = 1 << 20  # bytes
_BLOCK = 1 << 16  # bytes: the least hole that is looked for
_ZEROS = bytes(_CHUNK)
_Punch = Callable[[int, int, int], bool]
_PUNCH = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, fallocate(2)


class Transfer(StorageBase):
    """Moving volumes' content."""

    def storage_vol_download(self, volume: StorageVol, offset: int, length: int, flags: int) -> Reply:
        """virStorageVolDownload."""
        unsupported_flags(flags, c.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM, "storageVolDownload")
        located = self._content(volume)
        descriptor = _open(located.path, os.O_RDONLY)

        def work(ours: socket.socket) -> None:
            send = _send_sparsely if ours.type == socket.SOCK_SEQPACKET else _send
            with ours:
                send(ours, descriptor, offset, length or None, located.path)

        return Reply(stream=_stream(work))

    def storage_vol_upload(self, volume: StorageVol, offset: int, length: int, flags: int) -> Reply:
        """virStorageVolUpload."""
        unsupported_flags(flags, c.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM, "storageVolUpload")
        located = self._content(volume)
        lock = self.pools.jobs.volume(located.path, "virStorageVolUpload")
        try:
            descriptor = _open(located.path, os.O_RDWR)
        except VirtError:
            lock.release()
            raise
        sparse = bool(flags & c.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)

        def work(ours: socket.socket) -> None:
            with lock, ours:
                _receive(ours, descriptor, offset, length or None, located.path, sparse=sparse)
            self.refreshed(located.entry)

        return Reply(stream=_stream(work))

    def _content(self, volume: StorageVol) -> Located:
        """A volume that has content of its own."""
        located, facts = self.look(volume)
        if facts.type == "dir":
            raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, f"volume '{located.name}' is a directory")
        return located


def _stream(work: Callable[[socket.socket], None]) -> Stream:
    """A stream of bytes, which can be made one with holes."""
    ours, theirs = socket.socketpair()

    def sparse() -> Stream:
        ours.close()
        os.close(plain.descriptor)
        mine, yours = holes.pair()
        return Stream(yours.detach(), lambda: work(mine))

    plain = Stream(theirs.detach(), lambda: work(ours), sparse=sparse)
    return plain


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        failure = files.os_error(error, f"cannot open volume '{path}'")
        failure.domain = c.VIR_FROM_STORAGE
        raise failure from None


def _send(sock: socket.socket, descriptor: int, offset: int, length: int | None, path: str) -> None:
    """Send a volume's content, from offset on, at most length bytes."""
    try:
        left = length
        while left is None or left:
            sent = os.sendfile(sock.fileno(), descriptor, offset, _CHUNK if left is None else min(left, _CHUNK))
            if not sent:
                break
            offset += sent
            left = None if left is None else left - sent
    except BrokenPipeError:
        pass  # the client has had enough
    except OSError as error:
        raise files.os_error(error, f"cannot read volume '{path}'") from None
    finally:
        os.close(descriptor)


def _send_sparsely(sock: socket.socket, descriptor: int, offset: int, length: int | None, path: str) -> None:
    """As _send(), with holes."""
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        end = end if length is None else min(end, offset + length)
        buffer = memoryview(bytearray(holes.DATA_MAX))
        while offset < end:
            start = min(_seek(descriptor, offset, os.SEEK_DATA, end), end)
            if start > offset:
                holes.write(sock.fileno(), start - offset)
            stop = min(_seek(descriptor, start, os.SEEK_HOLE, end), end)
            for offset in range(start, stop, len(buffer)):
                got = os.preadv(descriptor, [buffer[: stop - offset]], offset)
                holes.write(sock.fileno(), buffer[:got])
            offset = stop
    except BrokenPipeError:
        pass  # the client has had enough
    except OSError as error:
        raise files.os_error(error, f"cannot read volume '{path}'") from None
    finally:
        os.close(descriptor)


def _seek(descriptor: int, offset: int, what: int, end: int) -> int:
    """Where the next data or the next hole begins; what is no file has no holes."""
    try:
        return os.lseek(descriptor, offset, what)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        if error.errno == errno.EINVAL:
            return offset if what == os.SEEK_DATA else end
        raise


def _receive(sock: socket.socket, descriptor: int, offset: int, length: int | None, path: str, *, sparse: bool) -> None:
    """Write what comes into a volume, from offset on, at most length bytes."""
    view = memoryview(bytearray(_CHUNK))
    punch = _puncher() if sparse else None
    size = os.fstat(descriptor).st_size
    end = None if length is None else offset + length
    try:
        for part in _packets(sock) if sock.type == socket.SOCK_SEQPACKET else _chunks(sock, view):
            got = part if isinstance(part, int) else len(part)
            if end is not None and offset + got > end:
                text = f"more data for volume '{path}' than the {length} bytes that were announced"
                raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_STORAGE)
            if isinstance(part, int):
                _clear(descriptor, part, offset, size, punch)
            elif punch is None:
                _write(descriptor, part, offset)
            else:
                _write_sparsely(descriptor, part, offset, size, punch)
            offset += got
            size = max(size, offset)
        if sparse and os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
    except OSError as error:
        raise files.os_error(error, f"cannot write volume '{path}'") from None
    finally:
        os.close(descriptor)


def _packets(sock: socket.socket) -> Iterator[memoryview | int]:
    """What comes on a stream with holes: data, and lengths of holes."""
    while packet := sock.recv(holes.PACKET_MAX):
        part = holes.parse(packet)
        yield part if isinstance(part, int) else memoryview(part)


def _chunks(sock: socket.socket, view: memoryview) -> Iterator[memoryview]:
    """What comes on a stream of bytes, in the same buffer each time."""
    while got := _fill(sock, view):
        yield view[:got]


def _fill(sock: socket.socket, view: memoryview) -> int:
    """Fill a buffer, or what there is before the end: whole buffers make whole holes."""
    got = 0
    while got < len(view) and (more := sock.recv_into(view[got:])):
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
