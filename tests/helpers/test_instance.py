"""An Instance starts a real virtd, and at its end nothing is left, or it says what was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.instance import Instance
from tests.helpers.waiting import wait_ended


@pytest.fixture(autouse=True)
def _virsh(need_program: Callable[[str], str]) -> None:
    need_program("virsh")


def test_virtd_starts_answers_and_stops(instance: Instance) -> None:
    instance.start()
    assert instance.pid in [process.pid for process in instance.processes()]
    assert instance.virsh("uri") == instance.uri
    assert instance.virsh("list", "--all", "--name") == ""
    assert instance.virsh_error("domstate", "nobody") == "failed to get domain 'nobody'"
    instance.stop()
    assert instance.pid is None
    assert instance.processes() == []


def test_two_instances_do_not_see_each_other(instances: Callable[[], Instance]) -> None:
    one, other = instances(), instances()
    one.start()
    other.start()
    assert {process.pid for process in one.processes()}.isdisjoint(process.pid for process in other.processes())
    one.stop()
    assert other.virsh("list", "--all", "--name") == ""


def test_a_start_that_fails_says_why(instance: Instance) -> None:
    with pytest.raises(AssertionError, match="--no-such-option"):
        instance.start("--no-such-option")


def test_what_is_left_behind_is_found_and_killed(roots: Callable[[], Path]) -> None:
    instance = Instance(roots())
    instance.start()
    instance.run("sh", "-c", "exec 0<&- 1>&- 2>&-; setsid sleep 1234 &")
    left = instance.finish(5)
    assert "sleep 1234" in [process.title for process in left]
    assert all(wait_ended(process.pid, 0) for process in left)
    assert not instance.root.exists()


def test_a_killed_server_is_started_again_to_end_its_guests(roots: Callable[[], Path]) -> None:
    instance = Instance(roots())
    instance.start()
    assert instance.pid is not None
    os.kill(instance.pid, signal.SIGKILL)
    assert instance.finish() == []
