"""Modules that are not loaded because something stands in for them, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def _run(script: str) -> str:
    command = [sys.executable, "-c", f"import sys\nfrom virtd.standins import standins\n{script}"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True)
    return result.stdout.strip()


def test_what_stands_in_is_taken_and_goes_again() -> None:
    script = """
with standins({"sched": {"scheduler": 7}}):
    from sched import scheduler
print(scheduler, "sched" in sys.modules)
"""
    assert _run(script) == "7 False"


def test_a_name_it_does_not_know_is_had_from_the_module_itself() -> None:
    script = """
with standins({"sched": {"scheduler": 7}}):
    import sched as held
    from sched import Event
print(Event.__module__, sys.modules["sched"] is not held, held.scheduler, held.Event is Event)
"""
    assert _run(script) == "sched True 7 True"


def test_a_module_that_is_there_stays() -> None:
    script = """
import sched
with standins({"sched": {"scheduler": 7}}):
    from sched import scheduler
print(scheduler is sched.scheduler, sys.modules["sched"] is sched)
"""
    assert _run(script) == "True True"
