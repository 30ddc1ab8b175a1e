"""Pools whose volumes are block devices: what LVM, disks, SCSI hosts, multipath devices and ZFS have in common."""

import os

from virtd import constants as c
from virtd.conf.storage import Volume
from virtd.drivers.storage import describe, hazard, programs, wipe
from virtd.drivers.storage.backends.base import Backend
from virtd.drivers.storage.jobs import VolumeLock
from virtd.errors import VirtError
from virtd.state import files


class BlockBackend(Backend):
    """A type of pool whose volumes can be opened like files."""

    def described(self, volume: Volume) -> Volume:
        return describe.complete(volume)

    def may_hold(self, path: str) -> bool:
        # What devices say of themselves, which can be their key, has no slash.
        return path.startswith("/dev/") or "/" not in path or (self.pool.path != "" and path.startswith(self.pool.path))

    def copy(self, volume: Volume, original: Volume | None, flags: int) -> bool:
        return False

    def wipe(self, volume: Volume, algorithm: int, lock: VolumeLock) -> None:
        wipe.wipe(volume.path, algorithm, lock)

    def check_transfer(self, direction: str) -> None:
        """Devices can be read and written."""


def size_of(device: str) -> int | None:
    """A block device's size in bytes; None if it cannot be read (no medium, switched off)."""
    hazard.avoid(device)
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def stable_path(device: str, directory: str) -> str:
    """A device's path in a directory of names that stay the same (/dev/disk/by-path…).

    Args:
        device: /dev/NAME.
        directory: the pool's target. If it is no directory of links, or has none to the device, that has its own name.
    """
    if directory in ("", "/dev") or not directory.startswith("/dev/"):
        return device
    real = os.path.realpath(device)
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return device
    for name in names:
        path = f"{directory}/{name}"
        if os.path.realpath(path) == real:
            return path
    return device


def serial(path: str) -> str:
    """What calls a device the same in every machine and at every time: its SCSI identification, else its path."""
    tool = "/lib/udev/scsi_id"
    if programs.installed(tool) is not None:
        arguments = ["--replace-whitespace", "--whitelisted", "--device", path]
        # It fails for devices that have none.
        found = programs.run(tool, arguments, accept=(0, 1)).strip()
        if found:
            return found
    return path


def zero_start(device: str) -> None:
    """Overwrite what tells tools that there is something on a device: its first 4 KiB.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    try:
        descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _failed(error, f"Failed to open storage volume with path '{device}'") from None
    try:
        files.write_all(descriptor, bytes(4096))
        os.fsync(descriptor)
    except OSError as error:
        raise _failed(error, f"Failed to write 4096 bytes to storage volume with path '{device}'") from None
    finally:
        os.close(descriptor)


def settle() -> None:
    """Wait until the device manager has made the nodes of the devices that came, where one runs."""
    if os.path.exists("/run/udev/control") and programs.installed("udevadm"):
        programs.run("udevadm", ["settle"], seconds=30)


def check_encryption(volume: Volume) -> None:
    """Refuse what is not LUKS for a device.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED.
    """
    encryption = volume.target.encryption
    if encryption is not None and encryption.format != "luks":
        text = "storage pool only supports LUKS encrypted volumes"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_STORAGE)


def _failed(error: OSError, text: str) -> VirtError:
    failure = files.os_error(error, text)
    failure.domain = c.VIR_FROM_STORAGE
    return failure
