"""Devices in a guest's configuration: read from a client's XML, added, found again, taken out.

A device that is added goes through the same steps as when the whole guest is defined: it gets defaults and an address,
and the guest as a whole is checked.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain import assign_aliases
from virtd.conf.domain.base import Device, DriveAddress, PciAddress, UsbAddress
from virtd.conf.domain.basics import is_i440fx
from virtd.conf.domain.controller import Controller
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.hostdev import Hostdev, MdevSource, PciSource, UsbSource
from virtd.conf.domain.interface import Interface
from virtd.conf.domain.memorydevice import MemoryDevice
from virtd.conf.domain.parse import finish
from virtd.conf.host import Host
from virtd.conf.xml.document import parse_document
from virtd.conf.xml.model import View, local_name
from virtd.drivers.qemu.plug.kinds import KINDS, all_devices, devices, insert, remove
from virtd.errors import VirtError

# Elements that are devices, and that nothing can be done with.
_OTHERS = ("lease", "nvram")
_MODULES = ("dimm", "nvdimm")


class Wanted(NamedTuple):
    """A device as a client describes it.

    Attributes:
        kind: its element.
        xml: the whole description, read anew for each configuration that it goes into.
        mac: the address that a network card gets which has none: the same in all configurations.
    """

    kind: str
    xml: str
    mac: str

    def read(self, *, live: bool = False) -> Any:
        """The device, with nothing added; `live` with run-time values, by which one is found again."""
        element, model = _parse(self.xml), KINDS[self.kind].model
        if model.by is not None:
            model = model.variant(element)
        return model.read(element, View(live=live))


def wanted(xml: str, verb: str, *, live: bool) -> Wanted:
    """What a client's XML describes.

    Args:
        xml: the device.
        verb: 'attach', 'detach', 'update', for the message.
        live: whether a guest that runs is meant.

    Raises:
        VirtError: VIR_ERR_XML_DETAIL, VIR_ERR_CONFIG_UNSUPPORTED, VIR_ERR_OPERATION_UNSUPPORTED.
    """
    kind = local_name(_parse(xml))
    if kind not in KINDS:
        if kind not in _OTHERS:
            text = f"unknown device type '{kind}'"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_DOMAIN)
        raise unsupported(verb, kind, live=live)
    what = Wanted(kind, xml, "52:54:00:" + os.urandom(3).hex(":"))
    what.read()
    return what


def unsupported(verb: str, kind: str, *, live: bool) -> VirtError:
    """A kind of device that cannot come, go or change."""
    called = (KINDS[kind].called if kind in KINDS else None) or kind
    text = f"{'live' if live else 'persistent'} {verb} of device '{called}' is not supported"
    code = c.VIR_ERR_CONFIG_UNSUPPORTED if live and verb == "update" else c.VIR_ERR_OPERATION_UNSUPPORTED
    return VirtError(code, text, domain=c.VIR_FROM_QEMU)


def add(config: Config, what: Wanted, host: Host, *, live: bool) -> list[tuple[str, Device]]:
    """Add a device, with defaults, address and (live) alias.

    Returns:
        What has to be plugged in, in this order, each with its kind: the device comes last.

    Raises:
        VirtError: what is wrong with it, or with the guest that would have it.
    """
    device: Device = what.read()
    if isinstance(device, Interface) and device.mac is None:
        device.mac = what.mac
    _check_memory(config, device)
    if not live:
        _check_double(config, device)
    if isinstance(device, Controller) and device.index in (None, -1):
        device.index = 1 + max((one.index or 0 for one in config.controllers if one.type == device.type), default=-1)
    before = list(config.controllers)
    hubs = len(config.hubs)
    if live:
        _add_scsi(config, device)
    insert(config, what.kind, device)
    if isinstance(device, MemoryDevice):
        _count_memory(config, device, device.size or 0, live=live)
    labels = [label.copy() for label in config.seclabels]
    finish(config, host, inactive=not live)
    if not live:
        return [(what.kind, device)]
    config.seclabels = labels  # those of a running guest are what it runs with
    new = [one for one in config.controllers if one is not device and not _among(one, before)]
    missing = _missing(config, device, new, more_hubs=len(config.hubs) > hubs)
    config.controllers[:] = _in_order(before, [one for one in (*missing, device) if isinstance(one, Controller)])
    assign_aliases(config)
    return [*(("controller", one) for one in missing), (what.kind, device)]


def _add_scsi(config: Config, device: Device) -> None:
    """Let the SCSI controllers that a disk needs be like the one there is."""
    place = device.info.address
    known = {one.index: one for one in config.controllers if one.type == "scsi"}
    if isinstance(device, Disk) and device.bus == "scsi" and isinstance(place, DriveAddress) and known:
        model = known[min(known, key=lambda index: index or 0)].model
        for index in range(place.controller + 1):
            if index not in known:
                config.controllers.append(Controller(type="scsi", index=index, model=model))


def _among(one: Controller, others: list[Controller]) -> bool:
    """Whether a controller is one of some, not only like one."""
    return any(one is other for other in others)


def _in_order(before: list[Controller], new: list[Controller]) -> list[Controller]:
    """The controllers of a running guest in their order, each new one behind those of its type."""
    found = list(before)
    for one in new:
        last = max((n for n, other in enumerate(found) if other.type == one.type), default=len(found) - 1)
        found.insert(last + 1, one)
    return found


def _missing(config: Config, device: Device, new: list[Controller], *, more_hubs: bool) -> list[Controller]:
    """The controllers that have to be plugged in before a device.

    Raises:
        VirtError: it needs one that cannot be plugged in.
    """
    place = device.info.address
    for one in new:
        if one.type == "pci":
            behind = [device, *(other for other in new if other.type != "pci")]
            buses = [d.info.address.bus for d in behind if isinstance(d.info.address, PciAddress)]
            if one.index in buses:
                raise _internal("No more available PCI slots")
        elif one.type == "virtio-serial":
            raise _internal("no virtio-serial controllers are available")
        elif one.type == "ide" and is_i440fx(config.os.machine or ""):
            continue  # it is there, and takes nothing new
        elif one.type != "scsi":
            raise _internal(f"Could not find {one.type} controller with index {one.index} required for device")
    if more_hubs and isinstance(place, UsbAddress):
        raise _internal("No free USB ports")
    # Ports that would only be kept in reserve for the next device are not had.
    return [one for one in new if one.type == "scsi"]


def _internal(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_DOMAIN)


def _check_double(config: Config, device: Device) -> None:
    """Refuse to define a second device in the place of another."""
    text = None
    if isinstance(device, Disk) and any(one.target == device.target for one in config.disks):
        text = f"target {device.target} already exists"
    elif isinstance(device, Controller) and _same_controller(config, device):
        text = f"controller index='{device.index}' already exists"
    if text is not None:
        raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_QEMU)


def _same_controller(config: Config, device: Controller) -> bool:
    return any((one.type, one.index) == (device.type, device.index) for one in config.controllers)


def _check_memory(config: Config, device: Device) -> None:
    """Refuse memory beyond what the guest can have."""
    most = config.max_memory
    if isinstance(device, MemoryDevice) and most and (config.memory or 0) + (device.size or 0) > most:
        size = device.size
        text = f"Attaching memory device with size '{size}' would exceed domain's maxMemory config size '{most}'"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_DOMAIN)


def _count_memory(config: Config, device: MemoryDevice, kib: int, *, live: bool) -> None:
    """Let the guest's memory be as much more, or less; what it uses of a device while it runs is its own choice."""
    config.memory = (config.memory or 0) + kib
    if config.current_memory is not None and not (live and device.model not in _MODULES):
        config.current_memory += kib


def take_out(config: Config, kind: str, device: Device) -> None:
    """Take a device, which is one of the configuration's own, out of it; with memory its size goes, too."""
    if isinstance(device, MemoryDevice):
        _count_memory(config, device, -(device.size or 0), live=device.info.alias is not None)
    first = bool(config.serials) and config.serials[0] is device
    if first and config.consoles and config.consoles[0].target_type == "serial":
        del config.consoles[0]  # the same port by another name
    remove(config, kind, device)


def find(config: Config, what: Wanted, *, live: bool) -> Any:
    """The device of a guest that a client's XML means.

    Raises:
        VirtError: VIR_ERR_DEVICE_MISSING, VIR_ERR_OPERATION_FAILED: there is none, or more than one.
    """
    device = what.read(live=live)
    if isinstance(device, Interface):
        return _find_card(config, device)
    found = [one for one in devices(config, what.kind) if _meant(one, device)]
    if not found:
        raise _no_such(what.kind, device, live=live)
    return found[0]


def _meant(one: Any, device: Any) -> bool:
    """Whether a device is the one that a description means."""
    match device:
        case Disk():
            return bool(one.target == device.target)
        case Controller():
            return (one.type, one.index) == (device.type, device.index)
    return _alike(one, device)


def _find_card(config: Config, wanted_card: Interface) -> Interface:
    found = [
        one
        for one in config.interfaces
        if (wanted_card.mac is None or one.mac == wanted_card.mac)
        and (wanted_card.info.address is None or one.info.address == wanted_card.info.address)
        and (wanted_card.info.alias is None or one.info.alias == wanted_card.info.alias)
    ]
    if len(found) == 1:
        return found[0]
    address, alias = wanted_card.info.address, wanted_card.info.alias or "(<null>)"
    place = "(<null>)"
    if isinstance(address, PciAddress):
        place = f"{address.domain:04x}:{address.bus:02x}:{address.slot:02x}.{address.function:x}"
    if found:
        text = "multiple matching devices found"
        if wanted_card.mac is not None:
            text = f"multiple devices matching MAC address {wanted_card.mac} found"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_DOMAIN)
    text = f"no device found at address '{place}' matching MAC address '{wanted_card.mac}' and alias '{alias}'"
    raise VirtError(c.VIR_ERR_DEVICE_MISSING, text, domain=c.VIR_FROM_DOMAIN)


def _alike(one: Device, other: Device) -> bool:
    """Whether a device is what a description says, which need not name address, alias, and what was chosen for it."""
    one, other = one.copy(), other.copy()
    if other.info.address is None:
        one.info.address = None
    if other.info.alias is None:
        one.info.alias = None
    for name in type(other).fields:
        if getattr(other, name) is None:
            setattr(one, name, None)
    return one == other


# What is said when a running guest or a definition has no such device.
_Words = tuple[str, str]
_MISSING: dict[str, _Words] = {
    "disk": ("disk {target} not found", "no target device {target}"),
    "controller": ("controller {type}:{index} not found", "device not present in domain configuration"),
    "rng": ("no matching RNG device was found", "no matching RNG device was found"),
    "redirdev": ("no matching redirdev was not found", "no matching redirdev was not found"),
    "watchdog": (
        "watchdog device not present in domain configuration",
        "domain has no watchdog",
    ),
    "shmem": (
        "model '{model}' shmem device not present in domain configuration",
        "matching shmem device was not found",
    ),
    "memory": (
        "model '{model}' memory device not present in the domain configuration",
        "matching memory device was not found",
    ),
    "vsock": ("matching vsock device not found", "matching vsock device not found"),
    "input": ("matching input device not found", "matching input device not found"),
    "filesystem": ("matching filesystem not found", "no matching filesystem device was found"),
    **{
        kind: (
            f"chr type '{kind}' device not present in domain configuration",
            "device not present in domain configuration",
        )
        for kind in ("serial", "parallel", "console", "channel")
    },
}
# Codes that differ from VIR_ERR_DEVICE_MISSING: (kind, live).
_CODES = {
    ("redirdev", True): c.VIR_ERR_OPERATION_INVALID,
    **{(kind, False): c.VIR_ERR_INVALID_ARG for kind in ("serial", "parallel", "console", "channel")},
}
_HOSTDEVS: dict[type[Any], Callable[[Any], str]] = {
    UsbSource: lambda s: (
        f"host usb device {s.bus:03d}.{s.device:03d} not found"
        if s.bus is not None
        else f"host usb device vendor=0x{s.vendor or 0:04x} product=0x{s.product or 0:04x} not found"
    ),
    PciSource: lambda s: f"host pci device {s.domain:04x}:{s.bus:02x}:{s.slot:02x}.{s.function:x} not found",
    MdevSource: lambda s: f"mediated device '{s.uuid}' not found",
}


def _no_such(kind: str, device: Any, *, live: bool) -> VirtError:
    if isinstance(device, Hostdev):
        words = _HOSTDEVS.get(type(device.source), lambda source: "host device not found")(device.source)
        return VirtError(c.VIR_ERR_DEVICE_MISSING, words, domain=c.VIR_FROM_QEMU)
    general = f"no matching {kind} device was found"
    of_both = _MISSING.get(kind, (general, general))
    template = of_both[0] if live else of_both[1]
    values = {name: getattr(device, name, None) for name in ("target", "type", "model")}
    index = getattr(device, "index", None)
    text = template.format(**values, index=-1 if index is None else index)
    code = _CODES.get((kind, live), c.VIR_ERR_DEVICE_MISSING)
    return VirtError(code, text, domain=c.VIR_FROM_DOMAIN if kind == "controller" and live else c.VIR_FROM_QEMU)


def find_alias(config: Config, alias: str) -> tuple[str, Any]:
    """The kind and the device that has an alias.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, there is none.
    """
    for kind, device in all_devices(config):
        if device.info.alias == alias:
            return kind, device
    raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"no device found with alias {alias}", domain=c.VIR_FROM_DOMAIN)


def _parse(xml: str) -> Any:
    return parse_document(xml, "device_definition", domain=c.VIR_FROM_DOMAIN)
