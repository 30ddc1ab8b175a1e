"""Making and changing images: raw ones by system calls, the others by qemu-img.

Everything here works on one path and leaves what is half done to its caller, who works under a temporary name.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from virtd import constants as c
from virtd.conf.storage import Volume
from virtd.drivers.storage import describe, programs
from virtd.drivers.storage.describe import Facts
from virtd.drivers.storage.jobs import VolumeLock
from virtd.errors import VirtError, unsupported_flags
from virtd.state import files

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_GETFLAGS, _SETFLAGS, _NOCOW = 0x80086601, 0x40086602, 0x00800000  # ioctl_iflags(2)
LUKS_HEADER = 2 << 20  # bytes before the encrypted data, as QEMU makes it
_ATTEMPTS = 30
_MODE = 0o600
# What qemu-img calls by another name.
_QEMU_NAMES = {"iso": "raw"}
# What libvirt's messages call the makers of what is no image.
_MAKERS = {"dir": "createFileDir", "ploop": "storageBackendCreatePloop"}


class Key:
    """A passphrase for qemu-img, handed over in memory, never on a command line or in a file.

    Args:
        name: what options call it.
        value: the passphrase.
    """

    def __init__(self, name: str, value: bytes) -> None:
        self.name = name
        self.descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        files.write_all(self.descriptor, value)

    @property
    def options(self) -> list[str]:
        """The options that tell qemu-img of it."""
        return ["--object", f"secret,id={self.name},file=/proc/self/fd/{self.descriptor}"]

    def __enter__(self) -> "Key":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def check(volume: Volume, *, metadata: bool) -> None:
    """Refuse what cannot be made, before anything is; in libvirt's order.

    Args:
        volume: what is to be made.
        metadata: VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, VIR_ERR_NO_SUPPORT, VIR_ERR_INVALID_ARG, VIR_ERR_INTERNAL_ERROR;
            VIR_ERR_SYSTEM_ERROR, the backing file is not there.
    """
    target, kind, encryption = volume.target, volume.target.format, volume.target.encryption
    backed = volume.backing is not None
    plain = kind == "raw" and encryption is None
    code, text = c.VIR_ERR_CONFIG_UNSUPPORTED, None
    if kind in _MAKERS:
        unsupported_flags(c.VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA * metadata, 0, _MAKERS[kind])
    if kind == "dir":
        if backed:
            code, text = c.VIR_ERR_NO_SUPPORT, "backing storage not supported for directories volumes"
    elif kind == "ploop":
        text = "copy-on-write ploop volumes are not yet supported"
        if not backed:
            code, text = c.VIR_ERR_INTERNAL_ERROR, "unable to find ploop, please install ploop tools"
    elif metadata and kind == "raw":
        text = "metadata preallocation is not supported for raw volumes"
    elif metadata and kind != "qcow2":
        text = "metadata preallocation only available with qcow2"
    elif backed and kind == "raw":
        code, text = c.VIR_ERR_NO_SUPPORT, "backing storage not supported for raw volumes"
    elif target.compat is not None and kind != "qcow2" and not plain:
        text = "compatibility option only available with qcow2"
    elif metadata and backed:
        text = "metadata preallocation conflicts with backing store"
    elif backed and kind in _QEMU_NAMES:
        text = "cannot set backing store for raw volume"
    elif not plain:
        if backed and volume.path:
            _check_backing(volume)
        text = _unlike_image(volume)
    if text is not None:
        raise VirtError(code, text, domain=c.VIR_FROM_STORAGE)


def _check_backing(volume: Volume) -> None:
    """Refuse a backing file that is not there."""
    assert volume.backing is not None
    name = volume.backing.path or ""
    try:
        os.stat(os.path.join(os.path.dirname(volume.path), name))
    except OSError as error:
        failure = files.os_error(error, f"inaccessible backing store volume {name}")
        failure.domain = c.VIR_FROM_STORAGE
        raise failure from None


def _unlike_image(volume: Volume) -> str | None:
    """What an image of its format cannot have; None if there is nothing."""
    target, encryption = volume.target, volume.target.encryption
    if encryption is not None and encryption.format != "luks":
        return f"creation of {target.format} encrypted image is not supported"
    if encryption is not None and target.format not in ("raw", "qcow2"):
        return f"volume encryption unsupported with format {target.format}"
    if target.features is not None and target.compat == "0.10":
        if target.features.lazy_refcounts:
            return "lazy_refcounts not supported with compat level 0.10"
        if target.features.extended_l2:
            return "'extended_l2' not supported with compat level 0.10"
    return None


def make(volume: Volume, path: str, key: Key | None, lock: VolumeLock, *, metadata: bool = False) -> None:
    """Make an empty image.

    Args:
        volume: what it is to be; checked.
        path: where.
        key: the passphrase of an encrypted one.
        lock: of the volume, which qemu-img keeps while it runs.
        metadata: whether qcow2's tables are made at once.

    Raises:
        VirtError, OSError: it could not be made.
    """
    kind = volume.target.format
    if kind == "dir":
        os.mkdir(path, _MODE)
    elif kind in _QEMU_NAMES or (kind == "raw" and key is None):
        _make_raw(volume, path)
    else:
        assert kind is not None
        # A raw image keeps its size when it is encrypted, and grows by a header: qemu-img knows by how much.
        options = _options(volume, key, metadata=metadata)
        command = ["create", *(key.options if key else []), "-f", "luks" if kind == "raw" and key else kind]
        if options:
            command += ["-o", ",".join(options)]
        # With a backing file its size is what an unsaid one means.
        size = [f"{-(-volume.capacity // 1024)}K"] if volume.capacity is not None else []
        _run([*command, path, *size], _kept(key, lock), {path: volume.path})
    set_owner(volume, path)


def convert(
    source: str,
    facts: Facts,
    source_key: Key | None,
    volume: Volume,
    path: str,
    key: Key | None,
    lock: VolumeLock,
    *,
    metadata: bool = False,
) -> None:
    """Make an image with the content of another one.

    Args:
        source: the other image.
        facts: what it is.
        source_key: its passphrase, if it is encrypted.
        volume: what the new one is to be; checked.
        path: where.
        key: the passphrase of an encrypted one.
        lock: of the new volume, which qemu-img keeps while it runs.
        metadata: whether qcow2's tables are made at once.

    Raises:
        VirtError, OSError: it could not be made.
    """
    assert facts.image is not None
    kind = _QEMU_NAMES.get(volume.target.format or "raw", volume.target.format or "raw")
    options = _options(volume, key, metadata=metadata) if kind != "raw" or key else []
    whole = volume.allocation is None or volume.allocation >= (volume.capacity or 0)
    if kind == "raw" and key is None and whole and facts.image.format == "raw":
        options.append("preallocation=falloc")
    command = ["convert", "-O", "luks" if kind == "raw" and key else kind]
    for one in (source_key, key):
        command += one.options if one else []
    if options:
        command += ["-o", ",".join(options)]
    command += [*_source(source, facts, source_key), path]
    _run(command, _kept(source_key, key, lock), {path: volume.path})
    if volume.capacity is not None and volume.capacity > facts.capacity:
        with ExitStack() as stack:
            if kind == "raw" and key is None:
                descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                _extend(descriptor, volume)
            else:
                resize(path, kind, volume.capacity, lock, key=key)
    set_owner(volume, path)


def copy_to_device(source: str, facts: Facts, key: Key | None, device: str, lock: VolumeLock) -> None:
    """Copy what an image holds to a device, which is large enough.

    Args:
        source: the image.
        facts: what it is.
        key: its passphrase, if it is encrypted.
        device: where to.
        lock: of the new volume, which qemu-img keeps while it runs.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR with qemu-img's words.
    """
    # What a device holds already counts for nothing: zeros have to be written as well.
    command = ["convert", "-n", "-O", "raw", *(key.options if key else []), *_source(source, facts, key), device]
    _run(command, _kept(key, lock), {})


def encrypt_device(volume: Volume, key: Key, lock: VolumeLock) -> None:
    """Make an encrypted image of a device, as large as fits on it.

    Args:
        volume: the device, and how it is to be encrypted.
        key: the passphrase.
        lock: of the volume, which qemu-img keeps while it runs.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR with qemu-img's words.
    """
    with _opened(volume.path, os.O_RDONLY) as descriptor:
        size = os.lseek(descriptor, 0, os.SEEK_END) - LUKS_HEADER
    options = ",".join(_options(volume, key, metadata=False))
    _run(["create", *key.options, "-f", "luks", "-o", options, volume.path, str(size)], _kept(key, lock), {})


def reflink(source: str, volume: Volume, path: str) -> None:
    """Make a raw image that shares the blocks of another one.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, the file system cannot do that.
    """
    with _opened(source, os.O_RDONLY) as old, _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as new:
        try:
            fcntl.ioctl(new, _FICLONE, old)
        except OSError as error:
            raise files.os_error(error, f"failed to clone files from '{source}'") from None
    set_owner(volume, path)


def resize(
    path: str, kind: str, capacity: int, lock: VolumeLock, *, shrink: bool = False, key: Key | None = None
) -> None:
    """Change the size of an image that is not raw.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR with qemu-img's words.
    """
    command = ["resize", *(["--shrink"] if shrink else [])]
    if key is None:
        command += ["-f", kind, path]
    else:
        command += [*key.options, "--image-opts", _image_options(path, kind, key)]
    # QEMU wants whole sectors.
    programs.run("qemu-img", [*command, str(-(-capacity // 512) * 512)], keep=_kept(key, lock))


def resize_raw(path: str, capacity: int, *, allocate: bool) -> None:
    """Change the size of a raw image.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    try:
        with _opened(path, os.O_RDWR) as descriptor:
            if allocate:
                os.posix_fallocate(descriptor, 0, capacity)
            os.ftruncate(descriptor, capacity)
    except OSError as error:
        what = "Failed to pre-allocate space for file" if allocate else "Failed to truncate file"
        raise files.os_error(error, f"{what} '{path}'") from None


def set_owner(volume: Volume, path: str) -> None:
    """Give a new image the owner and mode it is to have."""
    wanted = volume.target.permissions
    owner = -1 if wanted is None or wanted.owner is None else wanted.owner
    group = -1 if wanted is None or wanted.group is None else wanted.group
    if (owner, group) != (-1, -1):
        os.chown(path, owner, group)
    if volume.target.encryption is not None:
        describe.remember_encryption(path, volume.target.encryption)
    os.chmod(path, _MODE if wanted is None or wanted.mode is None else wanted.mode)


def _run(command: list[str], kept: list[int], shown: dict[str, str]) -> None:
    """Run qemu-img, which makes an image.

    For an encrypted one it measures how fast keys are derived, and gives up at once if the machine is too busy, or too
    fast, to tell. That says nothing of the next try.
    """
    for attempt in range(_ATTEMPTS):
        try:
            programs.run("qemu-img", command, keep=kept, shown=shown)
            return
        except VirtError as error:
            if "Unable to get accurate CPU usage" not in error.message or attempt == _ATTEMPTS - 1:
                raise


def _make_raw(volume: Volume, path: str) -> None:
    with _opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as descriptor:
        if volume.target.nocow:
            _set_nocow(descriptor, volume)
        _extend(descriptor, volume, sparse=volume.target.format != "raw")


def _set_nocow(descriptor: int, volume: Volume) -> None:
    """Let blocks be written in place, on a file system that copies them otherwise."""
    try:
        flags = bytearray(8)
        fcntl.ioctl(descriptor, _GETFLAGS, flags)
        value = int.from_bytes(flags, "little") | _NOCOW
        fcntl.ioctl(descriptor, _SETFLAGS, value.to_bytes(8, "little"))
    except OSError as error:
        known = error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY)
        what = "" if known else ", not btrfs"
        cause = error if known else OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        raise files.os_error(cause, f"unable to control COW flag on '{volume.path}'{what}") from None


def _extend(descriptor: int, volume: Volume, *, sparse: bool = False) -> None:
    """Give a raw image its size, and as much of the disk as it is to have from the beginning."""
    capacity = volume.capacity or 0
    allocation = capacity if volume.allocation is None else volume.allocation
    try:
        if os.fstat(descriptor).st_size < capacity:
            os.ftruncate(descriptor, capacity)
    except OSError as error:
        raise files.os_error(error, f"cannot extend file '{volume.path}'") from None
    try:
        if allocation and not sparse:
            os.posix_fallocate(descriptor, 0, allocation)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            text = f"cannot allocate {allocation} bytes in file '{volume.path}'"
            raise files.os_error(error, text) from None


def _options(volume: Volume, key: Key | None, *, metadata: bool) -> list[str]:
    """The options of a new image's format."""
    target = volume.target
    options = []
    if volume.backing is not None:
        options += [f"backing_file={_escaped(volume.backing.path or '')}", f"backing_fmt={volume.backing.format}"]
    if target.format == "qcow2":
        options.append(f"compat={target.compat or '0.10'}")
        if target.cluster_size is not None:
            options.append(f"cluster_size={target.cluster_size}")
        if target.features is not None:
            options += ["lazy_refcounts=on"] if target.features.lazy_refcounts else []
            options += ["extended_l2=on"] if target.features.extended_l2 else []
        if metadata:
            # With as much allocated as it can ever hold, the data's place, too, is made at once.
            whole = volume.allocation is None or volume.allocation >= (volume.capacity or 0)
            options.append(f"preallocation={'falloc' if whole else 'metadata'}")
    if target.nocow:
        options.append("nocow=on")
    if key is not None:
        options += _encryption(volume, key)
    return options


def _encryption(volume: Volume, key: Key) -> list[str]:
    assert volume.target.encryption is not None
    prefix = "encrypt." if volume.target.format == "qcow2" else ""
    options = [f"{prefix}key-secret={key.name}"]
    if prefix:
        options.append(f"{prefix}format=luks")
    cipher, ivgen = volume.target.encryption.cipher, volume.target.encryption.ivgen
    if cipher is not None:
        options.append(f"{prefix}cipher-alg={cipher.name}-{cipher.size}")
        options += [f"{prefix}cipher-mode={cipher.mode}"] if cipher.mode else []
        options += [f"{prefix}hash-alg={cipher.hash}"] if cipher.hash else []
    if ivgen is not None:
        options.append(f"{prefix}ivgen-alg={ivgen.name}")
        options += [f"{prefix}ivgen-hash-alg={ivgen.hash}"] if ivgen.hash else []
    return [_escaped(option) for option in options]


def _source(path: str, facts: Facts, key: Key | None) -> list[str]:
    assert facts.image is not None
    kind = _QEMU_NAMES.get(facts.image.format, facts.image.format)
    if key is None:
        return ["-f", kind, path]
    return ["--image-opts", _image_options(path, kind, key)]


def _image_options(path: str, kind: str, key: Key) -> str:
    if kind == "raw":
        return f"driver=luks,file.filename={_escaped(path)},key-secret={key.name}"
    return f"driver={kind},file.filename={_escaped(path)},encrypt.format=luks,encrypt.key-secret={key.name}"


def _escaped(text: str) -> str:
    """A value inside a list of options, where a comma is doubled."""
    return text.replace(",", ",,")


def _kept(*things: Key | VolumeLock | None) -> list[int]:
    return [one.descriptor for one in things if one is not None]


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, _MODE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
