"""What events are called and what they say. The index is libvirt's number, unless it is said otherwise."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# virDomainEventID
DOMAIN = (
    "lifecycle",
    "reboot",
    "rtc-change",
    "watchdog",
    "io-error",
    "graphics",
    "io-error-reason",
    "control-error",
    "block-job",
    "disk-change",
    "tray-change",
    "pm-wakeup",
    "pm-suspend",
    "balloon-change",
    "pm-suspend-disk",
    "device-removed",
    "block-job-2",
    "tunable",
    "agent-lifecycle",
    "device-added",
    "migration-iteration",
    "job-completed",
    "device-removal-failed",
    "metadata-change",
    "block-threshold",
    "memory-failure",
    "memory-device-size-change",
)
# virDomainEventType, and what each may be for
_LIFECYCLE = (
    ("Defined", ("Added", "Updated", "Renamed", "Snapshot")),
    ("Undefined", ("Removed", "Renamed")),
    ("Started", ("Booted", "Migrated", "Restored", "Snapshot", "Event wakeup")),
    (
        "Suspended",
        (
            "Paused",
            "Migrated",
            "I/O Error",
            "Watchdog",
            "Restored",
            "Snapshot",
            "API error",
            "Post-copy",
            "Post-copy Error",
        ),
    ),
    ("Resumed", ("Unpaused", "Migrated", "Snapshot", "Post-copy", "Post-copy Error")),
    ("Stopped", ("Shutdown", "Destroyed", "Crashed", "Migrated", "Saved", "Failed", "Snapshot")),
    ("Shutdown", ("Finished", "Finished after guest request", "Finished after host request")),
    ("PMSuspended", ("Memory", "Disk")),
    ("Crashed", ("Panicked", "Crashloaded")),
)
_WATCHDOG = ("none", "pause", "reset", "poweroff", "shutdown", "debug", "inject-nmi")
_IO_ERROR = ("none", "pause", "report")
_GRAPHICS = ("connect", "initialize", "disconnect")
_FAMILY = ("IPv4", "IPv6", "unix")
_BLOCK_JOB = ("unknown", "Block Pull", "Block Copy", "Block Commit", "Active Block Commit", "Backup")
_BLOCK_JOB_STATUS = ("completed", "failed", "canceled", "ready")
_DISK_CHANGE = ("changed", "dropped")
_TRAY = ("opened", "closed")
_AGENT_STATE = ("unknown", "connected", "disconnected")
_AGENT_REASON = ("unknown", "domain started", "channel event")
_METADATA = ("description", "title", "element")
_RECIPIENT = ("hypervisor", "guest")
_FAILURE = ("ignore", "inject", "fatal", "reset")

# The lifecycles of other objects: virNetworkEventLifecycleType and so on
NETWORK = ("Defined", "Undefined", "Started", "Stopped")
POOL = ("Defined", "Undefined", "Started", "Stopped", "Created", "Deleted")
NODE_DEVICE = ("Created", "Deleted", "Defined", "Undefined")
SECRET = ("Defined", "Undefined")


def of(names: tuple[str, ...], number: int) -> str:
    """The name of a number; "unknown" for one that is newer than the table."""
    return names[number] if 0 <= number < len(names) else "unknown"


def lifecycle(event: int, detail: int) -> tuple[str, str]:
    """What has become of a guest, and why."""
    if not 0 <= event < len(_LIFECYCLE):
        return "unknown", "unknown"
    name, details = _LIFECYCLE[event]
    return name, of(details, detail)


def _lifecycle(event: int, detail: int) -> tuple[str, dict[str, Any]]:
    name, why = lifecycle(event, detail)
    return f": {name} {why}", {"type": name, "detail": why}


def _one(key: str, form: str = ": {}", names: tuple[str, ...] | None = None) -> Callable[..., Any]:
    """A description of an event with one value."""

    def describe(value: Any) -> tuple[str, dict[str, Any]]:
        shown = of(names, value) if names else value
        return form.format(shown), {key: shown}

    return describe


def _nothing() -> tuple[str, dict[str, Any]]:
    return "", {}


def _io_error(path: str, alias: str, action: int) -> tuple[str, dict[str, Any]]:
    name = of(_IO_ERROR, action)
    return f": {path} ({alias}) {name}", {"path": path, "alias": alias, "action": name}


def _io_error_reason(path: str, alias: str, action: int, reason: str) -> tuple[str, dict[str, Any]]:
    text, data = _io_error(path, alias, action)
    return f"{text} due to {reason}", {**data, "reason": reason}


def _graphics(phase: int, local: Any, remote: Any, scheme: str, subject: Any) -> tuple[str, dict[str, Any]]:
    ends = [(of(_FAMILY, end.family), end.node, end.service) for end in (local, remote)]
    name = of(_GRAPHICS, phase)
    text = f": {name} local[{' '.join(ends[0])}] remote[{' '.join(ends[1])}] {scheme}"
    text += "".join(f"\n\t{one.type}={one.name}" for one in subject)
    data = {"phase": name, "local": ends[0], "remote": ends[1], "scheme": scheme}
    return text, {**data, "subject": {one.type: one.name for one in subject}}


def _block_job(path: str, kind: int, status: int) -> tuple[str, dict[str, Any]]:
    name, state = of(_BLOCK_JOB, kind), of(_BLOCK_JOB_STATUS, status)
    return f": {name} for {path} {state}", {"job": name, "disk": path, "status": state}


def _disk_change(old: str | None, new: str | None, alias: str, reason: int) -> tuple[str, dict[str, Any]]:
    why = of(_DISK_CHANGE, reason)
    text = f" disk {alias}: {old or '<null>'} -> {new or '<null>'}: {why}"
    return text, {"alias": alias, "old": old, "new": new, "reason": why}


def _tray(alias: str, reason: int) -> tuple[str, dict[str, Any]]:
    why = of(_TRAY, reason)
    return f" disk {alias}: {why}", {"alias": alias, "reason": why}


def _parameters(parameters: Any) -> tuple[str, dict[str, Any]]:
    from virtd.shell import typed

    return ":" + "".join(f"\n\t{one.field}: {typed.text(one)}" for one in parameters), typed.data(parameters)


def _agent(state: int, reason: int) -> tuple[str, dict[str, Any]]:
    name, why = of(_AGENT_STATE, state), of(_AGENT_REASON, reason)
    return f": state: '{name}' reason: '{why}'", {"state": name, "reason": why}


def _metadata(kind: int, uri: str | None) -> tuple[str, dict[str, Any]]:
    name = of(_METADATA, kind)
    return f": type {name}, uri {uri or '<null>'}", {"type": name, "uri": uri}


def _threshold(device: str, path: str | None, threshold: int, excess: int) -> tuple[str, dict[str, Any]]:
    text = f": dev: {device}({path or '<null>'}) {threshold} {excess}"
    return text, {"device": device, "path": path, "threshold": threshold, "excess": excess}


def _memory_failure(recipient: int, action: int, flags: int) -> tuple[str, dict[str, Any]]:
    whom, what = of(_RECIPIENT, recipient), of(_FAILURE, action)
    required, recursive = int(bool(flags & 1)), int(bool(flags & 2))
    text = f":\nrecipient: {whom}\naction: {what}\nflags:\n\taction required: {required}\n\trecursive: {recursive}"
    return text, {"recipient": whom, "action": what, "required": required, "recursive": recursive}


def _device_size(alias: str, size: int) -> tuple[str, dict[str, Any]]:
    return f":\nalias: {alias}\nsize: {size}", {"alias": alias, "size": size}


# What each event of a guest says behind the guest's name, and in JSON; takes the event's own values.
_DESCRIBE: dict[str, Callable[..., tuple[str, dict[str, Any]]]] = {
    "lifecycle": _lifecycle,
    "reboot": _nothing,
    "rtc-change": _one("offset"),
    "watchdog": _one("action", names=_WATCHDOG),
    "io-error": _io_error,
    "graphics": _graphics,
    "io-error-reason": _io_error_reason,
    "control-error": _nothing,
    "block-job": _block_job,
    "disk-change": _disk_change,
    "tray-change": _tray,
    "pm-wakeup": _nothing,
    "pm-suspend": _nothing,
    "balloon-change": _one("actual_kib", ": {}KiB"),
    "pm-suspend-disk": _nothing,
    "device-removed": _one("alias"),
    "block-job-2": _block_job,
    "tunable": _parameters,
    "agent-lifecycle": _agent,
    "device-added": _one("alias"),
    "migration-iteration": _one("iteration", ": iteration: '{}'"),
    "job-completed": _parameters,
    "device-removal-failed": _one("alias"),
    "metadata-change": _metadata,
    "block-threshold": _threshold,
    "memory-failure": _memory_failure,
    "memory-device-size-change": _device_size,
}

# The procedures that carry events of guests, where their names are not those of the events.
_PROCEDURES = {
    "DOMAIN_EVENT_BLOCK_JOB_2": "block-job-2",
    "DOMAIN_EVENT_BLOCK_THRESHOLD": "block-threshold",
    "DOMAIN_EVENT_MEMORY_FAILURE": "memory-failure",
    "DOMAIN_EVENT_MEMORY_DEVICE_SIZE_CHANGE": "memory-device-size-change",
    "DOMAIN_EVENT_CALLBACK_PMWAKEUP": "pm-wakeup",
    "DOMAIN_EVENT_CALLBACK_PMSUSPEND": "pm-suspend",
    "DOMAIN_EVENT_CALLBACK_PMSUSPEND_DISK": "pm-suspend-disk",
}


def describe_domain(procedure: str, values: tuple[Any, ...]) -> tuple[int, str, dict[str, Any]] | None:
    """What an event of a guest says.

    Args:
        procedure: the message's name.
        values: its fields.

    Returns:
        The callback that it is for, the text and the data; None if it is not an event of a guest.
    """
    prefix = "DOMAIN_EVENT_CALLBACK_"
    name = _PROCEDURES.get(procedure)
    if name is None and procedure.startswith(prefix):
        name = procedure.removeprefix(prefix).lower().replace("_", "-")
    if name not in _DESCRIBE:
        return None
    callback, *rest = values
    if isinstance(rest[0], int):
        rest = rest[1:]  # a reason that says nothing, before the message
    # The older messages lie whole in the newer ones: (guest, …) instead of guest, ….
    domain, *own = rest if hasattr(rest[0], "uuid") else rest[0]
    text, data = _DESCRIBE[name](*own)
    sentence = f"event '{name}' for domain '{domain.name}'{text}"
    return callback, sentence, {"event": name, "domain": domain.name, **data}
