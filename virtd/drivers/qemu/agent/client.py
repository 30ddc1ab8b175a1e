"""A client of QEMU's guest agent: a program in the guest that answers JSON over a serial channel.

The other side is the guest: it may not be there, may hang, and may lie. Each conversation begins with
guest-sync-delimited, so that answers to those who gave up before are not taken for ours. Every wait is bounded.

This module knows no domain beyond the name that its errors give.
"""

import json
import os
import select
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Self

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu import shape
from virtd.errors import VirtError
from virtd.state import locks

SYNC_SECONDS = 5.0  # how long the agent may take to say that it is there, as in libvirt
COMMAND_SECONDS = 25.0  # … to answer a command
# … to answer one whose time the guest's file systems decide.
_SLOW_SECONDS = 600.0
_SLOW = ("guest-fstrim", "guest-fsfreeze-freeze", "guest-fsfreeze-freeze-list", "guest-fsfreeze-thaw")
MAX_ANSWER = 10 * 1024 * 1024
_DELIMITER = b"\xff"
# A call that has less time than this is tried again with more.
_HURRIED = 1.0


class AgentError(VirtError):
    """The agent refused a command.

    Args:
        command: its name.
        description: the agent's text.
        agent_class: the agent's class of the error.
    """

    agent_class: str

    def __init__(self, command: str, description: str, agent_class: str) -> None:
        text = f"unable to execute QEMU agent command '{command}': {description}"
        super().__init__(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_QEMU)
        self.agent_class = agent_class


class _ClosedError(VirtError):
    """The other end of the channel's connection is closed."""

    def __init__(self) -> None:
        text = "QEMU guest agent is not connected"
        super().__init__(c.VIR_ERR_AGENT_UNRESPONSIVE, text, domain=c.VIR_FROM_QEMU)


class AgentClient:
    """A conversation with the agent of one guest.

    Args:
        connect: makes the connection with the agent's channel; it is told whether the last one was closed already.
        lock_path: what makes sure that nobody else talks to the agent at the same time.
        seconds: how long the agent may take to say that it is there.
        patience: how long it may take to answer a command; None: as long as such a command may take.

    Raises:
        VirtError: VIR_ERR_AGENT_UNRESPONSIVE.
        DeadlineExceeded: the call has too little time.
    """

    def __init__(
        self,
        connect: Callable[[bool], socket.socket],
        lock_path: str,
        seconds: float = SYNC_SECONDS,
        patience: float | None = None,
    ) -> None:
        self._patience = patience
        self._hurried = deadlines.remaining(60.0) < _HURRIED
        self._buffer = bytearray()
        try:
            self._lock = locks.acquire(lock_path, "a guest agent call", what="lock of the guest agent", make=False)
        except VirtError:
            raise self._late("Guest agent not available for now") from None
        with ExitStack() as undo:
            undo.callback(self._lock.release)
            self._socket = undo.enter_context(connect(False))
            try:
                self._synchronise(seconds)
            except _ClosedError:
                # It was kept from an earlier conversation, and QEMU has let go of it since.
                self._buffer.clear()
                self._socket = undo.enter_context(connect(True))
                self._synchronise(seconds)
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the conversation."""
        self._undo.close()

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, seconds: float | None = None
    ) -> object:
        """Run a command and return its result.

        Args:
            command: its name.
            arguments: its arguments.
            seconds: how long the answer may take; None: as the client was told, or as is usual for the command.

        Raises:
            AgentError: the agent refused it.
            VirtError: VIR_ERR_AGENT_UNRESPONSIVE; it is not known whether it was done.
        """
        message: dict[str, object] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        usual = _SLOW_SECONDS if command in _SLOW else COMMAND_SECONDS
        answer = self.exchange(message, seconds or usual if self._patience is None else self._patience)
        error = answer.get("error")
        if isinstance(error, dict):
            raise agent_error(command, error)
        return answer.get("return")

    def exchange(self, message: Mapping[str, object], seconds: float) -> shape.Table:
        """Send a message, and return the agent's whole answer."""
        end = time.monotonic() + seconds
        self._send(json.dumps(message).encode() + b"\n", end)
        while True:
            answer = self._line(end, "Guest agent disappeared while executing command")
            if "return" in answer or "error" in answer:
                return answer

    def tell(self, command: str, arguments: Mapping[str, object] | None = None, seconds: float = 2.0) -> None:
        """Run a command that the agent answers only if it fails, for the guest goes to sleep with it.

        Raises:
            AgentError: it failed.
        """
        try:
            self.execute(command, arguments, seconds)
        except AgentError:
            raise
        except VirtError as error:
            if error.code != c.VIR_ERR_AGENT_UNRESPONSIVE:
                raise

    def _synchronise(self, seconds: float) -> None:
        number = int.from_bytes(os.urandom(4), "big") >> 1
        end = time.monotonic() + seconds
        # The delimiter ends whatever half of a command the agent may have got before.
        message = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        self._send(_DELIMITER + json.dumps(message).encode() + b"\n", end)
        while True:
            answer = self._line(end, "Guest agent not available for now")
            if answer.get("return") == number:
                return

    def _send(self, data: bytes, end: float) -> None:
        self._socket.setblocking(False)
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, end, "Guest agent not available for now")
            except OSError:
                raise _ClosedError from None

    def _line(self, end: float, late: str) -> shape.Table:
        """The next message that is one; what comes before a delimiter, and what is no JSON, is from earlier calls."""
        while True:
            line, newline, rest = bytes(self._buffer).partition(b"\n")
            if newline:
                self._buffer[:] = rest
                try:
                    return shape.as_table(shape.loads(line.rpartition(_DELIMITER)[2]), "answer")
                except (ValueError, RecursionError, shape.ShapeError):
                    continue
            if len(self._buffer) > MAX_ANSWER:
                raise _unresponsive("the guest agent's answer is too long")
            self._wait(select.POLLIN, end, late)
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            raise _ClosedError
        self._buffer += data

    def _wait(self, events: int, end: float, late: str) -> None:
        if not deadlines.ready(self._socket.fileno(), events, max(0.0, end - time.monotonic())):
            raise self._late(late)

    def _late(self, text: str) -> VirtError:
        return deadlines.DeadlineExceeded(text, domain=c.VIR_FROM_QEMU) if self._hurried else _unresponsive(text)


def agent_error(command: str, error: shape.Table) -> AgentError:
    """What an agent says to a command that it refuses."""
    return AgentError(command, str(error.get("desc", "unknown")), str(error.get("class", "")))


def _unresponsive(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_AGENT_UNRESPONSIVE, text, domain=c.VIR_FROM_QEMU)
