"""Finding volumes, and what they are. Each call looks at what it is about, and at nothing else."""

import os
from itertools import repeat

from virtd import constants as c
from virtd import deadlines
from virtd.conf.storage import format_volume
from virtd.conf.storage.basics import clean_path
from virtd.conf.storage.types import VOLUME_TYPES
from virtd.drivers.storage import describe
from virtd.drivers.storage.backends import Backend
from virtd.drivers.storage.backends.directory import DirectoryBackend
from virtd.drivers.storage.driverbase import StorageBase, no_volume
from virtd.drivers.storage.pools import Entry
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import StoragePool, StorageVol
from virtd.tuples import many

_LIST_MAX = 16384  # volumes that a reply can hold (the protocol's STORAGE_VOL_LIST_MAX)


class VolumeQuery(StorageBase):
    """What can be asked of volumes."""

    def storage_pool_num_of_volumes(self, pool: StoragePool) -> int:
        """virStoragePoolNumOfVolumes."""
        return len(self.listed(*self.active(pool)))

    def storage_pool_list_volumes(self, pool: StoragePool, most: int) -> list[str]:
        """virStoragePoolListVolumes: names."""
        return [located.name for located in self.listed(*self.active(pool))][: max(0, most)]

    def storage_pool_list_all_volumes(
        self, pool: StoragePool, need_results: int, flags: int
    ) -> tuple[list[StorageVol], int]:
        """virStoragePoolListAllVolumes."""
        unsupported_flags(flags, 0, "storagePoolListAllVolumes")
        entry, config = self.active(pool)
        kind = self.pools.backend(config)
        if isinstance(kind, DirectoryBackend):
            # There may be thousands.
            names, directory = kind.names(), config.path.rstrip("/") + "/"
            count = len(names)
            found = many(StorageVol, repeat(entry.name), names, map(directory.__add__, names)) if need_results else []
        else:
            found = [located.reference for located in self.listed(entry, config)]
            count = len(found)
        if not need_results:
            return [], count
        if count > _LIST_MAX:
            text = f"Too many storage_vols '{count}' for limit '{_LIST_MAX}'"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_RPC)
        return found, count

    def storage_vol_lookup_by_name(self, pool: StoragePool, name: str) -> StorageVol:
        """virStorageVolLookupByName."""
        entry, config = self.active(pool)
        located = self.place(entry, config, name)
        if located.key is None and not describe.exists(located.path):
            raise no_volume(name)
        return located.reference

    def storage_vol_lookup_by_key(self, key: str) -> StorageVol:
        """virStorageVolLookupByKey: a file's key is its path."""
        found = self._find(key, key=True)
        if found is None:
            raise VirtError(c.VIR_ERR_NO_STORAGE_VOL, f"no storage vol with matching key {key}")
        return found

    def storage_vol_lookup_by_path(self, path: str) -> StorageVol:
        """virStorageVolLookupByPath."""
        wanted = path if "://" in path else clean_path(path)
        found = self._find(wanted)
        if found is None:
            raise VirtError(c.VIR_ERR_NO_STORAGE_VOL, f"no storage vol with matching path '{wanted}'")
        return found

    def storage_vol_get_info(self, volume: StorageVol) -> tuple[int, int, int]:
        """virStorageVolGetInfo: type, capacity, allocation (bytes)."""
        return self.storage_vol_get_info_flags(volume, 0)

    def storage_vol_get_info_flags(self, volume: StorageVol, flags: int) -> tuple[int, int, int]:
        """virStorageVolGetInfoFlags: type, capacity, allocation (bytes), or the file's length instead of the last."""
        unsupported_flags(flags, c.VIR_STORAGE_VOL_GET_PHYSICAL, "storageVolGetInfoFlags")
        _, facts = self.look(volume)
        last = facts.physical if flags & c.VIR_STORAGE_VOL_GET_PHYSICAL else facts.allocation
        return VOLUME_TYPES.index(facts.type), facts.capacity, last

    def storage_vol_get_xml_desc(self, volume: StorageVol, flags: int) -> str:
        """virStorageVolGetXMLDesc."""
        unsupported_flags(flags, 0, "storageVolGetXMLDesc")
        located, facts = self.look(volume)
        described = describe.describe(located.name, located.path, facts)
        self.pools.unread.show(located.entry.uuid, described)
        return format_volume(described)

    def storage_vol_get_path(self, volume: StorageVol) -> str:
        """virStorageVolGetPath."""
        located = self.locate(volume)
        if located.key is None and not describe.exists(located.path):
            raise no_volume(located.name)
        return located.path

    def _find(self, path: str, *, key: bool = False) -> StorageVol | None:
        """The volume with some path or key, if it is there and in an active pool."""
        directory, name = os.path.split(path)
        for entry in self.pools.view():
            if not entry.active:
                continue
            config = self.pools.config(entry)
            kind = self.pools.backend(config)
            if not kind.holds_files:
                found = self._find_elsewhere(entry, kind, path, key=key)
                if found is not None:
                    return found
                continue
            if config.path != directory:
                continue
            located = self.place(entry, config, name)
            if describe.exists(located.path):
                return located.reference
        return None

    def _find_elsewhere(self, entry: Entry, kind: Backend, path: str, *, key: bool) -> StorageVol | None:
        """The volume with some path or key in a pool that holds no files; a pool that cannot tell has none."""
        if not kind.may_hold(path):
            return None
        try:
            for volume in self.volumes(entry, kind):
                if path == (volume.key if key else volume.path):
                    return StorageVol(entry.name, volume.name or "", volume.key or volume.path)
        except VirtError as error:
            if isinstance(error, deadlines.DeadlineExceeded):
                raise
        return None
