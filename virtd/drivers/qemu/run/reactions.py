"""What becomes of a guest when QEMU reports something: pure functions from a status and an event to a reaction.

The supervisor feeds events in, in the order in which QEMU reports them, and carries the reaction out. A new event is
a function here and a line in REACTIONS.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from virtd import constants as c
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.monitor.qmp import Event
from virtd.drivers.qemu.status import Status

# What the state a guest is stopped or resumed into means as detail of the lifecycle event.
SUSPENDED_DETAILS = {
    c.VIR_DOMAIN_PAUSED_MIGRATION: c.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED,
    c.VIR_DOMAIN_PAUSED_IOERROR: c.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR,
    c.VIR_DOMAIN_PAUSED_WATCHDOG: c.VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG,
    c.VIR_DOMAIN_PAUSED_FROM_SNAPSHOT: c.VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT,
    c.VIR_DOMAIN_PAUSED_POSTCOPY: c.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY,
    c.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: c.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED,
}
RESUMED_DETAILS = {
    c.VIR_DOMAIN_RUNNING_RESTORED: c.VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT,
    c.VIR_DOMAIN_RUNNING_FROM_SNAPSHOT: c.VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT,
    c.VIR_DOMAIN_RUNNING_MIGRATED: c.VIR_DOMAIN_EVENT_RESUMED_MIGRATED,
    c.VIR_DOMAIN_RUNNING_MIGRATION_CANCELED: c.VIR_DOMAIN_EVENT_RESUMED_MIGRATED,
    c.VIR_DOMAIN_RUNNING_POSTCOPY: c.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY,
}
STOPPED_DETAILS = {
    c.VIR_DOMAIN_SHUTOFF_SHUTDOWN: c.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN,
    c.VIR_DOMAIN_SHUTOFF_DESTROYED: c.VIR_DOMAIN_EVENT_STOPPED_DESTROYED,
    c.VIR_DOMAIN_SHUTOFF_CRASHED: c.VIR_DOMAIN_EVENT_STOPPED_CRASHED,
    c.VIR_DOMAIN_SHUTOFF_MIGRATED: c.VIR_DOMAIN_EVENT_STOPPED_MIGRATED,
    c.VIR_DOMAIN_SHUTOFF_SAVED: c.VIR_DOMAIN_EVENT_STOPPED_SAVED,
    c.VIR_DOMAIN_SHUTOFF_FAILED: c.VIR_DOMAIN_EVENT_STOPPED_FAILED,
    c.VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT: c.VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT,
    c.VIR_DOMAIN_SHUTOFF_DAEMON: c.VIR_DOMAIN_EVENT_STOPPED_FAILED,
}

# The life cycle actions which bring a guest back instead of ending it.
_RESTARTING = ("restart", "rename-restart", "coredump-restart")


Told = tuple[str, list[object]]  # an event for subscribers: its name, and its arguments after the guest


@dataclass(slots=True)
class Reaction:
    """What is to be done after an event, beside keeping the changed status."""

    events: list[Told] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)  # QMP commands without arguments
    end: int | None = None  # the VIR_DOMAIN_SHUTOFF_* reason to end QEMU for


def passed_on(event: Event) -> Told:
    """An event of QEMU's as it is, for those who want to hear of it (virConnectDomainQemuMonitorEventRegister)."""
    seconds, micro = divmod(max(0, event.microseconds), 1_000_000)
    details = json.dumps(event.data, separators=(",", ":")) if event.data else None
    return "monitor", [event.name, seconds, micro, details]


def react(status: Status, event: Event) -> Reaction:
    """Bring a status up to date with what QEMU reported, and say what is to be done.

    Args:
        status: changed in place.
        event: the event; one without a reaction changes nothing.
    """
    reaction = Reaction()
    function = REACTIONS.get(event.name)
    if function is not None:
        function(status, event.data, reaction)
    if event.microseconds > status.seen:
        status.seen = event.microseconds
    return reaction


def _lifecycle(reaction: Reaction, event: int, detail: int) -> None:
    reaction.events.append(("lifecycle", [event, detail]))


def _stop(status: Status, data: shape.Table, reaction: Reaction) -> None:
    # After a shutdown QEMU stops the CPUs, too: that is no pause.
    if status.state != c.VIR_DOMAIN_RUNNING or status.reboots:
        return
    reason = status.expected.pop("STOP", c.VIR_DOMAIN_PAUSED_UNKNOWN)
    status.state, status.reason = c.VIR_DOMAIN_PAUSED, reason
    _lifecycle(
        reaction,
        c.VIR_DOMAIN_EVENT_SUSPENDED,
        SUSPENDED_DETAILS.get(reason, c.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED),
    )


def _resume(status: Status, data: shape.Table, reaction: Reaction) -> None:
    reason = status.expected.pop("RESUME", c.VIR_DOMAIN_RUNNING_UNPAUSED)
    if status.state == c.VIR_DOMAIN_RUNNING:
        return
    status.state, status.reason = c.VIR_DOMAIN_RUNNING, reason
    _lifecycle(reaction, c.VIR_DOMAIN_EVENT_RESUMED, RESUMED_DETAILS.get(reason, c.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED))


def _restart(status: Status, reaction: Reaction, reason: int) -> None:
    """Bring the machine back to its power-on state, and let it run."""
    status.expected["RESUME"] = reason
    reaction.commands += ["system_reset", "cont"]


def _shutdown(status: Status, data: shape.Table, reaction: Reaction) -> None:
    if status.state in (c.VIR_DOMAIN_SHUTDOWN, c.VIR_DOMAIN_NOSTATE):
        return
    if status.state == c.VIR_DOMAIN_CRASHED and _crash_action(status) == "destroy":
        return  # that is our own doing: the crash has been told, and its end will be
    # With on_reboot=destroy QEMU makes a shutdown of every reset (prepare.after_start).
    final = data.get("reason") in ("guest-reset", "host-qmp-system-reset")
    if not final and (status.reboots or status.policy.get("poweroff") in _RESTARTING):
        # The guest only seems to go down; nobody is told but of the reset.
        status.reboots = True
        _restart(status, reaction, c.VIR_DOMAIN_RUNNING_BOOTED)
        return
    match data.get("guest"):
        case True:
            detail = c.VIR_DOMAIN_EVENT_SHUTDOWN_GUEST
        case False:
            detail = c.VIR_DOMAIN_EVENT_SHUTDOWN_HOST
        case _:
            detail = c.VIR_DOMAIN_EVENT_SHUTDOWN_FINISHED
    status.state, status.reason = c.VIR_DOMAIN_SHUTDOWN, c.VIR_DOMAIN_SHUTDOWN_UNKNOWN
    _lifecycle(reaction, c.VIR_DOMAIN_EVENT_SHUTDOWN, detail)
    reaction.end = c.VIR_DOMAIN_SHUTOFF_SHUTDOWN


def _reset(status: Status, data: shape.Table, reaction: Reaction) -> None:
    status.reboots = False
    reaction.events.append(("reboot", []))


def _panicked(status: Status, data: shape.Table, reaction: Reaction) -> None:
    if status.state == c.VIR_DOMAIN_CRASHED:
        return
    if status.state == c.VIR_DOMAIN_RUNNING:
        # QEMU stops the CPUs, which it reports later; libvirt tells of it first.
        _lifecycle(reaction, c.VIR_DOMAIN_EVENT_SUSPENDED, c.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)
    status.state, status.reason = c.VIR_DOMAIN_CRASHED, c.VIR_DOMAIN_CRASHED_PANICKED
    _lifecycle(reaction, c.VIR_DOMAIN_EVENT_CRASHED, c.VIR_DOMAIN_EVENT_CRASHED_PANICKED)
    match _crash_action(status):
        case "restart":
            _restart(status, reaction, c.VIR_DOMAIN_RUNNING_CRASHED)
        case "destroy":
            reaction.end = c.VIR_DOMAIN_SHUTOFF_CRASHED


def _crash_action(status: Status) -> str:
    """What a panic leads to: 'restart', 'destroy' or 'preserve'."""
    action = status.policy.get("crash", "destroy")
    return "restart" if action in _RESTARTING else "preserve" if action == "preserve" else "destroy"


def _rtc_change(status: Status, data: shape.Table, reaction: Reaction) -> None:
    reaction.events.append(("rtc-change", [shape.number(data, "offset")]))


_WATCHDOG_ACTIONS = {
    "none": c.VIR_DOMAIN_EVENT_WATCHDOG_NONE,
    "pause": c.VIR_DOMAIN_EVENT_WATCHDOG_PAUSE,
    "reset": c.VIR_DOMAIN_EVENT_WATCHDOG_RESET,
    "poweroff": c.VIR_DOMAIN_EVENT_WATCHDOG_POWEROFF,
    "shutdown": c.VIR_DOMAIN_EVENT_WATCHDOG_SHUTDOWN,
    "debug": c.VIR_DOMAIN_EVENT_WATCHDOG_DEBUG,
    "inject-nmi": c.VIR_DOMAIN_EVENT_WATCHDOG_INJECTNMI,
}


def _watchdog(status: Status, data: shape.Table, reaction: Reaction) -> None:
    action = shape.text(data, "action")
    if action == "pause":
        status.expected["STOP"] = c.VIR_DOMAIN_PAUSED_WATCHDOG
    reaction.events.append(("watchdog", [_WATCHDOG_ACTIONS.get(action, c.VIR_DOMAIN_EVENT_WATCHDOG_NONE)]))


_IO_ERROR_ACTIONS = {
    "ignore": c.VIR_DOMAIN_EVENT_IO_ERROR_NONE,
    "stop": c.VIR_DOMAIN_EVENT_IO_ERROR_PAUSE,
    "report": c.VIR_DOMAIN_EVENT_IO_ERROR_REPORT,
}


def _io_error(status: Status, data: shape.Table, reaction: Reaction) -> None:
    action = _IO_ERROR_ACTIONS.get(shape.text(data, "action"), c.VIR_DOMAIN_EVENT_IO_ERROR_NONE)
    if action == c.VIR_DOMAIN_EVENT_IO_ERROR_PAUSE:
        status.expected["STOP"] = c.VIR_DOMAIN_PAUSED_IOERROR
    reason = "enospc" if data.get("nospace") is True else ""
    name = str(data.get("node-name") or data.get("device") or "")
    alias, path = status.disks.get(name, [name, ""])
    reaction.events.append(("io-error", [path, alias, action]))
    reaction.events.append(("io-error-reason", [path, alias, action, reason]))


def _block_threshold(status: Status, data: shape.Table, reaction: Reaction) -> None:
    """An image has been written beyond a mark, which QEMU has forgotten with that."""
    name = shape.text(data, "node-name")
    path = status.disks.get(name, [name, ""])[1]
    for target in status.thresholds.pop(name, [])[1:]:
        numbers = [shape.number(data, "write-threshold"), shape.number(data, "amount-exceeded")]
        reaction.events.append(("block-threshold", [target, path or None, *numbers]))


AGENT = "org.qemu.guest_agent.0"  # the channel that a guest agent serves


def agent_started(status: Status) -> list[Told]:
    """What is told of a guest's agent when the guest is started."""
    if not any(name == AGENT for name, _ in status.channels.values()):
        return []
    state = c.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_DISCONNECTED
    return [("agent-lifecycle", [state, c.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_DOMAIN_STARTED])]


def _channel(status: Status, data: shape.Table, reaction: Reaction) -> None:
    channel = status.channels.get(shape.text(data, "id"))
    is_open = shape.truth(data, "open")
    state = "connected" if is_open else "disconnected"
    if channel is None or channel[1] == state:
        return
    channel[1] = state
    if channel[0] == AGENT:
        constant = (
            c.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED
            if is_open
            else c.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_DISCONNECTED
        )
        reaction.events.append(
            ("agent-lifecycle", [constant, c.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_CHANNEL])
        )


def _balloon(status: Status, data: shape.Table, reaction: Reaction) -> None:
    status.memory = shape.number(data, "actual") // 1024
    reaction.events.append(("balloon-change", [status.memory]))


def _suspend(status: Status, data: shape.Table, reaction: Reaction) -> None:
    status.state, status.reason = c.VIR_DOMAIN_PMSUSPENDED, c.VIR_DOMAIN_PMSUSPENDED_UNKNOWN
    _lifecycle(reaction, c.VIR_DOMAIN_EVENT_PMSUSPENDED, c.VIR_DOMAIN_EVENT_PMSUSPENDED_MEMORY)
    reaction.events.append(("pm-suspend", []))


def _suspend_disk(status: Status, data: shape.Table, reaction: Reaction) -> None:
    status.state, status.reason = c.VIR_DOMAIN_PMSUSPENDED, c.VIR_DOMAIN_PMSUSPENDED_UNKNOWN
    _lifecycle(reaction, c.VIR_DOMAIN_EVENT_PMSUSPENDED, c.VIR_DOMAIN_EVENT_PMSUSPENDED_DISK)
    reaction.events.append(("pm-suspend-disk", []))


def _wakeup(status: Status, data: shape.Table, reaction: Reaction) -> None:
    if status.state == c.VIR_DOMAIN_PMSUSPENDED:
        status.state, status.reason = c.VIR_DOMAIN_RUNNING, c.VIR_DOMAIN_RUNNING_WAKEUP
        _lifecycle(reaction, c.VIR_DOMAIN_EVENT_STARTED, c.VIR_DOMAIN_EVENT_STARTED_WAKEUP)
    reaction.events.append(("pm-wakeup", []))


def _device_deleted(status: Status, data: shape.Table, reaction: Reaction) -> None:
    alias = data.get("device")
    if isinstance(alias, str) and alias not in status.gone:
        status.gone.append(alias)
        reaction.events.append(("device-removed", [alias]))


def _removal_failed(status: Status, data: shape.Table, reaction: Reaction) -> None:
    """The guest will not let go of a device."""
    alias = data.get("device")
    if isinstance(alias, str):
        reaction.events.append(("device-removal-failed", [alias]))


def _memory_device(status: Status, data: shape.Table, reaction: Reaction) -> None:
    """The guest uses more or less of a memory device, in bytes."""
    reaction.events.append(("memory-device-size-change", [shape.text(data, "id"), shape.number(data, "size")]))


_GRAPHICS_PHASES = {
    "VNC_CONNECTED": c.VIR_DOMAIN_EVENT_GRAPHICS_CONNECT,
    "VNC_INITIALIZED": c.VIR_DOMAIN_EVENT_GRAPHICS_INITIALIZE,
    "VNC_DISCONNECTED": c.VIR_DOMAIN_EVENT_GRAPHICS_DISCONNECT,
    "SPICE_CONNECTED": c.VIR_DOMAIN_EVENT_GRAPHICS_CONNECT,
    "SPICE_INITIALIZED": c.VIR_DOMAIN_EVENT_GRAPHICS_INITIALIZE,
    "SPICE_DISCONNECTED": c.VIR_DOMAIN_EVENT_GRAPHICS_DISCONNECT,
}
_FAMILIES = {
    "ipv4": c.VIR_DOMAIN_EVENT_GRAPHICS_ADDRESS_IPV4,
    "ipv6": c.VIR_DOMAIN_EVENT_GRAPHICS_ADDRESS_IPV6,
    "unix": c.VIR_DOMAIN_EVENT_GRAPHICS_ADDRESS_UNIX,
}


def _graphics(name: str) -> Callable[[Status, shape.Table, Reaction], None]:
    def function(status: Status, data: shape.Table, reaction: Reaction) -> None:
        ends = [shape.table(data, end, {}) for end in ("client", "server")]
        addresses = [
            [
                _FAMILIES.get(str(end.get("family")), c.VIR_DOMAIN_EVENT_GRAPHICS_ADDRESS_IPV4),
                str(end.get("host", "")),
                str(end.get("service", end.get("port", ""))),
            ]
            for end in ends
        ]
        scheme = str(ends[1].get("auth", ""))
        client = ends[0]
        subject = [
            [kind, str(client[key])]
            for kind, key in (("x509dname", "x509_dname"), ("saslUsername", "sasl_username"))
            if key in client
        ]
        reaction.events.append(("graphics", [_GRAPHICS_PHASES[name], *addresses, scheme, subject]))

    return function


REACTIONS: dict[str, Callable[[Status, shape.Table, Reaction], None]] = {
    "STOP": _stop,
    "RESUME": _resume,
    "SHUTDOWN": _shutdown,
    "RESET": _reset,
    "GUEST_PANICKED": _panicked,
    "RTC_CHANGE": _rtc_change,
    "WATCHDOG": _watchdog,
    "BLOCK_IO_ERROR": _io_error,
    "BLOCK_WRITE_THRESHOLD": _block_threshold,
    "VSERPORT_CHANGE": _channel,
    "BALLOON_CHANGE": _balloon,
    "DEVICE_DELETED": _device_deleted,
    "DEVICE_UNPLUG_GUEST_ERROR": _removal_failed,
    "MEM_UNPLUG_ERROR": _removal_failed,
    "MEMORY_DEVICE_SIZE_CHANGE": _memory_device,
    "SUSPEND": _suspend,
    "SUSPEND_DISK": _suspend_disk,
    "WAKEUP": _wakeup,
    **{name: _graphics(name) for name in _GRAPHICS_PHASES},
}
