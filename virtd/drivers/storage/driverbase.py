"""What all parts of the storage driver stand on: the instance's pools, and the look-up of pools and volumes."""

from collections.abc import Iterator
from typing import NamedTuple

from virtd import constants as c
from virtd import uuids
from virtd.conf.storage import Pool, Volume
from virtd.drivers.base import Context, Event
from virtd.drivers.service import Service
from virtd.drivers.storage import describe, hazard, jobs
from virtd.drivers.storage.backends import Backend
from virtd.drivers.storage.backends.directory import DirectoryBackend
from virtd.drivers.storage.describe import Facts
from virtd.drivers.storage.pools import Entry, Pools
from virtd.errors import VirtError
from virtd.protocol.records import StoragePool, StorageVol
from virtd.state import journal
from virtd.state.commit import Change

# In the order of VIR_STORAGE_POOL_EVENT_ID_*: the index is the event's id.
_EVENTS = (("lifecycle", "STORAGE_POOL_EVENT_LIFECYCLE"), ("refresh", "STORAGE_POOL_EVENT_REFRESH"))
_EVENT_IDS = {name: number for number, (name, _) in enumerate(_EVENTS)}


class Located(NamedTuple):
    """A volume: the pool it is in, and where it lies.

    Attributes:
        entry: the pool.
        name: the volume's name.
        path: where it lies: a file, a device, or what a server calls it.
        key: what it is called for ever; a file has its path for that.
    """

    entry: Entry
    name: str
    path: str
    key: str | None = None

    @property
    def reference(self) -> StorageVol:
        """The volume as it goes over the wire."""
        return StorageVol(self.entry.name, self.name, self.key or self.path)


class StorageBase(Service):
    """Base of the driver's parts, each of which adds the procedures of one subject."""

    error_domain = c.VIR_FROM_STORAGE
    scheme = "storage"
    noun = "storage pool"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pools = Pools(context.paths, self.generation)

    # Pools

    def active(self, pool: StoragePool) -> tuple[Entry, Pool]:
        """A pool that is active, and what it is.

        Raises:
            VirtError: VIR_ERR_NO_STORAGE_POOL, VIR_ERR_OPERATION_INVALID.
        """
        return self.opened(self.pools.find(pool))

    def opened(self, entry: Entry) -> tuple[Entry, Pool]:
        """A pool that must be active, and what it is.

        Raises:
            VirtError: VIR_ERR_OPERATION_INVALID.
        """
        if not entry.active:
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, f"storage pool '{entry.name}' is not active")
        return entry, self.pools.config(entry)

    def answering(self, entry: Entry) -> Pool:
        """What an active pool is, whose directory answers, if it has one: for calls that change something.

        Raises:
            VirtError: VIR_ERR_OPERATION_INVALID, VIR_ERR_OPERATION_TIMEOUT.
        """
        _, config = self.opened(entry)
        if self.pools.backend(config).holds_files:
            hazard.check(config.path, f"storage pool '{entry.name}'")
        return config

    # Volumes

    def listed(self, entry: Entry, config: Pool) -> list[Located]:
        """The volumes of an active pool, in the order of their names."""
        kind = self.pools.backend(config)
        if isinstance(kind, DirectoryBackend):
            # Names that a directory gives are such that volumes can have, and there may be thousands.
            directory = config.path.rstrip("/")
            return [Located(entry, name, f"{directory}/{name}") for name in kind.names()]
        return [_located(entry, volume) for volume in self.volumes(entry, kind)]

    def volumes(self, entry: Entry, kind: Backend) -> list[Volume]:
        """The volumes of an active pool of another type than those that hold files."""
        unfinished = set(self.pools.jobs.unfinished(entry.uuid))
        found = [volume for volume in kind.volumes() if volume.name not in unfinished]
        return sorted(found, key=lambda volume: volume.name or "")

    def locate(self, volume: StorageVol) -> Located:
        """Where the volume lies that a client means; whether it is there is not looked at, if it is a file.

        Raises:
            VirtError: VIR_ERR_NO_STORAGE_POOL, VIR_ERR_OPERATION_INVALID, VIR_ERR_NO_STORAGE_VOL.
        """
        entry, config = self.opened(self.pools.find_name(volume.pool))
        return self.place(entry, config, volume.name)

    def place(self, entry: Entry, config: Pool, name: str) -> Located:
        """Where a pool's volume of some name lies.

        Raises:
            VirtError: VIR_ERR_NO_STORAGE_VOL, no volume can have that name; or none has, if it would be no file.
        """
        kind = self.pools.backend(config)
        if not kind.holds_files:
            return _located(entry, self._elsewhere(entry, kind, name))
        if not name or "/" in name or name in (".", "..") or jobs.hidden(name):
            raise no_volume(name)
        return Located(entry, name, f"{config.path.rstrip('/')}/{name}")

    def look(self, volume: StorageVol) -> tuple[Located, Facts]:
        """A volume, looked at.

        Raises:
            VirtError: VIR_ERR_NO_STORAGE_VOL, it is not there.
        """
        entry, config = self.opened(self.pools.find_name(volume.pool))
        kind = self.pools.backend(config)
        if not kind.holds_files:
            found = self._elsewhere(entry, kind, volume.name)
            return _located(entry, found), describe.told(found)
        located = self.place(entry, config, volume.name)
        facts = describe.look(located.path)
        if facts is None:
            raise no_volume(located.name)
        return located, facts

    def _elsewhere(self, entry: Entry, kind: Backend, name: str) -> Volume:
        """A volume that is no file."""
        found = kind.volume(name)
        if found is None or name in self.pools.jobs.unfinished(entry.uuid):
            raise no_volume(name)
        return found

    # Events

    def messages(self, record: journal.Record) -> Iterator[Event]:
        """The messages for this client that a record leads to."""
        event_id = _EVENT_IDS.get(str(record.get("name")))
        match record.get("pool"), record.get("args"):
            case [str(name), str(uuid)], [*arguments] if event_id is not None:
                pool = StoragePool(name, uuids.to_bytes(uuid))
            case _:
                return
        for callback in self.callbacks.wanted(event_id, pool.uuid):
            yield Event("remote", _EVENTS[event_id][1], (callback, pool, *arguments))

    def connect_storage_pool_event_register_any(self, event_id: int, pool: StoragePool | None) -> int:
        """virConnectStoragePoolEventRegisterAny."""
        return self.callbacks.register(event_id, len(_EVENTS), None if pool is None else pool.uuid)

    def connect_storage_pool_event_deregister_any(self, callback: int) -> None:
        """virConnectStoragePoolEventDeregisterAny."""
        self.callbacks.deregister(callback)

    def tell(self, change: Change, name: str, uuid: str, event: str, *arguments: int) -> None:
        """Tell of an event of a pool."""
        change.event("storage", event, pool=[name, uuid], args=list(arguments))

    def refreshed(self, entry: Entry) -> None:
        """Tell that what a pool holds has changed, and has been looked at."""
        self.pools.unread.refreshed(entry.uuid)
        with self.generation.commit() as change:
            self.tell(change, entry.name, entry.uuid, "refresh")


def _located(entry: Entry, volume: Volume) -> Located:
    return Located(entry, volume.name or "", volume.path, volume.key)


def no_volume(name: str) -> VirtError:
    """The error for a volume that is not there."""
    text = f"no storage vol with matching name '{name}'"
    return VirtError(c.VIR_ERR_NO_STORAGE_VOL, text, domain=c.VIR_FROM_STORAGE)
