"""The check whether KVM runs a guest: what it says, that it is bounded, and that it is asked once."""

import os
import select
import signal
from pathlib import Path

import pytest

from tests.helpers.waiting import SECONDS, wait_for
from virtd import deadlines
from virtd.drivers.qemu.host import kvm


def test_a_host_without_kvm(tmp_path: Path) -> None:
    found = kvm.check(str(tmp_path), device=str(tmp_path / "kvm"))
    assert found == (False, f"{tmp_path}/kvm does not exist")


def test_what_is_no_kvm_at_all(tmp_path: Path) -> None:
    usable, reason = kvm.check(str(tmp_path), device="/dev/null")
    assert not usable
    assert reason.startswith("/dev/null exists but did not run a vCPU: ")


@pytest.mark.skipif(not os.access(kvm.DEVICE, os.R_OK | os.W_OK), reason="needs /dev/kvm")
def test_a_vcpu_counts_to_the_end(tmp_path: Path) -> None:
    """Few rounds are done even where each instruction is interpreted."""
    assert kvm.check(str(tmp_path), rounds=1000) == (True, "")


def test_one_that_hangs_is_given_up_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "pid"

    def hang(device: str, rounds: int) -> str:
        note.write_text(str(os.getpid()))
        assert len(os.listdir("/proc/self/fd")) <= 3
        signal.pause()
        return "+"

    opened: list[int] = []

    def kill(process: int) -> None:
        wait_for(note.exists, "the process's running", directory=tmp_path)
        opened.append(os.dup(process))
        real_kill(process)

    real_kill = kvm._kill
    monkeypatch.setattr(kvm, "_run", hang)
    monkeypatch.setattr(kvm, "_kill", kill)
    monkeypatch.setattr(kvm, "SECONDS", 0.2)
    usable, reason = kvm.check(str(tmp_path), device="/dev/null")
    assert (usable, reason) == (False, "/dev/null exists but did not run a vCPU within 0 s")
    assert select.select(opened, [], [], SECONDS)[0] == opened
    os.close(opened[0])


def test_the_answer_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kvm.check(str(tmp_path), device="/dev/null")

    def never(device: str, rounds: int) -> kvm.Kvm:
        raise AssertionError

    monkeypatch.setattr(kvm, "_try", never)
    assert kvm.check(str(tmp_path), device="/dev/null") == first
    with pytest.raises(AssertionError):
        kvm.check(str(tmp_path), device="/dev/zero")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"identity": 1}', b"\xff"])
def test_a_spoilt_cache_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kvm.json").write_bytes(content)
    assert not kvm.check(str(tmp_path), device="/dev/null").usable
    assert b"/dev/null" in (tmp_path / "kvm.json").read_bytes()


def test_a_call_with_a_tighter_bound_learns_nothing_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(device: str, rounds: int) -> str:
        signal.pause()
        return "+"

    monkeypatch.setattr(kvm, "_run", hang)
    with deadlines.limit(0.05), pytest.raises(deadlines.DeadlineExceeded):
        kvm.check(str(tmp_path), device="/dev/null")
    assert not (tmp_path / "kvm.json").exists()


def test_identity(tmp_path: Path) -> None:
    assert kvm.identity(str(tmp_path / "none")) == []
    assert kvm.identity("/dev/null") == kvm.identity("/dev/null") != kvm.identity("/dev/zero")
