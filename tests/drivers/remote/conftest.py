"""Servers for tests of the remote driver: a libvirtd 9.0.0 of our own, and one made of nothing but messages."""

import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from virtd import constants as c
from virtd.drivers.base import Connection, Context, Identity
from virtd.drivers.remote.driver import RemoteDriver, open_remote
from virtd.errors import VirtError
from virtd.protocol import codec
from virtd.protocol import messages as m
from virtd.protocol.framing import Framer
from virtd.protocol.messages import Message
from virtd.protocol.programs import METHODS, PROGRAMS
from virtd.protocol.streams import ServerStream
from virtd.state import paths

NOBODY = 65534


class Libvirtd:
    """A running libvirtd in session mode, which needs no rights and shares nothing with any other."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.socket = home / "libvirt" / "libvirt-sock"
        self._pid_file = home / "pid"

    def start(self) -> None:
        """Start it; returns when it accepts connections."""
        home = str(self.home)
        (self.home / "conf").write_text(f'log_outputs = "3:file:{home}/log"\n')
        names = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
        command = ["libvirtd", "-d", "-t", "60", "-f", f"{home}/conf", "-p", str(self._pid_file)]
        if os.geteuid() == 0:
            # As root it would be the system's.
            self.home.chmod(0o777)
            command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
        subprocess.run(
            command, env=os.environ | dict.fromkeys(names, home), check=True, capture_output=True, timeout=60
        )

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        try:
            descriptor = os.pidfd_open(int(self._pid_file.read_text()))
        except (FileNotFoundError, ProcessLookupError):
            return
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [])
        os.close(descriptor)

    def uri(self, driver: str) -> str:
        """The URI of a driver of this libvirtd: "test" or "qemu"."""
        return f"{driver}+unix:///{'default' if driver == 'test' else 'session'}?socket={self.socket}"


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[Libvirtd]:
    """A libvirtd for all tests of this process."""
    if shutil.which("libvirtd") is None or shutil.which("setpriv") is None:
        pytest.skip("this machine has no libvirtd")
    with tempfile.TemporaryDirectory(prefix="lv") as home:
        server = Libvirtd(Path(home))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """What a driver is told of the connection."""
    return Context(paths.below(str(tmp_path)), Identity(os.getuid(), os.getgid(), os.getpid(), "local"), os.getpid())


@pytest.fixture
def connect(libvirtd: Libvirtd, context: Context) -> Iterator[Callable[..., Connection]]:
    """connect("test") -> a connection to that driver of the libvirtd."""
    made: list[Connection] = []

    def make(driver: str, **options: Any) -> Connection:
        made.append(open_remote(libvirtd.uri(driver), context, **options))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


class _Watched(socket.socket):
    """A socket that tells the peer when something was sent over it."""

    peer: "Peer"

    def send(self, *args: Any) -> int:
        sent = super().send(*args)
        self.peer.listen()
        return sent

    def sendmsg(self, *args: Any) -> int:
        sent = super().sendmsg(*args)
        self.peer.listen()
        return sent


class Peer:
    """A server that says what the test tells it to, and shows what it was told.

    Answers may be given before the calls are made: they are kept until then. The client's first call has serial 1.

    Args:
        pings: whether the client will ask about keepalive.
        methods: the ways to authenticate.

    Attributes:
        deaf: whether it does not listen; then nothing is kept back either.
        unfinished: the error by which finishing a stream fails; None if it goes well.
    """

    def __init__(self, *, pings: bool = False, methods: Sequence[int] = (0,)) -> None:
        client, self.sock = socket.socketpair()
        self.client = _Watched(fileno=client.detach())
        self.client.peer = self
        self.framer = Framer(1 << 25)
        self.deaf = False
        self.unfinished: VirtError | None = None
        self._told: list[Message] = []
        self._kept: dict[int, list[Message]] = {}
        self._called = self._serial = 0
        self.answer("auth_list", list(methods))
        if pings:
            self.answer("connect_supports_feature", 1)
        self.answer("connect_open")

    def close(self) -> None:
        """Hang up."""
        self.client.close()
        self.sock.close()

    def send(self, message: Message) -> None:
        """Send a message to the client, with its descriptors."""
        self.sock.sendall(message.to_bytes())
        for descriptor in message.fds:
            socket.send_fds(self.sock, [b"\0"], [descriptor])

    def listen(self) -> None:
        """Take in what the client has sent, and give the answers that were kept for it."""
        if self.deaf:
            return
        self.sock.setblocking(False)
        try:
            while (received := socket.recv_fds(self.sock, 1 << 20, 32))[0]:
                self.framer.receive(*received[:2])
        except BlockingIOError:
            pass
        self.sock.setblocking(True)
        while (message := self.framer.next_message()) is not None:
            self._told.append(message)
            if message.type in (m.CALL, m.CALL_WITH_FDS):
                self._called = message.serial
                for answer in self._kept.pop(message.serial, ()):
                    self.send(answer)
            elif message.type == m.STREAM and message.status != m.CONTINUE:
                stream = ServerStream(message)
                failed = message.status == m.OK and self.unfinished
                self.send(stream.fail(failed) if failed else stream.done())

    def _give(self, answer: Message) -> None:
        if answer.serial <= self._called or self.deaf:
            self.send(answer)
        else:
            self._kept.setdefault(answer.serial, []).append(answer)

    def header(self, method: str, serial: int) -> Message:
        """The header of a call's answer."""
        procedure = METHODS[method]
        number = next(program.number for program in PROGRAMS.values() if program.name == procedure.program)
        return Message(number, 1, procedure.number, m.CALL, serial)

    def answer(self, method: str, result: Any = None, fds: Sequence[int] = (), serial: int | None = None) -> None:
        """Answer the next call, or the one with that serial."""
        self._serial = serial or self._serial + 1
        self._give(m.make_reply(self.header(method, self._serial), METHODS[method], result, fds))

    def fail(self, method: str, error: VirtError) -> None:
        """Answer the next call by an error."""
        self._serial += 1
        self._give(m.make_error(self.header(method, self._serial), error))

    def stream(self, message: Message) -> None:
        """Send a packet of the stream which the latest call opens, behind the answer to it."""
        self._give(message._replace(serial=self._serial))

    def told(self) -> list[Message]:
        """What the client has sent since the last time."""
        self.listen()
        found, self._told = self._told, []
        return found

    def calls(self) -> list[tuple[Any, ...]]:
        """The calls that the client has made since the last time: method and arguments."""
        found: list[tuple[Any, ...]] = []
        for message in self.told():
            procedure = PROGRAMS[message.program].procedures[message.procedure]
            found.append((procedure.method, *codec.decode_args(procedure, message.payload, exact=True)))
        return found


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A server whose answers the test writes."""
    made = Peer()
    yield made
    made.close()


@pytest.fixture
def driver(peer: Peer, context: Context) -> Iterator[RemoteDriver]:
    """A driver connected to the peer."""
    made = RemoteDriver(context, peer.client, name="test:///default")
    assert peer.calls() == [("auth_list",), ("connect_open", "test:///default", 0)]
    yield made
    if not made.client.broken:
        peer.fail("connect_close", VirtError(c.VIR_ERR_RPC, "unwilling to part"))
    made.close()
