"""Pools whose volumes are files in a directory: a directory, a file system on a device, a server's directory.

The files themselves are the business of the rest of the driver.
"""

import os
from itertools import islice

from virtd import constants as c
from virtd import deadlines
from virtd.conf.storage import Pool
from virtd.conf.storage.basics import clean_path
from virtd.conf.storage.pool import Target
from virtd.conf.storage.source import Host, Source
from virtd.drivers.storage import describe, hazard, jobs, programs
from virtd.drivers.storage.backends import probing
from virtd.drivers.storage.backends.base import Backend, Surroundings, check_build_flags, one_host
from virtd.errors import VirtError, unsupported_flags
from virtd.state import files

_MODE = 0o711
_AT_ONCE = 1000  # entries of a directory that are read between two looks at the clock
# A server that is gone lets mount(8) wait for minutes, and with it whoever starts the machine's pools.
MOUNT_SECONDS = 60.0
# mkfs(8) asks, or refuses, where there is a file system already, unless it is forced.
_FORCE = {"ext2": ["-F"], "ext3": ["-F"], "ext4": ["-F"], "xfs": ["-f"], "ocfs2": ["-F"], "hfs+": ["-f"]}


class DirectoryBackend(Backend):
    """A directory."""

    holds_files = True

    def build(self, flags: int) -> None:
        check_build_flags(flags, "virStorageBackendFileSystemBuild")
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

    def refresh(self) -> None:
        self.names()

    def sizes(self) -> tuple[int, int, int]:
        path = self.pool.path
        hazard.avoid(path)
        try:
            found = os.statvfs(path)
        except OSError as error:
            raise files.os_error(error, f"cannot statvfs path '{path}'") from None
        capacity, available = found.f_blocks * found.f_frsize, found.f_bfree * found.f_frsize
        return capacity, capacity - available, available

    def show(self, shown: Pool) -> None:
        """Whose the directory is."""
        shown.target = shown.target or Target()
        try:
            shown.target.permissions = describe.permissions(self.pool.path, os.stat(self.pool.path))
        except OSError as error:
            raise files.os_error(error, f"cannot stat path '{self.pool.path}'") from None

    def check_transfer(self, direction: str) -> None:
        """Files can be read and written."""

    def names(self) -> list[str]:
        """The names of the files that are volumes, sorted.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR.
        """
        path = self.pool.path
        hazard.avoid(path)
        names: list[str] = []
        try:
            with os.scandir(path) as found:
                while part := list(islice(found, _AT_ONCE)):
                    names += [one.name for one in part if one.is_file() or describe.usable(one)]
                    if not deadlines.remaining(1):
                        raise deadlines.DeadlineExceeded(f"the list of the volumes in '{path}' is long")
        except OSError as error:
            raise files.os_error(error, f"cannot open directory '{path}'") from None
        # libvirt's names are lines of text.
        return sorted([name for name in names if "\n" not in name and not (name[0] == "." and jobs.hidden(name))])

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
    """What is mounted on the directory while the pool is active."""

    def start(self) -> None:
        if not self.mounted():
            self.mount()
        if not hazard.remote(self.pool.path):
            super().start()

    def stop(self) -> None:
        if self.mounted():
            programs.run("umount", [self.pool.path], seconds=MOUNT_SECONDS)

    def mount(self) -> None:
        """Mount the source on the target."""
        programs.run("mount", self._options(), seconds=MOUNT_SECONDS)

    def mounted(self) -> bool:
        """Whether the source is mounted on the target already; the target itself is not touched."""
        return mounted(self._source(), self.pool.path)

    def _source(self) -> str:
        """What mount(8) is told to mount."""
        raise NotImplementedError

    def _extra(self) -> list[str]:
        """The options that its format needs."""
        return []

    def _options(self) -> list[str]:
        source = self.pool.source
        options = ["nodev", "nosuid", "noexec", *self._extra()]
        options += [option.name or "" for option in self.pool.mount_options]
        if source.protocol is not None:
            options.append(f"nfsvers={source.protocol}")
        kind = [] if source.format == "auto" and source.dir is not None else ["-t", source.format or "auto"]
        return ["-o", ",".join(options), *kind, self._source(), self.pool.path]


class ServerBackend(MountBackend):
    """A directory of a server: NFS, GlusterFS, CIFS."""

    @classmethod
    def find_sources(cls, kind: str, spec: Source | None, surroundings: Surroundings, flags: int) -> list[Source]:
        unsupported_flags(flags, 0, "virStorageBackendFileSystemNetFindPoolSources")
        host = one_host(spec, kind)
        found = [*_exports(host), *gluster_volumes(host, by_name=False)]
        if not found:
            raise no_pools(host)
        return found

    def _source(self) -> str:
        host, directory = self.pool.source.hosts[0].name, self.pool.source.dir
        return f"//{host}/{directory}" if self.pool.source.format == "cifs" else f"{host}:{directory}"

    def _extra(self) -> list[str]:
        return {"cifs": ["guest"], "glusterfs": ["direct-io-mode=1"]}.get(self.pool.source.format or "", [])


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
            probing.check_empty(device, kind)
        programs.run("mkfs", ["-t", kind, *_FORCE.get(kind, []), device])


def mounted(source: str, target: str) -> bool:
    """Whether something is mounted somewhere, as the list of mounts says.

    Args:
        source: as it was mounted; links in it may have been followed.
        target: the directory, which is not touched.
    """
    sources = {source, os.path.realpath(source)}
    with open("/proc/self/mounts", "rb") as mounts:
        fields = [line.split(b" ")[:2] for line in mounts]
    return any(
        where.decode("unicode_escape") == target and what.decode("unicode_escape") in sources for what, where in fields
    )


def no_pools(host: str) -> VirtError:
    """The error for a server that has nothing to offer."""
    text = f"no storage pools were found on host '{host}'"
    return VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_STORAGE)


def _exports(host: str) -> list[Source]:
    """What an NFS server exports."""
    # A server that does not answer has none, for libvirt.
    output = programs.run("showmount", ["--no-headers", "--exports", "--", host], accept=(0, 1))
    paths = [line.partition(" ")[0] for line in output.splitlines()]
    return [
        Source(hosts=[Host(name=host)], dir=clean_path(path), format="nfs") for path in paths if path.startswith("/")
    ]


def gluster_volumes(host: str, *, by_name: bool) -> list[Source]:
    """The volumes of a Gluster server; none, if its tool is not installed.

    Args:
        host: the server.
        by_name: describe them for pools of type gluster, not for mounts.
    """
    if programs.installed("gluster") is None:
        return []
    output = programs.run("gluster", ["--mode=script", f"--remote-host={host}", "volume", "list"], accept=(0, 1))
    names = [line.strip() for line in output.splitlines()]
    found = []
    for name in names:
        if not name or " " in name:
            continue  # a sentence that says that there are none
        source = Source(hosts=[Host(name=host)], dir="/" if by_name else f"/{name}")
        if by_name:
            source.name = name
        else:
            source.format = "glusterfs"
        found.append(source)
    return found
