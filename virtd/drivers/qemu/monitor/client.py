"""A client of one QEMU monitor: commands in, results out, each wait bounded, nothing in the background.

A monitor serves one client at a time, so a connection is made, used and closed by whoever holds the lock
that belongs to the socket. Events that arrive between answers are kept, newest last. After a time-out or an
error of the connection the monitor is closed: its state is not known, and the next caller starts clean.

This module knows nothing about domains beyond the name that its errors give.
"""

import math
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.monitor import qmp
from virtd.drivers.qemu.monitor.qmp import Answer, Event, Greeting, MonitorClosed, QMPError
from virtd.state import sockets

__all__ = ["DEFAULT_SECONDS", "Command", "Event", "Monitor", "MonitorClosed", "QMPError"]

DEFAULT_SECONDS = deadlines.PATIENCE
MAX_EVENTS = 4096
_CHUNK = 65536

Command = tuple[str, Mapping[str, object] | None]


class Monitor:
    """One QMP connection, ready for commands once it is made.

    Args:
        where: path of the monitor's socket, or a connected socket, which becomes the monitor's own.
        guest: name of the guest, which all errors give.
        seconds: how long connecting, greeting, and each later command or wait may take; the bound of
            virtd.deadlines counts as well.

    Attributes:
        version: QEMU's version, three numbers.
        package: the name of the package that QEMU was built as, possibly empty.
        events: what has happened to the guest while answers were waited for, and nobody has taken yet.

    Raises:
        MonitorClosed: nobody listens there, or it is no QEMU.
        DeadlineExceeded: QEMU did not answer in time.
    """

    version: tuple[int, int, int]
    package: str

    def __init__(
        self, where: str | os.PathLike[str] | socket.socket, guest: str, seconds: float = DEFAULT_SECONDS
    ) -> None:
        self.guest = guest
        self.seconds = seconds
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._reader = qmp.Reader(guest)
        self._pending: dict[int, str] = {}
        self._answers: dict[int, Answer] = {}
        self._greeting: Greeting | None = None
        self._serial = 0
        self._socket: socket.socket | None = None
        try:
            with deadlines.limit(seconds):
                if isinstance(where, socket.socket):
                    where.setblocking(False)
                    self._socket = where
                else:
                    self._socket = self._connect(os.fspath(where))
                # Sent without waiting for the greeting, which QEMU sends before it reads: one turn less.
                self.execute("qmp_capabilities")
            if self._greeting is None:
                raise MonitorClosed(f"QEMU's monitor has sent no greeting (vm='{guest}')")
            self.version, self.package, _ = self._greeting
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The socket's descriptor, to be waited on together with others.

        Raises:
            MonitorClosed: the monitor is closed.
        """
        return self._open().fileno()

    def close(self) -> None:
        """Close the connection; may be called any number of times."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, fds: Sequence[int] = ()) -> object:
        """Run one command and return its result.

        Args:
            command: name of a QMP command.
            arguments: its arguments.
            fds: descriptors that go with it (add-fd, getfd); they stay open here.

        Raises:
            QMPError: QEMU refused it.
            MonitorClosed, DeadlineExceeded: it is not known whether QEMU did it. The monitor is closed.
        """
        (result,) = self.execute_all([(command, arguments)], fds)
        if isinstance(result, QMPError):
            raise result
        return result

    def execute_all(self, commands: Iterable[Command], fds: Sequence[int] = ()) -> list[object]:
        """Send several commands at once and collect what comes of each, in their order.

        Args:
            commands: pairs of name and arguments.
            fds: descriptors that go with the first of them.

        Returns:
            The results; a QMPError stands, not raised, in the place of a command that QEMU refused.

        Raises:
            MonitorClosed, DeadlineExceeded: as execute.
        """
        output = bytearray()
        for name, arguments in commands:
            self._serial += 1
            self._pending[self._serial] = name
            output += qmp.encode_command(name, arguments, self._serial)
        names = list(self._pending.values())
        waited_for = f"answer '{names[0]}'" if len(names) == 1 else f"answer {len(names)} commands"
        with deadlines.limit(self.seconds):
            self._pump(lambda: len(self._answers) == len(names), waited_for, output, fds)
        results: list[object] = []
        for serial, name in self._pending.items():
            answer = self._answers[serial]
            results.append(answer.result if answer.error is None else QMPError(name, *answer.error))
        self._pending.clear()
        self._answers.clear()
        return results

    def query(self, command: str, arguments: Mapping[str, object] | None = None) -> shape.Table:
        """As execute, for a command that answers an object."""
        return shape.as_table(self.execute(command, arguments), command)

    def query_list(self, command: str, arguments: Mapping[str, object] | None = None) -> list[shape.Table]:
        """As execute, for a command that answers a list of objects."""
        return shape.as_tables(self.execute(command, arguments), command)

    def wait_event(
        self,
        *names: str,
        matching: Callable[[Event], bool] = lambda event: True,
        seconds: float = DEFAULT_SECONDS,
    ) -> Event:
        """Take the first event of one of these names out of `events`, waiting for it if it is not there.

        Args:
            names: names of events.
            matching: what else the event has to fulfil, for example whose device it is.
            seconds: how long to wait.

        Raises:
            DeadlineExceeded: it did not come in time. The monitor stays usable.
            MonitorClosed: the connection ended.
        """

        def found() -> Event | None:
            return next((event for event in self.events if event.name in names and matching(event)), None)

        with deadlines.limit(seconds):
            self._pump(lambda: found() is not None, f"report {' or '.join(names)}", keep=True)
        event = found()
        assert event is not None
        self.events.remove(event)
        return event

    def read_events(self) -> list[Event]:
        """What has happened so far, without waiting; empties `events`.

        Raises:
            MonitorClosed: the connection ended, and there are no events left to give.
        """
        try:
            while deadlines.readable(self.fileno(), 0):
                self._receive()
        except MonitorClosed:
            if not self.events:
                raise
        events = list(self.events)
        self.events.clear()
        return events

    def _connect(self, path: str) -> socket.socket:
        began = time.monotonic()
        try:
            connection = sockets.connect(path, timeout=deadlines.remaining(self.seconds))
        except (BlockingIOError, TimeoutError):
            # Its queue is full of those who gave up before: QEMU has accepted none of them.
            raise self._too_late("accept a connection", began) from None
        except OSError as error:
            raise MonitorClosed(
                f"failed to connect to monitor socket of guest '{self.guest}': {error.strerror}",
                code=c.VIR_ERR_OPERATION_FAILED,
            ) from None
        connection.setblocking(False)
        return connection

    def _open(self) -> socket.socket:
        if self._socket is None:
            raise MonitorClosed(f"QEMU's monitor is closed (vm='{self.guest}')")
        return self._socket

    def _pump(
        self,
        done: Callable[[], bool],
        what: str,
        output: bytearray | None = None,
        fds: Sequence[int] = (),
        *,
        keep: bool = False,
    ) -> None:
        """Send output and receive until done; reading goes on while sending, lest both sides wait.

        Args:
            done: asked after each portion received.
            what: what is waited for, for the message of the error.
            output: bytes to send.
            fds: descriptors that go with the first byte.
            keep: whether the monitor stays usable when the time is up.
        """
        began = time.monotonic()
        output = output if output is not None else bytearray()
        while output or not done():
            came = deadlines.ready(self.fileno(), select.POLLIN | (select.POLLOUT if output else 0), math.inf)
            if not came:
                if not keep:
                    self.close()
                raise self._too_late(what, began)
            if output and came & select.POLLOUT and self._send(output, fds):
                fds = ()
            if came & ~select.POLLOUT:
                self._receive()

    def _send(self, output: bytearray, fds: Sequence[int]) -> bool:
        """Send what the socket takes; tells whether it took anything."""
        connection = self._open()
        try:
            count = socket.send_fds(connection, [output], list(fds)) if fds else connection.send(output)
        except BlockingIOError:
            return False
        except OSError as error:
            # What QEMU said before it went is of more use than the broken pipe: it is read first.
            self._receive()
            raise self._broken("write to", error) from None
        del output[:count]
        return True

    def _receive(self) -> None:
        try:
            data = self._open().recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._broken("read from", error) from None
        if not data:
            self.close()
            raise MonitorClosed(f"End of file from qemu monitor (vm='{self.guest}')")
        try:
            for message in self._reader.feed(data):
                self._take(message)
        except MonitorClosed:
            self.close()
            raise

    def _take(self, message: qmp.Message) -> None:
        if isinstance(message, Event):
            self.events.append(message)
        elif isinstance(message, Greeting):
            self._greeting = message
        elif isinstance(message.id, int) and message.id in self._pending:
            self._answers[message.id] = message
        else:
            said = ": ".join(message.error) if message.error else "an unknown id"
            raise MonitorClosed(f"QEMU's monitor answered what was not asked: {said} (vm='{self.guest}')")

    def _broken(self, doing: str, error: OSError) -> MonitorClosed:
        self.close()
        return MonitorClosed(f"Unable to {doing} monitor: {error.strerror} (vm='{self.guest}')")

    def _too_late(self, what: str, began: float) -> deadlines.DeadlineExceeded:
        seconds = time.monotonic() - began
        return deadlines.DeadlineExceeded(
            f"QEMU's monitor did not {what} within {seconds:.3g} s (vm='{self.guest}')",
            domain=c.VIR_FROM_QEMU,
        )
