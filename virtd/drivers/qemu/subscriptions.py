"""Who hears of which event: the subscriptions of one connection, read from the journal.

Events come as records of the journal, named as `virsh event` names them, from whichever process caused them. The
table says how each is sent: to callbacks, and to clients of the older registration, which knows no callbacks.
"""

from collections.abc import Iterator
from typing import NamedTuple

from virtd import constants as c
from virtd import uuids
from virtd.drivers.base import Event
from virtd.drivers.callbacks import Callbacks
from virtd.drivers.qemu.driverbase import DriverBase
from virtd.errors import VirtError
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


class Subscriptions(DriverBase):
    """Registration for events, and the events themselves."""

    def _prepare(self) -> None:
        super()._prepare()
        self._callbacks = Callbacks(self.generation, "qemu", "domain")

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
        self._callbacks.deregister(callback)

    def event_fd(self) -> int | None:
        return self._callbacks.fileno()

    def read_events(self) -> list[Event]:
        return self._callbacks.read(self._messages)

    def close(self) -> None:
        self._callbacks.close()
        super().close()

    def _messages(self, record: journal.Record) -> Iterator[Event]:
        """The messages for this client that a record leads to."""
        event_id = EVENT_IDS.get(str(record.get("name")))
        match record.get("domain"), record.get("args"):
            case [str(name), str(uuid), int(number)], [*arguments] if event_id is not None:
                domain = Domain(name, uuids.to_bytes(uuid), number)
            case _:
                return
        kind = KINDS[event_id]
        values = (domain, *arguments)
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
