"""The log: one line for each event, to standard error, files or syslog.

A line looks as libvirtd's do, with the one it is about in front of the text:

    2024-05-06 07:08:09.123+0000: 4711: error : root@unix qemu:///system: what happened

Every process of the server writes its own lines, whole, with one write() to a descriptor in append mode, so that the
lines of many processes never mix and nobody waits for anybody. What comes from a client is escaped: it cannot
forge a line. This module knows nothing of configuration files; it is told its outputs.
"""

import os
import sys
import time
from typing import NamedTuple

DEBUG, INFO, WARNING, ERROR = 1, 2, 3, 4  # libvirt's numbers

NAMES = {DEBUG: "debug", INFO: "info", WARNING: "warning", ERROR: "error"}
SYSLOG_PRIORITIES = {DEBUG: 7, INFO: 6, WARNING: 4, ERROR: 3}  # syslog(3)


class Output(NamedTuple):
    """One place where lines go.

    Attributes:
        level: the least important level that goes there.
        kind: 'stderr', 'file' or 'syslog'.
        target: the file's path, or the name to use in the system's log.
    """

    level: int
    kind: str
    target: str = ""


class _State:
    """What this process logs to; children get a copy of it when they are forked."""

    lowest = INFO
    outputs: tuple[tuple[Output, int], ...] = ((Output(INFO, "stderr"), 2),)
    about = ""  # whom the process works for, put before each text


def open_outputs(outputs: list[Output]) -> None:
    """Send lines to these outputs from now on; files are opened anew, so that they can be rotated.

    Raises:
        OSError: a file cannot be opened; the old outputs stay in force.
    """
    opened: list[tuple[Output, int]] = []
    try:
        for output in outputs:
            descriptor = 2 if output.kind == "stderr" else -1
            if output.kind == "file":
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
                descriptor = os.open(output.target, flags, 0o600)
            opened.append((output, descriptor))
    except OSError:
        _close(opened)
        raise
    before, _State.outputs = _State.outputs, tuple(opened)
    _State.lowest = min((output.level for output in outputs), default=ERROR + 1)
    _close(before)


def _close(outputs: list[tuple[Output, int]] | tuple[tuple[Output, int], ...]) -> None:
    for _output, descriptor in outputs:
        if descriptor > 2:
            os.close(descriptor)


def about(text: str) -> None:
    """Say whom this process works for; it stands in front of all its lines from now on."""
    _State.about = f"{text}: " if text else ""


def wanted(level: int) -> bool:
    """Whether anybody reads lines of this level: for callers to whom making one costs something."""
    return level >= _State.lowest


def debug(text: str) -> None:
    """Log what only a developer wants to know."""
    write(DEBUG, text)


def info(text: str) -> None:
    """Log what is normal."""
    write(INFO, text)


def warning(text: str) -> None:
    """Log what works, but not as somebody may expect."""
    write(WARNING, text)


def error(text: str) -> None:
    """Log what failed."""
    write(ERROR, text)


def bug(text: str, problem: BaseException) -> None:
    """Log an exception that nobody foresaw, with its traceback, in one line."""
    write(ERROR, f"{text}: {trace(problem)}")


def trace(problem: BaseException) -> str:
    """An exception and where it came from, innermost last, in one line."""
    import traceback

    frames = traceback.extract_tb(problem.__traceback__)
    where = " > ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in frames)
    return f"{type(problem).__name__}: {problem} [{where}]"


def write(level: int, text: str) -> None:
    """Log one line. A full disk or a closed terminal is no reason to fail: the line is lost then."""
    if level < _State.lowest:
        return
    text = _escape(_State.about + text)
    line = b""
    for output, descriptor in _State.outputs:
        if level < output.level:
            continue
        if output.kind == "syslog":
            _syslog(level, output.target, text)
            continue
        if not line:
            line = _line(level, text)
        try:
            os.write(descriptor, line)
        except OSError:
            continue


def _line(level: int, text: str) -> bytes:
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
    line = f"{stamp}.{int(now % 1 * 1000):03d}+0000: {os.getpid()}: {NAMES[level]} : {text}\n"
    return line.encode(errors="surrogateescape")


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or 0xDC80 <= ord(char) <= 0xDCFF else f"\\x{ord(char):02x}" for char in text
    )


def _syslog(level: int, name: str, text: str) -> None:
    import syslog

    syslog.openlog(name, syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(SYSLOG_PRIORITIES[level], text.encode(errors="replace").decode())


def complain(text: str, program: str | None = "virtd") -> None:
    """Say in one line on standard error why the program ends: for main(), before there is a log."""
    sys.stderr.write(f"{program}: {_escape(text)}\n")
    sys.stderr.flush()
