"""Pools that are SCSI host adapters; their volumes are the adapter's logical units.

All is read from sysfs. Virtual ports of Fibre Channel are not made; one that exists can be used.
"""

import os

from virtd import constants as c
from virtd.conf.storage import Volume
from virtd.conf.storage.source import Adapter
from virtd.drivers.storage.backends.base import Backend
from virtd.drivers.storage.backends.blocks import BlockBackend, serial, settle, size_of, stable_path
from virtd.errors import VirtError
from virtd.state import files

SYS = "/sys"
_DISK, _ROM = "0", "5"  # types of devices that hold volumes (SCSI primary commands)


class ScsiBackend(BlockBackend):
    """A SCSI host adapter."""

    def host(self) -> int:
        """The adapter's number.

        Raises:
            VirtError: there is no such adapter.
        """
        adapter = self.pool.source.adapter
        assert adapter is not None
        if adapter.type == "fc_host":
            return _fibre_channel(adapter)
        return _by_name(adapter.name) if adapter.name is not None else _by_address(adapter)

    def start(self) -> None:
        self.scan(self.host())

    def refresh(self) -> None:
        self.scan(self.host())

    def scan(self, host: int) -> None:
        """Have the adapter look for units.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR.
        """
        path = f"{SYS}/class/scsi_host/host{host}/scan"
        text = f"Could not open '{path}' to trigger host scan"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                text = f"Write to '{path}' to trigger host scan failed"
                os.write(descriptor, b"- - -")
            finally:
                os.close(descriptor)
        except OSError as error:
            failure = files.os_error(error, text)
            failure.domain = c.VIR_FROM_STORAGE
            raise failure from None
        settle()

    def copy(self, volume: Volume, original: Volume | None, flags: int) -> bool:
        return Backend.copy(self, volume, original, flags)

    def sizes(self) -> tuple[int, int, int]:
        whole = sum(volume.capacity or 0 for volume in self.volumes())
        return whole, whole, 0

    def volumes(self) -> list[Volume]:
        units = f"{SYS}/bus/scsi/devices"
        prefix = f"{self.host()}:"
        try:
            names = [name for name in os.listdir(units) if name.startswith(prefix)]
        except FileNotFoundError:
            return []  # nothing on this machine speaks SCSI
        found = [self._volume(f"{units}/{name}", name.removeprefix(prefix)) for name in names]
        return [volume for volume in found if volume is not None]

    def _volume(self, unit: str, address: str) -> Volume | None:
        """A unit that is a disk, or an optical one with a medium."""
        if _read(f"{unit}/type") not in (_DISK, _ROM):
            return None
        try:
            device = f"/dev/{min(os.listdir(f'{unit}/block'))}"
        except (FileNotFoundError, ValueError):
            return None
        size = size_of(device)
        if size is None:
            return None
        volume = Volume(type="block", name=f"unit:{address}", capacity=size, allocation=size)
        volume.target.path = stable_path(device, self.pool.path)
        if volume.path == device and self.pool.path != "/dev":
            return None  # a name that can be another device's after the next start is not what was asked for
        volume.key = serial(device)
        return volume


def _by_name(name: str) -> int:
    number = name.removeprefix("scsi_").removeprefix("host")
    if not (number.isascii() and number.isdigit()):
        text = f"Invalid adapter name '{name}' for SCSI pool"
        raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_STORAGE)
    return int(number)


def _by_address(adapter: Adapter) -> int:
    """The adapter at some place of the PCI bus."""
    parent = adapter.parent_address
    assert parent is not None
    assert parent.address is not None
    place = parent.address
    wanted = f"{place.domain:04x}:{place.bus:02x}:{place.slot:02x}.{place.function:x}"
    root = f"{SYS}/class/scsi_host"
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else ():
        if _read(f"{root}/{name}/unique_id") == str(parent.unique_id) and f"/{wanted}/" in os.path.realpath(
            f"{root}/{name}"
        ):
            return int(name.removeprefix("host"))
    text = f"Failed to find scsi_host using PCI '{wanted}' and unique_id='{parent.unique_id}'"
    raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_STORAGE)


def _fibre_channel(adapter: Adapter) -> int:
    """The port with some names, which is there already."""
    root = f"{SYS}/class/fc_host"
    names = sorted(os.listdir(root)) if os.path.isdir(root) else []
    for name in names:
        found = [_read(f"{root}/{name}/{what}").removeprefix("0x") for what in ("node_name", "port_name")]
        if found == [(adapter.wwnn or "").lower(), (adapter.wwpn or "").lower()]:
            return int(name.removeprefix("host"))
    if not names and adapter.parent is None:
        text = "'parent' for vHBA not specified, and cannot find one on this host"
        raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_STORAGE)
    text = f"virtd makes no virtual ports: no SCSI host with wwnn='{adapter.wwnn}', wwpn='{adapter.wwpn}' is there"
    raise VirtError(c.VIR_ERR_NO_SUPPORT, text, domain=c.VIR_FROM_STORAGE)


def _read(path: str) -> str:
    """What a file of sysfs says; empty if it is not there."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
