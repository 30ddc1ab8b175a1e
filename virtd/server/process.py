"""Processes: signals that only queue, forks that begin clean, and titles that say what goes on.

No handler does anything: the interpreter writes the signal's number into a socket, and the poll loop that reads it
acts when it is at rest (`Signals`). Around a fork the signals are blocked, so that one which arrives in that moment
is not written into the socket of the wrong process. Every process of the server is single-threaded.
"""

import contextlib
import os
import signal
import socket

import setproctitle

RETIRE = signal.SIGUSR1  # to a worker: serve your client to its end, then exit
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, RETIRE)


def _queue(signum: int, frame: object) -> None:
    """The handler of all handled signals: the wakeup descriptor has the number already."""


class Signals:
    """The signals that arrived, to be read like a socket.

    Args:
        handled: what to listen to; other signals keep their default action.
        ignored: what must not end the process and needs no answer.
    """

    def __init__(self, handled: tuple[int, ...], ignored: tuple[int, ...] = (signal.SIGPIPE,)) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in handled:
            signal.signal(number, _queue)
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._reader.fileno()

    def read(self) -> set[int]:
        """The numbers of the signals that arrived since the last call."""
        try:
            return set(self._reader.recv(4096))
        except BlockingIOError:
            return set()

    def close(self) -> None:
        """Stop listening: for a forked child, whose signals are no longer those of its parent."""
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()


def fork(*, blocked: bool = False) -> int:
    """Fork; the child begins with default actions for all signals and no wakeup descriptor.

    Args:
        blocked: signals stay blocked in the child until it makes its own `Signals`: one that is sent to it before
            does not end it, but waits.

    Returns:
        The child's process id, 0 in the child.

    Raises:
        OSError: EAGAIN or ENOMEM; nothing has happened then.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    pid = -1
    try:
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            for number in HANDLED:
                signal.signal(number, signal.SIG_DFL)
        return pid
    finally:
        if pid or not blocked:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def default_signals() -> None:
    """In a child that was forked with signals blocked and will not make its own `Signals`: let them act.

    What tells a worker to end with its client means nothing to such a process.
    """
    signal.signal(RETIRE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def kill(pid: int, number: int) -> None:
    """Send a signal to a child that has not been reaped; one that ended meanwhile does not mind."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def title(text: str) -> None:
    """Say in ps what this process is, for whom, and what it does now."""
    setproctitle.setproctitle(f"virtd: {text}")


def count(number: int, noun: str) -> str:
    """A number and its noun: 1 client, 2 clients."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
