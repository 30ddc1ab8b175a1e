"""A directory of definitions: NAME.xml for each object, and links to those that start with the machine.

The directory is the truth. What was read of a file is kept for as long as the file is the same. Of many definitions an
index is kept in a file, so that a process that comes new need not read them all: it is right for as long as nobody
has changed the directory, as its modification time tells, and saves the reading of unchanged files after that.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from virtd import uuids
from virtd.errors import VirtError
from virtd.state import files, locks
from virtd.state.commit import Change
from virtd.state.faults import point

# From how many files on the reading of them is worth an index.
_MANY = 100
# A directory that was changed so lately may change again without another time stamp, in ns.
_UNSETTLED = 1_000_000_000

_UUID = re.compile(rb"<uuid>\s*([0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12})\s*</uuid>")


_Known = tuple[files.Identity, str]  # a file as it was when it was read, and its uuid


class DefinitionDirectory:
    """The definitions of one kind of object; made if it is missing.

    Args:
        directory: where they lie.
        index: the file of their index; None for few definitions.

    Attributes:
        names: what is defined, uuid → name, as it was read last.
    """

    def __init__(self, directory: str, index: str | None = None) -> None:
        self.directory = directory
        self._links = f"{directory}/autostart"
        self._index = index
        self._indexed = 0  # the directory's modification time that the index belongs to, in ns
        self._known: dict[str, _Known] = {}
        self.names: dict[str, str] = {}
        files.make_directory(self._links)

    def path(self, name: str) -> str:
        """Where an object's definition lies."""
        return f"{self.directory}/{name}.xml"

    def autostart_path(self, name: str) -> str:
        """Where the link lies that makes an object start with the machine."""
        return f"{self._links}/{name}.xml"

    def read(self) -> dict[str, str]:
        """What is defined: uuid → name. The table is this object's own, and changed by the next reading."""
        changed = os.stat(self.directory).st_mtime_ns
        if self._index is not None and not self._known:
            self._recall(self._index)
        if self._indexed != changed:
            known, self._known = self._known, {}
            for entry in os.scandir(self.directory):
                self._look(entry, known)
            if self._index is not None and len(self._known) >= _MANY:
                self._write_index(self._index, changed)
        # A file that somebody copied by hand has the uuid of another: the newer counts.
        self.names = {}
        for name, (_, uuid) in sorted(self._known.items(), key=_age):
            self.names[uuid] = name
        return self.names

    def read_again(self, paths: Iterable[str]) -> set[str]:
        """Read those of some changed files that are definitions, or links beside them, again: read() has been called.

        Returns the uuids of what may have changed.
        """
        found: set[str] = set()
        for path in paths:
            directory, _, file = path.rpartition("/")
            name = file.removesuffix(".xml")
            if directory == self._links and name in self._known:
                found.add(self._known[name][1])
            if directory != self.directory:
                continue
            found |= self._read_one(name, path)
        return found

    def _read_one(self, name: str, path: str) -> set[str]:
        """Take down what has become of one file; returns the uuids that it had and has."""
        before = self._known.pop(name, None)
        if before is not None and self.names.get(before[1]) == name:
            del self.names[before[1]]
            if len(self.names) < len(self._known):  # perhaps the other one of two files of one uuid
                self.names.update({uuid: other for other, (_, uuid) in self._known.items() if uuid == before[1]})
        identity = files.identity(path)
        after = None if identity is None else _read_file(path, identity)
        if after is not None:
            self._known[name] = after
            self.names[after[1]] = name
        return {known[1] for known in (before, after) if known is not None}

    def _look(self, entry: os.DirEntry[str], known: dict[str, _Known]) -> None:
        """Take down one file of the directory."""
        name, suffix = entry.name[:-4], entry.name[-4:]
        if suffix != ".xml" or not name or name[0] == ".":
            return
        try:
            identity = files.identity_of(entry.stat())
        except FileNotFoundError:
            return
        cached = known.get(name)
        found = cached if cached is not None and cached[0] == identity else _read_file(entry.path, identity)
        if found is not None:
            self._known[name] = found

    def _recall(self, index: str) -> None:
        """Take over what the index says."""
        content = files.read(index)
        if content is None:
            return
        try:
            note = json.loads(content.decode())
            self._known = {name: ((one, two, three), uuid) for name, ((one, two, three), uuid) in note["known"].items()}
            self._indexed = int(note["directory"])
        except (ValueError, TypeError, KeyError, AttributeError):
            self._known = {}  # none yet, or one of another form

    def _write_index(self, index: str, changed: int) -> None:
        if time.time_ns() - changed > _UNSETTLED:
            note = {"directory": changed, "known": self._known}
            files.replace(index, json.dumps(note).encode(errors="surrogateescape"), durable=False)
            self._indexed = changed

    def autostarts(self) -> set[str]:
        """The names of the objects that start with the machine."""
        links = os.listdir(self._links)
        return {name.removesuffix(".xml") for name in links} if links else set()

    def prepare(self, name: str, xml: str) -> files.Pending:
        """Write a definition to disk, to be published in a commit; see virtd.state.files.prepare()."""
        return files.prepare(self.path(name), xml.encode(errors="surrogateescape"), durable=True)

    @contextmanager
    def locked(self, lock_path: str, call: str, *, what: str) -> Iterator[None]:
        """Keep all others from changing definitions, and clear away what one left who died while he did.

        Args:
            lock_path: the lock of this directory.
            call: libvirt's name of the call, for the messages of those who wait.
            what: the lock's name in them.

        Raises:
            VirtError: VIR_ERR_OPERATION_TIMEOUT naming the holder.
        """
        with mending(lock_path, call, self._mend, what=what):
            yield

    def _mend(self) -> None:
        """Remove what was cut short: new content that was not published, links of objects that are gone.

        Nothing of this can be seen by those who read.
        """
        files.forget_pending(self.directory)
        for name in os.listdir(self._links):
            if not os.path.exists(f"{self.directory}/{name}"):
                files.remove(f"{self._links}/{name}", durable=True)

    def link_autostart(self, name: str, change: Change) -> None:
        """Make an object start with the machine, in a commit.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR.
        """
        path = self.autostart_path(name)
        change.note(path)
        try:
            point("autostart.link", fails=True)
            os.symlink(self.path(name), path)
            point("autostart.linked")
            files.sync_directory(self._links)
        except FileExistsError:
            pass
        except OSError as error:
            raise files.os_error(error, f"Failed to create symlink '{path}' to '{self.path(name)}'") from None


@contextmanager
def mending(lock_path: str, call: str, mend: Callable[[], None], *, what: str) -> Iterator[None]:
    """Hold a lock, and clear away what one has left who died with it, or fails now.

    Args:
        lock_path, call, what: as for virtd.state.locks.acquire(), which raises the same.
        mend: clears away.
    """
    with locks.held(lock_path, call, what=what) as lock:
        if lock.abandoned:
            mend()
        try:
            yield
        except BaseException:
            with suppress(VirtError):  # the disk may be broken; what is left is overwritten, or mended later
                mend()
            raise


def _read_file(path: str, identity: files.Identity) -> _Known | None:
    """The uuid in a file; None if it is no definition of ours."""
    match = _UUID.search(files.read(path) or b"")
    return None if match is None else (identity, uuids.to_text(uuids.to_bytes(match[1].decode())))


def _age(item: tuple[str, _Known]) -> int:
    _, (identity, _) = item
    return identity[1]
