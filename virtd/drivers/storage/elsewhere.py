"""Making and changing volumes that are no files: what pools' back ends do, with the locks and records around it.

What there is on a pool changes under the pool's lock, a volume's content under the volume's. A new volume whose
content takes time counts as unfinished until it is whole, and lists leave it out; if its maker dies, the next one who
changes the pool removes it.
"""

import contextlib
from collections.abc import Callable
from contextlib import ExitStack

from virtd import constants as c
from virtd.conf.storage import Volume
from virtd.conf.storage.types import VOLUME_TYPES
from virtd.drivers.storage import imagetool
from virtd.drivers.storage.backends import Backend
from virtd.drivers.storage.describe import Facts
from virtd.drivers.storage.driverbase import Located, StorageBase
from virtd.drivers.storage.jobs import VolumeLock
from virtd.drivers.storage.pools import Entry
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import StorageVol

_Fill = Callable[[VolumeLock], None]


class VolumesElsewhere(StorageBase):
    """What can be done with volumes that are no files."""

    def make_elsewhere(
        self, entry: Entry, kind: Backend, volume: Volume, flags: int, call: str, exists: VirtError, fill: _Fill | None
    ) -> StorageVol:
        """Make a volume.

        Args:
            entry, kind: its pool.
            volume: what it is to be.
            flags: VIR_STORAGE_VOL_CREATE_*.
            call: libvirt's name of the call.
            exists: the error for one that is there already, or being made.
            fill: gives it its content, if it is to have some.
        """
        name = volume.name or ""
        if not volume.capacity:
            text = "volume capacity required for this storage pool"
            raise VirtError(c.VIR_ERR_NO_SUPPORT, text, domain=c.VIR_FROM_STORAGE)
        if volume.target.encryption is not None:
            # What the guest sees is as large as it was asked for.
            volume.capacity += imagetool.LUKS_HEADER
            volume.allocation = None
        try:
            with ExitStack() as stack:
                with self.pools.changing(entry, call):
                    self.opened(self.pools.find(entry.reference))
                    if kind.volume(name) is not None:
                        raise exists
                    kind.place(volume)
                    lock = self.pools.jobs.claim(volume.path, call)
                    if lock is None:
                        raise exists
                    stack.enter_context(lock)
                    stack.enter_context(self.pools.jobs.making_elsewhere(entry.uuid, name, lock))
                    try:
                        kind.create(volume, flags)
                    except VirtError:
                        self.pools.jobs.forget(entry.uuid, name)  # there is nothing to be removed
                        raise
                if fill is not None:
                    fill(lock)
        except BaseException:
            if name in self.pools.jobs.unfinished(entry.uuid):
                with contextlib.suppress(VirtError), self.pools.changing(entry, call):
                    pass  # which removes it
            raise
        return self.place(entry, self.pools.config(entry), name).reference

    def copy_elsewhere(
        self,
        entry: Entry,
        kind: Backend,
        volume: Volume,
        source: Located,
        facts: Facts,
        flags: int,
        exists: VirtError,
        key: imagetool.Key | None,
    ) -> StorageVol:
        """Make a volume with the content of another one, of any pool.

        Args:
            entry, kind: the new volume's pool.
            volume: what it is to be.
            source, facts: the other volume.
            flags: VIR_STORAGE_VOL_CREATE_*.
            exists: the error for a volume that is there already.
            key: the other one's passphrase, if it is encrypted.
        """
        call = "virStorageVolCreateXMLFrom"
        if flags & c.VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA:
            text = "metadata preallocation is not supported for block volumes"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
        unsupported_flags(flags, 0, "virStorageBackendCreateBlockFrom")
        if volume.target.encryption is not None:
            text = "a copy on a device cannot be encrypted on the way"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
        if source.entry.uuid == entry.uuid and facts.volume is not None:
            with self.pools.changing(entry, call):
                self.opened(self.pools.find(entry.reference))
                if kind.volume(volume.name or "") is not None:
                    raise exists
                if kind.copy(volume, facts.volume, flags):
                    return self.place(entry, self.pools.config(entry), volume.name or "").reference
        else:
            kind.copy(volume, None, flags)
        check_readable(facts)
        # Nobody may be changing the original.
        self.pools.jobs.volume(source.path, call).release()

        def fill(lock: VolumeLock) -> None:
            imagetool.copy_to_device(source.path, facts, key, volume.path, lock)

        return self.make_elsewhere(entry, kind, volume, flags, call, exists, fill)

    def remove_elsewhere(self, located: Located, kind: Backend, found: Volume, flags: int) -> None:
        """Remove a volume, which nobody is working on."""
        call = "virStorageVolDelete"
        with self.pools.jobs.volume(located.path, call), self.pools.changing(located.entry, call):
            self.opened(self.pools.find(located.entry.reference))
            kind.remove(found, flags)

    def resize_elsewhere(self, located: Located, kind: Backend, found: Volume, capacity: int, flags: int) -> None:
        """Change a volume's size."""
        call = "virStorageVolResize"
        with self.pools.jobs.volume(located.path, call), self.pools.changing(located.entry, call):
            self.opened(self.pools.find(located.entry.reference))
            kind.resize(found, capacity, flags)

    def encrypt(self, volume: Volume, key: imagetool.Key) -> _Fill:
        """What makes an encrypted image of a new device."""

        def fill(lock: VolumeLock) -> None:
            imagetool.encrypt_device(volume, key, lock)

        return fill


def check_readable(facts: Facts) -> None:
    """Refuse to copy what has no content that can be read by its path.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR.
    """
    if facts.type not in ("file", "block", "dir"):
        text = f"unsupported input storage vol type {VOLUME_TYPES.index(facts.type)}"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE)
