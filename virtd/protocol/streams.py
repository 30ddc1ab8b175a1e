"""The course of a stream, for both sides, without I/O: which packet means what, and when.

A stream belongs to the call that opened it and carries that call's program, procedure and serial. It may flow once
the call was answered with OK. Packets are CONTINUE with raw data; a hole, if the call asked for holes; and

    from the server    CONTINUE, empty    it has no more data: the client will finish
                       OK                 the client's finish or abort is done: the stream is over
                       ERROR              the stream is dead
    from the client    OK                 finish: it has sent all and wants no more
                       ERROR              abort

There is no flow control but that of the transport. Packets for a stream that is over are dropped in silence, and so
is data that crosses the client's own finish or abort.
"""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol import codec
from virtd.protocol.framing import FramingError
from virtd.protocol.messages import (
    CONTINUE,
    ERROR,
    LENGTH_SIZE,
    OK,
    STREAM,
    STREAM_HOLE,
    Message,
    decode_error,
    encode_error,
)
from virtd.protocol.tables.net import STREAM_DATA_MAX
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# States.
OPEN: Final = "open"
FINISHING: Final = "finishing"
ABORTING: Final = "aborting"
CLOSED: Final = "closed"

# What a packet is, and what a packet means to who receives it.
DATA: Final = "data"
HOLE: Final = "hole"
END: Final = "end"
FINISH: Final = "finish"
ABORT: Final = "abort"
FAILED: Final = "failed"
_EMPTY: Final = "empty"
_OK: Final = "ok"
_ERROR: Final = "error"

# (state, packet): (meaning, next state). What is not listed is dropped.
_SERVER = {
    (OPEN, DATA): (DATA, OPEN),
    (OPEN, HOLE): (HOLE, OPEN),
    (OPEN, _OK): (FINISH, FINISHING),
    (OPEN, _ERROR): (ABORT, ABORTING),
    (FINISHING, _ERROR): (ABORT, ABORTING),
}
_CLIENT = {
    (OPEN, DATA): (DATA, OPEN),
    (OPEN, HOLE): (HOLE, OPEN),
    (OPEN, _EMPTY): (END, OPEN),
    (OPEN, _OK): (FINISH, CLOSED),
    (OPEN, _ERROR): (FAILED, CLOSED),
    (FINISHING, _OK): (FINISH, CLOSED),
    (FINISHING, _ERROR): (FAILED, CLOSED),
    (ABORTING, _OK): (ABORT, CLOSED),
    (ABORTING, _ERROR): (ABORT, CLOSED),
}


class StreamEvent(NamedTuple):
    """What a packet of a stream means.

    Attributes:
        kind: DATA, HOLE, END, FINISH, ABORT or FAILED.
        data: the bytes of DATA.
        length: the length of a HOLE, in bytes.
        error: why the stream FAILED.
    """

    kind: str
    data: bytes = b""
    length: int = 0
    error: VirtError | None = None


class _Stream:
    """What both sides have in common.

    Args:
        call: the call that opened the stream, or its reply.
        sparse: whether the call asked for holes.
    """

    _table: dict[tuple[str, str], tuple[str, str]]

    def __init__(self, call: Message, *, sparse: bool = False) -> None:
        self._packet = call._replace(type=STREAM, status=CONTINUE, payload=b"", fds=())
        self.sparse = sparse
        self.state = OPEN

    @property
    def serial(self) -> int:
        """The serial of the call, which all packets of the stream carry."""
        return self._packet.serial

    def receive(self, message: Message) -> StreamEvent | None:
        """What a packet of this stream means; None if it is to be dropped.

        Raises:
            FramingError: a hole that was not asked for, or is none: the connection is to be closed.
        """
        hole = 0
        if message.type == STREAM_HOLE:
            packet, hole = HOLE, self._read_hole(message)
        elif message.status == CONTINUE:
            packet = DATA if message.payload else _EMPTY
        else:
            packet = _OK if message.status == OK else _ERROR
        meaning = self._table.get((self.state, packet))
        if meaning is None:
            return None
        kind, self.state = meaning
        if kind == DATA:
            return StreamEvent(DATA, data=message.payload)
        if kind == HOLE:
            return StreamEvent(HOLE, length=hole)
        return StreamEvent(kind, error=self._read_error(message) if kind == FAILED else None)

    def _read_hole(self, message: Message) -> int:
        if not self.sparse:
            raise FramingError("a hole in a stream without holes")
        try:
            hole = codec.decode_type("stream_hole", message.payload)
        except codec.DecodeError as error:
            raise FramingError(f"no hole: {error}") from None
        if hole.length < 0 or hole.flags or message.status != CONTINUE:
            raise FramingError(f"a hole of {hole.length} bytes, flags {hole.flags:#x}, status {message.status}")
        length: int = hole.length
        return length

    def _read_error(self, message: Message) -> VirtError:
        try:
            return decode_error(message.payload)
        except codec.DecodeError as error:
            return VirtError(c.VIR_ERR_RPC, f"the stream failed, and its error cannot be read: {error}")

    def data(self, data: bytes) -> list[Message]:
        """The packets that carry the data: none for none."""
        return [
            self._packet._replace(payload=data[start : start + STREAM_DATA_MAX])
            for start in range(0, len(data), STREAM_DATA_MAX)
        ]

    def data_head(self, length: int) -> bytes:
        """What stands before so many bytes of data, at most STREAM_DATA_MAX, in a packet of their own."""
        empty = self._packet.to_bytes()
        return (len(empty) + length).to_bytes(LENGTH_SIZE, "big") + empty[LENGTH_SIZE:]

    def hole(self, length: int) -> Message:
        """The packet for a hole of so many bytes. Only if the call asked for holes."""
        assert self.sparse
        return self._packet._replace(type=STREAM_HOLE, payload=codec.encode_type("stream_hole", (length, 0)))


class ServerStream(_Stream):
    """A stream as its server sees it.

    It receives DATA, HOLE, FINISH and ABORT. Either of the latter is to be answered, by `done` (or, if finishing
    fails, by `fail`), and nothing else may be sent after it.
    """

    _table = _SERVER

    def end(self) -> Message:
        """There is no more data to send. The client may still send some, and will finish."""
        return self._packet

    def done(self) -> Message:
        """The answer to FINISH and ABORT."""
        self.state = CLOSED
        return self._packet._replace(status=OK)

    def fail(self, error: VirtError) -> Message:
        """The stream is dead, and this is why."""
        self.state = CLOSED
        return self._packet._replace(status=ERROR, payload=encode_error(error))


class ClientStream(_Stream):
    """A stream as its client sees it.

    It receives DATA, HOLE, END (whereupon `finish` is due), FINISH and ABORT (the answers to its own) and FAILED.
    """

    _table = _CLIENT

    def finish(self) -> Message:
        """All was sent and received: the server will answer."""
        self.state = FINISHING
        return self._packet._replace(status=OK)

    def abort(self) -> Message:
        """No more of it: the server will answer."""
        self.state = ABORTING
        return self._packet._replace(status=ERROR)
