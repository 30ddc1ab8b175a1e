"""What a type of pool does: the life of its storage, and the volumes on it.

The rest of the driver knows pools only through these methods. A back end remembers nothing: what there is, it asks the
system or the type's tools each time. It takes no lock, writes nothing down and tells nobody; its callers do that.

What a type cannot do is refused here, as libvirt refuses it. The errors are those of libvirt's storage driver.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from virtd import constants as c
from virtd.conf.secret import SecretReference
from virtd.conf.storage import Pool, Volume
from virtd.conf.storage.source import Source
from virtd.drivers.storage.jobs import VolumeLock
from virtd.errors import VirtError, unsupported_flags

BUILD_FLAGS = c.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE | c.VIR_STORAGE_POOL_BUILD_OVERWRITE


class Surroundings(NamedTuple):
    """What a back end may need of the instance.

    Attributes:
        runtime: a directory for what lasts as long as a pool is active; it may have to be made.
        secret: gives a secret's value, for what it is meant and a usage type (VIR_SECRET_USAGE_TYPE_*).
    """

    runtime: str
    secret: Callable[[SecretReference, int], bytes]


class Backend:
    """A type of pool, for one pool.

    Args:
        pool: what the pool is; not changed.
        surroundings: what else there is.
    """

    holds_files: ClassVar[bool] = False
    """Whether its volumes are files in the directory `pool.path`, which the driver handles by itself."""

    def __init__(self, pool: Pool, surroundings: Surroundings) -> None:
        self.pool = pool
        self.surroundings = surroundings

    # The pool

    @classmethod
    def find_sources(cls, kind: str, spec: Source | None, surroundings: Surroundings, flags: int) -> list[Source]:
        """Find what pools of this type could be made of (virConnectFindStoragePoolSources).

        Args:
            kind: the type's name.
            spec: where to look, None if the client does not say.
            surroundings: what else there is.
            flags: none are defined.
        """
        raise _unsupported(f"pool type '{kind}' does not support source discovery")

    def build(self, flags: int) -> None:
        """Make what the pool is kept in (virStoragePoolBuild); for some types there is nothing to do."""

    def delete(self, flags: int) -> None:
        """Remove what the pool is kept in (virStoragePoolDelete)."""
        raise _unsupported("pool does not support pool deletion")

    def start(self) -> None:
        """Make the pool usable; a refresh follows. Done again on a pool that is usable, it does no harm."""

    def stop(self) -> None:
        """Undo what start() did."""

    def refresh(self) -> None:
        """Have the system look again for volumes (virStoragePoolRefresh), and see that the pool can be read."""
        self.volumes()

    def sizes(self) -> tuple[int, int, int]:
        """How large an active pool is: capacity, allocation and what is available, in bytes."""
        raise NotImplementedError

    def show(self, shown: Pool) -> None:
        """Add to an active pool's description what only the back end knows.

        Args:
            shown: the description, a copy.
        """

    # Its volumes, where they are no files

    def volumes(self) -> list[Volume]:
        """All volumes, with name, key, path and sizes."""
        raise NotImplementedError

    def volume(self, name: str) -> Volume | None:
        """One volume, completely described; None if it is not there."""
        return next((self.described(volume) for volume in self.volumes() if volume.name == name), None)

    def described(self, volume: Volume) -> Volume:
        """A volume of volumes(), completed by what takes a look at itself."""
        return volume

    def may_hold(self, path: str) -> bool:
        """Whether one of its volumes can have this path or key; says so without asking anybody."""
        return True

    def place(self, volume: Volume) -> None:
        """Give a new volume path, type and, if it has one before it is made, key.

        Raises:
            VirtError: it cannot be made, or not with that name.
        """
        raise _unsupported("storage pool does not support volume creation")

    def create(self, volume: Volume, flags: int) -> None:
        """Make a volume that has been placed; its content is whatever was there.

        Args:
            volume: what it is to be.
            flags: VIR_STORAGE_VOL_CREATE_*.
        """
        raise _unsupported("storage pool does not support volume creation")

    def copy(self, volume: Volume, original: Volume | None, flags: int) -> bool:
        """Make a volume as a copy of another one, by the means of the type.

        Args:
            volume: what it is to be.
            original: the other one; None if it is none of this pool's.
            flags: VIR_STORAGE_VOL_CREATE_*.

        Returns:
            False if there are no such means: the caller makes the volume and copies the content itself.

        Raises:
            VirtError: VIR_ERR_NO_SUPPORT, the content cannot be copied, either.
        """
        raise _unsupported("storage pool does not support volume creation from an existing volume")

    def remove(self, volume: Volume, flags: int) -> None:
        """Remove a volume (virStorageVolDelete)."""
        raise _unsupported("storage pool does not support vol deletion")

    def resize(self, volume: Volume, capacity: int, flags: int) -> None:
        """Change a volume's size.

        Args:
            volume: as it is.
            capacity: the new size, bytes.
            flags: VIR_STORAGE_VOL_RESIZE_*.
        """
        raise _unsupported("storage pool does not support changing of volume capacity")

    def wipe(self, volume: Volume, algorithm: int, lock: VolumeLock) -> None:
        """Wipe a volume.

        Args:
            volume: as it is.
            algorithm: VIR_STORAGE_VOL_WIPE_ALG_*.
            lock: of the volume, which programs keep while they run.
        """
        raise _unsupported("storage pool doesn't support volume wiping")

    def check_transfer(self, direction: str) -> None:
        """Refuse to move volumes' content, if it cannot be reached by path.

        Args:
            direction: 'upload' or 'download'.
        """
        raise _unsupported(f"storage pool doesn't support volume {direction}")


def _unsupported(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_NO_SUPPORT, text, domain=c.VIR_FROM_STORAGE)


def check_build_flags(flags: int, function: str) -> None:
    """Refuse unknown flags for a build, and those that contradict each other.

    Args:
        flags: VIR_STORAGE_POOL_BUILD_*.
        function: libvirt's name of the function, for the message.
    """
    unsupported_flags(flags, BUILD_FLAGS, function)
    if flags == BUILD_FLAGS:
        text = (
            "Flags 'VIR_STORAGE_POOL_BUILD_OVERWRITE' and 'VIR_STORAGE_POOL_BUILD_NO_OVERWRITE' are mutually exclusive"
        )
        raise VirtError.invalid_argument(function, "ctl", text, domain=c.VIR_FROM_STORAGE)


def one_host(spec: Source | None, kind: str) -> str:
    """The server to ask for sources; its port, if it has one, is in the source.

    Raises:
        VirtError: VIR_ERR_INVALID_ARG, VIR_ERR_CONFIG_UNSUPPORTED.
    """
    if spec is None:
        text = f"hostname must be specified for {kind} sources"
        raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_STORAGE)
    if len(spec.hosts) != 1:
        text = "Expected exactly 1 host for the storage pool"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
    return spec.hosts[0].name or ""
