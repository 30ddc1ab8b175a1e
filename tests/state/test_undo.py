"""What is to be undone is written down line by line, and a line that did not get onto the disk spoils no other."""

import errno
import os
from pathlib import Path

import pytest

from virtd.errors import VirtError
from virtd.state import files, undo


def test_half_a_note_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, made = str(tmp_path / "undo"), tmp_path / "made"

    def full(descriptor: int, content: bytes) -> None:
        os.write(descriptor, content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", full)
        with pytest.raises(VirtError, match="No space left on device"):
            undo.note(path, "file", path="/nowhere")
    undo.note(path, "file", path=str(made))
    made.touch()
    undo.undo(path)
    assert not made.exists()
