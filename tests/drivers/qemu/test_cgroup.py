"""Control groups: where they are made, and that guests do without where they cannot be."""

import os
from pathlib import Path

import pytest

from virtd.drivers.qemu.run import cgroup
from virtd.state import undo


def hierarchy(path: Path, controllers: str) -> str:
    """A directory that looks like a cgroup v2 mount."""
    path.mkdir()
    (path / "cgroup.controllers").write_text(controllers)
    return str(path)


def test_a_group_of_the_guests_own(tmp_path: Path) -> None:
    root = hierarchy(tmp_path / "cgroup", "cpu memory hugetlb")
    note = str(tmp_path / "undo")
    path = cgroup.make("1-2-3", note, root=root)
    assert path == f"{root}/virtd/1-2-3"
    assert os.path.isdir(path)
    # The last of the controllers that were asked for; a real kernel takes one after another.
    assert (tmp_path / "cgroup" / "cgroup.subtree_control").read_text() == "+memory"
    assert (tmp_path / "cgroup" / "virtd" / "cgroup.subtree_control").read_text() == "+memory"
    assert cgroup.make("1-2-3", note, root=root) == path
    undo.undo(note)
    assert not os.path.exists(path)
    assert os.path.isdir(f"{root}/virtd")


def test_no_hierarchy(tmp_path: Path) -> None:
    assert cgroup.make("1", str(tmp_path / "undo"), root=str(tmp_path)) is None
    assert not (tmp_path / "undo").exists()


def test_one_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = hierarchy(tmp_path / "cgroup", "")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cgroup.make("1", str(tmp_path / "undo"), root=root) is None


def test_one_that_refuses(tmp_path: Path) -> None:
    root = hierarchy(tmp_path / "cgroup", "cpu")
    (tmp_path / "cgroup" / "virtd").write_text("a file is in the way")
    assert cgroup.make("1", str(tmp_path / "undo"), root=root) is None


def test_controllers_of_a_group(tmp_path: Path) -> None:
    assert cgroup.controllers(hierarchy(tmp_path / "cgroup", "cpu io\n")) == {"cpu", "io"}
    assert cgroup.controllers(str(tmp_path)) == frozenset()
