"""Pools that are volume groups of LVM; their volumes are logical volumes.

LVM is asked in its JSON form. What LVM hides from its users (parts of mirrors, pools of thin volumes, volumes that are
switched off) is no volume here, either.
"""

import json
import os
import re
from typing import Any

from virtd import constants as c
from virtd.conf.storage import Volume
from virtd.conf.storage.source import Device, Source
from virtd.conf.storage.volume import Backing, Extent, SourceDevice
from virtd.drivers.storage import programs
from virtd.drivers.storage.backends import probing
from virtd.drivers.storage.backends.base import Surroundings, check_build_flags
from virtd.drivers.storage.backends.blocks import BlockBackend, check_encryption, settle, zero_start
from virtd.drivers.storage.imagetool import set_owner
from virtd.drivers.storage.jobs import VolumeLock
from virtd.errors import VirtError, unsupported_flags

_COLUMNS = (
    "lv_name,origin,origin_size,lv_uuid,devices,stripes,seg_size_pe,vg_extent_size,lv_size,lv_attr,segtype,data_percent"
)
_DEVICE = re.compile(r"([^\s,]+)\((\d+)\)")
_UUID = re.compile(r"[0-9A-Za-z]{6}(-[0-9A-Za-z]{4}){5}-[0-9A-Za-z]{6}")


class LogicalBackend(BlockBackend):
    """A volume group."""

    @classmethod
    def find_sources(cls, kind: str, spec: Source | None, surroundings: Surroundings, flags: int) -> list[Source]:
        # libvirt takes no notice of what it is told to look for.
        unsupported_flags(flags, 0, "virStorageBackendLogicalFindPoolSources")
        found: dict[str, Source] = {}
        for device, group in _physical_volumes():
            source = found.setdefault(group, Source(name=group, format="lvm2", devices=[]))
            source.devices.append(Device(path=device))
        return list(found.values())

    @property
    def _group(self) -> str:
        return self.pool.source.name or ""

    @property
    def _devices(self) -> list[str]:
        return [device.path or "" for device in self.pool.source.devices]

    def build(self, flags: int) -> None:
        check_build_flags(flags, "virStorageBackendLogicalBuildPool")
        made: list[str] = []
        try:
            for device in self._devices:
                if not flags & c.VIR_STORAGE_POOL_BUILD_OVERWRITE:
                    probing.check_empty(device, "LVM2_member")
                # A whole disk with a partition table is no physical volume.
                zero_start(device)
                programs.run("pvcreate", ["--yes", device])
                made.append(device)
            programs.run("vgcreate", [self._group, *self._devices])
        except BaseException:
            for device in made:
                programs.run("pvremove", [device], accept=range(256))
            raise

    def delete(self, flags: int) -> None:
        unsupported_flags(flags, 0, "virStorageBackendLogicalDeletePool")
        programs.run("vgremove", ["--force", self._group])
        for device in self._devices:
            programs.run("pvremove", [device])

    def start(self) -> None:
        found = [device for device, group in _physical_volumes() if group == self._group]
        text = None
        if not found:
            text = f"cannot find logical volume group name '{self._group}'"
        elif self._devices and not {os.path.realpath(device) for device in self._devices} & {
            os.path.realpath(device) for device in found
        }:
            text = f"cannot find any matching source devices for logical volume group '{self._group}'"
        if text is not None:
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
        programs.run("vgchange", ["-aly", self._group])
        settle()

    def stop(self) -> None:
        programs.run("vgchange", ["-aln", self._group])

    def sizes(self) -> tuple[int, int, int]:
        [group] = _report("vgs", "vg", "vg_size,vg_free", self._group)
        capacity, available = int(group["vg_size"]), int(group["vg_free"])
        return capacity, capacity - available, available

    # Volumes

    def may_hold(self, path: str) -> bool:
        return path.startswith(f"{self.pool.path}/") or _UUID.fullmatch(path) is not None

    def volumes(self) -> list[Volume]:
        found: dict[str, Volume] = {}
        for row in _report("lvs", "lv", _COLUMNS, self._group):
            name, attributes = row["lv_name"], row["lv_attr"]
            # The fifth letter: active. The first: t is a pool of thin volumes, whose volumes are listed themselves.
            if attributes[4] != "a" or attributes[0] == "t":
                continue
            if name not in found:
                found[name] = self._volume(row)
            _add_extents(found[name], row)
        return list(found.values())

    def _volume(self, row: dict[str, str]) -> Volume:
        name = row["lv_name"]
        size = int(row["lv_size"])
        # What a snapshot holds is what differs from its origin.
        capacity = int(row["origin_size"] or size)
        if row["segtype"] == "thin":
            capacity, size = size, round(size * float(row["data_percent"] or 0) / 100)
        volume = Volume(type="block", name=name, key=row["lv_uuid"], capacity=capacity, allocation=size)
        volume.target.path = f"{self.pool.path}/{name}"
        # In brackets: what LVM made for itself, under a volume that is all hole.
        if row["origin"] and row["origin"][0] != "[":
            volume.backing = Backing(path=f"{self.pool.path}/{row['origin']}")
        return volume

    def place(self, volume: Volume) -> None:
        check_encryption(volume)
        volume.type = "block"
        volume.target.path = f"{self.pool.path}/{volume.name}"
        if volume.backing is not None and volume.backing.path and not volume.backing.path.startswith("/"):
            volume.backing.path = f"{self.pool.path}/{volume.backing.path}"

    def create(self, volume: Volume, flags: int) -> None:
        capacity = volume.capacity or 0
        allocation = capacity if volume.allocation is None else volume.allocation
        command = ["--yes", "--name", volume.name or "", "-L"]
        if allocation != capacity:
            command += [_kibibytes(max(1, allocation)), "--type", "snapshot", "--virtualsize"]
        command.append(_kibibytes(capacity))
        command += [self._group] if volume.backing is None else ["-s", volume.backing.path or ""]
        programs.run("lvcreate", command)
        settle()
        try:
            set_owner(volume, volume.path)
        except OSError as error:
            self.remove(volume, 0)
            text = f"cannot set owner and mode of '{volume.path}': {error.strerror}"
            raise VirtError(c.VIR_ERR_SYSTEM_ERROR, text, domain=c.VIR_FROM_STORAGE) from None

    def remove(self, volume: Volume, flags: int) -> None:
        unsupported_flags(flags, 0, "virStorageBackendLogicalDeleteVol")
        settle()
        programs.run("lvremove", ["--force", f"{self._group}/{volume.name}"])

    def wipe(self, volume: Volume, algorithm: int, lock: VolumeLock) -> None:
        rows = _report("lvs", "lv", "lv_name,lv_attr", self._group)
        # The first letter: a snapshot, also one of nothing; or a thin volume.
        if any(row["lv_name"] == volume.name and row["lv_attr"][0] in "sSV" for row in rows):
            text = f"logical volume '{volume.path}' is sparse, volume wipe not supported"
            raise VirtError(c.VIR_ERR_NO_SUPPORT, text, domain=c.VIR_FROM_STORAGE)
        super().wipe(volume, algorithm, lock)


def _report(program: str, kind: str, columns: str, what: str) -> list[dict[str, str]]:
    """What one of LVM's reports says: a dictionary for each row; sizes in bytes."""
    command = ["--reportformat", "json", "--units", "b", "--nosuffix", "--options", columns]
    output = programs.run(program, [*command, what] if what else command)
    try:
        report: Any = json.loads(output)
        rows: list[dict[str, str]] = report["report"][0][kind]
    except (ValueError, LookupError, TypeError):
        text = f"'{program}' answered what is no report: {output[:200]}"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE) from None
    return rows


def _physical_volumes() -> list[tuple[str, str]]:
    """The devices that are in use by LVM, each with its volume group, if it is in one."""
    rows = _report("pvs", "pv", "pv_name,vg_name", "")
    return [(row["pv_name"], row["vg_name"]) for row in rows if row["vg_name"]]


def _add_extents(volume: Volume, row: dict[str, str]) -> None:
    """Add where a segment of a volume lies: one extent on each of the devices it is striped over."""
    places = _DEVICE.findall(row["devices"])
    size = int(row["vg_extent_size"])
    length = int(row["seg_size_pe"]) * size // max(1, len(places) if int(row["stripes"]) > 1 else 1)
    for device, offset in places:
        if not device.startswith("/"):
            continue  # a part of the volume that is a volume itself
        of_device = next((one for one in volume.devices if one.path == device), None)
        if of_device is None:
            of_device = SourceDevice(path=device, extents=[])
            volume.devices.append(of_device)
        start = int(offset) * size
        of_device.extents.append(Extent(start=start, end=start + length))


def _kibibytes(size: int) -> str:
    return f"{-(-size // 1024)}K"
