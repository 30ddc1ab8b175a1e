"""Memory devices: what each kind needs, and the NUMA cells they are on."""

from virtd.conf.domain.base import DimmAddress
from virtd.conf.domain.check.rules import DETAIL, XML, Context, Rule, Rules
from virtd.conf.domain.errors import detail_error, qemu_error
from virtd.conf.domain.memorydevice import MemoryDevice

MIN_BLOCK = 2048
"""The smallest block that virtio-mem gives and takes: a huge page of x86, KiB."""


def check_node(x: Context, one: MemoryDevice) -> None:
    """A module is on a cell that exists."""
    if one.model == "virtio-pmem" or (one.node is None and one.model != "sgx-epc"):
        return
    if not x.cells and one.model != "sgx-epc":
        raise detail_error("can't add memory backend as guest has no NUMA nodes configured")
    if one.node is not None and one.node >= x.cells:
        raise detail_error(
            f"can't add memory backend for guest node '{one.node}' as the guest has only '{x.cells}' NUMA nodes "
            "configured"
        )


COMMON: Rules = (
    check_node,
    Rule(lambda x, d: d.model == "nvdimm" and d.path is None, "path is required for model 'nvdimm'", DETAIL),
    Rule(lambda x, d: d.model == "nvdimm" and d.discard, "discard is not supported for nvdimms"),
    Rule(lambda x, d: d.model == "nvdimm" and d.uuid is not None, "UUID is not supported for NVDIMM device"),
    Rule(lambda x, d: d.model == "virtio-pmem" and d.path is None, "path is required for model '{d.model}'", XML),
    Rule(lambda x, d: d.model == "virtio-pmem" and d.discard, "discard is not supported for model '{d.model}'", DETAIL),
    Rule(lambda x, d: d.model == "virtio-pmem" and d.node is not None, "virtio-pmem does not support NUMA nodes"),
    Rule(
        lambda x, d: d.model == "virtio-mem" and (d.requested or 0) > (d.size or 0),
        "requested size must be smaller than or equal to @size ({d.size}KiB)",
        DETAIL,
    ),
    Rule(
        lambda x, d: d.model == "virtio-mem" and (not d.block or d.block & (d.block - 1)),
        "block size must be a power of two",
        DETAIL,
    ),
    Rule(
        lambda x, d: d.model == "virtio-mem" and d.block < MIN_BLOCK,
        f"block size too small, must be at least {MIN_BLOCK}KiB",
        DETAIL,
    ),
    Rule(
        lambda x, d: d.model == "virtio-mem" and (d.requested or 0) % d.block,
        "requested size must be an integer multiple of block size",
        DETAIL,
    ),
)


def check_hotplug(x: Context) -> None:
    """Slots for modules must have been planned, on NUMA cells.

    Raises:
        VirtError: of VIR_FROM_QEMU.
    """
    domain = x.domain
    if domain.max_memory is None:
        if domain.memory_devices:
            raise qemu_error("cannot use/hotplug a memory device when domain 'maxMemory' is not defined")
        return
    if not x.cells:
        raise qemu_error("At least one numa node has to be configured when enabling memory hotplug")
    used: set[int] = set()
    for one in domain.memory_devices:
        address = one.info.address
        if isinstance(address, DimmAddress) and one.model in ("dimm", "nvdimm"):
            if address.slot >= (domain.max_memory_slots or 0):
                raise qemu_error(f"memory device slot '{address.slot}' exceeds slots count '{domain.max_memory_slots}'")
            if address.slot in used:
                raise qemu_error(f"memory device slot '{address.slot}' is already being used by another memory device")
            used.add(address.slot)
        if one.node is None and one.model in ("dimm", "nvdimm", "virtio-mem"):
            raise qemu_error("target NUMA node needs to be specified for memory device")


QEMU: Rules = (Rule(lambda x, d: d.model == "sgx-epc", "sgx epc isn't supported by this QEMU binary"),)
