"""virtd --remote: one client's connection to a server that owns the guests, in a process which holds no drivers.

Messages go through as they are, in both directions, descriptors with them: calls, replies, events, streams and pings of
whatever program. The front itself does what only it can:

- it authenticates the client, before anything of it goes on;
- it opens the connection to the owner when the client first wants something, and authenticates itself there;
- in CONNECT_OPEN it refuses a URI that leads to yet another server, and marks what comes by a read-only socket;
- when that has been answered, it tells the owner who the client is (CONNECT_SET_IDENTITY), before any other call.

So that no ring of fronts can form, each puts its mark behind the arguments of its first call, AUTH_LIST, where other
servers look for nothing; a front that finds its own mark there refuses.

What one side does not take is not read from the other: no more than a megabyte lies here.
"""

import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable

from virtd import constants as c
from virtd.drivers import identities, refuse_remote
from virtd.drivers.remote import link
from virtd.drivers.remote.address import Address
from virtd.drivers.remote.ssh import Tunnel
from virtd.errors import VirtError
from virtd.protocol import codec
from virtd.protocol.framing import Framer, FramingError
from virtd.protocol.messages import (
    CALL,
    CALL_WITH_FDS,
    ERROR,
    OK,
    REPLY,
    REPLY_WITH_FDS,
    Message,
    decode_error,
    make_call,
    make_error,
    make_reply,
)
from virtd.protocol.procedure import Procedure
from virtd.protocol.programs import METHODS, REMOTE
from virtd.server import auth, identity, log
from virtd.server.channel import Channel, ChannelClosedError, SocketChannel
from virtd.server.dispatch import close_all
from virtd.server.loop import READ, WRITE, Loop
from virtd.server.process import RETIRE, Signals, title
from virtd.server.reports import KNOWN
from virtd.server.shared import Shared
from virtd.server.worker import ANONYMOUS, LAST_CALLS

MARK = b"virtd front "  # a multiple of four bytes, as the protocol wants it
HOPS = 8  # fronts that may stand behind each other
_ID = 16  # bytes of a front's own mark

# How far the connection to the owner has come.
ABSENT, GREETING, READY, OPENING, NAMING = "absent", "greeting", "ready", "opening", "naming"

_OPEN = METHODS["connect_open"]
_CLOSE = METHODS["connect_close"]
_LIST = METHODS["auth_list"]
_NAME = METHODS["connect_set_identity"]


class Target:
    """Where a front forwards to.

    Args:
        uri: of the owner, for titles and errors.
        address: how to get there.
        looking: how those get there who may only look.
        mark: by which the front knows itself.
    """

    def __init__(self, uri: str, address: Address, looking: Address, mark: bytes) -> None:
        self.uri = uri
        self.address = address
        self.looking = looking
        self.mark = mark


def refused(hops: list[bytes], target: Target) -> VirtError | None:
    """Why a client that came by these fronts is not served; None if it is."""
    if target.mark in hops:
        text = f"virtd --remote forwards to itself by {target.uri}"
    elif len(hops) >= HOPS:
        text = f"{len(hops)} servers forward to each other already"
    else:
        return None
    return VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_REMOTE)


class Front:
    """A client, and its connection to the owner.

    Args:
        channel: the client.
        peer: who it is.
        shared: what the process was given.
        signals: the process's signals.

    Attributes:
        leaving: whether the process has been told to end with this client.
    """

    def __init__(self, channel: Channel, peer: auth.Peer, shared: Shared, signals: Signals) -> None:
        assert shared.target is not None
        self.target: Target = shared.target
        self.client = channel
        self.peer = peer
        self.shared = shared
        self.signals = signals
        self.owner: SocketChannel | None = None
        self.tunnel: Tunnel | None = None
        self.loop = Loop()
        self.heard = Framer()  # from the client
        self.answered = Framer()  # from the owner
        self.answered.unlimit()
        self.state = ABSENT
        self.leaving = False
        self.gone = False
        self.stopping = False
        self._sock: socket.socket | None = None
        self._held: Message | None = None  # what waits until the owner is ready for it
        self._own = 0  # the serial of the front's own call
        self._calls: dict[int, Message] = {}  # those that the owner has not answered, by serial
        self._hops: list[bytes] = []
        self._uri = ""
        self._ended = False  # the client has no more to say
        self._parting = False  # or has said that it closes the connection
        self._closing = False  # it is sent what is waiting, and then hung up on
        self._limit = math.inf  # for the client to say something, or to take its last words
        self._interest: dict[int, int] = {}
        if peer.known:
            self.heard.unlimit()
        else:
            self._limit = time.monotonic() + ANONYMOUS

    # The loop

    def run(self) -> bool:
        """Serve the client to its end; returns whether the process may serve another one."""
        self.loop.watch(self.signals.fileno(), READ, self._signalled)
        if self.shared.lifeline >= 0:
            self.loop.watch(self.shared.lifeline, READ, self._orphaned)
        self._show()
        while self._settle():
            self.loop.turn(None if self._limit == math.inf else max(0.0, self._limit - time.monotonic()))
            if time.monotonic() >= self._limit:
                log.warning("closing the connection: its time is up")
                self.gone = True
            if self.stopping and not (self._calls or self._held or self.client.waiting):
                self.gone = True
        self._end()
        return True

    def _end(self) -> None:
        for descriptor in self._interest:
            self.loop.unwatch(descriptor)
        self.client.close()
        self._hang_up()
        close_all(self.heard.close())
        if self._held is not None:
            close_all(self._held.fds)

    def _hang_up(self) -> None:
        """Close the connection to the owner."""
        if self.owner is not None:
            self.loop.unwatch(self.owner.reader)
            self._interest.pop(self.owner.reader, None)
            self.owner.close()
        if self.tunnel is not None:
            self.tunnel.close()
        close_all(self.answered.close())
        self.owner = self.tunnel = self._sock = None
        self.state = ABSENT

    def _settle(self) -> bool:
        """Wait for either side as far as the other has room; False if there is nobody to wait for any more."""
        owner = self.owner
        if self.gone or (self._closing and not self.client.waiting):
            return False
        room = self.state in (ABSENT, READY) and not (self._ended or self._closing or self.stopping)
        room = room and (owner is None or not owner.full)
        reading, writing = READ if room else 0, WRITE if self.client.waiting else 0
        if self.client.reader == self.client.writer:
            self._watch(self.client.reader, reading | writing, self._client_ready)
        else:
            # A pipe that has ended would say so all the time.
            self._watch(self.client.reader, reading or None, self._client_ready)
            self._watch(self.client.writer, writing, self._client_ready)
        if owner is not None:
            self._watch(
                owner.reader, (0 if self.client.full else READ) | (WRITE if owner.waiting else 0), self._owner_ready
            )
        if self._ended and owner is not None and self.state == READY and not owner.waiting:
            self._half_close()
        return True

    def _watch(self, descriptor: int, events: int | None, handler: Callable[[int], None]) -> None:
        """Wait for a descriptor; None: not even for its end."""
        if self._interest.get(descriptor) == events:
            return
        if events is None:
            del self._interest[descriptor]
            self.loop.unwatch(descriptor)
        else:
            self._interest[descriptor] = events
            self.loop.watch(descriptor, events, handler)

    def _half_close(self) -> None:
        """Tell the owner that the client has no more to say; it may still have."""
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                self.gone = True
            self._sock = None

    def _client_ready(self, events: int) -> None:
        try:
            if events & WRITE:
                self.client.flush()
            if events & READ or (events & select.POLLHUP and self._interest.get(self.client.reader) == READ):
                self.heard.receive(*self.client.receive())
            elif events & ~WRITE:
                self.gone = True
        except ChannelClosedError:
            self._ended = True
            self.gone = self.owner is None or bool(self._held)
        self._process()

    def _process(self) -> None:
        """Pass on what the client has sent, while the owner is ready for it."""
        try:
            while self.state in (ABSENT, READY) and not (self.gone or self._closing or self.stopping):
                if self.owner is not None and self.owner.full:
                    return
                message = self.heard.next_message()
                if message is None:
                    return
                self._from_client(message)
        except FramingError as error:
            log.warning(f"closing the connection: {error}")
            self.gone = True

    def _owner_ready(self, events: int) -> None:
        assert self.owner is not None
        try:
            if events & WRITE:
                self.owner.flush()
            if events & ~WRITE:
                self.answered.receive(*self.owner.receive())
                while self.owner is not None and (message := self.answered.next_message()) is not None:
                    self._from_owner(message)
        except (ChannelClosedError, FramingError, codec.DecodeError) as error:
            self._lost(error)
            return
        self._process()

    # From the client

    def _from_client(self, message: Message) -> None:
        if not self.peer.known:
            self._known()
        procedure = _remote_call(message)
        try:
            if procedure is not None and not procedure.auth:
                self._authenticate(message, procedure)
                return
            if procedure is _OPEN:
                message = self._checked(message)
            elif procedure is _NAME and not identity.trusted(self.peer.identity):
                # Said by the front, the owner would believe it.
                raise VirtError(
                    c.VIR_ERR_ACCESS_DENIED, f"{self.peer.label} may not speak for others", domain=c.VIR_FROM_RPC
                )
            if self.owner is None:
                if procedure is _CLOSE:
                    self._say(make_reply(message, _CLOSE, None))
                    self._closing = True
                    return
                self._connect()
                self._held = message
                return
            self._forward(message)
        except codec.DecodeError:
            close_all(message.fds)
            problem = VirtError(c.VIR_ERR_RPC, "Unable to decode message payload", domain=c.VIR_FROM_RPC)
            self._say(make_error(message, problem))
        except VirtError as error:
            close_all(message.fds)
            self._say(make_error(message, error))

    def _known(self) -> None:
        self.peer = self.peer._replace(known=True)
        self.heard.unlimit()
        self._limit = math.inf
        self.shared.reports.send(KNOWN)

    def _authenticate(self, message: Message, procedure: Procedure) -> None:
        """Answer a call by which the client proves who it is. Raises VirtError, DecodeError."""
        if procedure is _LIST and message.payload.startswith(MARK):
            marks = message.payload[len(MARK) :]
            self._hops = [marks[at : at + _ID] for at in range(0, len(marks), _ID)]
            error = refused(self._hops, self.target)
            if error is not None:
                raise error
        args = codec.decode_args(procedure, message.payload)
        self._say(make_reply(message, procedure, auth.CALLS[procedure.method](*args)))

    def _checked(self, message: Message) -> Message:
        """CONNECT_OPEN as it goes on. Raises VirtError, DecodeError."""
        name, flags = codec.decode_args(_OPEN, message.payload)
        refuse_remote(name or "")
        self._uri = name or ""
        if self.peer.identity.read_only and not flags & c.VIR_CONNECT_RO:
            message = message._replace(payload=codec.encode_args(_OPEN, (name, flags | c.VIR_CONNECT_RO)))
        return message

    def _forward(self, message: Message) -> None:
        """Send a message to the owner. Raises VirtError if it cannot take it."""
        assert self.owner is not None
        procedure = _remote_call(message)
        if message.type in (CALL, CALL_WITH_FDS):
            if message.fds and not self.owner.passes_fds:
                text = "fd passing is not supported by this connection"
                raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text, domain=c.VIR_FROM_RPC)
            self._calls[message.serial] = message._replace(payload=b"", fds=())
            self._parting = self._parting or procedure is _CLOSE
            if procedure is _OPEN:
                self.state = OPENING
                self._held = message._replace(fds=())
        self._to_owner(message)

    def _to_owner(self, message: Message) -> None:
        assert self.owner is not None
        try:
            self.owner.send(message.to_bytes(), message.fds)
        except ChannelClosedError as error:
            self._lost(error)

    # The connection to the owner

    def _connect(self) -> None:
        """Open it, and begin by asking how to authenticate.

        Raises:
            VirtError: nobody answers.
        """
        where = self.target.looking if self.peer.identity.read_only else self.target.address
        opened, self.tunnel = link.open_socket(where)
        self._sock = socket.socket(fileno=opened.detach())
        self.owner = SocketChannel(self._sock, unix=self._sock.family == socket.AF_UNIX and self.tunnel is None)
        self.state = GREETING
        greeting = make_call(_LIST, 1, ())
        self._own = greeting.serial
        self._to_owner(greeting._replace(payload=MARK + b"".join((*self._hops, self.target.mark))))

    def _from_owner(self, message: Message) -> None:
        if message.type not in (REPLY, REPLY_WITH_FDS):
            self._to_client(message)
        elif self.state == GREETING:
            self._greeted(message)
        elif self.state == NAMING and message.serial == self._own:
            self._named(message)
        else:
            self._calls.pop(message.serial, None)
            if self.state == OPENING and self._held is not None and message.serial == self._held.serial:
                self._opened(message)
            else:
                self._to_client(message)

    def _greeted(self, message: Message) -> None:
        """AUTH_LIST is answered: what the client wanted first may go on."""
        held, self._held = self._held, None
        assert held is not None
        try:
            if message.status == ERROR:
                raise decode_error(message.payload)
            methods = codec.decode_result(_LIST, message.payload)
            if methods and auth.NONE not in methods:
                text = f"{self.target.uri} asks for authentication of type {methods[0]}, which a front has not"
                raise VirtError(c.VIR_ERR_AUTH_FAILED, text, domain=c.VIR_FROM_REMOTE)
            self.state = READY
            self._forward(held)
        except VirtError as error:
            close_all(held.fds)
            self._say(make_error(held, error))
            if self.state != READY:
                self._hang_up()

    def _opened(self, message: Message) -> None:
        """CONNECT_OPEN is answered. Before the client hears of it, the owner hears who the client is."""
        if message.status != OK:
            self._held = None
            self.state = READY
            self._to_client(message)
            return
        self.state = NAMING
        self._held = message
        self._own = message.serial ^ 0x80000000
        while self._own in self._calls:
            self._own ^= 1
        self._to_owner(make_call(_NAME, self._own, (identities.describe(self.peer.identity), 0)))

    def _named(self, message: Message) -> None:
        """The owner knows who the client is, or does not want to: then the client has not opened anything."""
        held, self._held = self._held, None
        assert held is not None
        error = None if message.status == OK else decode_error(message.payload)
        if error is None or (error.code == c.VIR_ERR_ACCESS_DENIED and self._harmless()):
            self.state = READY
            self._show()
            self._to_client(held)
            return
        error.message = f"{self.target.uri} does not take in the client of a front: {error.message}"
        log.warning(error.message)
        self._say(make_error(held, error))
        self._hang_up()
        self._closing = True

    def _harmless(self) -> bool:
        """Whether it gives the client no more than it has, if the owner takes it for this front."""
        return self.target.address.transport == "tcp" or self.peer.identity.uid == os.geteuid()

    def _lost(self, why: Exception) -> None:
        """The connection to the owner has ended: all who wait hear so, and so does the client then."""
        words = (self.tunnel.last_words() if self.tunnel else "") or str(why) or "End of file"
        text = f"{self.target.uri} has closed the connection: {words}"
        problem = VirtError(c.VIR_ERR_SYSTEM_ERROR, text, domain=c.VIR_FROM_REMOTE)
        waiting = dict(self._calls)
        if self._held is not None:
            close_all(self._held.fds)
            waiting[self._held.serial] = self._held
            self._held = None
        if waiting or not (self._ended or self._parting):
            log.warning(text)
        self._calls.clear()
        self._hang_up()
        self._closing = True
        self._limit = time.monotonic() + LAST_CALLS
        for message in waiting.values():
            self._say(make_error(message, problem))

    # To the client

    def _to_client(self, message: Message) -> None:
        if message.fds and not self.client.passes_fds:
            close_all(message.fds)
            text = "Sending file descriptors is not supported on this socket"
            message = make_error(message, VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_RPC))
        self._say(message)

    def _say(self, message: Message) -> None:
        if self.gone:
            close_all(message.fds)
            return
        try:
            self.client.send(message.to_bytes(), message.fds)
        except ChannelClosedError:
            self.gone = True

    # The process

    def _signalled(self, _events: int) -> None:
        for number in self.signals.read():
            self.leaving = self.leaving or number in (RETIRE, signal.SIGTERM)
            if number == signal.SIGTERM and not self.stopping:
                self.stopping = True
                self._limit = min(self._limit, time.monotonic() + LAST_CALLS)
                self._show()

    def _orphaned(self, _events: int) -> None:
        """The accept loop has ended without a word. The client stays; nobody new comes in by this process."""
        self.loop.unwatch(self.shared.lifeline)
        self.leaving = True
        for listener in self.shared.listeners:
            listener.sock.close()

    def _show(self) -> None:
        label = f"{self.peer.label} {self._uri}" if self._uri else self.peer.label
        log.about(label)
        title(f"front for {label}, by {self.target.uri}{', stopping' if self.stopping else ''}")


def _remote_call(message: Message) -> Procedure | None:
    """The procedure of the program 'remote' that a message calls; None for everything else."""
    if message.type not in (CALL, CALL_WITH_FDS) or message.program != REMOTE.number:
        return None
    return REMOTE.procedures.get(message.procedure)
