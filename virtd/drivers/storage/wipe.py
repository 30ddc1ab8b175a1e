"""Wiping volumes: with zeros by system calls, with other patterns by scrub(1).

What a killed wipe leaves is a volume of the same size of which a part is wiped.
"""

import os

from virtd import constants as c
from virtd.drivers.storage import programs
from virtd.drivers.storage.jobs import VolumeLock
from virtd.errors import VirtError
from virtd.state import files

_CHUNK = bytes(1 << 20)
# What scrub calls the patterns (scrub(1)).
_PATTERNS = {
    c.VIR_STORAGE_VOL_WIPE_ALG_NNSA: "nnsa",
    c.VIR_STORAGE_VOL_WIPE_ALG_DOD: "dod",
    c.VIR_STORAGE_VOL_WIPE_ALG_BSI: "bsi",
    c.VIR_STORAGE_VOL_WIPE_ALG_GUTMANN: "gutmann",
    c.VIR_STORAGE_VOL_WIPE_ALG_SCHNEIER: "schneier",
    c.VIR_STORAGE_VOL_WIPE_ALG_PFITZNER7: "pfitzner7",
    c.VIR_STORAGE_VOL_WIPE_ALG_PFITZNER33: "pfitzner33",
    c.VIR_STORAGE_VOL_WIPE_ALG_RANDOM: "random",
}


def wipe(path: str, algorithm: int, lock: VolumeLock) -> None:
    """Wipe a volume; its length stays, what format it had is gone.

    Args:
        path: the volume.
        algorithm: VIR_STORAGE_VOL_WIPE_ALG_*.
        lock: of the volume, which scrub keeps while it runs.

    Raises:
        VirtError: VIR_ERR_ARGUMENT_UNSUPPORTED, VIR_ERR_SYSTEM_ERROR.
    """
    if algorithm == c.VIR_STORAGE_VOL_WIPE_ALG_TRIM:
        raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, "'trim' algorithm not supported", domain=c.VIR_FROM_STORAGE)
    if algorithm != c.VIR_STORAGE_VOL_WIPE_ALG_ZERO:
        programs.run("scrub", ["-f", "-p", _PATTERNS[algorithm], path], keep=[lock.descriptor])
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        failure = files.os_error(error, f"Failed to open storage volume with path '{path}'")
        failure.domain = c.VIR_FROM_STORAGE
        raise failure from None
    try:
        _zero(descriptor)
    except OSError as error:
        raise files.os_error(error, f"failed to wipe volume '{path}'") from None
    finally:
        os.close(descriptor)


def _zero(descriptor: int) -> None:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    found = os.fstat(descriptor)
    if found.st_blocks * 512 < found.st_size:
        # A file with holes gives all its blocks back, and stays one.
        os.ftruncate(descriptor, 0)
        os.ftruncate(descriptor, size)
    else:
        os.lseek(descriptor, 0, os.SEEK_SET)
        view = memoryview(_CHUNK)
        while size:
            size -= os.write(descriptor, view[:size])
    os.fsync(descriptor)
