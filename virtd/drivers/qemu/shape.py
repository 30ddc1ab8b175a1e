"""Typed getters for tables decoded from JSON: what QEMU, an agent or a file on disk says is checked here.

Each getter takes the table, the key and optionally a default for a key that is absent; a value of another
type than asked for, or a missing one without a default, is an error that names the key.

This module knows no protocol.
"""

import json
import math
from typing import NoReturn, TypeVar, cast

from virtd import constants as c
from virtd.errors import VirtError

Table = dict[str, object]
_Value = TypeVar("_Value")
_REQUIRED = object()


class ShapeError(VirtError):
    """Data from outside does not have the shape that it must have."""

    def __init__(self, what: str) -> None:
        super().__init__(c.VIR_ERR_INTERNAL_ERROR, what, domain=c.VIR_FROM_QEMU)


def loads(data: bytes) -> object:
    """JSON of somebody who cannot be trusted: each number fits into 64 bits, and each text into UTF-8.

    Raises:
        ValueError: it is not that.
        RecursionError: it is nested too deeply.
    """
    found: object = json.loads(data, parse_int=_integer, parse_float=_finite, parse_constant=_finite)
    json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair would go unnoticed until it is sent on
    return found


def _integer(digits: str) -> int:
    number = int(digits)
    if not -(2**63) <= number < 2**64:
        raise ValueError(digits)
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


def text(table: Table, key: str, default: object = _REQUIRED) -> str:
    """The string at key."""
    return _get(table, key, str, default)


def number(table: Table, key: str, default: object = _REQUIRED) -> int:
    """The integer at key; a boolean is none."""
    value = _get(table, key, int, default)
    if isinstance(value, bool):
        _refuse(key, "integer")
    return value


def truth(table: Table, key: str, default: object = _REQUIRED) -> bool:
    """The boolean at key."""
    return _get(table, key, bool, default)


def table(outer: Table, key: str, default: object = _REQUIRED) -> Table:
    """The object at key."""
    return cast(Table, _get(outer, key, dict, default))


def tables(outer: Table, key: str, default: object = _REQUIRED) -> list[Table]:
    """The list of objects at key."""
    return as_tables(_get(outer, key, list, default), key)


def texts(outer: Table, key: str, default: object = _REQUIRED) -> list[str]:
    """The list of strings at key."""
    value = _get(outer, key, list, default)
    if not all(isinstance(item, str) for item in value):
        _refuse(key, "list of strings")
    return cast(list[str], value)


def as_table(value: object, what: str) -> Table:
    """The value itself, which must be an object; what names it in the error."""
    if not isinstance(value, dict):
        _refuse(what, "object")
    return value


def as_tables(value: object, what: str) -> list[Table]:
    """The value itself, which must be a list of objects; what names it in the error."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        _refuse(what, "list of objects")
    return cast(list[Table], value)


def _get(outer: Table, key: str, kind: type[_Value], default: object) -> _Value:
    value = outer.get(key, default)
    if not isinstance(value, kind):
        if value is _REQUIRED:
            raise ShapeError(f"missing '{key}' in data")
        _refuse(key, kind.__name__)
    return value


def _refuse(key: str, wanted: str) -> NoReturn:
    raise ShapeError(f"'{key}' in data is no {wanted}")
