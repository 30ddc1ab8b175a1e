"""One virtd takes over from another without refusing a client.

The running virtd listens on a control socket in its run-time directory. The new one asks; it receives the listening
sockets, the instance's lock and the control socket itself, and begins to accept. Only when it says so does the
old one stop. Until then both accept, and a new virtd that dies half-way has changed nothing.

    new -> old   {"request": "replace", "version": 1}
    old -> new   {"version": 1, "listeners": [...]}     and the descriptors: lock, control socket, listeners in order
    new -> old   {"request": "stop"}

Each message is one line. Only the user who runs virtd, or root, may ask. The old side never waits here: the accept
loop polls the connection and calls `Server.received()`.
"""

import json
import os
import socket
import struct
from typing import Any, NamedTuple

from virtd import constants as c
from virtd.errors import VirtError
from virtd.server.listeners import Listener, adopt
from virtd.state import sockets

VERSION = 1
PATIENCE = 10.0  # seconds for the running virtd to answer
LARGEST = 65536
DESCRIPTORS = 250  # SCM_MAX_FD is 253


class Taken(NamedTuple):
    """What the new virtd received."""

    connection: socket.socket
    lock: int
    control: socket.socket
    listeners: list[Listener]

    def confirm(self) -> None:
        """Tell the old virtd that it is no longer needed, and wait until it has let go of the control socket.

        Until then it would answer who wants to replace its successor.

        Raises:
            OSError: it is gone already, which does not matter.
        """
        with self.connection:
            _send(self.connection, {"request": "stop"})
            self.connection.recv(1)


def _send(connection: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    data = json.dumps(message).encode() + b"\n"
    sent = socket.send_fds(connection, [data], list(descriptors))
    connection.sendall(data[sent:])


def listen(path: str) -> socket.socket:
    """Make the control socket, for the one user who may connect. The caller holds the instance's lock.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    control = sockets.listen(path, mode=0o600, backlog=4)
    control.setblocking(False)
    return control


def request(path: str) -> Taken:
    """Ask the running virtd for its sockets.

    Args:
        path: its control socket.

    Raises:
        OSError: none is running.
        VirtError: it did not answer, or with something else.
    """
    connection = sockets.connect(path, timeout=PATIENCE)
    try:
        _send(connection, {"request": "replace", "version": VERSION})
        data, descriptors = b"", []
        while not data.endswith(b"\n"):
            part, received, _flags, _address = socket.recv_fds(connection, LARGEST, DESCRIPTORS)
            if not part:
                raise VirtError(c.VIR_ERR_OPERATION_FAILED, "the running virtd does not let itself be replaced")
            data += part
            descriptors += received
        return _taken(connection, data, descriptors)
    except TimeoutError:
        connection.close()
        raise VirtError(c.VIR_ERR_OPERATION_TIMEOUT, f"the running virtd did not answer in {PATIENCE:.0f} s") from None
    except BaseException:
        connection.close()
        raise


def _taken(connection: socket.socket, data: bytes, descriptors: list[int]) -> Taken:
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    try:
        message = json.loads(data)
        if message["version"] != VERSION or len(message["listeners"]) + 2 != len(descriptors):
            raise ValueError(message)
        lock, control, *rest = descriptors
        listeners = [
            adopt(socket.socket(fileno=descriptor), description)
            for descriptor, description in zip(rest, message["listeners"], strict=True)
        ]
        return Taken(connection, lock, socket.socket(fileno=control), listeners)
    except (ValueError, KeyError, TypeError):
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, "the running virtd cannot be replaced by this version") from None


class Server:
    """The old side: the control socket and the one connection of somebody who takes over.

    Args:
        control: the listening socket.
        lock: the descriptor of the instance's lock.
        listeners: what is handed over.
    """

    def __init__(self, control: socket.socket, lock: int, listeners: list[Listener]) -> None:
        self.control = control
        self.connection: socket.socket | None = None
        self._lock = lock
        self._listeners = listeners
        self._pending = b""

    def accept(self) -> None:
        """Let somebody in who has the right to ask; a second one only after the first has gone."""
        try:
            connection, _address = self.control.accept()
        except OSError:
            return
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _pid, uid, _gid = struct.unpack("3i", credentials)
        if self.connection is not None or uid not in (0, os.geteuid()):
            connection.close()
            return
        connection.setblocking(False)
        self.connection = connection
        self._pending = b""

    def received(self) -> bool:
        """Read and answer what came; whether it said that the new virtd accepts now."""
        assert self.connection is not None
        try:
            data = self.connection.recv(LARGEST)
            self._pending += data
            if data and not data.endswith(b"\n") and len(self._pending) < LARGEST:
                return False
            message, self._pending = json.loads(self._pending), b""
            if message.get("request") == "stop":
                self.connection.shutdown(socket.SHUT_RDWR)  # children just forked have it, too
                self.hang_up()
                return True
            if message.get("request") == "replace" and message.get("version") == VERSION:
                self._hand_over(self.connection)
                return False
        except (OSError, ValueError, AttributeError):
            # Whoever asked is gone, or is no virtd: it gets nothing, and everything stays as it is.
            self.hang_up()
            return False
        self.hang_up()
        return False

    def _hand_over(self, connection: socket.socket) -> None:
        message = {"version": VERSION, "listeners": [listener.describe() for listener in self._listeners]}
        sockets = [listener.sock.fileno() for listener in self._listeners]
        _send(connection, message, (self._lock, self.control.fileno(), *sockets))

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()
