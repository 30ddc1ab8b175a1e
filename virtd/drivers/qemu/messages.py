"""What those who look after a running guest should know of it: what makes it no standard one, what is deprecated.

Most follows from its live configuration. That somebody has spoken to QEMU or to the guest's agent past libvirt is
noted in the guest's directory, and forgotten with it.
"""

import os
from collections.abc import Iterator

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.drivers.qemu.driverbase import DriverBase
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.guests import Entry
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain
from virtd.state import files

MONITOR, AGENT = "custom-monitor", "custom-ga-command"
_DEPRECATED = "use of deprecated configuration settings"


class Messages(DriverBase):
    """virDomainGetMessages."""

    def domain_get_messages(self, domain: Domain, flags: int) -> list[str]:
        """virDomainGetMessages: of a guest that runs."""
        taint, deprecation = c.VIR_DOMAIN_MESSAGE_TAINTING, c.VIR_DOMAIN_MESSAGE_DEPRECATION
        unsupported_flags(flags, taint | deprecation, "qemuDomainGetMessages")
        entry = self.guests.find(domain)
        if not entry.active:
            return []
        config = self.live(entry)
        deprecated = list(self._deprecated(config))
        found = []
        if not flags or flags & taint:
            found += [f"tainted: {text}" for text in self._taints(entry, config, deprecated)]
        if not flags or flags & deprecation:
            found += [f"deprecated configuration: {text}" for text in deprecated]
        return found

    def _taints(self, entry: Entry, config: Config, deprecated: list[str]) -> Iterator[str]:
        """In libvirt's order."""
        guest = self.guest(entry)
        if config.qemu_args or config.qemu_env or config.qemu_overrides:
            yield "custom configuration parameters specified"
        if _marked(guest, MONITOR):
            yield "custom monitor control commands issued"
        if self.paths.privileged and _owner(entry) == 0:
            yield "running with undesirable elevated privileges"
        if config.cpu is not None and config.cpu.mode == "host-passthrough":
            yield "potentially unsafe use of host CPU passthrough"
        if config.os.dtb:
            yield "custom device tree blob used"
        if _marked(guest, AGENT):
            yield "custom guest agent control commands issued"
        if config.qemu_add or config.qemu_del:
            yield "hypervisor feature autodetection override"
        if deprecated:
            yield _DEPRECATED

    def _deprecated(self, config: Config) -> Iterator[str]:
        """What QEMU will not have for ever."""
        try:
            binary = self.capabilities.binary_for(config)
        except VirtError:
            return  # the emulator has gone while the guest runs
        machine = binary.machine(config.os.machine or "")
        if machine is not None and machine.deprecated:
            yield f"machine type '{config.os.machine}'"
        model = None if config.cpu is None else config.cpu.model
        if model is not None and any(one.name == model and one.deprecated for one in binary.cpu_models):
            yield f"CPU model '{model}'"


def mark(guest: Guest, what: str) -> None:
    """Note what somebody has done with a guest; the lock for that is held."""
    if not _marked(guest, what):
        files.replace(_mark_path(guest, what), b"", durable=False)


def _marked(guest: Guest, what: str) -> bool:
    return os.path.exists(_mark_path(guest, what))


def _mark_path(guest: Guest, what: str) -> str:
    return f"{guest.directory}/{what}"


def _owner(entry: Entry) -> int | None:
    """The user that QEMU runs as."""
    assert entry.status is not None
    if entry.status.process is None:
        return None
    try:
        return os.stat(f"/proc/{entry.status.process.pid}").st_uid
    except FileNotFoundError:
        return None
