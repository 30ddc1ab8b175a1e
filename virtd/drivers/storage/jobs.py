"""Making volumes whole or not at all, and one process at a time at each volume.

A new volume is made under a temporary name, which no list shows, and renamed when it is complete. Which temporary
file a process is making is written down before there is one, in a record that is locked for as long as that process
or a program it started lives. So whoever finds the record unlocked may remove the file: its maker has died.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from virtd.state import files, locks
from virtd.state.faults import point

PREFIX = ".virtd-new."


def hidden(name: str) -> bool:
    """Whether a file in a pool is one that is being made."""
    return name.startswith(PREFIX)


class VolumeLock:
    """A lock on a volume, for the length of a with block. Its file goes with it."""

    def __init__(self, lock: locks.Lock) -> None:
        self._lock = lock
        self.path = lock.path

    @property
    def descriptor(self) -> int:
        """What a program keeps open in order to hold the lock, too."""
        return self._lock.descriptor

    def release(self) -> None:
        """Give the lock back."""
        files.remove(self.path)
        self._lock.release()

    def __enter__(self) -> "VolumeLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Jobs:
    """The work on volumes that is going on in an instance.

    Args:
        directory: where the records lie; made if it is missing.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        files.make_directory(directory)
        # A directory can be shared with other machines, which make volumes of the same names.
        self._instance = _digest(f"{socket.gethostname()}\0{directory}")[:8]

    def volume(self, path: str, call: str) -> "VolumeLock":
        """Work on a volume, alone: for the length of a with block.

        Args:
            path: the volume.
            call: libvirt's name of the call, for the messages of those who wait.

        Raises:
            VirtError: VIR_ERR_OPERATION_TIMEOUT naming who works on it.
        """
        what = f"lock of volume '{path}'"
        return VolumeLock(locks.acquire(self._path(path, "lock"), call, what=what))

    def claim(self, path: str, call: str) -> "VolumeLock | None":
        """As volume(), without a wait: None if somebody works on it."""
        lock = locks.attempt(self._path(path, "lock"), call)
        return None if lock is None else VolumeLock(lock)

    @contextmanager
    def making(self, uuid: str, path: str, lock: "VolumeLock") -> Iterator[str]:
        """Make a new volume: the block makes the temporary file, and its end puts it in its place.

        Args:
            uuid: the pool's.
            path: the volume to be.
            lock: of the volume, which is held.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR; or what the block raises. Nothing is left then.
        """
        directory, _ = os.path.split(path)
        temporary = f"{directory}/{PREFIX}{self._instance}.{_digest(path)[:16]}"
        record = self._path(path, "json")
        content = json.dumps({"pool": uuid, "temporary": temporary, "lock": lock.path})
        files.replace(record, content.encode(), durable=False)
        try:
            _remove(temporary)
            yield temporary
            point("volume.made", fails=True)
            os.rename(temporary, path)
            point("volume.named")
        except OSError as error:
            raise files.os_error(error, f"cannot create volume '{path}'") from None
        finally:
            _remove(temporary)
            files.remove(record)

    @contextmanager
    def making_elsewhere(self, uuid: str, name: str, lock: "VolumeLock") -> Iterator[None]:
        """Make a new volume that is no file: the block makes it, and it counts as unfinished until the end.

        Args:
            uuid: the pool's.
            name: of the volume to be.
            lock: of the volume, which is held.
        """
        record = self._elsewhere(uuid, name)
        content = json.dumps({"pool": uuid, "volume": name, "lock": lock.path})
        files.replace(record, content.encode(), durable=False)
        yield
        # Not if the block fails: what it left is removed by the next one who changes the pool.
        files.remove(record)

    def forget(self, uuid: str, name: str) -> None:
        """There is no unfinished volume of that name: it could not even be begun."""
        files.remove(self._elsewhere(uuid, name))

    def unfinished(self, uuid: str) -> list[str]:
        """The names of a pool's volumes that are no files and are being made, or were when their maker died."""
        found = []
        for file in os.listdir(self._directory):
            if file.endswith(".new") and file[0] != ".":
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    note = json.loads(files.read(f"{self._directory}/{file}") or b"null")
                    if note["pool"] == uuid:
                        found.append(str(note["volume"]))
        return found

    @contextmanager
    def orphan(self, uuid: str, name: str) -> Iterator[bool]:
        """Whether the maker of an unfinished volume has died; after the block there is no record of it any more."""
        record = self._elsewhere(uuid, name)
        try:
            path = str(json.loads(files.read(record) or b"null")["lock"])
        except (ValueError, KeyError, TypeError):
            yield False
            return
        lock = locks.attempt(path, "the clean-up after a volume that was not finished")
        if lock is None:
            yield False
            return
        with VolumeLock(lock):
            yield True
            files.remove(record)

    def _elsewhere(self, uuid: str, name: str) -> str:
        return self._path(f"{uuid}/{name}", "new")

    def sweep(self, uuid: str) -> None:
        """Remove what processes left of a pool's volumes that died while they made them; the pool's lock is held."""
        for name in os.listdir(self._directory):
            path = f"{self._directory}/{name}"
            if name.endswith(".json") and name[0] != ".":
                self._sweep_record(path, uuid)
        for name in os.listdir(self._directory):
            if name.endswith(".lock"):
                self._free(f"{self._directory}/{name}")

    def _sweep_record(self, path: str, uuid: str) -> None:
        content = files.read(path)
        try:
            note = json.loads(content or b"null")
            if note is None or note["pool"] != uuid:
                return
            temporary, lock_path = str(note["temporary"]), str(note["lock"])
        except (ValueError, KeyError, TypeError):
            files.remove(path)
            return
        lock = locks.attempt(lock_path, "the clean-up after a volume that was not finished")
        if lock is not None:
            with VolumeLock(lock):
                # Only now is it certain that nobody has begun anew in the meantime.
                if files.read(path) == content:
                    _remove(temporary)
                    files.remove(path)

    @staticmethod
    def _free(path: str) -> None:
        """Remove the file of a lock that nobody holds any more."""
        lock = locks.attempt(path, "the clean-up after work on a volume")
        if lock is not None:
            VolumeLock(lock).release()

    def sweep_directory(self, directory: str) -> None:
        """Remove what a machine that went down left in a pool's directory, whose records went with it."""
        mine = f"{PREFIX}{self._instance}."
        known = set()
        for name in os.listdir(self._directory):
            if name.endswith(".json"):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    known.add(json.loads(files.read(f"{self._directory}/{name}") or b"null")["temporary"])
        for name in os.listdir(directory):
            path = f"{directory}/{name}"
            if name.startswith(mine) and path not in known:
                _remove(path)

    def _path(self, path: str, suffix: str) -> str:
        return f"{self._directory}/{_digest(path)}.{suffix}"


def _digest(text: str) -> str:
    return hashlib.sha1(os.fsencode(text), usedforsecurity=False).hexdigest()


def _remove(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise files.os_error(error, f"cannot remove '{path}'") from None
