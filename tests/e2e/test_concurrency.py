"""Many calls at once: none waits for another that it has nothing to do with, whatever a guest hangs on.

A flaw of libvirt's own client must not be taken for the server's: where threads share a connection, the one that reads
for all of them now and then misses that another wants to send (g_main_loop_quit of a loop that does not run yet), and
the call leaves only when the server's next message, a ping, comes in. So the pings come often here, and what is
measured goes over a connection of its own.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from tests.e2e.guests import Guest, qemu
from tests.helpers.instance import Instance
from tests.helpers.waiting import SECONDS, wait_ended

CALLS = 32  # of one connection that may be in flight, by default


@pytest.fixture
def virtd(instance: Instance, need_program: Callable[[str], str]) -> Instance:
    """A running virtd that asks often whether its clients are still there."""
    need_program("virsh")
    config = instance.root / "etc/virtd/virtd.conf"
    config.parent.mkdir(parents=True)
    config.write_text("keepalive_interval = 1\nkeepalive_count = 20\n")
    instance.start()
    return instance


@contextmanager
def stuck(pid: int) -> Iterator[None]:
    """A QEMU that does nothing, as one on storage that has gone."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass  # the test has ended it


@contextmanager
def calls(count: int) -> Iterator[Callable[..., list[Future[Any]]]]:
    """start(call) -> the results to come of so many threads that make one and the same call."""
    pool = ThreadPoolExecutor(count)
    yield lambda call: [pool.submit(call) for _ in range(count)]
    pool.shutdown(cancel_futures=True)


def timed(call: Callable[[], Any]) -> float:
    """How many seconds a call takes."""
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def test_many_threads_on_one_connection(connection: Any, defined: Callable[..., Guest]) -> None:
    names = [f"web{number}" for number in range(4)]
    for name in names:
        defined(name)

    def life(name: str) -> list[Any]:
        guest = connection.lookupByName(name)
        found = []
        for call in (guest.create, guest.suspend, guest.resume, guest.destroy):
            call()
            found.append((guest.state(), guest.name(), len(connection.listAllDomains()) == 4))
        return found

    def ask(_number: int) -> set[str]:
        return {guest.name() for _ in range(50) for guest in connection.listAllDomains()}

    with ThreadPoolExecutor(CALLS) as pool:
        lives = [pool.submit(life, name) for name in names]
        answers = list(pool.map(ask, range(CALLS - 4)))
        assert answers == [set(names)] * (CALLS - 4)
        for name, one in zip(names, lives, strict=True):
            assert one.result(SECONDS) == [
                ([1, 1], name, True),
                ([3, 1], name, True),
                ([1, 5], name, True),
                ([5, 2], name, True),
            ]


def test_one_guest_started_and_ended_by_everybody_at_once(
    virtd: Instance, libvirt: ModuleType, connect: Callable[..., Any], defined: Callable[..., Guest]
) -> None:
    defined("web1")
    guests = [connect().lookupByName("web1") for _ in range(6)]

    def outcome(call: Callable[[], Any]) -> str:
        try:
            call()
        except libvirt.libvirtError as error:
            return str(error.get_error_message())
        return "done"

    running, off = (f"Requested operation is not valid: domain is {state} running" for state in ("already", "not"))
    with ThreadPoolExecutor(len(guests)) as pool:
        for _ in range(3):
            started = sorted(pool.map(outcome, [guest.create for guest in guests]))
            assert started == [running] * 5 + ["done"]
            assert virtd.virsh("list", "--name") == "web1"
            ended = list(pool.map(outcome, [guest.destroy for guest in guests]))
            assert "done" in ended
            assert set(ended) <= {"done", off}
            assert virtd.virsh("domstate", "--reason", "web1") == "shut off (destroyed)"


def test_guests_started_at_once_share_nothing(
    virtd: Instance, connect: Callable[..., Any], new_guest: Callable[..., Guest]
) -> None:
    made = [new_guest(f"web{number}", devices="<graphics type='vnc'/>") for number in range(6)]
    connections = [connect() for _ in made]
    with ThreadPoolExecutor(len(made)) as pool:
        domains = list(pool.map(lambda pair: pair[0].createXML(pair[1].xml), zip(connections, made, strict=True)))
    for guest in made:
        guest.wait()
    assert sorted(domain.ID() for domain in domains) == list(range(1, 7))
    assert len({virtd.virsh("domdisplay", guest.name) for guest in made}) == len(made)


def test_calls_on_a_stuck_guest_hold_up_nobody(
    virtd: Instance, connect: Callable[..., Any], running: Callable[..., Guest]
) -> None:
    running("stuck")
    running("healthy")
    connection, other = connect(), connect()

    def work(connection: Any) -> None:
        guest = connection.lookupByName("healthy")
        for _ in range(3):
            guest.suspend()
            guest.resume()
            assert guest.info()[0] == 1
            assert len(connection.listAllDomains()) == 2
            assert connection.lookupByName("stuck").state() == [1, 1]

    before = min(timed(lambda: work(other)) for _ in range(3))
    guest = connection.lookupByName("stuck")
    with stuck(qemu(virtd, "stuck")), calls(CALLS - 4) as start:
        hanging = start(guest.suspend)
        work(connection)
        assert not any(one.done() for one in hanging)
        # Far from the 30 s that a hanging call may take, and far from what a busy machine adds.
        assert timed(lambda: work(other)) < 10 * before + 2
        # A guest that does not answer is destroyed at once all the same; that ends the calls, too.
        assert timed(other.lookupByName("stuck").destroy) < 5
        for one in hanging:
            assert one.exception(SECONDS) is not None
        assert other.lookupByName("stuck").state() == [5, 2]


def test_a_healthy_guest_starts_as_if_nothing_hung(
    virtd: Instance, connect: Callable[..., Any], running: Callable[..., Guest], defined: Callable[..., Guest]
) -> None:
    running("stuck")
    defined("healthy")
    connections = [connect() for _ in range(3)]
    healthy = connect().lookupByName("healthy")

    def start_and_end() -> None:
        healthy.create()
        healthy.destroy()

    before = min(timed(start_and_end) for _ in range(3))
    with stuck(qemu(virtd, "stuck")), calls(10) as start:
        hanging = [one for connection in connections for one in start(connection.lookupByName("stuck").suspend)]
        assert timed(start_and_end) < 5 * before + 2
        virtd.virsh("destroy", "stuck")
        for one in hanging:
            assert one.exception(SECONDS) is not None


def test_calls_on_a_guest_that_wakes_up_go_on(
    virtd: Instance, connect: Callable[..., Any], running: Callable[..., Guest]
) -> None:
    running("web1")
    guest = connect().lookupByName("web1")
    other = connect().lookupByName("web1")
    with calls(4) as start:
        with stuck(qemu(virtd, "web1")):
            hanging = start(guest.suspend)
            assert other.state() == [1, 1]
        assert [one.result(SECONDS) for one in hanging] == [0] * 4
    assert other.state() == [3, 1]


def test_a_call_that_hangs_ends_and_names_the_guest_while_keepalive_goes_on(
    virtd: Instance, libvirt: ModuleType, connect: Callable[..., Any], running: Callable[..., Guest]
) -> None:
    """Takes the 30 s that a guest has for an answer."""
    running("web1")
    connection, other = connect(), connect()
    closed = threading.Event()
    connection.registerCloseCallback(lambda *_: closed.set(), None)
    connection.setKeepAlive(1, 3)
    pid = qemu(virtd, "web1")
    with stuck(pid), calls(1) as start:
        (hanging,) = start(connection.lookupByName("web1").suspend)
        with pytest.raises(libvirt.libvirtError) as caught:
            hanging.result(60)
        # Everybody else is told of the guest at any time.
        assert other.lookupByName("web1").state() == [1, 1]
    assert caught.value.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT
    assert "web1" in caught.value.get_error_message()
    assert connection.isAlive()
    assert not closed.is_set()
    virtd.virsh("suspend", "web1")  # and it works again
    assert not wait_ended(pid, 0)
