"""Sets of CPUs: as bit maps on the wire, as letters, as ranges, and as users write them."""

from __future__ import annotations

from virtd.shell.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def has(bits: bytes, cpu: int) -> bool:
    """Whether a CPU is in a map."""
    return cpu // 8 < len(bits) and bool(bits[cpu // 8] >> cpu % 8 & 1)


def letters(bits: bytes, count: int) -> str:
    """A letter for each CPU: y if it is in the map, - if not."""
    return "".join("y" if has(bits, cpu) else "-" for cpu in range(count))


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as ranges: 0-3,8."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def parse(text: str, count: int) -> bytes:
    """The map of CPUs that a user wrote: 0-3,^2,8, or r for all of them.

    Args:
        text: the CPUs.
        count: how many CPUs there are.

    Raises:
        Failure: it means no CPUs, or others than there are.
    """
    if text == "r":
        return bits_of(range(count), count)
    chosen: set[int] = set()
    for part in text.split(","):
        excluded = part.startswith("^")
        first, dash, last = part.removeprefix("^").partition("-")
        if not (first.isdigit() and (last.isdigit() if dash else True)) or (excluded and dash):
            raise _invalid(text)
        span = range(int(first), int(last or first) + 1)
        if not span:
            raise _invalid(text)
        if excluded:
            chosen -= set(span)
        else:
            chosen |= set(span)
    if not chosen:
        raise _invalid(text)
    if max(chosen) >= count:
        raise Failure(f"CPU {max(chosen)} in cpulist '{text}' exceed the maxcpu {count}")
    return bits_of(chosen, count)


def _invalid(text: str) -> Failure:
    return Failure(f"Invalid cpulist '{text}'", f"invalid argument: Failed to parse bitmap '{text}'")


def bits_of(numbers: Iterable[int], count: int) -> bytes:
    """The map of some of `count` CPUs."""
    bits = bytearray((count + 7) // 8)
    for number in numbers:
        bits[number // 8] |= 1 << number % 8
    return bytes(bits)


def of_host(count: int, bits: bytes) -> list[int]:
    """The CPUs of a map, of which the host has `count`."""
    return [cpu for cpu in range(count) if has(bits, cpu)]
