"""Calls that wait: each in a process of its own, which hands answer, descriptors and stream back to the worker.

The child begins by letting go of everything that is the worker's (the client's socket above all), says in its
title what it does, calls the method, and writes frames into a socket pair:

    answer      the reply or the error, ready for the client; with it come the descriptors that belong to it
    stream      the same, and the first descriptor is a stream's; `works` says that the child goes on to fill it
    done        the stream's work has ended well
    failed      it has not: the bytes are the stream's last packet

The worker learns from a pidfd that the child has ended. One that ended without an answer is answered for. A query
that does not come back in time is killed and answered for: it has changed nothing. A change is never killed while
the client waits for it: how long its parts may take, its driver knows.
"""

import array
import contextlib
import math
import os
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.base import Stream
from virtd.errors import VirtError
from virtd.protocol import codec
from virtd.protocol.messages import CONTINUE, STREAM, Message
from virtd.protocol.procedure import CHANGE, QUERY
from virtd.server import log, process
from virtd.server.dispatch import Answer, Dispatcher, Entry, close_all, error_bytes
from virtd.server.loop import READ, Loop

MOMENT = 0.05  # seconds for which a worker tries a query itself
PATIENCE = deadlines.PATIENCE  # seconds for a query in a process of its own
GRACE = 5.0  # seconds more before such a process is killed
PARKED = 64  # calls that may wait for their turn before the client is read from no more,
PARKED_BYTES = 4 << 20  # or bytes of such calls

ANSWER, OPENED, WORKS, SPARSE, DONE, FAILED = b"a", b"s", b"w", b"h", b"d", b"f"
_HEAD = struct.Struct("=cIB")  # kind, length of the bytes that follow, number of descriptors
_FDS_ROOM = socket.CMSG_SPACE(40 * array.array("i").itemsize)


class Frame(NamedTuple):
    """One frame from a child."""

    kind: bytes
    data: bytes
    fds: list[int]


class Call:
    """One call in a process of its own.

    Attributes:
        entry, message, args: what was called.
        pid: the process; 0 before it is forked.
        answered: whether the client has its answer.
        done: how the stream's work ended: None not yet, b"" well, else the packet that says why not.
        on_end: called when the process has ended, or the work of its stream has.
    """

    def __init__(self, entry: Entry, message: Message, args: tuple[Any, ...]) -> None:
        self.entry = entry
        self.message = message
        self.args = args
        self.pid = 0
        self.pidfd = -1
        self.sock: socket.socket | None = None
        self.answered = False
        self.works = False
        self.done: bytes | None = None
        self.on_end: Callable[[], None] | None = None
        self.deadline = math.inf
        self.sparse = _asks_for_holes(entry, args)
        self.finished = False  # the child says no more
        self._buffer = bytearray()
        self._fds: list[int] = []

    @property
    def title(self) -> str:
        """What it does, for titles."""
        return activity(self.entry, self.args)

    @property
    def about(self) -> object:
        """What it is about: calls that are about the same thing wait for the same thing."""
        return self.args[0] if self.args else None

    def forget(self) -> None:
        """Keep no more of the call than its name and what it is about: the child has the rest."""
        self.message = self.message._replace(payload=b"", fds=())
        self.args = self.args[:1]

    def frames(self) -> list[Frame]:
        """The frames that have come from the child."""
        assert self.sock is not None
        while True:
            try:
                data, ancillary, _flags, _address = self.sock.recvmsg(262144, _FDS_ROOM, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                break
            except OSError:
                data, ancillary = b"", []
            for _level, _kind, numbers in ancillary:
                self._fds.extend(array.array("i", numbers))
            self._buffer += data
            self.finished = not data
            if not data or len(data) < 262144:
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

    def descriptors(self) -> set[int]:
        """What a forked child has to close."""
        return {fd for fd in (self.pidfd, self.sock.fileno() if self.sock else -1, *self._fds) if fd >= 0}

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the process a signal."""
        if self.pid:
            process.kill(self.pid, number)

    def release(self) -> None:
        """Let go of the process, which has ended."""
        if self.sock is not None:
            self.sock.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        close_all(self._fds)
        self.sock, self.pidfd, self.pid = None, -1, 0
        self._fds.clear()


def _asks_for_holes(entry: Entry, args: tuple[Any, ...]) -> bool:
    if not entry.procedure.sparse:
        return False
    flags = args[codec.argument_names(entry.procedure).index("flags")]
    return bool(flags & entry.procedure.sparse)


def activity(entry: Entry, args: tuple[Any, ...]) -> str:
    """A call as titles show it: the procedure's name, and the object's if it has one."""
    name = getattr(args[0], "name", None) if args else None
    return f"{entry.activity} {name}" if isinstance(name, str) else entry.activity


class Calls:
    """The calls of one client that wait.

    Args:
        dispatcher: what performs a call.
        loop: where to wait for the children.
        most: how many of them there may be at once.
        label: says who the client is, for titles.
        let_go: closes, in a child, what is the worker's.
        answer: takes a call and its answer, in which the stream is if one was opened.
        changed: called when the number of calls has changed.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        loop: Loop,
        most: int,
        *,
        label: Callable[[], str],
        let_go: Callable[[], None],
        answer: Callable[[Call, Answer], None],
        changed: Callable[[], None],
    ) -> None:
        self.dispatcher = dispatcher
        self.loop = loop
        self.most = max(1, most)
        self.running: dict[int, Call] = {}
        self.parked: deque[Call] = deque()
        self._parked_bytes = 0
        self._label = label
        self._let_go = let_go
        self._answer = answer
        self._changed = changed

    @property
    def waiting(self) -> int:
        """How many calls have no answer yet."""
        return sum(not call.answered for call in self.running.values()) + len(self.parked)

    @property
    def crowded(self) -> bool:
        """Whether so many calls wait for their turn that the client should be read from no more."""
        return len(self.parked) >= PARKED or self._parked_bytes >= PARKED_BYTES

    def busy_with(self, about: object) -> bool:
        """Whether a query about the same thing waits already: then there is no use in trying another one in place."""
        return about is not None and any(
            call.entry.kind == QUERY and call.about == about for call in (*self.running.values(), *self.parked)
        )

    def start(self, entry: Entry, message: Message, args: tuple[Any, ...]) -> None:
        """Perform a call in a process of its own, now or when there is room."""
        self.parked.append(Call(entry, message, args))
        self._parked_bytes += len(message.payload)
        self._start_parked()
        self._changed()

    def _start_parked(self) -> None:
        while self.parked and len(self.running) < self.most:
            call = self.parked.popleft()
            self._parked_bytes -= len(call.message.payload)
            try:
                self._fork(call)
            except OSError as error:
                problem = VirtError(c.VIR_ERR_SYSTEM_ERROR, f"cannot fork child process: {error.strerror}")
                close_all(call.message.fds)
                self._answer(call, Answer(error_bytes(call.message, problem, call.entry)))

    def _fork(self, call: Call) -> None:
        if call.entry.kind == CHANGE:
            self.dispatcher.refresh()
        ours, theirs = socket.socketpair()
        try:
            call.pid = process.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if not call.pid:
            ours.close()
            self._child(call, theirs)
        theirs.close()
        close_all(call.message.fds)
        call.forget()
        ours.setblocking(False)
        call.sock = ours
        call.pidfd = os.pidfd_open(call.pid)
        if call.entry.kind == QUERY:
            call.deadline = time.monotonic() + PATIENCE + GRACE
        self.running[call.pid] = call
        # The results wait in the socket while the client takes nothing, and the child waits with them.
        self.loop.watch(ours.fileno(), READ, lambda _events: self._read(call), gated=True)
        self.loop.watch(call.pidfd, READ, lambda _events: self._ended(call))

    # In the child

    def _child(self, call: Call, pipe: socket.socket) -> NoReturn:
        try:
            process.default_signals()
            self._let_go()
            title = f"{self._label()}: {call.title}"
            process.title(f"worker for {title}")
            log.about(title)
            if call.entry.kind == QUERY:
                with deadlines.limit(PATIENCE):
                    answer = self.dispatcher.perform(call.entry, call.message, call.args)
            else:
                answer = self.dispatcher.perform(call.entry, call.message, call.args)
            self._hand_over(call, pipe, answer)
        except BaseException as problem:
            log.bug(f"{call.title} failed by a bug", problem)
        finally:
            os._exit(0)

    def _hand_over(self, call: Call, pipe: socket.socket, answer: Answer) -> None:
        stream = answer.stream
        if stream is None:
            _send(pipe, ANSWER, answer.data, answer.fds)
            return
        if call.sparse and stream.sparse is not None:
            stream = stream.sparse()
        kind = OPENED if stream.work is None else SPARSE if stream.holes else WORKS
        _send(pipe, kind, answer.data, (stream.descriptor, *answer.fds))
        os.close(stream.descriptor)
        if stream.work is None:
            return
        try:
            stream.work()
        except Exception as problem:
            packet = call.message._replace(type=STREAM, status=CONTINUE, payload=b"", fds=())
            _send(pipe, FAILED, error_bytes(packet, problem, call.entry))
        else:
            _send(pipe, DONE, b"")

    # In the worker

    def _read(self, call: Call) -> None:
        frames = call.frames()
        if call.finished and call.sock is not None:
            self.loop.unwatch(call.sock.fileno())
        for kind, data, fds in frames:
            if kind == DONE:
                self._work_ended(call, b"")
            elif kind == FAILED:
                self._work_ended(call, data)
            else:
                call.answered = True
                call.works = kind in (WORKS, SPARSE)
                call.deadline = math.inf
                stream = Stream(fds.pop(0), holes=kind == SPARSE) if kind != ANSWER else None
                self._changed()
                self._answer(call, Answer(data, tuple(fds), stream))

    def _work_ended(self, call: Call, outcome: bytes) -> None:
        call.done = outcome
        if call.on_end is not None:
            call.on_end()

    def _ended(self, call: Call) -> None:
        pid, status = os.waitpid(call.pid, os.WNOHANG)
        if not pid:
            return
        # What it said last may still wait behind the gate.
        self._read(call)
        self.loop.unwatch(call.pidfd)
        assert call.sock is not None
        self.loop.unwatch(call.sock.fileno())
        del self.running[pid]
        call.release()
        how = f"was killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "ended without an answer"
        problem = VirtError(c.VIR_ERR_OPERATION_FAILED, f"the process for {call.title} (pid {pid}) {how}")
        if not call.answered:
            log.error(problem.detail)
            call.answered = True
            self._answer(call, Answer(error_bytes(call.message, problem, call.entry)))
        elif call.works and call.done is None:
            packet = call.message._replace(type=STREAM, status=CONTINUE, payload=b"", fds=())
            self._work_ended(call, error_bytes(packet, problem, call.entry))
        self._start_parked()
        self._changed()

    def next_deadline(self) -> float:
        """When `expire` is to be called."""
        return min(call.deadline for call in self.running.values()) if self.running else math.inf

    def expire(self, now: float) -> None:
        """Kill the queries whose time is up, and answer for them."""
        for call in list(self.running.values()):
            if now >= call.deadline and not call.answered:
                call.deadline = math.inf
                call.answered = True
                call.kill()
                problem = deadlines.DeadlineExceeded(f"{call.title} did not end in {PATIENCE + GRACE:.0f} s")
                self._answer(call, Answer(error_bytes(call.message, problem, call.entry)))

    def client_gone(self) -> None:
        """The client does not wait any more: forget what has not begun, kill queries, let changes end."""
        for call in self.parked:
            close_all(call.message.fds)
        self.parked.clear()
        self._parked_bytes = 0
        for call in self.running.values():
            if call.entry.kind == QUERY:
                call.answered = True
                call.kill()
            elif call.works:
                call.kill(signal.SIGTERM)

    def kill_all(self) -> None:
        """Time is up for all."""
        for call in self.running.values():
            call.kill()

    def abandon(self) -> None:
        """Leave the processes that still run to themselves."""
        for call in self.running.values():
            call.release()
        self.running.clear()

    def descriptors(self) -> set[int]:
        """What a forked child has to close."""
        return {descriptor for call in self.running.values() for descriptor in call.descriptors()} | {
            descriptor for call in self.parked for descriptor in call.message.fds
        }


def _send(pipe: socket.socket, kind: bytes, data: bytes, fds: tuple[int, ...] = ()) -> None:
    """Write a frame; the worker takes as long as the client does. It may be gone, and its client with it."""
    with contextlib.suppress(BrokenPipeError):
        head = _HEAD.pack(kind, len(data), len(fds))
        if fds:
            socket.send_fds(pipe, [head], list(fds))
            pipe.sendall(data)
        else:
            pipe.sendall(head + data)
