"""The life of pools: define, build, start, stop, refresh, delete, undefine.

Which pools there are changes under one lock, so that no two ever share name, uuid or storage; what happens to one
pool, under its own. A pool is active from the moment in which its file in the run-time directory says so.
"""

import os
from contextlib import ExitStack

from virtd import constants as c
from virtd.conf.storage import Pool, format_pool, parse_pool
from virtd.conf.xml import schema
from virtd.conf.xml.document import parse_document
from virtd.drivers.storage.backends import check_there
from virtd.drivers.storage.backends.conflict import conflict
from virtd.drivers.storage.driverbase import StorageBase
from virtd.drivers.storage.pools import Entry
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import StoragePool
from virtd.state import files

_CREATE_BUILD = (
    c.VIR_STORAGE_POOL_CREATE_WITH_BUILD
    | c.VIR_STORAGE_POOL_CREATE_WITH_BUILD_OVERWRITE
    | c.VIR_STORAGE_POOL_CREATE_WITH_BUILD_NO_OVERWRITE
)


class PoolChange(StorageBase):
    """What can be done with pools."""

    def autostart(self) -> list[VirtError]:
        """Start the pools that are to be there whenever the machine is: once after each boot."""
        failures = super().autostart()
        with self.pools.defining("the start of the machine's storage pools"):
            if os.path.exists(self.pools.autostarted_mark):
                return failures
            files.replace(self.pools.autostarted_mark, b"", durable=False)
        for entry in self.pools.view():
            if entry.autostart and not entry.active:
                try:
                    self.storage_pool_create(entry.reference, 0)
                except VirtError as error:
                    text = f"Failed to autostart storage pool '{entry.name}': {error.message}"
                    failures.append(VirtError(error.code, text, domain=c.VIR_FROM_STORAGE))
        return failures

    # Which pools there are

    def storage_pool_define_xml(self, xml: str, flags: int) -> StoragePool:
        """virStoragePoolDefineXML."""
        unsupported_flags(flags, c.VIR_STORAGE_POOL_DEFINE_VALIDATE, "storagePoolDefineXML")
        if flags & c.VIR_STORAGE_POOL_DEFINE_VALIDATE:
            root = parse_document(xml, "storage_pool_definition", domain=c.VIR_FROM_STORAGE)
            schema.validate(root, "storagepool.rng")
        config = _new_pool(xml)
        assert config.name is not None
        assert config.uuid is not None
        with self.pools.defining("virStoragePoolDefineXML"):
            self._check_unique(config)
            pending = self.pools.definitions.prepare(config.name, format_pool(config))
            with self.generation.commit() as change:
                change.publish(pending)
                self.tell(change, config.name, config.uuid, "lifecycle", c.VIR_STORAGE_POOL_EVENT_DEFINED, 0)
        return self.pools.find_name(config.name).reference

    def storage_pool_create_xml(self, xml: str, flags: int) -> StoragePool:
        """virStoragePoolCreateXML: start a pool that need not be defined."""
        unsupported_flags(flags, _CREATE_BUILD, "storagePoolCreateXML")
        config = _new_pool(xml)
        assert config.name is not None
        assert config.uuid is not None
        entry = self.pools.view().by_uuid.get(config.uuid)
        entry = entry or Entry(config.name, config.uuid, False, False, False)
        with ExitStack() as stack:
            stack.enter_context(self.pools.changing(entry, "virStoragePoolCreateXML"))
            # Nobody else may take the name or the storage while it starts; but nobody has to wait for that.
            with self.pools.defining("virStoragePoolCreateXML"):
                before = self._check_unique(config)
                if before is not None and before.active:
                    text = f"pool is already active as '{before.name}'"
                    raise VirtError(c.VIR_ERR_OPERATION_INVALID, text)
                stack.enter_context(self.pools.announced(entry, config))
            self._start(entry, config, flags)
        return entry.reference

    def storage_pool_undefine(self, pool: StoragePool) -> None:
        """virStoragePoolUndefine."""
        with self.pools.defining("virStoragePoolUndefine"):
            entry = self.pools.find(pool)
            if entry.active:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, f"storage pool '{entry.name}' is still active")
            with self.generation.commit() as change:
                change.remove(self.pools.definitions.path(entry.name), durable=True)
                change.remove(self.pools.definitions.autostart_path(entry.name))
                self.tell(change, entry.name, entry.uuid, "lifecycle", c.VIR_STORAGE_POOL_EVENT_UNDEFINED, 0)

    def storage_pool_set_autostart(self, pool: StoragePool, autostart: int) -> None:
        """virStoragePoolSetAutostart."""
        with self.pools.defining("virStoragePoolSetAutostart"):
            entry = self.pools.find(pool)
            if not entry.persistent:
                raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "pool has no config file")
            if bool(autostart) == entry.autostart:
                return
            with self.generation.commit() as change:
                if autostart:
                    self.pools.definitions.link_autostart(entry.name, change)
                else:
                    change.remove(self.pools.definitions.autostart_path(entry.name), durable=True)

    # The life of one

    def storage_pool_create(self, pool: StoragePool, flags: int) -> None:
        """virStoragePoolCreate: start a defined pool."""
        unsupported_flags(flags, _CREATE_BUILD, "storagePoolCreate")
        entry = self.pools.find(pool)
        with self.pools.changing(entry, "virStoragePoolCreate"):
            entry = self.pools.find(pool)
            if entry.active:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, f"storage pool '{entry.name}' is already active")
            self._start(entry, self.pools.config(entry), flags)

    def storage_pool_build(self, pool: StoragePool, flags: int) -> None:
        """virStoragePoolBuild."""
        entry = self.pools.find(pool)
        with self.pools.changing(entry, "virStoragePoolBuild"):
            entry = self.pools.find(pool)
            if entry.active:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, f"storage pool '{entry.name}' is already active")
            self.pools.backend(self.pools.config(entry)).build(flags)
            with self.generation.commit() as change:
                self.tell(change, entry.name, entry.uuid, "lifecycle", c.VIR_STORAGE_POOL_EVENT_CREATED, 0)

    def storage_pool_destroy(self, pool: StoragePool) -> None:
        """virStoragePoolDestroy: stop a pool; what it holds stays."""
        entry = self.pools.find(pool)
        with self.pools.changing(entry, "virStoragePoolDestroy"):
            entry, config = self.active(pool)
            self.pools.backend(config).stop()
            self.pools.unread.refreshed(entry.uuid)
            with self.generation.commit() as change:
                change.remove(self.pools.active_path(entry.uuid))
                self.tell(change, entry.name, entry.uuid, "lifecycle", c.VIR_STORAGE_POOL_EVENT_STOPPED, 0)

    def storage_pool_delete(self, pool: StoragePool, flags: int) -> None:
        """virStoragePoolDelete: remove what a pool is kept in, which must be empty."""
        entry = self.pools.find(pool)
        with self.pools.changing(entry, "virStoragePoolDelete"):
            entry = self.pools.find(pool)
            if entry.active:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, f"storage pool '{entry.name}' is still active")
            self.pools.backend(self.pools.config(entry)).delete(flags)
            with self.generation.commit() as change:
                self.tell(change, entry.name, entry.uuid, "lifecycle", c.VIR_STORAGE_POOL_EVENT_DELETED, 0)

    def storage_pool_refresh(self, pool: StoragePool, flags: int) -> None:
        """virStoragePoolRefresh: nothing is remembered that would have to be read again."""
        unsupported_flags(flags, 0, "storagePoolRefresh")
        entry = self.pools.find(pool)
        with self.pools.changing(entry, "virStoragePoolRefresh"):
            config = self.answering(self.pools.find(pool))
            self.pools.backend(config).refresh()
            self.refreshed(entry)

    # Helpers

    def _start(self, entry: Entry, config: Pool, flags: int) -> None:
        """Make a pool active; its lock is held."""
        kind = self.pools.backend(config)
        if flags & _CREATE_BUILD:
            build = 0
            if flags & c.VIR_STORAGE_POOL_CREATE_WITH_BUILD_OVERWRITE:
                build = c.VIR_STORAGE_POOL_BUILD_OVERWRITE
            elif flags & c.VIR_STORAGE_POOL_CREATE_WITH_BUILD_NO_OVERWRITE:
                build = c.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE
            kind.build(build)
        kind.start()
        try:
            if kind.holds_files:
                self.pools.jobs.sweep_directory(config.path)
            else:
                kind.refresh()
            content = format_pool(config).encode(errors="surrogateescape")
            pending = files.prepare(self.pools.active_path(entry.uuid), content, durable=False)
            with self.generation.commit() as change:
                change.publish(pending)
                self.tell(change, entry.name, entry.uuid, "lifecycle", c.VIR_STORAGE_POOL_EVENT_STARTED, 0)
        except BaseException:
            kind.stop()
            raise

    def _check_unique(self, config: Pool) -> Entry | None:
        """The pool of the same name and uuid, None if there is none.

        Raises:
            VirtError: VIR_ERR_OPERATION_FAILED: another pool has the name, the uuid or the storage.
        """
        view = self.pools.view()
        assert config.name is not None
        assert config.uuid is not None
        text = None
        same_uuid, same_name = view.by_uuid.get(config.uuid), view.by_name.get(config.name)
        starting = [pool for pool in self.pools.starting() if pool.uuid != config.uuid]
        other = conflict(config, [*(self.pools.config(entry) for entry in view), *starting])
        if other is not None:
            text = f"Storage source conflict with pool: '{other.name}'"
        elif same_uuid is not None and same_uuid.name != config.name:
            text = f"pool '{same_uuid.name}' is already defined with uuid {config.uuid}"
        elif same_name is not None and same_name.uuid != config.uuid:
            text = f"pool '{config.name}' already exists with uuid {same_name.uuid}"
        elif any(pool.name == config.name for pool in starting):
            text = f"pool '{config.name}' is being started by someone else"
        if text is not None:
            raise VirtError(c.VIR_ERR_OPERATION_FAILED, text)
        return same_uuid


def _new_pool(xml: str) -> Pool:
    """A pool that a client describes. Definitions that are there already may be of any type."""
    config = parse_pool(xml)
    check_there(config.type or "")
    return config
