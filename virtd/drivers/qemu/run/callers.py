"""Those who ask a supervisor for something: processes that connect to its socket, and the one that starts the guest.

A request is a line of JSON, and so is its answer. What a request means is the supervisor's affair; nobody is waited for
here.
"""

import json
import socket
from collections.abc import Callable, Iterator

from virtd import constants as c
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.run.waiting import Waiting
from virtd.errors import VirtError

_LONGEST = 65536  # bytes of a request


class Caller:
    """A process that talks to the supervisor, and what it waits for."""

    __slots__ = ("awaits_end", "awaits_seen", "rest", "socket", "starter")

    def __init__(self, sock: socket.socket, *, starter: bool) -> None:
        self.socket = sock
        self.starter = starter
        self.rest = b""
        self.awaits_seen: int | None = None
        self.awaits_end = False


class Callers:
    """All of them.

    Args:
        waiting: where to wait for them.
        listener: the socket to which they connect.
        do: carries out a request; what it raises is the answer, and it may answer itself, now or later.
        gone: called when a caller has hung up.
    """

    def __init__(
        self,
        waiting: Waiting,
        listener: socket.socket,
        do: Callable[[Caller, shape.Table], None],
        gone: Callable[[Caller], None],
    ) -> None:
        self._waiting = waiting
        self._listener = listener
        self._do = do
        self._gone = gone
        self._callers: dict[int, Caller] = {}
        listener.setblocking(False)
        waiting.watch(listener.fileno(), self._accept)

    def __iter__(self) -> Iterator[Caller]:
        return iter(list(self._callers.values()))

    def add(self, sock: socket.socket, *, starter: bool) -> None:
        """Serve a process from now on."""
        caller = Caller(sock, starter=starter)
        self._callers[sock.fileno()] = caller
        self._waiting.watch(sock.fileno(), lambda: self._serve(caller))

    def reply(self, caller: Caller, *, error: VirtError | None = None) -> None:
        """Say that a request was carried out, or why not."""
        self.answer(caller, {"ok": True} if error is None else {"error": error.detail, "code": error.code})

    def answer(self, caller: Caller, answer: dict[str, object]) -> None:
        """Say something else."""
        try:
            # An answer is some bytes, a caller waits for it: it never fills the socket's buffer.
            caller.socket.send(json.dumps(answer).encode() + b"\n", socket.MSG_DONTWAIT)
        except OSError:
            self._drop(caller)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        self.add(sock, starter=False)

    def _serve(self, caller: Caller) -> None:
        try:
            data = caller.socket.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(caller.rest) > _LONGEST:
            self._drop(caller)
            self._gone(caller)
            return
        *lines, caller.rest = (caller.rest + data).split(b"\n")
        for line in lines:
            try:
                self._do(caller, shape.as_table(json.loads(line), "request"))
            except (ValueError, VirtError, OSError) as error:
                failure = error if isinstance(error, VirtError) else VirtError(c.VIR_ERR_INTERNAL_ERROR, str(error))
                self.reply(caller, error=failure)

    def _drop(self, caller: Caller) -> None:
        self._callers.pop(caller.socket.fileno(), None)
        self._waiting.unwatch(caller.socket.fileno())
        caller.socket.close()
