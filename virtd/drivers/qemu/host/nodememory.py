"""The host's memory pages: those that are free, by size, and the kernel's merging of equal ones (KSM)."""

import os

from virtd import constants as c
from virtd.drivers import typed
from virtd.drivers.qemu.driverbase import DriverBase
from virtd.drivers.qemu.host.node import cell_memory, cells
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import TypedParam
from virtd.state import files

# KSM's files below /sys/kernel/mm/ksm in libvirt's order, and whether the numbers have 64 bits.
_KSM = (
    ("shm_pages_to_scan", "pages_to_scan", False),
    ("shm_sleep_millisecs", "sleep_millisecs", False),
    ("shm_pages_shared", "pages_shared", True),
    ("shm_pages_sharing", "pages_sharing", True),
    ("shm_pages_unshared", "pages_unshared", True),
    ("shm_pages_volatile", "pages_volatile", True),
    ("shm_full_scans", "full_scans", True),
    ("shm_merge_across_nodes", "merge_across_nodes", False),
)
_KSM_DIRECTORY = "/sys/kernel/mm/ksm"
_PAGE_KIB = os.sysconf("SC_PAGESIZE") // 1024


class NodeMemory(DriverBase):
    """virNodeGetFreePages, virNodeGetMemoryParameters."""

    def node_get_free_pages(self, sizes: list[int], start: int, count: int, flags: int) -> list[int]:
        """virNodeGetFreePages: free pages of each size (KiB) on each of some NUMA nodes; from -1 on: of the host."""
        unsupported_flags(flags, 0, "qemuNodeGetFreePages")
        numbers = cells()
        if start > numbers[-1]:
            text = f"start cell {start} out of range (0-{numbers[-1]})"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
        last = min(start + count - 1, numbers[-1])
        wanted = [number for number in range(max(start, 0), max(last, 0) + 1) if number in numbers]
        return [_free(cell, size) for cell in wanted for size in sizes]

    def node_get_memory_parameters(self, wanted: int, flags: int) -> tuple[list[TypedParam], int]:
        """virNodeGetMemoryParameters."""
        unsupported_flags(flags, c.VIR_TYPED_PARAM_STRING_OKAY, "virHostMemGetParameters")
        params = []
        for name, file, large in _KSM:
            content = files.read(f"{_KSM_DIRECTORY}/{file}")
            if content is not None:
                params.append((typed.unsigned_long if large else typed.unsigned)(name, int(content)))
        return typed.portion(params, wanted, flags)


def _free(cell: int, size: int) -> int:
    """How many pages of a size are free on a NUMA node."""
    if size == _PAGE_KIB:
        return cell_memory(cell)["MemFree"] // _PAGE_KIB
    name = f"hugepages/hugepages-{size}kB/free_hugepages"
    for path in (f"/sys/devices/system/node/node{cell}/{name}", f"/sys/kernel/mm/{name}"):
        content = files.read(path)
        if content is not None:
            return int(content)
    text = f"page size {size} is not available on node {cell}"
    raise VirtError(c.VIR_ERR_OPERATION_FAILED, text)
