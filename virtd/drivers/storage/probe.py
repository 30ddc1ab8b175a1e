"""What an image is, by its first bytes.

The formats are recognised as libvirt recognises them, by own code: starting qemu-img takes 13 ms, reading a header
0.03 ms, and a pool can hold thousands of images. What is read comes from guests, so that it is only ever compared,
bounded and shown: numbers are taken from fixed places, and a name that points outside the header is none.
"""

import os
import struct
from collections.abc import Callable
from typing import NamedTuple

HEADER_SIZE = 33280  # bytes: up to the mark of an ISO 9660 image, the last one that is looked for
NAME_MAX = 1023  # bytes of a backing file's name, as in QEMU
_EXTENSION_END, _EXTENSION_BACKING = 0, 0xE2792ACA
_EXTENSIONS_MAX = 64


class Image(NamedTuple):
    """What an image's header says.

    Attributes:
        format: libvirt's name of the format.
        capacity: bytes the guest sees; None if the header does not tell.
        compat: qcow2's version, if it is not the oldest.
        cluster_size: bytes.
        features: of qcow2: 'lazy_refcounts', 'extended_l2'; None where there are none to have.
        backing: the name of the backing file as it stands there, None if there is none.
        backing_format: its format, None if it is not told.
        encryption: 'luks' or 'qcow', None if it is not encrypted.
    """

    format: str = "raw"
    capacity: int | None = None
    compat: str | None = None
    cluster_size: int | None = None
    features: frozenset[str] | None = None
    backing: str | None = None
    backing_format: str | None = None
    encryption: str | None = None


RAW = Image()


def probe(descriptor: int, size: int) -> Image:
    """Recognise an open image.

    Args:
        descriptor: the image, readable.
        size: its length in bytes.

    Raises:
        OSError: it cannot be read.
    """
    head = os.pread(descriptor, HEADER_SIZE, 0)
    for offset, magic, read in _MAGICS:
        if head.startswith(magic, offset):
            try:
                found = read(head, descriptor, size)
            except struct.error:
                continue  # cut off inside the header
            if found is not None:
                return found
    return RAW


def _qcow(head: bytes, descriptor: int, size: int) -> Image | None:
    (version,) = struct.unpack_from(">I", head, 4)
    if version == 1:
        return _qcow1(head, descriptor)
    if version not in (2, 3):
        return None
    backing_offset, backing_size, cluster_bits, capacity, crypt = struct.unpack_from(">QIIQI", head, 8)
    if not 9 <= cluster_bits <= 21:
        return None
    incompatible = compatible = 0
    length = 72
    if version == 3:
        incompatible, compatible, _, _, length = struct.unpack_from(">QQQII", head, 72)
    backing = _name(descriptor, backing_offset, backing_size, 1 << cluster_bits)
    features = set()
    if compatible & 1:
        features.add("lazy_refcounts")
    if incompatible & 16:
        features.add("extended_l2")
    cluster = 1 << cluster_bits
    return Image(
        "qcow2",
        capacity,
        compat="1.1" if version == 3 else None,
        cluster_size=cluster,
        features=frozenset(features) if version == 3 else None,
        backing=backing,
        backing_format=_backing_format(head, length) if backing is not None else None,
        encryption={1: "qcow", 2: "luks"}.get(crypt),
    )


def _qcow1(head: bytes, descriptor: int) -> Image:
    backing_offset, backing_size, _, capacity, bits, _, _, crypt = struct.unpack_from(">QIIQBBHI", head, 8)
    backing = _name(descriptor, backing_offset, backing_size, 1 << 21)
    del bits
    return Image("qcow", capacity, backing=backing, encryption="qcow" if crypt else None)


def _backing_format(head: bytes, offset: int) -> str | None:
    """The backing file's format, from the list of extensions behind qcow2's header."""
    for _ in range(_EXTENSIONS_MAX):
        kind, length = struct.unpack_from(">II", head, offset)
        if kind == _EXTENSION_END:
            break
        data = head[offset + 8 : offset + 8 + length]
        if kind == _EXTENSION_BACKING:
            return data.decode("ascii", "replace") if len(data) == length <= 16 else None
        offset += 8 + (length + 7) // 8 * 8
    return None


def _name(descriptor: int, offset: int, size: int, end: int) -> str | None:
    """A file name in the image, which must lie before `end`."""
    if not (0 < size <= NAME_MAX and offset > 0 and offset + size <= end):
        return None
    data = os.pread(descriptor, size, offset)
    return os.fsdecode(data) if len(data) == size and b"\0" not in data else None


def _qed(head: bytes, descriptor: int, size: int) -> Image | None:
    (features,) = struct.unpack_from("<Q", head, 16)
    capacity, offset, length = struct.unpack_from("<QII", head, 48)
    backing = _name(descriptor, offset, length, 1 << 26) if features & 1 else None
    return Image("qed", capacity, backing=backing, backing_format="raw" if features & 4 else None)


def _vmdk(head: bytes, descriptor: int, size: int) -> Image | None:
    version, _, sectors = struct.unpack_from("<IIQ", head, 4)
    return Image("vmdk", sectors * 512) if version in (1, 2, 3) else None


def _vdi(head: bytes, descriptor: int, size: int) -> Image | None:
    (version,) = struct.unpack_from("<I", head, 68)
    (capacity,) = struct.unpack_from("<Q", head, 368)
    return Image("vdi", capacity) if version == 0x10001 else None


def _vpc(head: bytes, descriptor: int, size: int) -> Image | None:
    version, capacity = struct.unpack_from(">I32xQ", head, 12)
    return Image("vpc", capacity) if version == 0x10000 else None


def _bochs(head: bytes, descriptor: int, size: int) -> Image | None:
    (version,) = struct.unpack_from("<I", head, 64)
    (capacity,) = struct.unpack_from("<Q", head, 84)
    return Image("bochs", capacity) if version in (0x10000, 0x20000) else None


def _cow(head: bytes, descriptor: int, size: int) -> Image | None:
    (version,) = struct.unpack_from(">I", head, 4)
    (capacity,) = struct.unpack_from(">Q", head, 1036)
    name = os.fsdecode(head[8 : 8 + NAME_MAX].partition(b"\0")[0])
    return Image("cow", capacity, backing=name or None) if version == 2 else None


def _luks(head: bytes, descriptor: int, size: int) -> Image | None:
    (version,) = struct.unpack_from(">H", head, 6)
    (payload,) = struct.unpack_from(">I", head, 104)
    if version != 1:
        return None
    return Image("raw", max(0, size - payload * 512), encryption="luks")


def _plain(name: str) -> Callable[[bytes, int, int], Image | None]:
    return lambda head, descriptor, size: Image(name)


_MAGICS: tuple[tuple[int, bytes, Callable[[bytes, int, int], Image | None]], ...] = (
    (0, b"QFI\xfb", _qcow),
    (0, b"LUKS\xba\xbe", _luks),
    (0, b"KDMV", _vmdk),
    (0, b"QED\0", _qed),
    (0, b"conectix", _vpc),
    (0, b"OOOM", _cow),
    (0, b"Bochs Virtual HD Image", _bochs),
    (0, b"#!/bin/sh\n#V2.0 Format", _plain("cloop")),
    (0, b"WithoutFreeSpace", _plain("ploop")),
    (0, b"WithouFreSpacExt", _plain("ploop")),
    (64, b"\x7f\x10\xda\xbe", _vdi),
    (32769, b"CD001", _plain("iso")),
)
