"""Sizes as users write and read them."""

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


class SizeError(ValueError):
    """A text is not a size.

    Attributes:
        reasons: sentences that say why, if there is more to say than that.
    """

    def __init__(self, *reasons: str) -> None:
        super().__init__(*reasons)
        self.reasons = reasons


def parse_size(text: str, unit: int, most: int) -> int:
    """A size in bytes, as libvirt reads it: 10, 10k, 10KiB (1024 each), 10KB (1000 each), 10 bytes.

    Args:
        text: what the user wrote.
        unit: what a number without a suffix counts, in bytes.
        most: the largest size that can be.

    Raises:
        SizeError: it is none, or larger.
    """
    stripped = text.lstrip()
    number = stripped[1:] if stripped.startswith("+") else stripped
    end = 0
    while end < len(number) and number[end] in "0123456789":
        end += 1
    if end == 0:
        raise SizeError
    suffix = number[end:].lstrip(" \t")
    size = int(number[:end]) * (unit if not suffix else _factor(suffix))
    if int(number[:end]) > 2**64 - 1:
        raise SizeError
    if size > most:
        raise SizeError(f"numerical overflow: value too large: {text}")
    return size


def _factor(suffix: str) -> int:
    upper = suffix.upper()
    if upper in ("B", "BYTE", "BYTES"):
        return 1
    power = _POWERS.get(upper[:1])
    if power:
        if upper[1:] in ("", "IB"):
            return int(1024**power)
        if upper[1:] == "B":
            return int(1000**power)
    raise SizeError(f"invalid argument: unknown suffix '{suffix}'")


def pretty(size: float) -> tuple[float, str]:
    """A size in bytes in the largest unit in which it is not below 1."""
    for name in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024:
            return size, name
        size /= 1024
    return size, "EiB"
