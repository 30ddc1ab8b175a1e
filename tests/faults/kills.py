"""SIGKILL at random instants: each kind of process, in the middle of the operations that concern it.

Where the campaign knows the steps, this does not: a process dies whenever it pleases the dice, between any two
instructions. What must hold afterwards is the same.
"""

from __future__ import annotations

import os
import random
import re
import select
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.faults.campaign import judge, prepare
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.world import BrokenError, Shown, World
from tests.helpers.processes import end
from tests.server.harness import Client
from virtd.errors import VirtError

# Who is killed: what its title looks like; nobody's for the client, who only hangs up.
VICTIMS = {
    "client": None,
    "call": r"virtd: worker for .*: [A-Z]\w+ ?\w*$",  # and its worker
    "worker": r"virtd: worker for .*",
    "accept loop": r"virtd: accepting",
    "supervisor": r"virtd: guest web1",
    "QEMU": r".* -name guest=web1,",
    "network supervisor": r"virtd: network ",
    "dnsmasq": r"\S*dnsmasq ",
    "all of virtd": r"virtd: ",
}
# The operations each may be in the middle of.
_GUESTS = ("start", "start on a network", "create", "destroy", "suspend", "attach it live", "set its title", "rename")
_NETWORKS = ("start a network", "destroy a network", "start on a network")
_FILES = ("define a guest", "undefine", "clone a volume", "create a volume", "set a secret's value")
CONCERNED = {
    "supervisor": ("start", "create", "destroy", "suspend", "attach it live", "QEMU ends by itself"),
    "QEMU": ("start", "create", "destroy", "suspend", "attach it live"),
    "network supervisor": _NETWORKS,
    "dnsmasq": _NETWORKS,
}
# What the death of these does to a guest or network cannot be undone.
_FATAL = ("QEMU", "dnsmasq")


class Kill(NamedTuple):
    """One kill, and what came of it."""

    victim: str
    operation: str
    after: float  # seconds from the call
    hit: bool
    problem: str


def kills(seed: int, rounds: int, victims: Sequence[str] = tuple(VICTIMS), *, share: float = 1.0) -> Iterator[Kill]:
    """Kill each kind of process so many times in each operation that concerns it.

    Args:
        seed: of the instants.
        rounds: how many times.
        victims: whom, of VICTIMS.
        share: which part of all that is tried.
    """
    dice = random.Random(seed)
    named = {operation.name: operation for operation in OPERATIONS}
    world = World()
    try:
        for name in (*_GUESTS, *_NETWORKS[:2], *_FILES, "QEMU ends by itself"):
            operation = named[name]
            before, after, seconds = _measure(world, operation)
            for victim in victims:
                if name not in CONCERNED.get(victim, tuple(named)):
                    continue
                for _ in range(rounds):
                    if dice.random() >= share:
                        continue
                    delay = dice.uniform(0, seconds * 1.2)
                    hit, problem = _attempt(world, operation, victim, delay, before, after)
                    yield Kill(victim, name, delay, hit, problem)
                    if problem:
                        try:
                            world.close()
                        except BrokenError:
                            pass
                        world = World()
    finally:
        world.close()


def _measure(world: World, operation: Operation) -> tuple[Shown, Shown, float]:
    before = prepare(world, operation)
    with world.client(warm=True) as client:
        begun = time.monotonic()
        world.do(client, operation.call)
        seconds = time.monotonic() - begun
    world.settle()
    after = world.shown()
    world.empty()
    return before, after, seconds


def _attempt(
    world: World, operation: Operation, victim: str, delay: float, before: Shown, after: Shown
) -> tuple[bool, str]:
    hit = False
    try:
        prepare(world, operation)
        with world.client(warm=True) as client:
            hit, result = _call_and_kill(world, client, operation, victim, delay)
        if hit and victim in ("accept loop", "all of virtd"):
            world.instance.start()
        world.settle()
        if victim not in _FATAL:
            judge(world, operation, before, after, result)
        world.check_bystanders()
        world.empty()
        world.check_locks()
        world.check_emptied()
        world.check_log()
    except Exception as problem:
        return hit, str(problem) if isinstance(problem, BrokenError) else traceback.format_exc()
    return hit, ""


def _call_and_kill(world: World, client: Client, operation: Operation, victim: str, delay: float) -> tuple[bool, str]:
    """Begin the operation, kill after the delay, and wait for the answer; whether somebody died, and the error."""
    waiting = world.send(client, operation.call)
    select.select([client.sock], [], [], delay)
    pattern = VICTIMS[victim]
    if pattern is None:
        client.close()
        return True, "the client has gone"
    found = [process.pid for process in world.instance.processes() if re.match(pattern, process.title)]
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    end(found)
    try:
        if waiting is not None:
            client.reply(waiting)
    except VirtError as error:
        return bool(found), f"{error.code}: {error.message}"
    except (EOFError, ConnectionError):
        return bool(found), "the connection was closed"
    return bool(found), ""
