"""What runs in a process of its own for a call, and what it and its worker say to each other.

The process lets go of everything that is the worker's (the client's socket above all), says in its title what it
does, calls the method, and writes frames into a socket pair:

    answer      the reply or the error, ready for the client; with it come the descriptors that belong to it
    kept        the same, and the process waits for another call
    stream      the same, and the first descriptor is a stream's; `works` says that the child goes on to fill it
    done        the stream's work has ended well
    failed      it has not: the bytes are the stream's last packet

It waits for another call if this one went well and nothing of it is left: the driver says so of what is in memory
(virtd.drivers.base.Driver.REPEATED), and of the rest it looks itself. A thousand definitions then take one fork, and
the memory that a forked process has to copy is copied once. The worker sends the next call as the client has sent it,
and closes the socket when none comes.
"""

import array
import contextlib
import gc
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from virtd import deadlines
from virtd.drivers.base import Stream
from virtd.protocol import codec
from virtd.protocol.framing import Framer
from virtd.protocol.messages import CONTINUE, ERROR, HEADER, STREAM, Message
from virtd.protocol.procedure import QUERY
from virtd.server import log, process
from virtd.server.dispatch import Answer, Dispatcher, Entry, activity, error_bytes
from virtd.state import files

PATIENCE = deadlines.PATIENCE  # seconds for a query in a process of its own
NEXT = 1 << 16  # bytes of a call, at the most, that is given to a process which waits for one

ANSWER, KEPT, OPENED, WORKS, SPARSE, DONE, FAILED = b"a", b"k", b"s", b"w", b"h", b"d", b"f"
_HEAD = struct.Struct("=cIB")  # kind, length of the bytes that follow, number of descriptors
_FDS_ROOM = socket.CMSG_SPACE(40 * array.array("i").itemsize)
_CHUNK = 262144


class Frame(NamedTuple):
    """One frame from a process."""

    kind: bytes
    data: bytes
    fds: list[int]


class Frames:
    """The worker's end of the socket pair.

    Attributes:
        finished: whether the process says no more.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.finished = False
        self._buffer = bytearray()
        self._fds: list[int] = []

    def read(self) -> list[Frame]:
        """The frames that have come."""
        while True:
            # To the end, however little one reading gives: the kernel stops behind bytes that carry descriptors.
            try:
                data, ancillary, _flags, _address = self.sock.recvmsg(_CHUNK, _FDS_ROOM, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                break
            except OSError:
                data, ancillary = b"", []
            for _level, _kind, numbers in ancillary:
                self._fds.extend(array.array("i", numbers))
            self._buffer += data
            self.finished = not data
            if not data:
                break
        return self._complete()

    def _complete(self) -> list[Frame]:
        found = []
        while len(self._buffer) >= _HEAD.size:
            kind, length, number = _HEAD.unpack_from(self._buffer)
            end = _HEAD.size + length
            if len(self._buffer) < end:
                break
            data = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            found.append(Frame(kind, data, self._fds[:number]))
            del self._fds[:number]
        return found

    def send_call(self, message: Message) -> bool:
        """Give a call to a process that waits for one; False if it cannot be given to it."""
        if message.fds or len(message.payload) > NEXT:
            return False
        data = message.to_bytes()
        try:
            return self.sock.send(data) == len(data)
        except OSError:
            return False

    def descriptors(self) -> set[int]:
        """What a forked child has to close."""
        return {fd for fd in (self.sock.fileno(), *self._fds) if fd >= 0}

    def close(self) -> None:
        """Close the socket, and descriptors that nobody has taken."""
        self.sock.close()
        for descriptor in self._fds:
            os.close(descriptor)
        self._fds.clear()


class Performer:
    """The process's side.

    Args:
        dispatcher: what performs a call.
        pipe: the process's end of the socket pair.
        label: says who the client is, for titles.
    """

    def __init__(self, dispatcher: Dispatcher, pipe: socket.socket, label: Callable[[], str]) -> None:
        self._dispatcher = dispatcher
        self._pipe = pipe
        self._label = label
        self._before = 0  # descriptors

    def run(self, entry: Entry, message: Message, args: tuple[object, ...]) -> None:
        """Perform a call, and others as long as some come. The process is to end then.

        Args:
            entry, message, args: the call.
        """
        # A process that ends with its call leaves no garbage; to look for it would cost a start of a guest 2 ms.
        gc.disable()
        if entry.repeated:
            self._before = _descriptors()
        framer = Framer()
        framer.unlimit()
        while self._perform(entry, message, args):
            gc.enable()
            self._say("waiting for another call")
            while (following := framer.next_message()) is None:
                data = self._pipe.recv(_CHUNK)
                if not data:
                    return
                framer.receive(data)
            message = following
            entry, args = self._dispatcher.prepare(message)
            self._dispatcher.refresh()

    def _perform(self, entry: Entry, message: Message, args: tuple[object, ...]) -> bool:
        """Perform a call, and hand over what comes of it; whether the process waits for another one then."""
        self._say(activity(entry, args))
        if entry.kind == QUERY:
            with deadlines.limit(PATIENCE):
                answer = self._dispatcher.perform(entry, message, args)
        else:
            answer = self._dispatcher.perform(entry, message, args)
        if answer.stream is not None:
            self._stream(entry, message, answer, answer.stream, sparse=asks_for_holes(entry, args))
            return False
        kept = entry.repeated and not answer.fds and not _failed(answer.data) and self._as_before()
        send(self._pipe, KEPT if kept else ANSWER, answer.data, answer.fds)
        return kept

    def _say(self, what: str) -> None:
        title = f"{self._label()}: {what}"
        process.title(f"worker for {title}")
        log.about(title)

    def _as_before(self) -> bool:
        """Whether neither a child nor a descriptor is left."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
            return False
        return _descriptors() == self._before

    def _stream(self, entry: Entry, message: Message, answer: Answer, stream: Stream, *, sparse: bool) -> None:
        if sparse and stream.sparse is not None:
            stream = stream.sparse()
        kind = OPENED if stream.work is None else SPARSE if stream.holes else WORKS
        send(self._pipe, kind, answer.data, (stream.descriptor, *answer.fds))
        os.close(stream.descriptor)
        if stream.work is None:
            return
        gc.enable()
        try:
            stream.work()
        except Exception as problem:
            packet = message._replace(type=STREAM, status=CONTINUE, payload=b"", fds=())
            send(self._pipe, FAILED, error_bytes(packet, problem, entry))
        else:
            send(self._pipe, DONE, b"")


def asks_for_holes(entry: Entry, args: tuple[Any, ...]) -> bool:
    """Whether a call asks for a stream with holes."""
    if not entry.procedure.sparse:
        return False
    flags = args[codec.argument_names(entry.procedure).index("flags")]
    return bool(flags & entry.procedure.sparse)


def _failed(reply: bytes) -> bool:
    """Whether a reply is an error: a call may have been left halfway then."""
    return bool(HEADER.unpack_from(reply)[-1] == ERROR)


def _descriptors() -> int:
    """How many are open, but for those that stay open on purpose."""
    return len(os.listdir("/proc/self/fd")) - len(files.LASTING)


def send(pipe: socket.socket, kind: bytes, data: bytes, fds: tuple[int, ...] = ()) -> None:
    """Write a frame; the worker takes as long as the client does. It may be gone, and its client with it."""
    with contextlib.suppress(BrokenPipeError):
        head = _HEAD.pack(kind, len(data), len(fds))
        if fds:
            socket.send_fds(pipe, [head], list(fds))
            pipe.sendall(data)
        else:
            pipe.sendall(head + data)
