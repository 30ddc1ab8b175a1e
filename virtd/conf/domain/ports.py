"""Addresses that are not PCI's: USB ports, virtio-serial ports, memory slots.

The rules are libvirt's: the first free port of the first controller with one; hubs are added if there are too few.
"""

from collections.abc import Iterator

from virtd import constants as c
from virtd.conf.domain.base import DimmAddress, Info, UsbAddress, VirtioSerialAddress
from virtd.conf.domain.chardev import Channel, Console
from virtd.conf.domain.devices import Hub
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import qemu_error, xml_error
from virtd.conf.domain.implicit import maybe_add
from virtd.conf.domain.infos import all_infos
from virtd.conf.domain.interface import HostdevSource
from virtd.errors import VirtError

USB_PORTS = {
    "piix3-uhci": 2,
    "piix4-uhci": 2,
    "ehci": 6,
    "ich9-ehci1": 6,
    "ich9-uhci1": 2,
    "ich9-uhci2": 2,
    "ich9-uhci3": 2,
    "vt82c686b-uhci": 2,
    "pci-ohci": 3,
    "nec-xhci": 4,
    "qusb1": 8,
    "qusb2": 8,
    "qemu-xhci": 4,
}
HUB_PORTS = 8
MAX_DEPTH = 4
VIRTIO_SERIAL_PORTS = 31


class UsbHub:
    """A hub or a controller: which of its ports are taken, and by which hub."""

    def __init__(self, ports: int) -> None:
        self.taken = [False] * ports
        self.hubs: dict[int, UsbHub] = {}

    def free(self, depth: int = 1) -> tuple[int, ...] | None:
        """The path to the first free port."""
        for number, taken in enumerate(self.taken):
            if not taken:
                return (number + 1,)
        if depth < MAX_DEPTH:
            for number, hub in sorted(self.hubs.items()):
                way = hub.free(depth + 1)
                if way is not None:
                    return (number, *way)
        return None

    def count(self) -> int:
        """How many ports are free."""
        return self.taken.count(False) + sum(hub.count() for hub in self.hubs.values())


class UsbBuses:
    """The USB controllers of a guest and what is plugged into them."""

    def __init__(self, domain: Domain) -> None:
        self.buses: dict[int, UsbHub] = {}
        for controller in domain.controllers:
            if controller.type == "usb" and controller.model != "none" and controller.info.master_port is None:
                ports = controller.ports or USB_PORTS.get(controller.model or "", 0)
                self.buses.setdefault(controller.index or 0, UsbHub(ports))

    def find_hub(self, address: UsbAddress) -> UsbHub:
        """The hub that a path leads to, without its last step."""
        bus = self.buses.get(address.bus)
        if bus is None:
            raise xml_error(f"Missing USB bus {address.bus}")
        hub = bus
        for step, port in enumerate(address.path[:-1]):
            if port not in hub.hubs:
                shown = ".".join(str(p) for p in address.path[: step + 1])
                raise xml_error(
                    f"there is no hub at port {shown} in USB address bus: {address.bus} port: {address.port}"
                )
            hub = hub.hubs[port]
        return hub

    def reserve(self, address: UsbAddress, *, hub: bool = False) -> None:
        """Take a port that is given."""
        here = self.find_hub(address)
        last = address.path[-1]
        if last > len(here.taken):
            raise xml_error(f"requested USB port {address.port} not present on USB bus {address.bus}")
        if here.taken[last - 1]:
            raise xml_error(f"Duplicate USB address bus {address.bus} port {address.port}")
        here.taken[last - 1] = True
        if hub:
            here.hubs[last] = UsbHub(HUB_PORTS)

    def assign(self, info: Info, *, hub: bool = False) -> None:
        """Give a device the first free port, of its bus if it names one."""
        old = info.address
        wanted = old.bus if isinstance(old, UsbAddress) else None
        if wanted is not None and wanted not in self.buses:
            raise xml_error(f"USB bus {wanted} requested but no controller with that index is present")
        for index in [wanted] if wanted is not None else sorted(self.buses):
            way = self.buses[index].free()
            if way is not None:
                address = UsbAddress(bus=index, port=".".join(str(p) for p in way))
                self.reserve(address, hub=hub)
                info.address = address
                return
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "No free USB ports")


def on_usb(info: Info) -> bool:
    """Whether a device's address, if it has one, is one of USB.

    Raises:
        VirtError: VIR_ERR_XML_ERROR if it is not.
    """
    if info.address is not None and not isinstance(info.address, UsbAddress):
        raise xml_error("Invalid address for a USB device")
    return True


def usb_devices(domain: Domain) -> Iterator[Info]:
    """Everything that is plugged into USB, hubs left out, in libvirt's order."""
    for hostdev in domain.hostdevs:
        if hostdev.type == "usb":
            yield hostdev.info
    for interface in domain.interfaces:
        source = interface.source
        if isinstance(source, HostdevSource) and isinstance(source.address, UsbAddress):
            yield interface.info
    for disk in domain.disks:
        if disk.bus == "usb" and isinstance(disk.info.address, UsbAddress | None):
            yield disk.info
    for controller in domain.controllers:
        if controller.type == "ccid":
            yield controller.info
    for device in domain.inputs:
        if device.bus == "usb" and on_usb(device.info):
            yield device.info
    for serial in domain.serials:
        if serial.target_type == "usb-serial":
            yield serial.info
    for sound in domain.sounds:
        if sound.model == "usb":
            yield sound.info
    for redirdev in domain.redirdevs:
        if on_usb(redirdev.info):
            yield redirdev.info


def assign_usb(domain: Domain) -> None:
    """Give every USB device a port, adding hubs if there are too few."""
    buses = UsbBuses(domain)
    devices = [info for info in usb_devices(domain) if isinstance(info.address, UsbAddress | None)]
    if not devices and not domain.hubs:
        return
    if not buses.buses and devices:
        raise qemu_error("USB is disabled for this domain, but USB devices are present in the domain XML")
    for hub in domain.hubs:
        if isinstance(hub.info.address, UsbAddress) and hub.info.address.port:
            buses.reserve(hub.info.address, hub=True)
    for info in devices:
        if isinstance(info.address, UsbAddress) and info.address.port:
            buses.reserve(info.address)
    for hub in domain.hubs:
        if not (isinstance(hub.info.address, UsbAddress) and hub.info.address.port):
            buses.assign(hub.info, hub=True)
    waiting = [info for info in devices if not (isinstance(info.address, UsbAddress) and info.address.port)]
    free = sum(bus.count() for bus in buses.buses.values())
    missing = len(waiting) - free
    for _ in range(-(-(missing + 1) // (HUB_PORTS - 1)) if buses.buses and missing > 0 else 0):
        hub = Hub(type="usb")
        buses.assign(hub.info, hub=True)
        domain.hubs.append(hub)
    for info in waiting:
        buses.assign(info)


def assign_memory_slots(domain: Domain) -> None:
    """Give every memory module the lowest free slot."""
    modules = [one for one in domain.memory_devices if one.model in ("dimm", "nvdimm")]
    used = {one.info.address.slot for one in modules if isinstance(one.info.address, DimmAddress)}
    for one in modules:
        if not isinstance(one.info.address, DimmAddress):
            slot = next(n for n in range(len(used) + 1) if n not in used)
            used.add(slot)
            one.info.address = DimmAddress(slot=slot)


def virtio_serial_ports(domain: Domain) -> dict[int, int]:
    """How many ports each virtio-serial controller has, number 0 included."""
    return {
        one.index or 0: one.ports or VIRTIO_SERIAL_PORTS for one in domain.controllers if one.type == "virtio-serial"
    }


def check_virtio_serial(domain: Domain) -> None:
    """Whoever says that it is on a port of a controller is on one that exists and is free.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    ports = virtio_serial_ports(domain)
    used: set[tuple[int, int]] = set()
    for info in all_infos(domain):
        address = info.address
        if not isinstance(address, VirtioSerialAddress) or not address.port:
            continue
        if address.controller not in ports:
            raise xml_error(f"virtio serial controller {address.controller} is missing")
        if address.port >= ports[address.controller]:
            raise xml_error(f"virtio serial controller {address.controller} does not have port {address.port}")
        if (address.controller, address.port) in used:
            raise xml_error(f"virtio serial port {address.port} on controller {address.controller} is already occupied")
        used.add((address.controller, address.port))


def assign_virtio_serial(domain: Domain) -> None:
    """Give every channel and virtio console a port. Port 0 of a controller is kept for a console."""
    check_virtio_serial(domain)
    ports = virtio_serial_ports(domain)
    users: list[Channel | Console] = [*domain.channels, *domain.consoles]
    used: dict[int, set[int]] = {one.index or 0: {0} for one in domain.controllers if one.type == "virtio-serial"}
    for user in users:
        address = user.info.address
        if user.target_type == "virtio" and isinstance(address, VirtioSerialAddress) and address.port:
            used.setdefault(address.controller, {0}).add(address.port)
    for device in domain.channels:
        if device.target_type != "virtio":
            continue
        address = device.info.address
        if isinstance(address, VirtioSerialAddress) and address.port:
            continue
        candidates = [address.controller] if isinstance(address, VirtioSerialAddress) else sorted(used)
        for index in (*candidates, None):
            if index is None:
                index = max(used, default=-1) + 1
                maybe_add(domain, "virtio-serial", index)
                used[index] = {0}
            port = next((n for n in range(1, ports.get(index, VIRTIO_SERIAL_PORTS)) if n not in used[index]), None)
            if port is not None:
                used[index].add(port)
                device.info.address = VirtioSerialAddress(controller=index, port=port)
                break
