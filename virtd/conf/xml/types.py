"""Scalar types of libvirt's XML: how the text of an attribute or an element becomes a value, and back.

A type knows nothing of elements, models or files. `parse` raises ValueError with what libvirt says was
expected (perhaps nothing); the declaration that uses the type turns it into libvirt's error.
"""

import re
from collections.abc import Iterable
from typing import Generic, TypeVar

from virtd import constants as c
from virtd.errors import VirtError

T = TypeVar("T")

_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?)(0[xX][0-9a-fA-F]+|[0-9]+)", re.ASCII)
_HEX = re.compile(r"[ \t\n\v\f\r]*([+-]?)((?:0[xX])?[0-9a-fA-F]+)", re.ASCII)
_SIZE = re.compile(r"[ \t\n\v\f\r]*([+-]?)([0-9]+)", re.ASCII)
_RANGE = re.compile(r"\s*(\^?)\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9}))?\s*", re.ASCII)
_MAC = re.compile(r"([0-9a-fA-F]{1,2}:){5}[0-9a-fA-F]{1,2}", re.ASCII)

_POWERS = {letter: power for power, letter in enumerate("kmgtpe", 1)}


class Type(Generic[T]):
    """How one kind of value is written. `unit` is set for values that carry a unit beside them."""

    unit: str | None = None

    def parse(self, text: str) -> T:
        """The value of a text; ValueError (with what was expected, as libvirt says it) if it has none."""
        raise NotImplementedError

    def format(self, value: T) -> str:
        """The text of a value, not yet escaped."""
        return str(value)

    def parse_with_unit(self, text: str, unit: str | None) -> T:
        """The value of a text with what its unit attribute says; only for types with a unit."""
        return self.parse(text)

    def split(self, value: T) -> tuple[str, str | None]:
        """The text of a value, and the unit that is written beside it."""
        return self.format(value), self.unit


class Text(Type[str]):
    """Any text. Where libvirt takes an empty one for an absent one, `empty` is False."""

    def parse(self, text: str) -> str:
        return text

    def format(self, value: str) -> str:
        return value


class Choice(Type[str]):
    """One of libvirt's literal names.

    Args:
        names: the names, in one string separated by spaces, or one by one.
        missing: a name that the model may hold, but that cannot be written in XML.
    """

    def __init__(self, names: str | Iterable[str]) -> None:
        self.names: tuple[str, ...] = tuple(names.split() if isinstance(names, str) else names)
        self._known = frozenset(self.names)

    def parse(self, text: str) -> str:
        if text not in self._known:
            raise ValueError
        return text

    def format(self, value: str) -> str:
        return value


class Switch(Type[bool]):
    """A truth value with its two literal names (yes/no, on/off)."""

    def __init__(self, yes: str, no: str) -> None:
        self._values = {yes: True, no: False}
        self._texts = (no, yes)

    def parse(self, text: str) -> bool:
        try:
            return self._values[text]
        except KeyError:
            raise ValueError from None

    def format(self, value: bool) -> str:
        return self._texts[value]


class Integer(Type[int]):
    """A whole number in C's notation.

    Args:
        low, high: the bounds, inclusive.
        base: 10, 16, or 0 for what strtol() with base 0 takes (0x…, 0…).
        template: how it is written (a %-template).
        zero: whether zero is taken at all.
        signed: whether C reads it as a signed number, which libvirt's words on wrong ones show.
    """

    def __init__(
        self, low: int, high: int, *, base: int = 10, template: str = "%d", zero: bool = True, signed: bool = False
    ) -> None:
        self._low, self._high, self._base, self._template, self._zero = low, high, base, template, zero
        self._expected = "Expected non-negative integer value"
        if low < 0 or signed:
            self._expected = "Expected integer value"

    def parse(self, text: str) -> int:
        match = (_HEX if self._base == 16 else _INTEGER).fullmatch(text)
        if match is None:
            raise ValueError(self._expected)
        value = c_integer(match.group(2), self._base)
        if value is not None and match.group(1) == "-":
            value = -value
        if value is None or not self._low <= value <= self._high:
            below = value is not None and value < 0 and self._expected == "Expected integer value"
            raise ValueError("Expected non-negative value" if below and self._low == 0 else self._expected)
        if value == 0 and not self._zero:
            raise ValueError("Zero is not permitted")
        return value

    def format(self, value: int) -> str:
        return self._template % value


class Size(Type[int]):
    """A size with a unit, kept as a number of `unit`, rounded up.

    Args:
        unit: what it is kept and written in: "KiB" or "bytes".
        default: the unit of a text that names none.
        high: the largest size, in bytes.
    """

    def __init__(self, unit: str = "KiB", default: str = "KiB", high: int = (1 << 63) - 1) -> None:
        self.unit = unit
        self._default = default
        self._scale = unit_scale(unit)
        self._high = high

    def parse(self, text: str) -> int:
        return self.parse_with_unit(text, None)

    def parse_with_unit(self, text: str, unit: str | None) -> int:
        match = _SIZE.fullmatch(text)
        if match is None or match.group(1) == "-":
            raise ValueError
        value = int(match.group(2))
        total = value * unit_scale(unit or self._default)
        if value >= 1 << 64:
            raise ValueError
        if total > self._high:
            raise VirtError(c.VIR_ERR_OVERFLOW, f"value too large: {value}{unit or self._default}")
        return -(-total // self._scale)


class PrettySize(Size):
    """A size in bytes that is written in the largest unit of which it is a whole number."""

    def split(self, value: int) -> tuple[str, str]:
        """The number and its unit, as they are written."""
        power = 0
        while power < len(_POWERS) and value and not value % 1024:
            value, power = value // 1024, power + 1
        return str(value), ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")[power]


class Wwn(Type[str]):
    """A worldwide name: 16 hexadecimal digits."""

    def parse(self, text: str) -> str:
        digits = text.removeprefix("0x")
        if len(digits) != 16 or not all(d in "0123456789abcdefABCDEF" for d in digits):
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"Malformed wwn: {text}")
        return text


class Mac(Type[str]):
    """An Ethernet address, kept in lower case with two digits for each byte."""

    def parse(self, text: str) -> str:
        if not _MAC.fullmatch(text):
            raise ValueError
        return ":".join(part.lower().rjust(2, "0") for part in text.split(":"))


class Uuid(Type[str]):
    """A UUID: 32 hexadecimal digits with dashes or blanks anywhere, kept in the usual form."""

    def parse(self, text: str) -> str:
        digits = text.strip(" \t\n").replace("-", "").replace(" ", "").lower()
        if len(digits) != 32 or not digits.isascii() or not all(d in "0123456789abcdef" for d in digits):
            raise ValueError
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def c_integer(digits: str, base: int) -> int | None:
    """The number that unsigned digits are to strtol() with base 10 or 0; None if it is none."""
    try:
        if base in (10, 16):
            return int(digits, base)
        if digits[:2] in ("0x", "0X"):
            return int(digits, 16)
        return int(digits, 8 if digits[0] == "0" else 10)
    except ValueError:
        return None


def unit_scale(suffix: str) -> int:
    """How many bytes a unit is: b, bytes, KB (1000), K or KiB (1024), and so on to E.

    Raises:
        VirtError: VIR_ERR_INVALID_ARG for a unit that is none.
    """
    low = suffix.lower()
    if low in ("", "b", "byte", "bytes"):
        return 1
    power = _POWERS.get(low[0])
    if power is not None and low[1:] in ("", "ib"):
        return 1 << 10 * power
    if power is not None and low[1:] == "b":
        return int(1000**power)
    raise VirtError(c.VIR_ERR_INVALID_ARG, f"unknown suffix '{suffix}'")


TEXT = Text()
YES_NO = Switch("yes", "no")
ON_OFF = Switch("on", "off")
INT = Integer(-(1 << 31), (1 << 31) - 1)
NATURAL = Integer(0, (1 << 31) - 1, signed=True)
UINT = Integer(0, (1 << 32) - 1)
UINT0 = Integer(0, (1 << 32) - 1, base=0)
POSITIVE = Integer(0, (1 << 32) - 1, zero=False)
LONG = Integer(-(1 << 63), (1 << 63) - 1)
ULONG = Integer(0, (1 << 64) - 1)
KIB = Size()
MAC = Mac()
WWN = Wwn()
UUID = Uuid()


class Bitmap(Type[frozenset[int]]):
    """A set of small numbers in libvirt's notation: "0-3,^2,7". Later parts override earlier ones.

    Args:
        name: what libvirt calls it when it is empty; None if it may be.
        high: the first number that is too large.
    """

    def __init__(self, name: str | None = None, high: int = 16384) -> None:
        self._name = name
        self._high = high

    def parse(self, text: str) -> frozenset[int]:
        found: set[int] = set()
        for part in text.split(","):
            match = _RANGE.fullmatch(part)
            first = int(match.group(2)) if match else 1
            last = int(match.group(3) or first) if match else 0
            if match is None or last < first or last >= self._high or (match.group(1) and match.group(3)):
                raise VirtError(c.VIR_ERR_INVALID_ARG, f"Failed to parse bitmap '{text}'")
            if match.group(1):
                found.discard(first)
            else:
                found.update(range(first, last + 1))
        if not found and self._name is not None:
            raise VirtError(
                c.VIR_ERR_CONFIG_UNSUPPORTED, f"Invalid value of '{self._name}': {text}", domain=c.VIR_FROM_DOMAIN
            )
        return frozenset(found)

    def format(self, value: frozenset[int]) -> str:
        return format_ranges(value)


def format_ranges(numbers: Iterable[int]) -> str:
    """A set of numbers as libvirt writes it: "0-3,7"."""
    parts: list[str] = []
    start = last = None
    for number in [*sorted(numbers), None]:
        if last is not None and number is not None and number == last + 1:
            last = number
            continue
        if start is not None:
            parts.append(str(start) if start == last else f"{start}-{last}")
        start = last = number
    return ",".join(parts)


BITMAP = Bitmap()
CPUSET = Bitmap("cpuset")
NODESET = Bitmap("nodeset")
