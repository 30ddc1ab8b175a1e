"""What libvirt checks of every finished definition, whoever is to run it. Errors are of VIR_FROM_DOMAIN."""

import re
from collections.abc import Callable, Iterator

from virtd import constants as c
from virtd.conf.domain.base import Device, DriveAddress, Info, UnassignedAddress
from virtd.conf.domain.basics import device_infos
from virtd.conf.domain.charvalidate import check_consoles, check_isa_serials, check_sources
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.diskvalidate import check_disk, iothread_ids
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import conf_error, detail_error, internal_error, xml_error
from virtd.conf.domain.interface import VhostUserSource
from virtd.conf.domain.memory import HugePage
from virtd.conf.domain.os import FwCfgs, Smbios
from virtd.conf.xml.types import UUID
from virtd.errors import VirtError

BIOS_DATE = re.compile(r"(0?[1-9]|1[0-2])/(0?[1-9]|[12][0-9]|3[01])/([0-9]{2}|(19|20)[0-9]{2})")
_LIMITS = (
    ("chassis_nr", "chassisNr", 1, 255),
    ("chassis", "chassis", 0, 255),
    ("port", "port", 0, 255),
    ("bus_nr", "busNr", 1, 254),
)


def validate_early(domain: Domain) -> None:
    """Check what libvirt checks before it gives addresses.

    Raises:
        VirtError: with libvirt's code for the first thing that is wrong.
    """
    for check in EARLY_CHECKS:
        check(domain)


def validate(domain: Domain) -> None:
    """Check a finished definition.

    Raises:
        VirtError: with libvirt's code for the first thing that is wrong.
    """
    for check in CHECKS:
        check(domain)


def check_boot(domain: Domain) -> None:
    """The order is either the domain's or the devices', and no two devices have the same place in it."""
    orders = [info.boot_order for info in device_infos(domain) if info.boot_order]
    if orders and domain.os.boot:
        raise conf_error("per-device boot elements cannot be used together with os/boot elements")
    for order in orders:
        if orders.count(order) > 1:
            raise conf_error(f"boot order {order} used for more than one device")


def check_duplicate_targets(domain: Domain) -> None:
    """Each disk has a name of its own."""
    seen: dict[str | None, Disk] = {}
    for disk in domain.disks:
        other = seen.setdefault(disk.target, disk)
        if other is not disk:
            raise xml_error(
                f"target '{disk.target}' duplicated for disk sources '{disk.source_name}' and '{other.source_name}'"
                if disk.source_name is None or other.source_name is None
                else f"target '{disk.target}' duplicated for disk sources '{other.source_name}' and "
                f"'{disk.source_name}'"
            )


def place(address: DriveAddress) -> str:
    """A place on a controller as libvirt writes it in messages."""
    return f"controller='{address.controller}' bus='{address.bus}' target='{address.target}' unit='{address.unit}'"


def check_disk_addresses(domain: Domain) -> None:
    """No two disks or SCSI host devices are at the same place of a controller."""
    seen: set[tuple[str | None, tuple[int, int, int, int]]] = set()
    for disk in domain.disks:
        address = disk.info.address
        if isinstance(address, DriveAddress):
            key = (disk.bus, address.key)
            if key in seen:
                raise xml_error(
                    f"Found duplicate drive address for disk with target name '{disk.target}' {place(address)}"
                )
            seen.add(key)
    hosts: set[tuple[int, int, int, int]] = set()
    for hostdev in domain.hostdevs:
        address = hostdev.info.address
        if hostdev.type != "scsi" or not isinstance(address, DriveAddress):
            continue
        where = f"controller='{address.controller}' bus='{address.bus}' target='{address.target}' unit='{address.unit}'"
        if address.key in hosts:
            raise conf_error(f"SCSI host address {where} in use by another SCSI host device")
        hosts.add(address.key)


def check_scsi_names(domain: Domain) -> None:
    """A SCSI disk's name implies a place, which must not be a host device's."""
    taken = {
        hostdev.info.address.key
        for hostdev in domain.hostdevs
        if hostdev.type == "scsi" and isinstance(hostdev.info.address, DriveAddress)
    }
    for disk in domain.disks:
        address = disk.info.address
        if disk.bus == "scsi" and isinstance(address, DriveAddress) and address.key in taken:
            raise conf_error(
                f"using disk target name '{disk.target}' conflicts with SCSI host device address {place(address)[:-1]}"
            )


def check_pci_roots(domain: Domain) -> None:
    """Bus 0 is plugged into nothing."""
    for one in domain.controllers:
        if one.type == "pci" and one.index == 0 and one.info.address is not None:
            raise conf_error("pci-root and pcie-root controllers should not have an address")


def check_hugepages(domain: Domain) -> None:
    """Huge pages are for NUMA cells that exist; a guest without cells has one, number 0."""
    if domain.memory_backing is None or domain.memory_backing.hugepages is None:
        return
    cells = len(domain.cpu.numa.cells) if domain.cpu is not None and domain.cpu.numa is not None else 0
    masters = [page.size for page in domain.memory_backing.hugepages.pages if page.nodeset is None]
    if len(masters) > 1:
        raise detail_error(f"two master hugepages detected: {masters[1]} and {masters[0]}")
    for page in domain.memory_backing.hugepages.pages:
        both = next((p for p in domain.memory_backing.hugepages.pages if p is not page and shares(p, page)), None)
        if both is not None:
            raise detail_error(f"nodeset attribute of hugepages of sizes {page.size} and {both.size} intersect")
        if not cells and page.nodeset == frozenset((0,)):
            page.nodeset = None
        if page.nodeset is None:
            continue
        missing = next((node for node in sorted(page.nodeset) if node >= cells), None)
        if missing is not None:
            raise detail_error(f"hugepages: node {missing} not found")


def shares(one: HugePage, other: HugePage) -> bool:
    """Whether two sizes of pages are asked for the same cell."""
    return bool(one.nodeset and other.nodeset and one.nodeset & other.nodeset)


def check_usb_masters(domain: Domain) -> None:
    """A companion of a USB 2 controller needs the controller."""
    for one in domain.controllers:
        if one.type == "usb" and one.info.master_port is not None:
            masters = [
                other
                for other in domain.controllers
                if other.type == "usb" and other.index == one.index and other.info.master_port is None
            ]
            if not masters:
                raise detail_error("No master USB controller specified")


def check_seclabels(domain: Domain) -> None:
    """At most one label for each security driver."""
    seen: set[str | None] = set()
    for label in domain.seclabels:
        if label.model is not None and label.model in seen:
            raise detail_error(f"seclabel for model {label.model} is already provided")
        seen.add(label.model)
    if None in seen and len(domain.seclabels) > 1:
        raise xml_error("missing security model when using multiple labels")


def check_hostdevs(domain: Domain) -> None:
    """Each host device is given once; what was once possible with SCSI devices."""
    for number, hostdev in enumerate(domain.hostdevs):
        same = (one for one in domain.hostdevs[:number] if one.type == hostdev.type)
        if hostdev.type != "scsi_host" and any(one.source == hostdev.source for one in same):
            raise xml_error("Hostdev already exists in the domain configuration")
    for hostdev in domain.hostdevs:
        if hostdev.sgio == "unfiltered":
            raise conf_error("unfiltered sgio is no longer supported")
    for disk in domain.disks:
        if disk.sgio == "unfiltered":
            raise conf_error("unfiltered sgio is no longer supported")


def check_disk_kinds(domain: Domain) -> None:
    """Floppies are on floppy controllers, everything else is elsewhere; names tell the number."""
    for disk in domain.disks:
        if disk.device == "floppy":
            if disk.bus != "fdc":
                raise internal_error(f"Invalid bus type '{disk.bus}' for floppy disk")
            if not (disk.target or "").startswith("fd"):
                raise internal_error(f"Invalid floppy device name: {disk.target}")
        else:
            if disk.bus == "fdc":
                raise internal_error(f"Invalid bus type '{disk.bus}' for disk")
            if not (disk.target or "").startswith(_DISK_NAMES):
                raise internal_error(f"Invalid harddisk device name: {disk.target}")


_DISK_NAMES = ("hd", "sd", "vd", "xvd", "ubd")


def check_controllers(domain: Domain) -> None:
    """Controllers are told apart by type and index; only the parts of one USB 2 controller share theirs."""
    seen: set[tuple[str, int | None]] = set()
    for one in domain.controllers:
        key = (one.type, one.index)
        if one.type == "usb" and one.model == "none" and len([o for o in domain.controllers if o.type == "usb"]) > 1:
            raise detail_error("Can't add another USB controller: USB is disabled for this domain")
        if key in seen and not (one.type == "usb" and (one.model or "").startswith("ich9-")):
            raise xml_error(f"Multiple '{one.type}' controllers with index '{one.index}'")
        seen.add(key)
        if one.type == "pci" and one.model in ("pci-root", "pcie-root") and one.index != 0:
            raise xml_error("pci-root and pcie-root controllers should have index 0")


def check_controller_numbers(domain: Domain) -> None:
    """The numbers of bridges and ports have a byte."""
    for one in domain.controllers:
        for field, name, low, high in _LIMITS:
            value = getattr(one, field)
            if value is not None and not low <= value <= high:
                raise conf_error(f"PCI controller {name} '{value}' out of range - must be {low}-{high}")


def check_numa(domain: Domain) -> None:
    """Every vCPU is in one cell at most, and the cells are numbered from 0."""
    numa = domain.cpu.numa if domain.cpu is not None else None
    if numa is None:
        return
    if [cell.id for cell in numa.cells] != list(range(len(numa.cells))):
        raise xml_error(
            "Exactly one 'cell' element per guest NUMA cell allowed, non-contiguous ranges or ranges not starting "
            "from 0 are not allowed"
        )
    cpus = [number for cell in numa.cells for number in cell.cpus or ()]
    if len(cpus) > (domain.vcpu or 1):
        raise internal_error("Number of CPUs in <numa> exceeds the <vcpu> count")
    if any(number >= (domain.vcpu or 1) for number in cpus):
        raise internal_error("CPU IDs in <numa> exceed the <vcpu> count")
    if len(set(cpus)) != len(cpus):
        first, second = next(
            (a.id, b.id)
            for a in numa.cells
            for b in numa.cells
            if (a.id or 0) < (b.id or 0) and (a.cpus or set()) & (b.cpus or set())
        )
        raise conf_error(f"NUMA cells {second} and {first} have overlapping vCPU ids")


def check_idmap(domain: Domain) -> None:
    """Users and groups are mapped together, if at all."""
    if bool(domain.uidmap) != bool(domain.gidmap):
        raise conf_error("uid and gid should be mapped both")


def check_perf(domain: Domain) -> None:
    """Each counter is named once."""
    names = [event.name for event in domain.perf]
    for name in names:
        if names.count(name) > 1:
            raise xml_error(f"perf event '{name}' was already specified")


def check_memory(domain: Domain) -> None:
    """Modules are part of the memory."""
    if any(device.uuid is not None and device.model == "nvdimm" for device in domain.memory_devices):
        raise conf_error("UUID is not supported for NVDIMM device")
    plugged = sum(device.size or 0 for device in domain.memory_devices)
    if plugged > (domain.memory or 0):
        raise xml_error("Total size of memory devices exceeds the total memory size")


def check_vcpus(domain: Domain) -> None:
    """What is said of single vCPUs is said of those that can be."""
    for vcpu in domain.vcpus:
        if (vcpu.id or 0) >= (domain.vcpu or 1):
            raise xml_error(f"vcpu id '{vcpu.id}' is out of range of maximum vcpu count")


def check_sysinfo(domain: Domain) -> None:
    """The firmware tells the guest its own UUID."""
    for info in domain.sysinfo:
        if isinstance(info, Smbios):
            for entry in info.bios:
                if entry.name == "date" and not BIOS_DATE.fullmatch(entry.text or ""):
                    raise detail_error("Invalid BIOS 'date' format")
            for entry in info.system:
                if entry.name == "uuid":
                    check_own_uuid(domain, entry.text or "")


def check_own_uuid(domain: Domain, text: str) -> None:
    """The UUID that the firmware shows must be the guest's.

    Raises:
        VirtError: VIR_ERR_XML_DETAIL.
    """
    words = None
    try:
        if UUID.parse(text) != domain.uuid:
            words = "UUID mismatch between <uuid> and <sysinfo>"
    except ValueError:
        words = "malformed <sysinfo> uuid element"
    if words is not None:
        raise detail_error(words)


def check_firmware_blobs(domain: Domain) -> None:
    """Blobs of users have names of their own, and one source of their content."""
    for info in domain.sysinfo:
        for entry in info.entries if isinstance(info, FwCfgs) else ():
            if entry.name is None:
                raise xml_error("Firmware entry is missing 'name' attribute")
            if not entry.name.startswith("opt/"):
                raise conf_error("Invalid firmware name")
            if (entry.text is None) == (entry.file is None):
                raise xml_error("Firmware entry must have either value or 'file' attribute")


def check_addresses(domain: Domain) -> None:
    """A smartcard is in a reader; what is not plugged in is a host device."""
    hostdevs = {id(hostdev.info) for hostdev in domain.hostdevs}
    for info in all_infos(domain):
        address = info.address
        if isinstance(address, UnassignedAddress) and id(info) not in hostdevs:
            raise conf_error("address of type 'unassigned' is supported only for hostdevs")
        if info.acpi_index is not None and address is not None and address.kind not in ("pci", "unassigned"):
            raise conf_error("ACPI index is only supported for PCI devices")
        if info.rom_enabled is False and (info.rom_bar is not None or info.rom_file is not None):
            raise conf_error("ROM tuning is not supported when ROM is disabled")
    for card in domain.smartcards:
        if card.info.address is not None and card.info.address.kind != "ccid":
            raise conf_error("Controllers must use the 'ccid' address type")


def all_infos(domain: Domain) -> Iterator[Info]:
    """The Info of every device."""
    for name in domain.fields:
        value = getattr(domain, name)
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, Device):
                yield item.info


def check_filesystems(domain: Domain) -> None:
    """A directory has a source and a name in the guest."""
    for one in domain.filesystems:
        source = one.source_dir or one.source_file or one.source_dev or one.source_socket
        if source is None and one.type != "ram":
            raise VirtError(c.VIR_ERR_NO_SOURCE, one.target, domain=c.VIR_FROM_DOMAIN)
        if one.info.boot_order is not None and (one.driver is None or one.driver.type != "virtiofs"):
            raise conf_error("boot order is only supported for virtiofs")
        if one.target is None:
            raise VirtError(c.VIR_ERR_NO_TARGET, source, domain=c.VIR_FROM_DOMAIN)


def check_inputs(domain: Domain) -> None:
    """What each bus and type of input devices can be."""
    for one in domain.inputs:
        if one.type == "evdev" and one.bus != "none":
            raise conf_error("input evdev doesn't support bus element")
        if one.bus == "ps2" and one.type not in ("mouse", "keyboard"):
            raise internal_error(f"ps2 bus does not support {one.type} input device")
        if one.bus in ("xen", "parallels"):
            raise internal_error(f"unsupported input bus {one.bus}")
        if one.type == "passthrough" and one.bus != "virtio":
            raise conf_error("only bus 'virtio' is supported for 'passthrough' input devices")
        if one.model not in (None, "default") and one.bus != "virtio":
            raise conf_error(f"only bus 'virtio' is supported for input model '{one.model}'")


def check_interfaces(domain: Domain) -> None:
    """What a card's connection asks of it."""
    for one in domain.interfaces:
        virtio = (one.model or "").startswith("virtio")
        if isinstance(one.source, VhostUserSource):
            if not virtio:
                raise internal_error(
                    "Wrong or no <model> 'type' attribute specified with <interface type='vhostuser'/>. vhostuser "
                    "requires the virtio-net* frontend"
                )
            if one.source.reconnect is not None and one.source.mode == "server":
                raise conf_error("'reconnect' attribute unsupported 'server' mode for <interface type='vhostuser'>")
        if one.teaming is not None:
            if one.teaming.type == "transient" and one.teaming.persistent is None:
                raise conf_error("teaming persistent attribute must be set if teaming type is 'transient'")
            if one.teaming.type == "persistent" and not virtio:
                raise conf_error(
                    f"virtio-net teaming persistent interface must be <model type='virtio'/>, not '{one.model}'"
                )
            if one.teaming.type == "transient" and one.type not in ("hostdev", "network"):
                raise conf_error(f"virtio-net teaming transient interface must be type='hostdev', not '{one.type}'")


def check_videos(domain: Domain) -> None:
    """What only some graphics cards have; none is none."""
    if len(domain.videos) > 1 and any(one.model == "none" for one in domain.videos):
        raise conf_error("a 'none' video type must be the only video device defined for the domain")
    for one in domain.videos:
        if one.model != "qxl":
            for name in ("ram", "vram64", "vgamem"):
                if getattr(one, name):
                    raise conf_error(f"{name} attribute only supported for video type qxl")
        accel = one.acceleration
        if accel is not None and accel.accel2d is None and accel.accel3d is None and accel.rendernode is None:
            raise conf_error("missing values for acceleration")
        if one.driver is not None:
            if one.driver.name == "vhostuser" and one.model != "virtio":
                raise conf_error("'vhostuser' driver is only supported with 'virtio' device")
            for option in one.driver.virtio.fields:
                if getattr(one.driver.virtio, option) is not None and one.model != "virtio":
                    raise conf_error(f"{option} driver option is only supported for virtio devices")


def check_audio(domain: Domain) -> None:
    """Back ends have numbers of their own, and sound cards name those that exist."""
    ids = [one.id for one in domain.audios]
    for number in ids:
        if ids.count(number) > 1:
            raise xml_error(f"audio ID {number} is used multiple times")
    for sound in domain.sounds:
        if sound.audio_id is not None and sound.audio_id not in ids:
            raise xml_error(f"no audio device with ID {sound.audio_id}")


def check_panics(domain: Domain) -> None:
    """One of each model."""
    models = [panic.model for panic in domain.panics]
    for model in models:
        if models.count(model) > 1:
            raise xml_error(f"Multiple panic devices with model '{model}'")
    if len(domain.watchdogs) > 1:
        raise internal_error("only a single watchdog device is supported")


def check_disks(domain: Domain) -> None:
    """See diskvalidate."""
    for disk in domain.disks:
        check_disk(disk)


def check_iothreads(domain: Domain) -> None:
    """What is said of an I/O thread is said of one that exists."""
    known = iothread_ids(domain)
    if domain.cputune is None:
        return
    for sched in domain.cputune.iothreadscheds:
        for number in sorted(sched.iothreads or ()):
            if number not in known:
                raise conf_error(f"Cannot find 'iothread' : {number}")
    for pin in domain.cputune.iothreadpins:
        if pin.iothread not in known:
            raise conf_error(f"Cannot find 'iothread' : {pin.iothread}")


EARLY_CHECKS: tuple[Callable[[Domain], None], ...] = (
    check_seclabels,
    check_hugepages,
    check_disk_kinds,
    check_isa_serials,
    check_consoles,
    check_numa,
    check_memory,
    check_vcpus,
    check_perf,
    check_idmap,
    check_controllers,
    check_panics,
    check_boot,
)

CHECKS: tuple[Callable[[Domain], None], ...] = (
    check_duplicate_targets,
    check_disk_addresses,
    check_scsi_names,
    check_disks,
    check_hostdevs,
    check_usb_masters,
    check_sources,
    check_iothreads,
    check_pci_roots,
    check_controller_numbers,
    check_sysinfo,
    check_filesystems,
    check_inputs,
    check_firmware_blobs,
    check_addresses,
    check_audio,
    check_interfaces,
    check_videos,
)
