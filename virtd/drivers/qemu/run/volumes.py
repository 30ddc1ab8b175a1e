"""Disks whose source is a volume of a storage pool: where the volume is, the storage service tells."""

from collections.abc import Iterator

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.disk import (
    PORTS,
    Auth,
    BlockSource,
    DirSource,
    Disk,
    FileSource,
    Host,
    NetworkSource,
    SourceBase,
    VolumeSource,
)
from virtd.conf.storage import Pool, parse_pool
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
    config = parse_pool(connection.require("storage_pool_get_xml_desc", "virStoragePoolGetXMLDesc")(pool, 0))
    _check(source, config)
    found: SourceBase
    if config.type == "iscsi-direct" or source.mode == "direct":
        found = _unit(source, config)
    else:
        kind, _, _ = connection.require("storage_vol_get_info", "virStorageVolGetInfo")(volume)
        path = connection.require("storage_vol_get_path", "virStorageVolGetPath")(volume)
        found = _of_kind(source, kind, path)
    # What else the guest's definition says of the source is still true.
    for name in ("startup_policy", "index", "slices", "seclabels", "auth", "encryption", "reservations"):
        if getattr(found, name) in (None, []):
            setattr(found, name, getattr(source, name))
    return found


def _check(source: VolumeSource, pool: Pool) -> None:
    """Refuse what libvirt refuses of volumes of a type of pool."""
    code, text = c.VIR_ERR_XML_ERROR, None
    if pool.type in ("mpath", "rbd", "gluster"):
        code = c.VIR_ERR_CONFIG_UNSUPPORTED
        text = f"using '{pool.type}' pools for backing 'volume' disks isn't yet supported"
    elif pool.type in ("iscsi", "iscsi-direct"):
        if source.startup_policy is not None:
            text = "'startupPolicy' is only valid for 'file' type volume"
    elif source.mode is not None:
        text = "disk source mode is only valid when storage pool is of iscsi type"
    if text is not None:
        raise VirtError(code, text, domain=c.VIR_FROM_STORAGE)


def _of_kind(source: VolumeSource, kind: int, path: str) -> SourceBase:
    match kind:
        case c.VIR_STORAGE_VOL_FILE:
            return FileSource(file=path)
        case c.VIR_STORAGE_VOL_BLOCK:
            return BlockSource(dev=path)
        case c.VIR_STORAGE_VOL_DIR:
            return DirSource(dir=path)
    text = f"volume '{source.volume}' of pool '{source.pool}' is neither a file nor a block device"
    raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)


def _unit(source: VolumeSource, pool: Pool) -> NetworkSource:
    """A unit of an iSCSI target, which QEMU reaches itself; who the pool is to the server, the guest is, too."""
    host, target, auth = pool.source.hosts[0], pool.source.devices[0], pool.source.auth
    # Its name ends with its number: unit:0:0:1.
    number = (source.volume or "").rpartition(":")[2]
    return NetworkSource(
        protocol="iscsi",
        name=f"{target.path}/{number}",
        hosts=[Host(name=host.name, port=str(host.port or PORTS["iscsi"]))],
        initiator=pool.source.initiator,
        auth=None if auth is None else Auth(username=auth.username, secret=auth.secret),
    )
