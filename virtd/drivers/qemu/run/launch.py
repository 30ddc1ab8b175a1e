"""How a guest is started: from its configuration to a QEMU that runs under a supervisor.

The caller holds the guest's lock. It writes a status that claims name and uuid, binds the monitors' sockets, forks the
supervisor, which starts QEMU, and talks to QEMU over the monitor. Until the guest is published the supervisor holds
it on a leash: if the starter dies, QEMU is ended and all is undone. After that the guest lives by itself.
"""

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
from virtd.conf.secret.reference import SecretReference
from virtd.drivers.qemu.command import Command, Setup, build
from virtd.drivers.qemu.guest import Guest, listen, vcpu_count
from virtd.drivers.qemu.monitor.client import Monitor, MonitorClosed
from virtd.drivers.qemu.run import (
    access,
    cgroup,
    chains,
    confine,
    displays,
    guestcpu,
    hostdevices,
    interfaces,
    labels,
    prepare,
    spawning,
    tpm,
    transient,
    tuning,
    vhostuser,
    volumes,
)
from virtd.drivers.qemu.run.helpers import Helper
from virtd.drivers.qemu.status import Status
from virtd.errors import VirtError
from virtd.protocol.records import Domain
from virtd.state import files, locks, undo
from virtd.state.faults import point
from virtd.state.process import Process, stamp

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


def claim(driver: "DriverBase", config: Config) -> Status:
    """Take a name and a uuid for a guest that is about to be started, and an id; see Guests.starting().

    The guest's lock is held; and, unless the guest is defined, that of the definitions.
    """
    guest = Guest.of(driver.guests.running, config)
    left = guest.status()
    policy = {"poweroff": config.on_poweroff, "reboot": config.on_reboot, "crash": config.on_crash}
    found = Status(
        name=guest.name,
        uuid=guest.uuid,
        id=driver.guests.next_id(),
        # A start that was cut short may have left one: start() ends it.
        process=None if left is None else left.process,
        policy={event: action for event, action in policy.items() if action is not None},
        max_memory=config.memory or 0,
        memory=config.current_memory or 0,
        vcpus=vcpu_count(config),
    )
    pending = files.prepare(guest.status_path, found.encode(), durable=False)
    # In a commit, so that everybody looks: if this process dies on the way, somebody has to clean up.
    with driver.generation.commit() as change:
        change.publish(pending)
    point("start.claimed")
    return found


def start(driver: "DriverBase", config: Config, manner: Manner, *, claimed: bool = False) -> Domain:
    """Start a guest; its lock is held.

    Args:
        driver: the driver of the connection that starts it.
        config: the guest's configuration, which becomes its live one: a copy.
        manner: how.
        claimed: whether claim() has been called for it.

    Raises:
        VirtError: what kept it from being started; nothing of the attempt is left then.
    """
    guest = Guest.of(driver.guests.running, config)
    _await_supervisor(guest)  # of the guest's last life, which may still be cleaning up
    _clear(guest)  # what a start left that was cut short, if nobody has looked since
    found = (guest.status() if claimed else None) or claim(driver, config)
    found.process = None
    if manner.flags & c.VIR_DOMAIN_START_AUTODESTROY:
        found.owner = Process.of(driver.context.owner)
    try:
        with deadlines.limit(START_SECONDS):
            _Start(driver, guest, found, config, manner).run()
    except BaseException:
        # Where a supervisor has come into being, it finds its leash cut, and undoes what it did.
        _await_supervisor(guest)
        _clear(guest)
        files.remove(guest.status_path)
        raise
    return Domain(guest.name, uuids.to_bytes(guest.uuid), found.id)


def setup(
    driver: "DriverBase",
    guest: Guest,
    monitors: list[tuple[str, int]],
    plugged: interfaces.Plugged | None = None,
    ends: Mapping[str, int] | None = None,
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
        ends: QEMU's ends of programs beside it, by the alias of the device, and of its "tpm".
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
        ends=ends or {},
        running=running,
        settings=driver.capabilities.settings(),
        secret=_resolver(driver),
        undo=guest.undo_path if live else None,
    )


def _resolver(driver: "DriverBase") -> Callable[[SecretReference, int], bytes]:
    """What tells the values of secrets, private ones among them, which no client can read."""

    def resolve(meant: SecretReference, usage: int) -> bytes:
        from virtd.drivers.secret.store import Secrets  # few guests need one

        return Secrets(driver.paths, driver.generation).resolve(meant, usage)

    return resolve


def _await_supervisor(guest: Guest) -> None:
    """Wait until no supervisor is at work in the guest's directory any more."""
    locks.acquire(guest.supervisor_path, "the start", timeout=START_SECONDS, what="supervisor's lock").release()


def _clear(guest: Guest) -> None:
    """End and undo what a start has brought about, and what is left of former lives; no supervisor is at work."""
    spawning.end_orphan(guest)
    undo.undo(guest.undo_path, f"guest '{guest.name}'")
    undo.retry(os.path.dirname(guest.directory), guest.uuid)


class _Start:
    """One start of a guest: what is made for it on the way, and closed or undone at its end.

    Args:
        driver: the driver of the connection that starts it.
        guest: the guest's directory.
        found: its status so far.
        config: its configuration, which becomes its live one.
        manner: how it is started.
    """

    def __init__(self, driver: "DriverBase", guest: Guest, found: Status, config: Config, manner: Manner) -> None:
        self._driver, self._guest, self._found, self._config, self._manner = driver, guest, found, config, manner
        labels.check(config, driver.capabilities.user)
        self._user = labels.user_of(config, driver.capabilities.user)
        self._helpers: list[Helper] = []
        self._held: list[access.Held] = []

    def run(self) -> None:
        """Prepare everything, start QEMU, talk to it, and let it go."""
        driver, config, user = self._driver, self._config, self._user
        _make_private(self._guest, user)
        assign_aliases(config)
        displays.resolve(driver.context, config)
        said = driver.capabilities.settings()
        displays.show_addresses(config, said)
        ports = displays.choose_ports(driver.guests, self._guest, self._found, config, said)
        with ports, ExitStack() as until_the_end, ExitStack() as stack:
            until_the_end.callback(access.release, self._held)
            binary = driver.capabilities.binary_for(config)
            group = cgroup.make(self._guest.uuid, self._guest.undo_path)
            tuning.check(config, group, privileged=driver.paths.privileged)
            volumes.look_up(driver.context, config)
            chains.detect(config.disks)
            transient.prepare(config, self._guest)
            hostdevices.prepare(config, self._guest, hostdevices.claims(driver.paths))
            monitors = [(name, confine.raised(self._bind(name))) for name in _MONITORS]
            stack.callback(_close, [descriptor for _, descriptor in monitors])
            made = self._prepare_helpers(stack)
            plugged = interfaces.plug(driver.context, self._guest, config, user)
            stack.callback(plugged.close)
            self._helpers += plugged.helpers
            point("start.plugged")
            for descriptors in (*plugged.taps.values(), *plugged.vhosts.values()):
                descriptors[:] = [confine.raised(descriptor) for descriptor in descriptors]
            reset = bool(self._manner.flags & c.VIR_DOMAIN_START_RESET_NVRAM)
            command = build(config, binary, setup(driver, self._guest, monitors, plugged, made, reset_nvram=reset))
            stack.callback(command.close)
            self._held += access.lock(command.images)
            if user is not None:
                whose = labels.whose(config, user)
                access.open_way(command, user, driver.guests.owners, self._guest.directory, whose)
            prepare.describe(config, command.disks, user)
            self._found.disks = {node: list(names) for node, names in command.disks.items()}
            self._found.channels = prepare.connectable(config)
            tuning.set_group(config, group)
            point("start.prepared")
            self._spawn(command, group, stack)

    def _bind(self, name: str) -> int:
        return listen(f"{self._guest.directory}/{name}.sock", 0o600).detach()

    def _prepare_helpers(self, stack: ExitStack) -> dict[str, int]:
        """Prepare the programs beside QEMU; returns QEMU's ends of what it is handed."""
        driver, config = self._driver, self._config
        made, ends = vhostuser.prepare(config, self._guest, self._user, privileged=driver.paths.privileged)
        stack.callback(vhostuser.close, made, ends.copy())
        self._helpers = made
        backend = tpm.emulator(config)
        if backend is not None:
            directory = tpm.state_directory(driver.paths.state, self._guest.uuid)
            helper, end = tpm.prepare(backend, directory, driver.guests.log_path(self._guest.name), self._user)
            stack.callback(os.close, end)
            made.append(helper)
            ends["tpm"] = end
        return ends

    def _spawn(self, command: Command, group: str | None, stack: ExitStack) -> None:
        driver = self._driver
        environment = confine.environment(self._guest.private, privileged=driver.paths.privileged)
        spawn = spawning.Spawn(
            command,
            environment | command.environment,
            self._user,
            group,
            [confine.raised(descriptor) for descriptor in self._manner.descriptors],
            self._helpers,
        )
        log_path = driver.guests.log_path(self._guest.name)
        said = _log_command(log_path, spawn.environment, command.argv)
        definition = driver.guests.definitions.path(self._guest.name)
        with spawning.supervise(self._guest, driver.generation, definition, self._found, spawn, log_path) as leash:
            # From now on QEMU alone holds its ends: when it dies, its monitors are closed.
            stack.close()
            point("start.supervised")
            try:
                self._let_go(command, group, leash)
            except MonitorClosed:
                text = f"process exited while connecting to monitor: {_last_words(log_path, said)}"
                raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text.rstrip(": \n"), domain=c.VIR_FROM_QEMU) from None

    def _let_go(self, command: Command, group: str | None, leash: socket.socket) -> None:
        """Talk to the new QEMU, write down what it has become, and take it off the leash."""
        guest, found, config, manner = self._guest, self._found, self._config, self._manner
        found.process = spawning.process(leash)
        with Monitor(guest.monitor_path, guest.name, START_SECONDS) as monitor:
            access.hand_over(self._held, monitor)
            guestcpu.plug(config, monitor)
            if events := tuning.counted(config):
                with guest.control() as control:
                    control.count(events)
            tuning.set_threads(config, monitor, found.process.pid, group, guest.undo_path)
            for name, arguments in command.commands:
                monitor.execute(name, arguments)
            asked = prepare.after_start(config, monitor)
        point("start.set-up")
        config.id = found.id
        with self._driver.generation.commit() as change:
            for pending in guest.prepare_live(config):
                change.publish(pending)
            change.publish(files.prepare(guest.cpu_path, guestcpu.write(asked).encode(), durable=False))
        point("start.to-publish")
        spawning.publish(leash, detail=manner.detail, reason=manner.reason, paused=manner.paused)
        point("start.published")


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


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


def _log_command(path: str, environment: Mapping[str, str], argv: Sequence[str]) -> int:
    """Write the command line into the guest's log; returns where QEMU's own output will begin."""
    text = f"{stamp(time.time())}: starting up\n{words(environment, argv)}\n"
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
