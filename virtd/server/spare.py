"""The life of a process that the accept loop forked: wait for a client, serve it, wait for the next one like it.

All waiting processes have the same listening sockets in an epoll set of their own, EPOLLEXCLUSIVE, so that a
connection wakes one of them. A process that has served somebody serves the next client only if it is the same user by
the same kind of socket; any other it passes to the accept loop, which forks for it. So it does with every client while
the accept loop has to count them one by one (`Shared.ask`).

A process that stops waiting closes its epoll set first and then accepts once more: a connection for which the
kernel woke this process, and nobody else, is not left lying.
"""

import select
import signal
import socket
from typing import NamedTuple

from virtd.server import auth, log
from virtd.server.channel import SocketChannel
from virtd.server.listeners import Listener
from virtd.server.process import RETIRE, Signals, title
from virtd.server.reports import TOOK, WAITING
from virtd.server.shared import Shared
from virtd.server.worker import serving

LIVES = 1000  # clients of one process, one after the other: what leaks anywhere below, ends with them


class Accepted(NamedTuple):
    """A client that came in."""

    sock: socket.socket
    peer: auth.Peer


class Spare:
    """One process of the accept loop, from its fork to its end."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.signals = Signals()
        self.kind: tuple[int, int, bool] | None = None  # of the clients it may serve
        self.leaving = False
        self.by_fd = {listener.sock.fileno(): listener for listener in shared.listeners}
        self.epoll = select.epoll()
        shared.keep_private(self.epoll.fileno())
        self.epoll.register(self.signals.fileno(), select.EPOLLIN)
        self.epoll.register(shared.lifeline, select.EPOLLIN)
        for descriptor in self.by_fd:
            self.epoll.register(descriptor, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def run(self, first: Accepted | None = None) -> None:
        """Serve clients until there is no reason to wait for more.

        Args:
            first: a client that the accept loop has accepted already.
        """
        accepted = first or self.wait()
        lives = 0
        while accepted is not None:
            if accepted is not first:
                self.shared.reports.send(TOOK)
            lives += 1
            identity = accepted.peer.identity
            self.kind = (identity.uid, identity.gid, identity.read_only)
            log.about(accepted.peer.label)
            worker = serving(
                SocketChannel(accepted.sock, unix=identity.transport == "unix"),
                accepted.peer,
                self.shared,
                self.signals,
            )
            reusable = worker.run() and identity.transport == "unix" and lives < LIVES
            log.about("")
            if not reusable or self.leaving or worker.leaving or not self.shared.reports.send(WAITING):
                return
            title(f"spare ({accepted.peer.label})")
            del worker
            accepted = self.wait()

    def wait(self) -> Accepted | None:
        """Wait for a client of our kind; None if the time has come to end."""
        while not self.leaving:
            for descriptor, _events in self.epoll.poll():
                listener = self.by_fd.get(descriptor)
                if descriptor == self.signals.fileno():
                    signals = self.signals.read()
                    # A retired process looks whether it was woken for somebody; a stopped server takes nobody in.
                    if signal.SIGTERM in signals:
                        return None
                    self.leaving = self.leaving or RETIRE in signals
                elif listener is None:
                    self.leaving = True
                elif accepted := self._accept(listener):
                    return accepted
        return self._last()

    def _last(self) -> Accepted | None:
        """Stop waiting, and take the client for which this process may have been woken already."""
        self.epoll.close()
        accepted = None
        for listener in self.shared.listeners:
            accepted = accepted or self._accept(listener)
            listener.sock.close()
        return accepted

    def close(self) -> None:
        """Let go of it all: no process ends with it."""
        self.epoll.close()
        self.signals.close()

    def _accept(self, listener: Listener) -> Accepted | None:
        """Accept a client if there is one; one that is not ours to serve is passed on."""
        try:
            sock, _address = listener.sock.accept()
        except OSError:
            # Somebody else was quicker, or the client has gone again.
            return None
        peer = auth.unix_peer(sock, listener.read_only)
        identity = peer.identity
        kind = (identity.uid, identity.gid, identity.read_only)
        if (self.shared.ask or self.kind not in (None, kind)) and self.shared.reports.pass_on(sock, listener.read_only):
            sock.close()
            return None
        return Accepted(sock, peer)
