"""-cpu and -smp: which processor the guest sees, and how many."""

from virtd.conf.domain.cpu import Cpu
from virtd.conf.domain.features import Features, Hyperv
from virtd.drivers.qemu.command import cpusettle
from virtd.drivers.qemu.command.line import Line, join, on_off, unsupported

# Where QEMU's name of a feature is not libvirt's with dashes for underscores.
_FEATURE_NAMES = {"pclmuldq": "pclmulqdq"}
# Microsoft's interfaces: field of the model, property of the CPU. Those with a value of their own stand below.
_HYPERV = (
    ("relaxed", "hv-relaxed"),
    ("vapic", "hv-vapic"),
    ("spinlocks", "hv-spinlocks"),
    ("vpindex", "hv-vpindex"),
    ("runtime", "hv-runtime"),
    ("synic", "hv-synic"),
    ("stimer", "hv-stimer"),
    ("stimer_direct", "hv-stimer-direct"),
    ("reset", "hv-reset"),
    ("vendor", "hv-vendor-id"),
    ("frequencies", "hv-frequencies"),
    ("reenlightenment", "hv-reenlightenment"),
    ("tlbflush", "hv-tlbflush"),
    ("ipi", "hv-ipi"),
    ("evmcs", "hv-evmcs"),
    ("avic", "hv-avic"),
)
_CACHE_MODES = {
    "emulate": ("l3-cache=on",),
    "passthrough": ("host-cache-info=on", "l3-cache=off"),
    "disable": ("l3-cache=off",),
    "disable all": ("host-cache-info=off", "l3-cache=off"),
}


def add_cpu(line: Line) -> None:
    """Add -cpu; which it is, is written into the configuration.

    Raises:
        VirtError: VIR_ERR_CPU_INCOMPATIBLE, VIR_ERR_CONFIG_UNSUPPORTED: it cannot be had here.
    """
    config = line.config
    cpu = config.cpu or Cpu()
    cpusettle.settle(cpu, line.binary)
    words = [*_model(line, cpu), *_timers(line)]
    if config.features is not None:
        words += _features(config.features)
    if any(panic.model == "hyperv" for panic in config.panics):
        words.append("hv-crash")
    if config.features is not None:
        words += _kvm_features(config.features)
    words += _cache(cpu) + _address_bits(cpu)
    line.add("cpu", ",".join(words))


def add_smp(line: Line) -> None:
    """Add -smp: how many CPUs there are, and how they are arranged.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED: the arrangement is not one of so many CPUs.
    """
    config = line.config
    most = config.vcpu or 1
    now = config.vcpu_current or most
    if config.vcpus:
        # Those that can be taken away again are plugged in before the guest runs (guestcpu.plug).
        fixed = sorted(one.id or 0 for one in config.vcpus if one.enabled and not one.hotpluggable)
        now = len(fixed)
        if fixed != list(range(now)):
            raise unsupported("vcpus that are always there must come before all others")
    cpu = config.cpu or Cpu()
    if cpu.sockets is None:
        line.add("smp", join(str(now), **_most(now, most), sockets=most, cores=1, threads=1))
        return
    dies, cores, threads = cpu.dies or 1, cpu.cores or 1, cpu.threads or 1
    if cpu.sockets * dies * cores * threads != most:
        raise unsupported("CPU topology doesn't match maximum vcpu count")
    line.add("smp", join(str(now), **_most(now, most), sockets=cpu.sockets, dies=dies, cores=cores, threads=threads))


def _most(now: int, most: int) -> dict[str, object]:
    return {"maxcpus": most} if most > now else {}


def _model(line: Line, cpu: Cpu) -> list[str]:
    config = line.config
    kvm = config.type == "kvm"
    if cpu.mode == "host-passthrough" and not kvm:
        arch = config.os.arch
        raise unsupported(
            f"CPU mode 'host-passthrough' for {arch} {config.type} domain on {arch} host is not supported by hypervisor"
        )
    if cpu.mode == "host-passthrough":
        words = ["host", f"migratable={on_off(cpu.migratable is not False)}"]
    elif cpu.mode == "maximum":
        words = ["max"] if cpu.migratable is not False else ["max", "migratable=off"]
    else:
        words = [cpu.model or "qemu64"]
    if cpu.vendor_id is not None:
        words.append(join(vendor=cpu.vendor_id))
    for feature in cpu.features:
        # In a CPU that has all there is, an optional feature is what it is.
        if feature.policy != "optional":
            name = feature_name(feature.name or "")
            words.append(f"{name}={on_off(feature.policy in (None, 'force', 'require'))}")
    return words


def feature_name(name: str) -> str:
    """QEMU's name of a CPU feature."""
    return _FEATURE_NAMES.get(name, name.replace("_", "-"))


def _timers(line: Line) -> list[str]:
    words = []
    for timer in line.config.clock.timers:
        if timer.name == "kvmclock" and timer.present is not None:
            words.append(f"kvmclock={on_off(timer.present)}")
        elif timer.name == "hypervclock" and timer.present is True:
            words.append("hv-time=on")
        elif timer.name == "tsc" and timer.frequency is not None:
            words.append(f"tsc-frequency={timer.frequency}")
    return words


def _features(features: Features) -> list[str]:
    words = []
    if features.apic_eoi is not None:
        words.append(f"kvm-pv-eoi={on_off(features.apic_eoi)}")
    if features.pvspinlock is not None:
        words.append(f"kvm-pv-unhalt={on_off(features.pvspinlock)}")
    if features.hyperv is not None:
        words += _hyperv(features.hyperv)
    return words


def _hyperv(hyperv: Hyperv) -> list[str]:
    words = ["hv-passthrough=on"] if hyperv.mode == "passthrough" else []
    values = {"hv-spinlocks": f"0x{hyperv.spinlock_retries or 0x1FFF:x}", "hv-vendor-id": hyperv.vendor_id or ""}
    for field, name in _HYPERV:
        if getattr(hyperv, field) is True:
            words.append(join(**{name: values.get(name, "on")}))
    return words


def _kvm_features(features: Features) -> list[str]:
    words = []
    kvm = features.kvm
    if kvm is not None:
        if kvm.hidden:
            words.append("kvm=off")
        if kvm.hint_dedicated:
            words.append("kvm-hint-dedicated=on")
        if kvm.poll_control:
            words.append("kvm-poll-control=on")
        if kvm.pv_ipi is not None:
            words.append(f"kvm-pv-ipi={on_off(kvm.pv_ipi)}")
    if features.pmu is not None:
        words.append(f"pmu={on_off(features.pmu)}")
    return words


def _cache(cpu: Cpu) -> list[str]:
    mode = cpu.cache_mode
    if mode is None:
        return []
    whole = cpu.mode in ("host-passthrough", "maximum")
    if mode == "emulate" and cpu.cache_level not in (None, 3):
        raise unsupported(f"CPU cache mode 'emulate' with level '{cpu.cache_level}' is not supported")
    if mode == "passthrough":
        if not whole:
            raise unsupported("CPU cache mode 'passthrough' can only be used with 'host-passthrough' / 'maximum' CPUs")
        if cpu.cache_level is not None:
            raise unsupported("unsupported CPU cache level for mode 'passthrough'")
    if mode == "disable" and cpu.cache_level is not None:
        raise unsupported("unsupported CPU cache level for mode 'disable'")
    return list(_CACHE_MODES["disable all" if mode == "disable" and whole else mode])


def _address_bits(cpu: Cpu) -> list[str]:
    if cpu.addr_mode == "passthrough":
        return ["host-phys-bits=on"]
    if cpu.addr_mode == "emulate" and cpu.addr_bits:
        return [f"phys-bits={cpu.addr_bits}"]
    return []
