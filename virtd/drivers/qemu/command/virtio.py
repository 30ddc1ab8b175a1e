"""What all virtio devices have in common: their names on PCI, and the options of a <driver> element."""

from virtd.conf.domain.base import VirtioOptions
from virtd.drivers.qemu.command.line import Line, Properties

_SUFFIXES = {"virtio-transitional": "-transitional", "virtio-non-transitional": "-non-transitional"}


def driver(line: Line, name: str, model: str | None) -> str:
    """QEMU's name of a virtio device on PCI.

    Args:
        line: the command line, for what this QEMU has.
        name: the device without bus and variant: 'virtio-blk'.
        model: 'virtio', 'virtio-transitional' or 'virtio-non-transitional'.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED if this QEMU has no such variant.
    """
    found = f"{name}-pci{_SUFFIXES.get(model or '', '')}"
    line.need(found, f"virtio device model '{model}' for '{name}'" if model in _SUFFIXES else f"device '{name}'")
    return found


def options(of: VirtioOptions | None) -> Properties:
    """The options of a <driver> element."""
    if of is None:
        return {}
    return {
        "iommu_platform": of.iommu,
        "ats": of.ats,
        "packed": of.packed,
        "page-per-vq": of.page_per_vq,
    }
