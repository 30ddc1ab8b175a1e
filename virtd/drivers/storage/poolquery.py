"""Finding pools, and what is known of them: lists, look-ups, state, XML, capabilities."""

from virtd import constants as c
from virtd.conf.storage import POOL_TYPES, format_pool, parse_source
from virtd.conf.storage.basics import clean_path
from virtd.conf.storage.capabilities import format_capabilities
from virtd.conf.storage.pool import format_sources
from virtd.drivers.storage.backends import backend_class, check_there, there
from virtd.drivers.storage.driverbase import StorageBase
from virtd.drivers.storage.pools import Entry
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import StoragePool, StorageVol

# virConnectListAllStoragePools: pairs of flags, of which a pool must meet one in each pair that is asked for at all.
_LIST_PAIRS = (
    (c.VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE, c.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE, "active"),
    (c.VIR_CONNECT_LIST_STORAGE_POOLS_TRANSIENT, c.VIR_CONNECT_LIST_STORAGE_POOLS_PERSISTENT, "persistent"),
    (c.VIR_CONNECT_LIST_STORAGE_POOLS_NO_AUTOSTART, c.VIR_CONNECT_LIST_STORAGE_POOLS_AUTOSTART, "autostart"),
)
_LIST_TYPES = sum(kind.flag for kind in POOL_TYPES.values())
_LIST_FLAGS = sum(no | yes for no, yes, _ in _LIST_PAIRS) | _LIST_TYPES


class PoolQuery(StorageBase):
    """What can be asked of pools."""

    # Lists

    LISTS = frozenset(
        {"connect_list_storage_pools", "connect_list_defined_storage_pools", "connect_list_all_storage_pools"}
    )

    def basis(self) -> object:
        return self.pools.view()

    def connect_num_of_storage_pools(self) -> int:
        """virConnectNumOfStoragePools."""
        return sum(entry.active for entry in self.pools.view())

    def connect_list_storage_pools(self, most: int) -> list[str]:
        """virConnectListStoragePools: names of active ones."""
        return self.pools.active_names(most, active=True)

    def connect_num_of_defined_storage_pools(self) -> int:
        """virConnectNumOfDefinedStoragePools."""
        return sum(not entry.active for entry in self.pools.view())

    def connect_list_defined_storage_pools(self, most: int) -> list[str]:
        """virConnectListDefinedStoragePools: names of inactive ones."""
        return self.pools.active_names(most, active=False)

    def connect_list_all_storage_pools(self, need_results: int, flags: int) -> tuple[list[StoragePool], int]:
        """virConnectListAllStoragePools."""
        unsupported_flags(flags, _LIST_FLAGS, "storageConnectListAllStoragePools")
        found = [entry.reference for entry in self.pools.view() if self._listed(entry, flags)]
        return found if need_results else [], len(found)

    def _listed(self, entry: Entry, flags: int) -> bool:
        for no, yes, name in _LIST_PAIRS:
            if flags & (no | yes) and not flags & (yes if getattr(entry, name) else no):
                return False
        return not flags & _LIST_TYPES or bool(flags & self.pools.config(entry).traits.flag)

    # Look-ups

    def storage_pool_lookup_by_name(self, name: str) -> StoragePool:
        """virStoragePoolLookupByName."""
        return self.pools.find_name(name).reference

    def storage_pool_lookup_by_uuid(self, uuid: bytes) -> StoragePool:
        """virStoragePoolLookupByUUID."""
        return self.pools.find_uuid(uuid).reference

    def storage_pool_lookup_by_volume(self, volume: StorageVol) -> StoragePool:
        """virStoragePoolLookupByVolume."""
        return self.pools.find_name(volume.pool).reference

    def storage_pool_lookup_by_target_path(self, path: str) -> StoragePool:
        """virStoragePoolLookupByTargetPath: of an active pool."""
        wanted = clean_path(path)
        for entry in self.pools.view():
            if entry.active and self.pools.config(entry).path == wanted:
                return entry.reference
        raise self.pools.kind.error(f"target path '{wanted}'")

    # Of one pool

    def storage_pool_is_active(self, pool: StoragePool) -> int:
        """virStoragePoolIsActive."""
        return int(self.pools.find(pool).active)

    def storage_pool_is_persistent(self, pool: StoragePool) -> int:
        """virStoragePoolIsPersistent."""
        return int(self.pools.find(pool).persistent)

    def storage_pool_get_autostart(self, pool: StoragePool) -> int:
        """virStoragePoolGetAutostart."""
        return int(self.pools.find(pool).autostart)

    def storage_pool_get_info(self, pool: StoragePool) -> tuple[int, int, int, int]:
        """virStoragePoolGetInfo: state, capacity, allocation, available (bytes)."""
        entry = self.pools.find(pool)
        if not entry.active:
            return c.VIR_STORAGE_POOL_INACTIVE, 0, 0, 0
        return c.VIR_STORAGE_POOL_RUNNING, *self.pools.backend(self.pools.config(entry)).sizes()

    def storage_pool_get_xml_desc(self, pool: StoragePool, flags: int) -> str:
        """virStoragePoolGetXMLDesc."""
        unsupported_flags(flags, c.VIR_STORAGE_XML_INACTIVE, "storagePoolGetXMLDesc")
        entry = self.pools.find(pool)
        inactive = bool(flags & c.VIR_STORAGE_XML_INACTIVE)
        config = self.pools.config(entry, inactive=inactive)
        if not entry.active or (inactive and entry.persistent and config != self.pools.config(entry)):
            return format_pool(config)
        config = config.copy()
        kind = self.pools.backend(config)
        config.capacity, config.allocation, config.available = kind.sizes()
        kind.show(config)
        return format_pool(config)

    # Of the host

    def connect_get_storage_pool_capabilities(self, flags: int) -> str:
        """virConnectGetStoragePoolCapabilities."""
        unsupported_flags(flags, 0, "storageConnectGetStoragePoolCapabilities")
        return format_capabilities(there())

    def connect_get_capabilities(self) -> str:
        """virConnectGetCapabilities, of a connection to storage alone."""
        values = "".join(f"      <value>{name}</value>\n" for name in there())
        return (
            f"<capabilities>\n\n  <pool>\n    <enum name='type'>\n{values}    </enum>\n  </pool>\n\n</capabilities>\n"
        )

    def connect_find_storage_pool_sources(self, kind: str, spec: str | None, flags: int) -> str:
        """virConnectFindStoragePoolSources."""
        if kind not in POOL_TYPES:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"unknown storage pool type {kind}")
        check_there(kind)
        source = None if spec is None else parse_source(spec)
        return format_sources(backend_class(kind).find_sources(kind, source, self.pools.surroundings, flags))
