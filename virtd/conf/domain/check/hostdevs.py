"""Devices of the host: where they can be plugged in, and what QEMU's vfio and vhost can do."""

from virtd.conf.domain.check.rules import INTERNAL, XML, Context, Rule, Rules
from virtd.conf.domain.errors import conf_error, internal_error, qemu_error, xml_error
from virtd.conf.domain.hostdev import Hostdev, PciSource

# Which address types each subsystem can have: (types, libvirt's words, its code).
ADDRESSES: dict[str, tuple[tuple[str, ...], str, int]] = {
    "pci": (("pci", "unassigned"), "PCI host devices must use 'pci' or 'unassigned' address type", INTERNAL),
    "scsi": (("drive",), "SCSI host device must use 'drive' address type", XML),
    "scsi_host": (("pci", "ccw"), "SCSI_host host device must use 'pci' or 'ccw' address type", 67),
    "usb": (("usb",), "USB host device must use 'usb' address type", 67),
}
OTHER_MEDIATED = {"vfio-ap": "AP", "vfio-ccw": "CCW"}


def check_address(x: Context, one: Hostdev) -> None:
    """Each subsystem is on its own kind of bus."""
    address = one.info.address
    if one.mode != "subsystem" or address is None or one.type not in ADDRESSES:
        return
    kinds, text, code = ADDRESSES[one.type]
    if address.kind not in kinds:
        if code == INTERNAL:
            raise internal_error(text)
        raise xml_error(text) if code == XML else conf_error(text)


def check_teaming(x: Context, one: Hostdev) -> None:
    """A device that is given to the guest can be the passing half of a pair of cards."""
    if one.teaming is None:
        return
    text = None
    if one.teaming.type != "transient":
        text = "teaming hostdev devices must have type='transient'"
    elif one.teaming.persistent is None:
        text = "missing required persistent attribute in hostdev teaming element"
    elif one.mode != "subsystem" or one.type != "pci":
        text = "teaming is only supported for pci hostdev devices"
    if text is not None:
        raise conf_error(text)


COMMON: Rules = (
    check_address,
    check_teaming,
    Rule(lambda x, d: d.sgio == "unfiltered", "unfiltered sgio is no longer supported"),
)


def check_mediated(x: Context, one: Hostdev) -> None:
    """What mediated devices can do."""
    if one.type != "mdev":
        return
    if one.model in OTHER_MEDIATED:
        raise qemu_error(f"VFIO {OTHER_MEDIATED[one.model]} device assignment is not supported by this version of QEMU")
    if one.info.boot_order and one.model == "vfio-pci":
        raise qemu_error("booting from assigned devices is not supported by mediated devices of model vfio-pci")
    if one.display and not x.domain.graphics:
        raise qemu_error("graphics device is needed for attribute value 'display=on' in <hostdev>")


QEMU: Rules = (
    Rule(lambda x, d: d.mode != "subsystem", "hostdev mode 'capabilities' is not supported in {x.domain.type}"),
    Rule(
        lambda x, d: isinstance(d.source, PciSource) and d.source.write_filtering is not None,
        "Write filtering of PCI device configuration space is not supported by qemu",
    ),
    Rule(
        lambda x, d: d.type == "scsi_host" and d.info.boot_order,
        "booting from assigned devices is not supported by vhost SCSI devices",
    ),
    check_mediated,
)
