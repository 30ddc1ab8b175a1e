"""What is known of one running guest beside its XML: a small JSON file, replaced whole at each change.

It has one writer at a time: who starts the guest, until its supervisor runs; from then on the supervisor. The live XML
is a file of its own, so that a change of state, the commonest of all changes, does not write it again.
"""

import json
from dataclasses import asdict, dataclass, field

from virtd import constants as c
from virtd.drivers.qemu import shape
from virtd.state import files
from virtd.state.commit import Change
from virtd.state.process import Process


@dataclass(slots=True)
class Status:
    """The run-time facts of one guest."""

    name: str
    uuid: str
    id: int  # libvirt's domain id, given at the start and kept
    process: Process | None = None  # QEMU; None until it has been started
    state: int = c.VIR_DOMAIN_NOSTATE
    reason: int = 0
    started: float = 0.0  # seconds since the epoch; 0 while the start is under way
    owner: Process | None = None  # the process whose end ends the guest (autodestroy)
    reboots: bool = False  # the shutdown under way is the first half of a reboot
    # What the guest's own actions lead to: on_poweroff, on_reboot, on_crash.
    policy: dict[str, str] = field(default_factory=dict)
    # Reasons for what QEMU is about to report, left by whoever asks for it: event name → reason.
    expected: dict[str, int] = field(default_factory=dict)
    ports: list[int] = field(default_factory=list)  # TCP ports that were chosen for it
    # QEMU's name of a disk → libvirt's alias and the path of its source, for events.
    disks: dict[str, list[str]] = field(default_factory=dict)
    # QEMU's name of an image → the mark beyond which its being written is told of, and the names that calls it by.
    thresholds: dict[str, list[str]] = field(default_factory=dict)
    # Virtio channels: alias → name, and "connected" while a program in the guest has it open, else "disconnected".
    channels: dict[str, list[str]] = field(default_factory=dict)
    counted: list[str] = field(default_factory=list)  # the host's performance counters that are kept for it
    # What virDomainGetInfo tells, so that it need not read the XML.
    max_memory: int = 0  # KiB
    memory: int = 0  # KiB, as the balloon said last
    vcpus: int = 0
    gone: list[str] = field(default_factory=list)  # devices that the guest has let go of, and the live XML still has
    # The last event of QEMU that is contained in this, in microseconds since the epoch.
    seen: int = 0

    @property
    def active(self) -> bool:
        """Whether the guest counts as running: its start has succeeded."""
        return self.started > 0

    @property
    def as_written(self) -> bool:
        """Whether nothing has happened that the live XML does not have: devices that went, channels that opened."""
        return not self.gone and all(state != "connected" for _, state in self.channels.values())

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    def publish(self, path: str, change: Change) -> None:
        """Replace the status file inside a commit."""
        change.publish(files.prepare(path, self.encode(), durable=False))


def decode(content: bytes) -> Status:
    """Read a status back.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR: it is not what encode() wrote.
    """
    try:
        table = shape.as_table(json.loads(content), "status")
    except ValueError as error:
        raise shape.ShapeError(f"status file is not JSON: {error}") from None
    return Status(
        name=shape.text(table, "name"),
        uuid=shape.text(table, "uuid"),
        id=shape.number(table, "id"),
        process=_process(table, "process"),
        state=shape.number(table, "state"),
        reason=shape.number(table, "reason"),
        started=_seconds(table, "started"),
        owner=_process(table, "owner"),
        reboots=shape.truth(table, "reboots"),
        policy={key: str(value) for key, value in shape.table(table, "policy").items()},
        expected={key: shape.number(shape.table(table, "expected"), key) for key in shape.table(table, "expected")},
        ports=[shape.number({"port": port}, "port") for port in _list(table, "ports")],
        disks=_names(table, "disks"),
        thresholds=_names(table, "thresholds"),
        channels=_names(table, "channels"),
        counted=shape.texts(table, "counted", []),
        max_memory=shape.number(table, "max_memory"),
        memory=shape.number(table, "memory"),
        vcpus=shape.number(table, "vcpus"),
        gone=[str(alias) for alias in _list(table, "gone")] if "gone" in table else [],
        seen=shape.number(table, "seen"),
    )


def load(path: str) -> Status | None:
    """The status in a file; None if there is none."""
    content = files.read(path)
    return None if content is None else decode(content)


def _process(table: shape.Table, key: str) -> Process | None:
    if table.get(key) is None:
        return None
    inner = shape.table(table, key)
    return Process(shape.number(inner, "pid"), shape.number(inner, "start"))


def _names(table: shape.Table, key: str) -> dict[str, list[str]]:
    inner = shape.table(table, key, {})
    return {node: [str(name) for name in _list(inner, node)] for node in inner}


def _list(table: shape.Table, key: str) -> list[object]:
    value = table.get(key)
    if not isinstance(value, list):
        raise shape.ShapeError(f"'{key}' in status is no list")
    return value


def _seconds(table: shape.Table, key: str) -> float:
    value = table.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise shape.ShapeError(f"'{key}' in status is no number")
    return float(value)
