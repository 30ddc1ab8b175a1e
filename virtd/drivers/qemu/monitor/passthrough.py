"""The qemu program: commands that go to QEMU's monitor as the client wrote them."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager

from virtd import constants as c
from virtd.drivers.base import Reply
from virtd.drivers.qemu import messages, shape
from virtd.drivers.qemu.lifecycle import Lifecycle
from virtd.drivers.qemu.monitor.client import Monitor, QMPError
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain
from virtd.state import files

_FUNCTION = "qemuDomainQemuMonitorCommandWithFiles"
_serials = itertools.count(1)


class Passthrough(Lifecycle):
    """virDomainQemuMonitorCommand."""

    def qemu_domain_monitor_command(self, domain: Domain, command: str, flags: int) -> str:
        """virDomainQemuMonitorCommand: a QMP command's whole reply, or (HMP) what a human would be shown."""
        return self._pass(domain, command, flags, [])

    def qemu_domain_monitor_command_with_files(
        self, domain: Domain, command: str, flags: int, *, fds: list[int]
    ) -> Reply:
        """virDomainQemuMonitorCommandWithFiles: descriptors go with the command; QEMU gives none back."""
        return Reply(self._pass(domain, command, flags, fds))

    def _pass(self, domain: Domain, command: str, flags: int, fds: list[int]) -> str:
        unsupported_flags(flags, c.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP, _FUNCTION)
        self.running(domain)
        if flags & c.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP:
            with self._passing(domain, command) as monitor:
                return str(monitor.execute("human-monitor-command", {"command-line": command}, fds))
        name, arguments = _parse(command)
        identifier = f"libvirt-{next(_serials)}"
        answer: dict[str, object]
        with self._passing(domain, command) as monitor:
            try:
                answer = {"return": monitor.execute(name, arguments, fds), "id": identifier}
            except QMPError as error:
                answer = {"id": identifier, "error": {"class": error.qmp_class, "desc": error.description}}
        return json.dumps(answer, separators=(",", ":"))

    @contextmanager
    def _passing(self, domain: Domain, command: str) -> Iterator[Monitor]:
        """The monitor of a guest that somebody speaks to past libvirt, which is noted."""
        with self._changing(domain, "virDomainQemuMonitorCommand") as (_, guest):
            messages.mark(guest, messages.MONITOR)
            if "dirty" in command:
                # Statistics need to know that there may be something to ask for.
                files.replace(guest.dirty_rate_path, b"", durable=False)
            with guest.monitor() as monitor:
                yield monitor


def _parse(text: str) -> tuple[str, shape.Table | None]:
    """The name and the arguments of a command in JSON.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, it is none.
    """
    try:
        command = json.loads(text)
    except ValueError as error:
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"cannot parse json {text}: {error}") from None
    table = shape.as_table(command, "command")
    if "id" in table:
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "Unable to append command 'id' string")
    arguments = shape.table(table, "arguments", {}) or None
    return shape.text(table, "execute"), arguments
