"""A process that has performed a call may perform another one, if nothing of the first is left in it."""

import os
import signal
from contextlib import suppress

import pytest

from tests.helpers.waiting import wait_for
from tests.server.harness import children, guest, title
from virtd.errors import VirtError


@pytest.fixture
def pid(client, tmp_path):
    """Makes a call, and gives the number of the process that performed it."""

    def call(verb="mark", procedure="domain_suspend"):
        client.call(procedure, guest(f"{verb} {tmp_path}/mark"))
        return int((tmp_path / "mark").read_text().split()[-1])

    return call


def test_one_process_for_calls_in_a_row(client, pid):
    worker = client.pid()
    used = {pid() for _ in range(50)}
    assert len(used) == 1
    assert worker not in used
    assert children(worker) == [*used]
    wait_for(lambda: title(*used).endswith(": waiting for another call"))
    # What the driver says nothing of is performed by it, too, but is its last.
    assert {pid(procedure="domain_create")} == used
    assert pid() not in used


@pytest.mark.parametrize("number", [0, signal.SIGSTOP])
def test_it_does_not_wait_long(serve, tmp_path, number):
    with serve(environment={"FAKE_KEEP": "0.5"}).client() as client:
        worker = client.pid()
        client.call("domain_suspend", guest(f"mark {tmp_path}/mark"))
        with suppress(ProcessLookupError):
            os.kill(int((tmp_path / "mark").read_text()), number)
        wait_for(lambda: not children(worker))
        assert client.call("connect_get_lib_version") == 9_000_000


def test_it_ends_with_the_client(server, tmp_path):
    with server.client() as client:
        worker = client.pid()
        client.call("domain_suspend", guest(f"mark {tmp_path}/mark"))
        (first,) = children(worker)
    wait_for(lambda: not os.path.exists(f"/proc/{first}"))


@pytest.mark.parametrize("verb", ["leak", "spawn"])
def test_what_leaves_something_is_the_last(pid, verb):
    first = pid()
    assert pid(verb) == first
    assert pid() != first


@pytest.mark.parametrize("verb", ["error", "bug", "die"])
def test_what_fails_is_the_last(client, pid, verb):
    first = pid()
    with pytest.raises(VirtError):
        client.call("domain_suspend", guest(verb))
    assert pid() != first


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_while_it_waits(client, pid, number):
    worker = client.pid()
    first = pid()
    os.kill(first, number)
    wait_for(lambda: not os.path.exists(f"/proc/{first}"))
    assert not children(worker)
    assert pid() != first


def test_calls_at_once(client, tmp_path):
    worker = client.pid()
    for _ in range(3):
        calls = [client.send("domain_suspend", guest(f"mark {tmp_path}/mark")) for _ in range(20)]
        for call in reversed(calls):
            client.reply(call)
    assert len((tmp_path / "mark").read_text().split()) == 60
    assert len(children(worker)) <= 1


def test_long_calls(client, pid):
    first = pid()
    client.call("domain_suspend", guest("x" * 100_000))
    assert pid() != first
