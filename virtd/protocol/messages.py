"""Messages: what one packet says, and how calls, replies, errors, events and stream packets are made.

This is the one place where a VirtError becomes the wire's error and the wire's error a VirtError. Bytes are made
by `Message.to_bytes` and read by virtd.protocol.framing.
"""

from __future__ import annotations

import struct

from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol import codec
from virtd.protocol.procedure import Procedure
from virtd.protocol.programs import BY_NAME, KEEPALIVE
from virtd.protocol.tables.net import HEADER_LENGTH, PAYLOAD_MAX, STRING_MAX
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

# Types of messages.
CALL: Final = 0
REPLY: Final = 1
MESSAGE: Final = 2
STREAM: Final = 3
CALL_WITH_FDS: Final = 4
REPLY_WITH_FDS: Final = 5
STREAM_HOLE: Final = 6
WITH_FDS: Final = frozenset((CALL_WITH_FDS, REPLY_WITH_FDS))

# Their status.
OK: Final = 0
ERROR: Final = 1
CONTINUE: Final = 2

# A server's object events carry this serial; keepalive messages 0. Nobody may rely on either.
EVENT_SERIAL: Final = 1

HEADER = struct.Struct(">IIIiIII")
_COUNT = struct.Struct(">I")
LENGTH_SIZE = 4


class Message(NamedTuple):
    """One packet.

    Attributes:
        program, version, procedure: numbers; programs.PROGRAMS knows them.
        type: CALL, REPLY, MESSAGE, STREAM, CALL_WITH_FDS, REPLY_WITH_FDS or STREAM_HOLE.
        serial: what joins a reply or a stream packet to its call.
        status: OK, ERROR or CONTINUE.
        payload: encoded values, or the raw data of a stream.
        fds: the descriptors that belong to it. The sender of a message with descriptors sends `to_bytes()` and
            then, for each of them, one zero byte with the descriptor as ancillary data.
    """

    program: int
    version: int
    procedure: int
    type: int
    serial: int
    status: int = OK
    payload: bytes = b""
    fds: tuple[int, ...] = ()

    def to_bytes(self) -> bytes:
        """The packet, without its descriptors.

        Raises:
            codec.EncodeError: the payload is larger than the protocol allows.
        """
        payload = self.payload
        if self.type in WITH_FDS:
            payload = _COUNT.pack(len(self.fds)) + payload
        return _packet(self[:6], payload)


def _packet(head: tuple[int, ...], payload: bytes) -> bytes:
    if len(payload) > PAYLOAD_MAX:
        raise codec.EncodeError(f"payload of {len(payload)} bytes, at most {PAYLOAD_MAX}")
    return HEADER.pack(LENGTH_SIZE + HEADER_LENGTH + len(payload), *head) + payload


def make_call(procedure: Procedure, serial: int, args: Sequence[Any], fds: Sequence[int] = ()) -> Message:
    """A call; with descriptors if the procedure's calls take some.

    Raises:
        codec.EncodeError: the arguments do not fit the table.
    """
    program = BY_NAME[procedure.program]
    payload = codec.encode_args(procedure, args)
    kind = CALL_WITH_FDS if procedure.fds_in_call else CALL
    return Message(program.number, program.version, procedure.number, kind, serial, OK, payload, tuple(fds))


def make_reply(call: Message, procedure: Procedure, result: Any, fds: Sequence[int] = ()) -> Message:
    """The answer to a call; with descriptors if the procedure's replies carry some.

    Raises:
        codec.EncodeError: the result does not fit the table.
    """
    payload = codec.encode_result(procedure, result)
    kind = REPLY_WITH_FDS if procedure.fds_in_reply else REPLY
    return Message(call.program, call.version, call.procedure, kind, call.serial, OK, payload, tuple(fds))


def reply_bytes(call: Message, payload: bytes) -> bytes:
    """The answer to a call, as make_reply(call, …).to_bytes(), of a payload and without descriptors.

    Raises:
        codec.EncodeError: the payload is larger than the protocol allows.
    """
    return _packet((*call[:3], REPLY, call[4], OK), payload)


def make_error(call: Message, error: VirtError) -> Message:
    """The answer to a call that failed, or the end of a stream that failed.

    Args:
        call: the call, or any packet of the stream: the answer to a stream packet is a stream packet.
    """
    kind = STREAM if call.type in (STREAM, STREAM_HOLE) else REPLY
    return Message(call.program, call.version, call.procedure, kind, call.serial, ERROR, encode_error(error))


def make_event(procedure: Procedure, values: Sequence[Any]) -> Message:
    """An event, as a server sends it.

    Raises:
        codec.EncodeError: the values do not fit the table.
    """
    program = BY_NAME[procedure.program]
    payload = codec.encode_event(procedure, values)
    return Message(program.number, program.version, procedure.number, MESSAGE, EVENT_SERIAL, OK, payload)


def _keepalive(name: str) -> Message:
    return Message(KEEPALIVE.number, KEEPALIVE.version, KEEPALIVE.named[name].number, MESSAGE, 0)


PING: Final = _keepalive("PING")
PONG: Final = _keepalive("PONG")


def _text(text: str | None) -> str | None:
    """Text as the wire can carry it: a message may quote whatever a guest printed."""
    return None if text is None else text.replace("\0", "")[: STRING_MAX // 4]


def encode_error(error: VirtError) -> bytes:
    """The payload of a message with status ERROR."""
    fields = (
        error.code,
        error.domain,
        _text(error.message),
        error.level,
        None,
        _text(error.str1),
        _text(error.str2),
        _text(error.str3),
        error.int1,
        error.int2,
        None,
    )
    return codec.encode_type("error", fields)


def decode_error(payload: bytes) -> VirtError:
    """The error in the payload of a message with status ERROR, just as it was sent.

    Raises:
        codec.DecodeError: the payload is no error.
    """
    wire = codec.decode_type("error", payload)
    error = VirtError(wire.code, domain=wire.domain, level=wire.level)
    if wire.message is not None:
        error.message = wire.message
        error.args = (wire.message,)
    error.str1, error.str2, error.str3 = wire.str1, wire.str2, wire.str3
    error.int1, error.int2 = wire.int1, wire.int2
    return error


def rpc_error(detail: str) -> VirtError:
    """What libvirt says of a message that is wrong in itself (VIR_ERR_RPC)."""
    return VirtError(c.VIR_ERR_RPC, detail, domain=c.VIR_FROM_RPC)
