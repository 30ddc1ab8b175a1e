"""The QEMU Monitor Protocol as bytes and messages, without any input or output.

Whoever owns the socket feeds what it read and gets whole messages back; commands are encoded into bytes.
The synchronous client (client.py) and the supervisor's event loop both stand on this. What comes from a
guest's QEMU is not trusted: lines are bounded, nesting is bounded, and each message is checked for its
shape here, so that nobody above looks at raw JSON.

This module knows no socket, no descriptor and no deadline.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from virtd import constants as c
from virtd.drivers.qemu import shape
from virtd.errors import VirtError

# query-qmp-schema, the longest answer there is, has 0.25 MB; libvirt ends at 10 MiB, too.
MAX_LINE = 10 * 1024 * 1024
MAX_DEPTH = 64


class MonitorClosed(VirtError):
    """The monitor is gone or of no use any more: QEMU ended, or said what is not QMP.

    Nobody knows whether a command that was under way has been carried out.
    """

    def __init__(self, detail: str, *, code: int = c.VIR_ERR_INTERNAL_ERROR) -> None:
        super().__init__(code, detail, domain=c.VIR_FROM_QEMU)


class QMPError(VirtError):
    """QEMU refused a command, which therefore has not been carried out.

    Args:
        command: name of the command.
        qmp_class: QEMU's class of the error (GenericError, CommandNotFound, DeviceNotFound, …).
        description: QEMU's text.
    """

    qmp_class: str
    description: str

    def __init__(self, command: str, qmp_class: str, description: str) -> None:
        super().__init__(
            c.VIR_ERR_INTERNAL_ERROR,
            f"unable to execute QEMU command '{command}': {description}",
            domain=c.VIR_FROM_QEMU,
        )
        self.qmp_class = qmp_class
        self.description = description


class Greeting(NamedTuple):
    """The first message of a connection: QEMU's version as (major, minor, micro), and its package name."""

    version: tuple[int, int, int]
    package: str
    capabilities: list[str]


class Answer(NamedTuple):
    """The end of a command: its id, and either its result or, if error is set, (class, description)."""

    id: object
    result: object
    error: tuple[str, str] | None


class Event(NamedTuple):
    """Something that happened to the guest, at so many microseconds since the epoch (-1: unknown)."""

    name: str
    data: dict[str, object]
    microseconds: int


Message = Greeting | Answer | Event


def encode_command(name: str, arguments: Mapping[str, object] | None, identifier: object) -> bytes:
    """A command as the line that goes to QEMU."""
    message: dict[str, object] = {"execute": name, "id": identifier}
    if arguments:
        message["arguments"] = arguments
    return json.dumps(message, separators=(",", ":")).encode() + b"\r\n"


class Reader:
    """Collects bytes from one monitor and gives whole messages.

    Args:
        guest: name of the guest, for the messages of errors.
        max_line: the longest line accepted, in bytes.
    """

    def __init__(self, guest: str, max_line: int = MAX_LINE) -> None:
        self._guest = guest
        self._max_line = max_line
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes in any portions; returns the messages that they complete.

        Raises:
            MonitorClosed: what came is not QMP. Nothing more can be read from this monitor then.
        """
        self._buffer += data
        messages: list[Message] = []
        start = 0
        while (end := self._buffer.find(b"\n", max(start, self._searched))) >= 0:
            line = bytes(self._buffer[start:end]).strip()
            start = end + 1
            if len(line) > self._max_line:
                self._refuse(f"an answer of more than {self._max_line} bytes")
            if line:
                messages.append(self._message(line))
        del self._buffer[:start]
        self._searched = len(self._buffer)
        if len(self._buffer) > self._max_line:
            self._refuse(f"an answer of more than {self._max_line} bytes")
        return messages

    @property
    def partial(self) -> bool:
        """True if a line has begun and not ended."""
        return bool(self._buffer)

    def _message(self, line: bytes) -> Message:
        try:
            message = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            self._refuse("what is not JSON")
        # What opens few brackets need not be looked into.
        deep = line.count(b"{") + line.count(b"[") > MAX_DEPTH
        if not isinstance(message, dict) or (deep and not _shallow(message)):
            self._refuse("what is not a QMP message")
        try:
            return _classify(message)
        except shape.ShapeError:
            self._refuse("what is not a QMP message")

    def _refuse(self, what: str) -> NoReturn:
        self._buffer.clear()
        raise MonitorClosed(f"QEMU's monitor sent {what} (vm='{self._guest}')")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _shallow(message: dict[str, object]) -> bool:
    """Whether nesting stays within MAX_DEPTH; level by level, as recursion is what is to be avoided."""
    level: list[object] = [message]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return True
    return False


def _classify(message: shape.Table) -> Message:
    """Check the shape of a message; raises ShapeError if it is none of QMP's."""
    if "return" in message:
        return Answer(message.get("id"), message["return"], None)
    if "error" in message:
        error = shape.table(message, "error")
        return Answer(message.get("id"), None, (shape.text(error, "class"), shape.text(error, "desc")))
    if "event" in message:
        stamp = shape.table(message, "timestamp", {})
        seconds, micro = shape.number(stamp, "seconds", -1), shape.number(stamp, "microseconds", -1)
        when = -1 if seconds < 0 or micro < 0 else seconds * 1_000_000 + micro
        return Event(shape.text(message, "event"), shape.table(message, "data", {}), when)
    greeting = shape.table(message, "QMP")
    version = shape.table(greeting, "version")
    numbers = shape.table(version, "qemu")
    major, minor, micro = (shape.number(numbers, name) for name in ("major", "minor", "micro"))
    return Greeting(
        (major, minor, micro), shape.text(version, "package", ""), shape.texts(greeting, "capabilities", [])
    )
