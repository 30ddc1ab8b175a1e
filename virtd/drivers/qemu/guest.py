"""A running guest as what it is on disk: one directory, named by its uuid.

    lock          the state change lock (virtd.state.locks)
    monitor.sock  QMP, for whoever holds the lock
    query.sock    QMP for queries, under a lock of its own (query.lock), so that no query waits for a long change
    events.sock   QMP, for the supervisor
    control.sock  the supervisor's own socket
    supervisor    locked by the supervisor as long as it lives
    status        run-time facts (status.py)
    live.xml      the live XML (live.secure.xml: with passwords, if there are any)
    plug          a device that is being plugged in, or was when its plugger died (plug/unfinished.py)
    dirty-rate    there if the rate of dirty pages has ever been asked to be measured
    undo          what has to be put back when the guest has ended (undo.py)
    private/      QEMU's own directory, the only one it may write to

All but private/ belongs to the user virtd runs as: a guest that broke out of QEMU must not be able to lie to us.
"""

from __future__ import annotations

import errno
import json
import os

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu import shape
from virtd.errors import VirtError
from virtd.state import files, locks, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from virtd.conf.domain import Domain as Config
    from virtd.drivers.qemu.monitor.client import Event, Monitor
    from virtd.drivers.qemu.status import Status

CHANGE_SECONDS = deadlines.PATIENCE  # how long a monitor may take for the answer to a change
QUERY_SECONDS = min(10.0, deadlines.PATIENCE)  # … to a query


class Guest:
    """The directory of one guest that is running, starting or ending.

    Args:
        base: the directory of all running guests.
        uuid: the guest's uuid as text.
        name: the guest's name, for messages.
    """

    def __init__(self, base: str, uuid: str, name: str) -> None:
        self.uuid = uuid
        self.name = name
        self.directory = f"{base}/{uuid}"
        self.lock_path = f"{self.directory}/lock"
        self.supervisor_path = f"{self.directory}/supervisor"
        self.control_path = f"{self.directory}/control.sock"
        self.monitor_path = f"{self.directory}/monitor.sock"
        self.query_path = f"{self.directory}/query.sock"
        self.events_path = f"{self.directory}/events.sock"
        self.status_path = f"{self.directory}/status"
        self.live_path = f"{self.directory}/live.xml"
        self.secure_path = f"{self.directory}/live.secure.xml"
        self.cpu_path = f"{self.directory}/cpu.xml"  # the CPU that was asked for, if QEMU made another one of it
        self.plug_path = f"{self.directory}/plug"
        self.dirty_rate_path = f"{self.directory}/dirty-rate"
        self.undo_path = f"{self.directory}/undo"
        self.private = f"{self.directory}/private"

    @classmethod
    def of(cls, base: str, config: Config) -> Guest:
        """The directory of the guest of a configuration."""
        return cls(base, *identity(config))

    def lock(self, call: str) -> locks.Lock:
        """Take the state change lock; see virtd.state.locks.acquire()."""
        return locks.acquire(self.lock_path, call, what=f"state change lock of guest '{self.name}'")

    def prepare_live(self, config: Config) -> list[files.Pending]:
        """Write a new live XML to disk, to be published in a commit; the state change lock is held.

        What virDomainGetXMLDesc answers stands in the file as it is. Passwords stand in a second one, where there
        are any; else the second one is empty. Which channels are connected stands in the status alone.
        """
        return self.prepare_texts(*self.live_texts(config))

    @staticmethod
    def live_texts(config: Config) -> tuple[str, str]:
        """The live XML without and with passwords."""
        from virtd.conf.domain import format_both

        for channel in config.channels:
            if channel.state is not None:
                channel.state = "disconnected"
        return format_both(config, live=True)

    def prepare_texts(self, text: str, secrets: str) -> list[files.Pending]:
        """As prepare_live(), of a live XML that has been formatted already, without and with passwords."""
        return [
            files.prepare(self.live_path, text.encode(errors="surrogateescape"), durable=False),
            files.prepare(
                self.secure_path, b"" if secrets == text else secrets.encode(errors="surrogateescape"), durable=False
            ),
        ]

    def live_text(self, *, secure: bool) -> str | None:
        """The live XML; None if the guest has ended.

        Args:
            secure: with passwords.
        """
        content = (files.read(self.secure_path) if secure else None) or files.read(self.live_path)
        return None if content is None else content.decode(errors="surrogateescape")

    def unlock(self, lock: locks.Lock) -> None:
        """Give the state change lock back, and with it the directory if the guest has ended meanwhile."""
        if not os.path.exists(self.status_path):
            self.sweep()
        lock.release()

    def monitor(self) -> Monitor:
        """The monitor of whoever holds the state change lock.

        Raises:
            MonitorClosed: QEMU has ended.
            DeadlineExceeded: QEMU did not answer in time.
        """
        from virtd.drivers.qemu.monitor.client import Monitor

        return Monitor(self.monitor_path, self.name, CHANGE_SECONDS)

    def busy(self) -> float | None:
        """For how many seconds somebody has held the state change lock already; None if nobody does."""
        held, holder = locks.probe(self.lock_path)
        return None if not held else holder.seconds if holder is not None else 0.0

    def status(self) -> Status | None:
        """The guest's run-time facts; None if it has ended."""
        from virtd.drivers.qemu import status

        return status.load(self.status_path)

    def control(self) -> Control:
        """A connection to the guest's supervisor.

        Raises:
            SupervisorGone: VIR_ERR_OPERATION_INVALID, there is none.
        """
        return Control(self)

    def sweep(self) -> None:
        """Remove what is left of the directory of a guest that has ended; the state change lock is held."""
        if os.path.exists(self.undo_path):
            from virtd.state import undo  # nobody has come so far as to undo it, or a full disk kept him from it

            undo.keep(self.undo_path)
        for name in os.listdir(self.directory):
            if name not in ("private", "supervisor", "lock"):
                files.remove(f"{self.directory}/{name}")
        _remove_tree(self.private)
        files.remove(self.supervisor_path)
        # The lock goes last: whoever waits for it finds it gone, and begins anew.
        files.remove(self.lock_path)
        try:
            os.rmdir(self.directory)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                self._sweep_again()

    def _sweep_again(self) -> None:
        """Remove what somebody has made in the directory while it was swept, who only asks, or supervises too late."""
        try:
            lock = locks.attempt(self.lock_path, "the clean-up after the guest", make=False)
        except locks.MissingError:
            return
        # Or somebody makes the next guest of this uuid in it already.
        if lock is not None:
            self.unlock(lock)


def vcpu_count(config: Config) -> int:
    """How many vCPUs a guest has, of those that it may have."""
    return config.vcpu_current or config.vcpu or 1


def identity(config: Config) -> tuple[str, str]:
    """The uuid and the name of a configuration; every one that has been parsed has both."""
    assert config.uuid is not None
    assert config.name is not None
    return config.uuid, config.name


class SupervisorGone(VirtError):
    """There is no supervisor, or it ended before it answered: the guest has ended, or a new supervisor takes over.

    Nobody knows whether what was asked for has been done.
    """


class Control:
    """A connection to a guest's supervisor: a question, an answer, in turn.

    The supervisor alone records what becomes of the guest. Whoever changes the guest's state tells it beforehand why,
    and waits until it has recorded what QEMU reported: then all others see it, too.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._rest = b""
        try:
            self._socket = sockets.connect(guest.control_path, timeout=deadlines.remaining(CHANGE_SECONDS))
        except (FileNotFoundError, ConnectionRefusedError):
            raise SupervisorGone(c.VIR_ERR_OPERATION_INVALID, "domain is not running") from None
        except (BlockingIOError, TimeoutError):
            raise self._late() from None
        except OSError as error:
            raise files.os_error(error, f"cannot reach the supervisor of guest '{guest.name}'") from None

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def expect(self, event: str, reason: int) -> None:
        """Say why QEMU will report an event: the reason becomes that of the state it leads to.

        Args:
            event: name of the QMP event.
            reason: a VIR_DOMAIN_RUNNING_*, PAUSED_*, … constant.
        """
        self._ask({"do": "expect", "event": event, "reason": reason})

    def sync(self, event: Event | None) -> None:
        """Wait until what QEMU reported by an event, and everything before it, has been recorded."""
        if event is not None:
            self._ask({"do": "sync", "seen": event.microseconds})

    def reboot(self, wanted: bool) -> None:
        """Say that the shutdown which will follow is the first half of a reboot, or that it is not."""
        self._ask({"do": "reboot", "wanted": wanted})

    def policy(self, event: str, action: str) -> None:
        """Set what an action of the guest leads to (on_poweroff, on_reboot, on_crash)."""
        self._ask({"do": "policy", "event": event, "action": action})

    def facts(
        self,
        *,
        vcpus: int | None = None,
        disks: Mapping[str, tuple[str, str]] | None = None,
        forget: Sequence[str] = (),
        thresholds: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Say what the guest has by now.

        Args:
            vcpus: how many virtual CPUs.
            disks: QEMU's names of new disks, as Status.disks has them.
            forget: devices that the guest has let go of, and that the live XML has no more.
            thresholds: new entries of Status.thresholds.
        """
        message: dict[str, object] = {"do": "facts", "disks": dict(disks or {}), "forget": list(forget)}
        message["thresholds"] = dict(thresholds or {})
        if vcpus is not None:
            message["vcpus"] = vcpus
        self._ask(message)

    def count(self, events: Sequence[str]) -> None:
        """Keep these of the host's performance counters (run/perf.py), and no others.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR, the kernel does not count one.
        """
        try:
            self._ask({"do": "count", "events": list(events)})
        except VirtError as error:
            error.domain = c.VIR_FROM_PERF
            raise

    def counted(self) -> dict[str, int]:
        """What the performance counters say."""
        counters = shape.table(self._ask({"do": "counted"}), "counters")
        return {name: shape.number(counters, name) for name in counters}

    def destroy(self, reason: int, *, graceful: bool = False) -> None:
        """End QEMU, and return when the guest has been cleaned up after.

        Args:
            reason: a VIR_DOMAIN_SHUTOFF_* constant.
            graceful: only ask QEMU to end, and let it live if it does not (VIR_DOMAIN_DESTROY_GRACEFUL).

        Raises:
            VirtError: VIR_ERR_OPERATION_FAILED, QEMU did not end.
        """
        self._ask({"do": "destroy", "reason": reason, "graceful": graceful})

    def channel(self, path: str, *, anew: bool) -> socket.socket:
        """The connection with a channel of the guest that the supervisor keeps, or makes now.

        A program in the guest notices when the host's end of its channel is closed, and looks only every tenth of a
        second whether it is open again. So it stays open.

        Args:
            path: the channel's socket.
            anew: the one that is kept has turned out to be closed.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR, nobody listens there.
        """
        import socket

        descriptors: list[int] = []
        self._ask({"do": "channel", "path": path, "anew": anew}, descriptors)
        (descriptor,) = descriptors
        return socket.socket(fileno=descriptor)

    def _late(self) -> deadlines.DeadlineExceeded:
        return deadlines.DeadlineExceeded(f"the supervisor of guest '{self._guest.name}' does not answer")

    def _ask(self, message: dict[str, object], descriptors: list[int] | None = None) -> shape.Table:
        name = self._guest.name
        try:
            self._socket.settimeout(deadlines.remaining(CHANGE_SECONDS))
            self._socket.sendall(json.dumps(message).encode() + b"\n")
            while b"\n" not in self._rest:
                if descriptors is None:
                    chunk = self._socket.recv(65536)
                else:
                    from socket import recv_fds

                    chunk, passed, _, _ = recv_fds(self._socket, 65536, 1)
                    descriptors += passed
                if not chunk:
                    raise ConnectionResetError
                self._rest += chunk
        except (TimeoutError, BlockingIOError):  # the latter if there was no time left to begin with
            raise self._late() from None
        except (ConnectionResetError, BrokenPipeError):
            text = f"the supervisor of guest '{name}' ended during the call; try again"
            raise SupervisorGone(c.VIR_ERR_OPERATION_FAILED, text) from None
        except OSError as error:
            raise files.os_error(error, f"cannot talk to the supervisor of guest '{name}'") from None
        line, _, self._rest = self._rest.partition(b"\n")
        answer = shape.as_table(json.loads(line), "answer")
        if "error" in answer:
            raise VirtError(shape.number(answer, "code"), shape.text(answer, "error"), domain=c.VIR_FROM_QEMU)
        return answer


def listen(path: str, mode: int = 0o600) -> socket.socket:
    """A socket of a guest's directory that listens; its descriptor can be handed to QEMU."""
    return sockets.listen(path, mode=mode, backlog=16)


def _remove_tree(path: str) -> None:
    try:
        entries = list(os.scandir(path))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _remove_tree(entry.path)
        else:
            files.remove(entry.path)
    os.rmdir(path)
