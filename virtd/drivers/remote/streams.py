"""Streams of a remote server: packet by packet, or joined to a descriptor.

`RemoteStream` is for a caller that wants to see holes, or to wait for other things besides. `pump` is what a driver's
Reply needs: it moves all that flows between a stream and one end of a socket pair, until both are done.
"""

import math
import os
import select
import socket
from functools import partial

from virtd import constants as c
from virtd.drivers import holes
from virtd.drivers.base import Stream
from virtd.drivers.remote.client import Client
from virtd.drivers.remote.link import poll
from virtd.errors import VirtError
from virtd.protocol import streams
from virtd.protocol.streams import StreamEvent
from virtd.state import files

_AHEAD = 4 << 20  # bytes a consumer may lag behind before no more is read from the server
_CHUNK = 262120


class RemoteStream:
    """A stream that a call has opened.

    Args:
        client: the connection.
        serial: of the call.
    """

    def __init__(self, client: Client, serial: int) -> None:
        self._client = client
        self._serial = serial
        self._stream = client.stream(serial)

    @property
    def lag(self) -> int:
        """How many bytes have come and were not fetched."""
        return self._stream.size

    def fileno(self) -> int:
        """The descriptor to be polled for reading; other things than this stream may come there."""
        return self._client.fileno()

    def pending(self) -> StreamEvent | None:
        """The next packet, if it has already come.

        Raises:
            VirtError: the server says that the stream has failed.
        """
        if not self._stream.events:
            return None
        event = self._stream.events.popleft()
        self._stream.size -= len(event.data)
        if event.kind in (streams.FAILED, streams.FINISH, streams.ABORT):
            self._client.forget(self._serial)
        if event.error is not None:
            raise event.error
        return event

    def take_in(self) -> None:
        """Read what has come from the server, without waiting.

        Raises:
            VirtError: the connection is broken.
        """
        self._client.read()
        if self._client.broken and not self._stream.events:
            self._client.wait_until(lambda: False, "a stream")

    def receive(self) -> StreamEvent:
        """The next packet: DATA, HOLE or END (upon which `finish` is due), within the bound of the call.

        Raises:
            VirtError: the stream has failed, or the connection.
        """
        while (event := self.pending()) is None:
            self._client.wait_until(lambda: bool(self._stream.events), "a stream")
        return event

    @property
    def sparse(self) -> bool:
        """Whether the call asked for holes."""
        return self._stream.state.sparse

    def check(self) -> None:
        """See whether the server has given up what is being sent.

        Raises:
            VirtError: it has.
        """
        while poll({self.fileno(): select.POLLIN}, 0):
            self.take_in()
        self.pending()

    def send(self, data: bytes) -> None:
        """Send data.

        Raises:
            VirtError: the connection is broken. (Whether the stream has failed shows in what is received.)
        """
        for packet in self._stream.state.data(data):
            self._client.send(packet)

    def send_hole(self, length: int) -> None:
        """Skip so many bytes. Only if the call asked for holes."""
        self._client.send(self._stream.state.hole(length))

    def finish(self) -> None:
        """Say that all is sent and received, and wait until the server has done its part.

        Raises:
            VirtError: it could not.
        """
        self._client.send(self._stream.state.finish())
        while self.receive().kind != streams.FINISH:
            pass

    def abort(self) -> None:
        """Give the stream up."""
        if self._stream.state.state == streams.CLOSED:
            return
        self._client.send(self._stream.state.abort())
        try:
            while self.receive().kind != streams.ABORT:
                pass
        except VirtError:
            # It had failed already: then it is over too. But a connection that broke is the caller's affair.
            if self._client.broken:
                raise


class _Pump:
    """Moves data between a stream and a socket; see `pump`."""

    def __init__(self, stream: RemoteStream, end: socket.socket) -> None:
        self.stream = stream
        self.end = end
        self.buffer = bytearray()
        self.hole = 0  # zeros to come behind the buffer
        self.ended = False  # the server has no more data
        self.listening = True  # the other side of the socket may have more

    def run(self, direction: str) -> None:
        sends = direction != "read"
        while True:
            self._drain()
            if self.ended and not self.buffer:
                break
            wanted = {self.end.fileno(): 0}
            if self.listening:
                wanted[self.end.fileno()] |= select.POLLIN
            if self.buffer:
                wanted[self.end.fileno()] |= select.POLLOUT
            if not self.ended and len(self.buffer) < _AHEAD:
                wanted[self.stream.fileno()] = select.POLLIN
            ready = poll(wanted, math.inf)
            if ready.get(self.stream.fileno()):
                self.stream.take_in()
            events = ready.get(self.end.fileno(), 0)
            if events & select.POLLOUT:
                self._write()
            if events & select.POLLIN and not self._forward(sends):
                self.listening = False
                if direction == "write":
                    break
            if events & (select.POLLHUP | select.POLLERR) and not self._forward(sends):
                if direction == "write":
                    break
                self.stream.abort()
                return
        self._shut()
        self.stream.finish()

    def _drain(self) -> None:
        """Take over what has come from the server."""
        while (room := _AHEAD - len(self.buffer)) > 0:
            if self.hole:
                zeros = min(room, self.hole)
                self.buffer += bytes(zeros)
                self.hole -= zeros
                continue
            event = self.stream.pending()
            if event is None:
                return
            if event.kind == streams.DATA:
                self.buffer += event.data
            elif event.kind == streams.HOLE:
                self.hole = event.length
            else:
                self.ended = True

    def _write(self) -> None:
        try:
            del self.buffer[: self.end.send(self.buffer)]
        except BlockingIOError:
            pass
        except OSError:
            # Nobody reads any more: seen as POLLHUP.
            self.buffer.clear()

    def _forward(self, sends: bool) -> bool:
        """Send what the other side has written; False at its end."""
        try:
            data = self.end.recv(_CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if data and not sends:
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, "the stream takes no data", domain=c.VIR_FROM_STREAMS)
        self.stream.send(data)
        return bool(data)

    def _shut(self) -> None:
        try:
            self.end.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def pump(stream: RemoteStream, end: socket.socket, direction: str) -> None:
    """Move data between a stream and a socket, until the stream is over. Holes arrive as zeros.

    Args:
        stream: the stream.
        end: one end of a socket pair. Its closing at the other end finishes a stream that is written to, and aborts one
            that is read. It is closed in any case.
        direction: which way data flows: "read", "write" or "both".

    Raises:
        VirtError: the stream has failed.
    """
    with end:
        end.setblocking(False)
        _Pump(stream, end).run(direction)


def pump_parts(stream: RemoteStream, descriptor: int, direction: str) -> None:
    """As `pump`, through a pipe with heads (virtd.drivers.holes): holes arrive as what they are.

    Args:
        stream: the stream of a call that asked for holes.
        descriptor: one end of the pipe; it is closed in any case.
        direction: "read" or "write".

    Raises:
        VirtError: the stream has failed, or the pipe.
    """
    try:
        if direction == "write":
            for part in holes.receive(descriptor):
                stream.send(part) if isinstance(part, bytes) else stream.send_hole(part)
                stream.check()
        else:
            while (event := stream.receive()).kind != streams.END:
                holes.send(descriptor, event.length if event.kind == streams.HOLE else event.data)
    except BrokenPipeError:
        stream.abort()
        return
    except OSError as error:
        raise files.os_error(error, "cannot hand on what a stream carries") from None
    finally:
        os.close(descriptor)
    stream.finish()


def pumped(client: Client, serial: int, direction: str) -> Stream:
    """The stream that a call has opened, as drivers hand streams over; see `pump`."""
    stream = RemoteStream(client, serial)
    ours, theirs = socket.socketpair()

    def parts() -> Stream:
        ours.close()
        os.close(far)
        reader, writer = holes.pipe()
        mine, yours = (writer, reader) if direction == "read" else (reader, writer)
        return Stream(yours, partial(pump_parts, stream, mine, direction), holes=True)

    far = theirs.detach()
    return Stream(far, partial(pump, stream, ours, direction), sparse=parts if stream.sparse else None)
