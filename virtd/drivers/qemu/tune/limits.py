"""Shares and limits of a guest's CPUs, memory and I/O: in its configuration, and in its control group while it runs.

One Table for each kind of parameters says what there is, where it stands in the configuration, and which file of the
control group (cgroup v2) it is. A guest that runs without a control group of its own has none of this to be read or
set; that is said in libvirt's words.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.memory import CpuTune, MemoryTune
from virtd.drivers import typed
from virtd.drivers.qemu.changes import Changes
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.guests import Entry
from virtd.drivers.qemu.run import cgroup, tuning
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain, TypedParam
from virtd.state import files

AFFECT = c.VIR_DOMAIN_AFFECT_LIVE | c.VIR_DOMAIN_AFFECT_CONFIG
UNLIMITED = c.VIR_DOMAIN_MEMORY_PARAM_UNLIMITED
_PERIOD_MS = 100_000  # the kernel's own period, in µs
_PERIOD, _QUOTA = (1000, 1_000_000), (1000, 17_592_186_044_415)


class Parameter(NamedTuple):
    """A parameter: libvirt's name, the attribute in the configuration, the type, and the bounds of what is not 0."""

    name: str
    attribute: str
    kind: int
    bounds: tuple[int, int] | None = None


_ULLONG, _LLONG = c.VIR_TYPED_PARAM_ULLONG, c.VIR_TYPED_PARAM_LLONG
SCHEDULER = (
    Parameter("cpu_shares", "shares", _ULLONG),
    Parameter("vcpu_period", "period", _ULLONG, _PERIOD),
    Parameter("vcpu_quota", "quota", _LLONG, _QUOTA),
    Parameter("emulator_period", "emulator_period", _ULLONG, _PERIOD),
    Parameter("emulator_quota", "emulator_quota", _LLONG, _QUOTA),
    Parameter("global_period", "global_period", _ULLONG, _PERIOD),
    Parameter("global_quota", "global_quota", _LLONG, _QUOTA),
    Parameter("iothread_period", "iothread_period", _ULLONG, _PERIOD),
    Parameter("iothread_quota", "iothread_quota", _LLONG, _QUOTA),
)
MEMORY = (
    Parameter("hard_limit", "hard_limit", _ULLONG),
    Parameter("soft_limit", "soft_limit", _ULLONG),
    Parameter("swap_hard_limit", "swap_hard_limit", _ULLONG),
)
_SHARES = (2, 262144)
# What is for groups of threads below the guest's own: the beginning of the names, and which groups.
_OF_THREADS = {"vcpu": "vcpu", "emulator": "emulator", "iothread": "iothread"}
# libvirt's words for a host without control groups: in a user's own session, and without the controller.
_MISSING = {
    "cpu": ("CPU tuning is not available in session mode", "cgroup CPU controller is not mounted"),
    "memory": ("Memory cgroup is not available in session mode", "cgroup memory controller is not mounted"),
    "io": ("Block I/O tuning is not available in session mode", "blkio cgroup isn't mounted"),
}


class Tuning(Changes):
    """Scheduler and memory parameters."""

    def domain_get_scheduler_parameters(self, domain: Domain, wanted: int) -> list[TypedParam]:
        """virDomainGetSchedulerParameters."""
        return self.domain_get_scheduler_parameters_flags(domain, wanted, 0)

    def domain_get_scheduler_parameters_flags(self, domain: Domain, wanted: int, flags: int) -> list[TypedParam]:
        """virDomainGetSchedulerParametersFlags."""
        self.exclusive_flags(flags, "virDomainGetSchedulerParametersFlags")
        function = "qemuDomainGetSchedulerParametersFlags"
        unsupported_flags(flags, AFFECT | c.VIR_TYPED_PARAM_STRING_OKAY, function)
        self.require_privileges("cpu")
        entry = self.guests.find(domain)
        live, _ = self.affects(entry, flags)
        if live:
            values = _group_scheduler(self.require_group(entry, "cpu"))
        else:
            tune = self.config(entry).cputune
            values = {one.name: getattr(tune, one.attribute, None) or 0 for one in SCHEDULER}
        return [_typed(one, values[one.name]) for one in SCHEDULER][:wanted]

    def domain_set_scheduler_parameters(self, domain: Domain, params: list[TypedParam]) -> None:
        """virDomainSetSchedulerParameters."""
        self.domain_set_scheduler_parameters_flags(domain, params, c.VIR_DOMAIN_AFFECT_CURRENT)

    def domain_set_scheduler_parameters_flags(self, domain: Domain, params: list[TypedParam], flags: int) -> None:
        """virDomainSetSchedulerParametersFlags."""
        unsupported_flags(flags, AFFECT, "qemuDomainSetSchedulerParametersFlags")
        values = typed.take(params, {one.name: one.kind for one in SCHEDULER})
        self.require_privileges("cpu")

        def edit(config: Config, live: bool) -> None:
            _check_bounds(values)
            config.cputune = config.cputune or CpuTune()
            for one in SCHEDULER:
                if one.name in values:
                    setattr(config.cputune, one.attribute, values[one.name] or None)

        def apply(guest: Guest, config: Config) -> None:
            group = self.require_group(self.guests.find(domain), "cpu")
            _set_group_scheduler(group, values)
            if any(name.partition("_")[0] in _OF_THREADS for name in values):
                _limit_threads(guest, group, config.cputune or CpuTune())

        events = [
            (
                "tunable",
                (
                    [
                        _told(f"cputune.{one.name}", _typed(one, values[one.name]))
                        for one in SCHEDULER
                        if one.name in values
                    ],
                ),
            )
        ]
        self.change(domain, "virDomainSetSchedulerParametersFlags", flags, edit, apply, events=list(events))

    def domain_get_memory_parameters(self, domain: Domain, wanted: int, flags: int) -> tuple[list[TypedParam], int]:
        """virDomainGetMemoryParameters, in KiB."""
        self.exclusive_flags(flags, "virDomainGetMemoryParameters")
        unsupported_flags(flags, AFFECT | c.VIR_TYPED_PARAM_STRING_OKAY, "qemuDomainGetMemoryParameters")
        self.require_privileges("memory")
        entry = self.guests.find(domain)
        live, _ = self.affects(entry, flags)
        if live:
            group = self.require_group(entry, "memory")
            values = _group_memory(group)
        else:
            tune = self.config(entry).memtune
            values = {one.name: getattr(tune, one.attribute, None) or UNLIMITED for one in MEMORY}
        return typed.portion([_typed(one, values[one.name]) for one in MEMORY], wanted, flags)

    def domain_set_memory_parameters(self, domain: Domain, params: list[TypedParam], flags: int) -> None:
        """virDomainSetMemoryParameters, in KiB."""
        unsupported_flags(flags, AFFECT, "qemuDomainSetMemoryParameters")
        values = typed.take(params, {one.name: one.kind for one in MEMORY})
        self.require_privileges("memory")

        def edit(config: Config, live: bool) -> None:
            tune = config.memtune = config.memtune or MemoryTune()
            for name, value in values.items():
                setattr(tune, name, None if value >= UNLIMITED else value)
            if (tune.hard_limit or 0) > (tune.swap_hard_limit or UNLIMITED):
                text = "memory hard_limit tunable value must be lower than or equal to swap_hard_limit"
                raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_DOMAIN)

        def apply(guest: Guest, config: Config) -> None:
            group = self.require_group(self.guests.find(domain), "memory")
            _set_group_memory(group, values, config.memtune)

        self.change(domain, "virDomainSetMemoryParameters", flags, edit, apply)

    def require_privileges(self, controller: str) -> None:
        """Refuse a parameter in a user's own session, where nobody has control groups."""
        if not self.paths.privileged:
            raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, _MISSING[controller][0], domain=c.VIR_FROM_QEMU)

    def require_group(self, entry: Entry, controller: str) -> str:
        """The control group of a guest that runs.

        Raises:
            VirtError: VIR_ERR_OPERATION_INVALID, it has none, or one without this controller.
        """
        group = cgroup.directory(entry.uuid)
        if group is None or controller not in cgroup.controllers(group):
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, _MISSING[controller][1], domain=c.VIR_FROM_QEMU)
        return group


_MAKERS: dict[int, Callable[[str, Any], TypedParam]] = {_ULLONG: typed.unsigned_long, _LLONG: typed.long}


def _typed(one: Parameter, value: int) -> TypedParam:
    return _MAKERS[one.kind](one.name, value)


def _told(name: str, param: TypedParam) -> list[object]:
    """A parameter as an event carries it."""
    return [name, [param.value.type, param.value.value]]


def _check_bounds(values: dict[str, int]) -> None:
    for one in SCHEDULER:
        value = values.get(one.name, 0)
        if one.bounds is not None and value > 0 and not one.bounds[0] <= value <= one.bounds[1]:
            text = f"value of '{one.name}' is out of range [{one.bounds[0]}, {one.bounds[1]}]"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)
    shares = values.get("cpu_shares", 0)
    if shares and not _SHARES[0] <= shares <= _SHARES[1]:
        text = f"shares '{shares}' must be in range [{_SHARES[0]}, {_SHARES[1]}]"
        raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_CGROUP)


def read_group(group: str, name: str) -> str:
    """What a file of a control group says; nothing if there is no such file."""
    return (files.read(f"{group}/{name}") or b"").decode().strip()


def _group_scheduler(group: str) -> dict[str, int]:
    values = {"cpu_shares": int(read_group(group, "cpu.weight") or 100)}
    values["global_quota"], values["global_period"] = _limit(group)
    for kind, beginning in _OF_THREADS.items():
        # All of a kind have the same limit.
        below = sorted(name for name in os.listdir(group) if name.startswith(beginning))
        values[f"{kind}_quota"], values[f"{kind}_period"] = _limit(f"{group}/{below[0]}") if below else (-1, _PERIOD_MS)
    return values


def _limit(group: str) -> tuple[int, int]:
    """The quota (-1: none) and the period of a group, in µs."""
    quota, _, period = read_group(group, "cpu.max").partition(" ")
    return int(quota) if quota.isdigit() else -1, int(period or _PERIOD_MS)


def _set_group_scheduler(group: str, values: dict[str, int]) -> None:
    if values.get("cpu_shares"):
        # cgroup v2 counts in 1..10000.
        cgroup.write(group, "cpu.weight", str(min(10000, values["cpu_shares"])))
    if "global_period" in values or "global_quota" in values:
        now = _group_scheduler(group)
        quota = values.get("global_quota", now["global_quota"])
        period = values.get("global_period", 0) or now["global_period"]
        cgroup.write(group, "cpu.max", f"{quota if quota > 0 else 'max'} {period}")


def _limit_threads(guest: Guest, group: str, tune: CpuTune) -> None:
    """Put limits of QEMU's threads in force while the guest runs."""
    status = guest.status()
    if status is None or status.process is None:
        return
    with guest.monitor() as monitor:
        threads = tuning.find(monitor, status.process.pid)
    tuning.limit_threads(group, tune, threads, guest.undo_path)


def _group_memory(group: str) -> dict[str, int]:
    hard, soft, swap = (_kib(read_group(group, f"memory.{name}")) for name in ("max", "high", "swap.max"))
    both = UNLIMITED if UNLIMITED in (hard, swap) else hard + swap
    return {"hard_limit": hard, "soft_limit": soft, "swap_hard_limit": both}


def _set_group_memory(group: str, values: dict[str, int], tune: MemoryTune | None) -> None:
    if "hard_limit" in values:
        cgroup.write(group, "memory.max", _bytes(values["hard_limit"]))
    if "soft_limit" in values:
        cgroup.write(group, "memory.high", _bytes(values["soft_limit"]))
    if "swap_hard_limit" in values:
        # libvirt limits memory and swap together, the kernel swap alone.
        hard = (tune.hard_limit if tune is not None else None) or 0
        swap = values["swap_hard_limit"]
        cgroup.write(group, "memory.swap.max", _bytes(swap if swap >= UNLIMITED else max(0, swap - hard)))


def _kib(text: str) -> int:
    return int(text) // 1024 if text.isdigit() else UNLIMITED


def _bytes(kib: int) -> str:
    return "max" if kib >= UNLIMITED else str(kib * 1024)
