"""All pools of an instance, as the files say: definitions, active pools, and both together.

config/storage/NAME.xml is a definition, runtime/storage/UUID.xml says that a pool is active, and as what. What a pool
holds is not known here; its backend looks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from virtd import constants as c
from virtd import uuids
from virtd.conf.secret import SecretReference
from virtd.conf.storage import Pool, format_pool, parse_pool
from virtd.drivers.secret.store import Secrets
from virtd.drivers.storage.backends import Backend, Surroundings, backend
from virtd.drivers.storage.jobs import Jobs
from virtd.drivers.storage.unread import Unread
from virtd.drivers.views import Collection, Kind, View
from virtd.errors import VirtError
from virtd.protocol.records import StoragePool
from virtd.state import files, kept, locks
from virtd.state.commit import Generation
from virtd.state.definitions import DefinitionDirectory
from virtd.state.paths import Paths

# How many parsed definitions a process keeps.
_PARSED_KEPT = 256


class Entry(NamedTuple):
    """A pool that is defined, or active, or both."""

    name: str
    uuid: str
    persistent: bool
    autostart: bool
    active: bool

    @property
    def reference(self) -> StoragePool:
        """The pool as it goes over the wire."""
        return StoragePool(self.name, uuids.to_bytes(self.uuid))


class Pools(Collection[Entry]):
    """The pools of one instance.

    Args:
        paths: the instance's directories.
        generation: the instance's generation.
    """

    kind = Kind("storage pool", c.VIR_ERR_NO_STORAGE_POOL, c.VIR_FROM_STORAGE)

    def __init__(self, paths: Paths, generation: Generation) -> None:
        self.paths = paths
        self.generation = generation
        self.definitions = DefinitionDirectory(f"{paths.config}/storage")
        self.runtime = f"{paths.runtime}/storage"
        self.definitions_lock = f"{paths.runtime}/storage.lock"
        # Lies in the run-time directory, and so is gone after a reboot.
        self.autostarted_mark = f"{paths.runtime}/storage.autostarted"
        files.make_directory(self.runtime)
        self.jobs = Jobs(f"{self.runtime}/jobs")
        self.unread = Unread(f"{self.runtime}/unread")
        self._view: View[Entry] | None = None
        self._generation: int | None = None
        self._parsed: dict[str, tuple[files.Identity, Pool]] = {}
        self.surroundings = Surroundings(f"{self.runtime}/mounts", self.secret)

    def view(self) -> View[Entry]:
        """All pools as they are now."""
        current = self.generation.current()
        if self._view is None or current is None or current != self._generation:
            self._view = View(self._read())
            self._generation = current
        return self._view

    def active_path(self, uuid: str) -> str:
        """Where it is written that a pool is active, and as what."""
        return f"{self.runtime}/{uuid}.xml"

    def config(self, entry: Entry, *, inactive: bool = False) -> Pool:
        """What a pool is: as it is active, else as it is defined. Shared by all who ask: copy it to change it.

        Args:
            entry: the pool.
            inactive: ask for the definition even of an active one.

        Raises:
            VirtError: VIR_ERR_NO_STORAGE_POOL, it has gone meanwhile; or what is wrong with the file.
        """
        live = entry.active and not (inactive and entry.persistent)
        path = self.active_path(entry.uuid) if live else self.definitions.path(entry.name)
        config = self._parse(path)
        if config is None:
            raise self.kind.error(f"uuid '{entry.uuid}' ({entry.name})")
        return config

    def backend(self, config: Pool) -> Backend:
        """What the type of a pool does with it."""
        return backend(config, self.surroundings)

    def secret(self, reference: SecretReference, usage: int) -> bytes:
        """The value of the secret that a definition names.

        Args:
            reference: how it is named.
            usage: VIR_SECRET_USAGE_TYPE_*.

        Raises:
            VirtError: VIR_ERR_NO_SECRET.
        """
        return Secrets(self.paths, self.generation).resolve(reference, usage)

    @contextmanager
    def defining(self, call: str) -> Iterator[None]:
        """Keep all others from changing which pools there are.

        Args:
            call: libvirt's name of the call, for the messages of those who wait.
        """
        with self.definitions.locked(self.definitions_lock, call, what="lock of the storage pools"):
            yield

    @contextmanager
    def changing(self, entry: Entry, call: str) -> Iterator[None]:
        """Keep all others from changing a pool, and clear away what a process left that died while it did.

        Raises:
            VirtError: VIR_ERR_OPERATION_TIMEOUT naming the holder.
        """
        with locks.held(self._lock_path(entry.uuid), call, what=f"lock of storage pool '{entry.name}'"):
            self.jobs.sweep(entry.uuid)
            for name in self.jobs.unfinished(entry.uuid):
                self._abandon(entry, name)
            yield

    def _abandon(self, entry: Entry, name: str) -> None:
        """Remove a volume that is no file and was not finished, if its maker has died and the pool is active.

        What cannot be removed now is left to the next change: nobody has asked for it.
        """
        with suppress(VirtError), self.jobs.orphan(entry.uuid, name) as orphaned:
            # The entry may be older than the lock of its pool.
            current = self.view().by_uuid.get(entry.uuid)
            if orphaned and current is not None and current.active:
                kind = self.backend(self.config(current))
                volume = next((one for one in kind.volumes() if one.name == name), None)
                if volume is not None:
                    kind.remove(volume, 0)

    @contextmanager
    def announced(self, entry: Entry, config: Pool) -> Iterator[None]:
        """Let others know of a pool that is not defined and is about to start; both locks are held at the beginning.

        The note counts for as long as whoever wrote it holds the pool's lock.
        """
        path = f"{self.runtime}/{entry.uuid}.starting"
        files.replace(path, format_pool(config).encode(errors="surrogateescape"), durable=False)
        try:
            yield
        finally:
            files.remove(path)

    def starting(self) -> list[Pool]:
        """The pools that are about to start without being defined."""
        found = []
        for name in os.listdir(self.runtime):
            uuid, suffix = os.path.splitext(name)
            if suffix == ".starting" and name[0] != "." and locks.probe(self._lock_path(uuid))[0]:
                config = self._parse(f"{self.runtime}/{name}")
                if config is not None:
                    found.append(config)
        return found

    def _lock_path(self, uuid: str) -> str:
        return f"{self.runtime}/{uuid}.lock"

    def _read(self) -> Iterator[Entry]:
        defined = self.definitions.read()
        autostarts = self.definitions.autostarts()
        active = {name[:-4] for name in os.listdir(self.runtime) if name.endswith(".xml") and name[0] != "."}
        for uuid, name in defined.items():
            yield Entry(name, uuid, True, name in autostarts, uuid in active)
        for uuid in active - defined.keys():
            config = self._parse(self.active_path(uuid))
            if config is not None and config.name is not None:
                yield Entry(config.name, uuid, False, False, True)

    def _parse(self, path: str) -> Pool | None:
        def make(content: bytes) -> Pool:
            return parse_pool(content.decode(errors="surrogateescape"))

        return kept.get(self._parsed, path, make, most=_PARSED_KEPT)
