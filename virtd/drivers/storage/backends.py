"""What differs between the types of pools: how one is built, started, stopped and deleted.

Pools of directories, of file systems and of servers' directories hold files, which the other modules know how to
treat. The types that hold no files can be defined, as with libvirt, and no more: what they would need is named.
"""

import os

from virtd import constants as c
from virtd.conf.storage import Pool
from virtd.drivers.storage import hazard, programs
from virtd.errors import VirtError, unsupported_flags
from virtd.state import files

BUILD_FLAGS = c.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE | c.VIR_STORAGE_POOL_BUILD_OVERWRITE
_MODE = 0o711
# A server that is gone lets mount(8) wait for minutes, and with it whoever starts the machine's pools.
_MOUNT_SECONDS = 60.0
# mkfs(8) asks, or refuses, where there is a file system already, unless it is forced.
_FORCE = {"ext2": ["-F"], "ext3": ["-F"], "ext4": ["-F"], "xfs": ["-f"], "ocfs2": ["-F"], "hfs+": ["-f"]}
# What other types stand on, and virtd has no code for.
_FOREIGN = {
    "logical": "LVM",
    "disk": "parted",
    "iscsi": "iscsiadm",
    "scsi": "SCSI host adapters",
    "mpath": "multipath devices",
}


class Backend:
    """A type of pool; the methods of this class are those of a type that cannot be used."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def build(self, flags: int) -> None:
        """Make what the pool is kept in (virStoragePoolBuild)."""
        raise self._foreign()

    def delete(self, flags: int) -> None:
        """Remove what the pool is kept in (virStoragePoolDelete)."""
        raise self._foreign()

    def start(self) -> None:
        """Make the pool usable."""
        raise self._foreign()

    def stop(self) -> None:
        """Undo what start() did."""

    def _foreign(self) -> VirtError:
        kind = self.pool.type or ""
        text = (
            f"pools of type '{kind}' can be defined, but not be used: virtd has no code for {_FOREIGN.get(kind, kind)}"
        )
        return VirtError(c.VIR_ERR_NO_SUPPORT, text, domain=c.VIR_FROM_STORAGE)


class DirectoryBackend(Backend):
    """A directory."""

    def build(self, flags: int) -> None:
        unsupported_flags(flags, BUILD_FLAGS, "virStorageBackendFileSystemBuild")
        if flags == BUILD_FLAGS:
            text = (
                "Flags 'VIR_STORAGE_POOL_BUILD_OVERWRITE' and 'VIR_STORAGE_POOL_BUILD_NO_OVERWRITE' "
                "are mutually exclusive"
            )
            name = "virStorageBackendFileSystemBuild"
            raise VirtError.invalid_argument(name, "ctl", text, domain=c.VIR_FROM_STORAGE)
        self._make_directory()
        if flags:
            self._format(overwrite=bool(flags & c.VIR_STORAGE_POOL_BUILD_OVERWRITE))

    def delete(self, flags: int) -> None:
        unsupported_flags(flags, 0, "virStorageBackendDeleteLocal")
        try:
            os.rmdir(self.pool.path)
        except OSError as error:
            failure = files.os_error(error, f"failed to remove pool '{self.pool.path}'")
            failure.domain = c.VIR_FROM_STORAGE
            raise failure from None

    def start(self) -> None:
        path = self.pool.path
        try:
            os.scandir(path).close()
        except OSError as error:
            raise files.os_error(error, f"cannot open directory '{path}'") from None

    def _make_directory(self) -> None:
        path = self.pool.path
        wanted = None if self.pool.target is None else self.pool.target.permissions
        try:
            if not os.path.isdir(path):
                os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
                os.mkdir(path)
                os.chmod(path, _MODE)
            if wanted is not None:
                owner = -1 if wanted.owner is None else wanted.owner
                group = -1 if wanted.group is None else wanted.group
                if (owner, group) != (-1, -1):
                    os.chown(path, owner, group)
                if wanted.mode is not None:
                    os.chmod(path, wanted.mode)
        except OSError as error:
            raise files.os_error(error, f"failed to create directory '{path}'") from None

    def _format(self, *, overwrite: bool) -> None:
        text = f"No source device specified when formatting pool '{self.pool.name}'"
        raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_STORAGE)


class MountBackend(DirectoryBackend):
    """A server's directory, which is mounted while the pool is active."""

    def start(self) -> None:
        if not self._mounted():
            programs.run("mount", self._options(), seconds=_MOUNT_SECONDS)
        if not hazard.remote(self.pool.path):
            super().start()

    def stop(self) -> None:
        if self._mounted():
            programs.run("umount", [self.pool.path], seconds=_MOUNT_SECONDS)

    def _source(self) -> str:
        host, directory = self.pool.source.hosts[0].name, self.pool.source.dir
        return f"//{host}{directory}" if self.pool.source.format == "cifs" else f"{host}:{directory}"

    def _options(self) -> list[str]:
        source = self.pool.source
        options = ["nodev", "nosuid", "noexec", *(option.name or "" for option in self.pool.mount_options)]
        if source.protocol is not None:
            options.append(f"nfsvers={source.protocol}")
        if source.format == "cifs":
            options.append("guest")
        kind = [] if source.format == "auto" and source.dir is not None else ["-t", source.format or "auto"]
        return ["-o", ",".join(options), *kind, self._source(), self.pool.path]

    def _mounted(self) -> bool:
        """Whether the source is mounted on the target already; the target itself is not touched."""
        path = self.pool.path
        with open("/proc/self/mounts", "rb") as mounts:
            for line in mounts:
                source, target = (field.decode("unicode_escape") for field in line.split(b" ")[:2])
                if target == path and source in (self._source(), os.path.realpath(self._source())):
                    return True
        return False


class FileSystemBackend(MountBackend):
    """A file system on a block device, which is mounted while the pool is active."""

    def _source(self) -> str:
        return self.pool.source.devices[0].path or ""

    def _format(self, *, overwrite: bool) -> None:
        device, kind = self._source(), self.pool.source.format or "auto"
        if not os.path.exists(device):
            text = f"Source device does not exist when formatting pool '{self.pool.name}'"
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_STORAGE)
        if not overwrite:
            self._check_empty(device, kind)
        programs.run("mkfs", ["-t", kind, *_FORCE.get(kind, []), device])

    @staticmethod
    def _check_empty(device: str, kind: str) -> None:
        """Refuse a device which holds something already."""
        # Status 2: nothing is found (blkid(8)).
        found = programs.run("blkid", ["-p", "-o", "value", "-s", "TYPE", device], accept=(0, 2)).strip()
        if found == kind:
            text = f"Device '{device}' already formatted using '{kind}'"
        elif found:
            text = (
                f"Format of device '{device}' does not match the expected format '{kind}', "
                "forced overwrite is necessary"
            )
        else:
            return
        raise VirtError(c.VIR_ERR_STORAGE_POOL_BUILT, text, domain=c.VIR_FROM_STORAGE)


BACKENDS: dict[str, type[Backend]] = {"dir": DirectoryBackend, "fs": FileSystemBackend, "netfs": MountBackend}


def backend(pool: Pool) -> Backend:
    """What a pool's type does."""
    return BACKENDS.get(pool.type or "", Backend)(pool)


def conflict(pool: Pool, others: list[Pool]) -> Pool | None:
    """The pool whose storage is another one's, too; those of the same name are not compared."""
    for other in others:
        if other.name != pool.name and _same_source(pool, other):
            return other
    return None


def _same_source(pool: Pool, other: Pool) -> bool:
    devices = ("fs", "logical", "disk")
    if pool.type in devices and other.type in devices:
        ours = {device.path for device in pool.source.devices}
        return any(device.path in ours for device in other.source.devices)
    if pool.type != other.type:
        return False
    match pool.type:
        case "dir":
            return pool.path == other.path
        case "netfs":
            return _servers(pool) == _servers(other) and pool.source.dir == other.source.dir
        case "iscsi":
            same = _servers(pool) == _servers(other) and pool.source.devices == other.source.devices
            return same and pool.source.initiator == other.source.initiator
        case "scsi":
            return _adapter(pool) == _adapter(other)
        case "mpath":
            return True
    return False


def _servers(pool: Pool) -> list[tuple[str | None, int | None]]:
    return [(host.name, host.port) for host in pool.source.hosts]


def _adapter(pool: Pool) -> tuple[object, ...]:
    adapter = pool.source.adapter
    if adapter is None:
        return ()
    name = (adapter.name or "").removeprefix("scsi_")
    return adapter.type, name, adapter.wwnn, adapter.wwpn, repr(adapter.parent_address)
