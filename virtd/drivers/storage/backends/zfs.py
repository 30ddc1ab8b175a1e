"""Pools of ZFS, or file systems in them; their volumes are block devices that ZFS makes.

zpool(8) and zfs(8) answer in their forms for scripts: tabs, exact numbers.
"""

from virtd import constants as c
from virtd.conf.storage import Volume
from virtd.drivers.storage import programs
from virtd.drivers.storage.backends.blocks import BlockBackend, settle
from virtd.errors import VirtError, unsupported_flags


class ZfsBackend(BlockBackend):
    """A ZFS pool, or a file system in one ('pool/name')."""

    @property
    def _name(self) -> str:
        return self.pool.source.name or ""

    def build(self, flags: int) -> None:
        unsupported_flags(flags, 0, "virStorageBackendZFSBuildPool")
        if "/" in self._name:
            programs.run("zfs", ["create", "-o", "mountpoint=none", self._name])
            return
        devices = [device.path or "" for device in self.pool.source.devices]
        if not devices:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "missing source devices", domain=c.VIR_FROM_STORAGE)
        programs.run("zpool", ["create", self._name, *devices])

    def delete(self, flags: int) -> None:
        unsupported_flags(flags, 0, "virStorageBackendZFSDeletePool")
        if "/" in self._name:
            programs.run("zfs", ["destroy", "-r", self._name])
        else:
            programs.run("zpool", ["destroy", self._name])

    def sizes(self) -> tuple[int, int, int]:
        if "/" in self._name:
            rows = _rows("zfs", ["get", "-Hp", "-o", "property,value", "used,available", self._name])
            values = {row[0]: int(row[1]) for row in rows}
            return values["used"] + values["available"], values["used"], values["available"]
        rows = _rows("zpool", ["get", "-Hp", "-o", "property,value", "size,free,allocated", self._name])
        values = {row[0]: int(row[1]) for row in rows}
        return values["size"], values["allocated"], values["free"]

    def volumes(self) -> list[Volume]:
        rows = _rows("zfs", ["list", "-Hp", "-t", "volume", "-r", "-o", "name,volsize,refreservation", self._name])
        found = []
        for name, size, reserved in rows:
            short = name.removeprefix(f"{self._name}/")
            allocation = int(reserved) if reserved.isdigit() else 0
            volume = Volume(type="block", name=short, capacity=int(size), allocation=allocation)
            volume.key = volume.target.path = f"{self.pool.path}/{short}"
            found.append(volume)
        return found

    def place(self, volume: Volume) -> None:
        if volume.target.encryption is not None:
            text = "storage pool does not support encrypted volumes"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)
        volume.type = "block"
        volume.target.path = f"{self.pool.path}/{volume.name}"

    def create(self, volume: Volume, flags: int) -> None:
        unsupported_flags(flags, 0, "virStorageBackendZFSCreateVol")
        capacity = volume.capacity or 0
        command = ["create"]
        if volume.allocation is not None and volume.allocation != capacity:
            command.append("-s")
            if volume.allocation:
                command += ["-o", f"refreservation={_kibibytes(volume.allocation)}"]
        programs.run("zfs", [*command, "-V", _kibibytes(capacity), f"{self._name}/{volume.name}"])
        settle()

    def remove(self, volume: Volume, flags: int) -> None:
        unsupported_flags(flags, 0, "virStorageBackendZFSDeleteVol")
        programs.run("zfs", ["destroy", f"{self._name}/{volume.name}"])


def _rows(program: str, arguments: list[str]) -> list[list[str]]:
    return [line.split("\t") for line in programs.run(program, arguments).splitlines() if line]


def _kibibytes(size: int) -> str:
    return f"{-(-size // 1024)}K"
