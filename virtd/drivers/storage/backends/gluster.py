"""Pools that are volumes of Gluster which QEMU reaches itself; their volumes are files there, and no files here.

The server's volume is mounted at a place of virtd's own while the pool is active, by the mount helper of GlusterFS.
What clients see are addresses (gluster://…). Images can be listed and removed, not made, as with libvirt.
"""

import os

from virtd import constants as c
from virtd.conf.storage import Volume
from virtd.conf.storage.pool import Target
from virtd.conf.storage.source import Source
from virtd.drivers.storage import describe, hazard, jobs, programs
from virtd.drivers.storage.backends.base import Backend, Surroundings, one_host
from virtd.drivers.storage.backends.directory import (
    MOUNT_SECONDS,
    DirectoryBackend,
    gluster_volumes,
    mounted,
    no_pools,
)
from virtd.errors import VirtError, unsupported_flags
from virtd.state import files

_PORT = 24007


class GlusterBackend(Backend):
    """A volume of a Gluster server, or a directory of one."""

    @classmethod
    def find_sources(cls, kind: str, spec: Source | None, surroundings: Surroundings, flags: int) -> list[Source]:
        unsupported_flags(flags, 0, "virStorageBackendGlusterFindPoolSources")
        host = one_host(spec, "gluster")
        if programs.installed("gluster") is None:
            text = "'gluster' command line tool not found"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE)
        found = gluster_volumes(host, by_name=True)
        if not found:
            raise no_pools(host)
        return found

    @property
    def _place(self) -> str:
        """Where it is mounted."""
        return f"{self.surroundings.runtime}/{self.pool.uuid}"

    @property
    def _remote(self) -> str:
        return f"{self.pool.source.hosts[0].name}:/{self.pool.source.name}"

    @property
    def _directory(self) -> str:
        return f"{self._place}/{(self.pool.source.dir or '').strip('/')}".rstrip("/")

    def _address(self, name: str) -> str:
        source = self.pool.source
        host = source.hosts[0]
        server = f"[{host.name}]" if ":" in (host.name or "") else host.name
        port = f":{host.port}" if host.port else ""
        directory = (source.dir or "").strip("/")
        return "/".join(part for part in (f"gluster://{server}{port}", source.name, directory, name) if part)

    def start(self) -> None:
        name, directory = self.pool.source.name or "", self.pool.source.dir
        text = None
        if "/" in name:
            text = f"gluster pool name '{name}' must not contain /"
        elif directory and not directory.startswith("/"):
            text = f"gluster pool path '{directory}' must start with /"
        if text is not None:
            raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_STORAGE)
        if mounted(self._remote, self._place):
            return
        # mount(8) does not say what it misses.
        programs.find("mount.glusterfs")
        files.make_directory(self._place, 0o700)
        options = f"nodev,nosuid,noexec,direct-io-mode=1,server-port={self.pool.source.hosts[0].port or _PORT}"
        command = ["-t", "glusterfs", "-o", options, self._remote, self._place]
        programs.run("mount", command, seconds=MOUNT_SECONDS)

    def stop(self) -> None:
        if mounted(self._remote, self._place):
            programs.run("umount", [self._place], seconds=MOUNT_SECONDS)
            os.rmdir(self._place)

    def sizes(self) -> tuple[int, int, int]:
        return self._files().sizes()

    def volumes(self) -> list[Volume]:
        hazard.avoid(self._place)
        return [self._volume(name) for name in self._files().names()]

    def volume(self, name: str) -> Volume | None:
        if "/" in name or name in ("", ".", "..") or jobs.hidden(name):
            return None
        facts = describe.look(f"{self._directory}/{name}")
        if facts is None:
            return None
        volume = describe.describe(name, f"{self._directory}/{name}", facts)
        volume.type = "netdir" if facts.type == "dir" else "network"
        volume.key = volume.target.path = self._address(name)
        volume.target.permissions = volume.target.timestamps = None
        return volume

    def may_hold(self, path: str) -> bool:
        return path.startswith(f"{self._address('')}/")

    def remove(self, volume: Volume, flags: int) -> None:
        unsupported_flags(flags, 0, "virStorageBackendGlusterVolDelete")
        path = f"{self._directory}/{volume.name}"
        what = "dir" if volume.type == "netdir" else "file"
        try:
            (os.rmdir if what == "dir" else os.unlink)(path)
        except OSError as error:
            failure = files.os_error(error, f"cannot remove gluster volume {what} '{volume.path}'")
            failure.domain = c.VIR_FROM_STORAGE
            raise failure from None

    def _files(self) -> DirectoryBackend:
        """The same as a pool of files, at its place."""
        shadow = self.pool.copy()
        shadow.type = "dir"
        shadow.target = Target(path=self._directory)
        return DirectoryBackend(shadow, self.surroundings)

    def _volume(self, name: str) -> Volume:
        address = self._address(name)
        volume = Volume(type="network", name=name, key=address)
        volume.target.path = address
        return volume
