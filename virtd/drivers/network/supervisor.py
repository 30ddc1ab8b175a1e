"""The supervisor: the process beside a network's dnsmasq, its parent.

It starts dnsmasq, starts it again when it dies, and makes libvirt's status file of the leases whenever they change. It
holds no state: killed, it is replaced by the next process that looks (`replace`), which takes over a dnsmasq that is
not its child. Its own end, by whatever signal, ends nothing else; `stop` ends both.
"""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.network import dnsmasq, leases
from virtd.drivers.network.running import Running
from virtd.errors import VirtError
from virtd.state import files, inotify, locks
from virtd.state.faults import point
from virtd.state.process import Process, detach, log

# How long the supervisor may take to say that dnsmasq runs.
READY_SECONDS = dnsmasq.START_SECONDS + 5.0
# How long a new supervisor waits for its lock.
_LOCK_SECONDS = 0.5
# How long dnsmasq may take to end.
_TERM_SECONDS = 5.0
# A dnsmasq that dies sooner than this after its start is not started again at once, but after a time that doubles.
_YOUNG_SECONDS = 5.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
# Changes of the leases that come in this time are written down together: dnsmasq writes its file piece by piece.
_SETTLE_SECONDS = 0.02
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


class _Supervisor:
    """The supervision of one dnsmasq, in the process that does it."""

    def __init__(self, running: Running, bridge: str) -> None:
        self._running = running
        self._status_file = running.lease_status(bridge)
        self._busy = False
        self._ended = False
        self._pause = 0.0
        signal.signal(signal.SIGTERM, self._terminate)
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._watch = inotify.Watch(running.lease_directory, inotify.IN_MODIFY | inotify.IN_CREATE)

    def _terminate(self, number: int, frame: object) -> None:
        # In the middle of a start nobody would know of the dnsmasq that comes into being.
        self._ended = True
        if not self._busy:
            os._exit(0)

    @contextlib.contextmanager
    def _uninterrupted(self) -> Iterator[None]:
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            if self._ended:
                os._exit(0)

    def begin(self) -> Process:
        """The network's dnsmasq: the one that runs, or a new one.

        Raises:
            VirtError: it cannot be started.
        """
        with self._uninterrupted():
            where = self._running.files
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the start waits for a child
            process = dnsmasq.running(where)
            if process is None:
                try:
                    point("dnsmasq.start")
                    process = dnsmasq.start(where)
                    point("dnsmasq.started")
                except VirtError:
                    # The supervisor before may have been killed while its dnsmasq was on the way.
                    process = dnsmasq.running(where)
                    if process is None:
                        raise
            # From now on children go without leaving anything: the one that went into the background for dnsmasq, and
            # dnsmasq itself, whose end a pidfd tells.
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            _reap()
            self._publish()
            return process

    def run(self, process: Process | None) -> None:
        """Supervise for ever."""
        while True:
            begun = time.monotonic()
            if process is not None:
                self._follow(process)
                log(f"dnsmasq of network '{self._running.name}' has ended")
            young = time.monotonic() - begun < _YOUNG_SECONDS
            self._pause = min(max(_FIRST_PAUSE, self._pause * 2), _LONGEST_PAUSE) if young else 0.0
            select.select([], [], [], self._pause)
            try:
                process = self.begin()
                log(f"dnsmasq of network '{self._running.name}' has been started again")
            except VirtError as error:
                log(str(error))
                process = None

    def _follow(self, process: Process) -> None:
        """Return when dnsmasq has ended; until then write down what becomes of the leases."""
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.register(self._watch.fileno(), select.POLLIN)
            while process.alive():
                ready = [number for number, _ in poll.poll()]
                if descriptor in ready:
                    return
                self._settle()
        finally:
            os.close(descriptor)

    def _settle(self) -> None:
        self._watch.clear()
        while deadlines.readable(self._watch.fileno(), _SETTLE_SECONDS):
            self._watch.clear()
        self._publish()

    def _publish(self) -> None:
        try:
            leases.publish(self._running.files.leases, self._status_file)
        except VirtError as error:
            log(str(error))


def _reap() -> None:
    """Reap the children that have ended already."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def launch(running: Running, bridge: str) -> None:
    """Start the supervisor of a network's dnsmasq, and that; its files have been written.

    Raises:
        VirtError: dnsmasq cannot be started; there is no supervisor then.
    """

    def body(tell: int) -> None:
        try:
            lock = _lock(running)
            supervisor = _Supervisor(running, bridge)
            process = supervisor.begin()
        except VirtError as error:
            _say(tell, error)
            return
        _say(tell, None)
        assert lock.fileno() >= 0
        supervisor.run(process)

    _hear(_detach(running, body), running.name)


def replace(running: Running, bridge: str) -> None:
    """Put a new supervisor beside the dnsmasq of a network whose own has died; returns when it is at work."""

    def body(tell: int) -> None:
        try:
            lock = _lock(running)
        except VirtError:
            return  # somebody else was quicker
        _say(tell, None)
        status = running.status()
        if status is None or not status.active:
            # It has ended. Of its directory there may be nothing but what the lock has just made again.
            mine = locks.attempt(running.lock_path, "the clean-up after a network")
            if mine is not None:
                running.unlock(mine)
            return
        assert lock.fileno() >= 0
        supervisor = _Supervisor(running, bridge)
        log(f"a new supervisor of network '{running.name}' has taken over")
        try:
            process: Process | None = supervisor.begin()
        except VirtError as error:
            log(str(error))
            process = None
        supervisor.run(process)

    told = _detach(running, body)
    deadlines.readable(told, _LOCK_SECONDS)
    os.close(told)


def _lock(running: Running) -> locks.Lock:
    # Those who look whether anybody holds the lock hold it themselves for a moment.
    return locks.acquire(running.supervisor_path, "the supervisor", timeout=_LOCK_SECONDS)


def _detach(running: Running, body: Callable[[int], None]) -> int:
    """Run a supervisor's body in a process of its own; returns what it will say can be read from."""
    told, tell = os.pipe()
    try:
        detach(lambda: body(tell), f"virtd: network {running.name}", running.log_path, keep=[tell])
    finally:
        os.close(tell)
    return told


def _say(tell: int, error: VirtError | None) -> None:
    """Tell whoever waits how it went, and that there is no more to come."""
    answer = {} if error is None else {"error": error.detail, "code": error.code}
    with contextlib.suppress(OSError):  # whoever asked has gone
        files.write_all(tell, json.dumps(answer).encode())
    os.close(tell)


def _hear(told: int, name: str) -> None:
    line = b""
    try:
        while True:
            if not deadlines.readable(told, READY_SECONDS):
                raise deadlines.DeadlineExceeded(f"dnsmasq of network '{name}' did not start in time")
            chunk = os.read(told, 65536)
            if not chunk:
                break
            line += chunk
    finally:
        os.close(told)
    if not line:
        text = f"the supervisor of network '{name}' ended during the start; its log says why"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NETWORK)
    answer = json.loads(line)
    if "error" in answer:
        raise VirtError(int(answer["code"]), str(answer["error"]), domain=c.VIR_FROM_NETWORK)


def stop(running: Running) -> None:
    """End a network's supervisor and its dnsmasq.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, one of them does not end.
    """
    held, holder = locks.probe(running.supervisor_path)
    if held and holder is not None:
        _end(holder.pid, READY_SECONDS, lambda: _holder(running) == holder.pid)
    # Whoever has it now is nobody who starts a dnsmasq.
    lock = locks.acquire(running.supervisor_path, "the end of the network", what="supervisor's lock")
    try:
        process = dnsmasq.running(running.files)
        if process is not None:
            _end(process.pid, _TERM_SECONDS, process.alive)
    finally:
        lock.release()


def _holder(running: Running) -> int | None:
    """The supervisor's process id; None if there is none."""
    held, holder = locks.probe(running.supervisor_path)
    return holder.pid if held and holder is not None else None


def _end(pid: int, seconds: float, meant: Callable[[], bool]) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The number may have become another process's before the descriptor was made, not after.
        if not meant():
            return
        for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, _TERM_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            if deadlines.readable(descriptor, patience):
                return
    finally:
        os.close(descriptor)
    text = f"process {pid} does not end"
    raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)
