"""The bandwidth of an interface, as users write it: AVERAGE,PEAK,BURST,FLOOR."""

from virtd.shell.failure import Failure
from virtd.tuples import NamedTuple

_MOST = 2**64 - 1


class Rate(NamedTuple):
    """A bandwidth in KiB/s and a burst in KiB; 0 where nothing was said."""

    average: int = 0
    peak: int = 0
    burst: int = 0
    floor: int = 0


def parse(text: str) -> Rate:
    """A bandwidth that a user wrote.

    Raises:
        Failure: it is none.
    """
    parts = text.split(",")
    if len(parts) > len(Rate._fields):
        raise Failure(f"Rate string '{text}' has too many fields")
    numbers = {}
    for name, part in zip(Rate._fields, parts, strict=False):
        if part and not (part.isascii() and part.isdigit() and int(part) <= _MOST):
            raise Failure(f"field '{name}' is malformed")
        numbers[name] = int(part or 0)
    return Rate(**numbers)
