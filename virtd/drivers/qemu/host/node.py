"""The host as clients see it: processors, memory, security, sleep."""

import os

from virtd import constants as c
from virtd.drivers import typed
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.driverbase import DriverBase
from virtd.drivers.qemu.host import suspend
from virtd.drivers.qemu.host.arches import host_arch
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import NodeCpuStat, NodeMemoryStat, TypedParam

# /proc/stat counts in these, whatever the kernel's own tick (USER_HZ).
_NS_PER_TICK = 10_000_000
# Which columns of /proc/stat, after the name, make up what libvirt calls by these names.
_CPU_TIMES = {"kernel": (2, 5, 6), "user": (0, 1), "idle": (3,), "iowait": (4,)}
_MEMORY = {"total": "MemTotal", "free": "MemFree", "buffers": "Buffers", "cached": "Cached"}


class Node(DriverBase):
    """virNode* functions but for those about memory pages."""

    def node_get_info(self) -> tuple[bytes, int, int, int, int, int, int, int]:
        """virNodeGetInfo: CPU model, memory in KiB, CPUs, MHz, NUMA nodes, sockets, cores, threads."""
        return self.capabilities.node_info()

    def node_get_free_memory(self) -> int:
        """virNodeGetFreeMemory, in bytes."""
        return _memory()["MemFree"] * 1024

    def node_get_cells_free_memory(self, start: int, most: int) -> list[int]:
        """virNodeGetCellsFreeMemory: free memory of NUMA nodes, in bytes."""
        numbers = cells()
        if not 0 <= start < len(numbers):
            text = f"start cell {start} out of range (0-{len(numbers) - 1})"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
        return [cell_memory(cell)["MemFree"] * 1024 for cell in numbers[start : start + most]]

    def node_get_cpu_map(self, need_map: int, need_online: int, flags: int) -> tuple[bytes, int, int]:
        """virNodeGetCPUMap: the CPUs that are online as a bit map, how many these are, how many there are."""
        unsupported_flags(flags, 0, "virHostCPUGetMap", domain=c.VIR_FROM_NONE)
        online = _ranges("/sys/devices/system/cpu/online")
        count = max(_ranges("/sys/devices/system/cpu/present")) + 1
        bits = bytearray((count + 7) // 8)
        for cpu in online:
            bits[cpu // 8] |= 1 << cpu % 8
        return bytes(bits) if need_map else b"", len(online) if need_online else 0, count

    def node_get_cpu_stats(self, cpu: int, nparams: int, flags: int) -> tuple[list[NodeCpuStat], int]:
        """virNodeGetCPUStats: CPU times of one CPU or (-1) of all, in ns; asked for none, how many there are."""
        unsupported_flags(flags, 0, "virHostCPUGetStats", domain=c.VIR_FROM_NONE)
        if nparams == 0:
            return [], len(_CPU_TIMES)
        wanted = b"cpu" if cpu == c.VIR_NODE_CPU_STATS_ALL_CPUS else b"cpu%d" % cpu
        with open("/proc/stat", "rb") as file:
            fields = next((line.split() for line in file if line.split(b" ", 1)[0] == wanted), None)
        if fields is None:
            function = "virHostCPUGetStatsLinux"
            raise VirtError.invalid_argument(function, "cpuNum", f"Invalid cpuNum in {function}")
        times = [int(field) * _NS_PER_TICK for field in fields[1:]]
        stats = [NodeCpuStat(name, sum(times[i] for i in columns)) for name, columns in _CPU_TIMES.items()]
        return stats[:nparams], min(nparams, len(stats))

    def node_get_memory_stats(self, nparams: int, cell: int, flags: int) -> tuple[list[NodeMemoryStat], int]:
        """virNodeGetMemoryStats: memory of one NUMA node or (-1) of all, in KiB; asked for none, how many there are."""
        unsupported_flags(flags, 0, "virHostMemGetStats", domain=c.VIR_FROM_NONE)
        if cell == c.VIR_NODE_MEMORY_STATS_ALL_CELLS:
            names, found = list(_MEMORY), _memory()
        else:
            numbers = cells()
            if cell not in numbers:
                function = "virHostMemGetStats"
                text = f"cellNum in {function} must be less than or equal to {numbers[-1]}"
                raise VirtError.invalid_argument(function, "cellNum", text)
            names, found = ["total", "free"], cell_memory(cell)
        if nparams == 0:
            return [], len(names)
        stats = [NodeMemoryStat(name, found[_MEMORY[name]]) for name in names]
        return stats[:nparams], min(nparams, len(stats))

    def node_get_security_model(self) -> tuple[bytes, bytes]:
        """virNodeGetSecurityModel: guests are confined by users and groups, which libvirt counts as no model."""
        return b"none\0", b"0\0"

    def node_get_sev_info(self, wanted: int, flags: int) -> tuple[list[TypedParam], int]:
        """virNodeGetSEVInfo: what AMD's memory encryption offers to guests."""
        sev = self.capabilities.binary(self.capabilities.emulator(host_arch())).sev
        if sev is None:
            raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, "QEMU does not support SEV guest")
        unsupported_flags(flags, c.VIR_TYPED_PARAM_STRING_OKAY, "qemuGetSEVInfoToParams")
        params = [
            typed.string(c.VIR_NODE_SEV_PDH, shape.text(sev, "pdh")),
            typed.string(c.VIR_NODE_SEV_CERT_CHAIN, shape.text(sev, "cert-chain")),
            typed.unsigned(c.VIR_NODE_SEV_CBITPOS, shape.number(sev, "cbitpos")),
            typed.unsigned(c.VIR_NODE_SEV_REDUCED_PHYS_BITS, shape.number(sev, "reduced-phys-bits")),
        ]
        if "cpu0-id" in sev:
            params.append(typed.string(c.VIR_NODE_SEV_CPU0_ID, shape.text(sev, "cpu0-id")))
        return typed.portion(params, wanted, flags)

    def node_suspend_for_duration(self, target: int, seconds: int, flags: int) -> None:
        """virNodeSuspendForDuration: put the host to sleep for some seconds."""
        unsupported_flags(flags, 0, "virNodeSuspend", domain=c.VIR_FROM_NONE)
        suspend.suspend(target, seconds, f"{self.paths.log}/suspend.log")

    def connect_get_cpu_model_names(self, arch: str, need_results: int, flags: int) -> tuple[list[str], int]:
        """virConnectGetCPUModelNames: the CPU models that can be asked for on an architecture."""
        unsupported_flags(flags, 0, "qemuConnectGetCPUModelNames")
        names = self.capabilities.cpu_model_names(arch)
        return names if need_results else [], len(names)

    def connect_get_sysinfo(self, flags: int) -> str:
        """virConnectGetSysinfo: what the host's firmware says of the machine."""
        unsupported_flags(flags, 0, "qemuConnectGetSysinfo")
        from virtd.drivers.qemu.host import sysinfo  # few clients ask

        return sysinfo.write()


def _memory() -> dict[str, int]:
    """/proc/meminfo, in KiB."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in file)}


def cell_memory(cell: int) -> dict[str, int]:
    """The memory of one NUMA node, in KiB; of a kernel without NUMA all of it."""
    try:
        with open(f"/sys/devices/system/node/node{cell}/meminfo", encoding="ascii") as file:
            # "Node 0 MemTotal:       24683656 kB"
            return {fields[2].rstrip(":"): int(fields[3]) for fields in (line.split() for line in file)}
    except FileNotFoundError:
        return _memory()


def cells() -> list[int]:
    """The numbers of the NUMA nodes."""
    try:
        names = os.listdir("/sys/devices/system/node")
    except FileNotFoundError:
        return [0]
    return sorted(int(name[4:]) for name in names if name.startswith("node") and name[4:].isdigit()) or [0]


def _ranges(path: str) -> list[int]:
    """The numbers in a file of ranges as the kernel writes them ("0-3,8")."""
    with open(path, encoding="ascii") as file:
        parts = file.read().strip().split(",")
    numbers: list[int] = []
    for part in parts:
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers
