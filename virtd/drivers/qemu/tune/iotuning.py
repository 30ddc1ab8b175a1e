"""Limits of a guest's disks: what QEMU itself keeps to (iotune), sizes that change, marks that are told of."""

import re

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.disk import Disk, IoTune
from virtd.drivers import typed
from virtd.drivers.qemu.changes import Changes
from virtd.drivers.qemu.command.disks import qom_name, throttle
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.stats.blockstats import find_disk, require_disk
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain, TypedParam

_AFFECT = c.VIR_DOMAIN_AFFECT_LIVE | c.VIR_DOMAIN_AFFECT_CONFIG
_KINDS = ("bytes", "iops")
_WAYS = ("total", "read", "write")


def _names(suffix: str) -> list[tuple[str, str]]:
    return [(f"{way}_{kind}_sec{suffix}", f"{way}_{kind}{suffix}") for kind in _KINDS for way in _WAYS]


# libvirt's names of the parameters with the fields of the model, in libvirt's order.
FIELDS = (
    *_names(""),
    *_names("_max"),
    ("size_iops_sec", "size_iops"),
    ("group_name", "group"),
    *_names("_max_length"),
)
_TYPES = {name: c.VIR_TYPED_PARAM_STRING if name == "group_name" else c.VIR_TYPED_PARAM_ULLONG for name, _ in FIELDS}
MOST = 1_000_000_000_000_000
_RESIZE_MOST = (1 << 64) // 1024 - 1  # KiB


class IoTuning(Changes):
    """virDomainGetBlockIoTune, virDomainSetBlockIoTune, virDomainBlockResize, virDomainSetBlockThreshold."""

    def domain_get_block_io_tune(
        self, domain: Domain, name: str | None, wanted: int, flags: int
    ) -> tuple[list[TypedParam], int]:
        """virDomainGetBlockIoTune."""
        self.exclusive_flags(flags, "virDomainGetBlockIoTune")
        unsupported_flags(flags, _AFFECT | c.VIR_TYPED_PARAM_STRING_OKAY, "qemuDomainGetBlockIoTune")
        entry = self.guests.find(domain)
        live, _ = self.affects(entry, flags)
        if wanted == 0:
            return [], len(FIELDS)
        disk = require_disk(self.live(entry) if live else self.config(entry), name or "", live=live)
        if live:
            _has_medium(disk)
        limits = disk.iotune or IoTune()
        if live and limits.group is None and any(getattr(limits, field) for _, field in FIELDS):
            limits = limits.copy()
            limits.group = qom_name(disk)  # QEMU's own name for the group that the disk is in by itself
        params = [
            typed.string(one, getattr(limits, field) or "")
            if one == "group_name"
            else typed.unsigned_long(one, getattr(limits, field) or 0)
            for one, field in FIELDS
        ]
        return typed.portion(params, wanted, flags)

    def domain_set_block_io_tune(self, domain: Domain, name: str, params: list[TypedParam], flags: int) -> None:
        """virDomainSetBlockIoTune."""
        unsupported_flags(flags, _AFFECT, "qemuDomainSetBlockIoTune")
        values = typed.take(params, _TYPES)
        _check(values)

        def edit(config: Config, live: bool) -> None:
            if not live and find_disk(config.disks, name) is None:
                text = f"missing persistent configuration for disk '{name}'"
                raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)
            disk = require_disk(config, name, live=live)
            limits = _changed(disk.iotune or IoTune(), values)
            if live:
                _has_medium(disk)
                _check_bases(limits)
            used = any(getattr(limits, field) for _, field in FIELDS if field != "group")
            disk.iotune = limits if used or limits.group else None

        def apply(guest: Guest, config: Config) -> None:
            disk = require_disk(config, name, live=True)
            with guest.monitor() as monitor:
                monitor.execute("block_set_io_throttle", throttle(disk, disk.iotune or IoTune()))
            told: list[object] = [["blkdeviotune.disk", [c.VIR_TYPED_PARAM_STRING, disk.target]]]
            told += [[f"blkdeviotune.{one}", [_TYPES[one], value]] for one, value in values.items()]
            events.append(("tunable", (told,)))

        events: list[tuple[str, tuple[object, ...]]] = []
        self.change(domain, "virDomainSetBlockIoTune", flags, edit, apply, events=events)

    def domain_block_resize(self, domain: Domain, name: str, size: int, flags: int) -> None:
        """virDomainBlockResize: size in KiB, or in bytes (BYTES)."""
        unsupported_flags(flags, c.VIR_DOMAIN_BLOCK_RESIZE_BYTES, "qemuDomainBlockResize")
        if not flags & c.VIR_DOMAIN_BLOCK_RESIZE_BYTES:
            if size > _RESIZE_MOST:
                raise VirtError(c.VIR_ERR_OVERFLOW, f"size must be less than {_RESIZE_MOST}")
            size *= 1024
        with self._changing(domain, "virDomainBlockResize") as (entry, guest):
            disk = require_disk(self.live(entry), name, live=False)
            if disk.source is None or disk.readonly:
                text = f"can't resize empty or readonly disk '{disk.target}'"
                raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text)
            if disk.driver.type in ("qcow2", "qed"):
                size = (size + 511) // 512 * 512  # they count in sectors
            node = f"libvirt-{disk.source.index}-format"
            with guest.monitor() as monitor:
                monitor.execute("block_resize", {"node-name": node, "size": size})

    def domain_set_block_threshold(self, domain: Domain, name: str, threshold: int, flags: int) -> None:
        """virDomainSetBlockThreshold: tell, once, when an image is written beyond an offset; 0: do not.

        Args:
            domain: the guest.
            name: a disk's target, or TARGET[NUMBER] for an image of its chain.
            threshold: the offset in bytes.
            flags: none are known.
        """
        unsupported_flags(flags, 0, "qemuDomainSetBlockThreshold")
        with self._changing(domain, "virDomainSetBlockThreshold") as (entry, guest):
            target, number = _find_image(self.live(entry), name)
            node = f"libvirt-{number}-storage"
            names = [name] if name != target else [target, f"{target}[{number}]"]
            with guest.monitor() as monitor, guest.control() as control:
                control.facts(thresholds={node: [str(threshold), *(names if threshold else [])]})
                arguments = {"node-name": node, "write-threshold": threshold}
                monitor.execute("block-set-write-threshold", arguments)


def _find_image(config: Config, name: str) -> tuple[str, int]:
    """The target and the image's number that a name of the form TARGET or TARGET[NUMBER] means."""
    target, bracket, rest = name.partition("[")
    if bracket and re.fullmatch(r"[0-9]+\]", rest) is None:
        raise VirtError(c.VIR_ERR_INVALID_ARG, f"failed to parse block device '{name}'", domain=c.VIR_FROM_QEMU)
    disk = next((one for one in config.disks if one.target == target and one.source is not None), None)
    numbers = []
    if disk is not None and disk.source is not None:
        numbers.append(disk.source.index)
        level = disk.backing
        while level is not None and not level.end:
            numbers.append(level.index)
            level = level.backing
    wanted = int(rest[:-1]) if bracket else next(iter(numbers), None)
    if wanted is None or wanted not in numbers:
        raise VirtError(c.VIR_ERR_INVALID_ARG, f"failed to find disk '{name}'", domain=c.VIR_FROM_QEMU)
    return target, wanted


def _has_medium(disk: Disk) -> None:
    if disk.source is None:
        text = "block_io_throttle inserted entry was not in expected format"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_QEMU)


def _check(values: dict[str, int | str]) -> None:
    """Refuse what cannot be, whatever is set already."""
    for value in values.values():
        if isinstance(value, int) and value > MOST:
            text = f"block I/O throttle limit value must be no more than {MOST}"
            raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    for kind in _KINDS:
        for suffix in ("", "_max"):
            total, read, write = (values.get(f"{way}_{kind}_sec{suffix}") for way in _WAYS)
            if total and (read or write):
                text = f"total and read/write of {kind}_sec{suffix} cannot be set at the same time"
                raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)


def _changed(limits: IoTune, values: dict[str, int | str]) -> IoTune:
    """The limits with some of them set anew: the three of a kind are always set together."""
    limits = limits.copy()
    fields = dict(FIELDS)
    for kind in _KINDS:
        for suffix in ("", "_max"):
            names = [f"{way}_{kind}_sec{suffix}" for way in _WAYS]
            if any(name in values for name in names):
                for name in names:
                    setattr(limits, fields[name], None)
    for name, value in values.items():
        setattr(limits, fields[name], value or None)
    return limits


def _check_bases(limits: IoTune) -> None:
    """A burst is one above a limit."""
    for name, field in _names("_max"):
        base = name.removesuffix("_max")
        if getattr(limits, field) and not getattr(limits, field.removesuffix("_max")):
            text = f"cannot reset '{base}' when '{name}' is set"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
