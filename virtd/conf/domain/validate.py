"""What libvirt checks of every finished definition, whoever is to run it. Errors are of VIR_FROM_DOMAIN."""

from collections.abc import Callable

from virtd import constants as c
from virtd.conf.domain.base import DriveAddress
from virtd.conf.domain.basics import conf_error, device_infos, internal_error, xml_error
from virtd.conf.domain.chardev import CharSource, FileSource, PathSource, UnixSource
from virtd.conf.domain.devices import EgdBackend, PassthroughSmartcard
from virtd.conf.domain.disk import Disk
from virtd.conf.domain.domain import Domain
from virtd.errors import VirtError

MAX_ISA_SERIALS = 4


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
    for page in domain.memory_backing.hugepages.pages:
        if page.nodeset is None or (not cells and page.nodeset == {0}):
            continue
        missing = next((node for node in sorted(page.nodeset) if node >= cells), None)
        if missing is not None:
            raise VirtError(c.VIR_ERR_XML_DETAIL, f"hugepages: node {missing} not found", domain=c.VIR_FROM_DOMAIN)


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
                raise VirtError(c.VIR_ERR_XML_DETAIL, "No master USB controller specified", domain=c.VIR_FROM_DOMAIN)


def check_seclabels(domain: Domain) -> None:
    """At most one label for each security driver."""
    seen: set[str | None] = set()
    for label in domain.seclabels:
        if label.model is not None and label.model in seen:
            raise VirtError(
                c.VIR_ERR_XML_DETAIL,
                f"seclabel for model {label.model} is already provided",
                domain=c.VIR_FROM_DOMAIN,
            )
        seen.add(label.model)
    if None in seen and len(domain.seclabels) > 1:
        raise xml_error("missing security model when using multiple labels")


def check_hostdevs(domain: Domain) -> None:
    """What was once possible with SCSI host devices."""
    for hostdev in domain.hostdevs:
        if hostdev.sgio == "unfiltered":
            raise conf_error("unfiltered sgio is no longer supported")
    for disk in domain.disks:
        if disk.sgio == "unfiltered":
            raise conf_error("unfiltered sgio is no longer supported")


def check_disks(domain: Domain) -> None:
    """What only some disks can have."""
    for disk in domain.disks:
        if disk.device != "lun":
            if disk.rawio is not None:
                raise conf_error("rawio can be used only with device='lun'")
            if disk.sgio is not None:
                raise conf_error("sgio can be used only with device='lun'")
        source = disk.source
        if source is not None and source.startup_policy is not None and disk.type == "network":
            raise xml_error(
                f"disk startupPolicy '{source.startup_policy}' is not allowed for disk of '{disk.type}' type"
            )


def check_sources(domain: Domain) -> None:
    """A back end that has a path must say it."""
    sources: list[CharSource] = [device.source for device in domain.serials]
    sources += [device.source for device in domain.parallels]
    sources += [device.source for device in domain.consoles]
    sources += [device.source for device in domain.redirdevs]
    sources += [rng.backend.source for rng in domain.rngs if isinstance(rng.backend, EgdBackend)]
    sources += [card.source for card in domain.smartcards if isinstance(card, PassthroughSmartcard)]
    for source in sources:
        if isinstance(source, FileSource | PathSource | UnixSource) and source.path is None:
            raise internal_error("Missing source path attribute for char device")


def check_isa_serials(domain: Domain) -> None:
    """A PC has four serial ports; those that are said to be ISA have each a number of their own."""
    used: set[int] = set()
    for serial in domain.serials:
        if serial.target_type != "isa-serial":
            continue
        if serial.port is not None:
            if serial.port in used:
                raise internal_error(f"target port '{serial.port}' already allocated")
            number = serial.port
        else:
            number = next(n for n in range(len(used) + 1) if n not in used)
            serial.port = number
        if number >= MAX_ISA_SERIALS:
            raise internal_error(f"Maximum supported number of ISA serial ports is '{MAX_ISA_SERIALS}'")
        used.add(number)


def check_consoles(domain: Domain) -> None:
    """Only one console can stand for a serial port."""
    if any(console.target_type in (None, "serial") for console in domain.consoles[1:]):
        raise conf_error("Only the first console can be a serial port")


def check_iothreads(domain: Domain) -> None:
    """What is said of an I/O thread is said of one that exists."""
    known = {thread.id for thread in domain.iothread_ids} or set(range(1, (domain.iothreads or 0) + 1))
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
    check_isa_serials,
    check_consoles,
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
)
