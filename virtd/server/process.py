"""Processes: signals that only queue, forks that begin clean, and titles that say what goes on.

A handler does nothing but note the signal's number; the interpreter writes into a pipe, and the poll loop that is
woken by that acts when it is at rest (`Signals`). A signal that reaches a child before it has a pipe of its own wakes
its parent, which finds nothing noted, and is noted in the child. Every process of the server is single-threaded.

Little is done around a fork, on purpose: each page of memory that the parent writes to between two forks is one
that the child has for itself alone.
"""

import contextlib
import os
import signal

from virtd.server.lean import setproctitle

RETIRE = signal.SIGUSR1  # to a worker: serve your client to its end, then exit
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, RETIRE)


_arrived: set[int] = set()


def _note(signum: int, frame: object) -> None:
    """The handler of all handled signals."""
    _arrived.add(signum)


def handle_signals() -> None:
    """Let all handled signals only queue, in this process and those forked from it."""
    for number in HANDLED:
        signal.signal(number, _note)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


class Signals:
    """The handled signals that arrived in this process, to be polled like a pipe; see `handle_signals`."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if _arrived:
            os.write(self._writer, b"!")

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._reader

    def read(self) -> set[int]:
        """The numbers of the signals that arrived since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        found = set(_arrived)
        # Not cleared: what arrives in between must stay.
        _arrived.difference_update(found)
        return found

    def close(self) -> None:
        """Stop listening: for a forked child, whose signals are no longer those of its parent."""
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)


def default_signals() -> None:
    """In a child that will not have `Signals`: let them act. What tells a worker to end with its client does not."""
    signal.set_wakeup_fd(-1)
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN if number == RETIRE else signal.SIG_DFL)
    for early in _arrived - {RETIRE}:
        os.kill(os.getpid(), early)


def fork() -> int:
    """os.fork; a signal that meets the child before it runs is not forgotten with those of its parent.

    Raises:
        OSError: EAGAIN or ENOMEM.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        pid = os.fork()
        if not pid:
            _arrived.clear()
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def kill(pid: int, number: int) -> None:
    """Send a signal to a child that has not been reaped; one that ended meanwhile does not mind."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class _Role:
    """What all processes of this server are called; children get a copy."""

    prefix = "virtd: "


def play(role: str) -> None:
    """Call this process, and those forked from it, by a role: "virtd: ROLE: …"."""
    _Role.prefix = f"virtd: {role}: "


def title(text: str) -> None:
    """Say in ps what this process is, for whom, and what it does now."""
    setproctitle(_Role.prefix + text)


def count(number: int, noun: str) -> str:
    """A number and its noun: 1 client, 2 clients."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
