"""What libvirt's QEMU driver checks of a finished definition. Errors are of VIR_FROM_QEMU."""

from collections.abc import Callable

from virtd import constants as c
from virtd.conf.domain.basics import check_emulator, internal_error, is_i440fx, is_q35, qemu_error
from virtd.conf.domain.chardev import CharSource, SpicePortSource, SpiceVmcSource
from virtd.conf.domain.devices import PassthroughSmartcard
from virtd.conf.domain.disk import NetworkSource
from virtd.conf.domain.display import SpiceGraphics
from virtd.conf.domain.domain import Domain
from virtd.conf.host import Emulator, Host, Machine

_VIDEO_DEVICES = {
    "vga": "VGA",
    "cirrus": "cirrus-vga",
    "vmvga": "vmware-svga",
    "qxl": "qxl",
    "virtio": "virtio-gpu-pci",
    "bochs": "bochs-display",
    "ramfb": "ramfb",
    "none": None,
}
_UNSUPPORTED_PROTOCOLS = ("tftp",)
_ISA_SERIALS = ("isa-serial", "pci-serial", "usb-serial", "isa-debugcon")


class Context:
    """What the checks look at."""

    def __init__(self, domain: Domain, host: Host, emulator: Emulator, machine: Machine) -> None:
        self.domain = domain
        self.host = host
        self.emulator = emulator
        self.machine = machine
        self.q35 = is_q35(machine.name)
        self.i440fx = is_i440fx(machine.name)
        self.spice = any(isinstance(graphics, SpiceGraphics) for graphics in domain.graphics)


def validate(domain: Domain, host: Host, emulator: Emulator, machine: Machine) -> None:
    """Check a finished definition against what QEMU can do.

    Raises:
        VirtError: with libvirt's code for the first thing that is wrong.
    """
    check_emulator(domain, emulator)
    context = Context(domain, host, emulator, machine)
    for check in CHECKS:
        check(context)


def check_vcpus(x: Context) -> None:
    """The first vCPU is always there, and the topology agrees with the number."""
    domain = x.domain
    for vcpu in domain.vcpus:
        if vcpu.id == 0 and vcpu.enabled is False:
            raise qemu_error("vcpu 0 can't be offline")
    cpu = domain.cpu
    if cpu is not None and cpu.sockets and cpu.cores and cpu.threads:
        product = cpu.sockets * (cpu.dies or 1) * cpu.cores * cpu.threads
        if product != domain.vcpu:
            raise qemu_error("CPU topology doesn't match maximum vcpu count")
    if cpu is not None and cpu.cache_mode is not None:
        if cpu.cache_mode == "passthrough" and cpu.mode not in ("host-passthrough", "maximum"):
            raise qemu_error("CPU cache mode 'passthrough' can only be used with 'host-passthrough' / 'maximum' CPUs")
        if cpu.cache_mode == "emulate" and cpu.cache_level not in (None, 3):
            raise qemu_error("CPU cache mode 'emulate' can only be used with level='3'")


def check_firmware(x: Context) -> None:
    """UEFI needs ACPI."""
    domain = x.domain
    loader = domain.os.loader
    flash = (loader is not None and loader.type == "pflash") or domain.os.firmware == "efi"
    if flash and not (domain.features is not None and domain.features.acpi):
        raise qemu_error("UEFI requires ACPI on this architecture")


def check_graphics(x: Context) -> None:
    """Displays that QEMU does not have, and TLS where it is not set up."""
    for graphics in x.domain.graphics:
        if graphics.kind in ("rdp", "desktop"):
            raise qemu_error(f"{graphics.kind} graphics are not supported with this QEMU")
        if isinstance(graphics, SpiceGraphics) and graphics.tls_port and "spice_tls" not in x.host.settings:
            raise qemu_error("spice TLS port set in XML configuration, but TLS is disabled in qemu.conf")


def check_videos(x: Context) -> None:
    """Graphics cards that QEMU does not have."""
    for video in x.domain.videos:
        model = video.model or ""
        device = _VIDEO_DEVICES.get(model, "")
        if device == "" or (device is not None and not x.emulator.has(device)):
            raise qemu_error(f"domain configuration does not support video model '{model}'")


def check_disks(x: Context) -> None:
    """What only some buses can have."""
    for disk in x.domain.disks:
        if disk.serial is not None and disk.bus in ("fdc", "sd"):
            raise internal_error(f"Serial property not supported for drive bus '{disk.bus}'", domain=c.VIR_FROM_QEMU)
        if disk.bus == "virtio" and disk.device in ("cdrom", "floppy"):
            raise qemu_error(f"disk type of '{disk.target}' does not support ejectable media")
        source = disk.source
        if isinstance(source, NetworkSource) and source.protocol in _UNSUPPORTED_PROTOCOLS:
            raise qemu_error(f"'{source.protocol}' protocol is not supported with this QEMU binary")


def check_interfaces(x: Context) -> None:
    """Queues of a virtio card."""
    for interface in x.domain.interfaces:
        driver = interface.driver
        if driver is None:
            continue
        for name in ("rx_queue_size", "tx_queue_size"):
            size = getattr(driver, name)
            if size and size & (size - 1):
                raise qemu_error(f"{name} has to be a power of two")


def check_chardevs(x: Context) -> None:
    """SPICE's channels need SPICE; serial ports must exist on the machine."""
    sources: list[CharSource] = [device.source for device in x.domain.serials]
    sources += [device.source for device in x.domain.parallels]
    sources += [device.source for device in x.domain.consoles]
    sources += [device.source for device in x.domain.channels]
    sources += [device.source for device in x.domain.redirdevs]
    sources += [card.source for card in x.domain.smartcards if isinstance(card, PassthroughSmartcard)]
    for source in sources:
        if isinstance(source, SpiceVmcSource | SpicePortSource) and not x.spice:
            raise qemu_error(f"chardev '{source.kind}' not supported without spice graphics")
    for serial in x.domain.serials:
        if serial.model not in _ISA_SERIALS:
            raise qemu_error(
                f"Serial device with target type '{serial.target_type}' and target model '{serial.model}' not "
                "compatible with guest architecture or machine type"
            )


def check_controllers(x: Context) -> None:
    """Controllers that the machine cannot have, and what only some can be told."""
    for one in x.domain.controllers:
        if one.type == "ide" and not x.i440fx:
            raise qemu_error("IDE controllers are unsupported for this QEMU binary or machine type")
        if one.type == "usb" and one.model in ("nec-xhci", "qemu-xhci") and (one.ports or 0) > 15:
            raise qemu_error(f"'{one.model}' controller only supports up to '15' ports")
        if one.type == "pci" and one.bus_nr is not None and "expander" not in (one.model or ""):
            raise qemu_error(
                f"Option 'busNr' is not valid for PCI controller with index '{one.index}', model '{one.model}' "
                f"and modelName '{one.model_name}'"
            )


def check_shmems(x: Context) -> None:
    """The first kind of shared memory is gone from QEMU."""
    for shmem in x.domain.shmems:
        if shmem.model in (None, "ivshmem") and not x.emulator.has("ivshmem"):
            raise qemu_error("ivshmem device is not supported with this QEMU binary")


CHECKS: tuple[Callable[[Context], None], ...] = (
    check_vcpus,
    check_firmware,
    check_graphics,
    check_videos,
    check_disks,
    check_interfaces,
    check_chardevs,
    check_controllers,
    check_shmems,
)
