"""The remote driver: every procedure of the table is a method that asks a server.

A connection belongs to the process that opened it. A child forked from that process, which finds the driver in its
memory, opens one of its own when it first calls a method; so a slow call may be made in a child, as with any other
driver. What belongs to a connection (subscriptions, guests that end with it) belongs to that of the process that
asked for it.
"""

from __future__ import annotations

import _socket
import os
import select
from functools import partial

from virtd import constants as c
from virtd.deadlines import limit
from virtd.drivers.base import Connection, Context, Driver, Event, Reply
from virtd.drivers.remote import address, link
from virtd.drivers.remote.address import Address
from virtd.drivers.remote.client import Client
from virtd.errors import VirtError
from virtd.protocol.procedure import EVENT, Procedure
from virtd.protocol.programs import METHODS, REMOTE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from virtd.drivers.remote.streams import RemoteStream

_FAREWELL = 1.0  # seconds that closing may take
_AT_ONCE = 256  # events returned at one time
# Transports that nobody can listen in to.
_SECURE = frozenset(("unix", "tls", "ssh", "libssh", "libssh2"))


class RemoteDriver(Driver):
    """A connection to a server, with the methods of all procedures that its programs have.

    Args:
        context: what drivers are told of the connection they are opened for.
        target: where the server is; or a socket connected to it, and then `name` is what to open there.
        name: the URI to open at the other end of a socket.
        ping: seconds of silence, and how many pings may go unanswered; None for no keepalive.

    Raises:
        VirtError: nobody answers, or the server refuses.
    """

    def __init__(
        self,
        context: Context,
        target: Address | _socket.socket,
        *,
        name: str = "",
        ping: tuple[float, int] | None = None,
    ) -> None:
        super().__init__(context)
        if isinstance(target, Address):
            self._address: Address | None = target
            self._name = target.name
            to = link.connect(target)
            self._secure = target.transport in _SECURE
        else:
            self._address, self._name, to = None, name, link.Link(target)
            self._secure = target.family == _socket.AF_UNIX
        self._ping = ping
        self._flags = c.VIR_CONNECT_RO if context.read_only else 0
        self._pid = os.getpid()
        # Readable when something came over the socket, or lies in the queue of events already.
        self._events: select.epoll | None = None
        self._queued = -1
        self._client = self._open(to)

    def _open(self, to: link.Link) -> Client:
        client = Client(to, ping=self._ping)
        try:
            client.open(self._name, self._flags)
        except VirtError:
            client.close()
            raise
        return client

    @property
    def client(self) -> Client:
        """This process's own connection."""
        if self._pid != os.getpid():
            if self._address is None:
                text = "a connection made from a socket cannot be used by another process"
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_REMOTE)
            self._client = self._open(link.connect(self._address))
            self._pid, self._events = os.getpid(), None
        return self._client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        procedure = METHODS.get(name)
        if procedure is None or procedure.kind == EVENT or not procedure.auth or name in _NOT_FOR_CALLERS:
            raise AttributeError(name)
        method = partial(self._call, procedure)
        # From now on it is found without coming here.
        setattr(self, name, method)
        return method

    def _call(self, procedure: Procedure, *args: Any, fds: Sequence[int] = ()) -> Any:
        client = self.client
        serial = client.start(procedure, args, fds)
        value, received = client.result(serial)
        if procedure.stream:
            from virtd.drivers.remote.streams import pumped

            return Reply(value, stream=pumped(client, serial, procedure.stream), fds=list(received))
        return Reply(value, fds=list(received)) if procedure.fds_in_reply else value

    def open_stream(self, method: str, *args: Any) -> tuple[Any, RemoteStream]:
        """Call a procedure which opens a stream, for a caller that wants the stream itself, with its holes.

        Returns:
            The call's result, and the stream.
        """
        from virtd.drivers.remote.streams import RemoteStream

        client = self.client
        serial = client.start(METHODS[method], args)
        value, _ = client.result(serial)
        return value, RemoteStream(client, serial)

    def connect_is_secure(self) -> int:
        """Whether what is said cannot be overheard: at the server, and on the way to it (virConnectIsSecure)."""
        return int(bool(self._call(REMOTE.named["CONNECT_IS_SECURE"])) and self._secure)

    def event_fd(self) -> int | None:
        """A descriptor that is readable when events may be there, or anything else came from the server."""
        client = self.client
        if client.broken:
            return None
        if self._events is None:
            self._queued = os.eventfd(int(bool(client.events)), os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            client.notify = partial(os.eventfd_write, self._queued, 1)
            self._events = select.epoll()
            self._events.register(client.fileno(), select.EPOLLIN)
            self._events.register(self._queued, select.EPOLLIN)
        return self._events.fileno()

    def read_events(self) -> list[Event]:
        """The events since the last call, oldest first; an empty list means no more.

        Raises:
            VirtError: the connection has come to an end.
        """
        client = self.client
        if not client.events:
            if client.broken:
                client.wait_until(lambda: False, "events")
            client.read()
        found = [client.events.popleft() for _ in range(min(_AT_ONCE, len(client.events)))]
        if self._events is not None and not client.events:
            try:
                os.eventfd_read(self._queued)
            except BlockingIOError:
                pass
        return found

    def clean(self) -> bool:
        """Closing leaves nothing behind."""
        return True

    def close(self) -> None:
        """Take leave of the server and close the connection."""
        if self._pid != os.getpid():
            # It is the parent's, who still uses it.
            return
        if self._events is not None:
            self._events.close()
            os.close(self._queued)
            self._events = None
        if not self._client.broken:
            try:
                with limit(_FAREWELL):
                    self._client.call(REMOTE.named["CONNECT_CLOSE"])
            except VirtError:
                # The server is gone or does not answer: there is nobody to take leave of.
                pass
        self._client.close()


# What the driver says itself, at the beginning and the end.
_NOT_FOR_CALLERS = frozenset(("connect_open", "connect_close"))


def open_remote(uri: str, context: Context, *, ping: tuple[float, int] | None = None) -> Connection:
    """Open a connection to a server.

    Args:
        uri: a remote URI; see virtd.drivers.remote.address.
        context: as for any driver.
        ping: seconds of silence, and how many pings may go unanswered; None for no keepalive.

    Raises:
        VirtError: VIR_ERR_INVALID_ARG for a wrong URI; nobody answers; or what the server says.
    """
    target = address.parse(uri, context.paths, read_only=context.read_only)
    return Connection(target.uri, [RemoteDriver(context, target, ping=ping)])
