"""A server whose calls connect to the server itself. One process that serves everybody would wait for itself for ever.

The driver is that of contrib/bench/models: a guest called "nest 20" makes the call again, by the server's own socket,
with 19.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.instance import REPOSITORY
from tests.helpers.waiting import wait_for
from tests.server.harness import Client, Server, children
from virtd.protocol.records import Domain

MODELS = REPOSITORY / "contrib/bench/models"
URI = "model:///system"
UUID = b"a-models--guest-"
KINDS = ["domain_lookup_by_name", "domain_create"]  # done in the worker itself; done in a child


def nest(client: Client, method: str, depth: int) -> Any:
    """Send the call that goes so deep."""
    name = f"nest {depth}"
    return client.send(method, name if method == "domain_lookup_by_name" else Domain(name, UUID, -1))


def serve(directory: Path, config: str = "") -> Server:
    """Start virtd with that driver."""
    program = directory / "serve.py"
    program.write_text(
        f"import sys\nsys.path.insert(0, {str(MODELS)!r})\nimport driver\nfrom virtd.server.main import main\n"
        "driver.install()\nmain(sys.argv[1:])\n"
    )
    return Server(directory / "root", script=program, config=config)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """virtd with that driver."""
    made = serve(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[[], Client]]:
    """Makes clients, which are closed at the end."""
    made: list[Client] = []

    def make() -> Client:
        made.append(Client(server.sock, timeout=60, uri=URI))
        return made[-1]

    yield make
    for client in made:
        client.close()


def rests(server: Server) -> bool:
    """Whether nothing is left but a few processes that wait for clients."""
    return not server.serving() and not any(children(pid) for pid in children(server.pid)) and len(server.spares()) < 12


@pytest.mark.parametrize("method", KINDS)
def test_twenty_deep(server: Server, connect: Callable[[], Client], method: str) -> None:
    client = connect()
    client.reply(nest(client, method, 20))
    # While its own calls wait, the server serves everybody else.
    assert connect().ping() < 5
    wait_for(lambda: len(server.serving()) <= 2)
    assert client.call("connect_get_lib_version") == 9_000_000


@pytest.mark.parametrize(("method", "depth"), [(KINDS[0], 20), (KINDS[1], 4)])
def test_fifty_at_once(server: Server, connect: Callable[[], Client], method: str, depth: int) -> None:
    clients = [connect() for _ in range(50)]
    calls = [nest(client, method, depth) for client in clients]
    for client, call in zip(clients, calls, strict=True):
        client.reply(call)
        client.close()
    wait_for(lambda: rests(server))


def test_the_clients_leave_in_the_middle(server: Server, connect: Callable[[], Client]) -> None:
    """Whoever waits for a server whose client has left ends, all the way down."""
    for client in [connect() for _ in range(10)]:
        nest(client, KINDS[1], 10)
        client.close()
    wait_for(lambda: rests(server))


def test_limits_hold(tmp_path: Path) -> None:
    """Where there may be 15 clients, 20 deep fails, with the reason, and leaves nothing."""
    server = serve(tmp_path, "max_clients = 15\n")
    try:
        with Client(server.sock, timeout=60, uri=URI) as client:
            with pytest.raises(Exception, match=r"max_clients = 15 in virtd\.conf is reached"):
                client.reply(nest(client, KINDS[0], 20))
            client.reply(nest(client, KINDS[0], 10))
        wait_for(lambda: rests(server))
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("model", "deadlocks"), [("poll", True), ("fork", False), ("spares", False), ("threads", False)]
)
def test_the_models(tmp_path: Path, model: str, deadlocks: bool) -> None:
    """The same dispatcher and the same driver in one process and one poll loop: it waits for itself, and for ever."""
    command = [sys.executable, str(MODELS / "serve"), model, str(tmp_path)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert running.stdout
        assert running.stdout.readline() == b"ready\n"
        path = str(tmp_path / "run/libvirt/libvirt-sock")
        with Client(path, uri=URI) as client, Client(path, uri=URI) as other:
            assert other.call("connect_get_lib_version") == 9_000_000
            call = nest(client, KINDS[1], 1)
            if not deadlocks:
                client.reply(call)
                assert other.call("connect_get_lib_version") == 9_000_000
                return
            client.sock.settimeout(1)
            with pytest.raises(TimeoutError):
                client.reply(call)
            # And everybody else with it.
            other.sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                other.call("connect_get_lib_version")
            # It has not gone astray: what it waits for is its own answer.
            assert _waits_for_itself(running.pid, path)
    finally:
        # All at once: a model that is looked at process by process may fork meanwhile.
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        assert running.stdout
        running.stdout.close()


def _waits_for_itself(pid: int, path: str) -> bool:
    """Whether a connection waits in the queue of the process's own listening socket."""
    listing = subprocess.run(["ss", "-xlH", "src", path], capture_output=True, text=True, check=True).stdout
    return int(listing.split()[2]) == 1
