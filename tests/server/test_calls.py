"""Calls: what is answered, in which order, and what goes wrong without anything else going wrong with it."""

import os
import select
import socket
import struct
import time

import pytest

from tests.helpers.waiting import wait_for
from tests.server.harness import URI, Client, children, guest, private, title
from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol import codec
from virtd.protocol.messages import CALL_WITH_FDS, Message, decode_error, make_call
from virtd.protocol.programs import ADMIN, KEEPALIVE, METHODS, REMOTE


def refused(client, message):
    """The error which a message gets, that the client sends as it is."""
    client.raw(message.to_bytes())
    answer = client.receive()
    assert answer.status == 1
    assert answer[:3] == message[:3]
    assert answer.serial == message.serial
    error = decode_error(answer.payload)
    return error.code, error.domain, error.message


RPC = (c.VIR_ERR_RPC, c.VIR_FROM_RPC)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message(0x1234, 1, 1, 0, 9), "Cannot find program 4660 version 1"),
        (Message(0x1234, 1, 1, 0, 9, status=1), "Cannot find program 4660 version 1"),
        (Message(REMOTE.number, 7, 1, 0, 9), f"Cannot find program {REMOTE.number} version 7"),
        (Message(ADMIN.number, 1, 1, 0, 9), f"Cannot find program {ADMIN.number} version 1"),
        (Message(KEEPALIVE.number, 1, 1, 0, 9), f"Cannot find program {KEEPALIVE.number} version 1"),
        (Message(REMOTE.number, 1, 9999, 0, 9), "unknown procedure: 9999"),
        (Message(REMOTE.number, 1, -1, 0, 9), "unknown procedure: -1"),
        (Message(REMOTE.number, 1, 107, 0, 9), "unknown procedure: 107"),
        (Message(REMOTE.number, 1, 66, 0, 9, status=1), "Unexpected message status 1"),
        (Message(REMOTE.number, 1, 23, 0, 9), "Unable to decode message payload"),
        (Message(REMOTE.number, 1, 23, 0, 9, payload=b"\xff" * 8), "Unable to decode message payload"),
    ],
)
@pytest.mark.parametrize("opened", [False, True])
def test_what_no_program_understands(server, message, text, opened):
    with server.client(opened=opened) as client:
        assert refused(client, message) == (*RPC, text)
        assert client.call("auth_list") == [0]


def test_before_open(server):
    with server.client(opened=False) as client:
        assert client.ping() < 5
        assert client.call("auth_list") == [0]
        assert client.call("connect_supports_feature", 10) == 1
        for method, args, text in (
            ("connect_get_version", (), "hypervisor connection not open"),
            ("connect_supports_feature", (14,), "hypervisor connection not open"),
            ("connect_num_of_networks", (), "hypervisor connection not open"),
            ("network_lookup_by_name", ("x",), "connection not open"),
            ("connect_register_close_callback", (), "hypervisor connection not open"),
        ):
            with pytest.raises(VirtError) as info:
                client.call(method, *args)
            assert (info.value.code, info.value.domain) == (c.VIR_ERR_INTERNAL_ERROR, c.VIR_FROM_RPC)
            assert info.value.message == f"internal error: {text}"
        for method, args in (("auth_sasl_init", ()), ("auth_sasl_step", (0, b"")), ("auth_polkit", ())):
            with pytest.raises(VirtError, match="authentication failed: authentication failed"):
                client.call(method, *args)
        client.call("connect_close")
        assert client.receive() is None


def test_open(server):
    with server.client(opened=False) as client:
        with pytest.raises(VirtError, match="no connection driver available for bogus:///x") as info:
            client.call("connect_open", "bogus:///x", 0)
        assert info.value.code == c.VIR_ERR_NO_CONNECT
        client.call("connect_open", URI, 0xF0)
        with pytest.raises(VirtError, match="internal error: connection already open"):
            client.call("connect_open", URI, 0)
        assert [client.call("connect_supports_feature", number) for number in (8, 10, 14, 15, 99)] == [1, 1, 1, 1, 0]
        for _ in range(2):
            client.call("connect_register_close_callback")
            client.call("connect_unregister_close_callback")
        call = client.send("connect_close")
        assert client.reply(call) is None
        assert client.receive() is None


def test_leftover_bytes_are_ignored(client):
    call = client.send("connect_get_lib_version")
    client.reply(call)
    client.raw(call._replace(payload=b"garbage behind").to_bytes())
    assert client.reply(call) == 9_000_000


def test_descriptors_that_nobody_wants(client):
    worker = client.pid()
    before = len(os.listdir(f"/proc/{worker}/fd"))
    for _ in range(5):
        call = client.send("connect_get_lib_version")
        client.reply(call)
        client.raw(call._replace(type=CALL_WITH_FDS, fds=(0, 1)).to_bytes())
        for _ in range(2):
            socket.send_fds(client.sock, [b"\0"], [client.sock.fileno()])
        assert client.reply(call) == 9_000_000
    assert len(os.listdir(f"/proc/{worker}/fd")) == before


def test_not_implemented(client):
    for method, args, api, domain in (
        ("domain_get_hostname", (guest("a"), 0), "virDomainGetHostname", c.VIR_FROM_DOMAIN),
        ("network_lookup_by_name", ("x",), "virNetworkLookupByName", c.VIR_FROM_NETWORK),
        ("qemu_domain_agent_command", (guest("a"), "x", 0, 0), "virDomainQemuAgentCommand", c.VIR_FROM_NONE),
    ):
        with pytest.raises(VirtError) as info:
            client.call(method, *args)
        assert (info.value.code, info.value.domain) == (c.VIR_ERR_NO_SUPPORT, domain)
        assert info.value.message == f"this function is not supported by the connection driver: {api}"


@pytest.mark.parametrize("how", ["socket", "flag"])
def test_read_only(server, how):
    path, flags = (server.ro, 0) if how == "socket" else (server.sock, c.VIR_CONNECT_RO)
    if not os.path.exists(path):
        pytest.skip("only the system's instance has a read-only socket")
    with server.client(path, flags=flags) as client:
        assert client.call("connect_get_lib_version") == 9_000_000
        assert client.call("domain_get_info", guest("a"))[0] == 1
        for method, args, text in (
            ("domain_create", (guest("a"),), "read only access prevents virDomainCreate"),
            ("domain_get_xml_desc", (guest("5"), c.VIR_DOMAIN_XML_SECURE), "virDomainGetXMLDesc with secure flag"),
            ("domain_get_hostname", (guest("a"), 0), "read only access prevents virDomainGetHostname"),
        ):
            with pytest.raises(VirtError) as info:
                client.call(method, *args)
            assert info.value.code == c.VIR_ERR_OPERATION_DENIED
            assert info.value.message == f"operation forbidden: {text}"
        assert client.call("domain_get_xml_desc", guest("5"), 0) == "xxxxx"


@pytest.mark.parametrize("method", ["domain_get_info", "domain_get_job_info", "domain_create"])
def test_errors(server, client, method):
    for name, code, domain, text in (
        ("error", c.VIR_ERR_OPERATION_FAILED, c.VIR_FROM_TEST, "operation failed: as asked"),
        ("bug", c.VIR_ERR_INTERNAL_ERROR, c.VIR_FROM_RPC, "ZeroDivisionError: a bug"),
    ):
        with pytest.raises(VirtError) as info:
            client.call(method, guest(name))
        assert (info.value.code, info.value.domain) == (code, domain)
        assert text in info.value.message
    log = server.log.read_text()
    assert "ZeroDivisionError: a bug [" in log
    assert "fake.py:" in log
    assert client.call("connect_get_lib_version") == 9_000_000


def test_a_result_that_is_not_what_the_table_says(client):
    with pytest.raises(VirtError, match="a bug in virtd"):
        client.call("domain_destroy", guest("a"))
    assert client.call("connect_get_lib_version") == 9_000_000


def test_the_process_of_a_call_is_killed(server, client):
    worker = client.pid()
    with pytest.raises(VirtError, match=r"the process for DomainCreate die \(pid \d+\) was killed by signal 9"):
        client.call("domain_create", guest("die"))
    assert client.pid() == worker


def test_titles_say_what_goes_on(server, client):
    worker = client.pid()
    who = "root" if os.getuid() == 0 else f"uid {os.getuid()}"
    start = f"virtd: worker for {who}@unix {URI}: "
    assert title(worker) == start + "idle"
    slow = client.send("domain_create", guest("hang"))
    other = client.send("domain_create", guest("sleep 0.2"))
    client.reply(other)
    assert title(worker) == start + "DomainCreate hang"
    (child,) = wait_for(lambda: len(children(worker)) == 1 and children(worker))
    assert title(child) == start + "DomainCreate hang"
    os.kill(child, 9)
    with pytest.raises(VirtError):
        client.reply(slow)
    wait_for(lambda: title(worker) == start + "idle")


def test_a_call_that_waits_holds_up_nobody(server, client):
    calls = [client.send("domain_create", guest("hang")) for _ in range(31)]
    assert client.call("connect_get_lib_version") == 9_000_000
    assert client.ping() < 5
    client.call("domain_create", guest("quick"))
    # More than the limit: these wait for their turn, and still nothing else does.
    waiting = [client.send("domain_create", guest("hang")) for _ in range(40)]
    assert client.ping() < 5
    assert client.call("domain_get_info", guest("a"))[0] == 1
    assert client.call("domain_get_job_info", guest("a"))[0] == 0
    assert len(calls) + len(waiting) == 71
    with server.client() as second:
        second.call("domain_create", guest("quick"))


def test_calls_above_the_limit_are_done_in_turn(serve, tmp_path):
    server = serve(config="max_client_requests = 2\n")
    with server.client() as client:
        calls = [client.send("domain_create", guest(f"mark {tmp_path}/mark")) for _ in range(20)]
        for call in reversed(calls):
            client.reply(call)
    assert len((tmp_path / "mark").read_text().split()) == 20


def test_replies_overtake(client):
    slow = client.send("domain_create", guest("sleep 0.5"))
    middle = client.send("domain_memory_stats", guest("sleep 0.2"), 1, 0)
    quick = client.send("connect_get_lib_version")
    order = [client.receive().serial for _ in range(3)]
    assert order == [quick.serial, middle.serial, slow.serial]


def test_a_slow_query_moves_to_a_process_of_its_own(client):
    worker = client.pid()
    assert client.call("domain_memory_stats", guest("quick"), 1, 0)[0][0] == worker
    assert client.call("domain_memory_stats", guest("sleep 0.2"), 1, 0)[0][0] != worker
    start = time.monotonic()
    calls = [client.send("domain_memory_stats", guest("sleep 0.3"), 1, 0) for _ in range(20)]
    assert client.ping() < 0.9  # one of them was tried for a moment; trying all would take a second
    assert len({client.reply(call)[0][0] for call in calls}) == 20
    assert time.monotonic() - start < 5


def test_descriptors_both_ways(client):
    files = [os.open("/dev/null", os.O_RDONLY), os.open("/dev/zero", os.O_RDONLY)]
    dom = client.call("domain_create_with_files", guest("a"), 0, fds=files)
    assert dom.name == ",".join(str(os.fstat(fd).st_ino) for fd in files)
    assert dom.id != client.pid()
    client.call("domain_open_graphics_fd", guest("a"), 0, 0)
    assert os.read(client.fds[0], 100) == b"from the guest"
    assert client.call("connect_get_lib_version") == 9_000_000


def test_byte_by_byte(server):
    with server.client() as client:
        client.serial += 1
        call = make_call(METHODS["domain_lookup_by_name"], client.serial, ("quick",))
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        for byte in call.to_bytes():
            client.raw(bytes([byte]))
        assert client.reply(call).name == "quick"


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack(">I", 3),
        struct.pack(">I", 27) + b"\0" * 40,
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">I", 33554432 + 5),
        b"GET / HTTP/1.0\r\n\r\n" + b"x" * 100,
        Message(REMOTE.number, 1, 4, CALL_WITH_FDS, 1, payload=b"").to_bytes()[:28] + struct.pack(">I", 33),
    ],
)
def test_what_is_no_message_ends_the_connection(server, garbage):
    with server.client() as client:
        client.raw(garbage)
        try:
            assert client.receive() is None
        except ConnectionResetError:
            pass
    with server.client() as client:
        assert client.call("connect_get_lib_version") == 9_000_000
    assert "Traceback" not in server.log.read_text()
    assert "bug" not in server.log.read_text()


def test_messages_that_mean_nothing_here(client):
    for kind, status in ((1, 0), (2, 0), (3, 2), (3, 0), (3, 1), (6, 2), (5, 0)):
        payload = struct.pack(">I", 0) if kind == 5 else b"data"
        header = Message(REMOTE.number, 1, 66, kind, 9, status)
        if kind == 5:
            client.raw(header.to_bytes())
        else:
            client.raw(header._replace(payload=payload).to_bytes())
    assert client.call("connect_get_lib_version") == 9_000_000


def test_the_client_vanishes(server, tmp_path):
    """A change ends by itself, a query is killed, the connection to the drivers is closed."""
    mark = tmp_path / "mark"
    client = server.client()
    worker = client.pid()
    client.send("domain_create", guest(f"slowmark {mark}"))
    client.send("domain_get_job_info", guest("hang"))
    wait_for(lambda: len(children(worker)) == 2)
    client.close()
    wait_for(lambda: title(worker).endswith("DomainCreate slowmark " + str(mark) + ", client gone"))
    assert len(wait_for(lambda: len(children(worker)) == 1 and children(worker))) == 1
    wait_for(mark.exists)
    wait_for(lambda: title(worker) == "" or "spare" in title(worker))


def test_a_client_which_takes_nothing(server):
    """Its replies wait with those who made them, and it gets them all when it reads again."""
    with server.client() as client:
        worker = client.pid()
        client.sock.setblocking(False)
        message = client_call(client, "domain_get_xml_desc", guest("100000"), 0)
        sent = 0
        data = b""
        try:
            while sent < 3000:
                data = message._replace(serial=1000 + sent).to_bytes()
                client.sock.send(data)
                sent += 1
        except BlockingIOError:
            pass
        assert sent > 20
        used = wait_for(lambda: private(worker))
        assert used < 24 << 20, f"{used >> 20} MiB"
        client.sock.settimeout(20)
        for serial in range(sent):
            assert client.receive().serial == 1000 + serial
        assert client.ping() < 5


def client_call(client, method, *args):
    return make_call(METHODS[method], 1, args)


def test_events_arrive_in_order_and_none_is_lost(client):
    worker = client.pid()
    call = client.send("connect_domain_event_callback_register_any", 1, guest("20000"))
    # Nothing is read for a while: the events have to wait with the driver.
    wait_for(lambda: not select.select([], [client.sock], [], 0)[1] or private(worker) > 0)
    assert private(worker) < 24 << 20
    assert client.reply(call) == 1
    names = []
    while len(names) < 20000:
        message = client.inbox.pop(0) if client.inbox else client.receive()
        (_callback, msg) = codec.decode_event(METHODS["domain_event_callback_reboot"], message.payload)
        names.append(int(msg[0].name))
    assert names == list(range(1, 20001))
    client.call("connect_domain_event_callback_deregister_any", 1)
    assert client.ping() < 5


def test_idle_memory(client):
    """What a worker has for itself; on a Python without the machine's own start-up files it is 1.6 MiB."""
    worker = client.pid()
    assert private(worker) <= 2560 << 10, f"{private(worker) >> 10} KiB"


def test_two_connections_of_one_process(server):
    clients = [Client(server.sock) for _ in range(10)]
    assert len({client.pid() for client in clients}) == 10
    for client in clients:
        client.close()


def test_a_client_that_does_not_answer_pings(serve):
    """Only who announced that he does is asked."""
    server = serve(config="keepalive_interval = 1\nkeepalive_count = 1\n")
    with server.client() as quiet, server.client() as client:
        assert client.call("connect_supports_feature", 10) == 1
        ping = client.receive()
        assert (ping.program, ping.procedure) == (KEEPALIVE.number, 1)
        assert client.receive() is None
        assert quiet.ping() < 5
    assert "no sign of life after 1 keepalive messages" in server.log.read_text()


def test_a_client_that_answers_pings(serve):
    server = serve(config="keepalive_interval = 1\nkeepalive_count = 1\n")
    with server.client() as client:
        call = client.send("domain_create", guest("sleep 2.5"))
        assert client.call("connect_supports_feature", 10) == 1
        answered = 0
        while (message := client.receive()).program == KEEPALIVE.number:
            assert message.procedure == 1
            client.raw(message._replace(procedure=2).to_bytes())
            answered += 1
        assert message.serial == call.serial
        assert answered >= 2
