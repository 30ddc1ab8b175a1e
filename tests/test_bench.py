"""The benchmark's breakdown of a start times functions by their names: they are there."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "contrib/bench"


def test_every_part_that_is_timed_is_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = spec_from_file_location("breakdown", BENCH / "breakdown.py")
    assert spec is not None
    assert spec.loader is not None
    breakdown = module_from_spec(spec)
    spec.loader.exec_module(breakdown)
    for place in breakdown.PARTS:
        owner, name = breakdown.find(place)
        assert callable(getattr(owner, name)), place
