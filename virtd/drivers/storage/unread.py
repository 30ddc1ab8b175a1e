"""What the makers of qcow2 volumes said that have been made since their pool was last refreshed.

Of an image that it has just made, libvirt shows the version and the size of the clusters as it was told them, or not at
all, and only a refresh of the pool reads them. virtd always reads the image; what it was told is shown for as long, so
that documents are the same. A file for each such volume lies in the run-time directory, and is gone after a refresh,
with the volume, or with the pool. Nothing but a description depends on it.
"""

import hashlib
import json
import os
import shutil

from virtd.conf.storage import Volume
from virtd.state import files


class Unread:
    """The volumes of an instance that no refresh has seen yet.

    Args:
        directory: where the notes lie.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def add(self, uuid: str, volume: Volume) -> None:
        """A volume is about to be made.

        Args:
            uuid: the pool's.
            volume: what it is to be.
        """
        name, target = volume.name or "", volume.target
        if target.format != "qcow2":
            self.forget(uuid, name)
            return
        files.make_directory(f"{self._directory}/{uuid}")
        told = json.dumps([target.compat, target.cluster_size])
        files.replace(self._path(uuid, name), told.encode(), durable=False)

    def show(self, uuid: str, volume: Volume) -> None:
        """Describe a volume as it was told to be, if no refresh has seen it yet.

        Args:
            uuid: the pool's.
            volume: as it is; changed.
        """
        if volume.target.format == "qcow2":
            told = files.read(self._path(uuid, volume.name or ""))
            if told is not None:
                volume.target.compat, volume.target.cluster_size = json.loads(told)

    def forget(self, uuid: str, name: str) -> None:
        """The volume is gone, or another one of its name is made."""
        files.remove(self._path(uuid, name))

    def refreshed(self, uuid: str) -> None:
        """All of a pool's volumes have been seen."""
        shutil.rmtree(f"{self._directory}/{uuid}", ignore_errors=True)

    def _path(self, uuid: str, name: str) -> str:
        digest = hashlib.sha1(os.fsencode(name), usedforsecurity=False).hexdigest()
        return f"{self._directory}/{uuid}/{digest}"
