"""The user's terminal in raw mode, given back whatever happens."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty

from virtd.shell.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def require() -> int:
    """The descriptor of the user's terminal.

    Raises:
        Failure: standard input is none.
    """
    if not sys.stdin.isatty():
        raise Failure("Cannot run interactive console without a controlling TTY")
    return sys.stdin.fileno()


class Interrupted(Exception):
    """A signal asked to stop."""


class Raw:
    """A context in which every key goes to the program and nothing is echoed.

    A signal that would end the process raises Interrupted, so that the terminal is restored first.

    Args:
        descriptor: the terminal.
        output: whether line ends that are written are left alone, too.
    """

    def __init__(self, descriptor: int, *, output: bool = True) -> None:
        self._descriptor = descriptor
        self._output = output

    def __enter__(self) -> None:
        sys.stdout.flush()
        self._before = termios.tcgetattr(self._descriptor)
        self._handlers = {one: signal.signal(one, _interrupt) for one in _SIGNALS}
        tty.setraw(self._descriptor, termios.TCSADRAIN)
        if not self._output:
            changed = termios.tcgetattr(self._descriptor)
            changed[1] = self._before[1]
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, changed)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, self._before)
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def size(descriptor: int = 1) -> tuple[int, int]:
    """Columns and lines of a terminal; 80 and 24 if it does not say."""
    try:
        columns, lines = os.get_terminal_size(descriptor)
    except OSError:
        return 80, 24
    return columns or 80, lines or 24
