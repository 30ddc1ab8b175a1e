"""What real clients and libvirtd 9.0.0 said to each other is understood, and made again byte for byte."""

import pytest

from tests.protocol import recordings
from virtd.protocol import codec
from virtd.protocol import messages as m
from virtd.protocol.framing import Framer
from virtd.protocol.messages import Message
from virtd.protocol.programs import PROGRAMS
from virtd.protocol.streams import CLOSED, ClientStream, ServerStream
from virtd.protocol.tables.net import MESSAGE_MAX, STREAM_DATA_MAX


def again(sender: str, message: Message) -> Message:
    """The same message, made from what the original means."""
    procedure = PROGRAMS[message.program].procedures[message.procedure]
    if message.type in (m.CALL, m.CALL_WITH_FDS):
        return m.make_call(procedure, message.serial, codec.decode_args(procedure, message.payload), message.fds)
    if message.type == m.MESSAGE:
        values = codec.decode_event(procedure, message.payload)
        return m.make_event(procedure, values)._replace(serial=message.serial)
    stream = (ClientStream if sender == "C" else ServerStream)(message, sparse=True)
    if message.type == m.STREAM_HOLE:
        return stream.hole(codec.decode_type("stream_hole", message.payload).length)
    if message.type == m.STREAM and message.status == m.CONTINUE:
        assert len(message.payload) <= STREAM_DATA_MAX
        if message.payload:
            return stream.data(message.payload)[0]
        assert isinstance(stream, ServerStream)
        return stream.end()
    if message.type == m.STREAM:
        if isinstance(stream, ClientStream):
            return stream.finish() if message.status == m.OK else stream.abort()
        return stream.done() if message.status == m.OK else stream.fail(m.decode_error(message.payload))
    if message.status == m.ERROR:
        return m.make_error(message, m.decode_error(message.payload))
    return m.make_reply(message, procedure, codec.decode_result(procedure, message.payload), message.fds)


@pytest.mark.parametrize("name", recordings.NAMES)
def test_understood(name: str) -> None:
    recording = recordings.load(name)
    assert [recordings.describe(*item) for item in recording.messages()] == recording.lines


@pytest.mark.parametrize("name", recordings.NAMES)
def test_made_again(name: str) -> None:
    recording = recordings.load(name)
    for sender, message in recording.messages():
        copy = again(sender, message)
        assert copy == message
        assert copy.to_bytes() == message.to_bytes()


@pytest.mark.parametrize("name", recordings.NAMES)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_in_pieces(name: str, size: int) -> None:
    """However the kernel cuts the bytes: no message differs. (Without descriptors; test_framing has those.)"""
    recording = recordings.load(name)
    for sender, data in (("C", recording.client[:5000]), ("S", recording.server[:5000])):
        framer, found = Framer(MESSAGE_MAX), []
        wanted = [message for letter, message in recording.messages() if letter == sender]
        if any(message.type in m.WITH_FDS for message in wanted):
            continue
        for start in range(0, len(data), size):
            framer.receive(data[start : start + size])
            while (message := framer.next_message()) is not None:
                found.append(message)
        assert found
        assert found == wanted[: len(found)]


@pytest.mark.parametrize("name", recordings.NAMES)
def test_streams_run_their_course(name: str) -> None:
    """Both sides' stream objects, fed with the packets of the other side, agree that each stream came to its end."""
    recording = recordings.load(name)
    opened: dict[int, tuple[ServerStream, ClientStream]] = {}
    for sender, message in recording.messages():
        if message.type in (m.STREAM, m.STREAM_HOLE):
            server, client = opened[message.serial]
            receiver, author = (server, client) if sender == "C" else (client, server)
            # Keep the author's state in step with what it sends.
            if message.type == m.STREAM:
                if isinstance(author, ClientStream) and message.status != m.CONTINUE:
                    _ = author.finish() if message.status == m.OK else author.abort()
                elif isinstance(author, ServerStream) and message.status == m.OK:
                    author.done()
            receiver.receive(message)
        elif PROGRAMS[message.program].procedures[message.procedure].stream and message.type == m.REPLY:
            opened[message.serial] = (ServerStream(message, sparse=True), ClientStream(message, sparse=True))
    assert all(stream.state == CLOSED for both in opened.values() for stream in both)


def test_the_corpus_covers_what_there_is() -> None:
    """Every type of message and every program that libvirtd 9.0.0 serves here occur somewhere."""
    everything = [message for name in recordings.NAMES for _, message in recordings.load(name).messages()]
    assert {message.type for message in everything} == set(range(7))
    assert {PROGRAMS[message.program].name for message in everything} == {"remote", "qemu", "admin", "keepalive"}
    assert len({(message.program, message.procedure) for message in everything}) > 90
