"""Locks: exclusive, bounded, freed by any death of the holder, safe against being unlinked."""

import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

from virtd import constants as c
from virtd import deadlines
from virtd.errors import VirtError
from virtd.state import locks


def hold_in_child(path: str) -> int:
    """A child process which holds the lock until it is killed; its pid."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        lock = locks.acquire(path, "virDomainSuspend")
        os.write(told, b"x")
        signal.pause()
        lock.release()
        os._exit(0)
    os.close(told)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_waiting_is_bounded_and_names_the_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "guest" / "lock")
    pid = hold_in_child(path)
    handler = signal.getsignal(signal.SIGALRM)
    try:
        started = time.monotonic()
        with pytest.raises(VirtError) as caught:
            locks.acquire(path, "virDomainResume", timeout=0.2)
        assert 0.2 <= time.monotonic() - started < 5
        assert caught.value.code == c.VIR_ERR_OPERATION_TIMEOUT
        assert f"cannot acquire state change lock (held by pid {pid} in virDomainSuspend for " in caught.value.message
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
        assert signal.getsignal(signal.SIGALRM) is handler
    finally:
        end(pid)


def test_the_calls_deadline_bounds_the_wait(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    pid = hold_in_child(path)
    try:
        with deadlines.limit(0.1), pytest.raises(VirtError, match="cannot acquire state change lock"):
            locks.acquire(path, "virDomainResume")
    finally:
        end(pid)


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    pid = hold_in_child(path)
    assert locks.attempt(path, "virDomainResume") is None
    end(pid)
    with locks.held(path, "virDomainResume"):
        assert f"pid {os.getpid()} in virDomainResume" in str(locks.holder(path))


def test_a_waiter_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = locks.acquire(path, "first")
    pid = os.fork()
    if pid == 0:
        lock.release()
        try:
            locks.acquire(path, "second", timeout=10)
            os._exit(0)
        except VirtError:
            os._exit(1)
    lock.release()
    assert os.waitpid(pid, 0)[1] == 0


def test_an_unlinked_lock_file_is_not_mistaken_for_the_new_one(tmp_path: Path) -> None:
    """Whoever waits for a lock whose holder removes the file begins again with the file that is there then."""
    path = str(tmp_path / "guest" / "lock")
    lock = locks.acquire(path, "first")
    go, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        lock.release()
        os.write(told, b"x")
        second = locks.acquire(path, "second", timeout=10)
        os._exit(0 if os.fstat(second.fileno()).st_ino == os.stat(path).st_ino else 1)
    os.read(go, 1)
    os.unlink(path)
    lock.release()
    assert os.waitpid(pid, 0)[1] == 0


def test_who_comes_after_a_dead_holder_knows_of_it(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with locks.held(path, "a") as first:
        assert first.abandoned  # nobody has held it since the machine was booted
    with locks.held(path, "b") as second:
        assert not second.abandoned
    end(hold_in_child(path))
    with locks.held(path, "c") as third:
        assert third.abandoned
    with locks.held(path, "d") as fourth:
        assert not fourth.abandoned


def test_what_is_passed_on_keeps_its_note(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = locks.acquire(path, "virtd, serving")
    other = os.dup(lock.fileno())
    lock.pass_on()
    held, holder = locks.probe(path)
    assert held
    assert holder is not None
    assert holder.call == "virtd, serving"
    os.close(other)


def test_a_clock_that_is_set_back_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "lock")
    with locks.held(path, "a"):
        monkeypatch.setattr(time, "time", lambda: -1e6)
        holder = locks.holder(path)
    assert holder is not None
    assert 0 <= holder.seconds < 60


def test_who_only_looks_keeps_nobody_from_cleaning_up(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with open(path, "w+b") as file:
        looked = [False]
        fcntl.flock(file, fcntl.LOCK_SH)
        real = locks.probe

        def probe(which: str) -> tuple[bool, locks.Holder | None]:
            found = real(which)
            fcntl.flock(file, fcntl.LOCK_UN)
            looked[0] = True
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(locks, "probe", probe)
            assert locks.attempt(path, "a test") is not None
        assert looked == [True]
