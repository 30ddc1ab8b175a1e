"""The bytes to and from one client: a socket, or the two descriptors that a program was started with.

Nothing here blocks. What the client does not take at once is kept, in order, and `full` says when that has become
so much that nobody should make more for it. The bound is soft by one message, since none is torn. Descriptors
travel on Unix sockets only: each with a zero byte of its own, after its message.

This module knows no messages.
"""

import array
import contextlib
import os
import socket
from collections import deque
from collections.abc import Sequence

FULL = 1 << 20  # bytes waiting for the client above which no more are made
CHUNK = 65536  # bytes read at one time
SPLICE_NONBLOCK = 2  # SPLICE_F_NONBLOCK, splice(2)
_FDS_ROOM = socket.CMSG_SPACE(32 * array.array("i").itemsize)


class ChannelClosedError(Exception):
    """The client is gone."""


class Channel:
    """One client's connection: what is common to sockets and pipes.

    Args:
        reader: the descriptor to poll for reading.
        writer: the descriptor to poll for writing, while `waiting`.
    """

    passes_fds = False  # whether descriptors can travel
    plain = True  # whether what is read from the reader, or written to the writer, is what is said

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer
        self._waiting: deque[tuple[memoryview, int]] = deque()
        self._size = 0

    def _read(self, most: int) -> tuple[bytes, list[int]]:
        raise NotImplementedError

    def _write(self, data: bytes | memoryview, descriptor: int = -1) -> int:
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection; what is waiting is lost."""
        for _data, descriptor in self._waiting:
            if descriptor >= 0:
                os.close(descriptor)
        self._waiting.clear()

    @property
    def waiting(self) -> bool:
        """Whether the client has yet to take something: `flush` is due when `writer` can be written."""
        return bool(self._waiting)

    @property
    def full(self) -> bool:
        """Whether the client has so much to take that it should not be given more."""
        return self._size >= FULL

    def receive(self, most: int = CHUNK) -> tuple[bytes, list[int]]:
        """What has come: bytes, and the descriptors that came with them. No bytes if there is nothing now.

        Args:
            most: the largest number of bytes.

        Raises:
            ChannelClosedError: the client has closed the connection, or it is broken.
        """
        try:
            data, fds = self._read(most)
        except BlockingIOError:
            return b"", []
        except OSError as error:
            raise ChannelClosedError(error.strerror) from None
        if not data:
            raise ChannelClosedError
        return data, fds

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send a message, now or when the client takes it.

        Args:
            data: all of its bytes.
            fds: descriptors that follow it; they are closed when they are sent, or cannot be.

        Raises:
            ChannelClosedError: the client is gone.
        """
        if not self._waiting and not fds:
            try:
                sent = self._write(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise ChannelClosedError(error.strerror) from None
            if sent == len(data):
                return
            data = data[sent:]
        self._queue(data, -1)
        for descriptor in fds:
            self._queue(b"\0", descriptor)
        if fds:
            self.flush()

    def pour(self, head: bytes, pipe: int, length: int) -> None:
        """Send a message's head, and its data from a pipe, in which they are.

        As far as the client takes them at once the kernel moves them; the rest is read, and waits as others do.

        Raises:
            ChannelClosedError: the client is gone.
        """
        self.send(head)
        left = length
        try:
            while left and self.plain and not self._waiting:
                left -= os.splice(pipe, self.writer, left, flags=SPLICE_NONBLOCK)
        except BlockingIOError:
            pass
        except OSError as error:
            raise ChannelClosedError(error.strerror) from None
        while left:
            data = os.read(pipe, left)
            left -= len(data)
            self.send(data)

    def flush(self) -> None:
        """Send what is waiting, as far as the client takes it.

        Raises:
            ChannelClosedError: the client is gone.
        """
        try:
            while self._waiting:
                self._send_first()
        except BlockingIOError:
            return
        except OSError as error:
            raise ChannelClosedError(error.strerror) from None

    def descriptors(self) -> set[int]:
        """What a forked child has to close."""
        return {self.reader, self.writer, *(descriptor for _data, descriptor in self._waiting if descriptor >= 0)}

    def _queue(self, data: bytes, descriptor: int) -> None:
        self._waiting.append((memoryview(data), descriptor))
        self._size += len(data)

    def _send_first(self) -> None:
        data, descriptor = self._waiting[0]
        sent = self._write(data, descriptor)
        if descriptor >= 0:
            os.close(descriptor)
        self._size -= sent
        self._waiting.popleft()
        if sent < len(data):
            self._waiting.appendleft((data[sent:], -1))


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


class SocketChannel(Channel):
    """A client at the other end of a stream socket.

    Args:
        sock: the socket.
        unix: whether it is a Unix socket.
    """

    def __init__(self, sock: socket.socket, *, unix: bool) -> None:
        sock.setblocking(False)
        super().__init__(sock.fileno(), sock.fileno())
        self.passes_fds = unix
        self._sock = sock

    def _read(self, most: int) -> tuple[bytes, list[int]]:
        if not self.passes_fds:
            return self._sock.recv(most), []
        data, ancillary, _flags, _address = self._sock.recvmsg(most, _FDS_ROOM, socket.MSG_CMSG_CLOEXEC)
        return data, _descriptors(ancillary) if ancillary else []

    def _write(self, data: bytes | memoryview, descriptor: int = -1) -> int:
        if descriptor < 0 or not self.passes_fds:
            return self._sock.send(data)
        return socket.send_fds(self._sock, [data], [descriptor])

    def close(self) -> None:
        super().close()
        self._sock.close()


class PipeChannel(Channel):
    """A client at the other end of two pipes: what sshd gives to the program it starts."""

    def __init__(self, reader: int, writer: int) -> None:
        super().__init__(reader, writer)
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)

    def _read(self, most: int) -> tuple[bytes, list[int]]:
        return os.read(self.reader, most), []

    def _write(self, data: bytes | memoryview, descriptor: int = -1) -> int:
        return os.write(self.writer, data)

    def close(self) -> None:
        super().close()
        for descriptor in {self.reader, self.writer}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
