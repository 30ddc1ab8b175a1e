"""Pools that are disks; their volumes are the disk's partitions.

parted(8) reads and changes the partition table, whichever kind it is. New partitions begin at whole mebibytes. Their
names are the kernel's, so that a client has to ask for the next one.
"""

import os
import re
from typing import NamedTuple

from virtd import constants as c
from virtd.conf.storage import Pool, Volume
from virtd.conf.storage.source import FreeExtent
from virtd.conf.storage.volume import Extent, SourceDevice
from virtd.drivers.storage import programs
from virtd.drivers.storage.backends import probing
from virtd.drivers.storage.backends.base import check_build_flags
from virtd.drivers.storage.backends.blocks import BlockBackend, check_encryption, settle, stable_path, zero_start
from virtd.drivers.storage.jobs import VolumeLock
from virtd.errors import VirtError, unsupported_flags

_ALIGNMENT = 1 << 20  # bytes
_PRIMARY_MAX = 4  # in an MBR
_MBR_SIZE, _MBR_TABLE, _MBR_ENTRY, _MBR_TYPE = 512, 446, 16, 4
_EXTENDED = (0x05, 0x0F, 0x85)
# What parted calls by another name than libvirt.
_LABELS = {"dos": "msdos", "unknown": "msdos"}
# libvirt's format of a partition: parted's type of file system, and the flag that says more.
_FORMATS = {
    "none": ("", ""),
    "linux": ("ext2", ""),
    "fat16": ("fat16", ""),
    "fat32": ("fat32", ""),
    "linux-swap": ("linux-swap", ""),
    "linux-lvm": ("", "lvm"),
    "linux-raid": ("", "raid"),
    "extended": ("", ""),
}
_MBR_FORMATS = {
    0x04: "fat16",
    0x06: "fat16",
    0x0E: "fat16",
    0x0B: "fat32",
    0x0C: "fat32",
    0x82: "linux-swap",
    0x83: "linux",
    0x8E: "linux-lvm",
    0xFD: "linux-raid",
    **dict.fromkeys(_EXTENDED, "extended"),
}
# In a GPT a partition of no special kind is Linux's.
_FLAG_FORMATS = {"msftdata": "fat32", "lvm": "linux-lvm", "raid": "linux-raid", "swap": "linux-swap"}
_SYSTEM_FORMATS = {"fat16": "fat16", "fat32": "fat32", **dict.fromkeys(("ext2", "ext3", "ext4", "xfs"), "linux")}


class Partition(NamedTuple):
    """A partition; number 0 is a part that is free. In bytes, the end is the first one behind it."""

    number: int
    start: int
    end: int
    format: str = "none"

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


class DiskBackend(BlockBackend):
    """A disk with a partition table."""

    @property
    def _device(self) -> str:
        return self.pool.source.devices[0].path or ""

    @property
    def _format(self) -> str:
        kind = self.pool.source.format
        return "dos" if kind in (None, "unknown") else kind

    def build(self, flags: int) -> None:
        check_build_flags(flags, "virStorageBackendDiskBuildPool")
        if not flags & c.VIR_STORAGE_POOL_BUILD_OVERWRITE:
            probing.check_empty(self._device, self._format)
        programs.run("parted", ["--script", self._device, "mklabel", _LABELS.get(self._format, self._format)])

    def delete(self, flags: int) -> None:
        unsupported_flags(flags, 0, "virStorageBackendDiskDeletePool")
        zero_start(self._device)
        # There may be more of it elsewhere: GPT has a copy at the end.
        programs.run("wipefs", ["--all", self._device])

    def start(self) -> None:
        settle()
        if not os.path.exists(self._device):
            text = f"device path '{self._device}' doesn't exist"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_STORAGE)
        probing.check_label(self._device, self._format)

    def refresh(self) -> None:
        settle()
        self._read()

    def sizes(self) -> tuple[int, int, int]:
        parts = self._read()
        used = sum(part.size for part in parts if part.number and part.format != "extended")
        return max((part.end for part in parts), default=0), used, sum(part.size for part in parts if not part.number)

    def show(self, shown: Pool) -> None:
        """What is free on the disk."""
        free = [FreeExtent(start=part.start, end=part.end) for part in self._read() if not part.number]
        device = shown.source.devices[0].copy()
        device.free = free
        shown.source = shown.source.copy()
        shown.source.devices = [device]

    # Volumes

    def volumes(self) -> list[Volume]:
        return [self._volume(part) for part in self._read() if part.number]

    def _volume(self, part: Partition) -> Volume:
        name = self._name(part.number)
        volume = Volume(type="block", name=name, capacity=part.size, allocation=part.size)
        volume.target.format = part.format
        volume.key = volume.target.path = self._path(name)
        extent = Extent(start=part.start, end=part.end)
        volume.devices = [SourceDevice(path=self._device, extents=[extent])]
        if part.format == "extended":
            volume.allocation = 0
        return volume

    def _name(self, number: int) -> str:
        """What the kernel calls a partition."""
        base = os.path.basename(os.path.realpath(self._device))
        device = self.pool.source.devices[0]
        separated = base[-1:].isdigit() if device.part_separator is None else device.part_separator
        return f"{base}{'p' if separated else ''}{number}"

    def _path(self, name: str) -> str:
        directory = os.path.dirname(os.path.realpath(self._device))
        return stable_path(f"{directory}/{name}", self.pool.path)

    def place(self, volume: Volume) -> None:
        check_encryption(volume)
        _, expected, _ = self._plan(volume)
        if volume.name != expected:
            text = f"invalid partition name '{volume.name}', expected '{expected}'"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_STORAGE)
        volume.type = "block"
        volume.target.path = self._path(expected)

    def create(self, volume: Volume, flags: int) -> None:
        kind, name, start = self._plan(volume)
        system, flag = _FORMATS[volume.target.format or "none"]
        end = start + -(-(volume.capacity or 0) // 512) * 512 - 1
        words = [kind, *([system] if system else []), f"{start}B", f"{end}B"]
        programs.run("parted", ["--script", self._device, "mkpart", *words])
        if flag:
            programs.run("parted", ["--script", self._device, "set", str(self._number(name)), flag, "on"])
        settle()

    def remove(self, volume: Volume, flags: int) -> None:
        unsupported_flags(flags, 0, "virStorageBackendDiskDeleteVol")
        programs.run("parted", ["--script", self._device, "rm", str(self._number(volume.name or ""))])
        settle()

    def wipe(self, volume: Volume, algorithm: int, lock: VolumeLock) -> None:
        if volume.target.format == "extended":
            text = f"cannot wipe extended partition '{volume.path}'"
            raise VirtError(c.VIR_ERR_NO_SUPPORT, text, domain=c.VIR_FROM_STORAGE)
        super().wipe(volume, algorithm, lock)

    @staticmethod
    def _number(name: str) -> int:
        match = re.search(r"[0-9]+$", name)
        if match is None:
            text = f"cannot parse partition number from target '{name}'"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE)
        return int(match[0])

    def _plan(self, volume: Volume) -> tuple[str, str, int]:
        """How a new partition is to be made: parted's kind, the name it will have, and where it begins."""
        parts = self._read()
        taken = {part.number for part in parts if part.number}
        extended = next((part for part in parts if part.format == "extended"), None)
        kind = "primary"
        if self._format == "dos":
            kind = self._kind(volume, taken, extended)
        elif volume.target.format == "extended":
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "Invalid partition type", domain=c.VIR_FROM_STORAGE)
        number = next(n for n in range(1, len(taken) + 6) if n not in taken and (kind != "logical" or n > _PRIMARY_MAX))
        wanted = max(1, volume.capacity or 0)
        free = []
        for part in parts:
            inside = extended is not None and extended.start <= part.start < extended.end
            if part.number or inside != (kind == "logical"):
                continue
            # A logical partition's own table lies before it.
            start = -(-(part.start + (512 if inside else 0)) // _ALIGNMENT) * _ALIGNMENT
            if start + wanted <= part.end:
                free.append((part.size, start))
        if not free:
            text = "no large enough free extent"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE)
        return kind, self._name(number), min(free)[1]

    @staticmethod
    def _kind(volume: Volume, taken: set[int], extended: Partition | None) -> str:
        """The kind of a new partition in an MBR: primary ones first, as long as there are numbers."""
        text = None
        if volume.target.format == "extended":
            if extended is None:
                return "extended"
            text = "extended partition already exists"
        elif any(number not in taken for number in range(1, _PRIMARY_MAX + 1)):
            return "primary"
        elif extended is not None:
            return "logical"
        else:
            text = "no extended partition found and no primary partition available"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE)

    def _read(self) -> list[Partition]:
        """The partitions and what is free between them."""
        output = programs.run("parted", ["--machine", "--script", self._device, "unit", "b", "print", "free"])
        types = self._mbr_types() if self._format == "dos" else {}
        found = []
        for line in output.splitlines():
            fields = line.rstrip(";").split(":")
            if len(fields) < 5 or not fields[0].isdigit():
                continue  # what the lines before the first one say of the disk
            number, (start, end) = int(fields[0]), (int(field.rstrip("B")) for field in fields[1:3])
            if fields[4] == "free":
                found.append(Partition(0, start, end + 1))
            else:
                kind = _MBR_FORMATS.get(types.get(number, 0)) or _guess(fields[4], fields[6], self._format)
                found.append(Partition(number, start, end + 1, kind))
        return found

    def _mbr_types(self) -> dict[int, int]:
        """What an MBR says that its four partitions are."""
        try:
            with open(self._device, "rb") as disk:
                sector = disk.read(_MBR_SIZE)
        except OSError:
            return {}
        offsets = enumerate(range(_MBR_TABLE, _MBR_TABLE + _PRIMARY_MAX * _MBR_ENTRY, _MBR_ENTRY), 1)
        return {number: sector[offset + _MBR_TYPE] for number, offset in offsets if len(sector) == _MBR_SIZE}


def _guess(system: str, flags: str, table: str) -> str:
    """What a partition is, by what parted finds on it and the flags it has."""
    for flag in flags.split(", "):
        if flag in _FLAG_FORMATS:
            return _FLAG_FORMATS[flag]
    if system.startswith("linux-swap"):
        return "linux-swap"
    return _SYSTEM_FORMATS.get(system, "linux" if table == "gpt" else "none")
