"""Data beside calls: consoles, downloads, uploads, and what ends them."""

import os
import socket

import pytest

from tests.helpers.waiting import wait_for
from tests.server.harness import children, guest, private, title
from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol.messages import STREAM, Message
from virtd.protocol.programs import METHODS, REMOTE
from virtd.protocol.records import StorageVol
from virtd.protocol.streams import ABORT, DATA, END, FAILED, FINISH, ClientStream


class Flow:
    """The client's side of a stream."""

    def __init__(self, client, method, *args, sparse=False):
        self.client = client
        call = client.send(method, *args)
        self.result = client.reply(call)
        self.stream = ClientStream(call, sparse=sparse)

    def send(self, data):
        for packet in self.stream.data(data):
            self.client.raw(packet.to_bytes())

    def event(self):
        """The next thing that happens on the stream."""
        while True:
            message = self.client.inbox.pop(0) if self.client.inbox else self.client.receive()
            if message is None:
                return None
            if message.type == STREAM and message.serial == self.stream.serial:
                return self.stream.receive(message)

    def finish(self):
        self.client.raw(self.stream.finish().to_bytes())

    def abort(self):
        self.client.raw(self.stream.abort().to_bytes())

    def data(self, size):
        """So many bytes of data."""
        found = b""
        while len(found) < size:
            event = self.event()
            assert event.kind == DATA, event
            found += event.data
        return found


@pytest.fixture(params=["forked", "kept"])
def client(client, request):
    """A client for whose next change a process is forked, or who has one that waits for another call."""
    if request.param == "kept":
        client.call("domain_suspend", guest("quick"))
    return client


def volume(name="quick", key="key"):
    return StorageVol("pool", name, str(key))


def test_console_is_both_ways(server, client):
    flow = Flow(client, "domain_open_console", guest("a"), None, 0)
    flow.send(b"hello")
    assert flow.data(5) == b"HELLO"
    # It holds up no call, and a second one has its own.
    other = Flow(client, "domain_open_console", guest("b"), None, 0)
    other.send(b"second")
    assert client.call("connect_get_lib_version") == 9_000_000
    assert other.data(6) == b"SECOND"
    flow.send(b"x" * 1_000_000)
    assert flow.data(1_000_000) == b"X" * 1_000_000
    flow.finish()
    assert flow.event().kind == FINISH
    other.abort()
    assert other.event().kind == ABORT
    # Packets of streams that are over are dropped.
    client.raw(flow.stream._packet.to_bytes())
    assert client.ping() < 5


def test_the_other_end_of_a_console_ends(client):
    flow = Flow(client, "domain_open_console", guest("a"), None, 0)
    flow.send(b"quit")
    assert flow.event().kind == END
    flow.finish()
    assert flow.event().kind == FINISH
    worker = client.pid()
    wait_for(lambda: not children(worker))


def test_download(client):
    flow = Flow(client, "storage_vol_download", volume(), 0, 3_000_000, 0)
    data = flow.data(3_000_000)
    assert len(data) == 3_000_000
    assert flow.event().kind == END
    flow.finish()
    assert flow.event().kind == FINISH
    worker = client.pid()
    wait_for(lambda: not children(worker))


def test_a_download_that_fails_at_the_end_is_not_complete(client):
    flow = Flow(client, "storage_vol_download", volume("error at the end"), 0, 100, 0)
    assert len(flow.data(100)) == 100
    event = flow.event()
    assert event.kind == FAILED
    assert (event.error.code, event.error.domain) == (c.VIR_ERR_OPERATION_FAILED, c.VIR_FROM_TEST)
    assert event.error.message == "operation failed: at the end"
    assert client.ping() < 5


def test_a_download_whose_process_dies_is_not_complete(client):
    flow = Flow(client, "storage_vol_download", volume("die"), 0, 100, 0)
    flow.data(100)
    event = flow.event()
    assert event.kind == FAILED
    assert "was killed by signal 9" in event.error.message


def test_upload(client, tmp_path):
    flow = Flow(client, "storage_vol_upload", volume(key=tmp_path / "size"), 0, 0, 0)
    for _ in range(20):
        flow.send(b"d" * 100_000)
    flow.finish()
    assert flow.event().kind == FINISH
    assert (tmp_path / "size").read_text() == "2000000"


def test_an_upload_that_fails(client, tmp_path):
    flow = Flow(client, "storage_vol_upload", volume("error disk full", tmp_path / "size"), 0, 0, 0)
    flow.send(b"d" * 3_000_000)
    event = flow.event()
    assert event.kind == FAILED
    assert event.error.message == "operation failed: disk full"
    flow.send(b"more")
    assert client.ping() < 5
    assert not (tmp_path / "size").exists()


def test_an_upload_that_is_aborted_is_not_taken_for_complete(client, tmp_path):
    flow = Flow(client, "storage_vol_upload", volume(key=tmp_path / "size"), 0, 0, 0)
    flow.send(b"d" * 1000)
    flow.abort()
    assert flow.event().kind == ABORT
    worker = client.pid()
    wait_for(lambda: not children(worker))
    assert not (tmp_path / "size").exists()


def test_an_upload_whose_client_vanishes_is_not_taken_for_complete(server, tmp_path):
    client = server.client()
    worker = client.pid()
    flow = Flow(client, "storage_vol_upload", volume(key=tmp_path / "size"), 0, 0, 0)
    flow.send(b"d" * 1000)
    client.close()
    wait_for(lambda: not children(worker))
    assert not (tmp_path / "size").exists()


def test_holes_become_zeros(client, tmp_path):
    flag = c.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM
    flow = Flow(client, "storage_vol_upload", volume(key=tmp_path / "size"), 0, 0, flag, sparse=True)
    flow.send(b"d" * 1000)
    client.raw(flow.stream.hole(500_000).to_bytes())
    flow.send(b"d" * 1000)
    flow.finish()
    assert flow.event().kind == FINISH
    assert (tmp_path / "size").read_text() == "502000"


def test_a_hole_that_was_not_asked_for_ends_the_connection(client, tmp_path):
    flow = Flow(client, "storage_vol_upload", volume(key=tmp_path / "size"), 0, 0, 0)
    flow.stream.sparse = True
    client.raw(flow.stream.hole(5).to_bytes())
    assert client.receive() is None


def test_a_file_as_a_stream(client):
    flow = Flow(client, "domain_screenshot", guest("a"), 0, 0)
    assert flow.result == "image/png"
    size = os.stat("/proc/self/exe").st_size
    assert flow.data(size)[:4] == b"\x7fELF"
    assert flow.event().kind == END
    flow.finish()
    assert flow.event().kind == FINISH


def test_a_client_that_reads_no_stream(client):
    """The data stays where it is; neither the worker grows, nor does anybody else wait."""
    worker = client.pid()
    flow = Flow(client, "storage_vol_download", volume(), 0, 50_000_000, 0)
    wait_for(lambda: any("Download" in title(pid) for pid in children(worker)))
    assert private(worker) < 24 << 20
    assert len(flow.data(50_000_000)) == 50_000_000
    assert flow.event().kind == END
    assert private(worker) < 24 << 20


def test_a_stream_that_nobody_takes_does_not_grow_the_worker(server, client, tmp_path):
    """An upload into a process that does not read: the client is stopped, not stored."""
    worker = client.pid()
    flow = Flow(client, "storage_vol_upload", volume("hang", tmp_path / "size"), 0, 0, 0)
    client.sock.setblocking(False)
    packet = flow.stream.data(b"d" * 100_000)[0].to_bytes()
    sent = 0
    try:
        while sent < 100 << 20:
            sent += client.sock.send(packet)
    except BlockingIOError:
        pass
    assert sent < 64 << 20
    assert private(worker) < 24 << 20


def test_packets_of_a_stream_that_was_never_opened(client):
    number = METHODS["storage_vol_upload"].number
    for status in (0, 1, 2):
        client.raw(Message(REMOTE.number, 1, number, STREAM, 77, status, b"data").to_bytes())
    assert client.call("connect_get_lib_version") == 9_000_000


def test_streams_over_tcp(serve):
    server = serve("--listen-tcp", "127.0.0.1:0")
    address = wait_for(lambda: [w for w in server.log.read_text().split() if w.startswith("127.0.0.1:")])
    host, port = address[0].rstrip(",").rsplit(":", 1)
    with server.client((host, int(port))) as client:
        assert client.sock.family == socket.AF_INET
        flow = Flow(client, "domain_open_console", guest("a"), None, 0)
        flow.send(b"hello")
        assert flow.data(5) == b"HELLO"
        with pytest.raises(VirtError, match="Sending file descriptors is not supported on this socket"):
            client.call("domain_open_graphics_fd", guest("a"), 0, 0)
