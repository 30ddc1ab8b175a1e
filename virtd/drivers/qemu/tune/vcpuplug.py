"""How many virtual CPUs a guest has: in its definition, and plugged in while it runs."""

from virtd import constants as c
from virtd import deadlines
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.cpu import Vcpu
from virtd.conf.xml.types import BITMAP
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.agent.channel import AgentUser
from virtd.drivers.qemu.guest import Guest, vcpu_count
from virtd.drivers.qemu.monitor.client import Monitor
from virtd.drivers.qemu.plug.live import UNPLUG_SECONDS
from virtd.drivers.qemu.run import cgroup, guestcpu, tuning
from virtd.drivers.qemu.tune.vcpus import enabled
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain

_LIVE, _CONFIG = c.VIR_DOMAIN_AFFECT_LIVE, c.VIR_DOMAIN_AFFECT_CONFIG
_MAXIMUM, _GUEST = c.VIR_DOMAIN_VCPU_MAXIMUM, c.VIR_DOMAIN_VCPU_GUEST
_KINDS = {True: "live", False: "persistent"}


class VcpuPlug(AgentUser):
    """virDomainSetVcpus and its like."""

    def domain_set_vcpus(self, domain: Domain, count: int) -> None:
        """virDomainSetVcpus."""
        self.domain_set_vcpus_flags(domain, count, _LIVE)

    def domain_set_vcpus_flags(self, domain: Domain, count: int, flags: int) -> None:
        """virDomainSetVcpusFlags: how many there are, or (MAXIMUM) may be; GUEST: how many the guest itself uses."""
        _check_flags(count, flags)
        known = _LIVE | _CONFIG | _MAXIMUM | _GUEST | c.VIR_DOMAIN_VCPU_HOTPLUGGABLE
        unsupported_flags(flags, known, "qemuDomainSetVcpusFlags")
        if flags & _GUEST:
            self._set_in_guest(domain, count)
        elif flags & _MAXIMUM:
            self.change(domain, "virDomainSetVcpusFlags", flags, lambda config, live: _set_maximum(config, count))
        else:
            self._set_count(domain, count, flags)

    def domain_get_vcpus_flags(self, domain: Domain, flags: int) -> int:
        """virDomainGetVcpusFlags: how many there are, or may be at most; GUEST: how many the guest itself uses."""
        self.exclusive_flags(flags, "virDomainGetVcpusFlags")
        unsupported_flags(flags, _LIVE | _CONFIG | _MAXIMUM | _GUEST, "qemuDomainGetVcpusFlags")
        entry = self.guests.find(domain)
        if not flags & _GUEST:
            config = self.affected(entry, flags)
            return config.vcpu or 1 if flags & _MAXIMUM else vcpu_count(config)
        if not entry.active:
            raise _invalid("vCPU count provided by the guest agent can only be requested for live domains")
        with self.agent(domain, "virDomainGetVcpusFlags") as agent:
            listed = agent.tables("guest-get-vcpus")
        return len(listed) if flags & _MAXIMUM else sum(shape.truth(one, "online") for one in listed)

    def _set_count(self, domain: Domain, count: int, flags: int) -> None:
        before: list[int] = []
        hotpluggable = bool(flags & c.VIR_DOMAIN_VCPU_HOTPLUGGABLE)

        def edit(config: Config, live: bool) -> None:
            if count > (config.vcpu or 1):
                text = f"requested vcpus is greater than max allowable vcpus for the {_KINDS[live]} domain: "
                raise _invalid(f"{text}{count} > {config.vcpu or 1}")
            if live:
                before[:] = enabled(config)
            _enable(config, _choose(config, count, live=live), listed=live or hotpluggable, live=live)

        def apply(guest: Guest, config: Config) -> None:
            _plug(guest, config, set(before), set(enabled(config)))

        self.change(domain, "virDomainSetVcpusFlags", flags, edit, apply)

    def domain_set_vcpu(self, domain: Domain, numbers: str, state: int, flags: int) -> None:
        """virDomainSetVcpu: plug single virtual CPUs in or out."""
        unsupported_flags(flags, _LIVE | _CONFIG, "qemuDomainSetVcpu")
        wanted = BITMAP.parse(numbers)
        before: list[int] = []

        def edit(config: Config, live: bool) -> None:
            has = set(enabled(config))
            for number in sorted(wanted):
                if number >= (config.vcpu or 1):
                    raise _invalid(f"vcpu {number} is not present in {_KINDS[live]} config")
                if number == 0 or (not state and live and number not in _removable(config)):
                    if live:
                        text = f"vcpu '{number}' can't be unplugged"
                        raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
                    raise _invalid(f"vCPU '{number}' can't be modified")
                if live and (number in has) == bool(state):
                    raise _invalid(f"vcpu '{number}' is already in requested state")
            before[:] = has
            _enable(config, has | wanted if state else has - wanted, listed=True, live=live)

        def apply(guest: Guest, config: Config) -> None:
            _plug(guest, config, set(before), set(enabled(config)))

        self.change(domain, "virDomainSetVcpu", flags, edit, apply)

    def _set_in_guest(self, domain: Domain, count: int) -> None:
        """Let the guest take virtual CPUs on- and offline until it uses so many."""
        with self.agent(domain, "virDomainSetVcpusFlags", inactive=c.VIR_FROM_QEMU) as agent:
            listed = agent.tables("guest-get-vcpus")
            if count > len(listed):
                raise _invalid(
                    "requested vcpu count is greater than the count of enabled vcpus in the domain: "
                    f"{count} > {len(listed)}"
                )
            online = sum(shape.truth(one, "online") for one in listed)
            changes = []
            for one in listed if online < count else reversed(listed):
                on = shape.truth(one, "online")
                if online == count:
                    break
                if on == (online < count) or (on and not shape.truth(one, "can-offline", False)):
                    continue
                changes.append({"logical-id": shape.number(one, "logical-id"), "online": not on})
                online += -1 if on else 1
            if online != count:
                text = "guest agent reports less cpu than requested"
                raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
            if changes:
                agent.execute("guest-set-vcpus", {"vcpus": changes})


def _check_flags(count: int, flags: int) -> None:
    """What the library's own checks refuse, whoever calls."""
    function, argument, text = "virDomainSetVcpusFlags", "ctl", None
    if flags & _GUEST and flags & _CONFIG:
        text = "Flags 'VIR_DOMAIN_VCPU_GUEST' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive"
    elif flags & _MAXIMUM and not flags & _CONFIG:
        text = "Flag 'VIR_DOMAIN_AFFECT_CONFIG' is required by flag 'VIR_DOMAIN_VCPU_MAXIMUM'"
    elif not count:
        argument, text = "nvcpus", "nvcpus in virDomainSetVcpusFlags must not be zero"
    if text is not None:
        raise VirtError.invalid_argument(function, argument, text, domain=c.VIR_FROM_DOMAIN)


def _set_maximum(config: Config, count: int) -> None:
    cpu = config.cpu
    if cpu is not None and cpu.sockets is not None:
        arranged = cpu.sockets * (cpu.dies or 1) * (cpu.cores or 1) * (cpu.threads or 1)
        if arranged != count:
            raise _invalid("CPU topology doesn't match the desired vcpu count")
    has = [number for number in enabled(config) if number < count]
    config.vcpu = count
    config.vcpus = [one for one in config.vcpus if (one.id or 0) < count]
    missing = range(len(config.vcpus), count) if config.vcpus else ()
    config.vcpus += [Vcpu(id=number, enabled=False, hotpluggable=True) for number in missing]
    config.vcpu_current = len(has) if len(has) < count else None


def _choose(config: Config, count: int, *, live: bool) -> set[int]:
    """The virtual CPUs of a guest that is to have so many: the lowest are added first, the highest go first."""
    has = enabled(config)
    if count >= len(has):
        free = [number for number in range(config.vcpu or 1) if number not in has]
        return {*has, *free[: count - len(has)]}
    can_go = [number for number in sorted(has, reverse=True) if not live or number in _removable(config)]
    if len(can_go) < len(has) - count:
        text = "failed to find appropriate hotpluggable vcpus to reach the desired target vcpu count"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    return set(has) - set(can_go[: len(has) - count])


def _removable(config: Config) -> set[int]:
    """The virtual CPUs that were plugged in, or may be plugged out."""
    return {one.id or 0 for one in config.vcpus if one.enabled and one.hotpluggable}


def _enable(config: Config, numbers: set[int], *, listed: bool, live: bool) -> None:
    """Let a guest have just these of its virtual CPUs.

    Args:
        config: the guest.
        numbers: the virtual CPUs.
        listed: whether each is to be told of by itself from now on.
        live: whether the configuration is the live one, which tells in which order they were plugged in.
    """
    most = config.vcpu or 1
    before = set(enabled(config))
    if listed and not config.vcpus:
        config.vcpus = [
            Vcpu(id=number, enabled=number in before, hotpluggable=number not in before) for number in range(most)
        ]
    last = max((one.order or 0 for one in config.vcpus), default=0)
    for one in config.vcpus:
        one.enabled = (one.id or 0) in numbers
        if not (one.enabled and live):
            one.order = None
        elif one.order is None:
            one.order = last = last + 1
    config.vcpu_current = len(numbers) if len(numbers) < most else None


def _plug(guest: Guest, config: Config, before: set[int], after: set[int]) -> None:
    """Plug virtual CPUs in and out, and say how many there are.

    QMP: query-hotpluggable-cpus, device_add, device_del, and the event DEVICE_DELETED.
    """
    now = len(before)
    try:
        with guest.monitor() as monitor:
            places = guestcpu.places(monitor)
            for number in sorted(after - before):
                if number >= len(places):
                    raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"QEMU has no place for vcpu '{number}'")
                monitor.execute("device_add", {**places[number], "id": f"vcpu{number}"})
                now += 1
            if config.cputune is not None and after - before:
                threads = {number: one for number, one in tuning.vcpu_threads(monitor).items() if number not in before}
                tuning.set_vcpus(config.cputune, threads, cgroup.directory(guest.uuid), guest.undo_path)
            for number in sorted(before - after, reverse=True):
                _unplug(monitor, f"vcpu{number}")
                now -= 1
    finally:
        if now != len(before):
            with guest.control() as control:
                control.facts(vcpus=now, forget=[f"vcpu{number}" for number in before - after])


def _unplug(monitor: Monitor, alias: str) -> None:
    monitor.execute("device_del", {"id": alias})
    try:
        monitor.wait_event(
            "DEVICE_DELETED", matching=lambda event: event.data.get("device") == alias, seconds=UNPLUG_SECONDS
        )
    except deadlines.DeadlineExceeded:
        text = "vcpu unplug request timed out. Unplug result must be manually inspected in the domain"
        raise VirtError(c.VIR_ERR_OPERATION_TIMEOUT, text, domain=c.VIR_FROM_QEMU) from None


def _invalid(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)
