"""How large images are, seen from the host: of guests that do not run, and what QEMU does not tell."""

import os
import stat
from typing import NamedTuple

from virtd.drivers.storage.probe import probe
from virtd.state import files


class Sizes(NamedTuple):
    """Bytes: what is allocated on the host, what the guest sees, and how large the file or device is."""

    allocation: int
    capacity: int
    physical: int


def sizes(path: str, kind: str) -> Sizes:
    """The sizes of an image.

    Args:
        path: a file or a block device.
        kind: its format as the guest's XML has it.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR if it cannot be read.
    """
    try:
        # Without O_NONBLOCK a pipe in the image's place would hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise files.os_error(error, f"Failed to open file '{path}'") from None
    try:
        found = os.fstat(descriptor)
        if stat.S_ISBLK(found.st_mode):
            physical = allocation = os.lseek(descriptor, 0, os.SEEK_END)
        else:
            physical, allocation = found.st_size, found.st_blocks * 512
        capacity = None
        if kind != "raw" and (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            capacity = probe(descriptor, physical).capacity
        return Sizes(allocation, physical if capacity is None else capacity, physical)
    except OSError as error:
        raise files.os_error(error, f"cannot read '{path}'") from None
    finally:
        os.close(descriptor)
