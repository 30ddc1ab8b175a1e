"""A directory of definitions: what was cut short is cleared away by the next who changes it."""

import os
from pathlib import Path

import pytest

from virtd.state.definitions import DefinitionDirectory


def make(path: Path) -> DefinitionDirectory:
    directory = DefinitionDirectory(str(path / "qemu"))
    directory.prepare("web1", "<domain><uuid>10000000-0000-0000-0000-000000000001</uuid></domain>").publish()
    return directory


def names(path: Path) -> list[str]:
    return sorted(str(one.relative_to(path / "qemu")) for one in (path / "qemu").rglob("*") if not one.is_dir())


def change(directory: DefinitionDirectory, path: Path) -> None:
    with directory.locked(str(path / "lock"), "a change", what="lock"):
        pass


def test_what_a_dead_process_left(tmp_path: Path) -> None:
    directory = make(tmp_path)
    directory.prepare("web2", "<domain>")
    os.symlink(directory.path("gone"), directory.autostart_path("gone"))
    assert names(tmp_path) == [".web2.xml.new", "autostart/gone.xml", "web1.xml"]
    change(directory, tmp_path)
    assert names(tmp_path) == ["web1.xml"]
    # Nobody has died since: nobody looks.
    directory.prepare("web2", "<domain>")
    change(directory, tmp_path)
    assert names(tmp_path) == [".web2.xml.new", "web1.xml"]


def test_what_a_failed_change_left(tmp_path: Path) -> None:
    directory = make(tmp_path)
    change(directory, tmp_path)
    with pytest.raises(ValueError, match="a reason"):
        fail(directory, tmp_path)
    assert names(tmp_path) == ["web1.xml"]


def fail(directory: DefinitionDirectory, path: Path) -> None:
    with directory.locked(str(path / "lock"), "a change", what="lock"):
        directory.prepare("web2", "<domain>")
        raise ValueError("a reason")
