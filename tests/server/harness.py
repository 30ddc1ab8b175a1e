"""A server with the fake driver in a directory of its own, and a client that speaks the protocol by hand."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.waiting import SECONDS
from virtd.protocol import codec
from virtd.protocol.framing import Framer
from virtd.protocol.messages import CALL_WITH_FDS, ERROR, PING, REPLY, REPLY_WITH_FDS, decode_error, make_call
from virtd.protocol.programs import BY_NAME, METHODS
from virtd.protocol.records import Domain

HERE = Path(__file__).parent
TOP = HERE.parent.parent
UUID = b"fakefakefakefake"
URI = "fake:///system" if os.geteuid() == 0 else "fake:///session"


def guest(name):
    """A guest of the fake driver, which does what its name says."""
    return Domain(name, UUID, -1)


def title(pid):
    """The title of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid):
    """The children of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def offspring(pid):
    """The children of a process, theirs, and so on."""
    found = children(pid)
    return [*found, *(below for child in found for below in offspring(child))]


def private(pid):
    """Private memory of a process in bytes."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Private_"))


class Server:
    """virtd with the fake driver, in the foreground.

    Args:
        root: its directory.
        arguments: of the command line, beside --root.
        config: the content of virtd.conf.
        environment: beside the usual.
    """

    def __init__(self, root, *arguments, config="", environment=None, script=None):
        self.root = Path(root)
        self.sock = f"{root}/run/libvirt/libvirt-sock"
        self.ro = f"{self.sock}-ro"
        (self.root / "etc/virtd").mkdir(parents=True, exist_ok=True)
        self.config = self.root / "etc/virtd/virtd.conf"
        self.config.write_text(config)
        self.log = self.root / "stderr"
        ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ready.bind(f"\0virtd-test-{os.getpid()}-{id(self)}")
        ready.settimeout(SECONDS)
        variables = {
            **os.environ,
            "PYTHONPATH": str(TOP),
            "NOTIFY_SOCKET": "@" + ready.getsockname()[1:].decode(),
            **(environment or {}),
        }
        with self.log.open("ab") as log:
            command = [sys.executable, str(script or HERE / "fake.py"), "--root", str(root), "-v", *arguments]
            self.process = subprocess.Popen(command, stderr=log, env=variables)
        self.pid = self.process.pid
        pidfd = os.pidfd_open(self.pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(ready, select.POLLIN)
        events = dict(poll.poll(SECONDS * 1000))
        os.close(pidfd)
        assert ready.fileno() in events, self.log.read_text()
        assert b"READY=1" in ready.recv(4096)
        self.ready = ready

    def workers(self):
        """Process ids and titles of the children."""
        return {pid: text for pid in children(self.pid) if (text := title(pid))}

    def serving(self):
        """The workers that have a client."""
        return {pid: text for pid, text in self.workers().items() if text.startswith("virtd: worker for")}

    def spares(self):
        """The workers that wait for one."""
        return {pid: text for pid, text in self.workers().items() if text.startswith("virtd: spare")}

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=SECONDS):
        """Wait for its end; the exit status."""
        return self.process.wait(seconds)

    def stop(self):
        """End it, and whatever is left of it."""
        self.ready.close()
        left = offspring(self.pid)
        if self.process.poll() is None:
            # Twice: what still runs for a test is of no use to anybody.
            for _ in range(2):
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(1 if left else 20)
            self.process.wait(20)
        for pid in left:
            if title(pid).startswith("virtd: "):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def client(self, path=None, **options):
        return Client(path or self.sock, **options)


class Client:
    """One connection, in lock step or not."""

    def __init__(self, address, timeout=SECONDS, opened=True, uri=URI, flags=0):
        if isinstance(address, socket.socket):
            self.sock = address
        else:
            self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
            self.sock.connect(address)
        self.sock.settimeout(timeout)
        self.framer = Framer()
        self.framer.unlimit()
        self.serial = 0
        self.inbox = []
        if opened:
            self.call("connect_open", uri, flags)

    def __enter__(self):
        return self

    def __exit__(self, *_args):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, method, *args, fds=()):
        """Send a call; its message."""
        self.serial += 1
        message = make_call(METHODS[method], self.serial, args, fds)
        self.raw(message.to_bytes())
        if message.type == CALL_WITH_FDS:
            for fd in fds:
                socket.send_fds(self.sock, [b"\0"], [fd])
        return message

    def raw(self, data):
        self.sock.sendall(data)

    def receive(self):
        """The next message; None at the end of the connection."""
        while (message := self.framer.next_message()) is None:
            if self.sock.family == socket.AF_UNIX:
                data, fds, _flags, _address = socket.recv_fds(self.sock, 65536, 32)
            else:
                data, fds = self.sock.recv(65536), []
            if not data:
                return None
            self.framer.receive(data, fds)
        return message

    def reply(self, call):
        """The reply to a call, raising its error; other messages go to the inbox."""
        for message in self.inbox:
            if message.type in (REPLY, REPLY_WITH_FDS) and message.serial == call.serial:
                self.inbox.remove(message)
                return self.result(call, message)
        while (message := self.receive()) is not None:
            if message.type in (REPLY, REPLY_WITH_FDS) and message.serial == call.serial:
                return self.result(call, message)
            self.inbox.append(message)
        raise EOFError

    def result(self, call, message):
        self.fds = message.fds
        assert message[:3] == call[:3]
        if message.status == ERROR:
            raise decode_error(message.payload)
        procedure = next(p for p in METHODS.values() if program_number(p) == (call.program, call.procedure))
        return codec.decode_result(procedure, message.payload)

    def call(self, method, *args, fds=()):
        return self.reply(self.send(method, *args, fds=fds))

    def ping(self):
        """Send a ping and wait for the pong; how long it took."""
        start = time.monotonic()
        self.raw(PING.to_bytes())
        while (message := self.receive()) is not None:
            if message.program == PING.program:
                assert message.procedure == 2
                return time.monotonic() - start
            self.inbox.append(message)
        raise EOFError

    def pid(self):
        """The worker's process id."""
        return int(self.call("connect_get_type"))


def program_number(procedure):
    return BY_NAME[procedure.program].number, procedure.number
