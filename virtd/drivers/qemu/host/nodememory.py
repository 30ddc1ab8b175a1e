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
# Those of them that can be set.
_KSM_SETTINGS = {name: file for name, file, large in _KSM if not large}
_KSM_DIRECTORY = "/sys/kernel/mm/ksm"
_HOST_POOLS = "/sys/kernel/mm/hugepages"
_NODES = "/sys/devices/system/node"
_PAGE_KIB = os.sysconf("SC_PAGESIZE") // 1024


class NodeMemory(DriverBase):
    """virNodeGetFreePages, virNodeAllocPages, virNodeGetMemoryParameters, virNodeSetMemoryParameters."""

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
        unsupported_flags(flags, c.VIR_TYPED_PARAM_STRING_OKAY, "virHostMemGetParameters", domain=c.VIR_FROM_NONE)
        params = []
        for name, file, large in _KSM:
            content = files.read(f"{_KSM_DIRECTORY}/{file}")
            if content is not None:
                params.append((typed.unsigned_long if large else typed.unsigned)(name, int(content)))
        return typed.portion(params, wanted, flags)

    def node_set_memory_parameters(self, params: list[TypedParam], flags: int) -> None:
        """virNodeSetMemoryParameters: how the kernel looks for equal pages."""
        unsupported_flags(flags, 0, "virHostMemSetParameters", domain=c.VIR_FROM_NONE)
        values = typed.take(params, dict.fromkeys(_KSM_SETTINGS, c.VIR_TYPED_PARAM_UINT))
        for name in values:
            path = f"{_KSM_DIRECTORY}/{_KSM_SETTINGS[name]}"
            if not os.path.exists(path):
                raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, f"Parameter '{name}' is not supported by this kernel")
        for name, value in values.items():
            _write(f"{_KSM_DIRECTORY}/{_KSM_SETTINGS[name]}", value, f"failed to set {name}")

    def node_alloc_pages(self, sizes: list[int], counts: list[int], start: int, count: int, flags: int) -> int:
        """virNodeAllocPages: add pages to the pools of huge pages, or (SET) set how many there are.

        Args:
            sizes: of the pools, in KiB.
            counts: pages for each.
            start: the first NUMA node; -1: the host as a whole.
            count: how many nodes.
            flags: VIR_NODE_ALLOC_PAGES_SET.

        Returns:
            How many pools have been changed.
        """
        unsupported_flags(flags, c.VIR_NODE_ALLOC_PAGES_SET, "qemuNodeAllocPages")
        last_cell = cells()[-1]
        if start > last_cell:
            text = f"start cell {start} out of range (0-{last_cell})"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NONE)
        changed = 0
        for cell in range(start, min(start + count - 1, last_cell) + 1):
            for size, pages in zip(sizes, counts, strict=True):
                _set_pool(cell, size, pages, add=not flags & c.VIR_NODE_ALLOC_PAGES_SET)
                changed += 1
        return changed


def _set_pool(cell: int, size: int, pages: int, *, add: bool) -> None:
    """Change the pool of huge pages of a size (KiB) on a NUMA node, or (-1) of the host."""
    if size == _PAGE_KIB:
        text = "system pages pool can't be modified"
        raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_NONE)
    base = _HOST_POOLS if cell < 0 else f"{_NODES}/node{cell}/hugepages"
    if cell == 0 and not os.path.isdir(base):
        base = _HOST_POOLS  # a kernel without NUMA has them here only
    path = f"{base}/hugepages-{size}kB/nr_hugepages"
    before = files.read(path)
    if before is None:
        raise _no_such_size(size, cell)
    wanted = int(before) + pages if add else pages
    _write(path, wanted, f"Unable to write to: {path}")
    after = int((files.read(path) or b"").strip() or 0)
    if after < wanted:
        text = f"Unable to allocate {wanted} pages. Allocated only {after}"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NONE)


def _write(path: str, value: int, what: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(value))
    except OSError as error:
        raise files.os_error(error, what) from None


def _free(cell: int, size: int) -> int:
    """How many pages of a size are free on a NUMA node."""
    if size == _PAGE_KIB:
        return cell_memory(cell)["MemFree"] // _PAGE_KIB
    name = f"hugepages/hugepages-{size}kB/free_hugepages"
    for path in (f"/sys/devices/system/node/node{cell}/{name}", f"/sys/kernel/mm/{name}"):
        content = files.read(path)
        if content is not None:
            return int(content)
    raise _no_such_size(size, cell)


def _no_such_size(size: int, cell: int) -> VirtError:
    where = f" on node {cell}" if cell >= 0 else ""
    text = f"page size {size} is not available{where}"
    return VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NONE)
