"""The interactive shell: a prompt, a history, completion, and nothing that Ctrl-C could break.

While it waits for a line, a signal handler answers a server's questions whether it is alive, and asks the server in
turn: so the connection lasts however long the user thinks, and its end is said at once. Whoever goes on gets another.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import sys
import traceback
from contextlib import contextmanager

from virtd.errors import VirtError
from virtd.shell import run
from virtd.shell.failure import Failure
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_KEPT = 2000  # lines of history
_LATE = 0.01  # seconds after a question to the server is due that it is asked


def interact(session: Session) -> int:
    """Read and run lines until the user leaves; the exit status."""
    gc.enable()
    session.interactive = True
    if session.uri is not None:
        try:
            session.connect()
        except Failure as error:
            run.report(session, error)
            return 1
    session.say("Welcome to virtsh, the virtualization interactive terminal.\n\n")
    session.say("Type:  'help' for help with commands\n       'quit' to quit\n\n")
    sys.stdout.flush()
    reader = _Terminal(session) if sys.stdin.isatty() else _Pipe(session)
    while not session.ended:
        line = reader.read()
        if line is None:
            break
        session.note(f"{session.uri}: {line}")
        _run(session, line)
    reader.close()
    session.disconnect()
    return 0


def _run(session: Session, line: str) -> None:
    if session.lost:
        session.disconnect()
    try:
        run.run_line(session, line)
    except KeyboardInterrupt:
        session.write("\n")
        # What was waited for may still come, and must not be taken for the answer to something else.
        session.disconnect()
    except BrokenPipeError:
        raise
    except Exception:
        # A bug of one command is no reason to lose the session.
        traceback.print_exc()
    if session.lost:
        session.complain(_gone(session))
        session.disconnect()
    sys.stdout.flush()


def _gone(session: Session) -> str:
    return f"Disconnected from {session.uri}; the next command connects again"


def prompt(session: Session) -> str:
    """What stands before a line."""
    return "virtsh > " if session.read_only else "virtsh # "


class _Pipe:
    """Lines from a pipe or file; they are shown, as virsh shows them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def read(self) -> str | None:
        """The next line; None at the end."""
        self._session.write(prompt(self._session))
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            self._session.write("\n")
            return None
        self._session.write(line if line.endswith("\n") else f"{line}\n")
        return line.rstrip("\n")

    def close(self) -> None:
        """Nothing is to be kept."""


class _Terminal:
    """Lines from a person, with readline."""

    def __init__(self, session: Session) -> None:
        import readline

        from virtd.shell import complete

        self._session = session
        self._readline = readline
        self._history = history_path()
        completer = complete.Completer(session)
        readline.set_completer(completer.complete)
        readline.set_completer_delims(" \t\n;=,")
        readline.parse_and_bind("tab: complete")
        readline.set_history_length(_KEPT)
        try:
            readline.read_history_file(self._history)
        except OSError:
            pass  # there is none yet

    def read(self) -> str | None:
        """The next line; None at the end."""
        while True:
            try:
                with _alive(self._session, self._say):
                    return input(prompt(self._session))
            except KeyboardInterrupt:
                self._session.write("\n")
            except EOFError:
                self._session.write("\n")
                return None

    def _say(self, text: str) -> None:
        """Say something while the user is typing, and put what has been typed below it."""
        sys.stdout.write("\r\033[K")
        self._session.complain(text)
        sys.stdout.write(prompt(self._session) + self._readline.get_line_buffer())
        sys.stdout.flush()

    def close(self) -> None:
        """Keep the history."""
        try:
            os.makedirs(os.path.dirname(self._history), mode=0o700, exist_ok=True)
            self._readline.write_history_file(self._history)
            os.chmod(self._history, 0o600)
        except OSError as error:
            self._session.complain(f"cannot keep the history in {self._history}: {error.strerror}")


def history_path() -> str:
    """Where the history is kept: what a user typed is the user's own, whatever the guests are."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return f"{state}/virtd/virtsh_history"


@contextmanager
def _alive(session: Session, say: Callable[[str], None]) -> Iterator[None]:
    """A context in which what comes over the connection is taken in as it comes, and the server asked whether it lives.

    Args:
        session: whose connection it is.
        say: called once if the connection has come to an end.
    """
    client: Any = session.client()
    if client is None or client.broken:
        yield
        return

    reading = False
    again = interrupted = False

    def leave() -> None:
        # input() lets one more handler run when it already has the exception, and fails if it does: so none may be due.
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.raise_signal(signal.SIGIO)
        raise KeyboardInterrupt

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        if not reading:
            leave()
        interrupted = True

    def take_in(*_: object) -> None:
        # Neither Ctrl-C nor another arrival may break into a message which is half read.
        nonlocal reading, again, interrupted
        again = True
        if reading:
            return
        reading = True
        try:
            while again and not client.broken:
                again = False
                client.read()
            due = client.tend()
            signal.setitimer(signal.ITIMER_REAL, 0 if due is None else due + _LATE)
        except (VirtError, OSError, ValueError):
            pass  # it is broken then
        finally:
            reading = False
        if client.broken and not session.lost:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
            session.lost = True
            say(_gone(session))
        if interrupted:
            interrupted = False
            leave()

    descriptor = os.dup(client.fileno())
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    earlier = [
        (number, signal.signal(number, handler))
        for number, handler in ((signal.SIGINT, interrupt), (signal.SIGIO, take_in), (signal.SIGALRM, take_in))
    ]
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC)
        take_in()
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        for number, handler in reversed(earlier):
            signal.signal(number, handler)
        os.close(descriptor)
