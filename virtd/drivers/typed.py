"""Typed parameters (virTypedParameter), as drivers make them and take them.

A client that does not say VIR_TYPED_PARAM_STRING_OKAY is too old for strings: it gets the list without them. One that
asks for none of them asks how many there are.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol.records import TypedParam, TypedValue

_NONE = c.VIR_FROM_NONE  # what libvirt's shared code finds wrong comes from no driver
# How libvirt calls the types in its messages.
_NAMES = {
    c.VIR_TYPED_PARAM_INT: "int",
    c.VIR_TYPED_PARAM_UINT: "uint",
    c.VIR_TYPED_PARAM_LLONG: "llong",
    c.VIR_TYPED_PARAM_ULLONG: "ullong",
    c.VIR_TYPED_PARAM_DOUBLE: "double",
    c.VIR_TYPED_PARAM_BOOLEAN: "boolean",
    c.VIR_TYPED_PARAM_STRING: "string",
}


def integer(field: str, value: int) -> TypedParam:
    """A signed number of 32 bits."""
    return TypedParam(field, TypedValue(c.VIR_TYPED_PARAM_INT, value))


def unsigned(field: str, value: int) -> TypedParam:
    """An unsigned number of 32 bits."""
    return TypedParam(field, TypedValue(c.VIR_TYPED_PARAM_UINT, value))


def long(field: str, value: int) -> TypedParam:
    """A signed number of 64 bits."""
    return TypedParam(field, TypedValue(c.VIR_TYPED_PARAM_LLONG, value))


def unsigned_long(field: str, value: int) -> TypedParam:
    """An unsigned number of 64 bits."""
    return TypedParam(field, TypedValue(c.VIR_TYPED_PARAM_ULLONG, value))


def boolean(field: str, value: bool) -> TypedParam:
    """Yes or no."""
    return TypedParam(field, TypedValue(c.VIR_TYPED_PARAM_BOOLEAN, int(value)))


def string(field: str, value: str) -> TypedParam:
    """A text."""
    return TypedParam(field, TypedValue(c.VIR_TYPED_PARAM_STRING, value))


# The numbers that fit into a parameter of each type.
_RANGES = {
    c.VIR_TYPED_PARAM_INT: range(-(2**31), 2**31),
    c.VIR_TYPED_PARAM_UINT: range(2**32),
    c.VIR_TYPED_PARAM_LLONG: range(-(2**63), 2**63),
    c.VIR_TYPED_PARAM_ULLONG: range(2**64),
}


def check(params: Iterable[TypedParam]) -> None:
    """Refuse numbers that do not fit: for what was said by somebody who cannot be trusted.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR.
    """
    for field, (kind, value) in params:
        if kind in _RANGES and value not in _RANGES[kind]:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"the value of '{field}' is out of range", domain=_NONE)


def portion(params: Sequence[TypedParam], wanted: int, flags: int) -> tuple[list[TypedParam], int]:
    """The answer to a client that has room for so many parameters.

    Args:
        params: all there are.
        wanted: how many the client takes; 0 asks how many there are.
        flags: the call's flags, of which VIR_TYPED_PARAM_STRING_OKAY counts.
    """
    if wanted == 0:
        return [], len(params)
    return readable(params[:wanted], flags), 0


def readable(params: Iterable[TypedParam], flags: int) -> list[TypedParam]:
    """The parameters that a client understands, by its VIR_TYPED_PARAM_STRING_OKAY."""
    strings = bool(flags & c.VIR_TYPED_PARAM_STRING_OKAY)
    return [param for param in params if strings or param.value.type != c.VIR_TYPED_PARAM_STRING]


def take(params: Iterable[TypedParam], known: Mapping[str, int]) -> dict[str, Any]:
    """What a client sets, as a table.

    Args:
        params: the client's parameters.
        known: the names that may be set, with the VIR_TYPED_PARAM_* type of each.

    Raises:
        VirtError: VIR_ERR_ARGUMENT_UNSUPPORTED for an unknown name, VIR_ERR_INVALID_ARG for a wrong type or a
            repetition.
    """
    values: dict[str, Any] = {}
    for param in params:
        kind = known.get(param.field)
        if kind is None:
            raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, f"parameter '{param.field}' not supported", domain=_NONE)
        if param.field in values:
            raise VirtError(c.VIR_ERR_INVALID_ARG, f"parameter '{param.field}' occurs multiple times", domain=_NONE)
        if param.value.type != kind:
            found = _NAMES.get(param.value.type, "unknown")
            text = f"invalid type '{found}' for parameter '{param.field}', expected '{_NAMES[kind]}'"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=_NONE)
        values[param.field] = param.value.value
    return values
