"""What the QEMU driver checks of a definition as a whole, before its devices. Errors are of VIR_FROM_QEMU."""

from collections.abc import Callable

from virtd import constants as c
from virtd.conf.domain.basics import check_emulator
from virtd.conf.domain.check.rules import Context
from virtd.conf.domain.disk import BlockSource, FileSource, NetworkSource
from virtd.conf.domain.errors import qemu_error, xml_error
from virtd.conf.domain.os import FwCfgs

MAX_START = 253402300799
MAX_VCPUS = 255
"""How many virtual CPUs there can be without extended interrupt mode."""

# Features of other machines: (field, libvirt's name).
FOREIGN_FEATURES = (
    ("gic", "gic"),
    ("hpt_resizing", "hpt"),
    ("hpt_page_size", "hpt"),
    ("htm", "htm"),
    ("nested_hv", "nested-hv"),
    ("ccf_assist", "ccf-assist"),
    ("cfpc", "cfpc"),
    ("sbbc", "sbbc"),
    ("ibs", "ibs"),
)
MUST_SAY = ("htm", "nested_hv", "ccf_assist")
TICK_POLICIES = {"rtc": (None, "delay", "catchup"), "pit": (None, "delay", "catchup", "discard")}


def check_parameters(x: Context) -> None:
    """What QEMU does not have."""
    memtune = x.domain.memtune
    if memtune is not None and memtune.min_guarantee:
        raise qemu_error("Parameter 'min_guarantee' not supported by QEMU.")


def check_firmware(x: Context) -> None:
    """UEFI needs ACPI."""
    domain = x.domain
    loader, features = domain.os.loader, domain.features
    flash = (loader is not None and loader.type == "pflash") or domain.os.firmware == "efi"
    if flash and not (features is not None and features.acpi):
        raise qemu_error("UEFI requires ACPI on this architecture")
    if domain.os.bios_serial and not domain.serials:
        raise xml_error("need at least one serial port to use BIOS serial output", domain=c.VIR_FROM_QEMU)


def check_features(x: Context) -> None:
    """What belongs to other machines."""
    domain, features = x.domain, x.domain.features
    if features is None:
        return
    for field, name in FOREIGN_FEATURES:
        if getattr(features, field) not in (None, False) or (field in MUST_SAY and getattr(features, field) is False):
            raise qemu_error(
                f"The '{name}' feature is not supported for architecture '{domain.os.arch}' or machine type "
                f"'{domain.os.machine}'"
            )
    if features.tcg_tb_cache is not None:
        if domain.type != "qemu":
            raise qemu_error(f"TCG features are incompatible with domain type '{domain.type}'")
        if features.tcg_tb_cache % 1024:
            raise qemu_error("tb-cache size must be an integer multiple of MiB")


def check_cpu(x: Context) -> None:
    """What can be said of caches and addresses."""
    cpu = x.domain.cpu
    if cpu is None:
        return
    if cpu.addr_mode == "passthrough" and cpu.addr_bits is not None:
        raise qemu_error(
            "CPU maximum physical address bits number specification cannot be used with mode='passthrough'"
        )
    if cpu.addr_mode == "emulate" and cpu.addr_bits is None:
        raise qemu_error("if using CPU maximum physical address mode='emulate', bits= must be specified too")
    mode, level = cpu.cache_mode, cpu.cache_level
    if mode == "emulate" and level != 3:
        raise qemu_error("CPU cache mode 'emulate' can only be used with level='3'")
    if mode == "passthrough" and cpu.mode not in ("host-passthrough", "maximum"):
        raise qemu_error("CPU cache mode 'passthrough' can only be used with 'host-passthrough' / 'maximum' CPUs")
    if mode in ("passthrough", "disable") and level is not None:
        raise qemu_error(f"unsupported CPU cache level for mode '{mode}'")


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


def check_clock(x: Context) -> None:
    """What QEMU's clocks can do."""
    domain = x.domain
    for timer in domain.clock.timers:
        name = timer.name or ""
        if name == "platform":
            raise qemu_error("unsupported timer type (name) 'platform'")
        if name == "armvtimer":
            raise qemu_error(
                f"Configuring the 'armvtimer' timer is not supported for virtType={domain.type} "
                f"arch={domain.os.arch} machine={domain.os.machine} guests"
            )
        if name == "rtc" and timer.track == "boot":
            raise qemu_error(f"unsupported rtc timer track '{timer.track}'")
        if timer.tickpolicy not in TICK_POLICIES.get(name, (timer.tickpolicy,)):
            words = f"{name} timer tickpolicy" if name == "rtc" else f"{name} tickpolicy"
            raise qemu_error(f"unsupported {words} '{timer.tickpolicy}'")
    if domain.clock.offset == "absolute" and (domain.clock.start or 0) > MAX_START:
        raise qemu_error(f"The maximum 'start' value for <clock offset='absolute'> is {MAX_START}")


def check_boot(x: Context) -> None:
    """A firmware that is trusted needs a machine that keeps its secrets; and where variables can be kept."""
    domain = x.domain
    loader, nvram = domain.os.loader, domain.os.nvram
    if loader is not None and loader.secure:
        if not x.q35:
            raise qemu_error("Secure boot is supported with q35 machine types only")
        if domain.os.arch != "x86_64":
            raise qemu_error("Secure boot is supported for x86_64 architecture only")
        if domain.os.firmware is None and not (domain.features is not None and domain.features.smm):
            raise qemu_error("Secure boot requires SMM feature enabled")
    source = nvram.source if nvram is not None else None
    if source is not None and nvram is not None:
        if not isinstance(source, FileSource | BlockSource | NetworkSource):
            raise qemu_error(f"unsupported nvram disk type '{nvram.type}'")
        if source.slices:
            raise qemu_error("slices are not supported with NVRAM")
        if source.reservations is not None:
            raise qemu_error("persistent reservations are not supported with NVRAM")


def check_topology(x: Context) -> None:
    """The first vCPU is always there, and the topology agrees with the number."""
    domain = x.domain
    count = domain.vcpu or 1
    cpu = domain.cpu
    if count > x.machine.max_cpus:
        raise qemu_error(f"Maximum CPUs greater than specified machine type limit {x.machine.max_cpus}")
    topology = 0
    if cpu is not None and cpu.sockets and cpu.cores and cpu.threads:
        topology = cpu.sockets * (cpu.dies or 1) * cpu.cores * cpu.threads
        if topology != count:
            raise qemu_error("CPU topology doesn't match maximum vcpu count")
    if count > MAX_VCPUS:
        if not x.q35:
            raise qemu_error(f"more than {MAX_VCPUS} vCPUs are only supported on q35-based machine types")
        if domain.iommu is None or not domain.iommu.eim:
            raise qemu_error(f"more than {MAX_VCPUS} vCPUs require extended interrupt mode enabled on the iommu device")


def check_vcpus(x: Context) -> None:
    """Which vCPUs are there at start, and in which order they came."""
    domain = x.domain
    enabled = [vcpu for vcpu in domain.vcpus if vcpu.enabled]
    if any(vcpu.id == 0 and vcpu.enabled is False for vcpu in domain.vcpus) or domain.vcpu_current == 0:
        raise qemu_error("vcpu 0 can't be offline")
    if any(vcpu.id == 0 and vcpu.hotpluggable for vcpu in domain.vcpus):
        raise qemu_error("vcpu0 can't be hotpluggable")
    orders = [vcpu.order for vcpu in enabled if vcpu.order is not None]
    if orders and len(orders) == len(enabled) and domain.vcpus[0].order != 1:
        raise qemu_error("vcpu0 must be enabled first")
    if orders and len(orders) != len(enabled):
        raise qemu_error("all vcpus must have either set or unset order")


def check_backing(x: Context) -> None:
    """Huge pages are files, and taken at once."""
    backing = x.domain.memory_backing
    if backing is None or backing.hugepages is None:
        return
    if backing.allocation == "ondemand":
        raise qemu_error("hugepages are not allowed with memory allocation ondemand")
    if backing.source == "anonymous":
        raise qemu_error("hugepages are not allowed with anonymous memory source")


def check_resctrl(x: Context) -> None:
    """Caches are shared out among KVM's guests."""
    tune = x.domain.cputune
    if tune is not None and (tune.cachetunes or tune.memorytunes) and x.domain.type != "kvm":
        raise qemu_error("cachetune is only supported for KVM domains")


CONSOLES = {"sclp": "sclpconsole", "sclplm": "sclplmconsole"}


def check_consoles(x: Context) -> None:
    """What consoles a PC has."""
    for console in x.domain.consoles:
        if console.target_type in ("xen", "uml", "lxc", "openvz"):
            raise qemu_error(f"unsupported console target type {console.target_type}")
        if console.target_type in CONSOLES:
            raise qemu_error(f"{CONSOLES[console.target_type]} is not supported in this QEMU binary")


def check_sysinfo(x: Context) -> None:
    """Blobs of users have names of their own."""
    for info in x.domain.sysinfo:
        for entry in info.entries if isinstance(info, FwCfgs) else ():
            name = entry.name or ""
            if not name.startswith("opt/"):
                raise qemu_error("Invalid firmware name")
            if name.startswith(("opt/ovmf/", "opt/org.qemu/")):
                raise qemu_error("That firmware name is reserved")


def check_panics(x: Context) -> None:
    """How a PC can report a crash."""
    for panic in x.domain.panics:
        address = panic.info.address
        if panic.model == "s390":
            raise qemu_error("only S390 guests support panic device of model 's390'")
        if panic.model == "pseries":
            raise qemu_error("only pSeries guests support panic device of model 'pseries'")
        if panic.model == "hyperv" and address is not None:
            raise qemu_error("setting the panic device address is not supported for model 'hyperv'")
        if panic.model == "isa" and address is not None and address.kind != "isa":
            raise qemu_error("panic is supported only with ISA address type")


def check_tpms(x: Context) -> None:
    """One TPM, and one that only hands through."""
    proxies = sum(tpm.model == "spapr-tpm-proxy" for tpm in x.domain.tpms)
    if proxies > 1:
        raise qemu_error("only a single TPM Proxy device is supported")
    if len(x.domain.tpms) - proxies > 1:
        raise qemu_error("only a single TPM non-proxy device is supported")


def check_security(x: Context) -> None:
    """Encrypted memory needs hardware that QEMU's emulation lacks."""
    security = x.domain.launch_security
    if security is not None:
        name = "SEV" if security.kind == "sev" else "S390 PV"
        raise qemu_error(f"{name} launch security is not supported with this QEMU binary")


def check_virt(x: Context) -> None:
    """Whether the emulator runs such guests at all."""
    check_emulator(x.domain, x.emulator, x.host)


CHECKS: tuple[Callable[[Context], None], ...] = (
    check_virt,
    check_parameters,
    check_firmware,
    check_features,
    check_cpu,
    check_events,
    check_clock,
    check_boot,
    check_topology,
    check_backing,
    check_resctrl,
    check_consoles,
    check_sysinfo,
    check_panics,
    check_tpms,
    check_security,
)
