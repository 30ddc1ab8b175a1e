"""The devices that libvirt adds to a definition: the machine's own, and controllers for what is plugged in."""

from collections.abc import Callable
from typing import TypeVar

from virtd import constants as c
from virtd.conf.domain.base import CcidAddress, DriveAddress, VirtioSerialAddress
from virtd.conf.domain.basics import is_i440fx, is_q35
from virtd.conf.domain.chardev import Channel, Console, Serial
from virtd.conf.domain.controller import Controller
from virtd.conf.domain.devices import Balloon
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.display import Audio, Input, SdlGraphics, SpiceGraphics, Video, VncGraphics
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import conf_error, xml_error
from virtd.conf.host import Emulator

T = TypeVar("T")

_DISK_PREFIXES = ("fd", "hd", "vd", "sd", "xvd", "ubd")
_CONTROLLER_BUSES = ("scsi", "fdc", "ide", "sata")
_ISA_LIKE = (None, "isa-serial", "system-serial", "spapr-vio-serial", "sclp-serial")


def disk_index(target: str) -> int:
    """The number of a disk by its name: sda is 0, sdz 25, sdaa 26; a partition's number is left out; -1 if none."""
    for prefix in _DISK_PREFIXES:
        if target.startswith(prefix):
            letters = target[len(prefix) :].rstrip("0123456789")
            if not (letters.isascii() and letters.isalpha() and letters.islower()):
                return -1
            number = 0
            for letter in letters:
                number = number * 26 + ord(letter) - 96
            return number - 1
    return -1


def sort_in(items: list[T], item: T, kind: Callable[[T], str | None], index: Callable[[T], int | None]) -> None:
    """Put an item behind those of its kind with lower numbers and before those with higher ones, else at the end.

    One without a number goes behind all of its kind.
    """
    own = index(item)
    place = -1
    for at in range(len(items) - 1, -1, -1):
        if kind(items[at]) == kind(item):
            if own is not None and (index(items[at]) or 0) > own:
                place = at
            elif place == -1:
                place = at + 1
    items.insert(place if place >= 0 else len(items), item)


def sort_devices(domain: Domain) -> None:
    """Bring disks and controllers into libvirt's order."""
    disks, domain.disks = domain.disks, []
    for disk in disks:
        sort_in(domain.disks, disk, lambda d: d.bus, lambda d: disk_index(d.target or ""))
    controllers, domain.controllers = domain.controllers, []
    for controller in controllers:
        insert_controller(domain, controller)


def insert_controller(domain: Domain, controller: Controller) -> None:
    """Add a controller where libvirt puts it."""
    sort_in(domain.controllers, controller, lambda one: one.type, lambda one: one.index)


def find_controller(domain: Domain, kind: str, index: int) -> Controller | None:
    """The controller of a type with an index."""
    return next((one for one in domain.controllers if one.type == kind and one.index == index), None)


def maybe_add(domain: Domain, kind: str, index: int, model: str | None = None) -> Controller:
    """The controller of a type with an index, added if it is not there."""
    found = find_controller(domain, kind, index)
    if found is None:
        found = Controller(type=kind, index=index, model=model)
        domain.controllers.append(found)
    return found


def assign_indexes(domain: Domain) -> None:
    """Number the controllers that have no index, each type by itself.

    The companions of a USB 2 controller share its index.
    """
    last_usb: Controller | None = None
    for controller in domain.controllers:
        if controller.index is None:
            if controller.type == "usb" and controller.info.master_port is not None and last_usb is not None:
                controller.index = last_usb.index
            else:
                used = {one.index for one in domain.controllers if one.type == controller.type}
                controller.index = next(n for n in range(len(used) + 1) if n not in used)
        if controller.type == "usb":
            last_usb = controller


def place_hostdevs(domain: Domain) -> None:
    """Give SCSI host devices the first free unit of the first controller that has one."""
    used = {
        one.info.address.key
        for one in (*domain.disks, *domain.hostdevs)
        if isinstance(one.info.address, DriveAddress) and (not isinstance(one, Disk) or one.bus == "scsi")
    }
    closed = {one.index for one in domain.controllers if one.type == "scsi" and one.model in CROWDED}
    for hostdev in domain.hostdevs:
        if hostdev.type != "scsi" or hostdev.info.address is not None:
            continue
        controller = unit = 0
        while (controller, 0, 0, unit) in used or unit == SCSI_UNITS or controller in closed:
            controller, unit = (controller, unit + 1) if unit < SCSI_UNITS else (controller + 1, 0)
        hostdev.info.address = DriveAddress(controller=controller, unit=unit)
        used.add((controller, 0, 0, unit))


SCSI_UNITS = 7
"""How many units libvirt gives away on a SCSI controller."""


CROWDED = ("lsisas1068",)
"""Models on which libvirt finds no room for host devices."""


def add_hostdev_controllers(domain: Domain) -> None:
    """Add the controllers that SCSI host devices are plugged into, each of the model of the one before it.

    One that has no place yet counts as being on the first.
    """
    places = [one.info.address for one in domain.hostdevs if one.type == "scsi"]
    highest = max((place.controller if isinstance(place, DriveAddress) else 0 for place in places), default=-1)
    model = None
    for index in range(highest + 1):
        found = maybe_add(domain, "scsi", index, model)
        model = found.model if found.model not in CROWDED else None


def add_machine_devices(domain: Domain, emulator: Emulator) -> None:
    """Add what the machine has by itself or what libvirt gives to every guest."""
    machine = domain.os.machine or ""
    q35, i440fx = is_q35(machine), is_i440fx(machine)
    if find_controller(domain, "usb", 0) is None and machine != "isapc":
        maybe_add(domain, "usb", 0, next((m for m, d in _XHCI if emulator.has(d)), None) if q35 else None)
    if q35:
        maybe_add(domain, "sata", 0)
    if q35 or i440fx:
        root = "pcie-root" if q35 else "pci-root"
        found = maybe_add(domain, "pci", 0, root)
        if found.model != root:
            raise xml_error(
                f"The PCI controller with index='0' must be model='{root}' for this machine type, but "
                f"model='{found.model}' was found instead",
                domain=c.VIR_FROM_QEMU,
            )
    if domain.memballoon is None:
        domain.memballoon = Balloon(model="virtio")


_XHCI = (("qemu-xhci", "qemu-xhci"), ("nec-xhci", "nec-usb-xhci"))


def add_inputs(domain: Domain) -> None:
    """A PC has a PS/2 mouse and keyboard."""
    for kind in ("mouse", "keyboard"):
        if not any(one.type == kind and one.bus == "ps2" for one in domain.inputs):
            domain.inputs.append(Input(type=kind, bus="ps2"))


def add_audio(domain: Domain) -> None:
    """Sound goes to the display's client, or nowhere; if the display has no way for it, that is left to QEMU."""
    if domain.audios:
        return
    if not domain.graphics:
        domain.audios.append(Audio(id=1, type="none"))
        return
    speaking = [one for one in domain.graphics if isinstance(one, SpiceGraphics | VncGraphics | SdlGraphics)]
    if speaking and isinstance(speaking[-1], SpiceGraphics):
        domain.audios.append(Audio(id=1, type="spice"))
    elif speaking and isinstance(speaking[-1], VncGraphics):
        domain.audios.append(Audio(id=1, type="none"))


def add_video(domain: Domain) -> None:
    """A display needs a graphics card."""
    if domain.graphics and not domain.videos:
        domain.videos.append(Video(model="default"))
    for number, video in enumerate(domain.videos):
        if video.primary:
            if any(other.primary for other in domain.videos[:number]):
                raise conf_error("Only one primary video device is supported")
            domain.videos.insert(0, domain.videos.pop(number))
    if domain.videos:
        domain.videos[0].primary = True


def add_consoles(domain: Domain) -> None:
    """The first console and the first serial port are the same thing; add the one that is missing."""
    consoles, serials = domain.consoles, domain.serials
    for number, console in enumerate(consoles):
        console.port = number
    if consoles and consoles[0].target_type in (None, "serial"):
        first = consoles[0]
        if not serials:
            serials.append(Serial(source=first.source.copy(), port=0, info=first.info.copy()))
        first.target_type = "serial"
    elif serials and serials[0].target_type in _ISA_LIKE:
        consoles.insert(0, Console(target_type="serial"))
    for console in consoles[1:]:
        if console.target_type is None:
            console.target_type = "serial"


def pair_console(domain: Domain) -> None:
    """Show the first serial port's source in the console that stands for it."""
    if domain.consoles and domain.consoles[0].target_type == "serial" and domain.serials:
        first, serial = domain.consoles[0], domain.serials[0]
        first.source, first.tty, first.info = serial.source, None, serial.info
        first.port = serial.port


def add_controllers(domain: Domain) -> None:
    """Add the controllers that disks, channels and so on are plugged into."""
    for bus in _CONTROLLER_BUSES:
        highest = -1
        for disk in domain.disks:
            if disk.bus == bus and isinstance(disk.info.address, DriveAddress):
                highest = max(highest, disk.info.address.controller)
        for index in range(highest + 1):
            maybe_add(domain, bus, index)
    add_hostdev_controllers(domain)
    users: list[Channel | Console] = [*domain.channels, *domain.consoles]
    for device in users:
        if device.target_type == "virtio":
            address = device.info.address
            index = address.controller if isinstance(address, VirtioSerialAddress) else 0
            maybe_add(domain, "virtio-serial", index)
    for card in domain.smartcards:
        if isinstance(card.info.address, CcidAddress):
            maybe_add(domain, "ccid", card.info.address.controller)
