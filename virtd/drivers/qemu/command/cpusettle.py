"""Which CPU a guest is to be given, settled before its start.

What the configuration leaves to the host becomes a model with features, which the guest keeps until it ends: it may
be saved here and go on elsewhere, and must not notice.
"""

from virtd import constants as c
from virtd.conf.cpu import x86, x86map
from virtd.conf.cpu.document import CpuDefinition, of_guest, set_policies
from virtd.conf.domain.cpu import Cpu
from virtd.drivers.qemu.host import cpumodels
from virtd.drivers.qemu.host.binary import Binary
from virtd.errors import VirtError


def settle(cpu: Cpu, binary: Binary) -> None:
    """Make a model that the emulator has, with features, of a CPU that is less than that.

    Args:
        cpu: the CPU, which is changed.
        binary: the emulator, with its accelerator.

    Raises:
        VirtError: VIR_ERR_CPU_INCOMPATIBLE, it cannot be given here; VIR_ERR_CONFIG_UNSUPPORTED, the emulator has no
            such model or feature.
    """
    if binary.target not in ("x86_64", "i386"):
        return
    for feature in cpu.features:
        if feature.name not in x86map.bits():
            raise _unsupported(f"unknown CPU feature: {feature.name}")
    custom = cpu.mode in (None, "custom")
    if not (cpu.mode == "host-model" or (custom and cpu.model is not None)):
        return
    if not custom:
        cpu.model = None  # a proposal of older versions
    wanted = of_guest(cpu)
    of_host = not custom or cpu.match == "minimum"
    if of_host or cpu.check == "partial" or "optional" in wanted.policies.values():
        _fit(cpu, wanted, cpumodels.host_model(binary))
    if of_host:
        cpu.match = "exact"
    else:
        x86.mention_dropped(wanted)
        _translate(cpu, wanted, binary)
    cpu.mode, cpu.model_fallback = "custom", "forbid"
    set_policies(cpu, wanted.policies)


def _fit(cpu: Cpu, wanted: CpuDefinition, host: CpuDefinition) -> None:
    """Check a CPU against the best that there is here, and take from that what the CPU leaves open."""
    if cpu.check == "partial":
        reason = x86.incompatibility(host, wanted)
        if reason is not None:
            raise VirtError(c.VIR_ERR_CPU_INCOMPATIBLE, reason, domain=c.VIR_FROM_CPU)
    has = x86.everything(host)
    for name, policy in wanted.policies.items():
        if policy == "optional":
            wanted.policies[name] = "require" if has & x86map.bits()[name] else "disable"
    if cpu.mode == "host-model":
        cpu.vendor = host.vendor
    if cpu.mode == "host-model" or cpu.match == "minimum":
        cpu.model = host.model
        wanted.policies = host.policies | wanted.policies


def _translate(cpu: Cpu, wanted: CpuDefinition, binary: Binary) -> None:
    """Describe a model that the emulator has not by one that it has."""
    if any(model.name == cpu.model for model in binary.cpu_models):
        return
    if cpu.model_fallback == "forbid":
        raise _unsupported(f"CPU model {cpu.model} is not supported by hypervisor")
    vendor = x86map.models()[cpu.model or ""].vendor
    found = x86.decode(x86.everything(wanted), vendor=vendor, blockers=cpumodels.blockers(binary))
    described = x86.definition(found, arch=None, vendor=None, fallback="forbid")
    cpu.model = described.model
    wanted.policies = described.policies | wanted.policies


def _unsupported(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_CPU)
