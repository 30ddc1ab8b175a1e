"""Sets of the host's CPUs as libvirt's calls carry them: bit maps, a byte for eight CPUs, the lowest bit first."""

import os
from collections.abc import Iterable


def host_cpus() -> int:
    """How many CPUs the host has, those included that are offline."""
    with open("/sys/devices/system/cpu/present", encoding="ascii") as file:
        return int(file.read().strip().rpartition(",")[2].rpartition("-")[2]) + 1


def online() -> frozenset[int]:
    """The host's CPUs that are online."""
    with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
        return parse(file.read().strip())


def parse(text: str) -> frozenset[int]:
    """The numbers of a list as the kernel writes it ("0-3,8")."""
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def to_map(cpus: Iterable[int], length: int) -> bytes:
    """A bit map of so many bytes; CPUs that it has no room for are left out."""
    bits = bytearray(length)
    for cpu in cpus:
        if cpu < length * 8:
            bits[cpu // 8] |= 1 << cpu % 8
    return bytes(bits)


def from_map(bits: bytes) -> frozenset[int]:
    """The CPUs of a bit map."""
    return frozenset(8 * place + bit for place, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1)


def affinity(thread: int) -> frozenset[int]:
    """The CPUs that a thread may run on; none if there is no such thread."""
    try:
        return frozenset(os.sched_getaffinity(thread))
    except OSError:
        return frozenset()
