"""Whether two pools would be kept in the same storage, which is refused when the second one is defined."""

from virtd.conf.storage import Pool


def conflict(pool: Pool, others: list[Pool]) -> Pool | None:
    """The pool whose storage is another one's, too; those of the same name are not compared."""
    for other in others:
        if other.name != pool.name and _same_source(pool, other):
            return other
    return None


def _same_source(pool: Pool, other: Pool) -> bool:
    devices = ("fs", "logical", "disk", "zfs")
    if pool.type in devices and other.type in devices:
        ours = {device.path for device in pool.source.devices}
        return any(device.path in ours for device in other.source.devices)
    if pool.type != other.type:
        return False
    match pool.type:
        case "dir":
            return pool.path == other.path
        case "netfs":
            return _servers(pool) == _servers(other) and pool.source.dir == other.source.dir
        case "gluster":
            same = _servers(pool) == _servers(other) and pool.source.dir == other.source.dir
            return same and pool.source.name == other.source.name
        case "iscsi":
            same = _servers(pool) == _servers(other) and pool.source.devices == other.source.devices
            return same and pool.source.initiator == other.source.initiator
        case "scsi":
            return _adapter(pool) == _adapter(other)
        case "mpath":
            return True
    return False


def _servers(pool: Pool) -> list[tuple[str | None, int | None]]:
    return [(host.name, host.port) for host in pool.source.hosts]


def _adapter(pool: Pool) -> tuple[object, ...]:
    adapter = pool.source.adapter
    if adapter is None:
        return ()
    name = (adapter.name or "").removeprefix("scsi_")
    return adapter.type, name, adapter.wwnn, adapter.wwpn, repr(adapter.parent_address)
