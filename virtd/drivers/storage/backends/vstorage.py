"""Pools of Virtuozzo Storage: a cluster that is mounted on a directory while the pool is active."""

import grp
import pwd

from virtd.drivers.storage import programs
from virtd.drivers.storage.backends.directory import MOUNT_SECONDS, MountBackend


class VstorageBackend(MountBackend):
    """A cluster of Virtuozzo Storage."""

    def mount(self) -> None:
        command = ["-c", self.pool.source.name or "", self.pool.path]
        wanted = None if self.pool.target is None else self.pool.target.permissions
        if wanted is not None:
            # It takes names, and all of them or none.
            command += ["-m", f"{0o700 if wanted.mode is None else wanted.mode:o}"]
            command += ["-g", grp.getgrgid(wanted.group or 0).gr_name, "-u", pwd.getpwuid(wanted.owner or 0).pw_name]
        programs.run("vstorage-mount", command, seconds=MOUNT_SECONDS)

    def _source(self) -> str:
        return f"vstorage://{self.pool.source.name}"
