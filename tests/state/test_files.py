"""Whole files: replaced atomically, or not at all."""

import os
from pathlib import Path

import pytest

from virtd import constants as c
from virtd.errors import VirtError
from virtd.state import files


def test_replace_is_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "file"
    files.replace(str(target), b"old", durable=True)
    files.replace(str(target), b"new", durable=False, mode=0o640)
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_prepared_content_is_invisible_until_published(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    pending = files.prepare(str(target), b"new", durable=True)
    assert target.read_bytes() == b"old"
    pending.publish()
    assert target.read_bytes() == b"new"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """/dev/full stands for the disk: every write to it fails with ENOSPC."""
    target = tmp_path / "file"
    target.write_bytes(b"old")
    os.symlink("/dev/full", tmp_path / ".file.new")
    with pytest.raises(VirtError, match="No space left on device") as caught:
        files.replace(str(target), b"new", durable=False)
    assert caught.value.code == c.VIR_ERR_SYSTEM_ERROR
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_read_tells_missing_from_unreadable(tmp_path: Path) -> None:
    assert files.read(str(tmp_path / "none")) is None
    with pytest.raises(VirtError, match="Is a directory"):
        files.read(str(tmp_path))
