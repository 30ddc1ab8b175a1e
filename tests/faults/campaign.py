"""Faults at each point of each operation: found by a run without any, tried one by one, and what came of them.

After each fault the operation must have been done wholly or not at all, must succeed when it is asked for again, and
when everything is unmade nothing may be left: no process, file, lock, link, rule, mount, nor a traceback in a log.
"""

from __future__ import annotations

import difflib
import json
import math
import random
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from tests.faults import stops
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.world import BrokenError, Shown, World
from virtd.errors import VirtError

FAILURES = ("ENOSPC", "EIO")
_FORK_FAILURES = ("EAGAIN",)


class Plan(NamedTuple):
    """One fault in one operation."""

    operation: Operation
    role: str
    point: str
    turn: int
    action: str

    def __str__(self) -> str:
        return f"{self.operation.name}: {self.action} of {self.role} at {self.point} {self.turn}"


class Outcome(NamedTuple):
    """What came of a plan."""

    plan: Plan
    fired: bool
    problem: str  # empty if it was survived


def discover(world: World, operation: Operation, *, stopping: bool = False) -> tuple[list[Plan], Shown, Shown]:
    """All faults that can be put into an operation, and what is shown before and after it.

    Args:
        world: the world.
        operation: which.
        stopping: that processes are stopped (stops.py), instead of killed, or let fail.
    """
    before = prepare(world, operation)
    with world.client(warm=True) as client:
        (world.faults / "seen").unlink(missing_ok=True)
        world.do(client, operation.call)
        world.settle(client)
        lines = (world.faults / "seen").read_text().splitlines()
    after = world.shown()
    world.empty()
    world.check_emptied()
    plans = []
    for line, count in Counter(lines).items():
        role, point, fails = line.split()
        actions = list(stops.ACTIONS) if stopping else ["SIGKILL"]
        if fails == "1" and not stopping:
            actions += _FORK_FAILURES if "fork" in point else FAILURES
        plans += [Plan(operation, role, point, turn, action) for turn in range(1, count + 1) for action in actions]
    return plans, before, after


def prepare(world: World, operation: Operation) -> Shown:
    """Bring an empty world to where an operation can be done; what it shows then."""
    with world.client() as client:
        for call in operation.before:
            world.do(client, call)
    return world.shown()


def attempt(world: World, plan: Plan, before: Shown, after: Shown) -> Outcome:
    """Carry a plan out."""
    fired = world.faults / "fired"
    fired.unlink(missing_ok=True)
    (world.faults / "seen").unlink(missing_ok=True)
    try:
        prepare(world, plan.operation)
        action = "SIGSTOP" if plan.action in stops.ACTIONS else plan.action
        order = {"role": plan.role, "point": plan.point, "turn": plan.turn, "action": action}
        staged = world.faults / "staged"
        staged.write_text(json.dumps(order))
        result = _act(world, plan.operation, staged, plan.action)
        if result and plan.action == stops.SHORTLY:
            raise BrokenError(f"it has not gone on: {result}")
        (world.faults / "plan").unlink(missing_ok=True)
        world.settle()
        judge(world, plan.operation, before, after, result)
        world.check_bystanders()
        world.empty()
        world.check_locks()
        world.check_emptied()
        world.check_log()
    except Exception as problem:
        text = str(problem) if isinstance(problem, BrokenError) else traceback.format_exc()
        return Outcome(plan, fired.exists(), text or repr(problem))
    return Outcome(plan, fired.exists(), "")


def _act(world: World, operation: Operation, staged: Path | None = None, action: str = "") -> str:
    """Carry an operation out, with a plan in force if there is one, and its action; returns its error."""
    try:
        with world.client(warm=True) as client:
            if staged is not None:
                (world.faults / "seen").unlink(missing_ok=True)
                staged.rename(world.faults / "plan")
            if action in stops.ACTIONS:
                stops.do(world, client, operation.call, action)
            else:
                world.do(client, operation.call)
    except VirtError as error:
        return f"{error.code}: {error.message}"
    except (EOFError, ConnectionError):
        return "the connection was closed"
    return ""


def judge(world: World, operation: Operation, before: Shown, after: Shown, result: str) -> None:
    """Look at what came of an operation, and ask for it again.

    Args:
        world: the world.
        operation: which.
        before: what was shown before it.
        after: what is shown after it if all goes well.
        result: its error; empty if it succeeded.

    Raises:
        BrokenError: it was done in part, or cannot be done any more.
    """
    shown = world.shown()
    if not result and shown != after:
        raise BrokenError(f"it succeeded, but: {_differences(after, shown)}")
    if shown not in (before, after) and not operation.partly:
        text = f"it was done in part ({result}): from before {_differences(before, shown)}"
        raise BrokenError(f"{text}; to after {_differences(shown, after)}")
    if shown != after:
        again = _act(world, operation)
        world.settle()
        # What is not seen until somebody completes it need not be done a second time.
        if again and world.shown() != after and not operation.partly:
            raise BrokenError(f"the next one failed: {again}; after {result}")
        if not again and world.shown() != after:
            raise BrokenError(f"the next one led to {_differences(after, world.shown())}; after {result}")


def _differences(one: Shown, other: Shown) -> list[str]:
    """What is shown in one way and in another."""
    return [
        line
        for key in sorted({*one, *other})
        for line in difflib.ndiff(re.split(r"\\n|, ", one.get(key, "")), re.split(r"\\n|, ", other.get(key, "")))
        if line[0] in "+-"
    ]


def campaign(
    operations: Sequence[Operation] = OPERATIONS,
    *,
    seed: int | None = None,
    most: int | None = None,
    kinds: str = "",
    seconds: float = math.inf,
    announce: Callable[[int], object] = bool,
    stopping: bool = False,
) -> Iterator[Outcome]:
    """Try all faults, or so many of them that the seed chooses; of each operation one in turn, so that a campaign
    that is not carried to its end has covered all of them.

    Args:
        operations: of which.
        seed: of the choice and the order.
        most: how many are tried of each operation.
        kinds: only plans whose text contains this.
        seconds: after this time no other one is begun.
        announce: called with how many there are to be tried.
        stopping: as for discover().
    """
    end = time.monotonic() + seconds
    dice = random.Random(seed)
    patience = stops.PATIENCE if stopping else None
    world = World(patience=patience)
    try:
        chosen = []
        for operation in operations:
            plans, before, after = discover(world, operation, stopping=stopping)
            plans = [plan for plan in plans if kinds in str(plan)]
            plans = dice.sample(plans, len(plans) if most is None else min(most, len(plans)))
            chosen.append([(plan, before, after) for plan in plans])
        announce(sum(map(len, chosen)))
        for dealt in zip_longest(*chosen):
            for plan, before, after in filter(None, dealt):
                if time.monotonic() > end:
                    return
                outcome = attempt(world, plan, before, after)
                yield outcome
                if outcome.problem:
                    # What it broke is not the next one's fault.
                    try:
                        world.close()
                    except BrokenError:
                        pass
                    world = World(patience=patience)
    finally:
        world.close()
