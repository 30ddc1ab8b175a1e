"""Which CPU the host has, as a model with features: asked of the processor itself (CPUID).

/proc/cpuinfo leaves out what the kernel does not use, and names some things otherwise; it is what remains where
executing CPUID is not possible. This module knows no QEMU.
"""

import mmap
import os
import struct
from collections.abc import Callable
from functools import cache

from virtd import constants as c
from virtd.conf.cpu import x86, x86map
from virtd.conf.cpu.document import CpuDefinition
from virtd.drivers.qemu.host import hostfacts
from virtd.drivers.qemu.host.arches import host_arch
from virtd.errors import VirtError

# void (uint32_t leaf, uint32_t subleaf, uint32_t out[4]): CPUID, for the calling convention of x86_64.
_CPUID = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3")
_REGISTERS = ("eax", "ebx", "ecx", "edx")
# Kernel names that are not libvirt's with underscores for dashes and dots.
_KERNEL_NAMES = {
    "pclmuldq": "pclmulqdq",
    "tsc-deadline": "tsc_deadline_timer",
    "osxsave": "xsave",
    "cmt": "cqm",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512bitalg": "avx512_bitalg",
    "tsx-ldtrk": "tsxldtrk",
    "cr8legacy": "cr8_legacy",
    "invtsc": "nonstop_tsc",
    "pause-filter": "pausefilter",
}
_GET_MSRS = 0xC008AE88  # ioctl of /dev/kvm
# Which MSRs a processor has, it says by these features; of one that has not, reading it fails.
_MSR_FEATURES = {0x10A: "arch-capabilities", 0xCF: "core-capability"}


@cache
def definition() -> CpuDefinition:
    """The host's CPU as a model with features.

    Raises:
        VirtError: VIR_ERR_NO_SUPPORT, the host is no x86; VIR_ERR_INTERNAL_ERROR, no model is contained in its CPU.
    """
    arch = host_arch()
    if arch not in x86.ARCHES:
        text = f"'{arch}' architecture is not supported by CPU driver"
        raise VirtError(c.VIR_ERR_NO_SUPPORT, text, domain=c.VIR_FROM_CPU)
    processor = hostfacts.processor()
    features = _features(processor)
    signature = x86.Signature(processor.family, processor.model, processor.stepping)
    if processor.vendor == "Intel" and _broken_tsx(signature):
        features &= ~x86map.feature_set(("hle", "rtm"))
    vendor = processor.vendor if processor.vendor in x86map.VENDORS else None
    found = x86.decode(features, vendor=vendor, signature=signature, guest=False)
    described = x86.definition(found, arch=arch, vendor=vendor, fallback="forbid")
    described.guest = False
    return described


def _broken_tsx(signature: x86.Signature) -> bool:
    """Whether it is one of the processors whose transactions do not work (Intel's erratum HSD136)."""
    family, model, stepping = signature
    return family == 6 and (model in (60, 69, 70) or (model == 63 and stepping < 4))


def _features(processor: hostfacts.Processor) -> int:
    try:
        ask = _cpuid_function()
    except (OSError, AttributeError):
        return _from_flags(processor.flags)
    found = x86map.from_registers(_registers(ask))
    for number, needed in _MSR_FEATURES.items():
        if found & x86map.bits()[needed]:
            found |= x86map.from_registers({(number, 0, "msr"): _msr(number)})
    return found


def _cpuid_function() -> Callable[[int, int], tuple[int, ...]]:
    """CPUID as a function of leaf and subleaf.

    The code is mapped from a file in memory, so that no page is ever both writable and executable, which hardened
    hosts forbid.

    Raises:
        OSError: it cannot be mapped.
    """
    if host_arch() != "x86_64":
        raise OSError("the code is that of x86_64")
    import ctypes  # only whoever asks for the host's CPU pays for it

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    file = os.memfd_create("cpuid")
    try:
        os.write(file, _CPUID)
        place = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, file, 0)
    finally:
        os.close(file)
    if place in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "cannot map code")
    output = (ctypes.c_uint32 * 4)()
    function = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(place)

    def ask(leaf: int, subleaf: int) -> tuple[int, ...]:
        function(leaf, subleaf, ctypes.addressof(output))
        return tuple(output)

    return ask


def _registers(ask: Callable[[int, int], tuple[int, ...]]) -> dict[tuple[int, int, str], int]:
    """All registers that the map speaks of, by leaf, subleaf and name; those that the processor has not are 0."""
    highest = {0: ask(0, 0)[0], 1: ask(0x80000000, 0)[0]}
    subleaves = ask(7, 0)[0] if highest[0] >= 7 else 0
    found: dict[tuple[int, int, str], int] = {}
    for leaf, subleaf in {place[:2] for place in x86map.features().values() if place.register != "msr"}:
        # Beyond its highest leaf, a processor answers with what it likes.
        there = leaf <= highest[leaf >> 31] and (leaf != 7 or subleaf <= subleaves)
        for name, value in zip(_REGISTERS, ask(leaf, subleaf) if there else (0, 0, 0, 0), strict=True):
            found[leaf, subleaf, name] = value
    return found


def _msr(number: int) -> int:
    """The value of an MSR: the processor's, or as KVM would show it to a guest; 0 if neither can be asked."""
    try:
        file = os.open("/dev/cpu/0/msr", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int.from_bytes(os.pread(file, 8, number), "little")
        finally:
            os.close(file)
    except OSError:
        return _msr_of_kvm(number)


def _msr_of_kvm(number: int) -> int:
    import fcntl

    request = bytearray(struct.pack("=IIIIQ", 1, 0, number, 0, 0))
    try:
        file = os.open("/dev/kvm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(file, _GET_MSRS, request)
        finally:
            os.close(file)
    except OSError:
        return 0
    return int.from_bytes(request[16:24], "little")


def _from_flags(flags: frozenset[str]) -> int:
    found = 0
    for name, bit in x86map.bits().items():
        kernel = _KERNEL_NAMES.get(name, name.replace("-", "_").replace(".", "_"))
        found |= bit if kernel in flags else 0
    return found
