"""Whom images belong to while guests use them: counted, and given back whatever died."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import lacking
from virtd.drivers.qemu.run import confine, owners
from virtd.errors import VirtError
from virtd.state import undo

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
USER = confine.User(65534, 65534, (65534,))


class Host:
    """Records, and guests that run because they have a status."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = str(path / "owners")
        self.image = path / "image"
        self.image.write_text("")
        os.chown(self.image, 17, 18)

    def guest(self, name: str) -> str:
        directory = self.path / name
        directory.mkdir(exist_ok=True)
        (directory / "status").touch()
        return str(directory)

    def lend(self, name: str, path: Path | None = None, *, write: bool = True) -> None:
        owners.lend(self.records, str(path or self.image), USER, self.guest(name), write=write)

    def end(self, name: str) -> None:
        """What a supervisor does."""
        undo.undo(str(self.path / name / "undo"))
        (self.path / name / "status").unlink(missing_ok=True)

    @property
    def owner(self) -> tuple[int, int]:
        found = self.image.stat()
        return found.st_uid, found.st_gid


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


GIVEN, OWN = (65534, 65534), (17, 18)


def test_a_file_goes_back_with_the_last_guest_that_used_it(host: Host, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("image")
    host.lend("a", link)
    assert (host.owner, os.lstat(link).st_uid) == (GIVEN, 0)
    host.lend("b")
    host.lend("b")
    host.end("a")
    assert host.owner == GIVEN
    link.unlink()
    host.end("b")
    assert host.owner == OWN
    assert os.listdir(host.records) == ["lock"] or os.listdir(host.records) == []


def test_what_can_be_used_anyway_is_left_alone(host: Host) -> None:
    host.image.chmod(0o604)
    host.lend("a", write=False)
    assert host.owner == OWN
    assert not os.path.exists(host.records)
    host.lend("b")
    # Now it is kept for both.
    host.lend("a", write=False)
    host.end("b")
    assert host.owner == GIVEN
    host.end("a")
    assert host.owner == OWN


def test_guests_that_do_not_run_do_not_count(host: Host, tmp_path: Path) -> None:
    host.lend("a")
    host.lend("b")
    # The host goes down: everything in the run-time directory is gone.
    for name in ("a", "b"):
        (tmp_path / name / "status").unlink()
        (tmp_path / name / "undo").unlink()
    owners.sweep(host.records)
    assert host.owner == OWN
    # The same, and a guest starts before anybody has swept.
    host.lend("a")
    (tmp_path / "a" / "status").unlink()
    host.lend("c")
    assert host.owner == GIVEN
    host.end("c")
    assert host.owner == OWN


def test_what_cannot_be_given_back_goes_back_later(host: Host, tmp_path: Path) -> None:
    """Meanwhile another guest may use it."""
    host.lend("a")
    if subprocess.run(["mount", "--bind", host.image, host.image], check=False).returncode:
        lacking("right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", host.image], check=True)
        host.end("a")
        assert host.owner == GIVEN
        host.lend("b", write=False)
        owners.sweep(host.records)
    finally:
        subprocess.run(["umount", host.image], check=True)
    undo.retry(str(tmp_path))
    assert host.owner == GIVEN
    host.end("b")
    assert host.owner == OWN
    # The same, and it is the same guest that has left it.
    host.lend("a")
    (tmp_path / "a/undo").rename(tmp_path.with_suffix(".undo") / "a")
    (tmp_path / "a/status").unlink()
    host.lend("a")
    undo.retry(str(tmp_path))
    assert host.owner == GIVEN
    host.end("a")
    assert host.owner == OWN


def test_what_somebody_else_has_changed_meanwhile_stays(host: Host, tmp_path: Path) -> None:
    host.lend("a")
    os.chown(host.image, 5, 6)
    host.end("a")
    assert host.owner == (5, 6)
    host.lend("b")
    other = tmp_path / "other"
    other.write_text("")
    os.chown(other, 7, 7)
    os.replace(other, host.image)
    host.end("b")
    assert host.owner == (7, 7)


def test_what_is_not_there_is_an_error(host: Host, tmp_path: Path) -> None:
    with pytest.raises(VirtError, match=r"cannot access '.*/none': No such file"):
        host.lend("a", tmp_path / "none")
