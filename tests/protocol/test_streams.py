"""Streams as conversations between a client's and a server's object."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol import codec, streams
from virtd.protocol import messages as m
from virtd.protocol.framing import FramingError
from virtd.protocol.messages import Message
from virtd.protocol.programs import METHODS, REMOTE
from virtd.protocol.streams import ClientStream, ServerStream, StreamEvent
from virtd.protocol.tables.net import STREAM_DATA_MAX

DOWNLOAD = METHODS["storage_vol_download"]
CALL = m.make_call(DOWNLOAD, 42, (("pool", "vol", "key"), 0, 0, 0))


@pytest.fixture
def pair() -> tuple[ClientStream, ServerStream]:
    return ClientStream(CALL, sparse=True), ServerStream(CALL, sparse=True)


def kinds(stream: ClientStream | ServerStream, *messages: Message) -> list[str | None]:
    """What each packet means to the stream."""
    events = [stream.receive(message) for message in messages]
    return [event and event.kind for event in events]


def test_packets_carry_the_header_of_the_call(pair: tuple[ClientStream, ServerStream]) -> None:
    client, server = pair
    assert client.serial == server.serial == 42
    for message in (*client.data(b"x"), server.end(), server.hole(5), client.finish(), server.done()):
        assert (message.program, message.version, message.procedure, message.serial) == (REMOTE.number, 1, 209, 42)
    assert client.data(b"x")[0].type == m.STREAM
    assert server.hole(5).type == m.STREAM_HOLE


def test_download(pair: tuple[ClientStream, ServerStream]) -> None:
    client, server = pair
    [packet] = server.data(b"abc")
    assert (packet.status, packet.payload) == (m.CONTINUE, b"abc")
    assert client.receive(packet) == StreamEvent(streams.DATA, data=b"abc")
    assert client.receive(server.hole(1 << 40)) == StreamEvent(streams.HOLE, length=1 << 40)
    assert kinds(client, server.end()) == [streams.END]
    assert kinds(server, client.finish()) == [streams.FINISH]
    assert kinds(client, server.done()) == [streams.FINISH]
    assert client.state == server.state == streams.CLOSED


def test_upload(pair: tuple[ClientStream, ServerStream]) -> None:
    client, server = pair
    assert kinds(server, *client.data(b"abc"), client.hole(9)) == [streams.DATA, streams.HOLE]
    finish = client.finish()
    assert (finish.status, finish.payload) == (m.OK, b"")
    assert kinds(server, finish) == [streams.FINISH]
    assert kinds(client, server.done()) == [streams.FINISH]


def test_finishing_fails(pair: tuple[ClientStream, ServerStream]) -> None:
    client, server = pair
    server.receive(client.finish())
    event = client.receive(server.fail(VirtError(c.VIR_ERR_SYSTEM_ERROR, "No space left on device")))
    assert event is not None
    assert event.kind == streams.FAILED
    assert str(event.error) == "No space left on device"
    assert client.state == server.state == streams.CLOSED


def test_server_fails_in_the_middle(pair: tuple[ClientStream, ServerStream]) -> None:
    client, server = pair
    crossing = client.data(b"on its way")
    assert kinds(client, server.fail(VirtError(c.VIR_ERR_RPC, "gone"))) == [streams.FAILED]
    assert kinds(server, *crossing, client.finish(), client.abort()) == [None, None, None]


def test_abort(pair: tuple[ClientStream, ServerStream]) -> None:
    client, server = pair
    crossing = [*server.data(b"on its way"), server.end(), server.hole(1)]
    abort = client.abort()
    assert (abort.status, abort.payload) == (m.ERROR, b"")
    assert kinds(client, *crossing) == [None, None, None]
    assert kinds(server, abort) == [streams.ABORT]
    assert kinds(client, server.done()) == [streams.ABORT]
    assert client.state == server.state == streams.CLOSED


def test_abort_crosses_failure(pair: tuple[ClientStream, ServerStream]) -> None:
    client, server = pair
    abort, failure = client.abort(), server.fail(VirtError(c.VIR_ERR_RPC, "gone"))
    assert kinds(client, failure) == [streams.ABORT]
    assert kinds(server, abort) == [None]


def test_abort_while_finishing(pair: tuple[ClientStream, ServerStream]) -> None:
    client, server = pair
    assert kinds(server, client.finish(), client.abort()) == [streams.FINISH, streams.ABORT]
    assert kinds(client, server.done()) == [streams.ABORT]


def test_client_may_send_after_the_servers_end(pair: tuple[ClientStream, ServerStream]) -> None:
    """A console whose guest is gone may still get what was typed."""
    client, server = pair
    assert kinds(client, server.end()) == [streams.END]
    assert kinds(server, *client.data(b"typed")) == [streams.DATA]


def test_nothing_means_nothing(pair: tuple[ClientStream, ServerStream]) -> None:
    client, server = pair
    assert client.data(b"") == []
    assert kinds(server, server.end()) == [None]
    server.receive(client.finish())
    server.done()
    assert kinds(server, client.finish()) == [None]


@pytest.mark.parametrize("length", [1, STREAM_DATA_MAX, STREAM_DATA_MAX + 1, 3 * STREAM_DATA_MAX])
def test_data_is_split(pair: tuple[ClientStream, ServerStream], length: int) -> None:
    client, server = pair
    data = bytes(length)
    packets = server.data(data)
    assert all(0 < len(packet.payload) <= STREAM_DATA_MAX for packet in packets)
    events = [client.receive(packet) for packet in packets]
    assert b"".join(event.data for event in events if event) == data


def test_hole_that_was_not_asked_for() -> None:
    with pytest.raises(FramingError, match="without holes"):
        ServerStream(CALL).receive(ClientStream(CALL, sparse=True).hole(1))


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"", m.CONTINUE),
        (codec.encode_type("stream_hole", (-1, 0)), m.CONTINUE),
        (codec.encode_type("stream_hole", (1, 1)), m.CONTINUE),
        (codec.encode_type("stream_hole", (1, 0)), m.OK),
    ],
)
def test_bad_hole(pair: tuple[ClientStream, ServerStream], payload: bytes, status: int) -> None:
    _, server = pair
    with pytest.raises(FramingError, match="hole"):
        server.receive(server.hole(1)._replace(payload=payload, status=status))


def test_error_that_cannot_be_read(pair: tuple[ClientStream, ServerStream]) -> None:
    client, server = pair
    event = client.receive(server.fail(VirtError(c.VIR_ERR_RPC, "x"))._replace(payload=b"??"))
    assert event is not None
    assert event.error is not None
    assert event.error.code == c.VIR_ERR_RPC


@given(st.lists(st.tuples(st.sampled_from([m.OK, m.ERROR, m.CONTINUE]), st.binary(max_size=3), st.booleans())))
def test_any_packets(packets: list[tuple[int, bytes, bool]]) -> None:
    """Whatever comes, a stream that is over stays so, and only FramingError is raised."""
    server, client = ServerStream(CALL, sparse=True), ClientStream(CALL, sparse=True)
    for stream in (server, client):
        for status, payload, hole in packets:
            closed = stream.state == streams.CLOSED
            packet = CALL._replace(type=m.STREAM_HOLE if hole else m.STREAM, status=status, payload=payload)
            try:
                event = stream.receive(packet)
            except FramingError:
                break
            assert not (closed and event)
