"""Whole files: a reader sees the old content or the new one, never a part, whatever dies when.

The temporary file beside the target has one fixed name. Writers of one target hold a lock that excludes
each other, so that a temporary file which a killed writer left is overwritten by the next, and never piles up.
"""

import errno
import os

from virtd import constants as c
from virtd.errors import VirtError
from virtd.state.faults import point
from virtd.tuples import NamedTuple

# Descriptors that a process keeps open for as long as it lives: nothing is held by them, nobody waits for their end.
LASTING: set[int] = set()

# Tells whether a path still names the same content: inode, modification time in ns, size.
Identity = tuple[int, int, int]


def identity_of(found: os.stat_result) -> Identity:
    """The identity of a file as stat() describes it."""
    return found.st_ino, found.st_mtime_ns, found.st_size


def identity(path: str) -> Identity | None:
    """The identity of the file that a path names; None if there is none."""
    try:
        return identity_of(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


class Pending(NamedTuple):
    """New content of a file, wholly on disk under a temporary name."""

    temporary: str
    path: str
    durable: bool

    def publish(self) -> None:
        """Put the content in its place, atomically.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR; nothing is left beside the file.
        """
        try:
            rename(self.temporary, self.path, durable=self.durable)
        except VirtError:
            self.discard()
            raise

    def discard(self) -> None:
        """Forget the content; the file stays as it is."""
        try:
            os.unlink(self.temporary)
        except FileNotFoundError:
            pass


def os_error(error: OSError, what: str) -> VirtError:
    """A failed system call as libvirt reports it: what was being done, and the system's reason."""
    failure = VirtError(c.VIR_ERR_SYSTEM_ERROR, f"{what}: {error.strerror or error}")
    failure.int1 = error.errno or -1
    return failure


def prepare(path: str, content: bytes, *, durable: bool, mode: int = 0o600) -> Pending:
    """Write new content for a file beside it; nobody sees it until it is published.

    Args:
        path: the file to be replaced.
        content: all of its new content.
        durable: True for what must survive a power failure. What ends with the boot anyway (the run-time
            directory) is not synced: a rename alone already makes it whole for every process.
        mode: the file's permissions.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR; the file is as it was, and nothing is left beside it.
    """
    pending = Pending(_temporary(path), path, durable)
    try:
        point("file.create", fails=True)
        descriptor = os.open(pending.temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            write_all(descriptor, content)
            os.fchmod(descriptor, mode)
            if durable:
                point("file.sync", fails=True)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        pending.discard()
        raise os_error(error, f"cannot write '{path}'") from None
    point("file.written")
    return pending


def _temporary(path: str) -> str:
    directory, name = os.path.split(path)
    return f"{directory}/.{name}.new"


def rename(path: str, new: str, *, durable: bool) -> None:
    """Give a file another name in the same directory, atomically; one that has the name goes."""
    try:
        point("file.rename", fails=True)
        os.rename(path, new)
        point("file.renamed")
        if durable:
            sync_directory(os.path.dirname(new))
    except OSError as error:
        raise os_error(error, f"cannot replace '{new}'") from None


def replace(path: str, content: bytes, *, durable: bool, mode: int = 0o600) -> None:
    """Replace a file's content at once; see prepare()."""
    prepare(path, content, durable=durable, mode=mode).publish()


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of the bytes; a full disk in the middle raises instead of leaving a short write unnoticed."""
    view = memoryview(content)
    while view:
        written = os.write(descriptor, view)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view = view[written:]
    point("file.write", fails=True)


def read(path: str) -> bytes | None:
    """A file's content; None if there is no such file.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR if there is one and it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise os_error(error, f"cannot read '{path}'") from None
    try:
        chunks = []
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
        return b"".join(chunks)
    except OSError as error:
        raise os_error(error, f"cannot read '{path}'") from None
    finally:
        os.close(descriptor)


def remove(path: str, *, durable: bool = False) -> bool:
    """Remove a file; returns whether there was one."""
    try:
        point("file.remove", fails=durable)
        os.unlink(path)
        point("file.removed")
        if durable:
            sync_directory(os.path.dirname(path))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise os_error(error, f"cannot remove '{path}'") from None
    return True


def forget(path: str) -> None:
    """Remove a file, and new content for it that a process was writing which died."""
    remove(path)
    remove(_temporary(path))


def forget_pending(directory: str) -> None:
    """Remove new content of files that has not been published; nobody is about to."""
    for name in os.listdir(directory):
        if name.startswith(".") and name.endswith(".new"):
            remove(f"{directory}/{name}")


def make_directory(path: str, mode: int = 0o711) -> None:
    """Make a directory and those above it; an existing one stays as it is."""
    if os.path.isdir(path):
        return
    try:
        point("directory.make", fails=True)
        os.makedirs(path, mode, exist_ok=True)
    except OSError as error:
        raise os_error(error, f"cannot create directory '{path}'") from None


def sync_directory(path: str) -> None:
    """Make renames and removals in a directory survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        point("directory.sync", fails=True)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
