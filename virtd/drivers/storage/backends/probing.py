"""What is on a block device already, as blkid(8) sees it: nothing of value may be overwritten by accident."""

from virtd import constants as c
from virtd.drivers.storage import programs
from virtd.errors import VirtError

# What blkid calls by another name.
_LABELS = {"dos": "dos", "gpt": "gpt", "mac": "mac", "bsd": "bsd", "sun": "sun", "dvh": "sgi"}


def content(device: str) -> tuple[str, str]:
    """What a device holds: a file system (or a member of a volume group), and a partition table; '' if there is none.

    Raises:
        VirtError: VIR_ERR_STORAGE_PROBE_FAILED, it cannot be looked at; VIR_ERR_INTERNAL_ERROR, there is more than one
            thing on it.
    """
    try:
        with open(device, "rb"):
            pass  # blkid does not tell "there is nothing on it" from "it cannot be read"
        # Status 2: nothing is found.
        output = programs.run("blkid", ["-p", "-o", "export", device], accept=(0, 2))
    except OSError:
        text = f"Failed to create filesystem probe for device {device}"
        raise VirtError(c.VIR_ERR_STORAGE_PROBE_FAILED, text, domain=c.VIR_FROM_STORAGE) from None
    found = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    return found.get("TYPE", ""), found.get("PTTYPE", "")


def check_empty(device: str, kind: str) -> None:
    """Refuse to make something on a device that holds something already.

    Args:
        device: the device.
        kind: what is to be made: a file system, a partition table (libvirt's name) or 'LVM2_member'.

    Raises:
        VirtError: VIR_ERR_STORAGE_POOL_BUILT, VIR_ERR_STORAGE_PROBE_FAILED.
    """
    found = content(device)
    if not any(found):
        return
    if _LABELS.get(kind, kind) in found:
        text = f"Device '{device}' already formatted using '{kind}'"
    else:
        text = f"Format of device '{device}' does not match the expected format '{kind}', forced overwrite is necessary"
    raise VirtError(c.VIR_ERR_STORAGE_POOL_BUILT, text, domain=c.VIR_FROM_STORAGE)


def check_label(device: str, kind: str) -> None:
    """See that a disk has the partition table that its pool is defined with.

    Args:
        device: the device.
        kind: libvirt's name of the table.

    Raises:
        VirtError: VIR_ERR_STORAGE_PROBE_FAILED, there is none; VIR_ERR_OPERATION_INVALID, it is another one.
    """
    system, table = content(device)
    if not table and not system:
        text = f"Device '{device}' is unrecognized, requires build"
        raise VirtError(c.VIR_ERR_STORAGE_PROBE_FAILED, text, domain=c.VIR_FROM_STORAGE)
    if table != _LABELS.get(kind, kind):
        text = f"Format of device '{device}' does not match the expected format '{kind}'"
        raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_STORAGE)
