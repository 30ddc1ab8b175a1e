"""What follows from the definition itself and from the emulator, before devices are looked at.

Name, memory, vCPUs, OS, machine type, CPU: defaults as libvirt makes them, and its errors where they cannot be made.
"""

import uuid
from collections.abc import Iterator

from virtd import constants as c
from virtd.conf.domain.base import Device, Info
from virtd.conf.domain.cpu import Cpu, Vcpu
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.errors import conf_error, internal_error, qemu_error, xml_error
from virtd.conf.domain.os import BootDevice, Nvram
from virtd.conf.host import Emulator, Host, Machine, words
from virtd.errors import VirtError

# The architectures of libvirt's virArch, which are names it knows even where nothing runs them.
ARCHES = words(
    """
    alpha armv6l armv7l armv7b aarch64 cris i686 ia64 lm32 loongarch64 m68k microblaze microblazeel mips mipsel mips64
    mips64el or32 parisc parisc64 ppc ppc64 ppc64le ppcemb riscv32 riscv64 s390 s390x sh4 sh4eb sparc sparc64
    unicore32 x86_64 xtensa xtensaeb
    """
)


def check_name(domain: Domain) -> None:
    """A guest must have a name that can be a file's.

    Raises:
        VirtError: VIR_ERR_NO_NAME, VIR_ERR_XML_ERROR or VIR_ERR_XML_DETAIL.
    """
    if domain.name is None:
        raise VirtError(c.VIR_ERR_NO_NAME, None, domain=c.VIR_FROM_DOMAIN)
    if domain.type is None:
        raise internal_error("missing domain type attribute")
    if "/" in domain.name:
        raise xml_error(f"name {domain.name} cannot contain '/'")
    if "\n" in domain.name:
        raise VirtError(c.VIR_ERR_XML_DETAIL, f"invalid char in name: {chr(10)}", domain=c.VIR_FROM_XML)
    if domain.title is not None and "\n" in domain.title:
        raise xml_error("Domain title can't contain newlines")


def fill_top(domain: Domain) -> None:
    """What has a default without knowing the machine."""
    if domain.uuid is None:
        domain.uuid = str(uuid.uuid4())
    fill_os(domain)
    fill_memory(domain)
    fill_vcpus(domain)
    domain.on_poweroff = domain.on_poweroff or "destroy"
    domain.on_reboot = domain.on_reboot or "restart"
    domain.on_crash = domain.on_crash or "destroy"


def fill_memory(domain: Domain) -> None:
    """Initial, current and maximum memory, and what the NUMA cells add up to."""
    cells = domain.cpu.numa.cells if domain.cpu is not None and domain.cpu.numa is not None else []
    plugged = sum(device.size or 0 for device in domain.memory_devices)
    total = sum(cell.memory or 0 for cell in cells)
    if total:
        domain.memory = total + plugged
    elif not domain.memory or domain.memory == plugged:
        raise xml_error("Memory size must be specified via <memory> or in the <numa> configuration")
    if not domain.current_memory or domain.current_memory > (domain.memory or 0):
        domain.current_memory = domain.memory
    if bool(domain.max_memory_slots) != bool(domain.max_memory):
        raise xml_error("both maximum memory size and memory slot count must be specified")
    if domain.max_memory and domain.max_memory < (domain.memory or 0):
        raise xml_error("maximum memory size must be equal or greater than the actual memory size")


def fill_vcpus(domain: Domain) -> None:
    """How many vCPUs there are, and which of them are there at start."""
    if domain.vcpu is None:
        domain.vcpu = 1
    if domain.vcpu == 0:
        raise internal_error("CPU IDs in <numa> exceed the <vcpu> count")
    if domain.vcpus:
        fill_single_vcpus(domain)
    domain.vcpu_placement = domain.vcpu_placement or "static"
    if domain.vcpu_current is not None:
        if domain.vcpu_current > domain.vcpu:
            raise conf_error("maximum vCPU count must not be less than current vCPU count")
        if domain.vcpu_current == domain.vcpu:
            domain.vcpu_current = None


def fill_single_vcpus(domain: Domain) -> None:
    """Where vCPUs are listed one by one, all are, and those that are there at start are counted."""
    listed: dict[int, Vcpu] = {}
    for vcpu in domain.vcpus:
        if (vcpu.id or 0) >= (domain.vcpu or 1):
            raise xml_error(f"vcpu id '{vcpu.id}' is out of range of maximum vcpu count")
        listed[vcpu.id or 0] = vcpu
    domain.vcpus = [listed.get(number) or Vcpu(id=number, enabled=False) for number in range(domain.vcpu or 1)]
    for vcpu in domain.vcpus:
        if vcpu.hotpluggable is None:
            vcpu.hotpluggable = not vcpu.enabled
        if not vcpu.enabled and not vcpu.hotpluggable:
            raise conf_error(f"vcpu '{vcpu.id}' is both offline and not hotpluggable")
    domain.vcpu_current = sum(bool(vcpu.enabled) for vcpu in domain.vcpus)


def fill_os(domain: Domain) -> None:
    """What is booted: the type must be known; the first hard disk if nothing else is said."""
    os = domain.os
    if os.type is None:
        raise xml_error("an os <type> must be specified")
    if os.arch is not None and os.arch not in ARCHES:
        raise conf_error(f"Unknown architecture {os.arch}")


def default_boot(domain: Domain) -> None:
    """Boot from the hard disk, unless devices have an order of their own."""
    if not domain.os.boot and not any(info.boot_order for info in device_infos(domain)):
        domain.os.boot.append(BootDevice(dev="hd"))


def device_infos(domain: Domain) -> Iterator[Info]:
    """The Info of every device that may have a boot order."""
    devices: list[Device] = [*domain.disks, *domain.interfaces, *domain.hostdevs, *domain.redirdevs]
    devices += domain.filesystems
    return (device.info for device in devices)


def choose_emulator(domain: Domain, host: Host) -> tuple[Emulator, Machine]:
    """Fill in emulator, architecture and machine type.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED if the emulator cannot do what is asked for.
    """
    os = domain.os
    os.arch = os.arch or host.arch
    if domain.emulator is None:
        domain.emulator = host.emulator_for(os.arch)
    emulator = host.emulator(domain.emulator)
    if os.machine is None:
        if domain.type not in emulator.virt_types:
            raise VirtError(
                c.VIR_ERR_INVALID_ARG,
                f"could not get preferred machine for {emulator.path} type={domain.type}",
                domain=c.VIR_FROM_QEMU,
            )
        os.machine = emulator.default_machine
    machine = emulator.machines.get(os.machine)
    if machine is not None and domain.type in emulator.virt_types:
        os.machine = machine.name
    return emulator, machine or Machine(os.machine)


def check_bootloader(domain: Domain) -> None:
    """A virtual machine boots by itself.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED.
    """
    if domain.bootloader is not None or domain.bootloader_args is not None:
        raise qemu_error("bootloader is not supported by QEMU")


def check_tseg(domain: Domain) -> None:
    """How much memory SMM has is a matter of the q35's chip set.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED.
    """
    if (
        domain.features is not None
        and domain.features.smm
        and domain.features.smm_tseg is not None
        and not pcie(domain)
    ):
        raise qemu_error("SMM TSEG is only supported with q35 machine type")


def fill_nvram(domain: Domain, host: Host) -> None:
    """Where a UEFI firmware keeps this guest's variables, if that is not said."""
    loader, nvram = domain.os.loader, domain.os.nvram
    if loader is None or loader.type != "pflash" or not loader.readonly or loader.stateless:
        return
    if nvram is None:
        nvram = domain.os.nvram = Nvram()
    if nvram.path is None and nvram.source is None:
        nvram.path = f"{host.nvram_dir}/{domain.name}_VARS.fd"


def check_emulator(domain: Domain, emulator: Emulator, host: Host) -> None:
    """Whether the emulator runs such guests at all.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED.
    """
    os = domain.os
    if domain.type not in emulator.virt_types:
        reason = host.why_not(domain.type or "")
        raise qemu_error(
            f"Emulator '{emulator.path}' does not support virt type '{domain.type}'{reason and f': {reason}'}"
        )
    if os.type not in ("hvm",):
        raise qemu_error(f"Emulator '{emulator.path}' does not support os type '{os.type}'")
    if os.arch not in emulator.arches:
        raise qemu_error(f"Emulator '{emulator.path}' does not support arch '{os.arch}'")
    if os.machine not in emulator.machines:
        raise qemu_error(f"Emulator '{emulator.path}' does not support machine type '{os.machine}'")


def fill_cpu(domain: Domain, emulator: Emulator, machine: Machine) -> None:
    """The CPU: the machine's default if none is named, with what libvirt says of it."""
    cpu = domain.cpu
    if cpu is None:
        cpu = domain.cpu = Cpu()
    if cpu.mode is None and cpu.model is not None:
        cpu.mode = "custom"
    bare = cpu.mode is None or (cpu.mode == "custom" and cpu.model is None)
    if bare:
        cpu.mode, cpu.model, cpu.model_fallback = "custom", machine.default_cpu, "forbid"
        cpu.match = "exact"
        cpu.check = "none"
    if cpu.mode == "custom":
        cpu.match = cpu.match or "exact"
        cpu.model_fallback = cpu.model_fallback or "allow"
    else:
        cpu.match = None
        if cpu.mode in ("host-passthrough", "maximum"):
            cpu.model_fallback = cpu.model = cpu.vendor_id = None
            if cpu.mode == "host-passthrough" and cpu.migratable is None:
                cpu.migratable = "x86_64" in emulator.arches
        elif cpu.model is None:
            cpu.model_fallback = None
        else:
            cpu.model_fallback = cpu.model_fallback or "allow"
    if cpu.check is None:
        if cpu.mode == "host-model" or (cpu.mode == "custom" and domain.type != "qemu"):
            cpu.check = "partial"
        else:
            cpu.check = "none"
    if cpu.sockets is not None:
        cpu.dies = cpu.dies or 1
    cells = cpu.numa.cells if cpu.numa is not None else []
    if cells:
        placed = {number for cell in cells for number in cell.cpus or ()}
        rest = frozenset(number for number in range(domain.vcpu or 1) if number not in placed)
        cells[0].cpus = (cells[0].cpus or frozenset()) | rest or None
    for feature in cpu.features:
        feature.policy = feature.policy or "require"


def pcie(domain: Domain) -> bool:
    """Whether the machine is a q35."""
    return is_q35(domain.os.machine or "")


def is_q35(machine: str) -> bool:
    """Whether a machine type is of the q35 family."""
    return machine == "q35" or machine.startswith("pc-q35")


def is_i440fx(machine: str) -> bool:
    """Whether a machine type is of the i440fx family."""
    return machine in ("pc", "rhel") or machine.startswith(("pc-0.", "pc-1.", "pc-i440", "rhel"))
