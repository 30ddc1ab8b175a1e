"""The building blocks of the codecs: XDR (RFC 4506) by way of xdrlib3, which itself knows no limits.

Every limit is checked before anything is read or reserved. Whatever has constant size also tells its letters in
the language of `struct`, so that neighbours in a record are packed together: measured on DOMAIN_GET_INFO, its reply
takes 0.8 µs that way, and 2 µs field by field.

This module knows nothing of tables and notation.
"""

from __future__ import annotations

import struct
from itertools import chain, groupby

from virtd.protocol.lean import Packer, Unpacker
from virtd.protocol.tables.net import STRING_MAX
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

_UINT = struct.Struct(">I")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
# From how many elements on it is worth while to take those of an array together.
_MANY = 16


class DecodeError(ValueError):
    """What came over the wire is not what the table says.

    Attributes:
        reason: what is wrong.
        position: where, in bytes from the beginning of the payload.
    """

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(f"{reason} (at byte {position})")
        self.reason = reason
        self.position = position


class EncodeError(ValueError):
    """A value does not fit what the table says: whoever made it has a bug, or a limit is exceeded."""


class Codec(NamedTuple):
    """How a type is read and written.

    Attributes:
        decode: takes the value out of an unpacker.
        encode: puts a value into a packer.
        format: of a single value of constant size, its letter in `struct`, so that neighbours can be joined.
        strings: of a record of nothing but strings, how many, so that those of a whole array can be joined.
        layout: of a record of constant size, all of it.
    """

    decode: Callable[[Unpacker], Any]
    encode: Callable[[Packer, Any], None]
    format: str = ""
    strings: int = 0
    layout: struct.Struct | None = None


def _fixed(letters: str) -> Codec:
    layout = struct.Struct(">" + letters)
    size, pack, unpack = layout.size, layout.pack, layout.unpack

    def decode(unpacker: Unpacker) -> Any:
        return unpack(unpacker.unpack_fopaque(size))[0]

    def encode(packer: Packer, value: Any) -> None:
        packer.pack_fopaque(size, pack(value))

    return Codec(decode, encode, letters)


def _decode_string(unpacker: Unpacker) -> str:
    length = unpacker.unpack_uint()
    if length > STRING_MAX:
        raise DecodeError(f"string of {length} bytes, at most {STRING_MAX}", unpacker.get_position())
    data = unpacker.unpack_fstring(length)
    if b"\0" in data:
        raise DecodeError("NUL in a string", unpacker.get_position())
    return str(data, "utf-8", "surrogateescape")


def _encode_string(packer: Packer, value: str) -> None:
    data = value.encode("utf-8", "surrogateescape")
    length = len(data)
    if length > STRING_MAX:
        raise EncodeError(f"string of {length} bytes, at most {STRING_MAX}")
    if b"\0" in data:
        raise EncodeError("NUL in a string")
    packer.pack_fopaque(4 + length, _UINT.pack(length) + data)


def _decode_char(unpacker: Unpacker) -> int:
    value: int = unpacker.unpack_int()
    if not -128 <= value < 128:
        raise DecodeError(f"{value} is no char", unpacker.get_position())
    return value


def _encode_char(packer: Packer, value: int) -> None:
    if not -128 <= value < 128:
        raise EncodeError(f"{value} is no char")
    packer.pack_int(value)


PRIMITIVES = {
    "int": _fixed("i"),
    "uint": _fixed("I"),
    "hyper": _fixed("q"),
    "uhyper": _fixed("Q"),
    "double": _fixed("d"),
    "uchar": _fixed("3xB"),
    "ushort": _fixed("2xH"),
    "char": Codec(_decode_char, _encode_char),
    "string": Codec(_decode_string, _encode_string),
}


def _count(unpacker: Unpacker, most: int) -> int:
    count: int = unpacker.unpack_uint()
    if count > most:
        raise DecodeError(f"{count} elements, at most {most}", unpacker.get_position())
    return count


def _check_count(values: Sequence[Any], most: int) -> int:
    if len(values) > most:
        raise EncodeError(f"{len(values)} elements, at most {most}")
    return len(values)


def opaque(array: str, bound: int) -> Codec:
    """Bytes: exactly `bound` of them if `array` is "[", at most if it is "<"."""
    if array == "[":
        codec = _fixed(f"{bound}s")

        def encode_exact(packer: Packer, value: bytes) -> None:
            if len(value) != bound:
                raise EncodeError(f"{len(value)} bytes instead of {bound}")
            packer.pack_fopaque(bound, value)

        # A multiple of four needs no padding, so it can stand within a struct.
        return Codec(codec.decode, encode_exact, codec.format if bound % 4 == 0 else "")

    def decode(unpacker: Unpacker) -> bytes:
        data: bytes = unpacker.unpack_fopaque(_count(unpacker, bound))
        return data

    def encode(packer: Packer, value: bytes) -> None:
        _check_count(value, bound)
        packer.pack_opaque(value)

    return Codec(decode, encode)


def chars(array: str, bound: int) -> Codec:
    """An array of char, as bytes; one of fixed size ("[") without the NULs behind it."""

    def decode(unpacker: Unpacker) -> bytes:
        count = bound if array == "[" else _count(unpacker, bound)
        data: bytes = unpacker.unpack_fopaque(4 * count)[3::4]
        return data.rstrip(b"\0") if array == "[" else data

    def encode(packer: Packer, value: bytes) -> None:
        count = _check_count(value, bound)
        if array == "[":
            value, count = value.ljust(bound, b"\0"), bound
        else:
            packer.pack_uint(count)
        packer.pack_fopaque(4 * count, struct.pack(f">{count}i", *struct.unpack(f"{count}b", value)))

    return Codec(decode, encode)


def optional(element: Codec) -> Codec:
    """A value that may be absent (None)."""
    inner_decode, inner_encode = element.decode, element.encode

    def decode(unpacker: Unpacker) -> Any:
        present = unpacker.unpack_uint()
        if present == 0:
            return None
        if present != 1:
            raise DecodeError(f"{present} instead of 0 or 1", unpacker.get_position())
        return inner_decode(unpacker)

    def encode(packer: Packer, value: Any) -> None:
        if value is None:
            packer.pack_uint(0)
        else:
            packer.pack_uint(1)
            inner_encode(packer, value)

    return Codec(decode, encode)


def array(element: Codec, bound: int) -> Codec:
    """A list of at most `bound` elements."""
    if element.format:
        layout = struct.Struct(">" + element.format)
        size, pack, unpack = layout.size, layout.pack, layout.iter_unpack

        def decode_numbers(unpacker: Unpacker) -> list[Any]:
            data = unpacker.unpack_fopaque(_count(unpacker, bound) * size)
            return [value for (value,) in unpack(data)]

        def encode_numbers(packer: Packer, values: Sequence[Any]) -> None:
            packer.pack_uint(_check_count(values, bound))
            data = b"".join(map(pack, values))
            packer.pack_fopaque(len(data), data)

        return Codec(decode_numbers, encode_numbers)

    inner_decode, inner_encode, strings = element.decode, element.encode, element.strings

    def decode(unpacker: Unpacker) -> list[Any]:
        return [inner_decode(unpacker) for _ in range(_count(unpacker, bound))]

    def encode(packer: Packer, values: Sequence[Any]) -> None:
        packer.pack_uint(_check_count(values, bound))
        for value in values:
            inner_encode(packer, value)

    def encode_strings(packer: Packer, values: Sequence[Any]) -> None:
        if len(values) < _MANY:
            encode(packer, values)
            return
        packer.pack_uint(_check_count(values, bound))
        if set(map(len, values)) != {strings}:
            raise EncodeError(f"not all have {strings} fields")
        data = _packed_strings(list(chain.from_iterable(values)))
        packer.pack_fopaque(len(data), data)

    return Codec(decode, encode_strings if strings else encode)


def _packed_strings(values: Sequence[str]) -> bytes:
    """Many strings at once: measured on 10,000 volumes, in a fifth of the time that they take one by one."""
    encoded = "\0".join(values).encode("utf-8", "surrogateescape").split(b"\0")
    if len(encoded) != len(values):
        raise EncodeError("NUL in a string")
    lengths = list(map(len, encoded))
    if max(lengths) > STRING_MAX:
        raise EncodeError(f"string of {max(lengths)} bytes, at most {STRING_MAX}")
    # Between two strings stand the padding of the one and the length of the other.
    neighbours = list(zip([0, *lengths], lengths, strict=False))
    between = {pair: _PADDING[pair[0] & 3] + _UINT.pack(pair[1]) for pair in set(neighbours)}
    parts = [b""] * (2 * len(encoded))
    parts[::2] = map(between.__getitem__, neighbours)
    parts[1::2] = encoded
    return b"".join(parts) + _PADDING[lengths[-1] & 3]


def enum(values: Mapping[str, int]) -> Codec:
    """An integer that is one of `values`."""
    allowed = frozenset(values.values())

    def decode(unpacker: Unpacker) -> int:
        value: int = unpacker.unpack_int()
        if value not in allowed:
            raise DecodeError(f"{value} is not in the enumeration", unpacker.get_position())
        return value

    def encode(packer: Packer, value: int) -> None:
        if value not in allowed:
            raise EncodeError(f"{value} is not in the enumeration")
        packer.pack_int(value)

    return Codec(decode, encode)


def union(arms: Mapping[int, Codec], make: Callable[[tuple[Any, ...]], Any]) -> Codec:
    """A discriminated union: `make` is given the discriminant and the value that belongs to it."""
    decoders = {case: arm.decode for case, arm in arms.items()}
    encoders = {case: arm.encode for case, arm in arms.items()}

    def decode(unpacker: Unpacker) -> Any:
        case = unpacker.unpack_int()
        arm = decoders.get(case)
        if arm is None:
            raise DecodeError(f"{case} is no case of the union", unpacker.get_position())
        return make((case, arm(unpacker)))

    def encode(packer: Packer, value: tuple[int, Any]) -> None:
        case, inner = value
        arm = encoders.get(case)
        if arm is None:
            raise EncodeError(f"{case} is no case of the union")
        packer.pack_int(case)
        arm(packer, inner)

    return Codec(decode, encode)


def _run(codecs: Sequence[Codec]) -> Codec:
    """Neighbours of constant size, packed together: their values as a tuple."""
    layout = struct.Struct(">" + "".join(codec.format for codec in codecs))
    size, pack, unpack = layout.size, layout.pack, layout.unpack
    # struct pads and cuts bytes in silence.
    exact = [(index, int(c.format[:-1])) for index, c in enumerate(codecs) if c.format.endswith("s")]

    def decode(unpacker: Unpacker) -> tuple[Any, ...]:
        return unpack(unpacker.unpack_fopaque(size))

    def encode(packer: Packer, values: Sequence[Any]) -> None:
        for index, length in exact:
            if len(values[index]) != length:
                raise EncodeError(f"{len(values[index])} bytes instead of {length}")
        packer.pack_fopaque(size, pack(*values))

    return Codec(decode, encode)


def record(codecs: Sequence[Codec], make: Callable[[list[Any]], Any]) -> Codec:
    """A structure: `make` is given the list of its fields; encoding takes any sequence of them."""
    decoders: list[tuple[bool, Callable[[Unpacker], Any]]] = []
    encoders: list[tuple[int | slice, Callable[[Packer, Any], None]]] = []
    start = 0
    for is_run, group in groupby(codecs, lambda codec: codec.format != ""):
        members = list(group)
        if is_run and len(members) > 1:
            run = _run(members)
            decoders.append((True, run.decode))
            encoders.append((slice(start, start + len(members)), run.encode))
        else:
            decoders += [(False, codec.decode) for codec in members]
            encoders += [(start + offset, codec.encode) for offset, codec in enumerate(members)]
        start += len(members)
    width = len(codecs)

    def decode(unpacker: Unpacker) -> Any:
        values: list[Any] = []
        for several, decode_part in decoders:
            if several:
                values += decode_part(unpacker)
            else:
                values.append(decode_part(unpacker))
        return make(values)

    def encode(packer: Packer, values: Sequence[Any]) -> None:
        if len(values) != width:
            raise EncodeError(f"{len(values)} fields instead of {width}")
        for where, encode_part in encoders:
            encode_part(packer, values[where])

    strings = width if all(codec is PRIMITIVES["string"] for codec in codecs) else 0
    formats = [codec.format for codec in codecs]
    layout = struct.Struct(">" + "".join(formats)) if formats and all(formats) else None
    return Codec(decode, encode, strings=strings, layout=layout)
