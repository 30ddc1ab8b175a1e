"""The XML of storage pools and volumes, and what each type of pool is made of."""

from virtd.conf.storage.pool import Pool, format_pool, parse_pool, parse_source
from virtd.conf.storage.types import POOL_TYPES, PoolType
from virtd.conf.storage.volume import Volume, format_volume, parse_volume

__all__ = [
    "POOL_TYPES",
    "Pool",
    "PoolType",
    "Volume",
    "format_pool",
    "format_volume",
    "parse_pool",
    "parse_source",
    "parse_volume",
]
