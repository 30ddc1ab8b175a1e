"""CPUs by themselves: what several have in common, and whether one can do what another one needs.

A CPU is held against the host's (compare, baseline) or against what an emulator gives its guests here (compare and
baseline of hypervisor CPUs).
"""

from collections.abc import Callable

from virtd import constants as c
from virtd.conf.cpu import generic, x86
from virtd.conf.cpu.document import CpuDefinition, format_cpu, parse_cpu, parse_root
from virtd.conf.xml import schema
from virtd.drivers.qemu.driverbase import DriverBase
from virtd.drivers.qemu.host import cpumodels, domaincaps, hostcpu
from virtd.errors import VirtError, unsupported_flags

_BASELINE_FLAGS = c.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES | c.VIR_CONNECT_BASELINE_CPU_MIGRATABLE
_COMPARE_FLAGS = c.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE | c.VIR_CONNECT_COMPARE_CPU_VALIDATE_XML


class Cpus(DriverBase):
    """Comparing CPUs."""

    def connect_baseline_cpu(self, xml_cpus: list[str], flags: int) -> str:
        """virConnectBaselineCPU: of hosts' CPUs."""
        unsupported_flags(flags, _BASELINE_FLAGS, "qemuConnectBaselineCPU")
        _check_given(xml_cpus, "virConnectBaselineCPU")
        cpus = [parse_cpu(xml, host=True) for xml in xml_cpus]
        migratable = bool(flags & c.VIR_CONNECT_BASELINE_CPU_MIGRATABLE)
        if cpus[0].arch not in x86.ARCHES:
            return format_cpu(generic.baseline(cpus))
        return _baseline(cpus, flags, lambda: x86.baseline(cpus, migratable=migratable))

    def connect_baseline_hypervisor_cpu(
        self,
        emulator: str | None,
        arch: str | None,
        machine: str | None,
        virttype: str | None,
        xml_cpus: list[str],
        flags: int,
    ) -> str:
        """virConnectBaselineHypervisorCPU: of CPUs that guests of an emulator shall have."""
        unsupported_flags(flags, _BASELINE_FLAGS, "qemuConnectBaselineHypervisorCPU")
        _check_given(xml_cpus, "virConnectBaselineHypervisorCPU")
        cpus = [parse_cpu(xml, host=False) for xml in xml_cpus]
        binary = domaincaps.resolve(self.capabilities, emulator, arch, machine, virttype).binary
        return _baseline(cpus, flags, lambda: x86.baseline(cpus, blockers=cpumodels.blockers(binary)))

    def connect_compare_cpu(self, xml: str, flags: int) -> int:
        """virConnectCompareCPU: VIR_CPU_COMPARE_*, of the host's CPU with another."""
        unsupported_flags(flags, _COMPARE_FLAGS, "qemuConnectCompareCPU")
        return _compare(hostcpu.definition(), xml, flags)

    def connect_compare_hypervisor_cpu(
        self,
        emulator: str | None,
        arch: str | None,
        machine: str | None,
        virttype: str | None,
        xml: str,
        flags: int,
    ) -> int:
        """virConnectCompareHypervisorCPU: VIR_CPU_COMPARE_*, of the best CPU of an emulator's guests with another."""
        unsupported_flags(flags, _COMPARE_FLAGS, "qemuConnectCompareHypervisorCPU")
        binary = domaincaps.resolve(self.capabilities, emulator, arch, machine, virttype).binary
        return _compare(cpumodels.host_model(binary), xml, flags)


def _check_given(xml_cpus: list[str], function: str) -> None:
    if not xml_cpus:
        text = f"xmlCPUs in {function} must not be NULL"
        raise VirtError.invalid_argument(function, "xmlCPUs", text, domain=c.VIR_FROM_DOMAIN)


def _baseline(cpus: list[CpuDefinition], flags: int, compute: Callable[[], CpuDefinition]) -> str:
    for number, cpu in enumerate(cpus):
        if cpu.model is None:
            text = f"no CPU model specified at index {number}"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_CPU)
    found = compute()
    if flags & c.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES:
        x86.expand(found)
    return format_cpu(found)


def _compare(host: CpuDefinition, xml: str, flags: int) -> int:
    if flags & c.VIR_CONNECT_COMPARE_CPU_VALIDATE_XML:
        schema.validate(parse_root(xml), "cpu.rng")
    cpu = parse_cpu(xml, host=False)
    reason = x86.incompatibility(host, cpu)
    if reason is None:
        return c.VIR_CPU_COMPARE_SUPERSET if x86.exceeds(host, cpu) else c.VIR_CPU_COMPARE_IDENTICAL
    if flags & c.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE:
        raise VirtError(c.VIR_ERR_CPU_INCOMPATIBLE, reason, domain=c.VIR_FROM_CPU)
    return c.VIR_CPU_COMPARE_INCOMPATIBLE
