"""What is to be undone is written down line by line, and a line that did not get onto the disk spoils no other. What
cannot be undone is told, kept, and tried again.
"""

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.helpers.waiting import SECONDS
from virtd import constants as c
from virtd import deadlines
from virtd.errors import VirtError
from virtd.state import files, locks, process, undo


class Ended:
    """A directory of things that run, and of what is left of those which have ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.base = str(path / "guests")
        self.said: list[str] = []
        for name in ("a", "b"):
            (path / "guests" / name).mkdir(parents=True)

    def notes(self, name: str = "a") -> str:
        return f"{self.base}/{name}/undo"

    def left(self, name: str = "a") -> list[str]:
        """The paths of what is left."""
        content = files.read(f"{self.base}.undo/{name}") or b""
        return [json.loads(line)["path"] for line in content.splitlines()]

    def full(self, name: str = "full") -> Path:
        """A directory that cannot be removed, as there is something in it."""
        made = self.path / name
        (made / "something").mkdir(parents=True)
        return made


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ended:
    made = Ended(tmp_path)
    monkeypatch.setattr(process, "reporter", made.said.append)
    return made


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Path]:
    """A file that cannot be removed, as something is mounted over it."""
    path = tmp_path / "busy"
    path.touch()
    if os.geteuid() or subprocess.run(["mount", "--bind", "/dev/null", path], check=False).returncode:
        lacking("right to mount")
    yield path
    subprocess.run(["umount", "--lazy", path], stderr=subprocess.DEVNULL, check=False)


def full_disk(descriptor: int, content: bytes) -> None:
    os.write(descriptor, content[:10])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_half_a_note_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, made = str(tmp_path / "undo"), tmp_path / "made"
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", full_disk)
        with pytest.raises(VirtError, match="No space left on device"):
            undo.note(path, "file", path="/nowhere")
    undo.note(path, "file", path=str(made))
    made.touch()
    undo.undo(path)
    assert not made.exists()


def test_what_is_busy_is_told_and_kept_and_done_later(ended: Ended, busy: Path) -> None:
    """The rest is done; what is gone already is no matter; a line that was cut short is none."""
    first, last = ended.path / "first", ended.path / "last"
    for path in (first, busy, ended.path / "gone", last):
        undo.note(ended.notes(), "file", path=str(path))
    with open(ended.notes(), "a", encoding="ascii") as file:
        file.write('{"kind": "file", "pa')
    first.touch()
    last.touch()
    undo.undo(ended.notes(), "guest 'web1'")
    assert (first.exists(), last.exists()) == (False, False)
    why = f"what was made for guest 'web1' cannot be undone now (kind file, path {busy}): Device or resource busy"
    assert ended.said == [why]
    assert ended.left() == [str(busy)]
    assert not os.path.exists(ended.notes())
    # Still busy.
    undo.retry(ended.base)
    assert ended.said == [why]  # which has been said
    assert ended.left() == [str(busy)]
    subprocess.run(["umount", busy], check=True)
    undo.retry(ended.base, "b")
    assert busy.exists()
    undo.retry(ended.base)
    assert not busy.exists()
    assert os.listdir(f"{ended.base}.undo") == ["lock"]


def test_what_of_a_part_cannot_be_undone_goes_with_the_whole(ended: Ended) -> None:
    full, other = ended.full(), ended.full("other")
    undo.note(ended.notes(), "group", path=str(full))
    undo.note(ended.notes(), "group", path=str(other))
    undo.undo_some(ended.notes(), lambda table: table["path"] == str(full), "guest 'web1'")
    assert "(kind group, path " in ended.said[0]
    assert "Directory not empty" in ended.said[0]
    (full / "something").rmdir()
    (other / "something").rmdir()
    undo.undo(ended.notes())
    assert not full.exists()
    assert not other.exists()
    assert len(ended.said) == 1


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (OSError(errno.EIO, "?"), False),
        (OSError(errno.EPERM, "?"), False),
        (OSError(errno.ENOSPC, "?"), False),
        (OSError(errno.ESRCH, "?"), True),
        (OSError(errno.ENODEV, "?"), True),
        (VirtError(c.VIR_ERR_NO_NETWORK, "no network with matching name 'net1'"), True),
        (VirtError(c.VIR_ERR_NO_NETWORK_PORT, "?"), True),
        (VirtError(c.VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock"), False),
        (VirtError(c.VIR_ERR_OPERATION_FAILED, "nft refused the rules"), False),
        (files.os_error(OSError(errno.ENOENT, "?"), "Device not found"), True),
        (files.os_error(OSError(errno.EBUSY, "?"), "Unable to delete bridge"), False),
        (KeyError("path"), False),
    ],
)
def test_what_is_gone_is_not_tried_again(
    ended: Ended, monkeypatch: pytest.MonkeyPatch, error: Exception, gone: bool
) -> None:
    def fail(table: dict[str, object]) -> None:
        raise error

    undo.note(ended.notes(), "file", path="/something")
    with monkeypatch.context() as patch:
        patch.setitem(undo.KINDS, "file", fail)
        undo.undo(ended.notes())
    assert ended.left() == ([] if gone else ["/something"])
    assert len(ended.said) == (not gone)


def test_what_somebody_has_made_anew_is_his(ended: Ended) -> None:
    """Whatever was left of it by a former life, or by another guest."""
    full, stale = ended.full(), ended.full("stale")
    for path in (full, stale):
        undo.note(ended.notes(), "group", path=str(path))
    undo.undo(ended.notes())
    assert ended.left() == [str(full), str(stale)]
    undo.note(ended.notes("b"), "group", path=str(full))
    for path in (full, stale):
        (path / "something").rmdir()
    undo.retry(ended.base)
    assert full.exists()
    assert not stale.exists()
    assert ended.left() == []
    undo.undo(ended.notes("b"))
    assert not full.exists()


def test_who_has_claimed_the_device_has_what_belongs_to_it(ended: Ended) -> None:
    claim, driver = ended.full("claim"), ended.full("driver")
    undo.note(ended.notes(), "group", path=str(driver), claim=str(claim))
    undo.undo(ended.notes())
    undo.note(ended.notes("b"), "group", path=str(claim))
    (driver / "something").rmdir()
    undo.retry(ended.base)
    assert driver.exists()
    assert ended.left() == []


def test_who_notes_something_waits_for_who_is_undoing_it(ended: Ended) -> None:
    noted, tell = os.pipe()
    with locks.held(f"{ended.base}.undo/lock", "a test") as lock:
        pid = os.fork()
        if not pid:
            lock.pass_on()
            undo.note(ended.notes(), "file", path="/something")
            os.write(tell, b".")
            os._exit(0)
        assert not deadlines.readable(noted, 0.3)
    assert deadlines.readable(noted, SECONDS)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(noted)
    os.close(tell)


def test_nothing_is_lost_on_a_full_disk(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    full, made = ended.full(), ended.path / "made"
    undo.note(ended.notes(), "group", path=str(full))
    undo.note(ended.notes(), "file", path=str(made))
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", full_disk)
        undo.undo(ended.notes())
    assert ended.left() == [str(full), str(made)]
    (full / "something").rmdir()
    (ended.path / "guests.undo/.a.new").touch()  # whoever wrote it has died
    undo.retry(ended.base)
    assert not full.exists()
    assert os.listdir(f"{ended.base}.undo") == ["lock"]


def test_what_is_left_twice_is_kept_together(ended: Ended) -> None:
    for name in ("one", "two"):
        undo.note(ended.notes(), "group", path=str(ended.full(name)))
        undo.undo(ended.notes())
    assert [os.path.basename(path) for path in ended.left()] == ["one", "two"]
