"""Documents about the host are kept as long as what they tell of is so, in a process and between processes."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drivers.qemu.commandline import QEMU
from virtd.drivers.qemu.host import capsxml, domaincaps, hostfacts, kvm, suspend, written
from virtd.drivers.qemu.host.capabilities import Capabilities
from virtd.errors import VirtError
from virtd.state import paths

POOL = "kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
NODE_POOL = "devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host that is a directory."""
    for name, text in (
        ("devices/system/cpu/online", "0-1\n"),
        ("devices/system/node/online", "0\n"),
        (POOL, "0\n"),
        (NODE_POOL, "0\n"),
        ("devices/system/cpu/cpu0/microcode/version", "0x1\n"),
        ("bin/qemu-system-x86_64", "…"),
    ):
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(hostfacts, "SYS", str(tmp_path / "sys"))
    monkeypatch.setattr(written, "_places", lambda: [str(tmp_path / "bin")])
    monkeypatch.setattr(kvm, "DEVICE", str(tmp_path / "kvm"))
    monkeypatch.setattr(suspend, "MANAGED", str(tmp_path / "seats"))
    (tmp_path / "bin").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        lambda host: (host / "sys/devices/system/cpu/online").write_text("0-3\n"),
        lambda host: (host / "sys/devices/system/node/online").write_text("0-1\n"),
        lambda host: (host / "sys" / POOL).write_text("8\n"),
        lambda host: (host / "sys" / NODE_POOL).write_text("8\n"),
        lambda host: (host / "sys/devices/system/cpu/cpu0/microcode/version").write_text("0x2\n"),
        lambda host: (host / "sys/kernel/iommu_groups/0").mkdir(parents=True),
        lambda host: (host / "bin/qemu-system-arm").write_text(""),
        lambda host: (host / "kvm").write_text(""),
        lambda host: (host / "seats").mkdir(),
    ],
    ids=("cpus", "nodes", "pages", "pages of a node", "microcode", "iommu", "emulators", "kvm", "sleep"),
)
def test_what_documents_tell_of_is_looked_at(places: Path, change: Callable[[Path], object]) -> None:
    before = written.facts()
    assert written.facts() == before
    change(places)
    assert written.facts() != before


def test_an_emulator_that_is_replaced_in_place(places: Path) -> None:
    path = places / "bin/qemu"
    path.write_text("old")
    before = written.emulator(str(path))
    assert written.emulator(str(path)) == before
    path.write_text("newer")
    assert written.emulator(str(path)) != before
    assert written.emulator(None) is None


def test_a_document_is_made_once_for_all_processes(tmp_path: Path) -> None:
    made: list[str] = []

    def make() -> str:
        made.append("")
        return f"<é{len(made)}/>\n"

    for _ in range(2):
        documents = written.Written(str(tmp_path))  # as in a process of its own
        assert [documents.get(("a", None), [1], make) for _ in range(2)] == ["<é1/>\n"] * 2
    assert documents.get(("a", None), [2], make) == "<é2/>\n"
    assert documents.get(("b", None), [2], make) == "<é3/>\n"
    # What another process has written meanwhile about other circumstances is not taken for ours.
    assert documents.get(("a", None), [1], make) == "<é4/>\n"
    for file in (tmp_path / "qemu").glob("*.document"):
        file.write_bytes(b"half of a")
    assert written.Written(str(tmp_path)).get(("a", None), [1], make) == "<é5/>\n"


def test_what_cannot_be_written_is_told_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("no directory")
    assert written.Written(str(tmp_path)).get(("a",), [], lambda: "x") == "x"

    def refuse() -> str:
        raise VirtError(1, "no")

    with pytest.raises(VirtError):
        written.Written(str(tmp_path)).get(("b",), [], refuse)


@pytest.fixture
def own() -> Iterator[Path]:
    """An emulator of our own, where QEMU's user may reach it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o711)
        path = Path(directory, "qemu-system-x86_64")
        path.write_text(f'#!/bin/sh\nexec {QEMU} "$@"\n')
        path.chmod(0o755)
        yield path


def test_capabilities_are_not_written_again(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Capabilities(paths.below(str(tmp_path)))
    host, guest = first.xml(), first.domain_xml(str(own), None, None, "qemu")

    def refuse(*_: object) -> str:
        raise AssertionError("it is made again")

    with monkeypatch.context() as patched:
        patched.setattr(capsxml, "write", refuse)
        patched.setattr(domaincaps, "write", refuse)
        second = Capabilities(paths.below(str(tmp_path)))
        assert (second.xml(), second.domain_xml(str(own), None, None, "qemu")) == (host, guest)
        os.utime(own, (1, 1))
        with pytest.raises(AssertionError):
            second.domain_xml(str(own), None, None, "qemu")
        assert second.xml() == host
    assert second.domain_xml(str(own), None, None, "qemu") == guest


def test_a_second_call_costs_next_to_nothing(tmp_path: Path) -> None:
    found = Capabilities(paths.below(str(tmp_path)))
    found.xml()
    found.domain_xml(None, None, None, "qemu")
    for call in (found.xml, lambda: found.domain_xml(None, None, None, "qemu")):
        began = time.process_time()
        for _ in range(100):
            call()
        # 0.1 ms on a quiet machine, and milliseconds if it were made anew.
        assert time.process_time() - began < 100 * 0.0005
