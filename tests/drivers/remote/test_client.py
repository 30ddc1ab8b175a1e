"""The client's side of a conversation, with a server whose part the test writes."""

import os
import select
import socket
from contextlib import closing

import pytest

from tests.drivers.remote.conftest import Peer
from virtd import constants as c
from virtd.deadlines import DeadlineExceeded, limit
from virtd.drivers.base import Context, Event, Reply
from virtd.drivers.remote.client import Client
from virtd.drivers.remote.driver import RemoteDriver
from virtd.errors import VirtError
from virtd.protocol import messages as m
from virtd.protocol.programs import METHODS
from virtd.protocol.records import Domain

GUEST = Domain("web1", bytes(16), 7)


def fds_open() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_call(peer: Peer, driver: RemoteDriver) -> None:
    peer.answer("domain_lookup_by_name", GUEST)
    assert driver.domain_lookup_by_name("web1") == GUEST
    assert peer.calls() == [("domain_lookup_by_name", "web1")]
    peer.answer("domain_get_state", (1, 2))
    assert driver.domain_get_state(GUEST, 0) == (1, 2)
    peer.answer("domain_suspend")
    assert driver.domain_suspend(GUEST) is None
    peer.answer("qemu_domain_monitor_command", "{}")
    assert driver.qemu_domain_monitor_command(GUEST, "{}", 0) == "{}"


def test_error_as_received(peer: Peer, driver: RemoteDriver) -> None:
    error = VirtError(c.VIR_ERR_NO_DOMAIN, "no domain with matching name 'x'", domain=c.VIR_FROM_QEMU)
    peer.fail("domain_lookup_by_name", error)
    with pytest.raises(VirtError) as caught:
        driver.domain_lookup_by_name("x")
    assert vars(caught.value) == vars(error)


def test_methods_are_those_of_the_table(driver: RemoteDriver) -> None:
    for name in ("no_such_method", "domain_event_lifecycle", "connect_open", "auth_list", "keepalive_ping"):
        assert not hasattr(driver, name)
    assert driver.domain_get_state is driver.domain_get_state


def test_arguments_that_do_not_fit(peer: Peer, driver: RemoteDriver) -> None:
    with pytest.raises(VirtError, match=r"Unable to encode message payload: .*DOMAIN_SUSPEND"):
        driver.domain_suspend("not a guest")
    peer.answer("domain_suspend", serial=4)
    driver.domain_suspend(GUEST)


def test_answers_out_of_order(peer: Peer, driver: RemoteDriver) -> None:
    client = driver.client
    first = client.start(METHODS["domain_create"], (GUEST,))
    second = client.start(METHODS["domain_get_state"], (GUEST, 0))
    peer.answer("domain_get_state", (5, 0), serial=second)
    assert client.result(second) == ((5, 0), ())
    peer.answer("domain_create", serial=first)
    assert client.result(first) == (None, ())


def test_bound(peer: Peer, driver: RemoteDriver) -> None:
    """A call that takes too long is given up; its answer, when it comes, harms nobody."""
    with limit(0.05), pytest.raises(DeadlineExceeded, match=r"no answer from the server to .*DOMAIN_CREATE"):
        driver.domain_create(GUEST)
    peer.answer("domain_create", serial=3)
    peer.answer("domain_get_state", (1, 1), serial=4)
    assert driver.domain_get_state(GUEST, 0) == (1, 1)


def test_descriptors_go_with_a_call(peer: Peer, driver: RemoteDriver) -> None:
    reader, writer = os.pipe()
    peer.answer("domain_create_with_files", GUEST)
    assert driver.domain_create_with_files(GUEST, 0, fds=[writer]) == GUEST
    [call] = peer.told()
    [theirs] = call.fds
    os.write(theirs, b"over there")
    assert os.read(reader, 100) == b"over there"
    for descriptor in (reader, writer, theirs):
        os.close(descriptor)


def test_descriptors_come_with_an_answer(peer: Peer, driver: RemoteDriver) -> None:
    reader, writer = os.pipe()
    peer.answer("domain_open_graphics_fd", None, [writer])
    reply = driver.domain_open_graphics_fd(GUEST, 0, 0)
    assert isinstance(reply, Reply)
    [ours] = reply.fds
    assert not os.get_inheritable(ours)
    os.write(ours, b"over here")
    assert os.read(reader, 100) == b"over here"
    for descriptor in (reader, writer, ours):
        os.close(descriptor)


def test_late_descriptors_are_closed(peer: Peer, driver: RemoteDriver) -> None:
    before = fds_open()
    with limit(0.02), pytest.raises(DeadlineExceeded):
        driver.domain_open_graphics_fd(GUEST, 0, 0)
    peer.answer("domain_open_graphics_fd", None, [0], serial=3)
    peer.answer("domain_get_state", (1, 1), serial=4)
    driver.domain_get_state(GUEST, 0)
    assert fds_open() == before


def test_no_descriptors_over_tcp(context: Context) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        with closing(Client(sock)) as client, pytest.raises(VirtError, match="fd passing is not supported"):
            client.start(METHODS["domain_create_with_files"], (GUEST, 0), [0])


def lifecycle(callback: int) -> m.Message:
    return m.make_event(METHODS["domain_event_callback_lifecycle"], (callback, (GUEST, 2, 0)))


def expected(callback: int) -> Event:
    return Event("remote", "DOMAIN_EVENT_CALLBACK_LIFECYCLE", (callback, (GUEST, 2, 0)))


def readable(descriptor: int | None) -> bool:
    assert descriptor is not None
    return bool(select.select([descriptor], [], [], 0)[0])


def test_events(peer: Peer, driver: RemoteDriver) -> None:
    descriptor = driver.event_fd()
    assert not readable(descriptor)
    assert driver.read_events() == []
    peer.send(lifecycle(1))
    assert readable(descriptor)
    assert driver.read_events() == [expected(1)]
    assert not readable(descriptor)
    assert driver.event_fd() == descriptor


@pytest.mark.parametrize("asked", [True, False], ids=["asked before", "asked after"])
def test_events_that_come_before_an_answer(peer: Peer, driver: RemoteDriver, asked: bool) -> None:
    """They were read from the socket while waiting for the answer, and are to be had all the same."""
    if asked:
        driver.event_fd()
    peer.send(lifecycle(1))
    peer.send(lifecycle(2))
    peer.answer("domain_suspend")
    driver.domain_suspend(GUEST)
    descriptor = driver.event_fd()
    assert readable(descriptor)
    assert driver.read_events() == [expected(1), expected(2)]
    assert not readable(descriptor)
    peer.send(lifecycle(3))
    assert readable(descriptor)
    assert driver.read_events() == [expected(3)]


def test_many_events_come_in_portions(peer: Peer, driver: RemoteDriver) -> None:
    # In one piece: the kernel takes more of few large writes than of many small ones.
    peer.sock.sendall(b"".join(lifecycle(number).to_bytes() for number in range(300)))
    peer.answer("domain_suspend")
    driver.domain_suspend(GUEST)
    found = driver.read_events()
    assert 0 < len(found) < 300
    assert readable(driver.event_fd())
    found += driver.read_events()
    assert found == [expected(number) for number in range(300)]
    assert not readable(driver.event_fd())


def test_events_end_with_the_connection(peer: Peer, driver: RemoteDriver) -> None:
    descriptor = driver.event_fd()
    peer.sock.shutdown(socket.SHUT_RDWR)
    assert readable(descriptor)
    assert driver.read_events() == []
    with pytest.raises(VirtError, match="End of file while reading data: Input/output error"):
        driver.read_events()
    assert driver.event_fd() is None


def test_ping_is_answered_while_waiting(peer: Peer, driver: RemoteDriver) -> None:
    peer.send(m.PING)
    peer.answer("domain_suspend")
    driver.domain_suspend(GUEST)
    assert peer.told()[-1] == m.PONG


def test_ping_is_answered_when_events_are_read(peer: Peer, driver: RemoteDriver) -> None:
    peer.told()
    peer.send(m.PING)
    assert readable(driver.event_fd())
    assert driver.read_events() == []
    assert peer.told() == [m.PONG]


def test_silent_server_is_given_up(context: Context) -> None:
    with (
        closing(Peer(pings=True)) as peer,
        closing(RemoteDriver(context, peer.client, name="x", ping=(0.02, 2))) as driver,
    ):
        assert peer.calls()[1] == ("connect_supports_feature", 10)
        with pytest.raises(VirtError, match="connection closed due to keepalive timeout"):
            driver.domain_suspend(GUEST)
        assert peer.told()[1:] == [m.PING, m.PING]
        with pytest.raises(VirtError, match="client socket is closed"):
            driver.domain_suspend(GUEST)


def test_slow_server_that_answers_pings(context: Context) -> None:
    """While it says that it is there, the call may take its time."""
    with (
        closing(Peer(pings=True)) as peer,
        closing(RemoteDriver(context, peer.client, name="x", ping=(0.02, 1))) as driver,
    ):
        peer.told()
        client = driver.client
        serial = client.start(METHODS["domain_suspend"], (GUEST,))
        answered = 0

        def served() -> bool:
            nonlocal answered
            for message in peer.told():
                if message == m.PING:
                    peer.send(m.PONG)
                    answered += 1
            return answered == 5

        client.wait_until(served, "pings")
        peer.answer("domain_suspend", serial=serial)
        assert client.result(serial) == (None, ())


def test_end_of_the_connection(peer: Peer, driver: RemoteDriver) -> None:
    peer.answer("domain_suspend")
    assert driver.domain_suspend(GUEST) is None
    peer.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(VirtError) as caught:
        driver.domain_resume(GUEST)
    assert str(caught.value) == "End of file while reading data: Input/output error"
    assert (caught.value.code, caught.value.domain) == (c.VIR_ERR_SYSTEM_ERROR, c.VIR_FROM_RPC)
    for _ in range(2):
        with pytest.raises(VirtError) as caught:
            driver.domain_resume(GUEST)
        assert str(caught.value) == "internal error: client socket is closed"
        assert (caught.value.code, caught.value.domain) == (c.VIR_ERR_INTERNAL_ERROR, c.VIR_FROM_RPC)


def test_answer_that_came_before_the_end_counts(peer: Peer, driver: RemoteDriver) -> None:
    client = driver.client
    first = client.start(METHODS["domain_suspend"], (GUEST,))
    second = client.start(METHODS["domain_resume"], (GUEST,))
    peer.answer("domain_resume", serial=second)
    peer.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(VirtError, match="End of file"):
        client.result(first)
    assert client.result(second) == (None, ())


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/1.1 400 Bad Request", "packet of 1213486160 bytes is too large"),
        (b"\0\0\0\1", "packet of 1 bytes is too small"),
    ],
)
def test_no_server_of_ours(peer: Peer, driver: RemoteDriver, data: bytes, text: str) -> None:
    peer.sock.sendall(data)
    with pytest.raises(VirtError, match=text):
        driver.domain_suspend(GUEST)
    with pytest.raises(VirtError, match="client socket is closed"):
        driver.domain_suspend(GUEST)


def test_answer_that_cannot_be_decoded(peer: Peer, driver: RemoteDriver) -> None:
    """It costs this call, and not the connection."""
    peer.send(peer.header("domain_get_state", 3)._replace(type=m.REPLY, payload=b"?"))
    with pytest.raises(VirtError, match="Unable to decode message payload: ends too early"):
        driver.domain_get_state(GUEST, 0)
    peer.answer("domain_suspend", serial=4)
    driver.domain_suspend(GUEST)


def test_what_nobody_asked_for_is_dropped(peer: Peer, driver: RemoteDriver) -> None:
    before = fds_open()
    peer.answer("domain_suspend", serial=99)
    peer.answer("domain_open_graphics_fd", None, [0], serial=98)
    peer.send(peer.header("storage_vol_download", 97)._replace(type=m.STREAM, status=m.CONTINUE, payload=b"x"))
    peer.send(m.Message(0x1234, 1, 1, m.MESSAGE, 1))
    peer.send(m.Message(0x20008086, 1, 9999, m.MESSAGE, 1))
    peer.answer("domain_suspend", serial=3)
    driver.domain_suspend(GUEST)
    assert fds_open() == before


def test_both_sides_full(peer: Peer, driver: RemoteDriver) -> None:
    """A server that reads nothing until its own data was read does not block the client; a ping which comes in the
    middle of a long call is answered behind it.
    """
    long = "x" * 3_000_000
    peer.told()
    peer.deaf = True
    child = os.fork()
    if child == 0:
        status = 1
        try:
            peer.send(m.PING)
            for number in range(20_000):
                peer.send(lifecycle(number))
            received = b""
            while not received.endswith(m.PONG.to_bytes()):
                received += peer.sock.recv(1 << 20)
            peer.framer.receive(received)
            call, pong = peer.framer.next_message(), peer.framer.next_message()
            assert call is not None
            peer.send(m.make_reply(call, METHODS["domain_define_xml"], GUEST))
            status = 0 if len(call.payload) > len(long) and pong == m.PONG else 2
        finally:
            os._exit(status)
    assert driver.domain_define_xml(long) == GUEST
    assert len(driver.client.events) == 20_000
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_unsupported_authentication(context: Context) -> None:
    with closing(Peer(methods=[1, 2])) as peer:
        with pytest.raises(VirtError, match="authentication failed: unsupported authentication type 1"):
            RemoteDriver(context, peer.client, name="x")
        assert peer.client.fileno() == -1


def test_farewell(peer: Peer, context: Context) -> None:
    driver = RemoteDriver(context, peer.client, name="x")
    peer.told()
    peer.answer("connect_close")
    driver.close()
    assert peer.calls() == [("connect_close",)]
    driver.close()


def test_other_process_needs_a_connection_of_its_own(peer: Peer, driver: RemoteDriver) -> None:
    child = os.fork()
    if child == 0:
        try:
            driver.domain_suspend(GUEST)
        except VirtError as error:
            driver.close()
            os._exit(7 if "cannot be used by another process" in str(error) else 1)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    peer.answer("domain_suspend")
    driver.domain_suspend(GUEST)
