"""Making, removing, resizing and wiping volumes.

Whoever changes a volume holds its lock, which others wait for, and so does the program that does the work. The
pool's lock is held only for the moments in which it is decided what there is: work on one volume does not keep
anybody from another.
"""

import os
from contextlib import ExitStack

from virtd import constants as c
from virtd.conf.secret import SecretReference
from virtd.conf.storage import Pool, Volume, parse_volume
from virtd.conf.xml import schema
from virtd.conf.xml.document import parse_document
from virtd.drivers.secret.store import Secrets
from virtd.drivers.storage import describe, imagetool, jobs, wipe
from virtd.drivers.storage.backends import Backend
from virtd.drivers.storage.describe import Facts
from virtd.drivers.storage.driverbase import Located, no_volume
from virtd.drivers.storage.elsewhere import VolumesElsewhere, check_readable
from virtd.drivers.storage.jobs import VolumeLock
from virtd.drivers.storage.pools import Entry
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import StoragePool, StorageVol
from virtd.state import files

_RESIZE_FLAGS = c.VIR_STORAGE_VOL_RESIZE_ALLOCATE | c.VIR_STORAGE_VOL_RESIZE_DELTA | c.VIR_STORAGE_VOL_RESIZE_SHRINK
_METADATA = c.VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA


class VolumeChange(VolumesElsewhere):
    """What can be done with volumes."""

    # Making

    def storage_vol_create_xml(self, pool: StoragePool, xml: str, flags: int) -> StorageVol:
        """virStorageVolCreateXML."""
        unsupported_flags(flags, _METADATA | c.VIR_STORAGE_VOL_CREATE_VALIDATE, "storageVolCreateXML")
        entry, config = self.active(pool)
        _validate(xml, flags)
        volume = parse_volume(xml, config.traits)
        kind = self.pools.backend(config)
        if not kind.holds_files:
            with ExitStack() as stack:
                key = self._key(stack, volume)
                fill = None if key is None else self.encrypt(volume, key)
                located = Located(entry, volume.name or "", "")
                call = "virStorageVolCreateXML"
                return self.make_elsewhere(entry, kind, volume, flags & _METADATA, call, _exists(located), fill)
        if volume.allocation is not None and volume.capacity is not None:
            volume.capacity = max(volume.capacity, volume.allocation)
        located = self._new(entry, config, volume)
        with ExitStack() as stack:
            lock = stack.enter_context(self._claimed(located, "virStorageVolCreateXML", _exists(located)))
            key = self._key(stack, volume)
            imagetool.check(volume, metadata=bool(flags & _METADATA))
            self.pools.unread.add(entry.uuid, volume)
            temporary = stack.enter_context(self.pools.jobs.making(entry.uuid, located.path, lock))
            imagetool.make(volume, temporary, key, lock, metadata=bool(flags & _METADATA))
        return located.reference

    def storage_vol_create_xml_from(self, pool: StoragePool, xml: str, original: StorageVol, flags: int) -> StorageVol:
        """virStorageVolCreateXMLFrom: a new volume with the content of another one, of any pool."""
        known = _METADATA | c.VIR_STORAGE_VOL_CREATE_REFLINK | c.VIR_STORAGE_VOL_CREATE_VALIDATE
        unsupported_flags(flags, known, "storageVolCreateXMLFrom")
        entry, config = self.active(pool)
        _validate(xml, flags)
        self.answering(self.pools.find_name(original.pool))
        source, facts = self.look(original)
        volume = parse_volume(xml, config.traits, sizes_optional=True)
        # Whatever is asked for, nothing of the original is left out.
        volume.capacity = max(volume.capacity or 0, facts.capacity)
        # A client hands on what the original takes on disk, which a file system that has just been written to may count
        # as more than the file: a copy does not grow by that.
        if volume.allocation is not None:
            volume.allocation = min(volume.allocation, volume.capacity)
        kind = self.pools.backend(config)
        if not kind.holds_files:
            self._check_copy(volume, source, facts, flags)
            with ExitStack() as stack:
                key = self._key_of(stack, source, facts)
                exists = _in_use(Located(entry, volume.name or "", ""))
                wanted = flags & ~c.VIR_STORAGE_VOL_CREATE_VALIDATE
                return self.copy_elsewhere(entry, kind, volume, source, facts, wanted, exists, key)
        check_readable(facts)
        located = self._new(entry, config, volume)
        with ExitStack() as stack:
            lock = stack.enter_context(self._claimed(located, "virStorageVolCreateXMLFrom", _in_use(located)))
            # Nobody may be changing the original; that somebody else copies it, too, is all right.
            self.pools.jobs.volume(source.path, "virStorageVolCreateXMLFrom").release()
            key = self._key(stack, volume)
            self._check_copy(volume, source, facts, flags)
            source_key = self._key_of(stack, source, facts)
            self.pools.unread.add(entry.uuid, volume)
            temporary = stack.enter_context(self.pools.jobs.making(entry.uuid, located.path, lock))
            if flags & c.VIR_STORAGE_VOL_CREATE_REFLINK:
                imagetool.reflink(source.path, volume, temporary)
            else:
                metadata = bool(flags & _METADATA)
                imagetool.convert(source.path, facts, source_key, volume, temporary, key, lock, metadata=metadata)
        return located.reference

    def _new(self, entry: Entry, config: Pool, volume: Volume) -> Located:
        """Where a new volume is to lie.

        Raises:
            VirtError: VIR_ERR_OPERATION_INVALID, it cannot have that name.
        """
        name = volume.name or ""
        if "/" in name:
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, f"volume name '{name}' cannot contain '/'")
        path = f"{config.path.rstrip('/')}/{name}"
        if name in (".", ".."):
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, f"volume target path '{path}' already exists")
        if jobs.hidden(name):
            text = f"volume names that begin with '{jobs.PREFIX}' are reserved"
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, text)
        volume.target.path = path
        return Located(entry, name, path)

    def _claimed(self, located: Located, call: str, exists: VirtError) -> VolumeLock:
        """Claim the name of a new volume for as long as it is made.

        Args:
            located: where it is to lie.
            call: libvirt's name of the call.
            exists: the error for one that is there already, or being made.
        """
        with self.pools.changing(located.entry, call):
            self.answering(self.pools.find(located.entry.reference))
            lock = self.pools.jobs.claim(located.path, call)
            if lock is None:
                raise exists
            if os.path.lexists(located.path):
                lock.release()
                raise exists
            return lock

    @staticmethod
    def _check_copy(volume: Volume, source: Located, facts: Facts, flags: int) -> None:
        """Refuse a copy that cannot be made as it is asked for."""
        kind = volume.target.format or "raw"
        if facts.image is None or kind == "dir":
            text = "cannot copy from or to a directory volume"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text)
        before = None if facts.image.backing is None else describe.backing_path(source.path, facts.image.backing)
        if volume.backing is not None and before not in (None, volume.backing.path):
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "a different backing store cannot be specified.")
        if flags & _METADATA and kind == "raw":
            text = "metadata preallocation only available with qcow2"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text)
        if flags & c.VIR_STORAGE_VOL_CREATE_REFLINK and (kind, facts.image.format) != ("raw", "raw"):
            unsupported_flags(flags, _METADATA, "storageBackendCreateQemuImg")
        imagetool.check(volume, metadata=bool(flags & _METADATA))

    def _key(self, stack: ExitStack, volume: Volume) -> imagetool.Key | None:
        """The passphrase of a new volume that is to be encrypted."""
        encryption = volume.target.encryption
        if encryption is None or volume.target.format == "dir":
            return None
        if len(encryption.secrets) != 1:
            text = "A single <secret type='passphrase'...> element is expected in encryption description"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text)
        value = self._secrets().resolve(encryption.secrets[0], c.VIR_SECRET_USAGE_TYPE_VOLUME)
        return stack.enter_context(imagetool.Key("key", value))

    def _key_of(self, stack: ExitStack, source: Located, facts: Facts) -> imagetool.Key | None:
        """The passphrase of a volume that is encrypted: the secret it was made with, else the one for its path."""
        noted = None if facts.image is None else describe.encryption(source.path, facts.image)
        if noted is None:
            return None
        reference = noted.secrets[0] if noted.secrets else SecretReference(usage=source.path)
        value = self._secrets().resolve(reference, c.VIR_SECRET_USAGE_TYPE_VOLUME)
        return stack.enter_context(imagetool.Key("source-key", value))

    def _secrets(self) -> Secrets:
        return Secrets(self.paths, self.generation)

    # Changing

    def storage_vol_delete(self, volume: StorageVol, flags: int) -> None:
        """virStorageVolDelete."""
        located, kind, found = self._found(volume)
        if found is not None:
            self.remove_elsewhere(located, kind, found, flags)
            return
        unsupported_flags(flags, 0, "virStorageBackendVolDeleteLocal")
        with self._working(located, "virStorageVolDelete"):
            try:
                if os.path.isdir(located.path) and not os.path.islink(located.path):
                    os.rmdir(located.path)
                else:
                    os.unlink(located.path)
            except FileNotFoundError:
                raise no_volume(located.name) from None
            except OSError as error:
                what = "directory" if os.path.isdir(located.path) else "file"
                failure = files.os_error(error, f"cannot remove {what} '{located.path}'")
                failure.domain = c.VIR_FROM_STORAGE
                raise failure from None
            self.pools.unread.forget(located.entry.uuid, located.name)

    def storage_vol_resize(self, volume: StorageVol, capacity: int, flags: int) -> None:
        """virStorageVolResize."""
        unsupported_flags(flags, _RESIZE_FLAGS, "storageVolResize")
        located, kind, found = self._found(volume)
        if found is not None:
            self.resize_elsewhere(located, kind, found, capacity, flags)
            return
        with self._working(located, "virStorageVolResize") as lock:
            _, facts = self.look(volume)
            target = self._new_capacity(located, facts, capacity, flags)
            image = facts.image
            allocate = bool(flags & c.VIR_STORAGE_VOL_RESIZE_ALLOCATE)
            if image is not None and image.format in ("raw", "iso") and image.encryption is None:
                imagetool.resize_raw(located.path, target, allocate=allocate)
            elif allocate:
                encrypted = image is not None and image.format == "raw"
                text = f"preallocate is only supported for {'an unencrypted raw' if encrypted else 'raw type'} volume"
                raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text)
            elif image is None:
                text = "a directory volume has no size"
                raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text)
            else:
                shrink = bool(flags & c.VIR_STORAGE_VOL_RESIZE_SHRINK)
                with ExitStack() as stack:
                    key = self._key_of(stack, located, facts)
                    imagetool.resize(located.path, image.format, target, lock, shrink=shrink, key=key)

    def _new_capacity(self, located: Located, facts: Facts, capacity: int, flags: int) -> int:
        """The size a resize leads to, which must be possible."""
        target = capacity
        if flags & c.VIR_STORAGE_VOL_RESIZE_DELTA:
            shrink = flags & c.VIR_STORAGE_VOL_RESIZE_SHRINK
            target = max(0, facts.capacity - capacity) if shrink else facts.capacity + capacity
        if target < facts.allocation:
            text = "can't shrink capacity below existing allocation"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text)
        if target < facts.capacity and not flags & c.VIR_STORAGE_VOL_RESIZE_SHRINK:
            text = "Can't shrink capacity below current capacity unless shrink flag explicitly specified"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text)
        if flags & c.VIR_STORAGE_VOL_RESIZE_ALLOCATE:
            found = os.statvfs(os.path.dirname(located.path))
            if target > facts.allocation + found.f_bfree * found.f_frsize:
                raise VirtError(c.VIR_ERR_OPERATION_FAILED, "Not enough space left in storage pool")
        return target

    def storage_vol_wipe(self, volume: StorageVol, flags: int) -> None:
        """virStorageVolWipe."""
        self.storage_vol_wipe_pattern(volume, c.VIR_STORAGE_VOL_WIPE_ALG_ZERO, flags)

    def storage_vol_wipe_pattern(self, volume: StorageVol, algorithm: int, flags: int) -> None:
        """virStorageVolWipePattern."""
        unsupported_flags(flags, 0, "storageVolWipePattern")
        if not 0 <= algorithm <= c.VIR_STORAGE_VOL_WIPE_ALG_TRIM:
            raise VirtError(c.VIR_ERR_INVALID_ARG, f"wiping algorithm {algorithm} not supported")
        located, kind, found = self._found(volume)
        with self._working(located, "virStorageVolWipePattern") as lock:
            if found is not None:
                kind.wipe(found, algorithm, lock)
                return
            self.look(volume)
            wipe.wipe(located.path, algorithm, lock)

    def _found(self, volume: StorageVol) -> tuple[Located, Backend, Volume | None]:
        """Where the volume lies that a client means, its pool's back end, and what it is, if it is no file."""
        entry, config = self.opened(self.pools.find_name(volume.pool))
        kind = self.pools.backend(config)
        if kind.holds_files:
            return self.place(entry, config, volume.name), kind, None
        located, facts = self.look(volume)
        return located, kind, facts.volume

    def _working(self, located: Located, call: str) -> VolumeLock:
        """Work on a volume that is there, alone."""
        with self.pools.changing(located.entry, call):
            self.answering(self.pools.find(located.entry.reference))
        return self.pools.jobs.volume(located.path, call)


def _exists(located: Located) -> VirtError:
    return VirtError(c.VIR_ERR_STORAGE_VOL_EXIST, f"'{located.name}'")


def _in_use(located: Located) -> VirtError:
    return VirtError(c.VIR_ERR_INTERNAL_ERROR, f"storage volume name '{located.name}' already in use.")


def _validate(xml: str, flags: int) -> None:
    """Hold a volume's XML against libvirt's schema, if the caller asks for that."""
    if flags & c.VIR_STORAGE_VOL_CREATE_VALIDATE:
        root = parse_document(xml, "storage_volume_definition", domain=c.VIR_FROM_STORAGE)
        schema.validate(root, "storagevol.rng")
