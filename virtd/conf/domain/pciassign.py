"""Which of a guest's devices are on PCI, what each needs there, and in which order they get their addresses."""

from collections.abc import Iterator

from virtd import constants as c
from virtd.conf.domain.base import Info, PciAddress, UsbAddress
from virtd.conf.domain.basics import is_i440fx, is_q35
from virtd.conf.domain.controller import Controller
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import internal_error, qemu_error, xml_error
from virtd.conf.domain.implicit import maybe_add
from virtd.conf.domain.infos import all_infos
from virtd.conf.domain.interface import HostdevSource, InterfaceSource
from virtd.conf.domain.pci import BUSES, HOTPLUG, PCI, PCIE, PciBuses
from virtd.errors import VirtError

_PCI_NET = (
    *("rtl8139", "e1000", "vlance", "vmxnet", "vmxnet2", "vmxnet3", "Am79C970A", "Am79C973"),
    *("82540EM", "82545EM", "82543GC", "lan9118", "netfront"),
)
ICH9_USB_SLOTS = (0x1D, 0x1A)
"""Where the chip set's two USB 2 controllers are."""
_COMPANIONS = {"ich9-ehci1": 7, "ich9-uhci1": 0, "ich9-uhci2": 1, "ich9-uhci3": 2}
_PCI_FILESYSTEMS = (None, "path", "handle", "virtiofs")
_PCI_SCSI = ("lsilogic", "lsisas1068", "lsisas1078", "vmpvscsi", "dc390", "am53c974")
_NO_PCI_SOUND = ("sb16", "pcspk", "usb")
_NO_PCI_VIDEO = ("none", "ramfb")

Need = tuple[Info, int]


class Flags:
    """What devices of each kind need on this machine."""

    def __init__(self, express: bool) -> None:
        self.pci = PCI | HOTPLUG
        self.pcie = (PCIE if express else PCI) | HOTPLUG

    def virtio(self, model: str | None) -> int:
        """What a virtio device needs by its model."""
        return self.pci if model is not None and model.endswith("-transitional") and "non" not in model else self.pcie


def needs(domain: Domain) -> Iterator[Need]:
    """Every device on PCI that is no bridge, and what it needs, in libvirt's order of allocation."""
    flags = Flags(is_q35(domain.os.machine or ""))
    for filesystem in domain.filesystems:
        driver = filesystem.driver.type if filesystem.driver is not None else None
        yield filesystem.info, flags.virtio(filesystem.model) if driver in _PCI_FILESYSTEMS else 0
    for interface in domain.interfaces:
        if interface.type == "hostdev":
            continue
        if interface.model == "spapr-vlan":
            continue
        if interface.model == "usb-net":
            yield interface.info, 0
            continue
        yield interface.info, flags.pci if interface.model in _PCI_NET else flags.virtio(interface.model)
    for sound in domain.sounds:
        if sound.model not in _NO_PCI_SOUND:
            yield sound.info, 0 if sound.model == "ich7" else flags.pci
    yield from controller_needs(domain, flags)
    for disk in domain.disks:
        if disk.bus == "virtio":
            yield disk.info, flags.virtio(disk.model)
    for interface in domain.interfaces:
        if interface.type == "hostdev" and is_pci_source(interface.source):
            yield interface.info, flags.pcie
    for hostdev in domain.hostdevs:
        if hostdev.type == "scsi_host":
            yield hostdev.info, flags.virtio(hostdev.model)
        elif hostdev.type in ("pci", "mdev"):
            yield hostdev.info, flags.pcie
    if domain.memballoon is not None and domain.memballoon.model != "none":
        yield domain.memballoon.info, 0 if domain.memballoon.model == "xen" else flags.virtio(domain.memballoon.model)
    for rng in domain.rngs:
        yield rng.info, flags.virtio(rng.model)
    for watchdog in domain.watchdogs:
        if watchdog.model == "i6300esb":
            yield watchdog.info, flags.pci
    for number, video in enumerate(domain.videos):
        if video.model not in _NO_PCI_VIDEO:
            kind = flags.pcie if video.model in ("virtio", "bochs") else flags.pci
            yield video.info, kind & ~HOTPLUG if number == 0 else kind
    for module in domain.memory_devices:
        if module.model in ("virtio-pmem", "virtio-mem"):
            yield module.info, flags.pcie
    for shmem in domain.shmems:
        yield shmem.info, flags.pci
    for device in domain.inputs:
        if device.bus == "virtio":
            yield device.info, flags.virtio(device.model)
    for serial in domain.serials:
        if serial.target_type == "pci-serial":
            yield serial.info, flags.pci
    if domain.iommu is not None and domain.iommu.model == "virtio":
        yield domain.iommu.info, flags.pcie & ~HOTPLUG
    if domain.vsock is not None:
        yield domain.vsock.info, flags.virtio(domain.vsock.model)


def controller_needs(domain: Domain, flags: Flags) -> Iterator[Need]:
    """The controllers on PCI, other than bridges and what the chip set has."""
    for controller in domain.controllers:
        kind, model = controller.type, controller.model
        if kind in ("isa", "xenbus"):
            yield controller.info, 0
            continue
        if kind in ("fdc", "ccid", "pci", "ide") or model == "ibmvscsi":
            continue
        if kind == "usb":
            if model != "none":
                yield controller.info, flags.pcie if model in ("qemu-xhci", "nec-xhci") else flags.pci & ~HOTPLUG
        elif kind == "scsi":
            virtio = (model or "").startswith("virtio")
            wanted = flags.virtio(model) if virtio else flags.pci
            yield controller.info, wanted if virtio or model in _PCI_SCSI else 0
        elif kind == "virtio-serial":
            yield controller.info, flags.virtio(model)
        else:
            yield controller.info, flags.pci


def is_pci_source(source: InterfaceSource) -> bool:
    """Whether a network card of the host is on PCI."""
    return not (isinstance(source, HostdevSource) and isinstance(source.address, UsbAddress))


def address_of(info: Info) -> PciAddress | None:
    """The PCI address a device has already; None if it is still to be found."""
    return info.address if isinstance(info.address, PciAddress) and not info.address.empty else None


def wants_pci(info: Info) -> bool:
    """Whether a device is to get a PCI address."""
    return info.address is None or (isinstance(info.address, PciAddress) and info.address.empty)


VIRTIO_DISK_ADDRESSES = ("pci", "ccw", "virtio-mmio")


def check_disks(domain: Domain) -> None:
    """A virtio disk is on a bus that takes virtio.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED.
    """
    for disk in domain.disks:
        address = disk.info.address
        if disk.bus == "virtio" and address is not None and address.kind not in VIRTIO_DISK_ADDRESSES:
            raise qemu_error(f"virtio disk cannot have an address of type '{address.kind}'")


def assign_pci(domain: Domain) -> None:
    """Give every PCI device an address, adding bridges and ports.

    Raises:
        VirtError: if an address is wrong or there is no room.
    """
    check_disks(domain)
    devices = list(needs(domain))
    roots = [one for one in domain.controllers if one.type == "pci"]
    if not roots:
        if any(wants_pci(info) or address_of(info) is not None for info, _ in devices):
            raise xml_error("No PCI buses available")
        return
    highest = max(one.index or 0 for one in roots)
    trial = domain.copy()
    buses = run(trial, highest, grow=True)
    for (info, _), (moved, _) in zip(devices, needs(trial), strict=True):
        given, where = address_of(info), address_of(moved)
        if given is not None and where is not None:
            given.bus = where.bus
    for index in range(len(buses.buses)):
        bus = buses.buses[index]
        if index > 0 and bus is not None:
            maybe_add(domain, "pci", index, bus.model)
    buses = run(domain, len(buses.buses) - 1, grow=False)
    for one in domain.controllers:
        address = address_of(one.info)
        if address is not None and address.function == 0 and address.multifunction is None:
            bus = buses.buses[address.bus] if address.bus < len(buses.buses) else None
            if bus is not None and address.slot in bus.shared and bus.slots[address.slot] > 1:
                address.multifunction = True
    number = 256
    for one in domain.controllers:
        if one.type == "pci":
            finish_bridge(one)
            number = min(number, one.bus_nr or number)
    cells = len(domain.cpu.numa.cells) if domain.cpu is not None and domain.cpu.numa is not None else 0
    for one in domain.controllers:
        address = address_of(one.info)
        if one.type == "pci" and one.index and address is not None and one.index <= address.bus and buses.pcie:
            raise qemu_error(
                f"PCI controller at index {one.index} (0x{one.index:02x}) has bus='0x{address.bus:02x}', but "
                "index must be larger than bus"
            )
        if one.type == "pci" and one.node is not None and one.node >= cells:
            raise xml_error(
                f"{one.model} with index {one.index} is configured for a NUMA node ({one.node}) not present in the "
                f"domain's <cpu><numa> array ({cells})",
                domain=c.VIR_FROM_QEMU,
            )
    for one in domain.controllers:
        if one.model in ("pci-expander-bus", "pcie-expander-bus") and one.bus_nr is None:
            number -= 2
            one.bus_nr = number


def check_piix3(domain: Domain, buses: PciBuses) -> None:
    """What stands where the PIIX3 has it needs a PCI bus.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR.
    """
    root = buses.buses[0] if buses.buses else None
    for one in domain.controllers:
        given = address_of(one.info)
        if given is None or one.index or root is None or root.takes & PCI:
            continue
        ide = one.type == "ide" and given.key == (0, 0, 1, 1)
        usb = one.type == "usb" and one.model in (None, "piix3-uhci") and given.key == (0, 0, 1, 2)
        if ide or usb:
            text = "Bus 0 must be PCI for integrated PIIX3 USB or IDE controllers"
            raise internal_error(text, domain=c.VIR_FROM_QEMU)


def run(domain: Domain, highest: int, *, grow: bool) -> PciBuses:
    """One run of the allocation, on the devices of `domain`."""
    machine = domain.os.machine or ""
    models: list[str | None] = [None] * (highest + 1)
    bridges = [one for one in domain.controllers if one.type == "pci"]
    for one in bridges:
        if one.model is None:
            raise internal_error("PCI controller model was not set correctly")
        models[one.index or 0] = one.model
    if grow:
        filler = "pcie-root-port" if models[0] == "pcie-root" else "pci-bridge"
        models = [model or filler for model in models]
    buses = PciBuses(models, grow=grow)
    devices = list(needs(domain))
    check_piix3(domain, buses)
    for one in bridges:
        given = address_of(one.info)
        if given is not None and one.index:
            buses.reserve(given, BUSES[one.model or ""][3], given=True)
    for info, kind in devices:
        given = address_of(info)
        if given is not None:
            buses.reserve(given, kind, given=True)
    known = {id(info) for info, _ in devices} | {id(one.info) for one in bridges}
    for info in all_infos(domain):
        given = address_of(info)
        if given is not None and id(info) not in known:
            buses.reserve(given, PCI, given=True)
    if is_i440fx(machine):
        fix_i440fx(domain, buses)
    elif is_q35(machine):
        fix_q35(domain, buses)
    if grow and not buses.pcie and any(bus is not None and not bus.full for bus in buses.buses):
        buses.reserve(buses.find(PCI | HOTPLUG), PCI)
    for one in bridges:
        if one.index and wants_pci(one.info):
            buses.allocate(one.info, BUSES[one.model or ""][3])
    usb_devices = {id(one.info): one for one in domain.controllers if one.type == "usb"}
    for info, kind in devices:
        if wants_pci(info):
            usb = usb_devices.get(id(info))
            if usb is not None and usb.model in _COMPANIONS:
                place_companion(domain, buses, usb, kind)
            else:
                buses.allocate(info, kind)
    if grow and highest == 0 and buses.pcie and len(buses.buses) > 1:
        buses.reserve(buses.find(PCIE | HOTPLUG), PCIE)
    return buses


def place_companion(domain: Domain, buses: PciBuses, usb: Controller, kind: int) -> None:
    """The functions of a USB 2 controller share a slot."""
    function = _COMPANIONS[usb.model or ""]
    for other in domain.controllers:
        given = address_of(other.info)
        together = other.type == "usb" and other.index == usb.index and other.model in _COMPANIONS
        if together and given is not None and not buses.in_use(given.bus, given.slot, function):
            address = PciAddress(bus=given.bus, slot=given.slot, function=function)
            break
    else:
        address = buses.find(kind, function=function)
    if function == 0:
        address.multifunction = True
    buses.reserve(address, kind)
    usb.info.address = address


def fix_i440fx(domain: Domain, buses: PciBuses) -> None:
    """What has its place on an i440fx: slot 1 is the PIIX3, slot 2 the first graphics card."""
    for one in domain.controllers:
        if one.type == "ide" and one.index == 0:
            fix(one.info, 1, 1, "Primary IDE controller must have PCI address 0:0:1.1")
            if not buses.in_use(0, 1, 1):
                buses.reserve(PciAddress(slot=1, function=1), PCI)
        elif one.type == "usb" and one.index == 0 and one.model == "piix3-uhci":
            given = address_of(one.info)
            if given is None:
                one.info.address = PciAddress(slot=1, function=2)
                buses.reserve(one.info.address, PCI)
            elif given.key != (0, 0, 1, 2):
                text = "PIIX3 USB controller at index 0 must have PCI address 0:0:1.2"
                raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_QEMU)
    buses.reserve(PciAddress(slot=1), PCI)
    first_video(domain, buses, 2)


def fix_q35(domain: Domain, buses: PciBuses) -> None:
    """What has its place on a q35: slot 1f is the ICH9, 1b its sound, 1e its bridge, 1 the first graphics card."""
    for function in (0, 3):
        buses.reserve(PciAddress(slot=0x1F, function=function), PCIE)
    for one in domain.controllers:
        if one.type == "sata" and one.index == 0:
            fix(one.info, 0x1F, 2, "Primary SATA controller must have PCI address 0:0:1f.2")
            if not buses.in_use(0, 0x1F, 2):
                buses.reserve(PciAddress(slot=0x1F, function=2), PCIE)
        elif one.type == "usb" and one.model == "ich9-uhci1":
            slot = next((slot for slot in ICH9_USB_SLOTS if not buses.in_use(0, slot)), None)
            if slot is not None:
                place(buses, one.info, PciAddress(slot=slot, multifunction=True), PCIE)
        elif one.type == "pci" and one.model == "dmi-to-pci-bridge":
            place(buses, one.info, PciAddress(slot=0x1E), PCIE)
    for sound in domain.sounds:
        if sound.model == "ich9":
            place(buses, sound.info, PciAddress(slot=0x1B), PCIE)
    first_video(domain, buses, 1)


def place(buses: PciBuses, info: Info, address: PciAddress, kind: int) -> None:
    """Put a device where real machines have it, if that is free and the definition does not say otherwise."""
    if wants_pci(info) and not buses.in_use(address.bus, address.slot, address.function):
        info.address = address
        buses.reserve(address, kind)


def fix(info: Info, slot: int, function: int, text: str) -> None:
    """Put a device that is part of the chip set where it is.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR if the definition puts it elsewhere.
    """
    given = address_of(info)
    if given is None:
        info.address = PciAddress(slot=slot, function=function)
    elif given.key != (0, 0, slot, function):
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_QEMU)


def first_video(domain: Domain, buses: PciBuses, slot: int) -> None:
    """The first graphics card goes to the slot where firmware expects it."""
    if not domain.videos or domain.videos[0].model in _NO_PCI_VIDEO:
        return
    info = domain.videos[0].info
    if not buses.in_use(0, slot):
        place(buses, info, PciAddress(slot=slot), PCIE)
    elif wants_pci(info):
        buses.allocate(info, PCI)


def finish_bridge(controller: Controller) -> None:
    """The device and numbers of a bridge or port."""
    device = BUSES[controller.model or ""][4]
    if controller.index and device and controller.model_name is None:
        controller.model_name = device
    address = address_of(controller.info)
    if controller.model == "pci-bridge":
        controller.chassis_nr = controller.index if controller.chassis_nr is None else controller.chassis_nr
    elif controller.model in ("pcie-root-port", "pcie-switch-downstream-port") and address is not None:
        controller.chassis = controller.index if controller.chassis is None else controller.chassis
        if controller.port is None:
            downstream = controller.model == "pcie-switch-downstream-port"
            controller.port = address.slot if downstream else address.slot << 3 | address.function
