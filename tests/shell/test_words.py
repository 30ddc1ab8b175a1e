"""Command lines, synopses, sizes, sets of CPUs: what users write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtd.shell import cpumaps, parse, rates, units, words
from virtd.shell.command import FLAG, NUMBER, REST, STRING, Option, parse_synopsis
from virtd.shell.failure import Failure


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("list --all", [["list", "--all"]]),
        ("a;b ; c\nd", [["a"], ["b"], ["c"], ["d"]]),
        (" ;; \n", []),
        ("echo 'a b'\"c d\"e\\ f", [["echo", "a bc de f"]]),
        ('echo \'\\\' "\\"" \\;', [["echo", "\\", '"', ";"]]),
        ("a #b\nc#d", [["a"], ["c#d"]]),
        ("a b\\\nc \\\n d", [["a", "bc", "d"]]),
        ("a '' \"\"", [["a", "", ""]]),
        ("a 'open", [["a", "open"]]),
    ],
)
def test_splitting(line: str, commands: list[list[str]]) -> None:
    assert words.split(line) == commands


def test_an_open_quote_is_an_error() -> None:
    with pytest.raises(words.WordsError, match='missing "'):
        words.split('a "b')


@given(st.lists(st.text(), min_size=1))
def test_quoted_words_come_back(given_words: list[str]) -> None:
    assert words.split(" ".join(words.quote(word) if word else "''" for word in given_words)) == [given_words]


def test_a_synopsis_declares_the_options() -> None:
    text = "<domain> <size:number> [--live] [--mode <string>] [--n <number>] [--xpath =<string>] [<file>...]"
    assert parse_synopsis(text) == [
        Option("domain", STRING, required=True, positional=True),
        Option("size", NUMBER, required=True, positional=True),
        Option("live", FLAG),
        Option("mode", STRING, positional=True),
        Option("n", NUMBER, positional=True),
        Option("xpath", STRING),
        Option("file", REST, positional=True),
    ]
    assert parse_synopsis("<key>...") == [Option("key", REST, required=True, positional=True)]


def test_options_stand_anywhere() -> None:
    one = parse.parse(["start", "--paused", "web", "--console"])
    other = parse.parse(["start", "--domain=web", "--console", "--paused"])
    assert one.values == other.values == {"domain": "web", "paused": True, "console": True}
    assert parse.parse(["echo", "a", "--xml", "b", "--", "--err"]).values == {
        "string": ["a", "b", "--err"],
        "xml": True,
    }
    assert parse.parse(["blkdeviotune", "web", "vda", "--total_bytes_sec", "1"]).values["total-bytes-sec"] == "1"
    assert parse.parse(["attach-disk", "a", "b", "c", "--shareable"]).values["mode"] == "shareable"


@pytest.mark.parametrize(
    ("text", "unit", "size"),
    [
        ("10", 1, 10),
        ("10", 1024, 10240),
        ("1k", 1, 1024),
        ("1KiB", 1024, 1024),
        ("1KB", 1, 1000),
        ("2 M", 1, 2 << 20),
        ("3bytes", 1024, 3),
        ("1e", 1, 1 << 60),
    ],
)
def test_sizes(text: str, unit: int, size: int) -> None:
    assert units.parse_size(text, unit, 2**64) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "1kk", "1.5G", "99999999999999999999"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(units.SizeError):
        units.parse_size(text, 1, 2**63)


@given(st.sets(st.integers(0, 63)))
def test_cpus_come_back(numbers: set[int]) -> None:
    bits = cpumaps.bits_of(numbers, 64)
    assert cpumaps.of_host(64, bits) == sorted(numbers)
    if numbers:
        assert cpumaps.parse(cpumaps.ranges(numbers), 64) == bits


def test_cpus_as_users_write_them() -> None:
    assert cpumaps.parse("0-3,^2,8", 16) == bytes([0b00001011, 1])
    assert cpumaps.parse("r", 10) == b"\xff\x03"
    assert cpumaps.letters(b"\x05", 4) == "y-y-"
    for wrong in ("x", "3-1", "^1", "", "1-"):
        with pytest.raises(Failure, match="Invalid cpulist"):
            cpumaps.parse(wrong, 16)
    with pytest.raises(Failure, match="CPU 16 in cpulist '0-16' exceed the maxcpu 16"):
        cpumaps.parse("0-16", 16)


def test_rates() -> None:
    assert rates.parse("1,,3") == rates.Rate(1, 0, 3)
    with pytest.raises(Failure, match="field 'peak' is malformed"):
        rates.parse("1,x")
    with pytest.raises(Failure, match="too many fields"):
        rates.parse("1,2,3,4,5")
