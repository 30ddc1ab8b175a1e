"""Hypothesis strategies for every type of the tables, built from the tables' own notation."""

import functools
from typing import Any

from hypothesis import strategies as st

from virtd.protocol import codec, notation
from virtd.protocol.procedure import Procedure
from virtd.protocol.records import RECORDS

_MANY = 4  # elements of an array, at most: the limits have tests of their own

_PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**31), 2**31 - 1),
    "uint": st.integers(0, 2**32 - 1),
    "hyper": st.integers(-(2**63), 2**63 - 1),
    "uhyper": st.integers(0, 2**64 - 1),
    "double": st.floats(allow_nan=False),
    "char": st.integers(-128, 127),
    "uchar": st.integers(0, 255),
    "ushort": st.integers(0, 65535),
    # Any bytes but NUL may come: what is no UTF-8 is carried by surrogate escapes.
    "string": st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape")),
}


@functools.cache
def named(name: str, program: str) -> st.SearchStrategy[Any]:
    """Values of a named type of a program's table."""
    if name in _PRIMITIVES:
        return _PRIMITIVES[name]
    definition, home = codec.definition(name, program)
    if isinstance(definition, notation.TypeRef):
        return reference(definition, home)
    if isinstance(definition, notation.Enum):
        return st.sampled_from(sorted(definition.values.values()))
    if isinstance(definition, notation.Union):
        cases = [
            st.tuples(st.just(case), reference(field.type, home)).map(RECORDS[name]._make)
            for case, field in definition.arms.items()
        ]
        return st.one_of(cases)
    make = RECORDS[name]._make if name in RECORDS else tuple
    return structure(definition, home).map(make)


def reference(ref: notation.TypeRef, program: str) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    most = min(ref.bound, _MANY)
    if ref.base == "opaque":
        least = ref.bound if ref.array == "[" else 0
        return st.binary(min_size=least, max_size=max(least, most))
    if ref.base == "char" and ref.array == "[":
        return st.binary(max_size=ref.bound).map(lambda data: data.rstrip(b"\0"))
    if ref.base == "char" and ref.array:
        return st.binary(max_size=most)
    element = named(ref.base, program)
    if ref.array == "?":
        return st.none() | element
    return st.lists(element, max_size=most) if ref.array else element


def structure(fields: tuple[notation.Field, ...], program: str) -> st.SearchStrategy[tuple[Any, ...]]:
    """Tuples of the fields of a structure."""
    return st.tuples(*(reference(field.type, program) for field in fields))


def arguments(procedure: Procedure) -> st.SearchStrategy[tuple[Any, ...]]:
    """Arguments of a call, or contents of an event."""
    return structure(codec.signature(procedure)[0], procedure.program)


def results(procedure: Procedure) -> st.SearchStrategy[Any]:
    """Results of a call, in the form that drivers return them."""
    fields = codec.signature(procedure)[1]
    if not fields:
        return st.none()
    return reference(fields[0].type, procedure.program) if len(fields) == 1 else structure(fields, procedure.program)
