"""Bytes to messages, without I/O: whoever owns the socket feeds what arrives and takes out what is complete.

    framer = Framer()
    framer.receive(data, fds)
    while (message := framer.next_message()) is not None: ...

A packet is a length word (which counts itself), a header of 24 bytes and a payload; after a packet of a type "with
descriptors" comes, for each descriptor, one byte that carries it as ancillary data. The kernel hands over a
descriptor together with its byte, so a socket that can carry descriptors must be read by recvmsg with room for
them every time, and what it gave be passed on in order.

Nothing is reserved on the word of a peer: the buffer holds bytes that came, and never more than `limit` allows and
one reading besides. After a FramingError the stream of bytes makes no sense any more: the connection is to be
closed, with the descriptors that `close` returns.
"""

from __future__ import annotations

import struct

from virtd.protocol.messages import CONTINUE, HEADER, LENGTH_SIZE, STREAM, WITH_FDS, Message
from virtd.protocol.tables.net import FDS_MAX, HEADER_LENGTH, MESSAGE_INITIAL_MAX, MESSAGE_MAX, TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LENGTH = struct.Struct(">I")
SMALLEST = LENGTH_SIZE + HEADER_LENGTH  # bytes of a packet without payload
_TYPES = TYPES["message_type"].count("=")
_STATUSES = TYPES["message_status"].count("=")


class FramingError(ValueError):
    """The peer does not speak the protocol; the connection cannot go on."""


class Framer:
    """The receiving side of one connection.

    Attributes:
        limit: how long a packet may be, in bytes, the length word not counted: small at first; to be raised by
            `unlimit` once the peer is authenticated.
    """

    def __init__(self, limit: int = MESSAGE_INITIAL_MAX) -> None:
        self.limit = limit
        self._buffer: bytes | bytearray = b""
        self._start = 0
        self._fds: list[int] = []
        # A packet that is complete but for its descriptors, and how many those are.
        self._waiting: Message | None = None
        self._wanted = 0

    def unlimit(self) -> None:
        """Allow packets as long as the protocol does."""
        self.limit = MESSAGE_MAX

    def receive(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Take in what one reading gave.

        Args:
            data: bytes.
            fds: the descriptors that came with them. From now on they belong to the framer.
        """
        self._fds.extend(fds)
        if self._start == len(self._buffer):
            self._buffer, self._start = data, 0
            return
        if isinstance(self._buffer, bytearray):
            del self._buffer[: self._start]
        else:
            self._buffer = bytearray(self._buffer[self._start :])
        self._start = 0
        self._buffer += data

    def next_message(self) -> Message | None:
        """The next complete message, which then owns its descriptors; None until more is received.

        Raises:
            FramingError: the bytes are no messages.
        """
        if self._waiting is not None:
            return self._take_fds()
        buffer, start = self._buffer, self._start
        available = len(buffer) - start
        if available < LENGTH_SIZE:
            return self._need_data()
        (length,) = _LENGTH.unpack_from(buffer, start)
        if length < SMALLEST:
            raise FramingError(f"packet of {length} bytes is too small, want {SMALLEST}")
        if length - LENGTH_SIZE > self.limit:
            raise FramingError(f"packet of {length} bytes is too large, want {self.limit}")
        if available < length:
            return self._need_data()
        _, program, version, procedure, kind, serial, status = HEADER.unpack_from(buffer, start)
        if kind >= _TYPES or status >= _STATUSES:
            raise FramingError(f"packet of type {kind}, status {status}")
        end = start + length
        payload = bytes(memoryview(buffer)[start + SMALLEST : end])
        self._start = end
        if kind in WITH_FDS:
            if len(payload) < 4:
                raise FramingError("packet without its number of descriptors")
            (self._wanted,) = _LENGTH.unpack_from(payload)
            if self._wanted > FDS_MAX:
                raise FramingError(f"packet with {self._wanted} descriptors, at most {FDS_MAX}")
            self._waiting = Message(program, version, procedure, kind, serial, status, payload[4:])
            return self._take_fds()
        return Message(program, version, procedure, kind, serial, status, payload, ())

    def begun(self) -> tuple[Message, int] | None:
        """Take out what has come of a stream's packet with data; next_message() has said that nothing is complete.

        Returns:
            The packet with the part of its data that has come, and how many bytes are missing. They are no more the
            framer's: whoever calls this reads them, and feeds what comes behind them.
        """
        available = len(self._buffer) - self._start
        if self._waiting is not None or available < SMALLEST:
            return None
        length, program, version, procedure, kind, serial, status = HEADER.unpack_from(self._buffer, self._start)
        if kind != STREAM or status != CONTINUE:
            return None
        payload = bytes(memoryview(self._buffer)[self._start + SMALLEST :])
        self._buffer, self._start = b"", 0
        return Message(program, version, procedure, kind, serial, status, payload), length - available

    def _take_fds(self) -> Message | None:
        """The waiting message with its descriptors, once the bytes that carry them are there."""
        assert self._waiting is not None
        wanted = self._wanted
        if len(self._buffer) - self._start < wanted:
            return self._need_data()
        if len(self._fds) < wanted:
            raise FramingError("a byte came without its descriptor")
        self._start += wanted
        message = self._waiting._replace(fds=tuple(self._fds[:wanted]))
        del self._fds[:wanted]
        self._waiting, self._wanted = None, 0
        return message

    def _need_data(self) -> Message | None:
        if len(self._fds) > self._wanted:
            raise FramingError("a descriptor came that no packet announced")
        return None

    @property
    def pending(self) -> bool:
        """Whether the peer is in the middle of something: if it closes now, it was cut off."""
        return self._waiting is not None or self._start < len(self._buffer)

    @property
    def missing(self) -> int:
        """How many bytes at least are to come before there can be another message."""
        available = len(self._buffer) - self._start
        if self._waiting is not None:
            return max(0, self._wanted - available)
        if available < LENGTH_SIZE:
            return SMALLEST - available
        (length,) = _LENGTH.unpack_from(self._buffer, self._start)
        return max(0, int(length) - available)

    def close(self) -> list[int]:
        """Forget everything; returns the descriptors that no message took over, for the caller to close."""
        fds, self._fds = self._fds, []
        self._buffer, self._start = b"", 0
        self._waiting, self._wanted = None, 0
        return fds
