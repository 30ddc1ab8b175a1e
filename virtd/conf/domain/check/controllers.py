"""Controllers and PCI bridges: which there can be, and what each can be told."""

from virtd.conf.domain.check.disks import iothread_ids
from virtd.conf.domain.check.rules import Context, Rule, Rules
from virtd.conf.domain.controller import Controller
from virtd.conf.domain.errors import conf_error, qemu_error

MAX_XHCI_PORTS = 15

# The bounds of numbers: (field, libvirt's name, lowest, highest).
LIMITS = (
    ("target_index", "target index", 0, 30),
    ("chassis_nr", "chassisNr", 1, 255),
    ("chassis", "chassis", 0, 255),
    ("port", "port", 0, 255),
    ("bus_nr", "busNr", 1, 254),
)
# What only virtio-scsi can be told.
VIRTIO_SCSI = ("queues", "cmd_per_lun", "max_sectors", "ioeventfd")

BRIDGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "pci-root": ((), ("pcihole64",)),
    "pcie-root": ((), ("pcihole64",)),
    "pci-bridge": (("pci-bridge",), ("chassis_nr",)),
    "dmi-to-pci-bridge": (("i82801b11-bridge",), ()),
    "pcie-to-pci-bridge": (("pcie-pci-bridge",), ()),
    "pcie-root-port": (("pcie-root-port", "ioh3420"), ("chassis", "port", "hotplug")),
    "pcie-switch-upstream-port": (("x3130-upstream",), ()),
    "pcie-switch-downstream-port": (("xio3130-downstream",), ("chassis", "port", "hotplug")),
    "pci-expander-bus": (("pxb",), ("bus_nr", "node")),
    "pcie-expander-bus": (("pxb-pcie",), ("bus_nr", "node")),
}
"""What each model is in QEMU, and which options it takes."""
NEEDED = {
    "pci-bridge": ("chassis_nr",),
    "pcie-root-port": ("chassis", "port"),
    "pcie-switch-downstream-port": ("chassis", "port"),
    "pci-expander-bus": ("bus_nr",),
    "pcie-expander-bus": ("bus_nr",),
}
OPTIONS = {
    "pcihole64": "pcihole64",
    "bus_nr": "busNr",
    "node": "numaNode",
    "chassis_nr": "chassisNr",
    "chassis": "chassis",
    "port": "port",
    "target_index": "targetIndex",
    "hotplug": "hotplug",
}
"""Options in libvirt's order, with its names of them."""


def check_numbers(x: Context, one: Controller) -> None:
    """The numbers of bridges and ports have a byte."""
    if one.type != "pci":
        return
    root = one.model in ("pci-root", "pcie-root")
    if root and one.info.address is not None:
        raise conf_error("pci-root and pcie-root controllers should not have an address")
    if (one.index or 0) > 255:
        raise conf_error(f"PCI controller index {one.index} too high, maximum is 255")
    for field, name, low, high in LIMITS:
        value = getattr(one, field)
        if value is not None and not low <= value <= high:
            quote = "'" if field == "target_index" or field != "index" else ""
            raise conf_error(f"PCI controller {name} {quote}{value}{quote} out of range - must be {low}-{high}")
    if one.node is not None and not one.index:
        raise conf_error("The PCI controller with index=0 can't be associated with a NUMA node")


COMMON: Rules = (check_numbers,)


def check_bridge(x: Context, one: Controller) -> None:
    """Each kind of bridge has its device, its place and its numbers."""
    if one.type != "pci":
        return
    names, takes = BRIDGES.get(one.model or "", ((), ()))
    what = f"PCI controller with index '{one.index}', model '{one.model}' and modelName '{one.model_name or 'none'}'"
    root = one.model in ("pci-root", "pcie-root")
    if root and one.index:
        raise qemu_error(f"Index for '{one.model}' controllers must be 0")
    if not root and not one.index:
        raise qemu_error(f"Index for '{one.model}' controllers must be > 0")
    if names and one.model_name is None:
        raise qemu_error(f"Required option 'modelName' is not set for {what}")
    if not names and one.model_name is not None:
        raise qemu_error(f"Option 'modelName' is not valid for {what}")
    if names and one.model_name not in names:
        raise qemu_error(f"Option 'modelName' has invalid value for {what}")
    for field, name in OPTIONS.items():
        given = getattr(one, field)
        if given is not None and field not in takes:
            raise qemu_error(f"Option '{name}' is not valid for {what}")
        if given is None and field in NEEDED.get(one.model or "", ()):
            raise qemu_error(f"Required option '{name}' is not set for {what}")


def check_scsi(x: Context, one: Controller) -> None:
    """What only virtio-scsi can be told, and adapters that a PC does not have."""
    virtio = one.type == "scsi" and (one.model or "").startswith("virtio")
    for name in VIRTIO_SCSI:
        if (getattr(one.driver, name) not in (None, 0) and not virtio) or (
            name == "ioeventfd" and one.driver.ioeventfd is False and not virtio
        ):
            raise qemu_error(f"'{name}' is only supported by virtio-scsi controller")
    if one.type != "scsi" or not one.driver.iothread:
        return
    if not virtio:
        raise qemu_error("'iothread' is only supported for virtio-scsi controller")
    address = one.info.address
    if address is not None and address.kind not in ("pci", "ccw"):
        raise qemu_error("virtio-scsi IOThreads only available for virtio pci and virtio ccw controllers")
    if one.driver.iothread not in iothread_ids(x.domain):
        raise qemu_error(f"controller iothread '{one.driver.iothread}' not defined in iothreadid")


QEMU: Rules = (
    check_scsi,
    Rule(
        lambda x, d: d.type == "ide" and not x.i440fx,
        "IDE controllers are unsupported for this QEMU binary or machine type",
    ),
    Rule(
        lambda x, d: d.type == "ide" and d.index,
        "Only a single IDE controller is supported for this machine type",
    ),
    Rule(
        lambda x, d: d.type == "scsi" and d.model == "ncr53c90",
        "{d.model} SCSI controller is not a built-in for this machine",
    ),
    check_bridge,
)
