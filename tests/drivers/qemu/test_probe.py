"""Probing a real QEMU, what is no QEMU, and what is kept of it on disk."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu.host import binary, probe
from virtd.drivers.qemu.monitor.client import Monitor
from virtd.errors import VirtError

QEMU = "/usr/bin/qemu-system-x86_64"
needs_qemu = pytest.mark.skipif(not os.path.exists(QEMU), reason="needs QEMU")


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_known", {})


def never(*_: object) -> binary.Binary:
    raise AssertionError


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@needs_qemu
def test_a_real_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = probe.probe(QEMU, str(tmp_path / "cache"))
    assert found.version >= (5, 2, 0)
    assert found.target == "x86_64"
    pc = found.machine("pc")
    assert pc is not None
    assert pc.default
    assert pc.name.startswith("pc-i440fx-")
    assert found.machines[0] == found.default_machine == pc == found.machine(pc.name)
    assert found.machine("nonesuch") is None
    assert found.has("virtio-blk-pci")
    assert not found.has("nonesuch")
    assert "device_add" in found.commands
    assert "raw" in found.choices["blockdev"]
    assert {"user", "tap"} <= found.choices["netdev"]
    assert "memory-backend-memfd" in found.choices["object"]
    assert {"socket", "pty"} <= found.choices["chardev"]
    assert "none" in found.choices["display"]
    assert {model.name for model in found.cpu_models} > {"qemu64", "max", "Haswell"}
    assert found.widest_cpu["sse2"] is True
    # Asked again: from memory; in another process: from disk; of another file: anew.
    monkeypatch.setattr(probe, "_ask", never)
    assert probe.probe(QEMU, str(tmp_path / "cache")) is found
    probe._known.clear()
    # Taken over for processes that are forked later, if anything is known.
    assert not probe.recall(QEMU, str(tmp_path / "nothing"))
    assert probe.recall(QEMU, str(tmp_path / "cache"))
    assert list(probe._known) == [(QEMU, "tcg")]
    probe._known.clear()
    again = probe.probe(QEMU, str(tmp_path / "cache"))
    assert again == found
    assert again is not found
    with pytest.raises(AssertionError):
        probe.probe(QEMU, str(tmp_path / "cache"), accelerator="kvm")


@needs_qemu
def test_a_replaced_binary_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = script(tmp_path / "qemu", f'exec {QEMU} "$@"')
    probe.probe(path, str(tmp_path / "cache"))
    os.utime(path, ns=(1, 1))
    monkeypatch.setattr(probe, "_ask", never)
    with pytest.raises(AssertionError):
        probe.probe(path, str(tmp_path / "cache"))


@needs_qemu
@pytest.mark.parametrize("spoil", ["", "[]", "{", '{"identity": IDENTITY, "binary": {}}', "cut"])
def test_a_spoilt_cache_is_made_anew(tmp_path: Path, spoil: str) -> None:
    found = probe.probe(QEMU, str(tmp_path / "cache"))
    (file,) = tmp_path.glob("cache/qemu/*.json")
    content = file.read_text()
    identity = json.dumps(json.loads(content)["identity"])
    file.write_text(content[:-1000] if spoil == "cut" else spoil.replace("IDENTITY", identity))
    probe._known.clear()
    assert probe.probe(QEMU, str(tmp_path / "cache")) == found
    assert file.read_text() == content


@needs_qemu
def test_reading_back_checks_every_field(tmp_path: Path) -> None:
    table = json.loads(json.dumps(binary.encode(probe.probe(QEMU, str(tmp_path / "cache")))))
    assert binary.decode(table).path == QEMU
    for field in table:
        for wrong in (12.5, "\0", [1], {"x": 1}):
            try:
                binary.decode(table | {field: wrong})
            except VirtError:
                continue
            assert field in ("path", "package", "target", "types", "commands", "sev", "sgx", "widest_cpu")


def test_no_such_binary(tmp_path: Path) -> None:
    with pytest.raises(VirtError) as caught:
        probe.probe("/nonexistent/qemu", str(tmp_path / "cache"))
    assert caught.value.code == c.VIR_ERR_SYSTEM_ERROR
    assert caught.value.message == "Cannot check QEMU binary /nonexistent/qemu: No such file or directory"


def test_a_file_that_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    path.write_text("")
    with pytest.raises(VirtError, match=r"QEMU binary .*/qemu is not executable: Permission denied"):
        probe.probe(str(path), str(tmp_path / "cache"))


def test_what_is_no_qemu_is_quoted(tmp_path: Path) -> None:
    path = script(tmp_path / "qemu", "echo I am no QEMU >&2; exit 3")
    with pytest.raises(VirtError) as caught:
        probe.probe(path, str(tmp_path / "cache"))
    assert caught.value.message == "internal error: Failed to probe QEMU binary with QMP: I am no QEMU"
    assert not list(tmp_path.glob("cache/qemu/*.json"))


def test_one_that_hangs_is_given_up_and_killed(tmp_path: Path) -> None:
    path = script(tmp_path / "qemu", f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    began = time.monotonic()
    with deadlines.limit(0.3), pytest.raises(deadlines.DeadlineExceeded):
        probe.probe(path, str(tmp_path / "cache"))
    assert time.monotonic() - began < 10
    assert not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text().strip()}")


@needs_qemu
@pytest.mark.skipif(not shutil.which("python3"), reason="needs python3")
def test_a_qemu_without_what_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that not every QEMU has may be refused."""
    real = Monitor.execute_all

    def without(self: Monitor, commands: list[tuple[str, object]], fds: object = ()) -> list[object]:
        missing = {"query-sev-capabilities", "query-tpm-models", "query-cpu-model-expansion"}
        return real(self, [("none" if name in missing else name, None) for name, _ in commands])

    monkeypatch.setattr(Monitor, "execute_all", without)
    found = probe.probe(QEMU, str(tmp_path / "cache"))
    assert found.tpm_models == ()
    assert found.widest_cpu == {}
