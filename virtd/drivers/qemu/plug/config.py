"""Devices in a guest's configuration: read from a client's XML, added, found again, taken out.

A device that is added goes through the same steps as when the whole guest is defined: it gets defaults and an address,
and the guest as a whole is checked.
"""

from typing import Any, NamedTuple

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain import assign_aliases
from virtd.conf.domain.base import Device
from virtd.conf.domain.controller import Controller
from virtd.conf.domain.devices import Filesystem, MemoryDevice, Panic, RedirDevice, Rng, Shmem, Tpm, Watchdog
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.display import Input, Sound, Video
from virtd.conf.domain.hostdev import Hostdev
from virtd.conf.domain.interface import Interface
from virtd.conf.domain.parse import finish
from virtd.conf.host import Host
from virtd.conf.xml.document import parse_document
from virtd.conf.xml.model import View, local_name
from virtd.errors import VirtError

# What can be added to a definition: element, class, list in the configuration.
_LISTS: dict[str, tuple[type[Device], str]] = {
    "disk": (Disk, "disks"),
    "interface": (Interface, "interfaces"),
    "rng": (Rng, "rngs"),
    "controller": (Controller, "controllers"),
    "input": (Input, "inputs"),
    "watchdog": (Watchdog, "watchdogs"),
    "sound": (Sound, "sounds"),
    "video": (Video, "videos"),
    "hostdev": (Hostdev, "hostdevs"),
    "redirdev": (RedirDevice, "redirdevs"),
    "filesystem": (Filesystem, "filesystems"),
    "shmem": (Shmem, "shmems"),
    "tpm": (Tpm, "tpms"),
    "panic": (Panic, "panics"),
    "memory": (MemoryDevice, "memory_devices"),
}
# Elements that are devices, and are of a guest as a whole.
_OTHERS = {
    "memballoon", "graphics", "hub", "smartcard", "console", "serial", "parallel", "channel", "audio", "lease",
    "redirfilter", "iommu", "vsock",
}  # fmt: skip


class Wanted(NamedTuple):
    """A device as a client describes it.

    Attributes:
        kind: its element.
        xml: the whole description, read anew for each configuration that it goes into.
    """

    kind: str
    xml: str

    def read(self) -> Any:
        """The device, with nothing added."""
        return _LISTS[self.kind][0].read(_parse(self.xml), View())


def wanted(xml: str, verb: str, *, live: bool) -> Wanted:
    """What a client's XML describes.

    Args:
        xml: the device.
        verb: 'attach', 'detach', …, for the message.
        live: whether a guest that runs is meant.

    Raises:
        VirtError: VIR_ERR_XML_DETAIL, VIR_ERR_CONFIG_UNSUPPORTED, VIR_ERR_OPERATION_UNSUPPORTED.
    """
    kind = local_name(_parse(xml))
    if kind not in _LISTS:
        if kind not in _OTHERS:
            text = f"unknown device type '{kind}'"
            raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_DOMAIN)
        raise unsupported(verb, kind, live=live)
    return Wanted(kind, xml)


def unsupported(verb: str, kind: str, *, live: bool) -> VirtError:
    """A kind of device that cannot come or go."""
    text = f"{'live' if live else 'persistent'} {verb} of device '{kind}' is not supported"
    return VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)


def add(config: Config, what: Wanted, host: Host, *, live: bool) -> Device:
    """Add a device, with defaults, address and (live) alias; returns it.

    Raises:
        VirtError: what is wrong with it, or with the guest that would have it.
    """
    device: Device = what.read()
    if isinstance(device, Disk) and not live and any(one.target == device.target for one in config.disks):
        text = f"target {device.target} already exists"
        raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_QEMU)
    controllers = {(one.type, one.index) for one in config.controllers}
    getattr(config, _LISTS[what.kind][1]).append(device)
    finish(config, host, inactive=not live)
    if live:
        more = {(one.type, one.index) for one in config.controllers} - controllers
        if more:
            kind, index = min((one[0] or "", one[1] or 0) for one in more)
            text = f"Could not find {kind} controller with index {index} required for device"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_DOMAIN)
        assign_aliases(config)
    return device


def find(config: Config, what: Wanted) -> Device:
    """The device of a guest that a client's XML means.

    Raises:
        VirtError: VIR_ERR_DEVICE_MISSING, VIR_ERR_OPERATION_FAILED: there is none, or more than one.
    """
    device = what.read()
    candidates: list[Device] = getattr(config, _LISTS[what.kind][1])
    match device:
        case Disk():
            found: list[Device] = [one for one in config.disks if one.target == device.target]
            missing = f"no target device {device.target}"
        case Interface():
            return _find_card(config, device)
        case _:
            found = [one for one in candidates if _alike(one, device)]
            name = "RNG" if what.kind == "rng" else what.kind
            missing = f"no matching {name} device was found"
    if not found:
        raise VirtError(c.VIR_ERR_DEVICE_MISSING, missing, domain=c.VIR_FROM_QEMU)
    return found[0]


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
    which = f"MAC address {wanted_card.mac}" if wanted_card.mac is not None else "the description"
    text = f"multiple devices matching {which} found" if found else f"no device matching {which} found"
    code = c.VIR_ERR_OPERATION_FAILED if found else c.VIR_ERR_DEVICE_MISSING
    raise VirtError(code, text, domain=c.VIR_FROM_DOMAIN)


def _alike(one: Device, other: Device) -> bool:
    """Whether a device is what a description says, which need not name address and alias."""
    one, other = one.copy(), other.copy()
    if other.info.address is None:
        one.info.address = None
    if other.info.alias is None:
        one.info.alias = None
    return one == other


def find_alias(config: Config, alias: str) -> tuple[str, Device]:
    """The kind and the device that has an alias.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, there is none.
    """
    for kind, (_, field) in _LISTS.items():
        for device in getattr(config, field):
            if device.info.alias == alias:
                return kind, device
    raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"no device found with alias {alias}", domain=c.VIR_FROM_DOMAIN)


def remove(config: Config, kind: str, device: Device) -> None:
    """Take a device, which is one of the configuration's own, out of it."""
    devices = getattr(config, _LISTS[kind][1])
    devices[:] = [one for one in devices if one is not device]


def _parse(xml: str) -> Any:
    return parse_document(xml, "device_definition", domain=c.VIR_FROM_DOMAIN)
