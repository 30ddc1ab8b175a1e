"""The storage driver: all its parts in one class."""

from virtd.drivers.storage.poolchange import PoolChange
from virtd.drivers.storage.poolquery import PoolQuery
from virtd.drivers.storage.transfer import Transfer
from virtd.drivers.storage.volumechange import VolumeChange
from virtd.drivers.storage.volumequery import VolumeQuery


class StorageDriver(PoolQuery, PoolChange, VolumeQuery, VolumeChange, Transfer):
    """Storage pools and volumes of one instance. Each part adds the procedures of one subject."""

    REPEATED = frozenset(
        {"storage_pool_define_xml", "storage_pool_undefine", "storage_vol_create_xml", "storage_vol_delete"}
    )
