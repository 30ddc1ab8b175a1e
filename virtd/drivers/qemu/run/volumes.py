"""Disks whose source is a volume of a storage pool: where the volume is, the storage service tells."""

from collections.abc import Iterator

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.disk import BlockSource, Disk, FileSource, SourceBase, VolumeSource
from virtd.drivers import services
from virtd.drivers.base import Connection, Context
from virtd.errors import VirtError


def look_up(context: Context, config: Config) -> None:
    """Find the volumes that a guest's disks are, and write into the model where they are.

    Args:
        context: of the connection that starts the guest.
        config: its live configuration.

    Raises:
        VirtError: there is no such pool or volume, or the pool is not active.
    """
    sources = list(_volumes(config.disks))
    if not sources:
        return
    connection = services.connect(context, "storage")
    try:
        for source in sources:
            source.found = _find(connection, source)
    finally:
        connection.close()


def _volumes(disks: list[Disk]) -> Iterator[VolumeSource]:
    for disk in disks:
        if isinstance(disk.source, VolumeSource):
            yield disk.source
        below = disk.backing
        while below is not None:
            if isinstance(below.source, VolumeSource):
                yield below.source
            below = below.backing


def _find(connection: Connection, source: VolumeSource) -> SourceBase:
    pool = connection.require("storage_pool_lookup_by_name", "virStoragePoolLookupByName")(source.pool)
    if not connection.require("storage_pool_is_active", "virStoragePoolIsActive")(pool):
        text = f"storage pool '{source.pool}' containing volume '{source.volume}' is not active"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
    volume = connection.require("storage_vol_lookup_by_name", "virStorageVolLookupByName")(pool, source.volume)
    kind, _, _ = connection.require("storage_vol_get_info", "virStorageVolGetInfo")(volume)
    path = connection.require("storage_vol_get_path", "virStorageVolGetPath")(volume)
    match kind:
        case c.VIR_STORAGE_VOL_FILE:
            return FileSource(file=path)
        case c.VIR_STORAGE_VOL_BLOCK:
            return BlockSource(dev=path)
    text = f"volume '{source.volume}' of pool '{source.pool}' is neither a file nor a block device"
    raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
