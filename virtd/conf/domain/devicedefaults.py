"""Defaults of single devices, as libvirt's QEMU driver makes them."""

import os
import re

from virtd.conf.domain.base import CcidAddress, DriveAddress, Info
from virtd.conf.domain.basics import is_i440fx, is_q35
from virtd.conf.domain.chardev import Channel, UnixSource, check_reconnect
from virtd.conf.domain.controller import Controller
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.display import (
    AddressListen,
    NetworkListen,
    NoListen,
    ServerGraphics,
    SocketListen,
    SpiceGraphics,
    Video,
    VncGraphics,
)
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import conf_error, qemu_error, xml_error
from virtd.conf.domain.implicit import SCSI_UNITS, disk_index
from virtd.conf.domain.interface import Interface
from virtd.conf.host import Emulator, Host

_BUS_BY_PREFIX = (("hd", "ide"), ("sd", "scsi"), ("vd", "virtio"), ("xvd", "xen"), ("ubd", "uml"))
_VIDEO_MEMORY = {"vga": 16384, "cirrus": 16384, "vmvga": 16384, "bochs": 16384, "qxl": 65536}
_SERIAL_MODELS = {
    "isa-serial": "isa-serial",
    "pci-serial": "pci-serial",
    "usb-serial": "usb-serial",
    "isa-debug": "isa-debugcon",
    "spapr-vio-serial": "spapr-vty",
    "sclp-serial": "sclpconsole",
}


def early_disk(disk: Disk) -> None:
    """What of a disk follows from its name: done before the disks are sorted."""
    target = disk.target or ""
    if disk.bus is None:
        if disk.device == "floppy":
            disk.bus = "fdc"
        else:
            disk.bus = next((bus for prefix, bus in _BUS_BY_PREFIX if target.startswith(prefix)), "ide")
    if disk.device == "cdrom":
        disk.readonly = True
    if disk.type == "vhostuser":
        disk.snapshot = disk.snapshot or "no"
    if disk.empty and disk.device in ("cdrom", "floppy") and disk.source is None:
        disk.type = "file"


def finish_disk(disk: Disk) -> None:
    """Driver and format of a disk."""
    driver = disk.driver
    driver.name = driver.name or "qemu"
    if driver.type is None and disk.type != "volume":
        driver.type = "raw"


def place_disk(disk: Disk, domain: Domain) -> None:
    """The place that a disk's name implies, if none is given. A host device must not be there."""
    if disk.info.address is not None or disk.target is None:
        return
    index = disk_index(disk.target)
    if index < 0:
        raise xml_error(f"Unknown disk name '{disk.target}' and no address specified")
    if disk.bus in ("ide", "sata", "scsi", "fdc"):
        address = disk.info.address = drive_address(disk.bus, index)
        if disk.bus == "scsi" and any(
            one.type == "scsi" and isinstance(one.info.address, DriveAddress) and one.info.address.key == address.key
            for one in domain.hostdevs
        ):
            raise conf_error(
                f"using disk target name '{disk.target}' conflicts with SCSI host device address "
                f"controller='{address.controller}' bus='{address.bus}' target='{address.target}' unit='{address.unit}"
            )


def drive_address(bus: str, index: int) -> DriveAddress:
    """Where the disk with a number is plugged in by libvirt's rule for its bus."""
    if bus == "ide":
        return DriveAddress(controller=index // 4, bus=index % 4 // 2, unit=index % 2)
    if bus == "sata":
        return DriveAddress(controller=index // 6, unit=index % 6)
    if bus == "fdc":
        return DriveAddress(controller=index // 2, unit=index % 2)
    return DriveAddress(controller=index // SCSI_UNITS, unit=index % SCSI_UNITS)


def finish_controller(domain: Domain, controller: Controller, emulator: Emulator) -> None:
    """The model of a controller."""
    if controller.type == "usb" and controller.model is None:
        controller.model = "piix3-uhci"
    elif controller.type == "scsi" and controller.model in (None, "auto"):
        controller.model = "lsilogic" if emulator.has("lsi53c895a") else "virtio-scsi"
    if controller.type == "usb" and controller.model in ("nec-xhci", "qemu-xhci") and (controller.ports or 0) > 15:
        raise qemu_error(f"'{controller.model}' controller only supports up to '15' ports")
    if controller.type == "usb" and controller.model in ("qusb1", "qusb2"):
        raise qemu_error("USB controller model type 'qusb1' or 'qusb2' is not supported in qemu")
    if controller.type == "scsi" and controller.model == "buslogic":
        raise qemu_error(f"Unsupported controller model: {controller.model}")
    if controller.type == "scsi" and controller.model == "ncr53c90":
        raise qemu_error(f"{controller.model} SCSI controller is not a built-in for this machine")
    if controller.model not in ("pci-root", "pcie-root"):
        controller.pcihole64 = None
    machine = domain.os.machine or ""
    for model, fits in (("pci-expander-bus", is_i440fx), ("pcie-expander-bus", is_q35)):
        if controller.model == model and not fits(machine):
            old = "only supported on 440fx-based machinetypes"
            words = old if model == "pci-expander-bus" else "not supported with this machine type"
            raise qemu_error(f"{model} controllers are {words}")
    if controller.pcihole64 and not (is_i440fx(machine) or is_q35(machine)):
        raise qemu_error(f"Setting the 64-bit PCI hole size is not supported for machine '{machine}'")


def finish_interface(domain: Domain, interface: Interface, emulator: Emulator) -> None:
    """Address and model of a network card."""
    if interface.mac is None:
        interface.mac = "52:54:00:" + os.urandom(3).hex(":")
    if interface.model is None and interface.type != "hostdev":
        interface.model = next((model for model, device in _NET_MODELS if emulator.has(device)), interface.model)


_NET_MODELS = (("rtl8139", "rtl8139"), ("e1000", "e1000"), ("virtio", "virtio-net-pci"))


def finish_ports(domain: Domain, host: Host) -> None:
    """Targets, models and port numbers of character devices."""
    for devices in (domain.serials, domain.parallels):
        last = max((device.port for device in devices if device.port is not None), default=-1)
        for device in devices:
            if device.port is None:
                last += 1
                device.port = last
    for serial in domain.serials:
        serial.target_type = serial.target_type or "isa-serial"
        serial.model = serial.model or _SERIAL_MODELS.get(serial.target_type)
    for channel in domain.channels:
        if channel.target_type is None:
            raise xml_error("target type must be specified for channel device")
        drop_default_path(channel, host)


def drop_default_path(channel: Channel, host: Host) -> None:
    """A path that virtd chose at an earlier start is not part of the definition."""
    source = channel.source
    if isinstance(source, UnixSource) and channel.target_type == "virtio" and source.path is not None:
        directory, _, name = source.path.rpartition("/")
        ours = directory.startswith(host.channel_dir) or "domain-" in directory
        if ours and re.search(r"/domain-[^/]+$", directory) and name == (channel.name or ""):
            source.path = source.mode = None
            check_reconnect(source.reconnect, None)


def finish_graphics(graphics: ServerGraphics, *, keep: bool) -> None:
    """Ports and listening addresses of a display server; `keep` a port that was chosen at start."""
    if not isinstance(graphics, VncGraphics | SpiceGraphics):
        return
    graphics.listen = graphics.listen or None
    listens = graphics.listens
    if isinstance(graphics, VncGraphics) and graphics.socket is not None:
        if not listens:
            listens.append(SocketListen())
        elif isinstance(listens[0], AddressListen | NetworkListen):
            listens[0] = SocketListen()
        elif isinstance(listens[0], NoListen):
            graphics.socket = None
    if not listens:
        listens.append(AddressListen(address=graphics.listen))
    for listen in listens:
        if isinstance(listen, AddressListen):
            listen.address = listen.address or None
        elif isinstance(listen, NetworkListen) and not listen.network:
            raise xml_error("'network' attribute is required for listen type 'network'")
    first = listens[0]
    ports = isinstance(graphics, VncGraphics) or graphics.port or graphics.tls_port or graphics.autoport
    if isinstance(first, AddressListen) and not ports:
        first = listens[0] = NoListen()
    if isinstance(first, AddressListen):
        if graphics.listen is not None and first.address not in (None, graphics.listen):
            raise conf_error(
                f"graphics 'listen' attribute '{graphics.listen}' must match 'address' attribute of first listen "
                f"element (found '{first.address}')"
            )
        first.address = graphics.listen = first.address or graphics.listen
    else:
        graphics.listen = None
    if isinstance(graphics, VncGraphics):
        if isinstance(first, SocketListen):
            if first.socket is not None and graphics.socket is not None and first.socket != graphics.socket:
                raise conf_error(
                    f"graphics 'socket' attribute '{graphics.socket}' must match 'socket' attribute of first listen "
                    f"element (found '{first.socket}')"
                )
            first.socket = graphics.socket = first.socket or graphics.socket
        if isinstance(first, SocketListen | NoListen):
            graphics.port = graphics.autoport = graphics.websocket = None
        elif graphics.port == -1 and graphics.autoport is False:
            graphics.port = None
        elif graphics.port == -1 or (graphics.port is None and graphics.autoport is not False) or graphics.autoport:
            graphics.autoport = True
            if not keep or graphics.port == -1:
                graphics.port = None
        else:
            graphics.autoport = False
    elif isinstance(first, AddressListen | NetworkListen):
        if graphics.port == -1 and graphics.tls_port == -1:
            graphics.autoport = True
        if not graphics.autoport:
            graphics.autoport = False
        elif not keep:
            graphics.port = graphics.tls_port = None
    else:
        graphics.port = graphics.tls_port = graphics.autoport = None


def finish_video(video: Video, emulator: Emulator) -> None:
    """Model and memory of a graphics card."""
    if video.model in (None, "default"):
        video.model = "cirrus" if emulator.has("cirrus-vga") else "vga"
    model = video.model or ""
    if model == "none":
        for name in video.fields:
            if name not in ("model", "info"):
                video.__dict__.pop(name, None)
        video.info = Info()
        return
    video.heads = 1 if video.heads is None else video.heads
    video.vram = video.vram or _VIDEO_MEMORY.get(model)
    if video.vram:
        video.vram = 1 << (video.vram - 1).bit_length()
    if model == "qxl":
        video.ram = 1 << ((video.ram or 65536) - 1).bit_length()
        video.vgamem = video.vgamem or 16384


def finish_smartcards(domain: Domain) -> None:
    """Each smartcard has a slot of its own."""
    used = {card.info.address.slot for card in domain.smartcards if isinstance(card.info.address, CcidAddress)}
    for card in domain.smartcards:
        if card.info.address is None:
            slot = next(n for n in range(len(used) + 1) if n not in used)
            used.add(slot)
            card.info.address = CcidAddress(slot=slot)
