"""virtd's own NamedTuple against that of typing."""

from __future__ import annotations

import copy
import pickle
import typing

import pytest

from virtd import tuples


class Ours(tuples.NamedTuple):
    """A place."""

    host: str
    port: int = 7

    @property
    def both(self) -> str:
        return f"{self.host}:{self.port}"


class Theirs(typing.NamedTuple):
    """A place."""

    host: str
    port: int = 7

    @property
    def both(self) -> str:
        return f"{self.host}:{self.port}"


@pytest.mark.parametrize(
    "expression",
    [
        "T('a')", "T('a', 2)", "T(port=2, host='a')", "T('a').both", "T('a')[1]", "T('a')._replace(port=9)",
        "T('a')._replace(port=None)", "T._make(['a', 1])", "T('a')._asdict()", "T._fields", "T.__match_args__",
        "T._field_defaults", "T('a') == ('a', 7)", "hash(T('a')) == hash(('a', 7))", "repr(T('a')).partition('(')[2]",
        "copy.copy(T('a'))", "len(T('a'))", "T.__doc__", "pickle.loads(pickle.dumps(T('a'))).both", "T('a').port.real",
    ],
)  # fmt: skip
def test_the_same(expression: str) -> None:
    ours, theirs = (eval(expression, {"T": kind, "copy": copy, "pickle": pickle}) for kind in (Ours, Theirs))
    assert ours == theirs


@pytest.mark.parametrize(
    "expression",
    ["T()", "T(1, 2, 3)", "T('a', host='b')", "T('a', other=1)", "T('a')._replace(other=1)", "T._make([1])",
     "T._make([1, 2, 3])", "setattr(T('a'), 'port', 1)", "setattr(T('a'), 'other', 1)"],
)  # fmt: skip
def test_the_same_refusals(expression: str) -> None:
    for kind in (Ours, Theirs):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            eval(expression, {"T": kind})


def test_matching_and_declaring() -> None:
    made = tuples.declare("pair", ["from", "to"])((1, 2)[0], (1, 2)[1])
    assert (getattr(made, "from"), made, repr(made)) == (1, (1, 2), "pair(from=1, to=2)")
    match Ours("a", 1):
        case Ours(host, 1):
            assert host == "a"
        case _:
            pytest.fail("no match")


def test_a_class_made_of_one_has_its_fields_and_no_others() -> None:
    class Further(Ours):
        note: str = "no field"

    assert Further("a").both == "a:7"
    assert Further._fields == ("host", "port")


def test_many() -> None:
    made = tuples.many(Ours, "ab", [1, 2])
    assert made == [Ours("a", 1), Ours("b", 2)]
    assert made[1].both == "b:2"
    with pytest.raises(TypeError):
        tuples.many(Ours, "ab")
