"""A conversation with a server: calls and their answers in any order, events, streams and keepalive.

There are no threads: whoever waits for an answer reads whatever comes meanwhile and puts it where it belongs. The
bound of a call is that of virtd.deadlines; an answer that comes after it is thrown away.
"""

from __future__ import annotations

import _socket
import math
import os
import select
from collections import deque

from virtd import constants as c
from virtd.deadlines import DeadlineExceeded
from virtd.drivers.base import Event
from virtd.drivers.remote.link import Link, now, rpc_error
from virtd.errors import VirtError
from virtd.protocol import codec, keepalive, messages
from virtd.protocol.framing import Framer, FramingError
from virtd.protocol.messages import ERROR, MESSAGE, OK, REPLY, REPLY_WITH_FDS, STREAM, STREAM_HOLE, Message
from virtd.protocol.procedure import EVENT, Procedure
from virtd.protocol.programs import PROGRAMS, REMOTE
from virtd.protocol.streams import ClientStream, StreamEvent
from virtd.protocol.tables.net import MESSAGE_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_KEEPALIVE_FEATURE = c.VIR_DRV_FEATURE_PROGRAM_KEEPALIVE


def _closed() -> VirtError:
    return rpc_error("client socket is closed", c.VIR_ERR_INTERNAL_ERROR)


class OpenStream:
    """A stream that flows: the packets that came and were not yet fetched.

    Attributes:
        state: the course of the stream.
        events: what came, in order.
        size: bytes of data in `events`.
    """

    def __init__(self, state: ClientStream) -> None:
        self.state = state
        self.events: deque[StreamEvent] = deque()
        self.size = 0


class Client:
    """One connection to a server.

    Args:
        link: to the server, or a connected socket; it belongs to the client from then on.
        ping: seconds of silence after which a waiting client asks whether the server is there, and how many times
            it does so in vain. None: it neither asks nor tells the server that it may.

    Attributes:
        events: those that came, oldest first.
        notify: called when another has come.
    """

    def __init__(self, link: Link | _socket.socket, *, ping: tuple[float, int] | None = None) -> None:
        self._link = link if isinstance(link, Link) else Link(link)
        self._framer = Framer(MESSAGE_MAX)
        self._serial = 0
        self._waiting: dict[int, Procedure] = {}
        self._answers: dict[int, Message] = {}
        self._streams: dict[int, OpenStream] = {}
        self._broken: VirtError | None = None
        self._ping = ping
        interval, count = ping or (0.0, 0)
        self._alive = keepalive.KeepAlive(interval, count, now())
        self._outgoing: deque[tuple[bytes, Sequence[int]]] = deque()
        self.events: deque[Event] = deque()
        self.notify: Callable[[], None] | None = None

    @property
    def passes_fds(self) -> bool:
        """Whether descriptors can travel to this server."""
        return self._link.passes_fds

    @property
    def broken(self) -> bool:
        """Whether the connection has come to an end."""
        return self._broken is not None

    def fileno(self) -> int:
        """The descriptor to be polled for reading, upon which `read` is due."""
        return self._link.fileno()

    def open(self, name: str, flags: int) -> None:
        """Authenticate and open a connection at the server (AUTH_LIST, CONNECT_OPEN).

        Args:
            name: the URI to open there.
            flags: VIR_CONNECT_* flags.

        Raises:
            VirtError: VIR_ERR_AUTH_FAILED if the server demands what this client cannot do, or what the server says.
        """
        methods = self.call(REMOTE.named["AUTH_LIST"])
        if methods and 0 not in methods:
            raise VirtError(c.VIR_ERR_AUTH_FAILED, f"unsupported authentication type {methods[0]}")
        if self._ping and self.call(REMOTE.named["CONNECT_SUPPORTS_FEATURE"], (_KEEPALIVE_FEATURE,)):
            self._alive.start(now())
        self.call(REMOTE.named["CONNECT_OPEN"], (name, flags))

    def call(self, procedure: Procedure, args: Sequence[Any] = (), fds: Sequence[int] = ()) -> Any:
        """Call and wait for the result; descriptors that come with it are closed."""
        value, received = self.result(self.start(procedure, args, fds))
        for descriptor in received:
            os.close(descriptor)
        return value

    def start(self, procedure: Procedure, args: Sequence[Any], fds: Sequence[int] = ()) -> int:
        """Send a call without waiting for its answer.

        Args:
            procedure: what to call.
            args: its arguments.
            fds: the descriptors that go with it; they stay the caller's.

        Returns:
            The serial, by which `result` finds the answer.

        Raises:
            VirtError: VIR_ERR_RPC if the arguments do not fit the table; or the connection is broken.
        """
        self._serial = self._serial % 0xFFFFFFFF + 1
        serial = self._serial
        if fds and not self.passes_fds:
            raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, "fd passing is not supported by this connection")
        try:
            message = messages.make_call(procedure, serial, args, fds)
            data = message.to_bytes()
        except codec.EncodeError as error:
            raise messages.rpc_error(f"Unable to encode message payload: {error}") from None
        self._waiting[serial] = procedure
        if procedure.stream:
            sparse = bool(procedure.sparse) and args[codec.argument_names(procedure).index("flags")] & procedure.sparse
            self._streams[serial] = OpenStream(ClientStream(message, sparse=bool(sparse)))
        self._send(data, fds)
        return serial

    def result(self, serial: int) -> tuple[Any, tuple[int, ...]]:
        """Wait for the answer to a call.

        Returns:
            The result, in the form drivers return it, and the descriptors that came with it.

        Raises:
            VirtError: what the server says; or the connection is broken.
            DeadlineExceeded: the bound of the call passed. The server may still do what it was asked to.
        """
        procedure = self._waiting[serial]
        try:
            self.wait_until(lambda: serial in self._answers, procedure)
            answer = self._answers.pop(serial)
            if answer.status == ERROR:
                self.drop_fds(answer)
                raise messages.decode_error(answer.payload)
            value = codec.decode_result(procedure, answer.payload)
        except codec.DecodeError as error:
            self.forget(serial)
            raise messages.rpc_error(f"Unable to decode message payload: {error}") from None
        except VirtError:
            self.forget(serial)
            raise
        finally:
            self._waiting.pop(serial, None)
        return value, answer.fds

    def stream(self, serial: int) -> OpenStream:
        """The stream which a call has opened."""
        return self._streams[serial]

    def forget(self, serial: int) -> None:
        """Drop whatever still comes for a stream."""
        self._streams.pop(serial, None)

    def send(self, message: Message) -> None:
        """Send a packet of a stream."""
        self._send(message.to_bytes())

    def wait_until(self, condition: Callable[[], bool], what: object) -> None:
        """Read until a condition holds.

        Raises:
            DeadlineExceeded: the bound of the call passed; it names what was waited for.
            VirtError: the connection is broken.
        """
        while not condition():
            self._check()
            due = self._alive.due()
            if self._link.wait(select.POLLIN, math.inf if due is None else max(0.0, due - now())):
                self.read()
            elif due is None or now() < due:
                raise DeadlineExceeded(f"no answer from the server to {what}", domain=c.VIR_FROM_RPC)
            else:
                self._tick()

    def tend(self) -> float | None:
        """Do what keepalive has to do while nobody waits for an answer: ping the server, or give it up.

        Returns:
            In how many seconds that is due again; None if never.

        Raises:
            VirtError: the connection is broken.
        """
        due = self._alive.due()
        if due is None or self.broken:
            return None
        if now() >= due:
            self._tick()
        due = self._alive.due()
        return None if due is None or self.broken else max(0.0, due - now())

    def _tick(self) -> None:
        try:
            ping = self._alive.tick(now())
        except keepalive.PeerLostError:
            text = "connection closed due to keepalive timeout"
            self._fail(rpc_error(text, c.VIR_ERR_INTERNAL_ERROR))
            return
        if ping is not None:
            self._send(ping.to_bytes())

    def read(self) -> None:
        """Take in what has come, without waiting. At the end of the connection `broken` becomes true: it was closed,
        or it failed, or what came is not the protocol.
        """
        try:
            received = self._link.receive()
        except VirtError as error:
            self._fail(error)
            return
        self._framer.receive(*received)
        try:
            while (message := self._framer.next_message()) is not None:
                self._alive.heard(now())
                self._take(message)
        except (FramingError, codec.DecodeError) as error:
            self._fail(rpc_error(str(error), c.VIR_ERR_RPC))

    def _take(self, message: Message) -> None:
        pong = keepalive.answer(message)
        if pong is not None:
            self._push(pong.to_bytes())
        elif message.type in (REPLY, REPLY_WITH_FDS):
            if message.serial in self._waiting:
                self._answers[message.serial] = message
            else:
                self._disown(message)
        elif message.type in (STREAM, STREAM_HOLE):
            stream = self._streams.get(message.serial)
            event = stream and stream.state.receive(message)
            if stream and event:
                stream.events.append(event)
                stream.size += len(event.data)
        elif message.type == MESSAGE and message.program in PROGRAMS and not keepalive.is_keepalive(message):
            procedure = PROGRAMS[message.program].procedures.get(message.procedure)
            if procedure is not None and procedure.kind == EVENT:
                values = codec.decode_event(procedure, message.payload)
                self.events.append(Event(procedure.program, procedure.name, values))
                if self.notify:
                    self.notify()

    def _disown(self, answer: Message) -> None:
        """An answer came too late: what it opened is to be closed again."""
        self.drop_fds(answer)
        program = PROGRAMS.get(answer.program)
        procedure = program and program.procedures.get(answer.procedure)
        if procedure and procedure.stream and answer.status == OK:
            self._push(ClientStream(answer).abort().to_bytes())

    def drop_fds(self, message: Message) -> None:
        """Close the descriptors of a message that nobody wants."""
        for descriptor in message.fds:
            os.close(descriptor)

    def _send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        self._check()
        self._push(data, fds)
        self._check()

    def _push(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send; if that fails, `broken` becomes true."""
        self._outgoing.append((data, fds))
        if len(self._outgoing) > 1:
            # Something is being sent, and while there was no room for it a ping came: its answer must wait.
            return
        try:
            while self._outgoing:
                self._link.send(*self._outgoing[0], self.read)
                self._outgoing.popleft()
        except VirtError as error:
            # A message sent in part leaves nothing that could be said after it.
            self._fail(error)

    def _check(self) -> None:
        """The first to ask hears how the connection ended, all others that it is closed."""
        if self._broken is not None:
            error, self._broken = self._broken, _closed()
            raise error

    def _fail(self, error: VirtError) -> None:
        if self._broken is None:
            self._broken = error
            self._shut()

    def _shut(self) -> None:
        self._link.close()
        self._outgoing.clear()
        for descriptor in self._framer.close():
            os.close(descriptor)

    def close(self) -> None:
        """Close the connection, without a farewell."""
        if self._broken is None:
            self._shut()
        self._broken = _closed()
        for answer in self._answers.values():
            self.drop_fds(answer)
        self._answers.clear()
