"""What is known of disks: counters, sizes, errors, contents."""

import os

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.disk import Disk
from virtd.drivers import typed
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.changes import Changes
from virtd.drivers.qemu.command import storage
from virtd.drivers.qemu.guests import Entry
from virtd.drivers.qemu.monitor import ask
from virtd.drivers.qemu.monitor.client import Command
from virtd.drivers.qemu.monitor.qmp import QMPError
from virtd.drivers.qemu.run import images
from virtd.drivers.qemu.status import Status
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import DiskError, Domain, TypedParam
from virtd.state import files

# virDomainBlockStatsFlags: libvirt's names, QEMU's, and their order.
_COUNTERS = (
    ("wr_bytes", "wr_bytes"),
    ("wr_operations", "wr_operations"),
    ("rd_bytes", "rd_bytes"),
    ("rd_operations", "rd_operations"),
    ("flush_operations", "flush_operations"),
    ("wr_total_times", "wr_total_time_ns"),
    ("rd_total_times", "rd_total_time_ns"),
    ("flush_total_times", "flush_total_time_ns"),
)
_IO_STATUS = {"failed": c.VIR_DOMAIN_DISK_ERROR_UNSPEC, "nospace": c.VIR_DOMAIN_DISK_ERROR_NO_SPACE}
_PEEK_MAX = 4 * 1024 * 1024


class BlockStats(Changes):
    """Disks, as they are looked at."""

    def domain_block_stats(self, domain: Domain, path: str) -> tuple[int, int, int, int, int]:
        """virDomainBlockStats: reads, bytes read, writes, bytes written, errors (not counted: -1)."""
        stats = self._counters(domain, path)
        values = (shape.number(stats, name, 0) for name in ("rd_operations", "rd_bytes", "wr_operations", "wr_bytes"))
        reads, read, writes, written = values
        return reads, read, writes, written, -1

    def domain_block_stats_flags(
        self, domain: Domain, path: str, wanted: int, flags: int
    ) -> tuple[list[TypedParam], int]:
        """virDomainBlockStatsFlags."""
        unsupported_flags(flags, c.VIR_TYPED_PARAM_STRING_OKAY, "qemuDomainBlockStatsFlags")
        stats = self._counters(domain, path)
        return typed.portion([typed.long(name, shape.number(stats, key, 0)) for name, key in _COUNTERS], wanted, flags)

    def _counters(self, domain: Domain, path: str) -> shape.Table:
        """QEMU's counters of a disk; of all together if no disk is named."""
        entry, status = self.running(domain)
        disks = self.live(entry).disks
        if path:
            disk = find_disk(disks, path)
            if disk is None:
                raise VirtError(c.VIR_ERR_INVALID_ARG, f"invalid path: {path}")
            disks = [disk]
        (answer,) = ask.ask(self.guest(entry), [("query-blockstats", None)])
        by_alias = counted(status, shape.as_tables(answer, "query-blockstats"))
        found = [by_alias[alias] for disk in disks if (alias := disk.info.alias or "") in by_alias]
        if path and not found:
            text = f"cannot find statistics for device '{disks[0].info.alias}'"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
        return {key: sum(shape.number(one, key, 0) for one in found) for _, key in _COUNTERS}

    def domain_get_block_info(self, domain: Domain, path: str, flags: int) -> tuple[int, int, int]:
        """virDomainGetBlockInfo: allocation, capacity and physical size of a disk's image, in bytes."""
        unsupported_flags(flags, 0, "qemuDomainGetBlockInfo")
        entry = self.guests.find(domain)
        disk = find_disk(self.current(entry).disks, path)
        if disk is None:
            raise VirtError(c.VIR_ERR_INVALID_ARG, f"invalid path {path} not assigned to domain")
        if disk.source is None:
            raise VirtError(c.VIR_ERR_INVALID_ARG, f"disk '{path}' does not currently have a source assigned")
        local = storage.local_path(disk.source)
        host = None if local is None else images.sizes(local, disk.driver.type or "raw")
        if entry.active:
            told = self._told_sizes(entry, disk)
            if told is not None:
                # Until the guest has written, QEMU does not know how far.
                allocation = told.allocation or told.physical
                return allocation, told.capacity, host.physical if host is not None else told.physical
        if host is None:
            text = f"the size of disk '{path}' is known only while the guest runs"
            raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text)
        return host.allocation, host.capacity, host.physical

    def _told_sizes(self, entry: Entry, disk: Disk) -> images.Sizes | None:
        assert entry.status is not None
        commands: list[Command] = [("query-blockstats", None), ("query-named-block-nodes", {"flat": True})]
        stats, nodes = ask.ask(self.guest(entry), commands)
        if isinstance(stats, QMPError) or isinstance(nodes, QMPError):
            return None
        wanted = f"libvirt-{disk.source.index if disk.source is not None else 0}-format"
        tables = shape.as_tables(nodes, "query-named-block-nodes")
        node = next((one for one in tables if one.get("node-name") == wanted), None)
        if node is None:
            return None
        image = shape.table(node, "image", {})
        highest = 0
        for one in shape.as_tables(stats, "query-blockstats"):
            names = entry.status.disks.get(shape.text(one, "qdev", ""))
            if names is not None and names[0] == disk.info.alias:
                below = shape.table(shape.table(one, "parent", {}), "stats", {})
                highest = shape.number(below, "wr_highest_offset", 0)
        return images.Sizes(highest, shape.number(image, "virtual-size", 0), shape.number(image, "actual-size", 0))

    def domain_get_disk_errors(self, domain: Domain, wanted: int, flags: int) -> tuple[list[DiskError], int]:
        """virDomainGetDiskErrors: the disks whose I/O has failed; asked for none, how many disks there are."""
        unsupported_flags(flags, 0, "qemuDomainGetDiskErrors")
        entry, status = self.running(domain)
        disks = self.live(entry).disks
        if wanted == 0:
            return [], len(disks)
        (answer,) = ask.ask(self.guest(entry), [("query-block", None)])
        targets = {disk.info.alias: disk.target or "" for disk in disks}
        errors = []
        for one in shape.as_tables(answer, "query-block"):
            names = status.disks.get(shape.text(one, "qdev", ""))
            code = _IO_STATUS.get(shape.text(one, "io-status", "ok"))
            if names is not None and names[0] in targets and code is not None:
                errors.append(DiskError(targets[names[0]], code))
        return errors[:wanted], min(wanted, len(errors))

    def domain_block_peek(self, domain: Domain, path: str, offset: int, size: int, flags: int) -> bytes:
        """virDomainBlockPeek: bytes of a raw disk."""
        unsupported_flags(flags, 0, "qemuDomainBlockPeek")
        entry = self.guests.find(domain)
        disk = require_disk(self.current(entry), path, live=True)
        kind = (disk.driver.type or "raw") if disk.source is not None else "none"
        if kind != "raw":
            text = f"peeking is only supported for disk with 'raw' format not '{kind}'"
            raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text)
        local = storage.local_path(disk.source)
        if local is None:
            text = "peeking is only supported for disks in files and block devices"
            raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text)
        try:
            descriptor = os.open(local, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                content = os.pread(descriptor, min(size, _PEEK_MAX), offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise files.os_error(error, f"Failed to read '{local}'") from None
        if len(content) < size:
            text = f"'{path}' starting from {offset} has only {len(content)} bytes available"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text)
        return content


def find_disk(disks: list[Disk], name: str) -> Disk | None:
    """The disk of a target or a source path."""
    return next((disk for disk in disks if name in (disk.target, disk.source_name)), None)


def require_disk(config: Config, name: str, *, live: bool) -> Disk:
    """The disk of a target or a source path.

    Args:
        config: the guest.
        name: the target or path.
        live: how a call about a guest that runs words its complaint.

    Raises:
        VirtError: VIR_ERR_INVALID_ARG, there is none.
    """
    disk = find_disk(config.disks, name)
    if disk is None:
        text = f"disk '{name}' not found in domain" if live else f"disk '{name}' was not found in the domain config"
        raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)
    return disk


def counted(status: Status, stats: list[shape.Table]) -> dict[str, shape.Table]:
    """The counters of disks by their aliases, from query-blockstats."""
    found = {}
    for one in stats:
        names = status.disks.get(shape.text(one, "qdev", ""))
        if names is not None:
            found[names[0]] = shape.table(one, "stats")
    return found
