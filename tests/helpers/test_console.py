"""The terminal on which tests use virsh's console."""

from __future__ import annotations

import pytest

from tests.helpers.console import Console, main


def test_reads_types_and_sees_the_end() -> None:
    with Console(["sh", "-c", "echo ready; read line; echo got $line; exit 3"]) as console:
        console.until(b"ready\r\n")
        console.type(b"this\n")
        assert console.until(b"got ") == b"this\r\n"  # the terminal's echo
        assert console.until_end() == 3
        assert console.output.endswith(b"got this\r\n")


def test_what_does_not_come_is_an_error_that_shows_what_came() -> None:
    with Console(["echo", "something else"]) as console, pytest.raises(AssertionError, match="something else"):
        console.until(b"this", 5)
    with Console(["cat"]) as console, pytest.raises(AssertionError, match="goes on"):
        console.until_end(0.1)


def test_it_is_a_terminal_but_not_the_controlling_one() -> None:
    with Console(["sh", "-c", "test -t 0 && test -t 1 && ! (: </dev/tty) 2>/dev/null"]) as console:
        assert console.until_end() == 0


def test_as_a_command(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["--while", "true", "sh", "-c", "echo Escape character; echo more; exit 4"]) == 4
    assert capfdbinary.readouterr().out == b"Escape character\r\nmore\r\n"
    assert main(["--until", "never", "sh", "-c", "echo Escape character"]) == 1
