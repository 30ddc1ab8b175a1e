"""Data beside a call: the stream that a procedure opens, and the process that does the work at its other end.

A driver in this process gives its work with the reply, and may hold locks and descriptors for it. So such a call is
made in a child, whole, as a server's worker makes it; this process reads and writes meanwhile. Every transfer is
ended by finish() or abort(), which a `with` block does by itself.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import stat

from virtd import constants as c
from virtd.drivers.base import Reply
from virtd.errors import VirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, NoReturn

# The largest message between the two processes: an error with all its strings.
_MESSAGE = 1 << 17
# How many seconds the other end has to take leave.
_PATIENCE = 5.0


class Transfer:
    """A running stream.

    Args:
        method: the procedure that opens it.
        args: the procedure's arguments.
        sparse: whether holes can be dealt with here.

    Attributes:
        value: the procedure's result.
        descriptor: where the data comes from and goes to; read and write it as any descriptor.
        holes: what flows there are parts with heads (virtd.drivers.holes); else holes are zeros.

    Raises:
        VirtError: what the procedure says.
    """

    def __init__(self, method: Callable[..., Any], args: tuple[Any, ...], *, sparse: bool = False) -> None:
        self._reports, report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = os.fork()
        if self._child == 0:
            self._reports.close()
            _serve(method, args, report, sparse=sparse)
        report.close()
        self.descriptor = -1
        try:
            self.value, self.holes = self._outcome()
        except BaseException:
            self.abort()
            raise

    def __enter__(self) -> Transfer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def _outcome(self) -> Any:
        """What the other process has to say next: of the call, then of the stream's end."""
        message, descriptors, _, _ = socket.recv_fds(self._reports, _MESSAGE, 1)
        if descriptors:
            self.descriptor = descriptors[0]
        if not message:
            raise VirtError(c.VIR_ERR_RPC, "stream had I/O failure", domain=c.VIR_FROM_STREAMS)
        outcome = pickle.loads(message)
        if isinstance(outcome, VirtError):
            raise outcome
        return outcome

    def finish(self) -> None:
        """End the stream well: all has been written, or read.

        Raises:
            VirtError: what went wrong at the other end.
        """
        if not self._child:
            return
        try:
            if stat.S_ISSOCK(os.fstat(self.descriptor).st_mode):
                # The end of what is written; what is still to be read must not hold up the other end.
                with socket.socket(fileno=os.dup(self.descriptor)) as both:
                    both.shutdown(socket.SHUT_WR)
                os.set_blocking(self.descriptor, True)
                while os.read(self.descriptor, 65536):
                    pass
        except OSError:
            pass  # ended already
        try:
            self._close()
            self._outcome()
        finally:
            self._reap()

    def hang_up(self) -> None:
        """Leave a conversation that has no end of its own; what the other end makes of it does not matter."""
        if self._child:
            self._close()
            if not select.select([self._reports], [], [], _PATIENCE)[0]:
                os.kill(self._child, signal.SIGTERM)
            self._reap()

    def abort(self) -> None:
        """End the stream at once, whatever has become of the data."""
        if self._child:
            try:
                os.kill(self._child, signal.SIGTERM)
            except ProcessLookupError:
                pass
            self._close()
            self._reap()

    def _close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _reap(self) -> None:
        os.waitpid(self._child, 0)
        self._child = 0
        self._reports.close()


def _serve(method: Callable[..., Any], args: tuple[Any, ...], report: socket.socket, *, sparse: bool) -> NoReturn:
    """Make the call, hand over the stream's near end, do the work at its far end. In the child."""
    try:
        # A key that interrupts this program's user is no order to break off what runs behind the stream.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            reply = method(*args)
            if not isinstance(reply, Reply) or reply.stream is None:
                raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "the call opened no stream")
            stream = reply.stream.sparse() if sparse and reply.stream.sparse else reply.stream
            socket.send_fds(report, [pickle.dumps((reply.value, stream.holes))], [stream.descriptor])
            os.close(stream.descriptor)
            if stream.work is not None:
                stream.work()
            report.send(pickle.dumps(None))
        except VirtError as error:
            report.send(pickle.dumps(error))
        except OSError as error:
            report.send(pickle.dumps(VirtError(c.VIR_ERR_SYSTEM_ERROR, str(error))))
    finally:
        os._exit(0)
