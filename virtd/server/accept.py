"""The accept loop: forks processes which wait for clients, counts them, reaps them.

What it does not do, and must not begin to do:

- it reads nothing that a client sent, writes nothing to a client, and waits for none;
- it looks into no guest, no file below the state directories, no driver;
- it looks up no name, asks no other service, takes no lock that it does not hold from the start to the end;
- it accepts no connection on a Unix socket: waiting processes do (spare.py). It accepts those from the network, and
  takes over clients which the finder may not serve, to fork for each;
- it says no to nobody: that a limit is reached it decides, but a child speaks (refusal.py);
- it acts in no signal handler, starts no thread, and is woken by nothing while nothing happens;
- it is stopped by no failure of fork(): it tries again, after a moment that doubles up to `SLOWEST`.

All that can block it is the fork itself.
"""

import contextlib
import math
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

from virtd.errors import VirtError
from virtd.server import auth, log, process, reports, takeover
from virtd.server.children import HELPING, REFUSING, SERVING, WAITING, Children
from virtd.server.config import Config
from virtd.server.listeners import Listener
from virtd.server.process import RETIRE, Signals, count, title
from virtd.server.refusal import refuse
from virtd.server.reports import Report
from virtd.server.shared import Shared
from virtd.server.spare import Accepted, Spare
from virtd.state.locks import Lock
from virtd.state.paths import Paths

if TYPE_CHECKING:
    from virtd.server.front import Target

QUICKEST, SLOWEST = 0.1, 5.0  # seconds between attempts to fork
SURPLUS = 4  # waiting processes above min_workers that are kept: clients that come and go cost no fork then
AHEAD = 3  # of them that are forked when a client has left fewer than min_workers: see Accept._balance
REFUSALS = 32  # processes that may be busy telling clients of a limit; above it they are hung up on
PENDING = 64  # clients that may wait for fork() to work again
PATIENCE = 10.0  # seconds that calls in flight may take after SIGTERM
QUICK_END = 1.0  # seconds: a waiting process that ends sooner will not do better next time
AFTER = 2.0  # seconds more for the workers to end by themselves


# How far the accept loop has come in its own life.
ACCEPTING: Final = "accepting"
DRAINING: Final = "draining"  # another virtd has taken over, or nobody came for long: clients stay to their end
STOPPING: Final = "stopping"  # SIGTERM: calls in flight may end, for a while


class AcceptLoop:
    """The accept loop of one instance.

    Args:
        config: the settings.
        paths: the instance's directories.
        listeners: the sockets to serve.
        lock: the instance's lock; it is let go when nobody is accepted any more.
        control: the socket on which another virtd may ask to take over.
        timeout: seconds without any client after which to end; None for never.
        reload: reads the configuration anew and sees to the log; raises VirtError if that cannot be.
        own: says which more descriptors of this process its children have to close.
        target: where clients are forwarded to, with --remote.
        files: files to remove when nobody is accepted any more (the pid file, the control socket).
    """

    def __init__(
        self,
        config: Config,
        paths: Paths,
        listeners: list[Listener],
        lock: Lock,
        control: socket.socket,
        reload: Callable[[], Config],
        *,
        timeout: float | None = None,
        files: tuple[str, ...] = (),
        own: Callable[[], tuple[int, ...]] = tuple,
        target: "Target | None" = None,
    ) -> None:
        self.listeners = listeners
        self.lock = lock
        self.reload = reload
        self.files = files
        self._own = own
        self.timeout = timeout
        self.takeover = takeover.Server(control, lock.descriptor, listeners)
        self.network = {entry.sock.fileno(): entry for entry in listeners if entry.transport != "unix"}
        unix = [entry for entry in listeners if entry.transport == "unix"]
        self.shared = Shared(config, paths, unix, target=target)
        self.children = Children()
        self.pending: deque[Accepted] = deque()
        self.phase = ACCEPTING
        process.handle_signals()
        self.signals = Signals()
        self.poll = select.poll()
        for descriptor in (self.signals.fileno(), self.shared.reports.reader.fileno(), control.fileno()):
            self.poll.register(descriptor, select.POLLIN)
        for descriptor in self.network:
            self.poll.register(descriptor, select.POLLIN)
        self._listening = True  # the network sockets are in the poll set
        self._delay = QUICKEST
        self._next_fork = 0.0  # not before this time
        self._idle_since = time.monotonic()  # infinite while there are clients
        self._deadline = math.inf  # of all children, when stopping
        self._address = listeners[0].address if listeners else "nothing"

    # The loop

    def start(self) -> None:
        """Fork the first waiting processes. When it returns, clients are served.

        Raises:
            OSError: not even one could be forked.
        """
        self._fork_spare()
        self._balance()
        self._show()

    def run(self) -> None:
        """Serve until told to end."""
        while self.phase is ACCEPTING or self.children or self.pending:
            self._show()
            self._turn(self.poll.poll(self._wait()))
        log.info("virtd ends")

    def _turn(self, ready: list[tuple[int, int]]) -> None:
        for descriptor, _events in ready:
            if descriptor == self.signals.fileno():
                self._handle(self.signals.read())
            elif descriptor == self.shared.reports.reader.fileno():
                self._read_reports()
            elif descriptor in self.network:
                self._accept(self.network[descriptor])
            else:
                self._control(descriptor)
        now = time.monotonic()
        if now >= self._deadline:
            self._deadline = math.inf
            log.warning(f"{count(len(self.children), 'worker')} did not end in time")
            self._signal_all(signal.SIGKILL)
        self._serve_pending()
        if self.phase is ACCEPTING:
            self._balance()
            if now >= self._idle_end():
                log.info(f"no client for {self.timeout:g} s")
                self._drain(remove=True)

    def _wait(self) -> float | None:
        """Milliseconds until something has to be done without an event; None if nothing has."""
        ends = [self._deadline, self._idle_end() if self.phase is ACCEPTING else math.inf]
        if self.pending or (self.phase is ACCEPTING and self.children.available < self._spares()):
            ends.append(self._next_fork)
        end = min(ends)
        return None if end == math.inf else max(0.0, (end - time.monotonic()) * 1000 + 1)

    def _idle_end(self) -> float:
        if self.timeout is None:
            return math.inf
        if self.children.serving or self.pending:
            self._idle_since = math.inf
        elif self._idle_since == math.inf:
            self._idle_since = time.monotonic()
        return self._idle_since + self.timeout

    def _show(self) -> None:
        clients = count(self.children.serving, "client")
        if self.phase is ACCEPTING:
            title(f"accepting {self._address} ({clients})")
        else:
            title(f"{self.phase} ({clients})")

    # Children

    def _spares(self, ahead: int = 0) -> int:
        """How many processes should wait: min_workers, less near max_clients, but always one who can say no.

        Args:
            ahead: how many more.
        """
        config = self.shared.config
        return max(1, min(config.number("min_workers") + ahead, config.number("max_clients") - self.children.serving))

    def _balance(self) -> None:
        """Fork waiting processes that are missing, let surplus ones go, and say whether clients must be counted."""
        config = self.shared.config
        wanted = self._spares()
        # Several at a time: what this process writes to after a fork is copied once for all of them, and what was there
        # before is shared by them all, and not the memory of one.
        goal = self._spares(AHEAD) if self.children.serving else wanted
        # Said before the fork: even if each waiting process takes a client, the limit must stand.
        possible = self.children.serving + self.children.retired_waiting + max(self.children.available, goal)
        self.shared.ask = possible > config.number("max_clients")
        if self.children.available < wanted:
            while self.children.available < goal and time.monotonic() >= self._next_fork and self._try_fork():
                continue
        surplus = self.children.available - wanted - SURPLUS
        if surplus > 0:
            for pid in self.children.most_used(surplus):
                self._retire(pid)

    def _try_fork(self) -> bool:
        try:
            self._fork_spare()
        except OSError as error:
            self._fork_failed(error)
            return False
        return True

    def _fork_failed(self, error: OSError) -> None:
        log.error(f"cannot fork child process: {error.strerror}; trying again in {self._delay:g} s")
        self._back_off()

    def _back_off(self) -> None:
        self._next_fork = time.monotonic() + self._delay
        self._delay = min(SLOWEST, self._delay * 2)
        self._listen(False)

    def _listen(self, wanted: bool) -> None:
        """Take connections from the network, or leave them in the kernel's queue while nobody can be forked."""
        if wanted == self._listening:
            return
        self._listening = wanted
        for descriptor in self.network:
            if wanted:
                self.poll.register(descriptor, select.POLLIN)
            else:
                self.poll.unregister(descriptor)

    def _fork_spare(self) -> None:
        self._fork(None, WAITING)

    def _fork(self, accepted: Accepted | None, state: str, reason: str = "") -> None:
        """Fork a child which waits for clients, serves one, or says why it does not.

        Raises:
            OSError: EAGAIN or ENOMEM.
        """
        pid = process.fork()
        if not pid:
            self._child(accepted, reason)
        self.children.add(pid, state, accepted is not None and not accepted.peer.known)
        if self.phase is DRAINING:
            self._retire(pid)
        if accepted is not None:
            accepted.sock.close()
        self._delay = QUICKEST
        self._listen(self.phase is ACCEPTING)

    def _child(self, accepted: Accepted | None, reason: str) -> NoReturn:
        """What a forked child does: let go of what is the accept loop's, and live its own life."""
        status = 1
        try:
            title("spare")
            self._let_go()
            for waiting in self.pending:
                if waiting is not accepted:
                    waiting.sock.close()
            if accepted is not None and reason:
                process.default_signals()
                refuse(accepted.sock, accepted.peer, reason)
            else:
                # What the terminal sends to the server is for the accept loop to handle.
                os.setpgid(0, 0)
                Spare(self.shared).run(accepted)
            status = 0
        except BaseException as problem:
            log.bug("worker failed", problem)
        finally:
            os._exit(status)

    def help(self, work: Callable[[], None]) -> None:
        """Have something done for the server by a child of its own."""
        try:
            pid = process.fork()
        except OSError as error:
            log.error(f"cannot fork child process: {error.strerror}")
            return
        if pid:
            self.children.add(pid, HELPING)
            return
        status = 1
        try:
            self._let_go()
            process.default_signals()
            work()
            status = 0
        except BaseException as problem:
            log.bug("a helper failed", problem)
        finally:
            os._exit(status)

    def _let_go(self) -> None:
        """In a child: close what is the accept loop's."""
        for descriptor in self._own():
            os.close(descriptor)
        self.signals.close()
        self.shared.reports.reader.close()
        os.close(self.shared.lifeline_writer)
        self.takeover.hang_up()
        self.takeover.control.close()
        self.lock.pass_on()
        for listener in self.network.values():
            listener.sock.close()

    def _retire(self, pid: int) -> None:
        self.children.retire(pid)
        process.kill(pid, RETIRE)

    def _signal_all(self, number: int) -> None:
        for pid in self.children.pids():
            process.kill(pid, number)

    # What happens

    def _read_reports(self) -> None:
        while found := self.shared.reports.read():
            for report in found:
                self._heard(report)

    def _heard(self, report: Report) -> None:
        if report.kind == reports.PASSED and report.client is not None:
            self._take(Accepted(report.client, auth.unix_peer(report.client, report.read_only)))
        elif report.kind == reports.TOOK:
            self.children.change(report.pid, SERVING)
        elif report.kind == reports.WAITING:
            self.children.change(report.pid, WAITING)
        elif report.kind == reports.KNOWN:
            self.children.known(report.pid)

    def _accept(self, listener: Listener) -> None:
        try:
            sock, _address = listener.sock.accept()
        except OSError as error:
            if not isinstance(error, BlockingIOError | ConnectionError):
                # Out of descriptors or memory: the connection stays in the queue, and would wake us at once again.
                self._fork_failed(error)
            return
        with contextlib.suppress(OSError):  # the client may be gone again
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._take(Accepted(sock, auth.network_peer(sock)))

    def _take(self, accepted: Accepted) -> None:
        """Fork for a client, or keep it until that is possible."""
        if len(self.pending) >= PENDING or self.phase is STOPPING:
            log.warning(f"{accepted.peer.label}: hung up, because no process can be forked for it")
            accepted.sock.close()
            return
        self.pending.append(accepted)
        self._serve_pending()

    def _serve_pending(self) -> None:
        while self.pending and time.monotonic() >= self._next_fork:
            accepted = self.pending[0]
            reason = self._limit(accepted)
            state = REFUSING if reason else SERVING
            if reason and self.children.number(REFUSING) >= REFUSALS:
                self.pending.popleft().sock.close()
                continue
            try:
                self._fork(accepted, state, reason)
            except OSError as error:
                self._fork_failed(error)
                return
            self.pending.popleft()

    def _limit(self, accepted: Accepted) -> str:
        """The limit for which a client cannot be served; empty if there is none."""
        config = self.shared.config
        clients, anonymous = config.number("max_clients"), config.number("max_anonymous_clients")
        if self.children.serving >= clients:
            return f"max_clients = {clients}"
        if not accepted.peer.known and 0 < anonymous <= self.children.anonymous:
            return f"max_anonymous_clients = {anonymous}"
        return ""

    def _handle(self, signals: set[int]) -> None:
        if signal.SIGCHLD in signals:
            # First what they said: the last words of a child may carry a client.
            self._read_reports()
            self._reap()
        if signals & {signal.SIGTERM, signal.SIGINT}:
            self._stop()
        if signal.SIGHUP in signals and self.phase is ACCEPTING:
            self._reload()

    def _reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            child = self.children.remove(pid)
            if child is None:
                continue
            if os.WIFSIGNALED(status) and self.phase is ACCEPTING:
                log.warning(f"the {child.state} process {pid} was killed by signal {os.WTERMSIG(status)}")
            if child.state is not WAITING or child.retired or self.phase is not ACCEPTING:
                continue
            # It may have been woken for a connection that nobody else knows of. A new process sees it.
            if child.age < QUICK_END:
                log.error(f"a waiting process ended at once ({os.waitstatus_to_exitcode(status)})")
                self._back_off()
            else:
                self._try_fork()

    def _reload(self) -> None:
        """SIGHUP: new settings for those who come from now on. Sockets stay as they are."""
        try:
            self.shared.config = self.reload()
        except VirtError as error:
            log.error(f"the configuration stays as it was: {error.message}")
            return
        for pid in self.children.waiting():
            self._retire(pid)
        log.info("the configuration was read again")

    def _control(self, descriptor: int) -> None:
        server = self.takeover
        if descriptor == server.control.fileno():
            before = server.connection
            server.accept()
            if server.connection is not None and server.connection is not before:
                self.poll.register(server.connection.fileno(), select.POLLIN)
            return
        replaced = server.received()
        if server.connection is None:
            self.poll.unregister(descriptor)
        if replaced:
            log.info("another virtd has taken over")
            self._drain(remove=False)

    def _drain(self, remove: bool) -> None:
        """Accept nobody more; who is connected stays to the end.

        Args:
            remove: remove the sockets' files; False if another process serves them now.
        """
        self._close(DRAINING, remove)
        for pid in self.children.pids():
            self._retire(pid)

    def _stop(self) -> None:
        """SIGTERM: accept nobody more, and let the calls in flight end; a second time: end now."""
        patience = 0.0 if self.phase is STOPPING else PATIENCE
        if self.phase is ACCEPTING:
            self._close(STOPPING, remove=True)
        self.phase = STOPPING
        self._deadline = time.monotonic() + patience + AFTER
        self._signal_all(signal.SIGTERM)

    def _close(self, phase: str, remove: bool) -> None:
        self.phase = phase
        if remove:
            for listener in self.listeners:
                listener.remove()
            for path in self.files:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        self._listen(False)
        for listener in self.listeners:
            listener.sock.close()
        if self.takeover.connection is not None:
            self.poll.unregister(self.takeover.connection.fileno())
            self.takeover.hang_up()
        self.poll.unregister(self.takeover.control.fileno())
        self.takeover.control.close()
        # Who is forked from now on serves one client and waits for none.
        self.shared.listeners = []
        while self.pending and phase is STOPPING:
            self.pending.popleft().sock.close()
        # The last of all, and the lock itself lives on in another virtd if that one has its descriptor.
        if remove:
            self.lock.release()
        else:
            self.lock.pass_on()
