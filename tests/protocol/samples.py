"""One full value of every type: nothing absent, no array empty. Deterministic, for what cannot run under hypothesis."""

from typing import Any

from virtd.protocol import codec, notation
from virtd.protocol.procedure import Procedure

_PRIMITIVES: dict[str, Any] = {
    "int": -2,
    "uint": 3,
    "hyper": -(2**40),
    "uhyper": 2**63 + 5,
    "double": 0.5,
    "char": -7,
    "uchar": 200,
    "ushort": 60000,
    "string": "tüxt",
}


def value(ref: notation.TypeRef, program: str) -> Any:
    """A value of a field's type."""
    if ref.base in ("opaque", "char") and ref.array:
        return b"bytes".ljust(ref.bound, b"!")[: ref.bound] if ref.array == "[" else b"bytes"
    found: Any
    if ref.base in _PRIMITIVES:
        found = [_PRIMITIVES[ref.base]]
    else:
        definition, home = codec.definition(ref.base, program)
        if isinstance(definition, notation.TypeRef):
            found = [value(definition, home)]
        elif isinstance(definition, notation.Enum):
            found = sorted(definition.values.values())
        elif isinstance(definition, notation.Union):
            found = [(case, value(field.type, home)) for case, field in definition.arms.items()]
        elif ref.base == "typed_param" and ref.array:
            union = value(notation.TypeRef("typed_param_value", "<", 99), home)
            found = [(f"field{case}", (case, inner)) for case, inner in union]
        else:
            found = [structure(definition, home)]
    return found if ref.array == "<" else found[0]


def structure(fields: tuple[notation.Field, ...], program: str) -> tuple[Any, ...]:
    """A value for each field."""
    return tuple(value(field.type, program) for field in fields)


def arguments(procedure: Procedure) -> tuple[Any, ...]:
    """Arguments of a call, or the contents of an event."""
    return structure(codec.signature(procedure)[0], procedure.program)


def result(procedure: Procedure) -> Any:
    """A result of a call, as a driver returns it."""
    values = structure(codec.signature(procedure)[1], procedure.program)
    return values if len(values) > 1 else values[0] if values else None
