"""The notation in which the tables write signatures and types, and how it is read.

    (dom: domain, flags: uint)          a structure: fields, in wire order
    (dom: domain) -> (xml: string)      a signature: arguments and results
    enum NONE=0, SASL=1                 an enumeration: a 4-byte integer which has one of these values
    union type: 1=i int, 7=s string     a 4-byte integer, and then what belongs to that value
    opaque[16]                          another name for a type

Types of fields:

    int uint hyper uhyper double        4 bytes, 4, 8, 8, 8
    char uchar ushort                   4 bytes each on the wire, in arrays too
    string                              UTF-8, at most STRING_MAX bytes
    opaque<N> opaque[N]                 at most N bytes; N bytes
    domain, uuid, ...                   a type of the table's TYPES, or of the remote program's
    domain_event_reboot_msg             what an event (_msg) carries, a call takes (_args) or gives back (_ret)
    T? T<N> T[N]                        maybe a T; at most N of them; N of them

N is a number or a name from the table's LIMITS. On the wire libvirt calls `domain` remote_nonnull_domain,
and `domain?` remote_domain.
"""

from __future__ import annotations

from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class TypeRef(NamedTuple):
    """The type of a field: base type, what surrounds it ("", "?", "<" or "[") and the bound of < and [."""

    base: str
    array: str
    bound: int


class Field(NamedTuple):
    """A field of a structure."""

    name: str
    type: TypeRef


class Enum(NamedTuple):
    """An enumeration: its values by name."""

    values: dict[str, int]


class Union(NamedTuple):
    """A discriminated union: the field that belongs to each value of the discriminant."""

    arms: dict[int, Field]


Definition = tuple[Field, ...] | Enum | Union | TypeRef


def parse_field(text: str, limits: Mapping[str, int]) -> Field:
    """Read "name: type", or a type alone (its name is then empty).

    Raises:
        ValueError: the notation is wrong; it names the text.
        KeyError: a limit is not known.
    """
    name, colon, base = text.rpartition(": ")
    array, count = "", 0
    if base.endswith("?"):
        base, array = base[:-1], "?"
    elif base[-1:] in (">", "]"):
        array = "<" if base.endswith(">") else "["
        base, _, bound = base[:-1].partition(array)
        count = int(bound) if bound.isdigit() else limits[bound]
    if not base.isidentifier() or (colon and not name.isidentifier()):
        raise ValueError(f"cannot read the field {text!r}")
    return Field(name, TypeRef(base, array, count))


def parse_fields(text: str, limits: Mapping[str, int]) -> tuple[Field, ...]:
    """Read the fields of a structure: "(name: type, name: type)"."""
    if not (text.startswith("(") and text.endswith(")")):
        raise ValueError(f"no structure: {text!r}")
    inner = text[1:-1]
    return tuple(parse_field(part, limits) for part in inner.split(", ")) if inner else ()


def parse_signature(text: str, limits: Mapping[str, int]) -> tuple[tuple[Field, ...], tuple[Field, ...]]:
    """Read "(arguments) -> (results)"; without an arrow there are no results."""
    arguments, _, results = text.partition(" -> ")
    return parse_fields(arguments, limits), parse_fields(results or "()", limits)


def parse_definition(text: str, limits: Mapping[str, int]) -> Definition:
    """Read the definition of a type."""
    if text.startswith("("):
        return parse_fields(text, limits)
    if text.startswith("enum "):
        pairs = (part.split("=") for part in text[len("enum ") :].split(", "))
        return Enum({name: int(value) for name, value in pairs})
    if text.startswith("union type: "):
        arms = {}
        for part in text[len("union type: ") :].split(", "):
            value, _, field = part.partition("=")
            arms[int(value)] = parse_field(field.replace(" ", ": ", 1), limits)
        return Union(arms)
    return parse_field(text, limits).type
