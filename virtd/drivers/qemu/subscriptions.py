"""Who hears of which event: the subscriptions of one connection, read from the journal.

Events come as records of the journal, named as `virsh event` names them, from whichever process caused them. The
table says how each is sent: to callbacks, and to clients of the older registration, which knows no callbacks.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from virtd import constants as c
from virtd import uuids
from virtd.drivers.base import Event
from virtd.drivers.callbacks import Callbacks
from virtd.drivers.qemu.driverbase import DriverBase
from virtd.drivers.qemu.monitor import onlookers
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain
from virtd.state import journal


class _Kind(NamedTuple):
    name: str  # of the records, as `virsh event` calls it
    older: str | None  # the message for clients of the registration without callbacks
    procedure: str  # the message for callbacks
    form: str  # 'message': callback, (domain, …); 'reason': callback, 0, (domain, …); 'flat': callback, domain, …


def _old(name: str, suffix: str, form: str = "message") -> _Kind:
    return _Kind(name, f"DOMAIN_EVENT_{suffix}", f"DOMAIN_EVENT_CALLBACK_{suffix}", form)


# In the order of VIR_DOMAIN_EVENT_ID_*: the index is the event's id.
KINDS = [
    _old("lifecycle", "LIFECYCLE"),
    _old("reboot", "REBOOT"),
    _old("rtc-change", "RTC_CHANGE"),
    _old("watchdog", "WATCHDOG"),
    _old("io-error", "IO_ERROR"),
    _old("graphics", "GRAPHICS"),
    _old("io-error-reason", "IO_ERROR_REASON"),
    _old("control-error", "CONTROL_ERROR"),
    _old("block-job", "BLOCK_JOB"),
    _old("disk-change", "DISK_CHANGE"),
    _old("tray-change", "TRAY_CHANGE"),
    _old("pm-wakeup", "PMWAKEUP", "reason"),
    _old("pm-suspend", "PMSUSPEND", "reason"),
    _old("balloon-change", "BALLOON_CHANGE"),
    _old("pm-suspend-disk", "PMSUSPEND_DISK", "reason"),
    _old("device-removed", "DEVICE_REMOVED"),
    _Kind("block-job-2", None, "DOMAIN_EVENT_BLOCK_JOB_2", "flat"),
    _Kind("tunable", None, "DOMAIN_EVENT_CALLBACK_TUNABLE", "flat"),
    _Kind("agent-lifecycle", None, "DOMAIN_EVENT_CALLBACK_AGENT_LIFECYCLE", "flat"),
    _Kind("device-added", None, "DOMAIN_EVENT_CALLBACK_DEVICE_ADDED", "flat"),
    _Kind("migration-iteration", None, "DOMAIN_EVENT_CALLBACK_MIGRATION_ITERATION", "flat"),
    _Kind("job-completed", None, "DOMAIN_EVENT_CALLBACK_JOB_COMPLETED", "flat"),
    _Kind("device-removal-failed", None, "DOMAIN_EVENT_CALLBACK_DEVICE_REMOVAL_FAILED", "flat"),
    _Kind("metadata-change", None, "DOMAIN_EVENT_CALLBACK_METADATA_CHANGE", "flat"),
    _Kind("block-threshold", None, "DOMAIN_EVENT_BLOCK_THRESHOLD", "flat"),
    _Kind("memory-failure", None, "DOMAIN_EVENT_MEMORY_FAILURE", "flat"),
    _Kind("memory-device-size-change", None, "DOMAIN_EVENT_MEMORY_DEVICE_SIZE_CHANGE", "flat"),
]
EVENT_IDS = {kind.name: number for number, kind in enumerate(KINDS)}
# QEMU's own events have one number together, behind all of libvirt's, and one name in the journal.
_MONITOR_ID = len(KINDS)
MONITOR = "monitor"
_REGEX = c.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX
_NOCASE = c.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_NOCASE


class Subscriptions(DriverBase):
    """Registration for events, and the events themselves."""

    def _prepare(self) -> None:
        super()._prepare()
        self._callbacks = Callbacks(self.generation, "qemu", "domain")
        self._matchers: dict[int, Callable[[str], object]] = {}  # callbacks for QEMU's own events
        self._onlooker: onlookers.Onlooker | None = None

    def connect_domain_event_register(self) -> int:
        """virConnectDomainEventRegister: life cycle events, the oldest way."""
        self._callbacks.register_older(c.VIR_DOMAIN_EVENT_ID_LIFECYCLE)
        return 1

    def connect_domain_event_deregister(self) -> int:
        """virConnectDomainEventDeregister."""
        self._callbacks.deregister_older(c.VIR_DOMAIN_EVENT_ID_LIFECYCLE)
        return 0

    def connect_domain_event_register_any(self, event_id: int) -> None:
        """virConnectDomainEventRegisterAny of clients which know no callback ids."""
        if not 0 <= event_id < len(KINDS) or KINDS[event_id].older is None:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"unsupported event ID {event_id}")
        self._callbacks.register_older(event_id)

    def connect_domain_event_deregister_any(self, event_id: int) -> None:
        """virConnectDomainEventDeregisterAny of clients which know no callback ids."""
        self._callbacks.deregister_older(event_id)

    def connect_domain_event_callback_register_any(self, event_id: int, domain: Domain | None) -> int:
        """virConnectDomainEventRegisterAny: the id of a new callback for an event of one guest, or of all."""
        return self._callbacks.register(event_id, len(KINDS), None if domain is None else domain.uuid)

    def connect_domain_event_callback_deregister_any(self, callback: int) -> None:
        """virConnectDomainEventDeregisterAny."""
        if callback in self._matchers:
            raise _unknown("domain", callback)
        self._callbacks.deregister(callback)

    def qemu_connect_domain_monitor_event_register(self, domain: Domain | None, event: str | None, flags: int) -> int:
        """virConnectDomainQemuMonitorEventRegister: the id of a new callback for events of QEMU's own.

        Args:
            domain: of which guest; None for all.
            event: the event's name, or (REGEX) an expression that is found in it; None for all.
            flags: REGEX; NOCASE, small letters and capitals count the same.
        """
        unsupported_flags(flags, _REGEX | _NOCASE, "virDomainQemuMonitorEventStateRegisterID", domain=c.VIR_FROM_NONE)
        matcher = _matcher(event, flags)
        number = self._callbacks.register(_MONITOR_ID, _MONITOR_ID + 1, None if domain is None else domain.uuid)
        self._matchers[number] = matcher
        if self._onlooker is None:
            self._onlooker = onlookers.Onlooker(onlookers.path(self.guests.running))
        return number

    def qemu_connect_domain_monitor_event_deregister(self, callback: int) -> None:
        """virConnectDomainQemuMonitorEventDeregister."""
        if self._matchers.pop(callback, None) is None:
            raise _unknown("qemu monitor", callback)
        self._callbacks.deregister(callback)
        if not self._matchers:
            self._look_away()

    def _look_away(self) -> None:
        if self._onlooker is not None:
            self._onlooker.close()
            self._onlooker = None

    def event_fd(self) -> int | None:
        return self._callbacks.fileno()

    def read_events(self) -> list[Event]:
        return self._callbacks.read(self._messages)

    def close(self) -> None:
        self._look_away()
        self._callbacks.close()
        super().close()

    def _messages(self, record: journal.Record) -> Iterator[Event]:
        """The messages for this client that a record leads to."""
        event_id = EVENT_IDS.get(str(record.get("name")), _MONITOR_ID if record.get("name") == MONITOR else None)
        match record.get("domain"), record.get("args"):
            case [str(name), str(uuid), int(number)], [*arguments] if event_id is not None:
                domain = Domain(name, uuids.to_bytes(uuid), number)
            case _:
                return
        values = (domain, *arguments)
        if event_id == _MONITOR_ID:
            for callback in self._callbacks.wanted(event_id, domain.uuid):
                if self._matchers[callback](str(arguments[0])):
                    yield Event("qemu", "DOMAIN_MONITOR_EVENT", (callback, *values))
            return
        kind = KINDS[event_id]
        if kind.older is not None and self._callbacks.wanted_older(event_id):
            yield Event("remote", kind.older, values)
        for callback in self._callbacks.wanted(event_id, domain.uuid):
            match kind.form:
                case "message":
                    yield Event("remote", kind.procedure, (callback, values))
                case "reason":
                    yield Event("remote", kind.procedure, (callback, 0, values))
                case _:
                    yield Event("remote", kind.procedure, (callback, *values))


def _matcher(event: str | None, flags: int) -> Callable[[str], object]:
    """What tells whether an event of QEMU's is among those that a client wants."""
    if event is None:
        return lambda name: True
    if not flags & _REGEX:
        wanted = event.casefold() if flags & _NOCASE else event
        return lambda name: (name.casefold() if flags & _NOCASE else name) == wanted
    try:
        return re.compile(event, re.IGNORECASE if flags & _NOCASE else 0).search
    except re.error as error:
        text = f"failed to compile regex '{event}': {error}"
        raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_NONE) from None


def _unknown(what: str, callback: int) -> VirtError:
    return VirtError(c.VIR_ERR_INTERNAL_ERROR, f"{what} event callback {callback} not registered")
