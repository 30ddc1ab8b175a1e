"""Values to bytes and back, by the table.

Values are ints, floats, str (UTF-8; bytes that are not come and go as surrogate escapes), bytes (opaque data, and
arrays of char), None (an optional that is absent), lists (arrays) and named tuples (structures). Arguments and the
contents of events are tuples of fields. A result is None if there are no fields, the bare value of a single field,
or a tuple of fields.

Codecs are built from the tables when first used, or all at once by `warm()`. What may stand behind the last field
is ignored, as libvirt does, unless `exact` is asked for.
"""

from __future__ import annotations

import struct

from virtd.protocol import notation, programs, xdr
from virtd.protocol.lean import Packer, Unpacker, XdrError
from virtd.protocol.procedure import Procedure
from virtd.protocol.records import RECORDS
from virtd.protocol.tables import admin, keepalive, lxc, net, qemu, remote
from virtd.protocol.xdr import Codec, DecodeError, EncodeError
from virtd.tuples import declare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

__all__ = [
    "DecodeError",
    "EncodeError",
    "argument_names",
    "decode_args",
    "decode_event",
    "decode_result",
    "decode_type",
    "definition",
    "encode_args",
    "encode_event",
    "encode_result",
    "encode_type",
    "result_names",
    "signature",
    "warm",
]

_TABLES = {"remote": remote, "qemu": qemu, "lxc": lxc, "admin": admin, "keepalive": keepalive, "net": net}

# What was built so far.
_signatures: dict[Procedure, tuple[tuple[notation.Field, ...], tuple[notation.Field, ...]]] = {}
_types: dict[tuple[str, str], Codec] = {}
_args: dict[Procedure, Codec] = {}
_results: dict[Procedure, Codec] = {}
_decoders: dict[Procedure, Callable[[bytes], tuple[Any, ...]]] = {}
_encoders: dict[Procedure, Callable[[Any], bytes]] = {}


def _types_of(program: str) -> Mapping[str, str]:
    types: Mapping[str, str] = _TABLES[program].TYPES
    return types


def _limits_of(program: str) -> Mapping[str, int]:
    limits: Mapping[str, int] = _TABLES[program].LIMITS
    return limits


def signature(procedure: Procedure) -> tuple[tuple[notation.Field, ...], tuple[notation.Field, ...]]:
    """The fields of a procedure's arguments (or of an event), and those of its result."""
    parsed = _signatures.get(procedure)
    if parsed is None:
        limits = _limits_of(procedure.program)
        parsed = _signatures[procedure] = notation.parse_signature(procedure.signature, limits)
    return parsed


def definition(name: str, program: str) -> tuple[notation.Definition, str]:
    """Find a named type: in the program's table, in the remote program's, or as part of a procedure's signature.

    Returns:
        Its definition, and the program in whose table it stands.
    """
    for home in (program, "remote"):
        text = _types_of(home).get(name)
        if text is not None:
            return notation.parse_definition(text, _limits_of(home)), home
        base, _, part = name.rpartition("_")
        procedure = programs.BY_NAME[home].named.get(base.upper())
        if procedure is not None:
            arguments, results = signature(procedure)
            return results if part == "ret" else arguments, home
    raise KeyError(name)


def _maker(name: str, program: str, fields: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
    record: Any = RECORDS.get(name) or declare(f"{program}_{name}", fields)
    make: Callable[[Sequence[Any]], Any] = record._make
    return make


def _named(name: str, program: str) -> Codec:
    codec = xdr.PRIMITIVES.get(name) or _types.get((program, name))
    if codec is None:
        found, home = definition(name, program)
        if isinstance(found, notation.TypeRef):
            codec = _reference(found, home)
        elif isinstance(found, notation.Enum):
            codec = xdr.enum(found.values)
        elif isinstance(found, notation.Union):
            arms = {case: _reference(field.type, home) for case, field in found.arms.items()}
            codec = xdr.union(arms, _maker(name, home, ("type", "value")))
        else:
            codec = _structure(found, home, _maker(name, home, [field.name for field in found]))
        _types[program, name] = codec
    return codec


def _reference(type_: notation.TypeRef, program: str) -> Codec:
    if type_.base == "opaque":
        return xdr.opaque(type_.array, type_.bound)
    if type_.base == "char" and type_.array:
        return xdr.chars(type_.array, type_.bound)
    element = _named(type_.base, program)
    if type_.array == "?":
        return xdr.optional(element)
    return xdr.array(element, type_.bound) if type_.array else element


def _structure(fields: Sequence[notation.Field], program: str, make: Callable[[Sequence[Any]], Any]) -> Codec:
    return xdr.record([_reference(field.type, program) for field in fields], make)


def _only(values: Sequence[Any]) -> Any:
    return values[0]


def _nothing(values: Sequence[Any]) -> None:
    return None


def _args_codec(procedure: Procedure) -> Codec:
    codec = _args.get(procedure)
    if codec is None:
        codec = _args[procedure] = _structure(signature(procedure)[0], procedure.program, tuple)
    return codec


def _result_codec(procedure: Procedure) -> Codec:
    codec = _results.get(procedure)
    if codec is None:
        fields = signature(procedure)[1]
        make = (_nothing, _only)[len(fields)] if len(fields) < 2 else tuple
        codec = _results[procedure] = _structure(fields, procedure.program, make)
    return codec


def _args_decoder(procedure: Procedure) -> Callable[[bytes], tuple[Any, ...]]:
    """Gives a call's arguments: without a detour if they have constant size, or there are none."""
    codec = _args_codec(procedure)

    def decode(payload: bytes) -> tuple[Any, ...]:
        args: tuple[Any, ...] = _decode(codec, payload, False)
        return args

    def nothing(_payload: bytes) -> tuple[Any, ...]:
        return ()

    made: Callable[[bytes], tuple[Any, ...]] = decode
    if not signature(procedure)[0]:
        made = nothing
    elif codec.layout is not None:
        unpack = codec.layout.unpack_from

        def unpacked(payload: bytes) -> tuple[Any, ...]:
            try:
                return unpack(payload)
            except struct.error:
                return decode(payload)  # which says what is wrong

        made = unpacked
    _decoders[procedure] = made
    return made


def _result_encoder(procedure: Procedure) -> Callable[[Any], bytes]:
    """Makes a reply's payload: without a detour if it has constant size, or is empty."""
    codec, width = _result_codec(procedure), len(signature(procedure)[1])

    def encode(result: Any) -> bytes:
        return _encode(codec, result if width > 1 else (result,), procedure)

    def nothing(result: Any) -> bytes:
        if result is not None:
            raise EncodeError(f"{procedure}: a result, where none is due")
        return b""

    made = encode if width else nothing
    # struct pads and cuts bytes in silence.
    if codec.layout is not None and "s" not in codec.layout.format:
        pack = codec.layout.pack

        def packed(result: Any) -> bytes:
            try:
                return pack(*result) if width > 1 else pack(result)
            except (struct.error, TypeError):
                return encode(result)  # which says what is wrong

        made = packed
    _encoders[procedure] = made
    return made


def _decode(codec: Codec, payload: bytes, exact: bool) -> Any:
    unpacker = Unpacker(payload)
    try:
        value = codec.decode(unpacker)
    except EOFError:
        raise DecodeError("ends too early", min(unpacker.get_position(), len(payload))) from None
    if exact and unpacker.get_position() != len(payload):
        raise DecodeError("bytes left over", unpacker.get_position())
    return value


def _encode(codec: Codec, value: Any, what: object) -> bytes:
    packer = Packer()
    try:
        codec.encode(packer, value)
    except EncodeError as error:
        raise EncodeError(f"{what}: {error}") from None
    except (struct.error, XdrError, TypeError, ValueError, AttributeError) as error:
        raise EncodeError(f"{what}: {error}") from error
    payload: bytes = packer.get_buffer()
    return payload


def argument_names(procedure: Procedure) -> tuple[str, ...]:
    """The names of a call's arguments, or of the fields of an event."""
    return tuple(field.name for field in signature(procedure)[0])


def result_names(procedure: Procedure) -> tuple[str, ...]:
    """The names of the fields of a call's result."""
    return tuple(field.name for field in signature(procedure)[1])


def encode_args(procedure: Procedure, args: Sequence[Any]) -> bytes:
    """The payload of a call.

    Raises:
        EncodeError: the arguments do not fit the table.
    """
    return _encode(_args_codec(procedure), args, procedure)


def decode_args(procedure: Procedure, payload: bytes, *, exact: bool = False) -> tuple[Any, ...]:
    """The arguments of a call.

    Args:
        payload: the bytes behind the header (and behind the number of descriptors, if there is one).
        exact: also refuse bytes behind the last argument.

    Raises:
        DecodeError: the payload is not what the table says.
    """
    if not exact:
        return (_decoders.get(procedure) or _args_decoder(procedure))(payload)
    args: tuple[Any, ...] = _decode(_args_codec(procedure), payload, exact)
    return args


def encode_event(procedure: Procedure, values: Sequence[Any]) -> bytes:
    """The payload of an event; as `encode_args`."""
    return encode_args(procedure, values)


def decode_event(procedure: Procedure, payload: bytes, *, exact: bool = False) -> tuple[Any, ...]:
    """What an event carries; as `decode_args`."""
    return decode_args(procedure, payload, exact=exact)


def encode_result(procedure: Procedure, result: Any) -> bytes:
    """The payload of a reply.

    Args:
        result: None for a procedure without result, the bare value of a single field, or the tuple of fields.

    Raises:
        EncodeError: the result does not fit the table.
    """
    return (_encoders.get(procedure) or _result_encoder(procedure))(result)


def decode_result(procedure: Procedure, payload: bytes, *, exact: bool = False) -> Any:
    """The result in a reply, in the form that `encode_result` takes.

    Raises:
        DecodeError: the payload is not what the table says.
    """
    return _decode(_result_codec(procedure), payload, exact)


def encode_type(name: str, value: Any, program: str = "net") -> bytes:
    """A value of a named type, by default of the framing layer's ("error", "stream_hole")."""
    return _encode(_named(name, program), value, name)


def decode_type(name: str, payload: bytes, program: str = "net", *, exact: bool = False) -> Any:
    """The reverse of `encode_type`."""
    return _decode(_named(name, program), payload, exact)


def warm() -> None:
    """Build all codecs, so that the processes forked later share them."""
    for program in programs.PROGRAMS.values():
        for procedure in program.procedures.values():
            _args_decoder(procedure)
            _result_encoder(procedure)
    for name in net.TYPES:
        _named(name, "net")
