"""`virsh console` as a user has it: on a terminal, until something appears, with something typed, left by Ctrl-].

    with Console(["virsh", "-c", uri, "console", "web1"]) as console:
        console.until(b"login: ")
        console.type(b"root\\n")

Also a command, which shows a guest's console until a text appears, or runs a shell command when the console is open
and shows it until the guest is off:

    python3 -m tests.helpers.console --until TEXT COMMAND...
    python3 -m tests.helpers.console --while SHELL_COMMAND COMMAND...
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from tests.helpers.waiting import SECONDS

__all__ = ["ESCAPE", "Console"]

ESCAPE = b"\x1d"  # Ctrl-], which leaves virsh's console


class Console:
    """A command on a new terminal, which is not its controlling one: else virsh starts a polkit agent there."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.output = b""  # so far
        self._read = 0  # how far `until` has come
        self._terminal, terminal = pty.openpty()
        try:
            self.process = subprocess.Popen(
                command, stdin=terminal, stdout=terminal, stderr=terminal, env=env, start_new_session=True
            )
        finally:
            os.close(terminal)

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)

    def until(self, text: bytes, seconds: float = SECONDS) -> bytes:
        """Wait for a text behind the last one waited for; returns what came before it.

        Raises AssertionError if it does not come within `seconds`, or the command ends before.
        """
        deadline = time.monotonic() + seconds
        while text not in self.output[self._read :]:
            assert self._more(deadline), f"{text!r} has not come, but {self.output!r}"
        start = self._read
        end = self.output.index(text, start)
        self._read = end + len(text)
        return self.output[start:end]

    def until_end(self, seconds: float = SECONDS) -> int:
        """Wait until the command has ended; returns its exit status. Raises AssertionError if it goes on."""
        deadline = time.monotonic() + seconds
        while self._more(deadline):
            pass
        assert time.monotonic() < deadline, f"it goes on after {seconds} s: {self.output!r}"
        return self.process.wait(10)

    def type(self, keys: bytes) -> None:
        """Type."""
        os.write(self._terminal, keys)

    def leave(self) -> int:
        """Leave the console by Ctrl-]; returns virsh's exit status."""
        self.type(ESCAPE)
        return self.until_end()

    def _more(self, deadline: float) -> bytes:
        """Read what comes next; b"" if the command has ended or the time is up."""
        ready, _, _ = select.select([self._terminal], [], [], max(0, deadline - time.monotonic()))
        try:
            data = os.read(self._terminal, 4096) if ready else b""
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        self.output += data
        return data


def main(arguments: list[str]) -> int:
    """Show a console; see the top of this file. Returns the exit status: 0 if what was waited for has come."""
    option, value, *command = arguments
    with Console(command) as console:
        console.until(b"Escape character")
        if option == "--while":
            subprocess.run(value, shell=True, check=True)
        shown = 0
        while option == "--while" or value.encode() not in console.output:
            more = console._more(time.monotonic() + 60)
            sys.stdout.buffer.write(console.output[shown:])
            sys.stdout.buffer.flush()
            shown = len(console.output)
            if not more:
                return console.process.wait(10) if option == "--while" else 1
        print()
        return console.leave()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
