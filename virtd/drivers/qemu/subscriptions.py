"""Who hears of which event: the subscriptions of one connection, read from the journal.

Events come as records of the journal, named as `virsh event` names them, from whichever process caused them. The
table says how each is sent: to callbacks, and to clients of the older registration, which knows no callbacks.
"""

from typing import NamedTuple

from virtd import constants as c
from virtd import uuids
from virtd.drivers.base import Event
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


class _Subscription(NamedTuple):
    event_id: int
    domain: Domain | None  # None: of all guests


class Subscriptions(DriverBase):
    """Registration for events, and the events themselves."""

    def _prepare(self) -> None:
        super()._prepare()
        self._callbacks: dict[int, _Subscription] = {}
        self._older: set[int] = set()
        self._last_callback = 0
        self._journal: journal.Reader | None = None

    def connect_domain_event_register(self) -> int:
        """virConnectDomainEventRegister: life cycle events, the oldest way."""
        self._subscribe_older(c.VIR_DOMAIN_EVENT_ID_LIFECYCLE)
        return 1

    def connect_domain_event_deregister(self) -> int:
        """virConnectDomainEventDeregister."""
        self._unsubscribe_older(c.VIR_DOMAIN_EVENT_ID_LIFECYCLE)
        return 0

    def connect_domain_event_register_any(self, event_id: int) -> None:
        """virConnectDomainEventRegisterAny of clients which know no callback ids."""
        if not 0 <= event_id < len(KINDS) or KINDS[event_id].older is None:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"unsupported event ID {event_id}")
        self._subscribe_older(event_id)

    def connect_domain_event_deregister_any(self, event_id: int) -> None:
        """virConnectDomainEventDeregisterAny of clients which know no callback ids."""
        self._unsubscribe_older(event_id)

    def connect_domain_event_callback_register_any(self, event_id: int, domain: Domain | None) -> int:
        """virConnectDomainEventRegisterAny: the id of a new callback for an event of one guest, or of all."""
        if not 0 <= event_id < len(KINDS):
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"unsupported event ID {event_id}")
        self._listen()
        callback = self._last_callback
        self._last_callback += 1
        self._callbacks[callback] = _Subscription(event_id, domain)
        return callback

    def connect_domain_event_callback_deregister_any(self, callback: int) -> None:
        """virConnectDomainEventDeregisterAny."""
        if self._callbacks.pop(callback, None) is None:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"domain event callback {callback} not registered")
        self._listen_no_more()

    def connect_register_close_callback(self) -> None:
        """virConnectRegisterCloseCallback: the hypervisor is local, so that its connection never closes."""

    def connect_unregister_close_callback(self) -> None:
        """virConnectUnregisterCloseCallback."""

    def event_fd(self) -> int | None:
        return None if self._journal is None else self._journal.fileno()

    def read_events(self) -> list[Event]:
        events: list[Event] = []
        while self._journal is not None and not events:
            records = self._journal.read()
            if not records:
                break
            for record in records:
                if record.get("source") == "qemu":
                    events += self._messages(record)
        return events

    def close(self) -> None:
        self._callbacks.clear()
        self._older.clear()
        self._listen_no_more()
        super().close()

    def _messages(self, record: journal.Record) -> list[Event]:
        """The messages for this client that a record leads to."""
        event_id = EVENT_IDS.get(str(record.get("name")))
        match record.get("domain"), record.get("args"):
            case [str(name), str(uuid), int(number)], [*arguments]:
                domain = Domain(name, uuids.to_bytes(uuid), number)
            case _:
                return []
        if event_id is None:
            return []
        kind = KINDS[event_id]
        values = (domain, *arguments)
        messages = []
        if event_id in self._older and kind.older is not None:
            messages.append(Event("remote", kind.older, values))
        for callback, subscription in self._callbacks.items():
            if subscription.event_id != event_id:
                continue
            if subscription.domain is not None and subscription.domain.uuid != domain.uuid:
                continue
            match kind.form:
                case "message":
                    fields: tuple[object, ...] = (callback, values)
                case "reason":
                    fields = (callback, 0, values)
                case _:
                    fields = (callback, *values)
            messages.append(Event("remote", kind.procedure, fields))
        return messages

    def _subscribe_older(self, event_id: int) -> None:
        if event_id in self._older:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"domain event {event_id} already registered")
        self._listen()
        self._older.add(event_id)

    def _unsubscribe_older(self, event_id: int) -> None:
        if event_id not in self._older:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"domain event {event_id} not registered")
        self._older.remove(event_id)
        self._listen_no_more()

    def _listen(self) -> None:
        if self._journal is None:
            self._journal = self.generation.subscribe()

    def _listen_no_more(self) -> None:
        if self._journal is not None and not self._callbacks and not self._older:
            self._journal.close()
            self._journal = None
