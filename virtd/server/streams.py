"""Data beside calls: between the descriptor that a driver handed over and the client's stream packets.

Towards the client a descriptor is read only while the client takes what it is sent. From the client data is kept
until the descriptor takes it; `crowded` says when the client should be read from no more because of that. Where a
process does the work at the other end of the descriptor (Stream.work), its outcome is the stream's: data that
ended is not called complete before that process says so, and an error it raises is what the client gets.

A large packet is not waited for: its data goes on as it comes. Where the descriptor is a pipe, and nothing is waiting
for it, the kernel moves the data from the client's socket into it, and this process never sees them.

What a packet means, and which one is due, virtd.protocol.streams knows; where bytes go, this module.
"""

import errno
import fcntl
import os
import select
import signal
import stat
import sys
import termios
from collections import deque
from collections.abc import Callable

from virtd import constants as c
from virtd.drivers import holes
from virtd.drivers.base import Stream
from virtd.errors import VirtError
from virtd.protocol.messages import Message
from virtd.protocol.streams import ABORT, DATA, FINISH, OPEN, ServerStream
from virtd.protocol.tables.net import STREAM_DATA_MAX
from virtd.server.calls import Call
from virtd.server.channel import SPLICE_NONBLOCK
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
        heads: whether what flows through the descriptor has heads (virtd.drivers.holes); otherwise holes are zeros.
        pipe: whether the writer is a pipe.
        source: whether what is read from is a pipe.
        pending: data for the descriptor, and lengths of zeros.
        left: bytes of a part that is being read behind its head.
        full: the pipe takes no more for now, and nothing is read from the client meanwhile.
    """

    def __init__(
        self, stream: ServerStream, descriptor: int, writer: int, call: Call | None, direction: str, *, heads: bool
    ) -> None:
        self.stream = stream
        self.call = call
        self.descriptor = descriptor
        self.writer = writer
        self.direction = direction
        self.heads = heads
        self.pipe = direction == "write" and stat.S_ISFIFO(os.fstat(writer).st_mode)
        self.source = direction == "read" and stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        self.pending: deque[memoryview | int] = deque()
        self.size = 0
        self.left = 0
        self.full = False
        self.ended = False  # the descriptor has no more for the client
        self.end_sent = False
        self.finishing = False  # the client has sent all

    @property
    def takes(self) -> bool:
        """Whether data from the client is for the descriptor."""
        return self.stream.state == OPEN and self.direction != "read" and self.writer >= 0


class Streams:
    """The streams of one client.

    Args:
        loop: where to wait for descriptors.
        send: sends a message's bytes to the client.
        pour: sends a message of which the head is given, and the data are in a pipe: so many bytes.
        changed: called when it may have changed whether there is room for data from the client.
    """

    def __init__(
        self,
        loop: Loop,
        send: Callable[[bytes], None],
        pour: Callable[[bytes, int, int], None],
        changed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._send = send
        self._pour = pour
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
        if not self._pumps:
            return False
        return self._size >= CROWDED or any(pump.full for pump in self._pumps.values())

    def open(self, message: Message, direction: str, opened: Stream, *, sparse: bool, call: Call | None) -> None:
        """Begin a stream, whose call has been answered.

        Args:
            message: the call.
            direction: "read" (to the client), "write" or "both".
            opened: its descriptor belongs to this module from now on.
            sparse: whether the client asked for holes.
            call: the process that works at the other end, if one does.
        """
        descriptor = opened.descriptor
        os.set_blocking(descriptor, False)
        # Reading waits for the client and writing does not, so they need a descriptor each.
        writer = os.dup(descriptor) if direction == "both" else descriptor
        stream = ServerStream(message._replace(payload=b"", fds=()), sparse=sparse)
        pump = _Pump(stream, descriptor, writer, call, direction, heads=opened.holes)
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
        elif pump.takes:
            if event.kind == DATA:
                self._append(pump, event.data, head=len(event.data))
            elif pump.heads:
                self._append(pump, holes.hole(event.length))
            else:
                pump.pending.append(event.length)
            self._write(pump)

    def begin(self, message: Message, missing: int) -> None:
        """Take the beginning of a packet with data.

        Args:
            message: the packet, with as much data as has come.
            missing: how many bytes of it are still to come: by splice() or more().
        """
        pump = self._pumps.get(_key(message))
        if pump is not None and pump.takes:
            self._append(pump, message.payload, head=len(message.payload) + missing)
            self._write(pump)

    def more(self, message: Message) -> None:
        """Take more data of a packet which begin() has taken the beginning of."""
        pump = self._pumps.get(_key(message))
        if pump is not None and pump.takes:
            self._append(pump, message.payload)
            self._write(pump)

    def splice(self, message: Message, reader: int, length: int) -> int | None:
        """Let the kernel move data of a packet from the client to where it goes.

        Args:
            message: the packet, of which begin() has taken the beginning.
            reader: the client's descriptor.
            length: how much data of the packet is still to come.

        Returns:
            How many bytes were moved; None if they have to be read.
        """
        pump = self._pumps.get(_key(message))
        if pump is None or not pump.pipe or not pump.takes or pump.pending:
            return None
        try:
            return os.splice(reader, pump.writer, length, flags=SPLICE_NONBLOCK) or None
        except BlockingIOError:
            if select.select([], [pump.writer], [], 0)[1]:
                return 0  # it is the client who has no more
            pump.full = True
            self._loop.watch(pump.writer, WRITE, lambda _events: self._has_room(pump))
            self._changed()
            return 0
        except OSError:
            return None  # reading or writing will tell what is wrong

    def _has_room(self, pump: _Pump) -> None:
        self._loop.unwatch(pump.writer)
        pump.full = False
        self._changed()

    def _append(self, pump: _Pump, data: bytes, head: int = 0) -> None:
        """Keep data for the descriptor, behind a head for so many bytes."""
        for part in (holes.data_head(head) if head and pump.heads else b"", data):
            if part:
                pump.pending.append(memoryview(part))
                pump.size += len(part)
                self._size += len(part)

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
            if pump.heads and not pump.left:
                data = os.read(pump.descriptor, holes.HEAD_SIZE)
                if data:
                    is_hole, length = holes.parse(data)
                    if is_hole:
                        self._send(pump.stream.hole(length).to_bytes())
                        return
                    pump.left = length
            if pump.left or not pump.heads:
                most = min(pump.left, STREAM_DATA_MAX) if pump.heads else STREAM_DATA_MAX
                if pump.source and (length := min(most, _available(pump.descriptor))):
                    pump.left -= length if pump.heads else 0
                    self._pour(pump.stream.data_head(length), pump.descriptor, length)
                    return
                data = os.read(pump.descriptor, most)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _GONE:
                self._fail(pump, error)
                return
            data = b""
        if data:
            pump.left -= len(data) if pump.heads else 0
            for packet in pump.stream.data(data):
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
        if not pump.full and (pump.writer != pump.descriptor or pump.direction == "write"):
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
        pump.full = False
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


def _available(pipe: int) -> int:
    """How many bytes are in a pipe (FIONREAD, ioctl_tty(2))."""
    found = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, found)
    return int.from_bytes(found, sys.byteorder)


def _key(message: Message) -> tuple[int, int, int]:
    return message.program, message.procedure, message.serial


def _key_of(pump: _Pump) -> tuple[int, int, int]:
    return _key(pump.stream.end())
