"""How a guest is started: from its configuration to a QEMU that runs under a supervisor.

The caller holds the guest's lock. It writes a status that claims name and uuid, binds the monitors' sockets, forks the
supervisor, which starts QEMU, and talks to QEMU over the monitor. Until the guest is published the supervisor holds
it on a leash: if the starter dies, QEMU is ended and all is undone. After that the guest lives by itself.
"""

import json
import os
import shlex
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from virtd import constants as c
from virtd import deadlines, uuids
from virtd.conf.domain import Domain as Config
from virtd.conf.domain import assign_aliases
from virtd.conf.domain.disk import Secret
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.command import Command, Setup, build
from virtd.drivers.qemu.guest import Guest, listen, vcpu_count
from virtd.drivers.qemu.host.binary import Binary
from virtd.drivers.qemu.monitor.client import Monitor, MonitorClosed
from virtd.drivers.qemu.run import (
    access,
    cgroup,
    confine,
    displays,
    guestcpu,
    interfaces,
    labels,
    prepare,
    supervisor,
    tpm,
    volumes,
)
from virtd.drivers.qemu.status import Status
from virtd.errors import VirtError
from virtd.protocol.records import Domain
from virtd.state import files, locks
from virtd.state.commit import Generation
from virtd.state.process import Process, detach, stamp
from virtd.state.undo import undo

if TYPE_CHECKING:
    from virtd.drivers.qemu.driverbase import DriverBase

# How long QEMU may take from its start to the first answer of its monitor.
START_SECONDS = 30.0
_MONITORS = ("monitor", "query", "events")
# How much of what QEMU said last goes into the message of a start that failed.
_LAST_WORDS = 1024


class Manner(NamedTuple):
    """How a guest is to be started, and what is told of it."""

    flags: int = 0  # VIR_DOMAIN_START_*
    descriptors: tuple[int, ...] = ()  # of the client's, which QEMU takes along as 3, 4, …
    detail: int = c.VIR_DOMAIN_EVENT_STARTED_BOOTED
    reason: int = c.VIR_DOMAIN_RUNNING_BOOTED

    @property
    def paused(self) -> bool:
        return bool(self.flags & c.VIR_DOMAIN_START_PAUSED)


class _Spawn(NamedTuple):
    """What the supervisor needs to start QEMU, and an emulated TPM before it."""

    command: Command
    environment: dict[str, str]
    user: confine.User | None
    group: str | None
    passed: list[int]
    tpm: tpm.Helper | None


def claim(driver: "DriverBase", config: Config) -> Status:
    """Take a name and a uuid for a guest that is about to be started, and an id; see Guests.starting().

    The guest's lock is held; and, unless the guest is defined, that of the definitions.
    """
    guest = Guest.of(driver.guests.running, config)
    policy = {"poweroff": config.on_poweroff, "reboot": config.on_reboot, "crash": config.on_crash}
    found = Status(
        name=guest.name,
        uuid=guest.uuid,
        id=driver.guests.next_id(),
        policy={event: action for event, action in policy.items() if action is not None},
        max_memory=config.memory or 0,
        memory=config.current_memory or 0,
        vcpus=vcpu_count(config),
    )
    files.replace(guest.status_path, found.encode(), durable=False)
    return found


def start(driver: "DriverBase", config: Config, manner: Manner) -> Domain:
    """Start a guest; its lock is held.

    Args:
        driver: the driver of the connection that starts it.
        config: the guest's configuration, which becomes its live one: a copy.
        manner: how.

    Raises:
        VirtError: what kept it from being started; nothing of the attempt is left then.
    """
    guest = Guest.of(driver.guests.running, config)
    _await_supervisor(guest)  # of the guest's last life, which may still be cleaning up
    found = guest.status() or claim(driver, config)
    if manner.flags & c.VIR_DOMAIN_START_AUTODESTROY:
        found.owner = Process.of(driver.context.owner)
    try:
        with deadlines.limit(START_SECONDS):
            _launch(driver, guest, found, config, manner)
    except BaseException:
        # Where a supervisor has come into being, it finds its leash cut, and undoes what it did.
        _await_supervisor(guest)
        undo(guest.undo_path)
        files.remove(guest.status_path)
        raise
    return Domain(guest.name, uuids.to_bytes(guest.uuid), found.id)


def setup(
    driver: "DriverBase",
    guest: Guest,
    monitors: list[tuple[str, int]],
    plugged: interfaces.Plugged | None = None,
    helper: tpm.Helper | None = None,
    *,
    running: bool = False,
    reset_nvram: bool = False,
) -> Setup:
    """What the command line is told of the guest's surroundings.

    Args:
        driver: the driver.
        guest: the guest's directory.
        monitors: names and listening sockets of the monitors; none if only the command line is wanted.
        plugged: descriptors of the network cards.
        helper: the emulated TPM.
        running: whether it is told of devices that come while QEMU runs.
        reset_nvram: whether a UEFI firmware's variables become what they were at first.
    """
    live = bool(monitors) or running
    return Setup(
        monitors=monitors,
        private=guest.private,
        memory=f"{guest.private}/memory",
        nvram=f"{driver.paths.state}/qemu/nvram",
        reset_nvram=reset_nvram,
        taps={} if plugged is None else plugged.taps,
        vhosts={} if plugged is None else plugged.vhosts,
        descriptors=driver.descriptors.get(guest.uuid, {}),
        tpm=None if helper is None else helper.qemu,
        running=running,
        secret=_resolver(driver) if live else None,
        undo=guest.undo_path if live else None,
    )


def _resolver(driver: "DriverBase") -> Callable[[Secret, int], bytes]:
    """What tells the values of secrets, private ones among them, which no client can read."""

    def resolve(meant: Secret, usage: int) -> bytes:
        from virtd.drivers.secret.store import Secrets  # few guests need one

        return Secrets(driver.paths, driver.generation).resolve(meant, usage)

    return resolve


def _await_supervisor(guest: Guest) -> None:
    """Wait until no supervisor is at work in the guest's directory any more."""
    locks.acquire(guest.supervisor_path, "the start", timeout=START_SECONDS, what="supervisor's lock").release()


def _launch(driver: "DriverBase", guest: Guest, found: Status, config: Config, manner: Manner) -> None:
    labels.check(config, driver.capabilities.user)
    user = labels.user_of(config, driver.capabilities.user)
    _make_private(guest, user)
    assign_aliases(config)
    displays.resolve(driver.context, config)
    with displays.choose_ports(driver.guests, guest, found, config):
        _launch_prepared(driver, guest, found, config, manner, user)


def _launch_prepared(
    driver: "DriverBase", guest: Guest, found: Status, config: Config, manner: Manner, user: confine.User | None
) -> None:
    binary = driver.capabilities.binary_for(config)
    volumes.look_up(driver.context, config)
    with ExitStack() as stack:
        helper, backend = None, tpm.emulator(config)
        if backend is not None:
            directory = tpm.state_directory(driver.paths.state, guest.uuid)
            helper = tpm.prepare(backend, directory, driver.guests.log_path(guest.name), user)
            stack.callback(helper.close)
        plugged = interfaces.plug(driver.context, guest, config)
        stack.callback(plugged.close)
        _start_qemu(driver, guest, found, config, manner, binary, plugged, helper, stack, user)


def _start_qemu(
    driver: "DriverBase",
    guest: Guest,
    found: Status,
    config: Config,
    manner: Manner,
    binary: Binary,
    plugged: interfaces.Plugged,
    helper: tpm.Helper | None,
    stack: ExitStack,
    user: confine.User | None,
) -> None:
    for descriptors in (*plugged.taps.values(), *plugged.vhosts.values()):
        descriptors[:] = [confine.raised(descriptor) for descriptor in descriptors]
    monitors = [(name, confine.raised(listen(f"{guest.directory}/{name}.sock", 0o600).detach())) for name in _MONITORS]
    held: list[access.Held] = []
    stack.callback(access.release, held)
    try:
        reset = bool(manner.flags & c.VIR_DOMAIN_START_RESET_NVRAM)
        command = build(config, binary, setup(driver, guest, monitors, plugged, helper, reset_nvram=reset))
        try:
            held += access.lock(command.images)
            if user is not None:
                whose = labels.whose(config, user)
                access.open_way(command, user, driver.guests.owners, guest.directory, whose)
            prepare.describe(config, command.disks, user)
            found.disks = {node: list(names) for node, names in command.disks.items()}
            found.channels = prepare.connectable(config)
            environment = confine.environment(guest.private, privileged=driver.paths.privileged)
            spawn = _Spawn(
                command,
                environment | command.environment,
                user,
                cgroup.make(guest.uuid, guest.undo_path),
                [confine.raised(descriptor) for descriptor in manner.descriptors],
                helper,
            )
            log_path = driver.guests.log_path(guest.name)
            said = _log_command(log_path, spawn)
            leash = _supervise(driver, guest, found, spawn, log_path)
        finally:
            command.close()
    finally:
        # From now on QEMU alone holds its end: when it dies, its monitors are closed.
        for _, descriptor in monitors:
            os.close(descriptor)
    with leash:
        try:
            _let_go(driver.generation, guest, found, config, command, leash, manner, held)
        except MonitorClosed:
            text = f"process exited while connecting to monitor: {_last_words(log_path, said)}"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text.rstrip(": \n"), domain=c.VIR_FROM_QEMU) from None


def _let_go(
    generation: Generation,
    guest: Guest,
    found: Status,
    config: Config,
    command: Command,
    leash: socket.socket,
    manner: Manner,
    held: list[access.Held],
) -> None:
    """Talk to the new QEMU, write down what it has become, and take it off the leash."""
    process = shape.table(_hear(leash), "process")
    found.process = Process(shape.number(process, "pid"), shape.number(process, "start"))
    with Monitor(guest.monitor_path, guest.name, START_SECONDS) as monitor:
        access.hand_over(held, monitor)
        for name, arguments in command.commands:
            monitor.execute(name, arguments)
        asked = prepare.after_start(config, monitor)
    config.id = found.id
    with generation.commit() as change:
        for pending in guest.prepare_live(config):
            change.publish(pending)
        change.publish(files.prepare(guest.cpu_path, guestcpu.write(asked).encode(), durable=False))
    request = {"do": "publish", "detail": manner.detail, "reason": manner.reason, "paused": manner.paused}
    leash.sendall(json.dumps(request).encode() + b"\n")
    _hear(leash)


def _supervise(driver: "DriverBase", guest: Guest, found: Status, spawn: _Spawn, log_path: str) -> socket.socket:
    """Fork the supervisor, which starts QEMU; returns the leash."""
    ours, theirs = socket.socketpair()
    leash = confine.raised(theirs.detach())
    definition, generation = driver.guests.definitions.path(guest.name), driver.generation

    def body() -> None:
        with socket.socket(fileno=leash) as connection:
            try:
                kept = _place(spawn)
                lock = locks.acquire(guest.supervisor_path, "the supervisor")
                if deadlines.readable(leash, 0):
                    return  # the starter has died already, and may have a successor
                found.process = _spawn(spawn, kept)
                files.replace(guest.status_path, found.encode(), durable=False)
                watch = supervisor.Supervisor(guest, generation, definition, found, child=True)
            except VirtError as error:
                _say(connection, {"error": error.detail, "code": error.code})
                return
            watch.attach(connection)
            _say(connection, {"process": {"pid": found.process.pid, "start": found.process.start}})
            watch.run()
            lock.release()

    helper_fds = [] if spawn.tpm is None else [spawn.tpm.descriptor]
    detach(body, f"virtd: guest {guest.name}", log_path, [leash, *spawn.command.fds, *spawn.passed, *helper_fds])
    os.close(leash)
    for descriptor in spawn.passed:
        os.close(descriptor)
    return ours


def _place(spawn: _Spawn) -> list[int]:
    """Give the client's descriptors the numbers that it counts on; returns all that QEMU keeps."""
    numbers = []
    for number, descriptor in enumerate(spawn.passed, start=3):
        os.dup2(descriptor, number, inheritable=False)
        os.close(descriptor)
        numbers.append(number)
    return [*numbers, *spawn.command.fds]


def _spawn(spawn: _Spawn, kept: list[int]) -> Process:
    """Start QEMU as a child of this process, and keep none of its descriptors."""
    if spawn.tpm is not None:
        kept_by_tpm = [spawn.tpm.descriptor]
        try:
            confine.spawn(
                spawn.tpm.argv, environment={"PATH": confine.PATH}, output=2, fds=kept_by_tpm, user=spawn.user
            )
        finally:
            os.close(spawn.tpm.descriptor)
    try:
        pid = confine.spawn(
            spawn.command.argv,
            environment=spawn.environment,
            output=2,  # the guest's log
            fds=kept,
            user=spawn.user,
            group=spawn.group,
            cpus=spawn.command.cpus,
        )
    finally:
        for descriptor in kept:
            os.close(descriptor)
    return Process.of(pid)


def _say(connection: socket.socket, message: dict[str, object]) -> None:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass  # the starter has died; that is seen by reading


def _hear(leash: socket.socket) -> shape.Table:
    """What the supervisor says.

    Raises:
        MonitorClosed: QEMU has ended.
        VirtError: what the supervisor could not do.
    """
    line = b""
    while not line.endswith(b"\n"):
        if not deadlines.readable(leash.fileno(), START_SECONDS):
            raise deadlines.DeadlineExceeded("QEMU did not start in time")
        chunk = leash.recv(65536)
        if not chunk:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "the supervisor ended during the start", domain=c.VIR_FROM_QEMU)
        line += chunk
    answer = shape.as_table(json.loads(line), "answer")
    if "exited" in answer:
        raise MonitorClosed("QEMU has ended")
    if "error" in answer:
        raise VirtError(shape.number(answer, "code"), shape.text(answer, "error"), domain=c.VIR_FROM_QEMU)
    return answer


def _make_private(guest: Guest, user: confine.User | None) -> None:
    """QEMU's own directory, and the way to it."""
    # In the second one are the files that memory is kept in.
    for directory in (guest.private, f"{guest.private}/memory"):
        files.make_directory(directory, 0o700)
        if user is not None:
            os.chown(directory, user.uid, user.gid)
    if user is not None:
        # It may pass through the guest's directory, and see nothing there.
        os.chmod(guest.directory, 0o711)


def words(environment: Mapping[str, str], argv: Sequence[str]) -> str:
    """A command with its environment, as a shell takes it."""
    variables = (f"{name}={shlex.quote(value)}" for name, value in environment.items())
    return " ".join([*variables, *(shlex.quote(word) for word in argv)])


def _log_command(path: str, spawn: _Spawn) -> int:
    """Write the command line into the guest's log; returns where QEMU's own output will begin."""
    text = f"{stamp(time.time())}: starting up\n{words(spawn.environment, spawn.command.argv)}\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            files.write_all(descriptor, text.encode())
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    except OSError as error:
        raise files.os_error(error, f"cannot write '{path}'") from None


def _last_words(path: str, begin: int) -> str:
    """What QEMU itself said since it was started."""
    content = (files.read(path) or b"")[begin:].decode(errors="replace")
    lines = [line for line in content.splitlines() if "+0000: " not in line[:34]]
    return "\n".join(lines)[-_LAST_WORDS:]
