"""The scalar types: what libvirt takes, and how it writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtd import constants as c
from virtd.conf.xml.types import BITMAP, INT, KIB, MAC, NODESET, UINT, UINT0, UUID, YES_NO, Choice, Size, format_ranges
from virtd.errors import VirtError


@pytest.mark.parametrize(("text", "value"), [("7", 7), (" 7", 7), ("+7", 7), ("007", 7)])
def test_integers(text: str, value: int) -> None:
    assert UINT.parse(text) == value


@pytest.mark.parametrize("text", ["", "x", "7x", "-1", "4294967296", "0x7", "1_0", "\u0663", "7 "])
def test_no_unsigned_integers(text: str) -> None:
    with pytest.raises(ValueError, match="Expected non-negative integer value"):
        UINT.parse(text)


@pytest.mark.parametrize(("text", "value"), [("0x1f", 31), ("017", 15), ("12", 12), ("0", 0)])
def test_c_notation(text: str, value: int) -> None:
    assert UINT0.parse(text) == value


def test_signed() -> None:
    assert INT.parse("-5") == -5
    with pytest.raises(ValueError, match="Expected integer value"):
        INT.parse("2147483648")


@pytest.mark.parametrize(
    ("text", "unit", "kib"),
    [
        ("4", None, 4),
        ("1", "bytes", 1),
        ("1", "KB", 1),
        ("2", "MiB", 2048),
        ("2", "m", 2048),
        ("1", "MB", 977),
        ("1", "G", 1 << 20),
    ],
)
def test_sizes(text: str, unit: str | None, kib: int) -> None:
    assert KIB.parse_with_unit(text, unit) == kib


def test_wrong_sizes() -> None:
    with pytest.raises(VirtError, match="unknown suffix 'zz'") as caught:
        KIB.parse_with_unit("1", "zz")
    assert caught.value.code == c.VIR_ERR_INVALID_ARG
    with pytest.raises(VirtError) as caught:
        KIB.parse_with_unit("99999999", "EiB")
    assert caught.value.code == c.VIR_ERR_OVERFLOW
    with pytest.raises(ValueError):  # noqa: PT011
        Size().parse("-1")


def test_uuid_and_mac() -> None:
    assert UUID.parse(" C7A5FDBDEDAF9455926AD65C16DB1809\n") == "c7a5fdbd-edaf-9455-926a-d65c16db1809"
    assert MAC.parse("52:54:0:A:b:1") == "52:54:00:0a:0b:01"
    for wrong in ("", "52:54:00:11:22", "52-54-00-11-22-33", "52:54:00:11:22:333"):
        with pytest.raises(ValueError):  # noqa: PT011
            MAC.parse(wrong)


def test_choice_and_switch() -> None:
    assert Choice("a b").parse("b") == "b"
    assert (YES_NO.parse("no"), YES_NO.format(True)) == (False, "yes")
    for wrong in ("", "A", "a b"):
        with pytest.raises(ValueError):  # noqa: PT011
            Choice("a b").parse(wrong)


def test_bitmap_words() -> None:
    assert BITMAP.format(BITMAP.parse("0-5,^2,9")) == "0-1,3-5,9"
    with pytest.raises(VirtError, match="Failed to parse bitmap '5-3'"):
        BITMAP.parse("5-3")
    with pytest.raises(VirtError, match="Invalid value of 'nodeset': 0,\\^0"):
        NODESET.parse("0,^0")


@given(st.frozensets(st.integers(0, 300), min_size=1))
def test_bitmap_round_trip(numbers: frozenset[int]) -> None:
    assert BITMAP.parse(format_ranges(numbers)) == numbers
