"""The life of guests: start, stop, pause, reboot. How QEMU is started is told in run/launch.py.

A change of state is asked of QEMU under the guest's lock, and recorded by its supervisor; the call returns when it
has been. Destroying alone needs no lock: it must work whatever a guest hangs on.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu.definitions import Definitions
from virtd.drivers.qemu.guest import Guest, SupervisorGone
from virtd.drivers.qemu.guests import Entry
from virtd.drivers.qemu.monitor.client import Event, Monitor
from virtd.drivers.qemu.run import launch, owners
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain
from virtd.state import files, locks, undo

_START_FLAGS = (
    c.VIR_DOMAIN_START_PAUSED
    | c.VIR_DOMAIN_START_AUTODESTROY
    | c.VIR_DOMAIN_START_BYPASS_CACHE
    | c.VIR_DOMAIN_START_FORCE_BOOT
    | c.VIR_DOMAIN_START_RESET_NVRAM
)
_CREATE_FLAGS = (
    c.VIR_DOMAIN_START_PAUSED
    | c.VIR_DOMAIN_START_AUTODESTROY
    | c.VIR_DOMAIN_START_VALIDATE
    | c.VIR_DOMAIN_START_RESET_NVRAM
)
# How long the destruction of a guest may take: QEMU is asked, then killed (run/supervisor.py).
DESTROY_SECONDS = 20.0


class Lifecycle(Definitions):
    """Starting and stopping guests."""

    # Start

    def domain_create(self, domain: Domain) -> None:
        """virDomainCreate."""
        self.domain_create_with_flags(domain, 0)

    def domain_create_with_flags(self, domain: Domain, flags: int) -> Domain:
        """virDomainCreateWithFlags: the guest with its id."""
        return self.domain_create_with_files(domain, flags, fds=[])

    def domain_create_with_files(self, domain: Domain, flags: int, *, fds: list[int]) -> Domain:
        """virDomainCreateWithFiles: QEMU finds the descriptors as its own, from 3 on, in their order."""
        unsupported_flags(flags, _START_FLAGS, "qemuDomainCreateWithFlags")
        entry = self.guests.find(domain)
        guest = self.guest(entry)
        lock = guest.lock("virDomainCreateWithFlags")
        try:
            entry = self.guests.find(domain)
            if entry.active:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is already running")
            return launch.start(self, self.config(entry).copy(), launch.Manner(flags, tuple(fds)))
        finally:
            guest.unlock(lock)

    def domain_create_xml(self, xml: str, flags: int) -> Domain:
        """virDomainCreateXML: start a guest from its XML; unless it is defined, nothing of it stays when it ends."""
        return self.domain_create_xml_with_files(xml, flags, fds=[])

    def domain_create_xml_with_files(self, xml: str, flags: int, *, fds: list[int]) -> Domain:
        """virDomainCreateXMLWithFiles; the descriptors as in virDomainCreateWithFiles."""
        unsupported_flags(flags, _CREATE_FLAGS, "qemuDomainCreateXML")
        config = self.read_config(xml, validate=bool(flags & c.VIR_DOMAIN_START_VALIDATE))
        guest = Guest.of(self.guests.running, config)
        lock = guest.lock("virDomainCreateXML")
        try:
            with self.definitions_locked("virDomainCreateXML"):
                before = self.check_unique(config)
                if before is not None and before.active:
                    text = f"domain '{config.name}' is already active"
                    raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_DOMAIN)
                launch.claim(self, config)
            return launch.start(self, config, launch.Manner(flags, tuple(fds)), claimed=True)
        finally:
            guest.unlock(lock)

    def autostart(self) -> list[VirtError]:
        """Start the guests that are to run whenever the machine does: once after each boot."""
        failures = super().autostart()
        owners.sweep(self.guests.owners)
        undo.retry(self.guests.running)
        with locks.held(self.guests.definitions_lock, "the start of the machine's guests"):
            if os.path.exists(self.guests.autostarted_mark):
                return failures
            files.replace(self.guests.autostarted_mark, b"", durable=False)
        for entry in self.guests.view():
            if entry.autostart and not entry.active:
                try:
                    self.domain_create(entry.reference)
                except VirtError as error:
                    text = f"Failed to autostart VM '{entry.name}': {error.message}"
                    failures.append(VirtError(error.code, text, domain=c.VIR_FROM_QEMU))
        return failures

    # Stop

    def domain_destroy(self, domain: Domain) -> None:
        """virDomainDestroy."""
        self.domain_destroy_flags(domain, 0)

    def domain_destroy_flags(self, domain: Domain, flags: int) -> None:
        """virDomainDestroyFlags."""
        unsupported_flags(
            flags, c.VIR_DOMAIN_DESTROY_GRACEFUL | c.VIR_DOMAIN_DESTROY_REMOVE_LOGS, "qemuDomainDestroyFlags"
        )
        entry, _ = self.running(domain)
        with deadlines.limit(DESTROY_SECONDS):
            self._destroy(domain, entry, graceful=bool(flags & c.VIR_DOMAIN_DESTROY_GRACEFUL))
        if flags & c.VIR_DOMAIN_DESTROY_REMOVE_LOGS:
            self.guests.remove_logs(entry.name)

    def _destroy(self, domain: Domain, entry: Entry, *, graceful: bool) -> None:
        """Have a guest ended by its supervisor, or by the one that replaces it if it is killed meanwhile."""
        number = entry.id
        while True:
            try:
                with self.guest(entry).control() as control:
                    control.destroy(c.VIR_DOMAIN_SHUTOFF_DESTROYED, graceful=graceful)
                return
            except SupervisorGone:
                if not deadlines.remaining(DESTROY_SECONDS):
                    raise
            entry, _ = self.running(domain)
            if entry.id != number:
                # Somebody else has ended it, and it was started again.
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is not running")

    def domain_shutdown(self, domain: Domain) -> None:
        """virDomainShutdown."""
        self.domain_shutdown_flags(domain, 0)

    def domain_shutdown_flags(self, domain: Domain, flags: int) -> None:
        """virDomainShutdownFlags: press the power button; the guest decides what follows."""
        acpi, agent = c.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN, c.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT
        unsupported_flags(flags, acpi | agent, "qemuDomainShutdownFlags")
        self._press(domain, "virDomainShutdown", agent_only=bool(flags) and not flags & acpi, reboots=False)

    def domain_reboot(self, domain: Domain, flags: int) -> None:
        """virDomainReboot: press the power button, and bring the guest back when it has shut down."""
        acpi, agent = c.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN, c.VIR_DOMAIN_REBOOT_GUEST_AGENT
        unsupported_flags(flags, acpi | agent, "qemuDomainReboot")
        self._press(domain, "virDomainReboot", agent_only=bool(flags) and not flags & acpi, reboots=True)

    def _press(self, domain: Domain, call: str, *, agent_only: bool, reboots: bool) -> None:
        """Press a guest's power button.

        Args:
            domain: the guest.
            call: libvirt's name of the call.
            agent_only: whether only the guest agent may be asked (agent/calls.py).
            reboots: whether the guest is to come back.
        """
        if not reboots and not self.guests.find(domain).active:
            # The one call for which libvirt's driver says this, and not its common code.
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is not running", domain=c.VIR_FROM_QEMU)
        with self._changing(domain, call) as (entry, guest):
            if not reboots and (entry.status is None or entry.status.state != c.VIR_DOMAIN_RUNNING):
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is not running")
            if agent_only:
                raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured")
            assert entry.status is not None
            comes_back = reboots and entry.status.policy.get("reboot", "restart") != "destroy"
            with guest.monitor() as monitor, guest.control() as control:
                control.reboot(comes_back)
                monitor.execute("system_powerdown")

    def domain_reset(self, domain: Domain, flags: int) -> None:
        """virDomainReset: the reset button."""
        unsupported_flags(flags, 0, "qemuDomainReset")
        with self._changing(domain, "virDomainReset") as (_, guest), guest.monitor() as monitor:
            monitor.execute("system_reset")

    # Pause

    def domain_suspend(self, domain: Domain) -> None:
        """virDomainSuspend."""
        with self._changing(domain, "virDomainSuspend") as (entry, guest):
            state = entry.status.state if entry.status is not None else c.VIR_DOMAIN_NOSTATE
            if state == c.VIR_DOMAIN_PMSUSPENDED:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is pmsuspended")
            if state == c.VIR_DOMAIN_PAUSED:
                return
            with guest.monitor() as monitor, guest.control() as control:
                control.expect("STOP", c.VIR_DOMAIN_PAUSED_USER)
                monitor.execute("stop")
                control.sync(_reported(monitor, "STOP"))

    def domain_resume(self, domain: Domain) -> None:
        """virDomainResume."""
        with self._changing(domain, "virDomainResume") as (entry, guest):
            state = entry.status.state if entry.status is not None else c.VIR_DOMAIN_NOSTATE
            if state == c.VIR_DOMAIN_PMSUSPENDED:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is pmsuspended")
            if state == c.VIR_DOMAIN_RUNNING:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is already running")
            crashed = state == c.VIR_DOMAIN_CRASHED
            with guest.monitor() as monitor, guest.control() as control:
                control.expect("RESUME", c.VIR_DOMAIN_RUNNING_CRASHED if crashed else c.VIR_DOMAIN_RUNNING_UNPAUSED)
                monitor.execute("cont")
                control.sync(_reported(monitor, "RESUME"))

    # Keys

    def domain_inject_nmi(self, domain: Domain, flags: int) -> None:
        """virDomainInjectNMI."""
        unsupported_flags(flags, 0, "qemuDomainInjectNMI")
        with self._changing(domain, "virDomainInjectNMI") as (_, guest), guest.monitor() as monitor:
            monitor.execute("inject-nmi")

    @contextmanager
    def _changing(self, domain: Domain, call: str) -> Iterator[tuple[Entry, Guest]]:
        """A running guest whose state change lock is held.

        Raises:
            VirtError: VIR_ERR_NO_DOMAIN; VIR_ERR_OPERATION_INVALID, it does not run; VIR_ERR_OPERATION_TIMEOUT,
                somebody else has held the lock all the time.
        """
        entry, _ = self.running(domain)
        guest = self.guest(entry)
        # One bound for all: whoever has waited for the lock has less time left for QEMU.
        with deadlines.limit(deadlines.PATIENCE):
            lock = guest.lock(call)
            try:
                # What was true before the wait need not be true any more.
                entry, _ = self.running(domain)
                yield entry, guest
            finally:
                guest.unlock(lock)


def _reported(monitor: Monitor, name: str) -> Event | None:
    """The event in which QEMU reported what a command did; None if the command changed nothing."""
    return next((event for event in reversed(monitor.events) if event.name == name), None)
