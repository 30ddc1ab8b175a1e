"""What a volume that is a file is: its sizes, owner, times, format and backing file, as they are at the moment."""

import contextlib
import os
import stat

from virtd import constants as c
from virtd.conf.storage.basics import Permissions
from virtd.conf.storage.encryption import Encryption
from virtd.conf.storage.types import BACKING_FORMATS
from virtd.conf.storage.volume import Backing, Features, Timestamps, Volume
from virtd.conf.xml.model import View, write_document
from virtd.conf.xml.read import read_element, root_element
from virtd.drivers.storage import hazard, probe
from virtd.errors import VirtError
from virtd.state import files

_NOTE = "user.virtd.encryption"
_BLOCK = 512  # bytes: the unit of st_blocks, whatever the file system


class Facts:
    """A file that is a volume.

    Attributes:
        type: 'file', 'block', 'dir'.
        capacity, allocation, physical: bytes.
        image: what its header says; None for a directory.
        found: what stat() says of it; of what is no file, see told(), that of the root.
        volume: the description, where another one than look() made it.
    """

    __slots__ = ("allocation", "capacity", "found", "image", "physical", "type", "volume")

    def __init__(self, kind: str, found: os.stat_result, size: int, image: probe.Image | None) -> None:
        self.volume: Volume | None = None
        self.type = kind
        self.found = found
        self.image = image
        self.physical = 0 if image is None else size
        self.allocation = 0 if image is None else size if kind == "block" else found.st_blocks * _BLOCK
        told = None if image is None else image.capacity
        # A header may leave the size open, or say none.
        self.capacity = told or self.physical


def usable(entry: os.DirEntry[str]) -> bool:
    """Whether something in a directory is a volume: a file, directory or block device, or a link to one."""
    try:
        if entry.is_file() or entry.is_dir():
            return True
        return stat.S_ISBLK(entry.stat().st_mode)
    except OSError:
        return False


def exists(path: str) -> bool:
    """Whether there is a file that could be a volume; it is not opened.

    Raises:
        DeadlineExceeded: see hazard.avoid().
    """
    hazard.avoid(path)
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode)


def look(path: str) -> Facts | None:
    """Look at a file; None if there is none that could be a volume.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, it cannot be looked at.
        DeadlineExceeded: see hazard.avoid().
    """
    hazard.avoid(path)
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            return Facts("dir", found, 0, None)
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            return None
        # Not blocking, should it have become a FIFO meanwhile.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if stat.S_ISBLK(found.st_mode):
                size = os.lseek(descriptor, 0, os.SEEK_END)
                return Facts("block", found, size, probe.probe(descriptor, size))
            return Facts("file", found, found.st_size, probe.probe(descriptor, found.st_size))
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        text = f"cannot open volume '{path}'"
        failure = files.os_error(error, text)
        failure.domain = c.VIR_FROM_STORAGE
        raise failure from None


def told(volume: Volume) -> Facts:
    """A volume that is no file of a directory, as its pool's back end describes it. Its content is raw."""
    kind = volume.type or "block"
    facts = Facts(kind, os.stat("/"), volume.physical or 0, None if kind == "dir" else probe.RAW)
    facts.volume = volume
    facts.capacity, facts.allocation = volume.capacity or 0, volume.allocation or 0
    return facts


def complete(volume: Volume) -> Volume:
    """Add to a volume that is a device what the device itself tells, if it is there."""
    hazard.avoid(volume.path)
    try:
        descriptor = os.open(volume.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return volume  # one that is switched off, or has no medium
    try:
        found = os.fstat(descriptor)
        if stat.S_ISBLK(found.st_mode):
            volume.physical = os.lseek(descriptor, 0, os.SEEK_END)
            volume.target.permissions = permissions(volume.path, found)
            volume.target.timestamps = _timestamps(found)
    finally:
        os.close(descriptor)
    backing = volume.backing
    if backing is not None and backing.path is not None:
        with contextlib.suppress(OSError):
            found = os.stat(backing.path)
            backing.permissions, backing.timestamps = permissions(backing.path, found), _timestamps(found)
    return volume


def describe(name: str, path: str, facts: Facts) -> Volume:
    """A volume as its XML shows it."""
    if facts.volume is not None:
        return facts.volume
    image = facts.image
    volume = Volume(type=facts.type, name=name, key=path, capacity=facts.capacity, allocation=facts.allocation)
    volume.physical = facts.physical or None
    target = volume.target
    target.path = path
    target.permissions = permissions(path, facts.found)
    target.timestamps = _timestamps(facts.found)
    if image is None:
        target.format = "dir"
        return volume
    target.format = image.format
    target.compat, target.cluster_size = image.compat, image.cluster_size
    if image.features is not None:
        target.features = Features(**dict.fromkeys(image.features, True))
    target.encryption = encryption(path, image)
    if image.backing is not None:
        volume.backing = _backing(path, image)
    return volume


def permissions(path: str, found: os.stat_result) -> Permissions:
    """Whose a file is, who may use it, and its SELinux label."""
    try:
        label = os.getxattr(path, "security.selinux").rstrip(b"\0").decode(errors="replace")
    except OSError:
        label = None
    return Permissions(mode=stat.S_IMODE(found.st_mode), owner=found.st_uid, group=found.st_gid, label=label)


def remember_encryption(path: str, encryption: Encryption) -> None:
    """Note at an encrypted image how it was made and with which secret, where the file system can do that."""
    with contextlib.suppress(OSError):
        os.setxattr(path, _NOTE, write_document(encryption, "encryption", View()).encode(errors="surrogateescape"))


def encryption(path: str, image: probe.Image) -> Encryption | None:
    """How an image is encrypted; the secret, and what else the header does not tell, if that was noted."""
    if image.encryption is None:
        return None
    try:
        note = os.getxattr(path, _NOTE).decode(errors="surrogateescape")
        root = root_element(note, "encryption", "noted_encryption", c.VIR_FROM_STORAGE)
        noted = read_element(root, Encryption, c.VIR_FROM_STORAGE)
    except (OSError, VirtError):
        noted = None  # not noted; or whoever owns the file has written something else there
    if noted is None or noted.format != image.encryption or len(noted.secrets) != 1:
        return Encryption(format=image.encryption)
    return noted


def backing_path(path: str, name: str) -> str | None:
    """The path of a backing file; None if its name is not one of a file.

    Args:
        path: the image.
        name: as it stands in the image.
    """
    scheme, colon, rest = name.partition(":")
    if colon and "/" not in scheme:
        return rest if scheme == "file" else None
    return os.path.normpath(os.path.join(os.path.dirname(path), name))


def _backing(path: str, image: probe.Image) -> Backing:
    assert image.backing is not None
    local = backing_path(path, image.backing)
    told = image.backing_format if image.backing_format in BACKING_FORMATS[1:] else None
    backing = Backing(path=local or image.backing, format=told or "raw")
    if local is None:
        return backing
    try:
        facts = look(local)
    except VirtError:
        facts = None  # it is shown as what the image calls it
    if facts is not None:
        if told is None and facts.image is not None:
            backing.format = facts.image.format
        backing.permissions = permissions(local, facts.found)
        if facts.type == "file":
            backing.timestamps = _timestamps(facts.found)
    return backing


def _timestamps(found: os.stat_result) -> Timestamps:
    # The time of birth is not asked for: libvirt's "unknown".
    return Timestamps(
        atime=_time(found.st_atime_ns), mtime=_time(found.st_mtime_ns), ctime=_time(found.st_ctime_ns), btime="0"
    )


def _time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{seconds}.{rest:09}" if rest else str(seconds)
