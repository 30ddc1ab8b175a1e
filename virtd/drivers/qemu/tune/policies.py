"""Block I/O weights and limits per device, NUMA policy, performance counters, launch security, life cycle actions."""

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.memory import MEMORY_MODES, BlkioDevice, BlkioTune, NumaMemory, NumaTune
from virtd.conf.domain.os import PERF_EVENTS, PerfEvent
from virtd.conf.xml.types import BITMAP
from virtd.drivers import typed
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.run import perf, tuning
from virtd.drivers.qemu.tune.limits import AFFECT, Tuning, read_group
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain, TypedParam

_UNSUPPORTED, _INVALID = c.VIR_ERR_CONFIG_UNSUPPORTED, c.VIR_ERR_INVALID_ARG
# Parameters with a value for each of several devices: name, field of the model.
_DEVICES = (
    ("device_weight", "weight"),
    ("device_read_iops_sec", "read_iops"),
    ("device_write_iops_sec", "write_iops"),
    ("device_read_bytes_sec", "read_bytes"),
    ("device_write_bytes_sec", "write_bytes"),
)
_BLKIO_TYPES = {"weight": c.VIR_TYPED_PARAM_UINT, **{name: c.VIR_TYPED_PARAM_STRING for name, _ in _DEVICES}}
_NUMA_TYPES = {"numa_mode": c.VIR_TYPED_PARAM_INT, "numa_nodeset": c.VIR_TYPED_PARAM_STRING}
_DEFAULT_WEIGHT = 100
_EVENTS = {
    c.VIR_DOMAIN_LIFECYCLE_POWEROFF: "poweroff",
    c.VIR_DOMAIN_LIFECYCLE_REBOOT: "reboot",
    c.VIR_DOMAIN_LIFECYCLE_CRASH: "crash",
}
_ACTIONS = {
    c.VIR_DOMAIN_LIFECYCLE_ACTION_DESTROY: "destroy",
    c.VIR_DOMAIN_LIFECYCLE_ACTION_RESTART: "restart",
    c.VIR_DOMAIN_LIFECYCLE_ACTION_RESTART_RENAME: "rename-restart",
    c.VIR_DOMAIN_LIFECYCLE_ACTION_PRESERVE: "preserve",
    c.VIR_DOMAIN_LIFECYCLE_ACTION_COREDUMP_DESTROY: "coredump-destroy",
    c.VIR_DOMAIN_LIFECYCLE_ACTION_COREDUMP_RESTART: "coredump-restart",
}


class Policies(Tuning):
    """Parameters that are policies rather than numbers."""

    def domain_get_blkio_parameters(self, domain: Domain, wanted: int, flags: int) -> tuple[list[TypedParam], int]:
        """virDomainGetBlkioParameters."""
        self.exclusive_flags(flags, "virDomainGetBlkioParameters")
        unsupported_flags(flags, AFFECT | c.VIR_TYPED_PARAM_STRING_OKAY, "qemuDomainGetBlkioParameters")
        self.require_privileges("io")
        entry = self.guests.find(domain)
        live, _ = self.affects(entry, flags)
        tune = (self.live(entry) if live else self.config(entry)).blkiotune or BlkioTune()
        weight = tune.weight or 0
        if live:
            text = read_group(self.require_group(entry, "io"), "io.weight")
            weight = int(text.split()[-1]) if text else weight or _DEFAULT_WEIGHT
        params = [typed.unsigned("weight", weight)]
        for name, field in _DEVICES:
            words = [f"{one.path},{value}" for one in tune.devices if (value := getattr(one, field))]
            params.append(typed.string(name, ",".join(words)))
        return typed.portion(params, wanted, flags)

    def domain_set_blkio_parameters(self, domain: Domain, params: list[TypedParam], flags: int) -> None:
        """virDomainSetBlkioParameters."""
        unsupported_flags(flags, AFFECT, "qemuDomainSetBlkioParameters")
        values = typed.take(params, _BLKIO_TYPES)
        self.require_privileges("io")
        listed = {field: _device_list(name, values[name]) for name, field in _DEVICES if name in values}

        def edit(config: Config, live: bool) -> None:
            tune = config.blkiotune = config.blkiotune or BlkioTune()
            if "weight" in values:
                tune.weight = values["weight"] or None
            for field, numbers in listed.items():
                for path, number in numbers.items():
                    device = next((one for one in tune.devices if one.path == path), None)
                    if device is None:
                        device = BlkioDevice(path=path)
                        tune.devices.append(device)
                    setattr(device, field, number or None)
            tune.devices = [one for one in tune.devices if any(getattr(one, field) for _, field in _DEVICES)]

        def apply(guest: Guest, config: Config) -> None:
            group = self.require_group(self.guests.find(domain), "io")
            lifted: dict[str, list[str]] = {}
            for field, numbers in listed.items():
                for path, number in numbers.items():
                    if not number:
                        lifted.setdefault(path, []).append(field)
            tuning.set_io(group, config.blkiotune or BlkioTune(), lifted)

        self.change(domain, "virDomainSetBlkioParameters", flags, edit, apply)

    def domain_get_numa_parameters(self, domain: Domain, wanted: int, flags: int) -> tuple[list[TypedParam], int]:
        """virDomainGetNumaParameters."""
        unsupported_flags(flags, AFFECT | c.VIR_TYPED_PARAM_STRING_OKAY, "qemuDomainGetNumaParameters")
        self.exclusive_flags(flags, "virDomainObjGetOneDefState", "flags")
        tune = self.affected(self.guests.find(domain), flags).numatune
        memory = (tune.memory if tune is not None else None) or NumaMemory()
        mode = MEMORY_MODES.names.index(memory.mode) if memory.mode is not None else 0
        nodes = BITMAP.format(memory.nodeset) if memory.nodeset else ""
        return typed.portion([typed.integer("numa_mode", mode), typed.string("numa_nodeset", nodes)], wanted, flags)

    def domain_set_numa_parameters(self, domain: Domain, params: list[TypedParam], flags: int) -> None:
        """virDomainSetNumaParameters; a guest that runs has its memory where it is."""
        unsupported_flags(flags, AFFECT, "qemuDomainSetNumaParameters")
        values = typed.take(params, _NUMA_TYPES)
        number = values.get("numa_mode")
        if number is not None and not 0 <= number < len(MEMORY_MODES.names):
            text = f"unsupported numatune mode: '{number}'"
            raise VirtError(_INVALID, text)
        nodes = BITMAP.parse(values["numa_nodeset"]) if "numa_nodeset" in values else None

        def edit(config: Config, live: bool) -> None:
            tune = config.numatune = config.numatune or NumaTune()
            memory = tune.memory = tune.memory or NumaMemory(mode="strict")
            mode = memory.mode if number is None else MEMORY_MODES.names[number]
            if live and mode != memory.mode:
                text = "can't change numatune mode for running domain"
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_QEMU)
            if live and nodes is not None and nodes != memory.nodeset:
                text = "change of nodeset for running domain requires restrictive numa mode"
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_QEMU)
            memory.mode, memory.nodeset = mode, nodes or memory.nodeset
            if not memory.nodeset and not live:
                text = "nodeset for NUMA memory tuning must be set if 'placement' is 'static'"
                raise VirtError(_UNSUPPORTED, text, domain=c.VIR_FROM_DOMAIN)

        self.change(domain, "virDomainSetNumaParameters", flags, edit)

    def domain_get_perf_events(self, domain: Domain, flags: int) -> list[TypedParam]:
        """virDomainGetPerfEvents: which of the host's counters are kept for the guest."""
        known = AFFECT | c.VIR_TYPED_PARAM_STRING_OKAY
        unsupported_flags(flags, known, "qemuDomainGetPerfEvents")
        self.exclusive_flags(flags, "virDomainObjGetOneDefState", "flags")
        config = self.affected(self.guests.find(domain), flags)
        wanted = {event.name for event in config.perf if event.enabled}
        return [typed.boolean(name, name in wanted) for name in PERF_EVENTS.names]

    def domain_set_perf_events(self, domain: Domain, params: list[TypedParam], flags: int) -> None:
        """virDomainSetPerfEvents."""
        unsupported_flags(flags, AFFECT, "qemuDomainSetPerfEvents")
        values = typed.take(params, dict.fromkeys(PERF_EVENTS.names, c.VIR_TYPED_PARAM_BOOLEAN))

        def edit(config: Config, live: bool) -> None:
            for name, value in values.items():
                if live and value and name not in perf.EVENTS:
                    text = f"unable to enable host cpu perf event for {name}"
                    raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text, domain=c.VIR_FROM_PERF)
            others = [event for event in config.perf if event.name not in values]
            config.perf = others + [PerfEvent(name=name, enabled=bool(value)) for name, value in values.items()]
            config.perf.sort(key=lambda event: PERF_EVENTS.names.index(event.name or ""))

        def apply(guest: Guest, config: Config) -> None:
            with guest.control() as control:
                control.count(tuning.counted(config))

        self.change(domain, "virDomainSetPerfEvents", flags, edit, apply)

    def domain_get_launch_security_info(self, domain: Domain, flags: int) -> list[TypedParam]:
        """virDomainGetLaunchSecurityInfo: nothing, as no guest here is launched so; libvirt looks at no flag then."""
        self.guests.find(domain)
        return []

    def domain_set_launch_security_state(self, domain: Domain, params: list[TypedParam], flags: int) -> None:
        """virDomainSetLaunchSecurityState: a secret for a guest whose memory is encrypted, as none here is."""
        unsupported_flags(flags, 0, "qemuDomainSetLaunchSecurityState")
        if not params:
            function = "virDomainSetLaunchSecurityState"
            text = f"params in {function} must not be NULL"
            raise VirtError.invalid_argument(function, "params", text, domain=c.VIR_FROM_DOMAIN)
        self.guests.find(domain)
        text = "setting a launch secret is only supported in SEV-enabled domains"
        raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text)

    def domain_set_lifecycle_action(self, domain: Domain, event: int, action: int, flags: int) -> None:
        """virDomainSetLifecycleAction: what a power-off, reboot or crash of the guest's own leads to."""
        unsupported_flags(flags, AFFECT, "qemuDomainSetLifecycleAction")
        name, wanted = _EVENTS.get(event), _ACTIONS.get(action)
        if name is None:
            raise VirtError(_INVALID, f"invalid lifecycle type '{event}'")
        if wanted is None:
            raise VirtError(_INVALID, f"invalid lifecycle action '{action}'")
        _check_action(name, wanted)

        def edit(config: Config, live: bool) -> None:
            setattr(config, f"on_{name}", wanted)

        def apply(guest: Guest, config: Config) -> None:
            if name == "reboot":
                # QEMU makes a shutdown of every reset where the guest must not come back from one.
                with guest.monitor() as monitor:
                    monitor.execute("set-action", {"reboot": "shutdown" if wanted == "destroy" else "reset"})
            with guest.control() as control:
                control.policy(name, wanted)

        self.change(domain, "virDomainSetLifecycleAction", flags, edit, apply)


def _check_action(event: str, action: str) -> None:
    if event != "crash" and action.startswith("coredump"):
        text = f"Lifecycle event '{event}' doesn't support '{action}' action"
        raise VirtError(_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    if action == "rename-restart" or (action == "preserve" and event != "crash"):
        events = "'on_reboot'/'on_poweroff'" + ("/'on_crash'" if action == "rename-restart" else "")
        text = f"qemu driver doesn't support the '{action}' action for {events}"
        raise VirtError(_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)


def _device_list(name: str, text: str) -> dict[str, int]:
    """The numbers of a list "path,number,path,number"."""
    words = text.split(",") if text else []
    try:
        if len(words) % 2:
            raise ValueError
        return {path: int(number) for path, number in zip(words[::2], words[1::2], strict=True)}
    except ValueError:
        wrong = f"unable to parse blkio device '{name}' '{text}'"
        raise VirtError(_INVALID, wrong, domain=c.VIR_FROM_DOMAIN) from None
