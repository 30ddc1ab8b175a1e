"""A new virtd takes over from the running one."""

import contextlib
import json
import os
import signal
import socket
import threading

from tests.helpers.waiting import wait_for
from tests.server.harness import Client, guest, title
from virtd.state.sockets import connect


class Knocking:
    """Somebody who opens connections one after the other, for as long as the test likes."""

    def __init__(self, server):
        self.server = server
        self.served = 0
        self.problems = []
        self.stop = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stop:
            try:
                with self.server.client() as client:
                    client.call("connect_get_lib_version")
                    client.call("connect_close")
                    assert client.receive() is None
                self.served += 1
            except Exception as problem:
                self.problems.append(repr(problem))

    def end(self):
        self.stop = True
        self.thread.join()


def test_twenty_replacements_lose_nobody(serve):
    first = serve()
    old = first.client()
    call = old.send("domain_create", guest("sleep 2"))
    knocking = [Knocking(first) for _ in range(2)]
    running = first
    try:
        for _ in range(20):
            served = sum(one.served for one in knocking)
            running = serve("--replace", root=first.root)
            wait_for(lambda served=served: sum(one.served for one in knocking) > served + 20)
    finally:
        for one in knocking:
            one.end()
    assert [problem for one in knocking for problem in one.problems] == []
    assert json.loads((first.root / "run/virtd/virtd.lock").read_text())["pid"] == running.pid
    assert (first.root / "run/virtd/virtd.pid").read_text() == f"{running.pid}\n"
    # The first one still serves the client it had, and ends with it.
    assert title(first.pid) == "virtd: draining (1 client)"
    assert old.reply(call) is None
    assert old.ping() < 5
    old.close()
    assert first.wait() == 0
    assert os.path.exists(running.sock)
    with running.client() as client:
        client.ping()


def test_replacing_nobody_is_starting(serve):
    server = serve("--replace")
    with server.client() as client:
        client.ping()


def test_the_one_who_takes_over_dies_half_way(server):
    """It has the sockets, and never says that it accepts: everything stays as it was."""
    control = connect(str(server.root / "run/virtd/control"), timeout=5)
    control.sendall(b'{"request": "replace", "version": 1}\n')
    data, fds, _flags, _address = socket.recv_fds(control, 65536, 100)
    assert len(json.loads(data)["listeners"]) + 2 == len(fds)
    for fd in fds:
        os.close(fd)
    control.close()
    with server.client() as client:
        client.ping()
    replaced = title(server.pid)
    assert replaced.startswith("virtd: accepting")


def test_who_asks_for_nonsense_gets_nothing(server):
    for request in (b"nonsense\n", b"[]\n", b'{"request": "replace", "version": 99}\n', b'"x"\n', b"\n"):
        with contextlib.closing(connect(str(server.root / "run/virtd/control"), timeout=5)) as control:
            control.sendall(request)
            assert control.recv(100) == b""
    with server.client() as client:
        client.ping()


def test_tcp_stays_open(serve):
    first = serve("--listen-tcp", "127.0.0.1:0")
    words = [word for word in first.log.read_text().split() if word.startswith("127.0.0.1:")]
    host, port = words[0].rstrip(",").rsplit(":", 1)
    second = serve("--replace", root=first.root)
    assert first.wait() == 0
    with second.client((host, int(port))) as client:
        client.ping()


def test_a_client_in_between_is_served_by_the_old_one(serve, tmp_path):
    """It was accepted, and could not be forked for before the new virtd came."""
    stop = tmp_path / "no-fork"
    first = serve("--listen-tcp", "127.0.0.1:0", environment={"FAKE_NO_FORK": str(stop)})
    words = [word for word in first.log.read_text().split() if word.startswith("127.0.0.1:")]
    host, port = words[0].rstrip(",").rsplit(":", 1)
    stop.touch()
    sock = socket.create_connection((host, int(port)))
    wait_for(lambda: "trying again" in first.log.read_text())
    second = serve("--replace", root=first.root)
    wait_for(lambda: title(first.pid).startswith("virtd: draining"))
    stop.unlink()
    with Client(sock) as client:
        assert client.ping() < 5
        wait_for(lambda: title(first.pid) == "virtd: draining (1 client)")
    assert first.wait() == 0
    with second.client((host, int(port))) as client:
        client.ping()


def test_the_replaced_one_can_be_stopped(serve):
    first = serve()
    client = first.client()
    serve("--replace", root=first.root)
    wait_for(lambda: title(first.pid) == "virtd: draining (1 client)")
    first.signal(signal.SIGTERM)
    assert client.receive() is None
    assert first.wait() == 0
    assert os.path.exists(first.sock)
