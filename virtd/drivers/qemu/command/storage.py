"""Where images are: QEMU's block nodes for each kind of source, and the chain of images below a disk.

Each image is two nodes, as libvirt makes them: libvirt-N-storage says where its bytes are, libvirt-N-format what they
mean. The node of a disk's own image refers to that of its backing image, and so on down.
"""

import os
import struct
from typing import NamedTuple

from virtd import constants as c
from virtd.conf.domain.disk import (
    Auth,
    BlockSource,
    DirSource,
    Disk,
    Encryption,
    FileSource,
    NetworkSource,
    NvmeSource,
    Reservations,
    Slice,
    SourceBase,
    VolumeSource,
)
from virtd.drivers.qemu.command import servers
from virtd.drivers.qemu.command.line import NULL, Line, Properties, alias, internal, unsupported
from virtd.drivers.qemu.run.access import Use

# Cache modes: whether the host's page cache is passed by, whether flushes are ignored, whether the guest is told of
# a cache.
_CACHE = {
    "none": (True, False, True),
    "writethrough": (False, False, False),
    "writeback": (False, False, True),
    "directsync": (True, False, False),
    "unsafe": (False, True, True),
}
# Formats that have no driver of the same name: what libvirt makes of them.
_FORMATS = {"fat": "raw", "dir": "raw", "vhd": "vhdx", "ploop": "parallels"}
_NO_FORMATS = {"iso", "cow", "none", "auto", "aio"}
_BACKED = ("qcow", "qcow2", "qed", "vmdk")
"""Formats of images that can lie above others."""
_PR_HELPER = "pr-helper0"
_QCOW2_CLUSTER_MIN = 4096  # bytes of an image in which its header and names lie, in all that qemu-img makes
_DATA_FILE, _DATA_FILE_NAME = 1 << 2, 0x44415441  # an incompatible feature, and the extension with the file's name
_MOST_IMAGES = 200  # a chain longer than that goes in circles


class Image(NamedTuple):
    """One image of a chain."""

    number: int
    source: SourceBase
    format: str
    writable: bool
    end: bool  # whether it is said that there is nothing below


def real(source: SourceBase) -> SourceBase:
    """What a source is: of a volume, where the storage service has found it."""
    return source.found or source if isinstance(source, VolumeSource) else source


def chain(disk: Disk, first: int, *, writable: bool) -> list[Image]:
    """A disk's images from the top, numbered from `first` on."""
    if disk.source is None:
        return []
    images = [Image(first, real(disk.source), disk.driver.type or "raw", writable, False)]
    below = disk.backing
    while below is not None and below.source is not None:
        images.append(Image(first + len(images), real(below.source), below.format or "raw", False, False))
        below = below.backing
    if below is not None and below.end:
        images[-1] = images[-1]._replace(end=True)
    return images


def left_out(disk: Disk) -> bool:
    """Whether a medium is missing of which it is said that the guest can do without."""
    path = local_path(disk.source)
    if disk.source is None or disk.source.startup_policy != "optional" or path is None:
        return False
    return disk.device in ("cdrom", "floppy") and not os.path.exists(path)


def cache_mode(disk: Disk) -> str | None:
    """The cache mode of a disk; what several guests write to must not be cached by the host. None: QEMU's own."""
    mode = disk.driver.cache
    if mode in (None, "default"):
        return "none" if disk.shareable and not disk.readonly else None
    return mode


def writes_through(mode: str | None) -> bool | None:
    """Whether a cache mode means that the guest sees no write cache; None if nothing is said."""
    return None if mode is None else not _CACHE[mode][2]


def add_images(line: Line, disk: Disk, images: list[Image]) -> str | None:
    """Add the nodes of a disk's images; returns the name of the one that the device uses."""
    if not images:
        return None
    for image in reversed(images):
        backing = next((f"libvirt-{other.number}-format" for other in images if other.number == image.number + 1), None)
        storage = _storage(line, disk, image)
        line.json("blockdev", storage)
        part = _slice(image)
        if part is not None and image.format != "raw":
            line.json("blockdev", _sliced(image, storage, part))
        line.json("blockdev", _format(line, disk, image, backing))
    _note(line, disk, images)
    name = f"libvirt-{images[0].number}-format"
    if disk.driver.copy_on_read:
        above = f"libvirt-CoR-{disk.target}"
        line.json("blockdev", {"driver": "copy-on-read", "node-name": above, "file": name, "discard": "unmap"})
        return above
    return name


def _storage(line: Line, disk: Disk, image: Image) -> Properties:
    properties = _where(line, disk, image)
    options = disk.driver
    if options.io is not None and properties["driver"] in ("file", "host_device"):
        properties["aio"] = options.io
    if image.source.reservations is not None:
        properties["pr-manager"] = _pr_manager(line, image, image.source.reservations)
    properties |= {"node-name": f"libvirt-{image.number}-storage", "cache": _cache(cache_mode(disk))}
    if isinstance(image.source, FileSource) and image.source.fdgroup is not None:
        # QEMU must ask for that access to the file, and no other, which the descriptor gives.
        return properties | {"read-only": not image.writable, "discard": "unmap"}
    return properties | {"auto-read-only": True, "discard": "unmap"}


def add_helper_of_reservations(line: Line) -> None:
    """Add the helper that all disks with managed reservations share."""
    if any(_managed(real(disk.source)) for disk in line.config.disks if disk.source is not None):
        line.object("pr-manager-helper", id=_PR_HELPER, path=f"{line.setup.private}/{_PR_HELPER}.sock")


def _managed(source: SourceBase) -> bool:
    return source.reservations is not None and source.reservations.managed is True


def _pr_manager(line: Line, image: Image, said: Reservations) -> str:
    """Who sees to a device's reservations: the guest's own helper, or one that somebody else has started."""
    if said.managed:
        return _PR_HELPER
    name = f"pr-helper-libvirt-{image.number}-storage"
    line.uses(said.source_path, write=True)
    line.object("pr-manager-helper", id=name, path=said.source_path)
    return name


def _format(line: Line, disk: Disk, image: Image, backing: str | None) -> Properties:
    options = disk.driver
    kind = image.format
    if kind in _NO_FORMATS:
        raise unsupported(f"storage format '{kind}' is not directly supported by QEMU, use 'raw' instead")
    detect = options.detect_zeroes
    if detect == "unmap" and options.discard != "unmap":
        detect = "on"
    top = disk.source is not None and image.source is real(disk.source)
    properties: Properties = {
        "node-name": f"libvirt-{image.number}-format",
        "read-only": not image.writable,
        "discard": options.discard,
        "detect-zeroes": detect if top else None,
        "cache": _cache(cache_mode(disk)),
        "driver": _FORMATS.get(kind, kind),
    }
    if options.metadata_cache is not None and kind == "qcow2" and top:
        properties["cache-size"] = options.metadata_cache.max_size
    part = _slice(image)
    if part is not None and kind == "raw":
        properties |= {"offset": part.offset, "size": part.size}
    properties["file"] = f"libvirt-{image.number}-{'storage' if part is None or kind == 'raw' else 'slice-sto'}"
    encryption = image.source.encryption or (disk.encryption if top else None)
    if encryption is not None and encryption.engine != "librbd":
        properties |= _decryption(line, disk, image, encryption)
    if backing is not None:
        if kind not in _BACKED:
            raise unsupported(f"storage format '{kind}' does not support backing store")
        return properties | {"backing": backing}
    return properties | ({"backing": NULL} if image.end and kind not in ("raw", "fat", "dir") else {})


def _slice(image: Image) -> Slice | None:
    """The part of its container that an image is."""
    return next((part for part in image.source.slices if part.type == "storage"), None)


def _sliced(image: Image, storage: Properties, part: Slice) -> Properties:
    """A node between storage and format, for a format that cannot be told where it begins and ends."""
    kept = {name: storage[name] for name in ("cache", "auto-read-only", "discard")}
    name = f"libvirt-{image.number}"
    place = {"offset": part.offset, "size": part.size}
    return {"driver": "raw", "node-name": f"{name}-slice-sto", **kept, "file": f"{name}-storage", **place}


def _decryption(line: Line, disk: Disk, image: Image, encryption: Encryption) -> Properties:
    """How QEMU gets at the content of an encrypted image."""
    if encryption.format != "luks" or encryption.engine != "qemu":
        raise unsupported(f"encryption format '{encryption.format}' of disk '{disk.target}' is not supported")
    if not encryption.secrets:
        raise unsupported(f"the encryption of disk '{disk.target}' names no secret")
    name = f"libvirt-{image.number}-format-encryption-secret0"
    key = line.secret(name, encryption.secrets[0], c.VIR_SECRET_USAGE_TYPE_VOLUME)
    if image.format == "qcow2":
        return {"encrypt": {"format": "luks", "key-secret": key}}
    if image.format not in ("raw", "luks"):
        raise unsupported(f"encryption of an image of format '{image.format}' is not supported")
    return {"driver": "luks", "key-secret": key}


def _cache(mode: str | None) -> Properties | None:
    if mode is None:
        return None
    direct, no_flush, _ = _CACHE[mode]
    return {"direct": direct, "no-flush": no_flush}


def _note(line: Line, disk: Disk, images: list[Image]) -> None:
    """Note what QEMU opens: the images, and those that they themselves say lie below."""
    for image in images:
        path = local_path(image.source)
        if path is None or (isinstance(image.source, FileSource) and image.source.fdgroup is not None):
            continue
        line.uses(path, write=image.writable)
        # What a transient disk covers nobody else may change, unless it is to be shared.
        covered = disk.transient and image is not images[0] and image is images[1]
        alone = image.writable or (covered and not disk.transient_share)
        line.command.images.append(Use(path, alias(disk.info), alone and not disk.shareable))
        if image.format != "qcow2" or not line.setup.live:
            continue
        beside = data_file(path)
        if beside is not None:
            line.uses(beside, write=image.writable)
            line.command.images.append(Use(beside, alias(disk.info), alone and not disk.shareable))
        for below in backing_files(path) if image is images[-1] and not image.end else ():
            for name in filter(None, (below, data_file(below))):
                line.uses(name)
                line.command.images.append(Use(name, alias(disk.info), False))


def local_path(source: SourceBase | None) -> str | None:
    """The path of a source that is a file, block device or directory of the host."""
    source = None if source is None else real(source)
    if isinstance(source, FileSource):
        return source.file
    if isinstance(source, BlockSource):
        return source.dev
    if isinstance(source, DirSource):
        return source.dir
    return None


def backing_files(path: str) -> list[str]:
    """The files which a qcow2 image says lie below it, as far as they are files that can be read."""
    found: list[str] = []
    while len(found) < _MOST_IMAGES:
        below = _backing_file(path)
        if below is None or below in found:
            break
        path = os.path.join(os.path.dirname(os.path.realpath(path)), below)
        found.append(path)
    return found


def data_file(path: str) -> str | None:
    """The file beside a qcow2 image in which its data are, if that is so (QEMU, docs/interop/qcow2)."""
    try:
        with open(path, "rb") as file:
            header = file.read(_QCOW2_CLUSTER_MIN)
    except OSError:
        return None
    if len(header) < 104 or header[:8] != b"QFI\xfb\0\0\0\3" or not int.from_bytes(header[72:80], "big") & _DATA_FILE:
        return None
    offset = int.from_bytes(header[100:104], "big")
    while offset + 8 <= len(header):
        kind, length = struct.unpack_from(">II", header, offset)
        if kind == _DATA_FILE_NAME:
            name = os.fsdecode(header[offset + 8 : offset + 8 + length])
            return os.path.join(os.path.dirname(os.path.realpath(path)), name)
        if not kind:
            break
        offset += 8 + (length + 7) // 8 * 8
    return None


def _backing_file(path: str) -> str | None:
    """The name in the header of a qcow2 image (QEMU, docs/interop/qcow2)."""
    try:
        with open(path, "rb") as file:
            header = file.read(20)
            if len(header) < 20 or header[:4] != b"QFI\xfb":
                return None
            offset, length = struct.unpack(">QI", header[8:20])
            if not offset or not 0 < length <= 1023:
                return None
            file.seek(offset)
            name = os.fsdecode(file.read(length))
    except OSError:
        return None
    name = name.removeprefix("file:")
    return None if "://" in name or name.startswith("json:") else name


def _where(line: Line, disk: Disk, image: Image) -> Properties:
    source = image.source
    if isinstance(source, BlockSource):
        driver = "host_cdrom" if disk.device == "cdrom" and _is_cdrom(source.dev) else "host_device"
        return {"driver": driver, "filename": source.dev or ""}
    if isinstance(source, DirSource):
        if image.writable and image.format != "fat":
            raise unsupported(f"unsupported disk driver type for '{image.format}'")
        return {"driver": "vvfat", "dir": source.dir, "floppy": disk.device == "floppy", "rw": image.writable}
    return where(line, source, str(image.number), disk.auth)


def where(line: Line, source: SourceBase, number: str, auth: Auth | None = None) -> Properties:
    """The node that a source is, but for its name.

    Args:
        line: the command line, to which secrets are added that the node needs.
        source: the source.
        number: what tells its nodes from those of others.
        auth: who we are to a server, if the source itself does not say so.
    """
    if isinstance(source, FileSource):
        if source.fdgroup is not None:
            return {"driver": "file", "filename": line.passed(source.fdgroup)}
        return {"driver": "file", "filename": source.file or ""}
    if isinstance(source, BlockSource):
        return {"driver": "host_device", "filename": source.dev or ""}
    if isinstance(source, NetworkSource):
        return servers.node(line, source, number, source.auth or auth)
    if isinstance(source, NvmeSource):
        device = f"{source.domain:04x}:{source.bus:02x}:{source.slot:02x}.{source.function:x}"
        return {"driver": "nvme", "device": device, "namespace": source.namespace}
    if isinstance(source, VolumeSource):
        raise internal(f"volume '{source.volume}' of pool '{source.pool}' has not been looked up")
    raise unsupported(f"disk source type '{type(source).kind}' is not supported")


def _is_cdrom(path: str | None) -> bool:
    """Whether a block device is a CD drive (major 11)."""
    try:
        return os.major(os.stat(path or "").st_rdev) == 11
    except OSError:
        return False
