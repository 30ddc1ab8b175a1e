"""The helpers find what was left behind, however it hides."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers.processes import descendants, end, run_kept
from tests.helpers.waiting import wait_ended

# Forks away as daemons do, gives itself another title, drops the environment, and prints its process id before it
# closes everything.
DAEMON = """
import os, sys
if os.fork():
    os._exit(3)
os.setsid()
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
null = os.open(os.devnull, os.O_RDWR)
for descriptor in range(3):
    os.dup2(null, descriptor)
os.execve("/bin/sleep", ["daemon: hiding", "1000"], {})
"""


def test_a_daemon_is_found_and_its_keeper_ends_with_it() -> None:
    keeper, result = run_kept([sys.executable, "-c", DAEMON], env=os.environ)
    assert result.returncode == 3
    pid = int(result.stdout)
    found = descendants([keeper.pid])
    assert [process.pid for process in found] == [pid]
    assert "1000" in found[0].title
    assert not wait_ended(keeper.pid, 0)
    end([pid])
    assert wait_ended(keeper.pid, 10)
    assert keeper.wait() == 0
    assert descendants([keeper.pid]) == []


def test_output_status_and_input_pass_through() -> None:
    keeper, result = run_kept(["sh", "-c", "cat; echo problem >&2; exit 5"], env=os.environ, stdin="text")
    assert (result.returncode, result.stdout, result.stderr) == (5, "text", "problem\n")
    assert keeper.wait(10) == 0


def test_death_by_a_signal_is_told() -> None:
    keeper, result = run_kept(["sh", "-c", "kill -9 $$"], env=os.environ)
    assert result.returncode == -9
    assert keeper.wait(10) == 0


def test_a_command_that_cannot_be_run() -> None:
    keeper, result = run_kept(["/nonexistent"], env=os.environ)
    assert result.returncode == 127
    assert "/nonexistent" in result.stderr
    assert keeper.wait(10) == 1


def test_a_daemon_that_keeps_its_output_open_is_a_timeout_and_gets_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_kept(["sh", "-c", "sleep 1001 & exit 0"], env=os.environ, seconds=0.5)
    assert not any("sleep 1001" in process.title for process in descendants([os.getpid()]))
