"""What libvirt refuses while it still reads a definition, or before it gives addresses."""

import re
from collections.abc import Callable, Container, Iterator, Sequence

from virtd import constants as c
from virtd.conf.domain import resctrl
from virtd.conf.domain.base import DeviceSeclabel, twice
from virtd.conf.domain.basics import device_infos
from virtd.conf.domain.chardev import Channel, Console, Parallel, Serial
from virtd.conf.domain.charvalidate import check_consoles, check_isa_serials
from virtd.conf.domain.check.disks import iothread_ids, sources
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import conf_error, detail_error, internal_error, xml_error
from virtd.conf.domain.memory import EmulatorPin, IothreadPin, VcpuPin
from virtd.conf.domain.os import FwCfgs, Smbios
from virtd.conf.xml.types import UUID

BIOS_DATE = re.compile(r"(0?[1-9]|1[0-2])/(0?[1-9]|[12][0-9]|3[01])/([0-9]{2}|(19|20)[0-9]{2})")
MEDIATED_BUSES = {"vfio-pci": "pci", "vfio-ccw": "ccw"}
SPICE_ONLY_VIRTIO = "spicevmc device type only supports virtio"


def check_early(domain: Domain) -> None:
    """Check what libvirt checks before it gives addresses.

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
    if [label.model for label in domain.seclabels].count(None) > 1:
        raise detail_error("seclabel for model (null) is already provided")
    if None in seen and len(domain.seclabels) > 1:
        raise xml_error("missing security model when using multiple labels")


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
        if one.driver.iothread and not (one.type == "scsi" and (one.model or "").startswith("virtio")):
            raise xml_error("'iothread' attribute only supported for virtio scsi controllers")
        if one.type == "pci" and one.model in ("pci-root", "pcie-root") and one.index != 0:
            raise xml_error("pci-root and pcie-root controllers should have index 0", domain=c.VIR_FROM_QEMU)


def check_no_usb(domain: Domain) -> None:
    """Who has no USB has nothing that is on it."""
    if not any(one.type == "usb" and one.model == "none" for one in domain.controllers):
        return
    if any(one.bus == "usb" for one in domain.inputs):
        raise conf_error("Can't add USB input device. USB bus is disabled")
    if any(one.type == "usb" for one in domain.hostdevs):
        raise conf_error("Can't add host USB device: USB is disabled in this host")
    if domain.hubs:
        raise conf_error("Can't add USB hub: USB is disabled for this domain")


def check_numa(domain: Domain) -> None:
    """Every vCPU is in one cell at most, and the cells are numbered from 0."""
    numa = domain.cpu.numa if domain.cpu is not None else None
    if numa is None:
        return
    cpus = [number for cell in numa.cells for number in cell.cpus or ()]
    if len(set(cpus)) != len(cpus):
        first, second = next(
            (a.id, b.id)
            for a in numa.cells
            for b in numa.cells
            if (a.id or 0) < (b.id or 0) and (a.cpus or set()) & (b.cpus or set())
        )
        raise conf_error(f"NUMA cells {second} and {first} have overlapping vCPU ids")
    if len(cpus) > (domain.vcpu or 1):
        raise internal_error("Number of CPUs in <numa> exceeds the <vcpu> count")
    if any(number >= (domain.vcpu or 1) for number in cpus):
        raise internal_error("CPU IDs in <numa> exceed the <vcpu> count")


def check_perf(domain: Domain) -> None:
    """Each counter is named once."""
    names = [event.name for event in domain.perf]
    for name in names:
        if names.count(name) > 1:
            raise xml_error(f"perf event '{name}' was already specified")


def check_memory(domain: Domain) -> None:
    """Modules are part of the memory."""
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


def check_panics(domain: Domain) -> None:
    """One of each model, and one watchdog."""
    models = [panic.model for panic in domain.panics]
    for model in models:
        if models.count(model) > 1:
            raise xml_error(f"Multiple panic devices with model '{model}'")
    if len(domain.watchdogs) > 1:
        raise internal_error("only a single watchdog device is supported")
    if len(domain.tpms) > 2:
        raise xml_error("a maximum of two TPM devices is supported, one of them being a TPM Proxy device")


def check_firmware_blobs(domain: Domain) -> None:
    """Blobs of users have names, and one source of their content."""
    for info in domain.sysinfo:
        for entry in info.entries if isinstance(info, FwCfgs) else ():
            if entry.name is None:
                raise xml_error("Firmware entry is missing 'name' attribute")
            if (entry.text is None) == (entry.file is None):
                raise xml_error("Firmware entry must have either value or 'file' attribute")


def check_threads(domain: Domain) -> None:
    """What is said of a thread is said once, and of one that exists."""
    known = iothread_ids(domain)
    tune = domain.cputune
    if tune is None:
        return
    pins: set[int | None] = set()
    check_cpusets("vcpupin", tune.vcpupins)
    check_cpusets("emulatorpin", [tune.emulatorpin] if tune.emulatorpin is not None else [])
    for pin in tune.iothreadpins:
        if pin.iothread not in known:
            raise conf_error(f"Cannot find 'iothread' : {pin.iothread}")
        if pin.iothread in pins:
            raise internal_error(f"duplicate iothreadpin for same iothread '{pin.iothread}'")
        pins.add(pin.iothread)
    check_cpusets("iothreadpin", tune.iothreadpins)
    vcpus = range(domain.vcpu or 1)
    check_scheds("vcpusched", "vcpus", [one.vcpus for one in tune.vcpuscheds], vcpus)
    check_scheds("iothreadsched", "iothreads", [one.iothreads for one in tune.iothreadscheds], known)


def check_cpusets(kind: str, pins: Sequence[VcpuPin | EmulatorPin | IothreadPin]) -> None:
    """Who is pinned is pinned somewhere.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR.
    """
    if any(pin.cpuset is None for pin in pins):
        raise internal_error(f"missing cpuset for {kind}")


def check_scheds(kind: str, name: str, scheds: list[frozenset[int] | None], known: Container[int]) -> None:
    """A thread is scheduled in one way.

    Raises:
        VirtError: of libvirt's codes.
    """
    seen: set[int] = set()
    for numbers in scheds:
        if numbers is None:
            raise xml_error(f"Missing attribute '{name}' in element '{kind}'")
        missing = next((number for number in sorted(numbers) if number not in known), None)
        if missing is not None and name == "vcpus":
            raise conf_error(f"vCPU '{missing}' is not present in domain definition")
        if missing is not None:
            raise conf_error(f"Cannot find 'iothread' : {missing}")
        if seen & numbers:
            raise detail_error(f"'{kind}' attributes '{name}' must not overlap")
        seen |= numbers


def check_partitions(domain: Domain) -> None:
    """Parts of caches and of the memory's bandwidth do not collide."""
    if domain.cputune is not None:
        resctrl.check(domain.vcpu or 1, domain.cputune.cachetunes, domain.cputune.memorytunes)


def device_labels(domain: Domain) -> Iterator[list[DeviceSeclabel]]:
    """The labels that each single source is given."""
    for disk in domain.disks:
        for source, _ in sources(disk):
            yield source.seclabels
    devices: list[Serial | Parallel | Channel | Console] = [*domain.serials, *domain.parallels]
    for device in [*devices, *domain.channels, *domain.consoles]:
        yield getattr(device.source, "seclabels", [])


def check_device_labels(domain: Domain) -> None:
    """One label for each security driver; who never relabels the guest's files cannot do it for one of them."""
    fixed = {
        label.model
        for label in domain.seclabels
        if label.model is not None and (label.type == "none" or (label.type == "static" and not label.relabel))
    }
    for labels in device_labels(domain):
        model = twice(labels)
        if model is not None:
            raise detail_error(f"seclabel for model {model} is already provided")
        if any(label.model in fixed for label in labels):
            raise conf_error("label overrides require relabeling to be enabled at the domain level")


def check_hostdevs(domain: Domain) -> None:
    """A mediated device is on the bus of its kind."""
    for one in domain.hostdevs:
        kind = one.info.address.kind if one.info.address is not None else None
        if one.type == "mdev" and kind not in (None, MEDIATED_BUSES.get(one.model or "", kind)):
            raise xml_error(f"Unsupported address type '{kind}' with mediated device model '{one.model}'")


def check_timers(domain: Domain) -> None:
    """What each of the machine's clocks can be told."""
    for timer in domain.clock.timers:
        name, text = timer.name, None
        if name in ("kvmclock", "hypervclock") and timer.tickpolicy is not None:
            text = "tickpolicy"
        elif timer.catchup is not None and timer.tickpolicy != "catchup" and timer.catchup.given:
            raise xml_error("setting of timer catchup policies is only supported with tickpolicy='catchup'")
        elif name != "tsc" and timer.frequency:
            text = "frequency"
        elif name != "tsc" and timer.mode is not None:
            text = "mode"
        elif name not in ("platform", "rtc") and timer.track is not None:
            text = "track"
        if text is not None:
            raise conf_error(f"timer {name} doesn't support setting of timer {text}")


def check_keywrap(domain: Domain) -> None:
    """Each kind of keys is wrapped or not."""
    domain.keywraps.sort(key=lambda one: one.name or "")
    names = [one.name for one in domain.keywraps]
    for name in names:
        if names.count(name) > 1:
            raise internal_error(f"A domain definition can have no more than one cipher node with name {name}")


def check_spice_channels(domain: Domain) -> None:
    """A client's agent is on virtio's bus."""
    ports: list[Serial | Parallel | Console] = [*domain.serials, *domain.parallels, *domain.consoles]
    if any(device.source.kind == "spicevmc" for device in ports) or any(
        device.source.kind == "spicevmc" and device.target_type not in (None, "virtio") for device in domain.channels
    ):
        raise conf_error(SPICE_ONLY_VIRTIO)


CHECKS: tuple[Callable[[Domain], None], ...] = (
    check_spice_channels,
    check_seclabels,
    check_threads,
    check_partitions,
    check_device_labels,
    check_isa_serials,
    check_consoles,
    check_numa,
    check_memory,
    check_vcpus,
    check_perf,
    check_keywrap,
    check_timers,
    check_controllers,
    check_no_usb,
    check_hostdevs,
    check_usb_masters,
    check_panics,
    check_boot,
    check_firmware_blobs,
    check_sysinfo,
)
