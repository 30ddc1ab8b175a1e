"""What is checked of a finished definition, in libvirt's order, so that of several faults the same one is named.

First the QEMU driver looks at the whole, then libvirt and the driver look at each device, last libvirt looks at the
whole again.
"""

from virtd import constants as c
from virtd.conf.domain.check import (
    addresses,
    chars,
    controllers,
    disks,
    displays,
    hostdevs,
    machine,
    memory,
    nets,
    small,
    whole,
)
from virtd.conf.domain.check.rules import Context, Rules, apply

__all__ = ["Context", "check"]

# (the list or device in the domain, libvirt's rules, the driver's rules)
DEVICES: tuple[tuple[str, Rules, Rules], ...] = (
    ("disks", disks.COMMON, disks.QEMU),
    ("interfaces", nets.COMMON, nets.QEMU),
    ("sounds", displays.SOUND, displays.QEMU_SOUND),
    ("hostdevs", hostdevs.COMMON, hostdevs.QEMU),
    ("videos", displays.VIDEO, displays.QEMU_VIDEO),
    ("controllers", controllers.COMMON, controllers.QEMU),
    ("smartcards", small.SMARTCARD, small.QEMU_SMARTCARD),
    ("serials", chars.COMMON, chars.SERIAL),
    ("parallels", chars.COMMON, chars.QEMU),
    ("channels", chars.COMMON, chars.QEMU),
    ("consoles", chars.COMMON, chars.QEMU),
    ("inputs", displays.INPUT, displays.QEMU_INPUT),
    ("filesystems", small.FILESYSTEM, small.QEMU_FILESYSTEM),
    ("watchdogs", (), small.WATCHDOG),
    ("memballoon", (), small.BALLOON),
    ("rngs", small.RNG, small.QEMU_RNG),
    ("nvram", (), small.NVRAM),
    ("hubs", (), ()),
    ("shmems", small.SHMEM, small.QEMU_SHMEM),
    ("tpms", small.TPM, small.QEMU_TPM),
    ("panics", (), ()),
    ("redirdevs", chars.COMMON, chars.QEMU),
    ("memory_devices", memory.COMMON, memory.QEMU),
    ("iommu", small.IOMMU, small.QEMU_IOMMU),
    ("vsock", small.VSOCK, ()),
    ("graphics", displays.GRAPHICS, displays.QEMU_GRAPHICS),
    ("audios", displays.AUDIO, displays.QEMU_AUDIO),
)
WITHOUT_ADDRESS = ("graphics", "audios")


def check(x: Context) -> None:
    """Check a finished definition.

    Raises:
        VirtError: with libvirt's code for the first thing that is wrong.
    """
    for rule in machine.CHECKS:
        rule(x)
    for name, common, qemu in DEVICES:
        value = getattr(x.domain, name)
        for device in value if isinstance(value, list) else (value,):
            if device is None:
                continue
            if name not in WITHOUT_ADDRESS:
                apply(addresses.COMMON, x, device, c.VIR_FROM_DOMAIN)
            apply(common, x, device, c.VIR_FROM_DOMAIN)
            if name not in WITHOUT_ADDRESS:
                apply(addresses.QEMU, x, device, c.VIR_FROM_QEMU)
            apply(qemu, x, device, c.VIR_FROM_QEMU)
    for rule in whole.CHECKS:
        rule(x)
