"""Streams with holes between a process that does a stream's work and the one that serves the client.

They go through a pipe. Before each part stands a head: its kind ('d' for data, 'h' for a hole) and its length (8 bytes
in network order); data follow their head. A head is written at once, so that a pipe never holds half of one. That a
pipe carries heads nothing but Stream.holes tells.
"""

import errno
import os
import struct
from collections.abc import Iterator

PIPE_SIZE = 1 << 20  # bytes: what an unprivileged process may have (/proc/sys/fs/pipe-max-size)
_PART = 1 << 20  # bytes of data that are handed on at a time
_HEAD = struct.Struct("!cQ")
HEAD_SIZE = _HEAD.size
_DATA, _HOLE = b"d", b"h"
_F_SETPIPE_SZ = 1031  # fcntl(2)


def pipe() -> tuple[int, int]:
    """A pipe for a stream of much data: its end to be read, and its end to be written."""
    import fcntl

    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, _F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        pass  # the user has many pipes; a small one does
    return reader, writer


def data_head(length: int) -> bytes:
    """What stands before so many bytes of data."""
    return _HEAD.pack(_DATA, length)


def hole(length: int) -> bytes:
    """A hole of so many bytes."""
    return _HEAD.pack(_HOLE, length)


def parse(head: bytes) -> tuple[bool, int]:
    """Whether a hole comes, rather than data, and how long it is.

    Raises:
        OSError: EIO, it is no head.
    """
    if len(head) == HEAD_SIZE:
        kind, length = _HEAD.unpack(head)
        if kind in (_DATA, _HOLE):
            return kind == _HOLE, length
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def send(descriptor: int, what: bytes | memoryview | int) -> None:
    """Write data, or (an int) a hole of so many bytes, all of it.

    Raises:
        OSError: as os.write().
    """
    if isinstance(what, int):
        os.write(descriptor, hole(what))
    elif what:
        os.write(descriptor, data_head(len(what)))
        view = memoryview(what)
        while view:
            view = view[os.write(descriptor, view) :]


def send_file(writer: int, descriptor: int, offset: int, end: int) -> Iterator[int]:
    """Send a file from one place to another, with its holes; the kernel moves the data.

    Args:
        writer: the pipe.
        descriptor: the file; what is no file has no holes.
        offset, end: the places, in bytes.

    Yields:
        Up to where it has been sent.

    Raises:
        OSError: as os.sendfile(); EIO if the file has become shorter meanwhile.
    """
    while offset < end:
        start = min(_seek(descriptor, offset, os.SEEK_DATA, end), end)
        if start > offset:
            send(writer, start - offset)
        stop = min(_seek(descriptor, start, os.SEEK_HOLE, end), end)
        if stop > start:
            os.write(writer, data_head(stop - start))
        offset = start
        while offset < stop:
            sent = os.sendfile(writer, descriptor, offset, min(stop - offset, _PART))
            if not sent:
                raise OSError(errno.EIO, "it has become shorter meanwhile")
            offset += sent
            yield offset
        yield offset


def _seek(descriptor: int, offset: int, what: int, end: int) -> int:
    """Where the next data or the next hole begins."""
    try:
        return os.lseek(descriptor, offset, what)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        if error.errno == errno.EINVAL:
            return offset if what == os.SEEK_DATA else end
        raise


def receive(descriptor: int) -> Iterator[bytes | int]:
    """What comes, part by part, to the end: data, and lengths of holes.

    Raises:
        OSError: as os.read(); EIO if it ends in the middle of a part.
    """
    while head := os.read(descriptor, HEAD_SIZE):
        is_hole, left = parse(head)
        if is_hole:
            yield left
            continue
        while left:
            data = os.read(descriptor, min(left, _PART))
            if not data:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            left -= len(data)
            yield data
