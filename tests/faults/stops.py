"""Processes that are stopped (SIGSTOP) at a step of an operation: what others get meanwhile, and what comes of it.

Lists and statistics come in bounded time. Who needs a lock that the stopped one holds gets an error, in bounded time,
which names it, its call and since when; who needs a supervisor that is stopped gets one that names the guest. The
stopped one then goes on, or is killed.
"""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import time

from tests.faults import operations
from tests.faults.operations import GUEST, Call
from tests.faults.world import BrokenError, World
from tests.helpers.processes import Process
from tests.helpers.waiting import wait_for
from tests.server.harness import Client
from virtd import constants as c
from virtd.errors import VirtError
from virtd.state import locks

# For a moment, in which others only look; longer than they have patience, and then it goes on; or it is killed.
SHORTLY, LONG, KILLED = ACTIONS = ("short SIGSTOP", "long SIGSTOP", "SIGSTOP, then SIGKILL")
PATIENCE = 3.0  # seconds, for what has 30 in earnest
_BOUND = 3 * PATIENCE  # of the patience with a guest, and what a busy machine adds
_LATE = 1.0  # seconds after the answer, in which a supervisor comes to the point

_LOOKS: list[Call] = [
    *((f"connect_list_all_{what}", 1, 0) for what in ("domains", "networks", "storage_pools", "secrets")),
    ("connect_get_all_domain_stats", [], 0, 0),
    ("domain_get_state", GUEST, 0),
]
_OTHER_GUEST = operations.guest_xml().replace("web1", "other").replace("10000000", "70000000")
_OTHER_NETWORK = operations.NETWORK_XML.replace("net1", "other").replace("20000000", "80000000")
_OTHER_POOL = operations.POOL_XML.replace("pool1", "other").replace("30000000", "90000000")
_OTHER_SECRET = operations.SECRET_XML.replace("40000000", "a0000000").replace("<name>s<", "<name>t<")
_START = ("domain_create_xml", operations.guest_xml(), 0)
# What needs a lock, by its path in the run-time directory; the guest's is another call when it runs.
_NEEDS: dict[str, Call] = {
    r"qemu\.lock": ("domain_define_xml_flags", _OTHER_GUEST, 0),
    r"qemu/10000000-.*/lock": _START,
    r"networks\.lock": ("network_define_xml", _OTHER_NETWORK),
    r"networks/20000000-.*/lock": ("network_create_xml", operations.NETWORK_XML),
    r"storage\.lock": ("storage_pool_define_xml", _OTHER_POOL, 0),
    r"secret\.lock": ("secret_define_xml", _OTHER_SECRET, 0),
    r"generation": ("secret_define_xml", _OTHER_SECRET, 0),
}


def do(world: World, client: Client, call: Call, action: str) -> None:
    """Carry out a call in which a process is stopped, if a plan says so, and one comes there.

    Raises:
        VirtError: what the call failed with.
        BrokenError: others did not get what they have to.
    """
    waiting = world.send(client, call)
    victim = _stopped(world, client if waiting is not None else None)
    try:
        if victim is not None:
            with Client(str(world.instance.socket), timeout=_BOUND, uri=world.uri) as other:
                _look(other)
                if action != SHORTLY:
                    _need(world, other, victim)
    finally:
        (world.faults / "plan").unlink(missing_ok=True)
        for process in _all_stopped(world):
            os.kill(process.pid, signal.SIGKILL if action == KILLED else signal.SIGCONT)
    if waiting is not None:
        client.reply(waiting)
    else:
        world.settle(client)


def _all_stopped(world: World) -> list[Process]:
    return [process for process in world.instance.processes() if process.state == "T"]


def _stopped(world: World, client: Client | None) -> Process | None:
    """The process that a plan has stopped; None if none comes to the point.

    Args:
        world: the world.
        client: who waits for an answer, if anybody does.
    """
    answered: list[float] = []

    def look() -> tuple[Process | None] | None:
        found = _all_stopped(world)
        if found:
            return (found[0],)
        if not answered and (client is None or select.select([client.sock], [], [], 0)[0]):
            answered.append(time.monotonic())
        late = answered and time.monotonic() > answered[0] + _LATE
        return (None,) if late and not (world.faults / "fired").exists() else None

    return wait_for(look, "a stop")[0]


def _look(other: Client) -> None:
    """What changes nothing is answered."""
    for name, *arguments in _LOOKS:
        try:
            answer = other.call(name, *arguments)
        except VirtError:
            continue  # the guest is not there at the moment
        except TimeoutError:
            raise BrokenError(f"{name} does not come to an end") from None
        if name == "connect_list_all_domains" and not {"bystander", "idle"} <= {domain.name for domain in answer[0]}:
            raise BrokenError(f"the others are not in the list: {answer}")


def _need(world: World, other: Client, victim: Process) -> None:
    """Who needs what the stopped one holds is told who that is, what he does, and for how long."""
    runs = any(
        domain.name == GUEST.name
        for domain in other.call("connect_list_all_domains", 1, c.VIR_CONNECT_LIST_DOMAINS_ACTIVE)[0]
    )
    for path in _held(world, victim):
        for pattern, call in _NEEDS.items():
            if not re.fullmatch(pattern, path):
                continue
            call = ("domain_inject_nmi", GUEST, 0) if call is _START and runs else call
            said = _refused(world, other, call)
            if not re.search(rf"held by pid {victim.pid} in .* for \d+ s", said):
                raise BrokenError(f"{call[0]} does not say who holds '{path}': {said}")
    if victim.title == f"virtd: guest {GUEST.name}" and runs:
        said = _refused(world, other, operations.SUSPEND)
        if said and not re.search(rf"guest '{GUEST.name}'|held by pid {victim.pid} |is not running", said):
            raise BrokenError(f"it is not said which supervisor does not answer: {said}")


def _held(world: World, victim: Process) -> list[str]:
    """The locks that a process holds and is written down for; and that of commits, while one is under way."""
    runtime = world.root / "run/virtd"
    found = []
    for path in runtime.rglob("*lock"):
        held, holder = locks.probe(str(path))
        if held and holder is not None and holder.pid == victim.pid:
            found.append(path.relative_to(runtime).as_posix())
    with (runtime / "generation").open("rb") as file:
        _, inside = struct.unpack("=QQ", file.read(16))
        if inside:
            found.append("generation")
    return found


def _refused(world: World, other: Client, call: Call) -> str:
    """What a call is refused with, in time; empty if it succeeds."""
    try:
        world.do(other, call)
    except VirtError as error:
        return error.message
    except TimeoutError:
        raise BrokenError(f"{call[0]} does not come to an end") from None
    return ""
