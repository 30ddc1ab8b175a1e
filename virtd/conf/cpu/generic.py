"""CPUs of other architectures than x86, about which little is known: whether they are the same is all that can be said.

Hosts of them are asked about by clients that manage several hosts through one of x86.
"""

from virtd import constants as c
from virtd.conf.cpu.document import CpuDefinition
from virtd.errors import VirtError

_POWER = ("ppc64", "ppc64le")
_ARM = ("aarch64", "armv6l", "armv7b", "armv7l")
_S390 = ("s390", "s390x")
_POWER_VENDORS = {
    **dict.fromkeys(("POWER6", "POWER7", "POWER8", "POWER9", "POWER10"), "IBM"),
    **dict.fromkeys(("POWERPC_e5500", "POWERPC_e6500"), "Freescale"),
}


def models(arch: str) -> list[str]:
    """All models of an architecture that is not x86 (virConnectGetCPUModelNames).

    Raises:
        VirtError: VIR_ERR_NO_SUPPORT, nothing can be said of this architecture.
    """
    if arch in _POWER:
        return list(_POWER_VENDORS)
    if arch in _ARM + _S390:
        return []
    text = f"'{arch}' architecture is not supported by CPU driver"
    raise VirtError(c.VIR_ERR_NO_SUPPORT, text, domain=c.VIR_FROM_CPU)


def baseline(cpus: list[CpuDefinition]) -> CpuDefinition:
    """The CPU with all that several CPUs have in common (virConnectBaselineCPU).

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, there is nothing in common; VIR_ERR_INTERNAL_ERROR, a model is unknown;
            VIR_ERR_NO_SUPPORT, nothing can be said of this architecture.
    """
    arch = cpus[0].arch or ""
    if arch in _ARM:
        return CpuDefinition(arch=arch, guest=True, model=cpus[0].model, fallback="allow")
    if arch in _POWER:
        return _power(cpus)
    text = f"'{arch}' architecture is not supported by CPU driver"
    if arch in _S390:
        text = f"cannot compute baseline CPU of {arch} architecture"
    raise VirtError(c.VIR_ERR_NO_SUPPORT, text, domain=c.VIR_FROM_CPU)


def _power(cpus: list[CpuDefinition]) -> CpuDefinition:
    model = cpus[0].model or ""
    vendor = _POWER_VENDORS.get(model)
    if vendor is None:
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"Unknown CPU model {model}", domain=c.VIR_FROM_CPU)
    for cpu in cpus:
        if cpu.model != model:
            raise VirtError(c.VIR_ERR_OPERATION_FAILED, "CPUs are incompatible", domain=c.VIR_FROM_CPU)
        if cpu.vendor is not None and cpu.vendor not in _POWER_VENDORS.values():
            raise VirtError(c.VIR_ERR_OPERATION_FAILED, f"Unknown CPU vendor {cpu.vendor}", domain=c.VIR_FROM_CPU)
        if cpu.vendor is not None and cpu.vendor != vendor:
            text = f"CPU vendor {vendor} of model {model} differs from vendor {cpu.vendor}"
            raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_CPU)
    return CpuDefinition(arch=cpus[0].arch, guest=True, model=model, fallback="forbid")
