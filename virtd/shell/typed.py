"""Typed parameters (virTypedParameter): made of what users write, printed as virsh prints them."""

from __future__ import annotations

from virtd import constants as c
from virtd.protocol.records import TypedParam, TypedValue
from virtd.shell.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

_INTEGERS = {
    c.VIR_TYPED_PARAM_INT: (-(2**31), 2**31 - 1),
    c.VIR_TYPED_PARAM_UINT: (0, 2**32 - 1),
    c.VIR_TYPED_PARAM_LLONG: (-(2**63), 2**63 - 1),
    c.VIR_TYPED_PARAM_ULLONG: (0, 2**64 - 1),
    c.VIR_TYPED_PARAM_BOOLEAN: (0, 1),
}


def bounds(kind: int) -> tuple[int, int]:
    """The least and the largest number of a type."""
    return _INTEGERS[kind]


def make(name: str, kind: int, value: Any) -> TypedParam:
    """A parameter.

    Args:
        name: its name, VIR_*.
        kind: its type, VIR_TYPED_PARAM_*.
        value: an int, float or text.
    """
    return TypedParam(name, TypedValue(kind, value))


def parse(name: str, kind: int, text: str) -> TypedParam:
    """A parameter of what a user wrote.

    Raises:
        Failure: it is not of that type.
    """
    try:
        if kind in _INTEGERS:
            number = int(text)
            least, most = _INTEGERS[kind]
            if not least <= number <= most:
                raise ValueError
            return make(name, kind, number)
        return make(name, kind, float(text) if kind == c.VIR_TYPED_PARAM_DOUBLE else text)
    except ValueError:
        raise Failure(f"invalid argument: invalid value '{text}' for parameter '{name}'") from None


def text(parameter: TypedParam) -> str:
    """A parameter's value as virsh prints it."""
    kind, value = parameter.value
    if kind == c.VIR_TYPED_PARAM_DOUBLE:
        return f"{value:f}"
    if kind == c.VIR_TYPED_PARAM_BOOLEAN:
        return "yes" if value else "no"
    return str(value)


def data(parameters: Iterable[TypedParam]) -> dict[str, Any]:
    """Parameters for JSON."""
    return {
        one.field: bool(one.value.value) if one.value.type == c.VIR_TYPED_PARAM_BOOLEAN else one.value.value
        for one in parameters
    }


def find(parameters: Sequence[TypedParam], name: str) -> Any:
    """The value of a parameter; None if it is not there."""
    return next((one.value.value for one in parameters if one.field == name), None)
