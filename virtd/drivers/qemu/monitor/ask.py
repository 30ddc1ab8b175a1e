"""Questions to guests' monitors: to one guest, or to many at the same time.

They go to the monitor for queries (query.sock) under a lock of its own, so that no question waits for a long change.
Many guests are asked in one poll over all their sockets: each gets its commands at once, and has the same time for all
of its answers. A guest that does not answer costs that time once, however many do not.

What the guests of a bulk question said last is kept beside their sockets, for those who ask while a guest is stuck.
"""

import json
import os
import select
import socket
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu.guest import QUERY_SECONDS, Guest
from virtd.drivers.qemu.monitor import qmp
from virtd.drivers.qemu.monitor.client import Command, Monitor
from virtd.errors import VirtError
from virtd.state import files, locks, sockets

# At most so many conversations at the same time: each takes two descriptors.
BATCH = 128
# Answers that are kept are written again when they are older than this (seconds).
KEPT_SECONDS = 10.0
_CHUNK = 65536


class Question(NamedTuple):
    """Commands for one guest's monitor."""

    guest: Guest
    commands: Sequence[Command]


def key(command: Command) -> str:
    """What an answer is kept under: the command's name, with what it is asked about if there are several."""
    name, arguments = command
    target = (arguments or {}).get("target")
    return name if target is None else f"{name} {target}"


Answers = list[object]
"""A result for each command; a QMPError in the place of one that QEMU refused."""


def ask(guest: Guest, commands: Sequence[Command], seconds: float = QUERY_SECONDS) -> Answers:
    """Ask one guest.

    Raises:
        DeadlineExceeded: it does not answer in time.
        MonitorClosed: QEMU has ended.
        QMPError: it refused the only command there was; of several, the error stands in the command's place.
    """
    with deadlines.limit(seconds):
        lock = _acquire(guest)
        try:
            with Monitor(guest.query_path, guest.name, seconds) as monitor:
                answers = monitor.execute_all(commands)
        finally:
            lock.release()
    if len(answers) == 1 and isinstance(answers[0], qmp.QMPError):
        raise answers[0]
    return answers


def ask_all(questions: Sequence[Question], seconds: float) -> list[Answers | VirtError]:
    """Ask many guests at the same time.

    Args:
        questions: who is asked for what; no guest twice.
        seconds: how long each may take.

    Returns:
        For each question its answers, or why there are none: DeadlineExceeded, MonitorClosed, or what kept us from
        asking.
    """
    results: list[Answers | VirtError] = []
    for start in range(0, len(questions), BATCH):
        results += _ask_batch(questions[start : start + BATCH], seconds)
    return results


def remember(guest: Guest, commands: Sequence[Command], answers: Answers) -> None:
    """Keep answers on disk for those who ask when the guest answers no more, if those kept are old."""
    path = _kept_path(guest)
    try:
        # Of a time to come they are if the clock was set back.
        if 0 <= time.time() - os.stat(path).st_mtime < KEPT_SECONDS:
            return
    except OSError:
        pass
    kept = {
        key(command): answer
        for command, answer in zip(commands, answers, strict=True)
        if not isinstance(answer, qmp.QMPError)
    }
    # Two may write at the same time: the lock says who does, and the other need not.
    try:
        lock = locks.attempt(_lock_path(guest), "remembering", make=False)
    except locks.MissingError:
        return  # it has ended
    if lock is None:
        return
    try:
        if os.path.exists(guest.status_path):
            files.replace(path, json.dumps(kept).encode(), durable=False)
    except VirtError:
        pass  # it has ended just now, or the disk is full: then there is nothing to remember
    finally:
        lock.release()


def recall(guest: Guest, commands: Sequence[Command]) -> list[object | None]:
    """What a guest said last, for each command; None where nothing is kept."""
    try:
        kept = json.loads(files.read(_kept_path(guest)) or b"{}")
    except ValueError:
        kept = {}
    return [kept.get(key(command)) if isinstance(kept, dict) else None for command in commands]


def _lock_path(guest: Guest) -> str:
    return f"{guest.directory}/query.lock"


def _kept_path(guest: Guest) -> str:
    return f"{guest.directory}/answers"


def _acquire(guest: Guest, seconds: float | None = None) -> locks.Lock:
    """Take the lock of a guest's monitor for queries; who holds it is waited for only as long as for the guest."""
    what = "lock of the monitor for queries"
    try:
        return locks.acquire(_lock_path(guest), "a query", timeout=seconds, what=what, make=False)
    except locks.MissingError:
        raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is not running", domain=c.VIR_FROM_QEMU) from None
    except VirtError as error:
        if error.code == c.VIR_ERR_OPERATION_TIMEOUT:
            raise deadlines.DeadlineExceeded(f"{error.detail} (vm='{guest.name}')", domain=c.VIR_FROM_QEMU) from None
        raise


def _ask_batch(questions: Sequence[Question], seconds: float) -> list[Answers | VirtError]:
    results: dict[int, Answers | VirtError] = {}
    waiting = list(range(len(questions)))
    end = time.monotonic() + deadlines.remaining(seconds)
    first_turn = True
    while waiting:
        talks: list[_Talk] = []
        busy: list[int] = []
        try:
            for number in waiting:
                # Who holds a lock asks something himself, and will soon have his answer: the others come first.
                patience = 0.0 if talks or first_turn else max(0.0, end - time.monotonic())
                try:
                    talks.append(_Talk(number, questions[number], _acquire(questions[number].guest, patience)))
                except deadlines.DeadlineExceeded as error:
                    results[number] = error
                    busy.append(number)
                except VirtError as error:
                    results[number] = error
            _converse(talks, end)
            results |= {talk.number: talk.result for talk in talks}
        finally:
            for talk in talks:
                talk.close()
        if not (first_turn or talks) or time.monotonic() >= end:
            break
        waiting, first_turn = busy, False
    return [results[number] for number in range(len(questions))]


class _Talk:
    """The conversation with one guest."""

    def __init__(self, number: int, question: Question, lock: locks.Lock) -> None:
        self.number = number
        self.guest = question.guest
        self._lock = lock
        self._names = [name for name, _ in question.commands]
        self._reader = qmp.Reader(question.guest.name)
        self._answers: dict[int, qmp.Answer] = {}
        self.output = qmp.encode_command("qmp_capabilities", None, -1) + b"".join(
            qmp.encode_command(name, arguments, place) for place, (name, arguments) in enumerate(question.commands)
        )
        self.socket: socket.socket | None = None
        self.result: Answers | VirtError = deadlines.DeadlineExceeded(
            f"QEMU's monitor did not answer in time (vm='{question.guest.name}')", domain=c.VIR_FROM_QEMU
        )

    def open(self) -> bool:
        """Connect; tells whether that worked."""
        try:
            self.socket = sockets.connect(self.guest.query_path, timeout=0.001)
        except (BlockingIOError, TimeoutError):
            return False  # its queue is full of those who gave up before
        except OSError as error:
            text = f"failed to connect to monitor socket of guest '{self.guest.name}': {error.strerror}"
            self.result = qmp.MonitorClosed(text, code=c.VIR_ERR_OPERATION_FAILED)
            return False
        self.socket.setblocking(False)
        self.send()
        return self.socket is not None

    def close(self) -> None:
        """Let go of socket and lock."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        self._lock.release()

    def send(self) -> None:
        """Send what the socket takes."""
        assert self.socket is not None
        try:
            self.output = self.output[self.socket.send(self.output) :]
        except BlockingIOError:
            pass
        except OSError:
            self.output = b""  # the end of the connection is seen by reading

    def receive(self) -> bool:
        """Take what has come; tells whether the conversation is over."""
        assert self.socket is not None
        try:
            data = self.socket.recv(_CHUNK)
            if not data:
                raise qmp.MonitorClosed(f"End of file from qemu monitor (vm='{self.guest.name}')")
            for message in self._reader.feed(data):
                if isinstance(message, qmp.Answer) and isinstance(message.id, int):
                    self._answers[message.id] = message
        except BlockingIOError:
            return False
        except OSError as error:
            text = f"Unable to read from monitor: {error.strerror} (vm='{self.guest.name}')"
            self.result = qmp.MonitorClosed(text)
            return True
        except VirtError as error:
            self.result = error
            return True
        if len(self._answers) <= len(self._names):
            return False
        self.result = list(self._collect())
        return True

    def _collect(self) -> Iterator[object]:
        for place, name in enumerate(self._names):
            answer = self._answers[place]
            yield answer.result if answer.error is None else qmp.QMPError(name, *answer.error)


def _converse(talks: list[_Talk], end: float) -> None:
    """Hold all conversations, until each is over or the time is up."""
    poll = select.poll()
    open_talks: dict[int, _Talk] = {}
    for talk in talks:
        if talk.open():
            assert talk.socket is not None
            open_talks[talk.socket.fileno()] = talk
            poll.register(talk.socket, select.POLLIN | (select.POLLOUT if talk.output else 0))
    while open_talks:
        left = end - time.monotonic()
        ready = poll.poll(max(0, int(left * 1000 + 0.999)))
        if not ready:
            return
        for descriptor, events in ready:
            talk = open_talks[descriptor]
            if events & select.POLLOUT:
                talk.send()
                poll.modify(descriptor, select.POLLIN | (select.POLLOUT if talk.output else 0))
            if events & ~select.POLLOUT and talk.receive():
                poll.unregister(descriptor)
                del open_talks[descriptor]
