"""A guest's I/O threads: made, removed and tuned, in its definition and while it runs.

QMP: object-add and object-del of the type iothread, qom-set of its properties.
"""

from typing import Any

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.memory import IothreadDef
from virtd.drivers import typed
from virtd.drivers.qemu.changes import Changes
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.run.tuning import iothread_numbers
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain, TypedParam

_AFFECT = c.VIR_DOMAIN_AFFECT_LIVE | c.VIR_DOMAIN_AFFECT_CONFIG
# The parameters: libvirt's name, its type, QEMU's property, the largest value that QEMU takes.
_POLL = (
    (c.VIR_DOMAIN_IOTHREAD_POLL_MAX_NS, c.VIR_TYPED_PARAM_ULLONG, "poll-max-ns"),
    (c.VIR_DOMAIN_IOTHREAD_POLL_GROW, c.VIR_TYPED_PARAM_UINT, "poll-grow"),
    (c.VIR_DOMAIN_IOTHREAD_POLL_SHRINK, c.VIR_TYPED_PARAM_UINT, "poll-shrink"),
)
_POOL = (
    (c.VIR_DOMAIN_IOTHREAD_THREAD_POOL_MIN, "pool_min", "thread-pool-min"),
    (c.VIR_DOMAIN_IOTHREAD_THREAD_POOL_MAX, "pool_max", "thread-pool-max"),
)
_TYPES = {name: kind for name, kind, _ in _POLL} | {name: c.VIR_TYPED_PARAM_INT for name, _, _ in _POOL}
_MOST = (1 << 31) - 1


class IoThreads(Changes):
    """virDomainAddIOThread, virDomainDelIOThread, virDomainSetIOThreadParams."""

    def domain_add_iothread(self, domain: Domain, number: int, flags: int) -> None:
        """virDomainAddIOThread."""
        unsupported_flags(flags, _AFFECT, "qemuDomainAddIOThread")
        _check_number(number)

        def edit(config: Config, live: bool) -> None:
            if number in iothread_numbers(config):
                text = f"an IOThread is already using iothread_id '{number}'"
                raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_DOMAIN)
            _name_all(config)
            config.iothread_ids.append(IothreadDef(id=number))
            config.iothreads = len(config.iothread_ids)

        def apply(guest: Guest, config: Config) -> None:
            with guest.monitor() as monitor:
                monitor.execute("object-add", {"qom-type": "iothread", "id": f"iothread{number}"})

        self.change(domain, "virDomainAddIOThread", flags, edit, apply)

    def domain_del_iothread(self, domain: Domain, number: int, flags: int) -> None:
        """virDomainDelIOThread; one that a disk or a controller uses stays."""
        unsupported_flags(flags, _AFFECT, "qemuDomainDelIOThread")
        if not number:
            text = "iothread_id in virDomainDelIOThread must not be zero"
            raise VirtError.invalid_argument("virDomainDelIOThread", "iothread_id", text, domain=c.VIR_FROM_DOMAIN)

        def edit(config: Config, live: bool) -> None:
            numbers = iothread_numbers(config)
            if number not in numbers:
                text = f"cannot find IOThread '{number}' in iothreadids list"
                raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_DOMAIN)
            _check_unused(config, number)
            _name_all(config)
            config.iothread_ids = [one for one in config.iothread_ids if one.id != number]
            config.iothreads = len(config.iothread_ids) or None
            tune = config.cputune
            if tune is not None:
                tune.iothreadpins = [pin for pin in tune.iothreadpins if pin.iothread != number]
                tune.iothreadscheds = [one for one in tune.iothreadscheds if number not in (one.iothreads or ())]
            _name_none(config)

        def apply(guest: Guest, config: Config) -> None:
            with guest.monitor() as monitor:
                monitor.execute("object-del", {"id": f"iothread{number}"})

        self.change(domain, "virDomainDelIOThread", flags, edit, apply)

    def domain_set_iothread_params(self, domain: Domain, number: int, params: list[TypedParam], flags: int) -> None:
        """virDomainSetIOThreadParams: how a thread polls (while it runs only), and how many workers it has."""
        unsupported_flags(flags, _AFFECT, "qemuDomainSetIOThreadParams")
        if not params:
            text = "params in virDomainSetIOThreadParams must not be NULL"
            raise VirtError.invalid_argument("virDomainSetIOThreadParams", "params", text, domain=c.VIR_FROM_DOMAIN)
        _check_number(number)
        values: dict[str, Any] = typed.take(params, _TYPES)
        _check_bounds(values)

        def edit(config: Config, live: bool) -> None:
            if number not in iothread_numbers(config):
                text = f"cannot find IOThread '{number}' in iothreadids"
                raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)
            if not live and any(name in values for name, _, _ in _POLL):
                text = "configuring persistent polling values is not supported"
                raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
            if any(name in values for name, _, _ in _POOL):
                _name_all(config)
                thread = next(one for one in config.iothread_ids if one.id == number)
                _set_pool(thread, values, live=live)

        def apply(guest: Guest, config: Config) -> None:
            path = f"/objects/iothread{number}"
            wanted = [(name, key) for name, _, key in (*_POLL, *_POOL) if name in values]
            with guest.monitor() as monitor:
                # The smaller bound must never be above the larger one, not even on the way.
                if len(wanted) > 1 and wanted[-1][1] == "thread-pool-max":
                    now = monitor.execute("qom-get", {"path": path, "property": "thread-pool-max"})
                    if isinstance(now, int) and values[wanted[-1][0]] > now:
                        wanted.insert(0, wanted.pop())
                for name, key in wanted:
                    monitor.execute("qom-set", {"path": path, "property": key, "value": values[name]})

        self.change(domain, "virDomainSetIOThreadParams", flags, edit, apply)


def _check_number(number: int) -> None:
    if not number:
        raise VirtError(c.VIR_ERR_INVALID_ARG, "invalid value of 0 for iothread_id", domain=c.VIR_FROM_QEMU)


def _check_bounds(values: dict[str, Any]) -> None:
    for name, _, key in _POLL:
        if values.get(name, 0) > _MOST:
            text = f"{key} ({values[name]}) must be less than or equal to {_MOST}"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    most = values.get(c.VIR_DOMAIN_IOTHREAD_THREAD_POOL_MAX)
    if most is not None and (most == 0 or most < -1):
        text = f"thread_pool_max ({most}) must be a positive number or -1"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)


def _set_pool(thread: IothreadDef, values: dict[str, Any], *, live: bool) -> None:
    for name, attribute, _ in _POOL:
        if name not in values:
            continue
        value = values[name]
        if live and value < 0:
            text = f"{name} ({value}) must be equal to or greater than 0 for live change"
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_QEMU)
        setattr(thread, attribute, value if value >= 0 else None)
    least, most = thread.pool_min, thread.pool_max
    if least is not None and most is not None and least > most:
        text = f"thread_pool_min ({least}) can't be greater than thread_pool_max ({most})"
        raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_QEMU)


def _check_unused(config: Config, number: int) -> None:
    """Refuse to remove a thread from under a device."""
    for disk in config.disks:
        if disk.driver.iothread == number:
            text = f"cannot remove IOThread {number} since it is being used by disk '{disk.target}'"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_DOMAIN)
    for controller in config.controllers:
        if controller.driver.iothread == number:
            text = f"cannot remove IOThread '{number}' since it is being used by controller"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_DOMAIN)


def _name_all(config: Config) -> None:
    """List the threads, which as long as none differs from the others are only counted."""
    known = {one.id: one for one in config.iothread_ids}
    config.iothread_ids = [known.get(number) or IothreadDef(id=number) for number in iothread_numbers(config)]


def _name_none(config: Config) -> None:
    """Only count the threads again where a list says no more than that."""
    usual = [one.id for one in config.iothread_ids] == list(range(1, len(config.iothread_ids) + 1))
    if usual and all(one.pool_min is None and one.pool_max is None for one in config.iothread_ids):
        config.iothread_ids = []
