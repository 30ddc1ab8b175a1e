"""What libvirt's QEMU driver checks of a finished definition. Errors are of VIR_FROM_QEMU."""

from collections.abc import Callable

from virtd import constants as c
from virtd.conf.domain.base import CcwAddress, DriveAddress
from virtd.conf.domain.basics import check_emulator, is_i440fx, is_q35
from virtd.conf.domain.chardev import CharSource, SpicePortSource, SpiceVmcSource
from virtd.conf.domain.controller import Controller
from virtd.conf.domain.devices import PassthroughSmartcard
from virtd.conf.domain.diskvalidate import check_qemu_disk, iothread_ids
from virtd.conf.domain.display import SpiceGraphics
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import detail_error, internal_error, qemu_error
from virtd.conf.domain.hostdev import PciSource
from virtd.conf.domain.implicit import find_controller
from virtd.conf.domain.validate import all_infos
from virtd.conf.host import Emulator, Host, Machine
from virtd.errors import VirtError

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
_ISA_SERIALS = ("isa-serial", "pci-serial", "usb-serial", "isa-debugcon")


SERIAL_ADDRESSES = {"isa-serial": "isa", "usb-serial": "usb", "pci-serial": "pci", "isa-debug": "isa"}
MODEL_TYPES = {
    "isa-serial": "isa-serial",
    "usb-serial": "usb-serial",
    "pci-serial": "pci-serial",
    "isa-debugcon": "isa-debug",
}
MTU_TYPES = ("network", "bridge", "ethernet", "vhostuser")


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
    check_emulator(domain, emulator, host)
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
    orders = {vcpu.order is None for vcpu in domain.vcpus if vcpu.enabled}
    given = sorted(vcpu.order for vcpu in domain.vcpus if vcpu.enabled and vcpu.order is not None)
    if given and domain.vcpus[0].order != 1 and len(orders) == 1:
        raise qemu_error("vcpu0 must be enabled first")
    if len(orders) > 1:
        raise qemu_error("all vcpus must have either set or unset order")
    if domain.vcpu_current == 0:
        raise qemu_error("vcpu 0 can't be offline")
    if (domain.vcpu or 1) > x.machine.max_cpus:
        raise qemu_error(f"Maximum CPUs greater than specified machine type limit {x.machine.max_cpus}")
    if cpu is not None and cpu.sockets and cpu.cores and cpu.threads:
        product = cpu.sockets * (cpu.dies or 1) * cpu.cores * cpu.threads
        if product != domain.vcpu:
            raise qemu_error("CPU topology doesn't match maximum vcpu count")
    if cpu is not None and cpu.addr_mode == "emulate" and cpu.addr_bits is None:
        raise qemu_error("if using CPU maximum physical address mode='emulate', bits= must be specified too")
    if cpu is not None and cpu.addr_mode == "passthrough" and cpu.addr_bits is not None:
        raise qemu_error(
            "CPU maximum physical address bits number specification cannot be used with mode='passthrough'"
        )
    if cpu is not None and cpu.cache_mode is not None:
        if cpu.cache_mode == "passthrough" and cpu.mode not in ("host-passthrough", "maximum"):
            raise qemu_error("CPU cache mode 'passthrough' can only be used with 'host-passthrough' / 'maximum' CPUs")
        if cpu.cache_mode == "emulate" and cpu.cache_level != 3:
            raise qemu_error("CPU cache mode 'emulate' can only be used with level='3'")


def check_inputs(x: Context) -> None:
    """Only devices handed through from the host have virtio's variants."""
    for one in x.domain.inputs:
        if one.model is not None and one.model.endswith("transitional") and one.type != "evdev":
            raise qemu_error(f"virtio (non-)transitional models are not supported for input type={one.type}")


def check_timers(x: Context) -> None:
    """What QEMU's clocks can do."""
    domain = x.domain
    for timer in domain.clock.timers:
        name = timer.name
        if name == "platform":
            raise qemu_error("unsupported timer type (name) 'platform'")
        if name == "armvtimer":
            raise qemu_error(
                f"Configuring the 'armvtimer' timer is not supported for virtType={domain.type} "
                f"arch={domain.os.arch} machine={domain.os.machine} guests"
            )
        if name == "rtc" and timer.track not in (None, "guest", "wall"):
            raise qemu_error(f"unsupported rtc timer track '{timer.track}'")
        if name in TICK_POLICIES and timer.tickpolicy not in (None, *TICK_POLICIES[name]):
            words = f"{name} timer tickpolicy" if name == "rtc" else f"{name} tickpolicy"
            raise qemu_error(f"unsupported {words} '{timer.tickpolicy}'")


TICK_POLICIES = {"rtc": ("delay", "catchup"), "pit": ("delay", "catchup", "discard")}


def check_backing(x: Context) -> None:
    """Huge pages are files, and taken at once."""
    backing = x.domain.memory_backing
    if backing is None or backing.hugepages is None:
        return
    if backing.allocation == "ondemand":
        raise qemu_error("hugepages are not allowed with memory allocation ondemand")
    if backing.source == "anonymous":
        raise qemu_error("hugepages are not allowed with anonymous memory source")


def check_events(x: Context) -> None:
    """What QEMU's guests can do at the end."""
    domain = x.domain
    for action in (domain.on_poweroff, domain.on_reboot, domain.on_crash):
        if action == "rename-restart":
            raise qemu_error(
                "qemu driver doesn't support the 'rename-restart' action for 'on_reboot'/'on_poweroff'/'on_crash'"
            )
    if "preserve" in (domain.on_poweroff, domain.on_reboot):
        raise qemu_error("qemu driver doesn't support the 'preserve' action for 'on_reboot'/'on_poweroff'")
    if domain.on_reboot == "destroy" and domain.on_poweroff == "restart":
        raise qemu_error("qemu driver doesn't support 'onReboot' set to 'destroy and 'onPoweroff' set to 'reboot'")


def check_firmware(x: Context) -> None:
    """UEFI needs ACPI."""
    domain = x.domain
    loader = domain.os.loader
    flash = (loader is not None and loader.type == "pflash") or domain.os.firmware == "efi"
    if flash and not (domain.features is not None and domain.features.acpi):
        raise qemu_error("UEFI requires ACPI on this architecture")
    smm = domain.features is not None and domain.features.smm
    if loader is not None and loader.secure:
        if not x.q35:
            raise qemu_error("Secure boot is supported with q35 machine types only")
        if not smm:
            raise qemu_error("Secure boot requires SMM feature enabled")
    if domain.os.bios_serial and not domain.serials:
        text = "need at least one serial port to use BIOS serial output"
        raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_QEMU)
    if domain.features is not None and domain.features.smm_tseg is not None and not x.q35:
        raise qemu_error("SMM TSEG is only supported with q35 machine type")


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
        if not video.primary and model not in ("qxl", "virtio", "none"):
            raise qemu_error(f"video type '{model}' is only valid as primary video device")
        accel = video.acceleration
        if accel is not None and accel.accel2d:
            raise qemu_error("qemu does not support the accel2d setting")
        if accel is not None and accel.accel3d and model != "virtio":
            raise qemu_error("3d acceleration is supported only with 'virtio' video device")
        if video.width and model not in ("vga", "qxl", "virtio", "bochs", "none"):
            text = "model resolution is not supported"
            raise VirtError(c.VIR_ERR_XML_ERROR, text, domain=c.VIR_FROM_QEMU)
        if video.heads not in (None, 1) and model not in ("qxl", "virtio"):
            raise qemu_error(f"video type '{model}' doesn't support multiple 'heads'")


def check_disks(x: Context) -> None:
    """See diskvalidate."""
    for disk in x.domain.disks:
        check_qemu_disk(x.domain, disk)


def check_addresses(x: Context) -> None:
    """Channel devices are IBM's; SCSI host devices have the places that disks have."""
    for info in all_infos(x.domain):
        if isinstance(info.address, CcwAddress):
            raise qemu_error(
                f"cannot use CCW address type for device '{info.alias}' using machine type '{x.domain.os.machine}'"
            )
    for hostdev in x.domain.hostdevs:
        address = hostdev.info.address
        if hostdev.type == "scsi" and isinstance(address, DriveAddress) and address.target:
            controller = find_controller(x.domain, "scsi", address.controller)
            if controller is not None and controller.model == "lsilogic":
                raise qemu_error("target must be 0 for controller model 'lsilogic'")


def check_memory(x: Context) -> None:
    """Memory is plugged into slots that must have been planned, on NUMA cells."""
    domain = x.domain
    cells = domain.cpu.numa.cells if domain.cpu is not None and domain.cpu.numa is not None else []
    if domain.max_memory is not None and not cells:
        raise qemu_error("At least one numa node has to be configured when enabling memory hotplug")
    for device in domain.memory_devices:
        if domain.max_memory is None:
            raise qemu_error("cannot use/hotplug a memory device when domain 'maxMemory' is not defined")
        if device.model == "sgx-epc":
            raise qemu_error("sgx epc isn't supported by this QEMU binary")
        if device.node is not None and device.node >= len(cells):
            raise detail_error(
                f"can't add memory backend for guest node '{device.node}' as the guest has only '{len(cells)}' NUMA "
                "nodes configured"
            )
        if device.node is None and device.model != "virtio-pmem":
            raise qemu_error("target NUMA node needs to be specified for memory device")


def check_iommu(x: Context) -> None:
    """The machine must have been made for an IOMMU."""
    iommu = x.domain.iommu
    if iommu is None:
        return
    if iommu.intremap and not (x.domain.features is not None and x.domain.features.ioapic == "qemu"):
        raise qemu_error("IOMMU interrupt remapping requires split I/O APIC (ioapic driver='qemu')")
    if iommu.model == "intel" and not x.q35:
        raise qemu_error("IOMMU device: 'intel' is only supported with Q35 machines")
    if iommu.model == "virtio":
        if not x.q35:
            raise qemu_error("IOMMU device: 'virtio' is only supported with Q35 and ARM Virt machines")
        if not (x.domain.features is not None and x.domain.features.acpi):
            raise qemu_error("IOMMU device: 'virtio' requires ACPI")
    if iommu.model == "smmuv3":
        raise qemu_error("IOMMU device: 'smmuv3' is only supported with ARM Virt machines")


def check_audio(x: Context) -> None:
    """SPICE's sound needs SPICE."""
    if any(audio.type == "spice" for audio in x.domain.audios) and not x.spice:
        raise qemu_error("Spice audio is not supported without spice graphics")


def check_tpms(x: Context) -> None:
    """What TPMs a PC has."""
    for tpm in x.domain.tpms:
        if not x.emulator.has(tpm.model or ""):
            raise qemu_error(f"The QEMU executable {x.emulator.path} does not support TPM model {tpm.model}")
    if len(x.domain.tpms) > 1:
        raise qemu_error("only a single TPM non-proxy device is supported")


def check_filesystems(x: Context) -> None:
    """How directories can be shared."""
    for one in x.domain.filesystems:
        if one.type != "mount":
            raise qemu_error("only supports mount filesystem type")
        driver = one.driver.type if one.driver is not None else None
        if (one.fmode or one.dmode) and one.accessmode != "mapped":
            raise qemu_error("fmode and dmode must be used with accessmode=mapped")
        backing = x.domain.memory_backing
        if driver == "virtiofs" and one.readonly:
            raise qemu_error("virtiofs does not yet support read-only mode")
        if driver == "virtiofs" and one.accessmode not in (None, "passthrough"):
            raise qemu_error("virtiofs only supports passthrough accessmode")
        if driver == "virtiofs" and not (backing is not None and backing.access == "shared"):
            raise qemu_error("'virtiofs' requires shared memory")


def check_others(x: Context) -> None:
    """Devices of other architectures, and more of some than there can be."""
    for watchdog in x.domain.watchdogs:
        if watchdog.model == "diag288":
            raise qemu_error("diag288 model of watchdog is allowed for s390 and s390x only")
        address = watchdog.info.address
        if watchdog.model == "i6300esb" and address is not None and address.kind != "pci":
            raise qemu_error("i6300esb model of watchdog can go only on PCI bus")
        if watchdog.model == "ib700" and address is not None:
            raise qemu_error("ib700 model of watchdog does not support configuring the address")
    for hostdev in x.domain.hostdevs:
        if hostdev.mode != "subsystem":
            raise qemu_error(f"hostdev mode '{hostdev.mode}' is not supported in qemu")
        if isinstance(hostdev.source, PciSource) and hostdev.source.write_filtering is not None:
            raise qemu_error("Write filtering of PCI device configuration space is not supported by qemu")
        address = hostdev.info.address
        if hostdev.type == "pci" and address is not None and address.kind not in ("pci", "unassigned"):
            text = "PCI host devices must use 'pci' or 'unassigned' address type"
            raise internal_error(text, domain=c.VIR_FROM_QEMU)
        if hostdev.display and not x.domain.graphics:
            raise qemu_error("graphics device is needed for attribute value 'display=on' in <hostdev>")
        if hostdev.type == "mdev" and hostdev.model in ("vfio-ap", "vfio-ccw"):
            name = hostdev.model[5:].upper()
            raise qemu_error(f"VFIO {name} device assignment is not supported by this version of QEMU")
    for panic in x.domain.panics:
        if panic.model == "pseries":
            raise qemu_error("only pSeries guests support panic device of model 'pseries'")
        if panic.model == "s390":
            raise qemu_error("only S390 guests support panic device of model 's390'")
        if panic.model == "isa" and panic.info.address is not None and panic.info.address.kind != "isa":
            raise qemu_error("panic is supported only with ISA address type")
        if panic.model == "hyperv" and panic.info.address is not None:
            raise qemu_error("setting the panic device address is not supported for model 'hyperv'")
    if len(x.domain.smartcards) > 1:
        raise qemu_error("this QEMU binary lacks multiple smartcard support")


def check_interfaces(x: Context) -> None:
    """Queues of a virtio card."""
    for interface in x.domain.interfaces:
        if (interface.ips and interface.type != "user") or interface.routes:
            raise qemu_error(
                "Invalid attempt to set network interface guest-side IP route and/or address info, not "
                "supported by QEMU"
            )
        if interface.mtu is not None and interface.type not in MTU_TYPES:
            raise qemu_error(f"setting MTU on interface type {interface.type} is not supported yet")
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
    for console in x.domain.consoles:
        if console.target_type in ("xen", "uml", "lxc", "openvz"):
            raise qemu_error(f"unsupported console target type {console.target_type}")
        if console.target_type in ("sclp", "sclplm"):
            raise qemu_error(f"{console.target_type}console is not supported in this QEMU binary")
    for serial in x.domain.serials:
        wanted = SERIAL_ADDRESSES.get(serial.target_type or "")
        address = serial.info.address
        if wanted is not None and address is not None and address.kind != wanted:
            raise qemu_error(f"Target type '{serial.target_type}' requires address type '{wanted}'")
        if serial.model in MODEL_TYPES and serial.target_type != MODEL_TYPES[serial.model]:
            raise qemu_error(f"Target model '{serial.model}' requires target type '{MODEL_TYPES[serial.model]}'")
        if serial.model not in _ISA_SERIALS:
            raise qemu_error(
                f"Serial device with target type '{serial.target_type}' and target model '{serial.model}' not "
                "compatible with guest architecture or machine type"
            )


SCSI_DRIVER = (
    ("queues", "queues"),
    ("cmd_per_lun", "cmd_per_lun"),
    ("max_sectors", "max_sectors"),
    ("ioeventfd", "ioeventfd"),
    ("iothread", "iothread"),
)
BRIDGES = {
    "pci-bridge": ("pci-bridge", ("chassis_nr",)),
    "dmi-to-pci-bridge": ("i82801b11-bridge", ()),
    "pcie-to-pci-bridge": ("pcie-pci-bridge", ()),
    "pcie-root-port": (None, ("chassis", "port", "hotplug")),
    "pcie-switch-upstream-port": ("x3130-upstream", ()),
    "pcie-switch-downstream-port": ("xio3130-downstream", ("chassis", "port", "hotplug")),
    "pci-expander-bus": ("pxb", ("bus_nr", "node")),
    "pcie-expander-bus": ("pxb-pcie", ("bus_nr", "node")),
    "pci-root": ("none", ("pcihole64",)),
    "pcie-root": ("none", ("pcihole64",)),
}
OPTIONS = {
    "chassis_nr": "chassisNr",
    "chassis": "chassis",
    "port": "port",
    "bus_nr": "busNr",
    "hotplug": "hotplug",
    "pcihole64": "pcihole64",
    "target_index": "targetIndex",
    "node": "numaNode",
}


def check_bridge(one: Controller) -> None:
    """Each kind of bridge has its device, and its numbers."""
    device, allowed = BRIDGES.get(one.model or "", (None, ()))
    what = f"PCI controller with index '{one.index}', model '{one.model}' and modelName '{one.model_name or 'none'}'"
    if device == "none":
        if one.model_name is not None:
            raise qemu_error(f"Option 'modelName' is not valid for {what}")
    elif one.model == "pcie-root-port":
        if one.model_name not in ("pcie-root-port", "ioh3420"):
            raise qemu_error(f"Option 'modelName' has invalid value for {what}")
    elif device is not None and one.model_name != device:
        raise qemu_error(f"Option 'modelName' has invalid value for {what}")
    for field, name in OPTIONS.items():
        if getattr(one, field) is not None and field not in allowed:
            raise qemu_error(f"Option '{name}' is not valid for {what}")


def check_scsi(x: Context, one: Controller) -> None:
    """What only virtio-scsi can be told, and adapters that a PC does not have."""
    virtio = one.type == "scsi" and (one.model or "").startswith("virtio")
    for field, name in SCSI_DRIVER:
        value = getattr(one.driver, field)
        if value and not virtio:
            raise qemu_error(f"'{name}' is only supported by virtio-scsi controller")
    if one.driver.iothread and one.driver.iothread not in iothread_ids(x.domain):
        raise qemu_error(f"controller iothread '{one.driver.iothread}' not defined in iothreadid")


def check_controllers(x: Context) -> None:
    """Controllers that the machine cannot have, and what only some can be told."""
    for one in x.domain.controllers:
        if one.type == "ide":
            if not x.i440fx:
                raise qemu_error("IDE controllers are unsupported for this QEMU binary or machine type")
            if one.index:
                raise qemu_error("Only a single IDE controller is supported for this machine type")
        if one.type == "usb" and one.model in ("nec-xhci", "qemu-xhci") and (one.ports or 0) > 15:
            raise qemu_error(f"'{one.model}' controller only supports up to '15' ports")
        if one.type == "usb" and one.model in ("qusb1", "qusb2"):
            raise qemu_error("USB controller model type 'qusb1' or 'qusb2' is not supported in qemu")
        if one.type == "pci":
            check_bridge(one)
        else:
            check_scsi(x, one)


def check_shmems(x: Context) -> None:
    """The first kind of shared memory is gone from QEMU."""
    for shmem in x.domain.shmems:
        if not x.emulator.has(shmem.model or ""):
            raise qemu_error("ivshmem device is not supported with this QEMU binary")
        if shmem.model == "ivshmem-plain" and shmem.server:
            raise qemu_error("shmem model 'ivshmem-plain' is supported only with server option disabled")
        if shmem.model == "ivshmem-doorbell" and not shmem.server:
            raise qemu_error("shmem model 'ivshmem-doorbell' is supported only with server option enabled")


CHECKS: tuple[Callable[[Context], None], ...] = (
    check_vcpus,
    check_firmware,
    check_events,
    check_timers,
    check_inputs,
    check_backing,
    check_graphics,
    check_videos,
    check_disks,
    check_interfaces,
    check_chardevs,
    check_controllers,
    check_shmems,
    check_memory,
    check_iommu,
    check_audio,
    check_tpms,
    check_filesystems,
    check_others,
    check_addresses,
)
