"""Data beside calls: between the descriptor that a driver handed over and the client's stream packets.

Towards the client a descriptor is read only while the client takes what it is sent. From the client data is kept
until the descriptor takes it; `crowded` says when the client should be read from no more because of that. Where a
process does the work at the other end of the descriptor (Stream.work), its outcome is the stream's: data that
ended is not called complete before that process says so, and an error it raises is what the client gets.

What a packet means, and which one is due, virtd.protocol.streams knows; where bytes go, this module.
"""

import errno
import os
import signal
from collections import deque
from collections.abc import Callable

from virtd import constants as c
from virtd.drivers import holes
from virtd.errors import VirtError
from virtd.protocol.messages import Message
from virtd.protocol.streams import ABORT, DATA, FINISH, HOLE, ServerStream
from virtd.protocol.tables.net import STREAM_DATA_MAX
from virtd.server.calls import Call
from virtd.server.loop import READ, WRITE, Loop

CROWDED = 4 << 20  # bytes from the client that wait for descriptors
ZEROS = memoryview(bytes(65536))
_GONE = (errno.EIO, errno.ECONNRESET, errno.EPIPE)  # the other end of a descriptor has ended


class _Pump:
    """One stream.

    Attributes:
        stream: where it stands.
        call: the process that works at the other end; None if nobody does.
        descriptor: to read from, and to write to in a stream of one direction; -1 when closed.
        writer: to write to.
        packets: whether the descriptor carries holes; otherwise they are zeros there.
        pending: data for the descriptor, and lengths of holes.
    """

    def __init__(self, stream: ServerStream, descriptor: int, writer: int, call: Call | None, direction: str) -> None:
        self.stream = stream
        self.call = call
        self.descriptor = descriptor
        self.writer = writer
        self.direction = direction
        self.packets = holes.carried_by(descriptor)
        self.pending: deque[memoryview | int] = deque()
        self.size = 0
        self.ended = False  # the descriptor has no more for the client
        self.end_sent = False
        self.finishing = False  # the client has sent all


class Streams:
    """The streams of one client.

    Args:
        loop: where to wait for descriptors.
        send: sends a message's bytes to the client.
        changed: called when it may have changed whether there is room for data from the client.
    """

    def __init__(self, loop: Loop, send: Callable[[bytes], None], changed: Callable[[], None]) -> None:
        self._loop = loop
        self._send = send
        self._changed = changed
        self._pumps: dict[tuple[int, int, int], _Pump] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._pumps)

    @property
    def working(self) -> bool:
        """Whether a process works for one of the streams."""
        return any(pump.call is not None and pump.call.done is None for pump in self._pumps.values())

    @property
    def crowded(self) -> bool:
        """Whether so much data waits for descriptors that the client should be read from no more."""
        return self._size >= CROWDED

    def open(self, message: Message, direction: str, descriptor: int, *, sparse: bool, call: Call | None) -> None:
        """Begin a stream, whose call has been answered.

        Args:
            message: the call.
            direction: "read" (to the client), "write" or "both".
            descriptor: belongs to the stream from now on.
            sparse: whether the client asked for holes.
            call: the process that works at the other end, if one does.
        """
        os.set_blocking(descriptor, False)
        # Reading waits for the client and writing does not, so they need a descriptor each.
        writer = os.dup(descriptor) if direction == "both" else descriptor
        stream = ServerStream(message._replace(payload=b"", fds=()), sparse=sparse)
        pump = _Pump(stream, descriptor, writer, call, direction)
        self._pumps[_key(message)] = pump
        if call is not None:
            call.on_end = lambda: self._work_ended(pump)
        if direction != "write":
            self._loop.watch(descriptor, READ, lambda _events: self._read(pump), gated=True)
        if call is not None and call.done is not None:
            self._work_ended(pump)

    def packet(self, message: Message) -> None:
        """Take a packet from the client. One of a stream that is over is dropped.

        Raises:
            FramingError: the client does not keep to the protocol.
        """
        pump = self._pumps.get(_key(message))
        if pump is None:
            return
        event = pump.stream.receive(message)
        if event is None:
            return
        if event.kind == ABORT:
            self._abort(pump)
        elif event.kind == FINISH:
            pump.finishing = True
            self._write(pump)
        elif pump.writer >= 0 and pump.direction != "read":
            if event.kind == DATA:
                pump.pending.append(memoryview(event.data))
                pump.size += len(event.data)
                self._size += len(event.data)
            elif event.kind == HOLE:
                pump.pending.append(event.length)
            self._write(pump)

    def close_all(self) -> None:
        """The client is gone: end all streams, and the processes which work for them."""
        for pump in list(self._pumps.values()):
            self._drop(pump)

    def descriptors(self) -> set[int]:
        """What a forked child has to close."""
        pumps = self._pumps.values()
        return {fd for pump in pumps for fd in (pump.descriptor, pump.writer) if fd >= 0}

    # To the client

    def _read(self, pump: _Pump) -> None:
        try:
            data = os.read(pump.descriptor, STREAM_DATA_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _GONE:
                self._fail(pump, error)
                return
            data = b""
        if data:
            part = holes.parse(data) if pump.packets else data
            if isinstance(part, int):
                self._send(pump.stream.hole(part).to_bytes())
                return
            for packet in pump.stream.data(part):
                self._send(packet.to_bytes())
            return
        self._loop.unwatch(pump.descriptor)
        pump.ended = True
        if pump.call is None or pump.call.done is not None:
            self._end(pump)

    def _end(self, pump: _Pump) -> None:
        """All data has been read: say so, or why it is not complete."""
        if pump.call is not None and pump.call.done:
            self._send(pump.call.done)
            self._drop(pump)
        elif not pump.end_sent:
            pump.end_sent = True
            self._send(pump.stream.end().to_bytes())

    # From the client

    def _write(self, pump: _Pump) -> None:
        """Write what is pending, as far as it goes; then finish, if that is what comes next."""
        while pump.pending and pump.writer >= 0:
            first = pump.pending[0]
            try:
                if pump.packets:
                    written = holes.write(pump.writer, first)
                else:
                    written = os.write(pump.writer, ZEROS[:first] if isinstance(first, int) else first)
            except BlockingIOError:
                self._loop.watch(pump.writer, WRITE, lambda _events: self._write(pump))
                return
            except OSError as error:
                self._discard(pump)
                if pump.call is None:
                    self._fail(pump, error)
                    return
                # The process at the other end has stopped reading; it says itself how that ended.
                break
            self._written(pump, first, written)
        if pump.writer != pump.descriptor or pump.direction == "write":
            self._loop.unwatch(pump.writer)
        if pump.finishing and not pump.pending:
            self._finish(pump)

    def _written(self, pump: _Pump, first: memoryview | int, written: int) -> None:
        rest = first - written if isinstance(first, int) else first[written:]
        if not isinstance(first, int):
            pump.size -= written
            self._size -= written
        if rest:
            pump.pending[0] = rest
        else:
            pump.pending.popleft()
        self._changed()

    def _discard(self, pump: _Pump) -> None:
        self._size -= pump.size
        pump.size = 0
        pump.pending.clear()
        self._changed()

    def _finish(self, pump: _Pump) -> None:
        """The client has sent all, and it is written: the end of a stream, once the work is done."""
        if pump.call is not None and pump.direction == "write":
            self._close(pump)
            if pump.call.done is None:
                return
            if pump.call.done:
                self._send(pump.call.done)
                self._drop(pump)
                return
        self._send(pump.stream.done().to_bytes())
        self._drop(pump)

    def _abort(self, pump: _Pump) -> None:
        self._send(pump.stream.done().to_bytes())
        self._drop(pump)

    # The end

    def _work_ended(self, pump: _Pump) -> None:
        """The process at the other end has said how its work went."""
        if self._pumps.get(_key_of(pump)) is not pump or pump.call is None:
            return
        if pump.direction == "write":
            if pump.call.done:
                self._send(pump.call.done)
                self._drop(pump)
            elif pump.finishing and not pump.pending:
                self._finish(pump)
        elif pump.ended:
            self._end(pump)

    def _fail(self, pump: _Pump, error: OSError) -> None:
        problem = VirtError(c.VIR_ERR_SYSTEM_ERROR, f"the stream failed: {error.strerror}", domain=c.VIR_FROM_STREAMS)
        self._send(pump.stream.fail(problem).to_bytes())
        self._drop(pump)

    def _drop(self, pump: _Pump) -> None:
        """The stream is over."""
        self._pumps.pop(_key_of(pump), None)
        # First this: the process must not take the end of the data for its completion.
        if pump.call is not None and pump.call.done is None:
            pump.call.kill(signal.SIGTERM)
        self._discard(pump)
        self._close(pump)

    def _close(self, pump: _Pump) -> None:
        for descriptor in {pump.descriptor, pump.writer}:
            if descriptor >= 0:
                self._loop.unwatch(descriptor)
                os.close(descriptor)
        pump.descriptor = pump.writer = -1


def _key(message: Message) -> tuple[int, int, int]:
    return message.program, message.procedure, message.serial


def _key_of(pump: _Pump) -> tuple[int, int, int]:
    return _key(pump.stream.end())
