"""A seeded part of the campaign (contrib/faults runs all of it), and that it would find something."""

from __future__ import annotations

import os

import pytest

from tests.conftest import lacking
from tests.faults import operations, stops
from tests.faults.campaign import Plan, attempt, campaign, discover
from tests.faults.kills import kills
from tests.faults.operations import OPERATIONS
from tests.faults.world import BrokenError, World
from tests.helpers.processes import end
from virtd.errors import VirtError
from virtd.state import locks

SEED = 20260101  # the same faults in each run: what is found can be found again
MOST = 1  # faults in each operation
GROUPS = 4


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid():
        pytest.skip("only root can have networks, and guests under a user of their own")
    if not os.path.exists("/dev/net/tun"):
        lacking("device /dev/net/tun")


@pytest.mark.parametrize("group", range(GROUPS))
def test_faults(group: int) -> None:
    outcomes = list(campaign(OPERATIONS[group::GROUPS], seed=SEED + group, most=MOST))
    assert [f"{outcome.plan}: {outcome.problem}" for outcome in outcomes if outcome.problem] == []
    assert sum(outcome.fired for outcome in outcomes) > 0.8 * len(outcomes)


def test_kills_at_any_instant() -> None:
    outcomes = list(kills(SEED, 1, share=0.2))
    assert [outcome for outcome in outcomes if outcome.problem] == []
    assert sum(outcome.hit for outcome in outcomes) > 0.5 * len(outcomes)


def test_who_is_stopped_keeps_nobody_for_long() -> None:
    """Others are answered meanwhile, or told who it is; then it goes on, or is killed."""
    steps = {
        "suspend": [
            ("worker", "lock.taken", stops.SHORTLY),
            ("worker", "lock.taken", stops.LONG),
            ("guest", "commit.begun", stops.KILLED),
        ],
        "set its title": [("worker", "file.renamed", stops.SHORTLY)],
    }
    world = World(patience=2)
    try:
        for operation in OPERATIONS:
            if operation.name in steps:
                _, before, after = discover(world, operation)
                for role, point, action in steps[operation.name]:
                    outcome = attempt(world, Plan(operation, role, point, 1, action), before, after)
                    assert (outcome.problem, outcome.fired) == ("", True), str(outcome.plan)
    finally:
        world.close()


def test_it_would_find_who_waits_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """And who is not told for whom."""
    world = World(patience=stops.PATIENCE)
    try:
        suspend = next(operation for operation in OPERATIONS if operation.name == "suspend")
        _, before, after = discover(world, suspend)
        monkeypatch.setattr(stops, "_LOOKS", [operations.SUSPEND])
        monkeypatch.setattr(stops, "_BOUND", 0.5)
        outcome = attempt(world, Plan(suspend, "worker", "lock.taken", 1, stops.SHORTLY), before, after)
        assert outcome.problem == "domain_suspend does not come to an end"
    finally:
        world.close()


def test_it_would_find_what_is_left() -> None:
    world = World()
    try:
        stray = world.root / "run/virtd/qemu/stray"
        stray.touch()
        with pytest.raises(BrokenError, match="stray"):
            world.check_emptied()
        stray.unlink()
        world.check_emptied()
        path = world.root / "run/virtd/qemu/lock"
        with locks.held(str(path), "a test"), pytest.raises(BrokenError, match=r"held by .*a test"):
            world.check_locks()
        world.check_locks()
        path.unlink()
        (world.root / "var/log/virtd/virtd.log").write_text("Traceback (most recent call last):\n")
        with pytest.raises(BrokenError, match="Traceback"):
            world.check_log()
        world.check_bystanders()
        end([world.qemu("bystander")])
        with pytest.raises((BrokenError, VirtError)):
            world.check_bystanders()
    finally:
        world.close()
