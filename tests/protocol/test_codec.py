"""Values survive the way to bytes and back; what breaks a limit or the table does not come through."""

import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from xdrlib3 import Packer, Unpacker

from tests.protocol import strategies
from virtd.protocol import codec, xdr
from virtd.protocol.codec import DecodeError, EncodeError
from virtd.protocol.procedure import Procedure
from virtd.protocol.programs import METHODS
from virtd.protocol.records import Domain, DomainStatsRecord, StorageVol, TypedParam, TypedValue
from virtd.protocol.tables import admin, net, remote

ALL = list(METHODS.values())
UUID = bytes(range(16))
GUEST = Domain("web1", UUID, 7)

# Each of the 700 types gets few examples: a fault in a building block shows in very many of them.
few = settings(
    max_examples=6,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("procedure", ALL, ids=lambda procedure: procedure.method)
def test_procedure_round_trip(procedure: Procedure) -> None:
    @few
    @given(strategies.arguments(procedure), strategies.results(procedure), st.binary(max_size=8))
    def check(args: tuple[Any, ...], result: Any, garbage: bytes) -> None:
        payload = codec.encode_args(procedure, args)
        assert len(payload) % 4 == 0
        assert codec.decode_args(procedure, payload, exact=True) == args
        assert codec.decode_args(procedure, payload + garbage) == args
        payload = codec.encode_result(procedure, result)
        assert codec.decode_result(procedure, payload, exact=True) == result

    check()


SHARED = [
    (name, program) for program, table in (("remote", remote), ("admin", admin), ("net", net)) for name in table.TYPES
]


@pytest.mark.parametrize(("name", "program"), SHARED)
def test_shared_type_round_trip(name: str, program: str) -> None:
    @settings(few, max_examples=30)
    @given(strategies.named(name, program))
    def check(value: Any) -> None:
        payload = codec.encode_type(name, value, program)
        assert codec.decode_type(name, payload, program, exact=True) == value

    check()


@pytest.mark.parametrize("procedure", ALL, ids=lambda procedure: procedure.method)
def test_cut_short(procedure: Procedure) -> None:
    """No payload cut short is taken for a whole one, and nothing but DecodeError comes of it."""

    @settings(few, max_examples=3)
    @given(strategies.arguments(procedure), strategies.results(procedure))
    def check(args: tuple[Any, ...], result: Any) -> None:
        for payload, decode in (
            (codec.encode_args(procedure, args), codec.decode_args),
            (codec.encode_result(procedure, result), codec.decode_result),
        ):
            for end in range(len(payload)):
                with pytest.raises(DecodeError) as caught:
                    decode(procedure, payload[:end])
                assert 0 <= caught.value.position <= end

    check()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ALL), st.binary(max_size=200))
def test_noise(procedure: Procedure, payload: bytes) -> None:
    """Any bytes are decoded or refused by DecodeError; what was decoded can be encoded again."""
    try:
        args = codec.decode_args(procedure, payload)
    except DecodeError:
        return
    codec.encode_args(procedure, args)


def test_bytes_on_the_wire() -> None:
    """Written out by hand from RFC 4506."""
    lookup = METHODS["domain_lookup_by_name"]
    assert codec.encode_args(lookup, ("vm",)) == b"\0\0\0\2vm\0\0"
    assert codec.encode_result(lookup, GUEST) == b"\0\0\0\4web1" + UUID + b"\0\0\0\7"
    info = METHODS["domain_get_info"]
    assert codec.encode_result(info, (1, 2, 3, 4, 5)) == struct.pack(">IQQIQ", 1, 2, 3, 4, 5)
    assert codec.decode_args(METHODS["connect_open"], b"\0\0\0\0\0\0\0\1") == (None, 1)
    assert codec.decode_args(METHODS["connect_open"], b"\0\0\0\1\0\0\0\0\0\0\0\0") == ("", 0)
    params = METHODS["domain_get_memory_parameters"]
    one = [TypedParam("x", TypedValue(7, "é"))]
    wire = b"\0\0\0\1" + b"\0\0\0\1x\0\0\0" + b"\0\0\0\7" + b"\0\0\0\2\xc3\xa9\0\0" + b"\0\0\0\1"
    assert codec.encode_result(params, (one, 1)) == wire


def test_results_take_the_form_of_their_number() -> None:
    assert codec.decode_result(METHODS["domain_suspend"], b"") is None
    assert codec.decode_result(METHODS["auth_list"], b"\0\0\0\1\0\0\0\0") == [0]
    assert codec.decode_result(METHODS["connect_list_all_domains"], b"\0" * 8) == ([], 0)
    with pytest.raises(EncodeError, match="none is due"):
        codec.encode_result(METHODS["domain_suspend"], 0)
    with pytest.raises(EncodeError, match="1 fields instead of 2"):
        codec.encode_result(METHODS["connect_list_all_domains"], ([],))


def test_records_are_named_after_the_wire() -> None:
    stats = METHODS["connect_get_all_domain_stats"]
    record = DomainStatsRecord(GUEST, [TypedParam("state.state", TypedValue(1, 1))])
    [decoded] = codec.decode_result(stats, codec.encode_result(stats, [record]))
    assert (decoded.dom.name, decoded.params[0].field, decoded.params[0].value.value) == ("web1", "state.state", 1)
    event = METHODS["domain_event_callback_reboot"]
    _, message = codec.decode_event(event, codec.encode_event(event, (3, (GUEST,))))
    assert type(message).__name__ == "remote_domain_event_reboot_msg"
    assert message.dom == GUEST


def test_chars_are_bytes() -> None:
    info = METHODS["node_get_info"]
    payload = codec.encode_result(info, (b"x86_64", 1, 2, 3, 4, 5, 6, 7))
    assert len(payload) == 32 * 4 + 8 + 6 * 4
    assert codec.decode_result(info, payload)[0] == b"x86_64"
    label = METHODS["domain_get_security_label"]
    assert codec.decode_result(label, codec.encode_result(label, (b"a\xff\0", 1))) == (b"a\xff\0", 1)
    assert codec.encode_result(label, (b"\xff", 1)) == b"\0\0\0\1" + b"\xff\xff\xff\xff" + b"\0\0\0\1"
    with pytest.raises(EncodeError, match="33 elements, at most 32"):
        codec.encode_result(info, (b"x" * 33, 1, 2, 3, 4, 5, 6, 7))


def array_limits() -> list[tuple[Procedure, int, int, int]]:
    """(procedure, arguments or results, index, limit) of each limit that can be tried with little memory."""
    return [
        (procedure, part, index, field.type.bound)
        for procedure in ALL
        for part, fields in enumerate(codec.signature(procedure))
        for index, field in enumerate(fields)
        if field.type.array == "<"
    ]


@pytest.mark.parametrize(("procedure", "part", "index", "bound"), array_limits())
def test_limit_is_checked_before_anything_is_read(procedure: Procedure, part: int, index: int, bound: int) -> None:
    """A count above the limit is refused as such, though not a byte of the elements is there."""

    @settings(few, max_examples=2)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        fields = codec.signature(procedure)[part]
        before = [data.draw(strategies.reference(field.type, procedure.program)) for field in fields[:index]]
        packer = Packer()
        for field, value in zip(fields, before, strict=False):
            codec._reference(field.type, procedure.program).encode(packer, value)
        packer.pack_uint(bound + 1)
        payload = packer.get_buffer()
        decode = codec.decode_result if part else codec.decode_args
        with pytest.raises(DecodeError, match=f"{bound + 1} elements, at most {bound}") as caught:
            decode(procedure, payload)
        assert caught.value.position == len(payload)

    check()


@pytest.mark.parametrize("length", [net.STRING_MAX + 1, 2**32 - 1])
def test_string_limit(length: int) -> None:
    with pytest.raises(DecodeError, match=f"string of {length} bytes"):
        codec.decode_args(METHODS["domain_lookup_by_name"], struct.pack(">I", length) + b"x" * 100)


def test_longest_string() -> None:
    lookup = METHODS["domain_lookup_by_name"]
    longest = "x" * net.STRING_MAX
    assert codec.decode_args(lookup, codec.encode_args(lookup, (longest,))) == (longest,)
    with pytest.raises(EncodeError, match="string of"):
        codec.encode_args(lookup, (longest + "x",))


@pytest.mark.parametrize(
    ("method", "payload", "reason"),
    [
        ("domain_lookup_by_name", b"\0\0\0\3a\0b\0", "NUL"),
        ("connect_open", b"\0\0\0\2\0\0\0\0", "2 instead of 0 or 1"),
        ("domain_lookup_by_name", b"\0\0\0\x0512345", "too early"),
        (
            "domain_set_memory_parameters",
            b"\0\0\0\0" + UUID + b"\0" * 4 + b"\0\0\0\1" * 2 + b"x\0\0\0\0\0\0\x08",
            "case",
        ),
    ],
)
def test_refused_when_decoded(method: str, payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        codec.decode_args(METHODS[method], payload)


def test_enumeration_is_checked() -> None:
    auth = METHODS["auth_list"]
    with pytest.raises(DecodeError, match="3 is not in the enumeration"):
        codec.decode_result(auth, b"\0\0\0\1\0\0\0\3")
    with pytest.raises(EncodeError, match="3 is not in the enumeration"):
        codec.encode_result(auth, [3])


def test_left_over_bytes_are_reported_on_demand() -> None:
    lookup = METHODS["domain_lookup_by_id"]
    assert codec.decode_args(lookup, b"\0\0\0\1more") == (1,)
    with pytest.raises(DecodeError, match="left over") as caught:
        codec.decode_args(lookup, b"\0\0\0\1more", exact=True)
    assert caught.value.position == 4


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("domain_lookup_by_name", (None,)),
        ("domain_lookup_by_name", (b"bytes",)),
        ("domain_lookup_by_name", ("a\0b",)),
        ("domain_lookup_by_name", ()),
        ("domain_lookup_by_id", ("1",)),
        ("domain_lookup_by_id", (2**31,)),
        ("domain_lookup_by_uuid", (b"short",)),
        ("domain_suspend", (Domain("x", b"short", 1),)),
        ("domain_suspend", (Domain("x", UUID + b"!", 1),)),
        ("domain_suspend", (None,)),
        ("domain_set_memory", (GUEST, -1)),
        ("domain_send_key", (GUEST, 0, 0, [1] * 17, 0)),
        ("domain_pin_vcpu", (GUEST, 0, b"x" * 2049)),
        ("domain_set_memory_parameters", (GUEST, [("x", (8, 1))], 0)),
    ],
)
def test_refused_when_encoded(method: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(EncodeError, match=METHODS[method].name):
        codec.encode_args(METHODS[method], args)


VOLUMES = METHODS["storage_pool_list_all_volumes"]
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)


@few
@given(st.lists(st.builds(StorageVol, TEXTS, TEXTS, TEXTS), min_size=xdr._MANY, max_size=40))
def test_many_strings_are_encoded_as_a_few_are(volumes: list[StorageVol]) -> None:
    together = codec.encode_result(VOLUMES, (volumes, 0))
    alone = [codec.encode_result(VOLUMES, ([volume], 0))[4:-4] for volume in volumes]
    assert together == struct.pack(">I", len(volumes)) + b"".join(alone) + b"\0\0\0\0"


@pytest.mark.parametrize("wrong", [("p", "a\0b", "k"), ("p", "k"), ("p", None, "k"), ("p", "x" * (4 << 20 | 1), "k")])
def test_many_strings_are_checked(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(EncodeError, match=VOLUMES.name):
        codec.encode_result(VOLUMES, ([("p", "n", "k")] * xdr._MANY + [wrong], 0))


def test_memory_is_not_reserved_on_a_word() -> None:
    """A list that claims its full length and ends after one element costs one element."""
    stats = METHODS["connect_get_all_domain_stats"]
    payload = struct.pack(">I", remote.LIMITS["DOMAIN_LIST_MAX"]) + b"\0\0\0\0" + UUID + b"\0\0\0\1"
    payload += struct.pack(">I", remote.LIMITS["CONNECT_GET_ALL_DOMAIN_STATS_MAX"])
    tracemalloc.start()
    with pytest.raises(DecodeError):
        codec.decode_result(stats, payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_warm_builds_everything() -> None:
    codec.warm()
    built = dict(codec._args)
    codec.warm()
    assert len(built) == 482
    assert all(codec._args[procedure] is built[procedure] for procedure in built)


def test_char_alone() -> None:
    char = xdr.PRIMITIVES["char"]
    with pytest.raises(EncodeError):
        char.encode(Packer(), 128)
    with pytest.raises(DecodeError):
        char.decode(Unpacker(b"\0\0\0\x80"))
    assert char.decode(Unpacker(b"\xff\xff\xff\xff")) == -1
