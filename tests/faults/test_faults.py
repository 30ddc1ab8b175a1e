"""A seeded part of the campaign (contrib/faults runs all of it), and that it would find something."""

from __future__ import annotations

import json
import os
import select
import signal

import pytest

from tests.conftest import lacking
from tests.faults.campaign import campaign
from tests.faults.kills import kills
from tests.faults.operations import DEFINE_SECRET, DESTROY, OPERATIONS, RUNNING, SUSPEND, TITLE, Call
from tests.faults.world import BrokenError, World
from tests.helpers.processes import end
from tests.helpers.waiting import wait_for
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


@pytest.mark.parametrize(
    ("call", "role", "point", "changes"),
    [
        (SUSPEND, "worker", "lock.taken", True),
        (SUSPEND, "guest", "commit.begun", False),
        (TITLE, "worker", "commit.begun", False),
        (TITLE, "worker", "file.renamed", False),
    ],
)
def test_who_is_stopped_goes_on_later(call: Call, role: str, point: str, changes: bool) -> None:
    """Others are answered meanwhile; and what they change, too, unless it was stopped in the middle of a commit."""
    world = World()
    try:
        with world.client(warm=True) as client, world.client(warm=True) as other:
            for one in RUNNING:
                world.do(client, one)
            (world.faults / "seen").unlink(missing_ok=True)
            order = {"role": role, "point": point, "turn": 1, "action": "SIGSTOP"}
            staged = world.faults / "staged"
            staged.write_text(json.dumps(order))
            staged.rename(world.faults / "plan")
            waiting = world.send(client, call)
            stopped = wait_for(lambda: [one for one in world.instance.processes() if one.state == "T"], "a stop")
            try:
                assert len(other.call("connect_list_all_domains", 1, 0)[0]) == 3
                if changes:
                    world.do(other, DEFINE_SECRET)
                assert not select.select([client.sock], [], [], 0)[0]
            finally:
                for one in stopped:
                    os.kill(one.pid, signal.SIGCONT)
            assert waiting is not None
            client.reply(waiting)
            world.do(client, DESTROY)
        world.empty()
        world.check_locks()
        world.check_emptied()
        world.check_log()
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
