"""The link to a server: opening it, and moving bytes and descriptors over it within the bound of the call.

Sending never waits for a server which itself waits to be read from: while there is no room, what comes is taken
in. This module knows no messages.
"""

from __future__ import annotations

import _socket
import array
import math
import os
import select
import time

from virtd import constants as c
from virtd.deadlines import DeadlineExceeded, remaining
from virtd.errors import VirtError
from virtd.state import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from virtd.drivers.remote.address import Address
    from virtd.drivers.remote.ssh import Tunnel

_CONNECTING = 30.0  # seconds to wait for a server to take a connection, unless the call has less
_CHUNK = 262144  # bytes read at one time
_FDS_ROOM = _socket.CMSG_SPACE(32 * array.array("i").itemsize)


def rpc_error(text: str, code: int = c.VIR_ERR_SYSTEM_ERROR) -> VirtError:
    """An error of the connection itself."""
    return VirtError(code, text, domain=c.VIR_FROM_RPC)


def _connect_unix(address: Address) -> tuple[_socket.socket, None]:
    try:
        return sockets.connect_plain(address.socket, timeout=remaining(_CONNECTING)), None
    except BlockingIOError:
        raise DeadlineExceeded(f"connecting to socket '{address.socket}'", domain=c.VIR_FROM_RPC) from None
    except OSError as error:
        raise rpc_error(f"Failed to connect socket to '{address.socket}': {error.strerror}") from None


def _connect_tcp(address: Address) -> tuple[_socket.socket, None]:
    import socket

    where = f"{address.host}:{address.port}"
    try:
        sock = socket.create_connection((address.host, address.port), timeout=remaining(_CONNECTING))
    except socket.gaierror as error:
        text = f"Unable to resolve address '{address.host}' service '{address.port}': {error.strerror}"
        raise rpc_error(text) from None
    except TimeoutError:
        raise DeadlineExceeded(f"connecting to server at '{where}'", domain=c.VIR_FROM_RPC) from None
    except OSError as error:
        raise rpc_error(f"unable to connect to server at '{where}': {os.strerror(error.errno or 0)}") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock, None


def _start_program(address: Address) -> tuple[_socket.socket, Tunnel]:
    # Of those who need no program, nobody pays for what starts one.
    from virtd.drivers.remote import ssh

    return ssh.start(address)


_TRANSPORTS: dict[str, Callable[[Address], tuple[_socket.socket, Tunnel | None]]] = {
    "unix": _connect_unix,
    "tcp": _connect_tcp,
    "ssh": _start_program,
    "ext": _start_program,
}


def open_socket(address: Address) -> tuple[_socket.socket, Tunnel | None]:
    """A socket that is connected to the server of an address, and the program behind it, if there is one.

    Raises:
        VirtError: nobody answers there, or the transport is none that this client has.
    """
    opener = _TRANSPORTS.get(address.transport)
    if opener is None:
        have = ", ".join(_TRANSPORTS)
        text = f"transport {address.transport} of {address.uri}: this client has {have}"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_REMOTE)
    return opener(address)


def connect(address: Address) -> Link:
    """A link to the server of an address; raises as `open_socket`."""
    return Link(*open_socket(address))


class Link:
    """A connected socket.

    Args:
        sock: the socket; it belongs to the link from then on.
        tunnel: the program behind it that leads to the server, if there is one.

    Attributes:
        passes_fds: whether descriptors can travel.
    """

    def __init__(self, sock: _socket.socket, tunnel: Tunnel | None = None) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._tunnel = tunnel
        self.passes_fds = sock.family == _socket.AF_UNIX and tunnel is None

    def fileno(self) -> int:
        """The descriptor, to be polled for reading."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket, and see the program behind it to its end."""
        self._sock.close()
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.close()

    def receive(self) -> tuple[bytes, list[int]]:
        """What has come: bytes, none of them if there is nothing now, and descriptors.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR: the connection is closed or broken.
        """
        fds: list[int] = []
        try:
            if self.passes_fds:
                data, ancillary, _, _ = self._sock.recvmsg(_CHUNK, _FDS_ROOM, _socket.MSG_CMSG_CLOEXEC)
                for level, kind, content in ancillary:
                    if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                        fds.extend(memoryview(content[: len(content) & ~3]).cast("i"))
            else:
                data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return b"", []
        except OSError as error:
            raise self._lost("Cannot recv data", error.strerror) from None
        if not data:
            raise self._lost("End of file while reading data", "Input/output error")
        return data, fds

    def _lost(self, what: str, why: str | None) -> VirtError:
        """The error of a connection that has ended: with what the program behind it has to say."""
        words = self._tunnel.last_words() if self._tunnel else ""
        return rpc_error(f"{what}: {words}: {why}" if words else f"{what}: {why}")

    def send(self, data: bytes, fds: Sequence[int], read: Callable[[], None]) -> None:
        """Send a message, and behind it its descriptors.

        Args:
            data: the whole message.
            fds: descriptors, each of which goes with a byte of its own. They stay the caller's.
            read: called when something came while there was no room to send.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR: the connection is broken.
            DeadlineExceeded: the server took only part of it.
        """
        view = memoryview(data)
        while view:
            view = view[self._some(view, (), read) :]
        for descriptor in fds:
            while not self._some(memoryview(b"\0"), (descriptor,), read):
                pass

    def _some(self, view: memoryview, fds: Sequence[int], read: Callable[[], None]) -> int:
        """Send what there is room for; if there is none, wait until there might be, and return 0."""
        try:
            if not fds:
                return self._sock.send(view)
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))
            return self._sock.sendmsg([view], [rights])
        except BlockingIOError:
            events = self.wait(select.POLLIN | select.POLLOUT, math.inf)
            if not events:
                raise DeadlineExceeded("the server takes no more data", domain=c.VIR_FROM_RPC) from None
            if events & select.POLLIN:
                read()
            return 0
        except OSError as error:
            raise self._lost("Cannot write data", error.strerror) from None

    def wait(self, wanted: int, seconds: float) -> int:
        """Wait for poll events, for at most `seconds` and within the bound of the call; 0 if the time is up."""
        return poll({self.fileno(): wanted}, seconds).get(self.fileno(), 0)


def poll(wanted: dict[int, int], seconds: float) -> dict[int, int]:
    """Wait for poll events on several descriptors, for at most `seconds` and within the bound of the call.

    Args:
        wanted: poll events by descriptor.
        seconds: the longest wait; math.inf if only the bound counts.

    Returns:
        The events that came, by descriptor: none when the time is up.
    """
    poller = select.poll()
    for descriptor, events in wanted.items():
        poller.register(descriptor, events)
    left = remaining(seconds)
    return dict(poller.poll(None if left == math.inf else math.ceil(left * 1000)))


def now() -> float:
    """The clock that keepalive goes by."""
    return time.monotonic()
