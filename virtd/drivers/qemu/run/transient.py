"""Disks whose changes are forgotten: what the guest writes goes into a file of its own, which goes with the guest.

The file lies beside the disk's own, which it is based on and which stays as it is. To QEMU it is an image like others.
"""

import os

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.disk import BackingStore, Disk, FileSource
from virtd.drivers.qemu.command import storage
from virtd.drivers.qemu.guest import Guest
from virtd.errors import VirtError
from virtd.state import undo


def prepare(config: Config, guest: Guest) -> None:
    """Put a new file above each transient disk of a guest, in its live configuration too.

    Args:
        config: the live configuration.
        guest: the guest's directory, in whose undo file the new ones are noted.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, the disk is no file; VIR_ERR_OPERATION_UNSUPPORTED, another guest of this
            name has left one; VIR_ERR_INTERNAL_ERROR with qemu-img's words.
    """
    for disk in config.disks:
        if disk.transient:
            _cover(disk, guest)


def _cover(disk: Disk, guest: Guest) -> None:
    source = None if disk.source is None else storage.real(disk.source)
    if not isinstance(source, FileSource) or source.file is None or source.fdgroup is not None:
        raise _error(c.VIR_ERR_CONFIG_UNSUPPORTED, f"transient disk supported only with 'file' type ({disk.target})")
    if disk.readonly:
        raise _error(c.VIR_ERR_CONFIG_UNSUPPORTED, f"transient disk '{disk.target}' must not be read-only")
    if source.encryption is not None or disk.encryption is not None:
        raise _error(c.VIR_ERR_CONFIG_UNSUPPORTED, f"transient disk '{disk.target}' cannot be encrypted")
    path = f"{source.file}.TRANSIENT-{guest.name}"
    if os.path.exists(path):
        text = f"Overlay file '{path}' for transient disk '{disk.target}' already exists"
        raise _error(c.VIR_ERR_OPERATION_UNSUPPORTED, text)
    from virtd.drivers.storage import programs  # few guests have such a disk

    kind = disk.driver.type or "raw"
    undo.note(guest.undo_path, "file", path=path)
    programs.run("qemu-img", ["create", "-q", "-f", "qcow2", "-F", kind, "-b", source.file, path])
    os.chmod(path, 0o600)
    below = BackingStore(type="file", format=kind, source=source)
    below.backing = disk.backing
    disk.type, disk.driver.type = "file", "qcow2"
    disk.source, disk.backing = FileSource(file=path), below


def _error(code: int, text: str) -> VirtError:
    return VirtError(code, text, domain=c.VIR_FROM_QEMU)
