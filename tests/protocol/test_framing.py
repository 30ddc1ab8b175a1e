"""Bytes to messages: however they arrive, the same messages come out; and nothing but messages does."""

import struct
import tracemalloc
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtd.protocol import messages as m
from virtd.protocol.codec import EncodeError
from virtd.protocol.framing import Framer, FramingError
from virtd.protocol.messages import Message
from virtd.protocol.tables.net import MESSAGE_INITIAL_MAX, MESSAGE_MAX

PROGRAM = 0x20008086

SAMPLES = [
    Message(PROGRAM, 1, 1, m.CALL, 1, m.OK, b"\0\0\0\0\0\0\0\0"),
    Message(PROGRAM, 1, 1, m.REPLY, 1),
    m.PING,
    m.PONG,
    Message(PROGRAM, 1, 209, m.STREAM, 9, m.CONTINUE, b"odd"),
    Message(PROGRAM, 1, 209, m.STREAM_HOLE, 9, m.CONTINUE, b"\0" * 12),
    Message(PROGRAM, 1, 310, m.CALL_WITH_FDS, 10, m.OK, b"\0" * 20, (5, 6)),
    Message(PROGRAM, 1, 310, m.CALL_WITH_FDS, 11, m.OK, b"\0" * 20, ()),
    Message(PROGRAM, 1, 343, m.REPLY_WITH_FDS, 12, m.OK, b"", (7,)),
    Message(PROGRAM, 1, -1, m.REPLY, 2**32 - 1, m.ERROR, b"x" * 1000),
]


def pieces(message: Message) -> list[tuple[bytes, tuple[int, ...]]]:
    """What a sender puts on a socket for a message, and which descriptor goes with it."""
    return [(message.to_bytes(), ()), *((b"\0", (fd,)) for fd in message.fds)]


def drain(framer: Framer) -> list[Message]:
    found = []
    while (message := framer.next_message()) is not None:
        found.append(message)
    return found


def feed(parts: Iterable[tuple[bytes, Sequence[int]]], framer: Framer | None = None) -> list[Message]:
    framer = framer or Framer()
    found = []
    for data, fds in parts:
        framer.receive(data, fds)
        found += drain(framer)
    assert not framer.pending
    assert framer.close() == []
    return found


@pytest.mark.parametrize("message", SAMPLES, ids=str)
def test_whole(message: Message) -> None:
    assert feed(pieces(message)) == [message]


@pytest.mark.parametrize("message", SAMPLES, ids=str)
def test_byte_by_byte(message: Message) -> None:
    parts = [(data[i : i + 1], fds) for data, fds in pieces(message) for i in range(len(data))]
    assert feed(parts) == [message]


@pytest.mark.parametrize("message", SAMPLES, ids=str)
def test_garbage_behind(message: Message) -> None:
    framer = Framer()
    parts = pieces(message)
    framer.receive(b"".join(data for data, _ in parts) + b"\0\0\0\1garbage", message.fds)
    assert framer.next_message() == message
    for _ in range(2):
        with pytest.raises(FramingError, match="packet of 1 bytes is too small, want 28"):
            framer.next_message()


def test_many_at_once() -> None:
    """The kernel stops reading behind each descriptor, so data in front of it comes along with it."""
    wire: list[tuple[bytes, tuple[int, ...]]] = []
    before = b""
    for message in SAMPLES * 3:
        for data, fds in pieces(message):
            before += data
            if fds:
                wire.append((before, fds))
                before = b""
    wire.append((before, ()))
    assert feed(wire) == SAMPLES * 3


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([message for message in SAMPLES if not message.fds]), max_size=20),
    st.lists(st.integers(1, 100), min_size=1),
)
def test_any_split(messages: list[Message], sizes: list[int]) -> None:
    data = b"".join(message.to_bytes() for message in messages)
    parts = []
    for turn in range(len(data) + 1):
        size = sizes[turn % len(sizes)]
        parts.append((data[:size], ()))
        data = data[size:]
    assert feed(parts) == messages


def test_how_much_is_missing() -> None:
    framer = Framer()
    data = SAMPLES[0].to_bytes()
    assert framer.missing == 28
    framer.receive(data[:3])
    assert framer.missing == 25
    framer.receive(data[3:10])
    assert framer.missing == len(data) - 10
    assert framer.pending
    framer.receive(data[10:])
    assert framer.missing == 0
    assert framer.next_message() == SAMPLES[0]
    assert not framer.pending
    whole, first, second = pieces(SAMPLES[6])
    framer.receive(*whole)
    assert framer.next_message() is None
    assert framer.missing == 2
    framer.receive(*first)
    assert framer.next_message() is None
    assert framer.missing == 1
    assert framer.pending
    framer.receive(*second)
    assert framer.next_message() == SAMPLES[6]


def header(length: int, kind: int = 0, status: int = 0) -> bytes:
    return struct.pack(">IIIiIII", length, PROGRAM, 1, 1, kind, 1, status)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0\0\0", "too small"),
        (b"\0\0\0\x1b", "too small"),
        (b"\xff\xff\xff\xff", "too large"),
        (header(28, kind=7), "type 7"),
        (header(28, status=3), "status 3"),
        (header(28, kind=m.CALL_WITH_FDS), "without its number"),
        (header(32, kind=m.CALL_WITH_FDS) + b"\0\0\0\x21", "33 descriptors, at most 32"),
        (header(32, kind=m.REPLY_WITH_FDS) + b"\0\0\0\1" + b"\0", "without its descriptor"),
    ],
)
def test_no_message(data: bytes, reason: str) -> None:
    framer = Framer()
    framer.receive(data)
    with pytest.raises(FramingError, match=reason):
        framer.next_message()


def test_limits() -> None:
    """Before authentication a packet may be small only; afterwards as large as the protocol allows, and no larger."""
    framer = Framer()
    framer.receive(struct.pack(">I", MESSAGE_INITIAL_MAX + 4))
    assert framer.next_message() is None
    framer = Framer()
    framer.receive(struct.pack(">I", MESSAGE_INITIAL_MAX + 5))
    with pytest.raises(FramingError, match="too large"):
        framer.next_message()
    framer = Framer()
    framer.unlimit()
    framer.receive(struct.pack(">I", MESSAGE_MAX + 4))
    assert framer.next_message() is None
    framer = Framer()
    framer.unlimit()
    framer.receive(struct.pack(">I", MESSAGE_MAX + 5))
    with pytest.raises(FramingError, match="too large"):
        framer.next_message()


def test_largest_message() -> None:
    message = Message(PROGRAM, 1, 1, m.REPLY, 1, m.OK, bytes(MESSAGE_MAX - 24))
    framer = Framer(MESSAGE_MAX)
    data = message.to_bytes()
    assert feed([(data[i : i + 1_000_000], ()) for i in range(0, len(data), 1_000_000)], framer) == [message]
    with pytest.raises(EncodeError, match="at most"):
        message._replace(payload=bytes(MESSAGE_MAX - 23)).to_bytes()


def test_memory_is_not_reserved_on_a_word() -> None:
    framer = Framer(MESSAGE_MAX)
    tracemalloc.start()
    framer.receive(struct.pack(">I", MESSAGE_MAX) + b"x" * 1000)
    framer.next_message()
    framer.receive(b"x" * 1000)
    framer.next_message()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000


def test_buffer_does_not_grow_with_what_was_taken() -> None:
    framer = Framer()
    data = SAMPLES[0].to_bytes()
    for _ in range(1000):
        framer.receive(data[:20])
        assert framer.next_message() is None
        framer.receive(data[20:] + data[:5])
        assert framer.next_message() == SAMPLES[0]
        framer.receive(data[5:])
        assert framer.next_message() == SAMPLES[0]
        assert len(framer._buffer) < 3 * len(data)


def test_descriptor_that_nobody_announced() -> None:
    framer = Framer()
    framer.receive(SAMPLES[0].to_bytes(), [9])
    assert framer.next_message() == SAMPLES[0]
    with pytest.raises(FramingError, match="no packet announced"):
        framer.next_message()
    assert framer.close() == [9]


def test_descriptors_are_given_back_at_the_end() -> None:
    """Cut off between the descriptors of a message, those that came are not lost."""
    framer = Framer()
    whole, first, _ = pieces(SAMPLES[6])
    framer.receive(*whole)
    assert framer.next_message() is None
    framer.receive(*first)
    assert framer.next_message() is None
    assert framer.close() == [5]
    assert not framer.pending
    assert framer.close() == []
