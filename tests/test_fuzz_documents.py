"""The targets of contrib/fuzz/documents.py, for a moment each: seeds, what was found once, and some hundred others."""

from __future__ import annotations

import importlib.util
import random
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[1] / "contrib/fuzz/documents.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_documents", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = load()
# What has broken the rule: a status with a table for a number, and agents that tell of endless times and of numbers
# and texts that fit nowhere.
FOUND = [
    ("status", fuzz.TARGETS["status"].seeds[0].replace(b'"STOP": 1', b'"STOP": {}')),
    ("status", fuzz.TARGETS["status"].seeds[0].replace(b"5900", b"[]")),
    ("agent", b'{"guest-get-users": [{"user": "a", "login-time": Infinity}]}'),
    ("agent", b'{"guest-get-users": [{"user": "a", "login-time": 1e400}]}'),
    ("agent", b'{"guest-get-timezone": {"zone": "UTC", "offset": 1180591620717411303424}}'),
    ("agent", b'{"guest-get-timezone": {"zone": "UTC", "offset": 4294967296}}'),
    ("agent", b'{"guest-get-host-name": {"host-name": "\\ud800"}}'),
]


@pytest.mark.parametrize(("target", "data"), FOUND)
def test_what_was_found(target: str, data: bytes) -> None:
    fuzz.check(target, data)


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_variations(target: str) -> None:
    right = [fuzz.check(target, data) for data in islice(fuzz.cases(target, random.Random(1)), 400)]
    assert 10 < sum(right) < 400  # much is understood, and much is not


def test_it_would_find_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz.TARGETS, "sum", fuzz.Target([b"1 2 3"], lambda data: sum(map(int, data.split()))))
    with pytest.raises(ValueError, match="invalid literal"):
        run("sum")


def run(target: str) -> None:
    for data in islice(fuzz.cases(target, random.Random(1)), 100):
        fuzz.check(target, data)
