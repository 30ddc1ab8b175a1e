"""The monitor's client against a real QEMU, and against servers that do not play by the rules."""

import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu.monitor.client import Monitor, MonitorClosed, QMPError
from virtd.state import sockets

QEMU = "/usr/bin/qemu-system-x86_64"
GREETING = b'{"QMP": {"version": {"qemu": {"micro": 1, "minor": 2, "major": 7}}, "capabilities": []}}\r\n'
pytestmark = pytest.mark.skipif(not os.path.exists(QEMU), reason="needs QEMU")


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    """The monitor of a QEMU without a machine."""
    path = str(tmp_path / "monitor.sock")
    with sockets.listen(path) as server:
        process = subprocess.Popen(
            f"{QEMU} -M none -nodefaults -nographic -no-user-config -S -mon chardev=m,mode=control"
            f" -chardev socket,id=m,fd={server.fileno()},server=on,wait=off".split(),
            pass_fds=[server.fileno()],
        )
    try:
        with Monitor(path, "web1") as client:
            yield client
    finally:
        process.kill()
        process.wait()


class Fake:
    """The other end of a monitor, in the hands of the test."""

    def __init__(self, said: bytes) -> None:
        self.client, self.server = socket.socketpair()
        self.server.sendall(said)

    def monitor(self, seconds: float = 10) -> Monitor:
        return Monitor(self.client, "web1", seconds)


@pytest.fixture
def fake() -> Iterator[Fake]:
    """A monitor that has greeted and accepted the capabilities."""
    made = Fake(GREETING + b'{"return": {}, "id": 1}\r\n')
    yield made
    made.server.close()


def test_commands_and_results(monitor: Monitor) -> None:
    assert monitor.query("query-status")["status"] == "prelaunch"
    assert monitor.version >= (5, 2, 0)
    assert monitor.query_list("query-chardev")[0]["label"] == "m"


def test_a_refused_command_leaves_the_monitor_usable(monitor: Monitor) -> None:
    with pytest.raises(QMPError) as caught:
        monitor.execute("no-such-command")
    assert caught.value.qmp_class == "CommandNotFound"
    assert caught.value.code == c.VIR_ERR_INTERNAL_ERROR
    assert caught.value.domain == c.VIR_FROM_QEMU
    assert caught.value.message.startswith("internal error: unable to execute QEMU command 'no-such-command': ")
    assert monitor.execute("query-name") == {}


def test_many_commands_at_once_come_back_in_order(monitor: Monitor) -> None:
    results = monitor.execute_all([("qom-list", {"path": "/machine"}), ("bad", None), ("query-name", None)] * 400)
    assert len(results) == 1200
    assert isinstance(results[1], QMPError)
    assert results[2] == {}
    assert isinstance(results[1197], list)
    assert monitor.execute_all([]) == []


def test_descriptors_travel_with_a_command(monitor: Monitor) -> None:
    reading, writing = os.pipe()
    try:
        added = monitor.execute("add-fd", {"fdset-id": 3}, fds=[reading])
        assert isinstance(added, dict)
        assert added["fdset-id"] == 3
        monitor.execute("getfd", {"fdname": "x"}, fds=[writing])
        with pytest.raises(QMPError, match="No file descriptor supplied"):
            monitor.execute("getfd", {"fdname": "y"})
    finally:
        os.close(reading)
        os.close(writing)


def test_events(monitor: Monitor) -> None:
    monitor.execute("cont")
    assert monitor.wait_event("STOP", "RESUME", seconds=10).name == "RESUME"
    assert not monitor.events
    monitor.execute("stop")
    assert deadlines.readable(monitor.fileno(), 0) or monitor.events
    assert [event.name for event in monitor.read_events()] == ["STOP"]
    began = time.monotonic()
    with pytest.raises(deadlines.DeadlineExceeded, match=r"report STOP within .* s \(vm='web1'\)"):
        monitor.wait_event("STOP", seconds=0.05)
    assert time.monotonic() - began < 5
    assert monitor.query("query-status")["running"] is False


def test_qemu_ending_is_the_end_of_the_monitor(monitor: Monitor) -> None:
    monitor.execute("quit")
    with pytest.raises(MonitorClosed, match="vm='web1'"):
        monitor.wait_event("NEVER", seconds=10)
    assert [event.name for event in monitor.events] == ["SHUTDOWN"]
    with pytest.raises(MonitorClosed):
        monitor.execute("query-name")


def test_a_monitor_that_nobody_serves(tmp_path: Path) -> None:
    with sockets.listen(str(tmp_path / "s")):
        pass
    with pytest.raises(MonitorClosed, match="failed to connect to monitor socket of guest 'web1': Connection"):
        Monitor(tmp_path / "s", "web1")
    with pytest.raises(MonitorClosed, match="No such file"):
        Monitor(tmp_path / "t", "web1")


def test_a_monitor_that_accepts_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with sockets.listen(path, backlog=0) as _:
        with pytest.raises(deadlines.DeadlineExceeded, match="answer 'qmp_capabilities' within"):
            Monitor(path, "web1", 0.05)
        # The first one is still in the queue, which has room for one.
        with pytest.raises(deadlines.DeadlineExceeded, match="accept a connection within"):
            Monitor(path, "web1", 0.05)


def test_a_stuck_monitor_is_given_up_and_closed(fake: Fake) -> None:
    monitor = fake.monitor(0.05)
    began = time.monotonic()
    with pytest.raises(deadlines.DeadlineExceeded, match="answer 'query-status'") as caught:
        monitor.execute("query-status")
    assert time.monotonic() - began < 5
    assert caught.value.code == c.VIR_ERR_OPERATION_TIMEOUT
    with pytest.raises(MonitorClosed, match="is closed"):
        monitor.execute("query-status")


def test_the_bound_of_the_call_counts(fake: Fake) -> None:
    monitor = fake.monitor(600)
    with deadlines.limit(0.05), pytest.raises(deadlines.DeadlineExceeded):
        monitor.execute("query-status")


@pytest.mark.parametrize(
    ("said", "matching"),
    [
        (b'{"return": {}, "id"', "within"),
        (b"garbage\r\n", "not JSON"),
        (b'{"return": {}, "id": 77}\r\n', "was not asked"),
        (b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}\r\n', "JSON parse error"),
        (b'{"return": ' + b"[" * 65 + b"]" * 65 + b', "id": 2}\r\n', "not a QMP message"),
    ],
)
def test_wrong_answers(fake: Fake, said: bytes, matching: str) -> None:
    monitor = fake.monitor(0.2)
    fake.server.sendall(said)
    with pytest.raises((MonitorClosed, deadlines.DeadlineExceeded), match=matching):
        monitor.execute("query-status")
    with pytest.raises(MonitorClosed):
        monitor.fileno()


@pytest.mark.parametrize("said", [b"", GREETING[:30], GREETING])
def test_one_that_hangs_up(said: bytes) -> None:
    fake = Fake(said)
    fake.server.close()
    with pytest.raises(MonitorClosed, match=r"monitor.*vm='web1'"):
        fake.monitor()
    assert fake.client.fileno() == -1


def test_one_that_refuses_the_capabilities_is_closed() -> None:
    fake = Fake(GREETING + b'{"error": {"class": "GenericError", "desc": "no"}, "id": 1}\r\n')
    with pytest.raises(QMPError, match="qmp_capabilities"):
        fake.monitor()
    assert fake.client.fileno() == -1
    fake.server.close()


def test_more_output_than_the_socket_holds_is_sent_while_answers_are_read(fake: Fake) -> None:
    """The far side answers nothing before it has everything: that must not be waited for in turn."""
    monitor = fake.monitor(20)
    size = 3_000_000
    child = os.fork()
    if child == 0:
        got = bytearray()
        fake.client.close()
        while got.count(b"\n") < 3:
            got += fake.server.recv(65536)
        for line in got.splitlines()[1:]:
            command = json.loads(line)
            answer = {"return": {"length": len(command["arguments"]["x"])}, "id": command["id"]}
            fake.server.sendall(json.dumps(answer).encode() + b"\n")
        os._exit(0)
    results = monitor.execute_all([("a", {"x": "y" * size}), ("b", {"x": "z"})])
    assert results == [{"length": size}, {"length": 1}]
    os.waitpid(child, 0)


def test_events_are_bounded(fake: Fake) -> None:
    monitor = fake.monitor(10)
    fake.server.setblocking(False)
    sent = 0
    while sent < 6000:
        _, writable, _ = select.select([], [fake.server], [], 0)
        if writable:
            line = f'{{"event": "E", "data": {{"n": {sent}}}}}\r\n'
            fake.server.send(line.encode())
            sent += 1
        else:
            with pytest.raises(deadlines.DeadlineExceeded):
                monitor.wait_event("NEVER", seconds=0.01)
    with pytest.raises(deadlines.DeadlineExceeded):
        monitor.wait_event("NEVER", seconds=0.01)
    assert len(monitor.events) == 4096
    assert monitor.events[-1].data == {"n": 5999}
