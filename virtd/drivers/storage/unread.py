"""Which volumes have been made since their pool was last refreshed.

Of a volume that it has just made, libvirt shows what it was told to make, and only a refresh of the pool reads the
image for the rest. virtd always reads it; what it knows besides is left out for as long, so that documents are the
same. One empty file for each such volume lies in the run-time directory, and is gone after a refresh, with the volume,
or with the pool. Nothing but a description depends on it.
"""

import hashlib
import os
import shutil

from virtd.state import files


class Unread:
    """The volumes of an instance that no refresh has seen yet.

    Args:
        directory: where the notes lie.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def add(self, uuid: str, name: str) -> None:
        """A volume is about to be made, and not everything was told.

        Args:
            uuid: the pool's.
            name: the volume's.
        """
        files.make_directory(f"{self._directory}/{uuid}")
        files.replace(self._path(uuid, name), b"", durable=False)

    def forget(self, uuid: str, name: str) -> None:
        """The volume is gone, or another one of its name is made."""
        files.remove(self._path(uuid, name))

    def refreshed(self, uuid: str) -> None:
        """All of a pool's volumes have been seen."""
        shutil.rmtree(f"{self._directory}/{uuid}", ignore_errors=True)

    def has(self, uuid: str, name: str) -> bool:
        """Whether a volume has not been seen since it was made."""
        return os.path.exists(self._path(uuid, name))

    def _path(self, uuid: str, name: str) -> str:
        digest = hashlib.sha1(os.fsencode(name), usedforsecurity=False).hexdigest()
        return f"{self._directory}/{uuid}/{digest}"
