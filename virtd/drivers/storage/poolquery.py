"""Finding pools, and what is known of them: lists, look-ups, state, XML, capabilities."""

import os

from virtd import constants as c
from virtd import uuids
from virtd.conf.storage import POOL_TYPES, Pool, format_pool, parse_source
from virtd.conf.storage.basics import clean_path
from virtd.conf.storage.capabilities import format_capabilities
from virtd.conf.storage.pool import Target, format_sources
from virtd.conf.storage.source import Host, Source
from virtd.drivers.storage import describe, hazard, programs
from virtd.drivers.storage.backends import BACKENDS
from virtd.drivers.storage.driverbase import StorageBase
from virtd.drivers.storage.pools import Entry
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import StoragePool, StorageVol
from virtd.state import files

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

    def connect_num_of_storage_pools(self) -> int:
        """virConnectNumOfStoragePools."""
        return sum(entry.active for entry in self.pools.view())

    def connect_list_storage_pools(self, most: int) -> list[str]:
        """virConnectListStoragePools: names of active ones."""
        return [entry.name for entry in self.pools.view() if entry.active][: max(0, most)]

    def connect_num_of_defined_storage_pools(self) -> int:
        """virConnectNumOfDefinedStoragePools."""
        return sum(not entry.active for entry in self.pools.view())

    def connect_list_defined_storage_pools(self, most: int) -> list[str]:
        """virConnectListDefinedStoragePools: names of inactive ones."""
        return [entry.name for entry in self.pools.view() if not entry.active][: max(0, most)]

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
        entry = self.pools.view().by_uuid.get(uuids.to_text(uuid))
        if entry is None:
            text = f"no storage pool with matching uuid '{uuids.to_text(uuid)}'"
            raise VirtError(c.VIR_ERR_NO_STORAGE_POOL, text)
        return entry.reference

    def storage_pool_lookup_by_volume(self, volume: StorageVol) -> StoragePool:
        """virStoragePoolLookupByVolume."""
        return self.pools.find_name(volume.pool).reference

    def storage_pool_lookup_by_target_path(self, path: str) -> StoragePool:
        """virStoragePoolLookupByTargetPath: of an active pool."""
        wanted = clean_path(path)
        for entry in self.pools.view():
            if entry.active and self.pools.config(entry).path == wanted:
                return entry.reference
        text = f"no storage pool with matching target path '{wanted}'"
        raise VirtError(c.VIR_ERR_NO_STORAGE_POOL, text)

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
        return c.VIR_STORAGE_POOL_RUNNING, *self.sizes(self.pools.config(entry))

    def storage_pool_get_xml_desc(self, pool: StoragePool, flags: int) -> str:
        """virStoragePoolGetXMLDesc."""
        unsupported_flags(flags, c.VIR_STORAGE_XML_INACTIVE, "storagePoolGetXMLDesc")
        entry = self.pools.find(pool)
        inactive = bool(flags & c.VIR_STORAGE_XML_INACTIVE)
        config = self.pools.config(entry, inactive=inactive)
        if not entry.active or (inactive and entry.persistent and config != self.pools.config(entry)):
            return format_pool(config)
        config = config.copy()
        config.capacity, config.allocation, config.available = self.sizes(config)
        config.target = config.target or Target()
        try:
            config.target.permissions = describe.permissions(config.path, os.stat(config.path))
        except OSError as error:
            raise files.os_error(error, f"cannot stat path '{config.path}'") from None
        return format_pool(config)

    def sizes(self, config: Pool) -> tuple[int, int, int]:
        """How large an active pool is: capacity, allocation and what is available, in bytes.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR.
        """
        hazard.avoid(config.path)
        try:
            found = os.statvfs(config.path)
        except OSError as error:
            raise files.os_error(error, f"cannot statvfs path '{config.path}'") from None
        capacity, available = found.f_blocks * found.f_frsize, found.f_bfree * found.f_frsize
        return capacity, capacity - available, available

    # Of the host

    def connect_get_storage_pool_capabilities(self, flags: int) -> str:
        """virConnectGetStoragePoolCapabilities."""
        unsupported_flags(flags, 0, "storageConnectGetStoragePoolCapabilities")
        return format_capabilities(BACKENDS)

    def connect_get_capabilities(self) -> str:
        """virConnectGetCapabilities, of a connection to storage alone."""
        values = "".join(f"      <value>{name}</value>\n" for name in BACKENDS)
        return (
            f"<capabilities>\n\n  <pool>\n    <enum name='type'>\n{values}    </enum>\n  </pool>\n\n</capabilities>\n"
        )

    def connect_find_storage_pool_sources(self, kind: str, spec: str | None, flags: int) -> str:
        """virConnectFindStoragePoolSources: the directories that a server exports, for pools of type netfs."""
        rules = POOL_TYPES.get(kind)
        if rules is None:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"unknown storage pool type {kind}")
        if not rules.served:
            text = f"missing backend for pool type {rules.number} ({kind})"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
        if kind != "netfs":
            raise VirtError(c.VIR_ERR_NO_SUPPORT, f"pool type '{kind}' does not support source discovery")
        unsupported_flags(flags, 0, "virStorageBackendFileSystemNetFindPoolSources")
        if spec is None:
            raise VirtError(c.VIR_ERR_INVALID_ARG, "hostname must be specified for netfs sources")
        source = parse_source(spec)
        if len(source.hosts) != 1:
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, "Expected exactly 1 host for the storage pool")
        return _exports(source.hosts[0].name or "")


def _exports(host: str) -> str:
    """What an NFS server exports, as a <sources> document."""
    output = programs.run("showmount", ["--no-headers", "--exports", "--", host])
    found = []
    for line in output.splitlines():
        path = line.partition(" ")[0]
        if path.startswith("/"):
            found.append(Source(hosts=[Host(name=host)], dir=clean_path(path), format="nfs"))
    if not found:
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, f"no storage pools were found on host '{host}'")
    return format_sources(found)
