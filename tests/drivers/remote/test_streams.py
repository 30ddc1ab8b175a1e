"""Streams of the remote driver, packet by packet and joined to descriptors; the test plays the server."""

import os
import socket
from collections.abc import Callable

import pytest

from tests.drivers.remote.conftest import Peer
from virtd import constants as c
from virtd.deadlines import DeadlineExceeded, limit
from virtd.drivers.base import Reply
from virtd.drivers.remote.driver import RemoteDriver
from virtd.errors import VirtError
from virtd.protocol import messages as m
from virtd.protocol import streams
from virtd.protocol.messages import Message
from virtd.protocol.programs import METHODS
from virtd.protocol.records import Domain, StorageVol
from virtd.protocol.streams import ServerStream, StreamEvent

VOL = StorageVol("pool", "vol", "/pool/vol")
GUEST = Domain("web1", bytes(16), 7)
FULL = VirtError(c.VIR_ERR_SYSTEM_ERROR, "No space left on device", domain=c.VIR_FROM_STORAGE)


def side(peer: Peer, method: str) -> ServerStream:
    """The server's side of the stream that the latest answer opened."""
    return ServerStream(peer.header(method, 0), sparse=True)


def play(peer: Peer, method: str, *packets: Callable[[ServerStream], list[Message] | Message]) -> None:
    """Answer a call that opens a stream, and send these packets right behind."""
    peer.answer(method)
    stream = side(peer, method)
    for packet in packets:
        made = packet(stream)
        for message in made if isinstance(made, list) else [made]:
            peer.stream(message)


def statuses(peer: Peer) -> list[tuple[int, int, bytes]]:
    """The stream packets that the client has sent: type, status and payload."""
    return [
        (message.type, message.status, message.payload)
        for message in peer.told()
        if message.type in (m.STREAM, m.STREAM_HOLE)
    ]


FINISHED = (m.STREAM, m.OK, b"")
ABORTED = (m.STREAM, m.ERROR, b"")


def test_receive(peer: Peer, driver: RemoteDriver) -> None:
    play(peer, "storage_vol_download", lambda s: s.data(b"abc"), lambda s: s.hole(9), lambda s: s.end())
    _, stream = driver.open_stream("storage_vol_download", VOL, 0, 0, c.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
    assert stream.receive() == StreamEvent(streams.DATA, data=b"abc")
    assert stream.receive() == StreamEvent(streams.HOLE, length=9)
    assert stream.receive() == StreamEvent(streams.END)
    assert stream.pending() is None
    stream.finish()
    assert statuses(peer) == [FINISHED]


def test_send(peer: Peer, driver: RemoteDriver) -> None:
    play(peer, "storage_vol_upload")
    _, stream = driver.open_stream("storage_vol_upload", VOL, 0, 0, c.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
    stream.send(b"abc")
    stream.send_hole(7)
    stream.finish()
    kinds = [(kind, status) for kind, status, _ in statuses(peer)]
    assert kinds == [(m.STREAM, m.CONTINUE), (m.STREAM_HOLE, m.CONTINUE), (m.STREAM, m.OK)]


def test_finish_fails(peer: Peer, driver: RemoteDriver) -> None:
    play(peer, "storage_vol_upload")
    _, stream = driver.open_stream("storage_vol_upload", VOL, 0, 0, 0)
    stream.send(b"abc")
    peer.unfinished = FULL
    with pytest.raises(VirtError, match="No space left on device"):
        stream.finish()


def test_abort(peer: Peer, driver: RemoteDriver) -> None:
    play(peer, "storage_vol_download", lambda s: s.data(b"x" * 1000))
    _, stream = driver.open_stream("storage_vol_download", VOL, 0, 0, 0)
    stream.receive()
    peer.stream(side(peer, "storage_vol_download").data(b"crossing")[0])
    stream.abort()
    stream.abort()
    assert statuses(peer) == [ABORTED]


def test_abort_of_what_has_failed(peer: Peer, driver: RemoteDriver) -> None:
    play(peer, "storage_vol_download", lambda s: s.fail(FULL))
    _, stream = driver.open_stream("storage_vol_download", VOL, 0, 0, 0)
    with pytest.raises(VirtError, match="No space"):
        stream.receive()
    stream.abort()
    assert statuses(peer) == []


def test_bound(peer: Peer, driver: RemoteDriver) -> None:
    play(peer, "storage_vol_download")
    _, stream = driver.open_stream("storage_vol_download", VOL, 0, 0, 0)
    with limit(0.02), pytest.raises(DeadlineExceeded):
        stream.receive()
    peer.stream(side(peer, "storage_vol_download").end())
    assert stream.receive().kind == streams.END


def test_call_that_fails_opens_nothing(peer: Peer, driver: RemoteDriver) -> None:
    peer.fail("storage_vol_download", VirtError(c.VIR_ERR_NO_STORAGE_VOL, "vol"))
    with pytest.raises(VirtError, match="Storage volume not found"):
        driver.storage_vol_download(VOL, 0, 0, 0)
    assert not driver.client._streams


def test_stream_of_a_call_given_up_is_aborted(peer: Peer, driver: RemoteDriver) -> None:
    with limit(0.02), pytest.raises(DeadlineExceeded):
        driver.storage_vol_download(VOL, 0, 0, 0)
    peer.answer("storage_vol_download", serial=3)
    peer.stream(side(peer, "storage_vol_download").data(b"x")[0])
    peer.answer("domain_suspend", serial=4)
    driver.domain_suspend(GUEST)
    assert statuses(peer) == [ABORTED]
    assert not driver.client._streams


def test_calls_go_on_while_a_stream_flows(peer: Peer, driver: RemoteDriver) -> None:
    play(peer, "storage_vol_download", lambda s: s.data(b"abc"))
    _, stream = driver.open_stream("storage_vol_download", VOL, 0, 0, 0)
    peer.answer("domain_get_state", (1, 1))
    assert driver.domain_get_state(GUEST, 0) == (1, 1)
    assert stream.receive().data == b"abc"


def open_reply(reply: Reply) -> tuple[socket.socket, Callable[[], None]]:
    """The descriptor of a reply's stream, and what does the copying."""
    assert reply.stream is not None
    assert reply.stream.work is not None
    return socket.socket(fileno=reply.stream.descriptor), reply.stream.work


def test_download_to_a_descriptor(peer: Peer, driver: RemoteDriver) -> None:
    """Holes come as zeros; the end of the data is the end of the file."""
    play(
        peer,
        "storage_vol_download",
        lambda s: s.data(b"begin"),
        lambda s: s.hole(1000),
        lambda s: s.data(b"end"),
        lambda s: s.end(),
    )
    reply = driver.storage_vol_download(VOL, 0, 0, c.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
    end, work = open_reply(reply)
    with end:
        work()
        received = b""
        while data := end.recv(4096):
            received += data
    assert received == b"begin" + bytes(1000) + b"end"
    assert statuses(peer) == [FINISHED]


def test_large_hole_takes_no_memory(peer: Peer, driver: RemoteDriver) -> None:
    """Whoever reads gives up on the way."""
    play(peer, "storage_vol_download", lambda s: s.hole(1 << 60), lambda s: s.end())
    reply = driver.storage_vol_download(VOL, 0, 0, c.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
    end, work = open_reply(reply)
    child = os.fork()
    if child == 0:
        total = 0
        while total < 50_000_000:
            total += len(end.recv(1 << 20))
        os._exit(0)
    end.close()
    work()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert statuses(peer) == [ABORTED]


def test_upload_from_a_descriptor(peer: Peer, driver: RemoteDriver) -> None:
    play(peer, "storage_vol_upload")
    end, work = open_reply(driver.storage_vol_upload(VOL, 0, 0, 0))
    end.sendall(b"all of it")
    end.close()
    work()
    assert statuses(peer) == [(m.STREAM, m.CONTINUE, b"all of it"), FINISHED]


def test_upload_that_fails(peer: Peer, driver: RemoteDriver) -> None:
    play(peer, "storage_vol_upload", lambda s: s.fail(FULL))
    end, work = open_reply(driver.storage_vol_upload(VOL, 0, 0, 0))
    end.sendall(b"all of it")
    with end, pytest.raises(VirtError, match="No space left on device"):
        work()


def test_console(peer: Peer, driver: RemoteDriver) -> None:
    """Both ways at once; closing the descriptor ends it."""
    play(peer, "domain_open_console", lambda s: s.data(b"login: "))
    end, work = open_reply(driver.domain_open_console(GUEST, None, 0))
    end.sendall(b"root\n")
    child = os.fork()
    if child == 0:
        ok = end.recv(100) == b"login: "
        end.close()
        os._exit(not ok)
    end.close()
    work()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert statuses(peer) == [(m.STREAM, m.CONTINUE, b"root\n"), ABORTED]


def test_console_that_the_server_ends(peer: Peer, driver: RemoteDriver) -> None:
    play(peer, "domain_open_console", lambda s: s.data(b"bye"), lambda s: s.end())
    end, work = open_reply(driver.domain_open_console(GUEST, None, 0))
    with end:
        work()
        assert end.recv(100) == b"bye"
        assert end.recv(100) == b""
    assert statuses(peer) == [FINISHED]


def test_connection_that_ends_below_a_stream(peer: Peer, driver: RemoteDriver) -> None:
    play(peer, "domain_open_console", lambda s: s.data(b"bye"))
    end, work = open_reply(driver.domain_open_console(GUEST, None, 0))
    peer.sock.shutdown(socket.SHUT_RDWR)
    with end, pytest.raises(VirtError, match="End of file"):
        work()


def test_data_for_a_stream_that_takes_none(peer: Peer, driver: RemoteDriver) -> None:
    play(peer, "storage_vol_download")
    end, work = open_reply(driver.storage_vol_download(VOL, 0, 0, 0))
    end.sendall(b"x")
    with end, pytest.raises(VirtError, match="the stream takes no data"):
        work()


def test_every_stream_of_the_table_has_a_direction() -> None:
    assert {procedure.stream for procedure in METHODS.values()} == {None, "read", "write", "both"}
