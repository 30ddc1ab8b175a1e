"""Calls that wait: each in a process of its own, which hands answer, descriptors and stream back to the worker.

What runs in such a process, and what it says, is told in virtd.server.performer. Here is what the worker does: it forks
the process, or gives the call to one that has done another and waits, and learns from a pidfd that it has ended. One
that ended without an answer is answered for. A query that does not come back in time is killed and answered for: it
has changed nothing. A change is never killed while the client waits for it: how long its parts may take, its driver
knows.
"""

import math
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.base import Stream
from virtd.errors import VirtError
from virtd.protocol.messages import CONTINUE, STREAM, Message
from virtd.protocol.procedure import CHANGE, QUERY
from virtd.server import log, process
from virtd.server.dispatch import Answer, Dispatcher, Entry, activity, close_all, error_bytes
from virtd.server.loop import READ, Loop
from virtd.server.performer import (
    ANSWER,
    DONE,
    FAILED,
    KEPT,
    PATIENCE,
    SPARSE,
    WORKS,
    Frames,
    Performer,
    asks_for_holes,
)

MOMENT = 0.05  # seconds for which a worker tries a query itself
GRACE = 5.0  # seconds more before such a process is killed
PARKED = 64  # calls that may wait for their turn before the client is read from no more,
PARKED_BYTES = 4 << 20  # or bytes of such calls

KEEP = 1.0  # seconds for which a process waits for another call,
AGE = 10.0  # and after which it is followed by a new one


class Call:
    """One call in a process of its own.

    Attributes:
        entry, message, args: what was called.
        process: what performs it; None before it begins, and after it has ended.
        answered: whether the client has its answer.
        done: how the stream's work ended: None not yet, b"" well, else the packet that says why not.
        on_end: called when the process has ended, or the work of its stream has.
    """

    def __init__(self, entry: Entry, message: Message, args: tuple[Any, ...]) -> None:
        self.entry = entry
        self.message = message
        self.args = args
        self.process: Process | None = None
        self.answered = False
        self.works = False
        self.done: bytes | None = None
        self.on_end: Callable[[], None] | None = None
        self.deadline = math.inf
        self.sparse = asks_for_holes(entry, args)

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

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the process a signal."""
        if self.process is not None:
            process.kill(self.process.pid, number)


class Process:
    """A process that performs calls, as its worker sees it.

    Args:
        pid: of a child that has just been forked.
        sock: leads to it.

    Attributes:
        frames: what it says.
        until: how long it may be kept, on the monotonic clock.
        ended: whether it is no more.
    """

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self.frames = Frames(sock)
        self.pidfd = os.pidfd_open(pid)
        self.until = time.monotonic() + AGE
        self.ended = False

    def descriptors(self) -> set[int]:
        """What a forked child has to close."""
        return {self.pidfd, *self.frames.descriptors()}

    def close(self) -> None:
        """Let go of it: it has ended, or is left to itself."""
        self.frames.close()
        os.close(self.pidfd)


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
        self._kept: Process | None = None  # waits for another call
        self._kept_until = math.inf
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
                performer = self._next(call) or self._fork(call)
            except OSError as error:
                problem = VirtError(c.VIR_ERR_SYSTEM_ERROR, f"cannot fork child process: {error.strerror}")
                close_all(call.message.fds)
                self._answer(call, Answer(error_bytes(call.message, problem, call.entry)))
            else:
                self._begun(call, performer)

    def _next(self, call: Call) -> Process | None:
        """The process that waits for another call, which has been given this one; None if there is none."""
        kept = self._kept
        if kept is None or call.entry.kind != CHANGE:
            return None
        if not kept.frames.send_call(call.message):
            self.dismiss()
            return None
        self._kept, self._kept_until = None, math.inf
        return kept

    def _fork(self, call: Call) -> Process:
        """A new process for a call.

        Raises:
            OSError: EAGAIN or ENOMEM.
        """
        if call.entry.kind == CHANGE:
            self.dispatcher.refresh()
        ours, theirs = socket.socketpair()
        try:
            pid = process.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if not pid:
            ours.close()
            self._child(call, theirs)
        theirs.close()
        return Process(pid, ours)

    def _child(self, call: Call, pipe: socket.socket) -> NoReturn:
        try:
            process.default_signals()
            self._let_go()
            Performer(self.dispatcher, pipe, self._label).run(call.entry, call.message, call.args)
        except BaseException as problem:
            log.bug(f"{call.title} failed by a bug", problem)
        finally:
            os._exit(0)

    def _begun(self, call: Call, performer: Process) -> None:
        close_all(call.message.fds)
        call.forget()
        call.process = performer
        if call.entry.kind == QUERY:
            call.deadline = time.monotonic() + PATIENCE + GRACE
        self.running[performer.pid] = call
        # The results wait in the socket while the client takes nothing, and the process waits with them.
        self.loop.watch(performer.frames.sock.fileno(), READ, lambda _events: self._read(call, performer), gated=True)
        self.loop.watch(performer.pidfd, READ, lambda _events: self._ended(call, performer))

    def _read(self, call: Call, performer: Process) -> None:
        frames = performer.frames.read()
        if performer.frames.finished:
            self.loop.unwatch(performer.frames.sock.fileno())
        for kind, data, fds in frames:
            if kind == DONE:
                self._work_ended(call, b"")
            elif kind == FAILED:
                self._work_ended(call, data)
            elif kind == KEPT and not performer.ended:
                call.answered = True
                self._keep(performer)
                self._answer(call, Answer(data))
                self._start_parked()
                self._changed()
            else:
                call.answered = True
                call.works = kind in (WORKS, SPARSE)
                call.deadline = math.inf
                stream = Stream(fds.pop(0), holes=kind == SPARSE) if kind not in (ANSWER, KEPT) else None
                self._changed()
                self._answer(call, Answer(data, tuple(fds), stream))

    def _keep(self, performer: Process) -> None:
        """A process has done its call, and waits for another one."""
        del self.running[performer.pid]
        self.loop.unwatch(performer.frames.sock.fileno())
        self.dismiss()
        self._kept = performer
        self._kept_until = min(performer.until, time.monotonic() + KEEP)
        self.loop.watch(performer.pidfd, READ, lambda _events: self.dismiss())

    def dismiss(self) -> None:
        """End the process that waits for another call: none comes, or what it knows of the client is so no more."""
        kept, self._kept, self._kept_until = self._kept, None, math.inf
        if kept is None:
            return
        self.loop.unwatch(kept.pidfd)
        kept.close()
        process.kill(kept.pid, signal.SIGKILL)
        os.waitpid(kept.pid, 0)

    def _work_ended(self, call: Call, outcome: bytes) -> None:
        call.done = outcome
        if call.on_end is not None:
            call.on_end()

    def _ended(self, call: Call, performer: Process) -> None:
        pid, status = os.waitpid(performer.pid, os.WNOHANG)
        if not pid:
            return
        performer.ended = True
        # What it said last may still wait behind the gate.
        self._read(call, performer)
        self.loop.unwatch(performer.pidfd)
        self.loop.unwatch(performer.frames.sock.fileno())
        del self.running[pid]
        performer.close()
        call.process = None
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

    @property
    def timed(self) -> bool:
        """Whether `expire` has to be called at some time."""
        return self._kept is not None or bool(self.running)

    def next_deadline(self) -> float:
        """When `expire` is to be called."""
        return min([self._kept_until, *(call.deadline for call in self.running.values())])

    def expire(self, now: float) -> None:
        """Kill the queries whose time is up, and answer for them; end the process for which there was no other call."""
        if now >= self._kept_until:
            self.dismiss()
        for call in list(self.running.values()):
            if now >= call.deadline and not call.answered:
                call.deadline = math.inf
                call.answered = True
                call.kill()
                problem = deadlines.DeadlineExceeded(f"{call.title} did not end in {PATIENCE + GRACE:.0f} s")
                self._answer(call, Answer(error_bytes(call.message, problem, call.entry)))

    def client_gone(self) -> None:
        """The client does not wait any more: forget what has not begun, kill queries, let changes end."""
        self.dismiss()
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
            if call.process is not None:
                call.process.close()
        self.running.clear()

    def descriptors(self) -> set[int]:
        """What a forked child has to close."""
        processes = [self._kept, *(call.process for call in self.running.values())]
        return {descriptor for one in processes if one is not None for descriptor in one.descriptors()} | {
            descriptor for call in self.parked for descriptor in call.message.fds
        }
