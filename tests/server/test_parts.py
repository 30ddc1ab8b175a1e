"""The smaller parts, each by itself: log, channel, loop, listeners, the table of children, man page."""

import os
import re
import select
import socket

import pytest

from tests.server.harness import TOP
from virtd.errors import VirtError
from virtd.server import auth, children, listeners, log
from virtd.server.channel import FULL, ChannelClosedError, PipeChannel, SocketChannel
from virtd.server.config import Config
from virtd.server.loop import ENDED, READ, Loop
from virtd.server.main import Status, command


@pytest.fixture
def logfile(tmp_path):
    before, lowest = log._State.outputs, log._State.lowest
    log._State.outputs = ()
    yield tmp_path / "log"
    log.about("")
    log.open_outputs([])
    log._State.outputs, log._State.lowest = before, lowest


def test_log_lines(logfile):
    log.open_outputs([log.Output(log.INFO, "file", str(logfile))])
    log.debug("not this")
    log.info("this")
    log.about("root@unix")
    log.error("a\nforged line \x1b[31m")
    lines = logfile.read_text().splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+0000: "
    assert len(lines) == 2
    assert re.fullmatch(stamp + f"{os.getpid()}: info : this", lines[0])
    assert re.fullmatch(stamp + rf"{os.getpid()}: error : root@unix: a\\x0aforged line \\x1b\[31m", lines[1])
    assert log.wanted(log.INFO)
    assert not log.wanted(log.DEBUG)


def test_log_keeps_its_outputs_if_new_ones_cannot_be_opened(logfile):
    log.open_outputs([log.Output(log.INFO, "file", str(logfile))])
    with pytest.raises(OSError, match="nowhere"):
        log.open_outputs([log.Output(log.INFO, "file", "/nowhere/log")])
    log.info("still here")
    assert "still here" in logfile.read_text()


def test_log_of_a_bug_is_one_line(logfile):
    log.open_outputs([log.Output(log.ERROR, "file", str(logfile))])
    try:
        int("x")
    except ValueError as problem:
        log.bug("it failed", problem)
    (line,) = logfile.read_text().splitlines()
    assert "it failed: ValueError: invalid literal" in line
    assert "test_parts.py:" in line


def channels():
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    return SocketChannel(ours, unix=True), theirs


def test_channel_sends_in_order_whatever_the_client_takes():
    channel, client = channels()
    messages = [bytes([number]) * 100_000 for number in range(20)]
    for message in messages:
        channel.send(message)
    assert channel.waiting
    assert channel.full
    received = b""
    while len(received) < 2_000_000:
        received += client.recv(65536)
        channel.flush()
    assert received == b"".join(messages)
    assert not channel.waiting
    assert not channel.full
    channel.close()
    client.close()


def test_channel_sends_descriptors_behind_their_message():
    channel, client = channels()
    reader, writer = os.pipe()
    channel.send(b"message", (reader,))
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(reader)
    assert client.recv(7) == b"message"
    data, fds, _flags, _address = socket.recv_fds(client, 10, 10)
    assert (data, len(fds)) == (b"\0", 1)
    os.write(writer, b"x")
    assert os.read(fds[0], 1) == b"x"
    for fd in (writer, *fds):
        os.close(fd)
    channel.close()
    client.close()


def test_channel_closes_descriptors_that_were_not_sent():
    channel, client = channels()
    channel.send(b"x" * (FULL + 1))
    reader, writer = os.pipe()
    channel.send(b"message", (reader,))
    assert channel.descriptors() >= {reader}
    channel.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(reader)
    os.close(writer)
    client.close()


def test_channel_notices_the_end():
    channel, client = channels()
    assert channel.receive() == (b"", [])
    client.close()
    with pytest.raises(ChannelClosedError):
        channel.receive()
    with pytest.raises(ChannelClosedError):
        channel.send(b"x")
    channel.close()


def test_pipes():
    in_reader, in_writer = os.pipe()
    out_reader, out_writer = os.pipe()
    channel = PipeChannel(in_reader, out_writer)
    os.write(in_writer, b"hello")
    assert channel.receive() == (b"hello", [])
    channel.send(b"x" * 1_000_000)
    total = 0
    while total < 1_000_000:
        total += len(os.read(out_reader, 65536))
        channel.flush()
    os.close(in_writer)
    with pytest.raises(ChannelClosedError):
        channel.receive()
    channel.close()
    os.close(out_reader)


def test_loop_gate():
    loop = Loop()
    one, other = socket.socketpair()
    seen = []
    loop.watch(one.fileno(), READ, lambda events: seen.append(events), gated=True)
    other.send(b"x")
    loop.turn(0)
    assert seen == [READ]
    loop.shut(True)
    loop.turn(0)
    loop.watch(one.fileno(), READ, lambda events: seen.append(-events), gated=True)
    loop.turn(0)
    assert seen == [READ]
    loop.shut(False)
    loop.turn(0)
    assert seen == [READ, -READ]
    loop.unwatch(one.fileno())
    loop.unwatch(one.fileno())
    loop.turn(0)
    assert seen == [READ, -READ]
    one.close()
    other.close()


def test_loop_tells_of_the_end_of_what_is_not_read():
    loop = Loop()
    one, other = socket.socketpair()
    seen = []
    loop.watch(one.fileno(), 0, seen.append)
    other.send(b"x")
    loop.turn(0)
    assert seen == []
    other.close()
    loop.turn(10)
    assert seen[0] & ENDED
    one.close()


def test_loop_waits_for_as_long_as_it_is_told():
    loop = Loop()
    one, other = socket.socketpair()
    loop.watch(one.fileno(), READ, lambda _events: None)
    start = os.times().elapsed
    loop.turn(0.05)
    assert os.times().elapsed - start >= 0.03
    assert select.select([one], [], [], 0)[0] == []
    one.close()
    other.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:16509", ("127.0.0.1", "16509")),
        ("[::1]:16509", ("::1", "16509")),
        (":16509", (None, "16509")),
        ("*:16509", (None, "16509")),
        ("host.example:libvirt", ("host.example", "libvirt")),
    ],
)
def test_addresses(text, address):
    assert listeners.split_address(text) == address


@pytest.mark.parametrize("text", ["", "16509", "127.0.0.1:", "::1:16509", "host"])
def test_wrong_addresses(text):
    with pytest.raises(VirtError, match="is not of the form ADDR:PORT"):
        listeners.split_address(text)


def test_tcp_from_afar_has_to_be_allowed():
    with pytest.raises(VirtError, match='set auth_tcp = "none"'):
        listeners.tcp("0.0.0.0", "0", Config())
    (listener,) = listeners.tcp("0.0.0.0", "0", Config("f", 'auth_tcp = "none"'))
    assert listener.address.startswith("0.0.0.0:")
    listener.sock.close()


def test_listeners_survive_being_handed_over():
    (listener,) = listeners.tcp("127.0.0.1", "0", Config())
    again = listeners.adopt(socket.socket(fileno=os.dup(listener.sock.fileno())), listener.describe())
    assert again[1:] == listener[1:]
    listener.sock.close()
    again.sock.close()


def test_children_are_counted():
    table = children.Children()
    table.add(1, children.WAITING)
    table.add(2, children.WAITING)
    table.add(3, children.SERVING, anonymous=True)
    assert (table.available, table.serving, table.anonymous, len(table)) == (2, 1, 1, 3)
    table.change(1, children.SERVING)
    table.change(1, children.WAITING)
    assert table.most_used(1) == [1]
    table.retire(1)
    assert (table.available, table.retired_waiting) == (1, 1)
    assert table.most_used(5) == [2]
    table.change(1, children.SERVING)
    assert (table.serving, table.retired_waiting) == (2, 0)
    table.known(3)
    assert table.anonymous == 0
    table.change(99, children.SERVING)
    table.known(99)
    assert table.remove(99) is None
    assert table.remove(1).served == 2
    assert (table.serving, table.available, len(table)) == (1, 1, 2)


def test_who_is_at_the_other_end():
    one, other = socket.socketpair()
    peer = auth.unix_peer(one, read_only=True)
    assert peer.identity[:3] == (os.getuid(), os.getgid(), os.getpid())
    assert peer.identity.read_only
    assert peer.known
    assert peer.label == ("root@unix" if os.getuid() == 0 else f"uid {os.getuid()}@unix")
    one.close()
    other.close()


def test_the_man_page_has_all_options_and_statuses():
    page = (TOP / "man/virtd.8").read_text().replace("\\-", "-")
    for parameter in command.params:
        for option in parameter.opts:
            assert option in page, option
    for status in Status:
        assert f".B {int(status)}\n" in page, status
