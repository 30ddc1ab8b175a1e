"""A storage driver on a root of its own, a pool in a directory; block devices, and played tools."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from virtd.drivers.base import Context, Identity
from virtd.drivers.storage import programs
from virtd.drivers.storage.driver import StorageDriver
from virtd.protocol.records import StoragePool
from virtd.state import paths

Connect = Callable[[], StorageDriver]
Loop = Callable[[int], str]


@pytest.fixture
def connect(tmp_path: Path) -> Connect:
    """Makes a connection of its own: what it knows, it knows from disk."""

    def make() -> StorageDriver:
        context = Context(paths.below(str(tmp_path / "root")), Identity(0, 0, 0, "local"), os.getpid())
        return StorageDriver(context)

    return make


@pytest.fixture
def driver(connect: Connect) -> StorageDriver:
    return connect()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The pool's directory."""
    path = tmp_path / "images"
    path.mkdir()
    return path


@pytest.fixture
def pool(driver: StorageDriver, images: Path) -> StoragePool:
    """An active pool of a directory."""
    xml = f"<pool type='dir'><name>images</name><target><path>{images}</path></target></pool>"
    return driver.storage_pool_create_xml(xml, 0)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """Makes a block device of so many MiB, whose partitions the kernel knows; needs root and loop devices."""
    made: list[str] = []

    def make(size: int) -> str:
        if os.geteuid() != 0:
            pytest.skip("needs root")
        path = tmp_path / f"device{len(made)}"
        with path.open("wb") as file:
            file.truncate(size << 20)
        command = ["losetup", "--find", "--show", "--partscan", str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            pytest.skip(f"no loop devices: {result.stderr.strip()}")
        made.append(result.stdout.strip())
        return made[-1]

    yield make
    for name in made:
        subprocess.run(["losetup", "--detach", name], check=True)


class Stage:
    """Played tools: scripts that stand for programs which this machine does not have, or cannot let work.

    They answer as the manuals of the real ones say, and note how they were called.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._log = directory / "calls"
        self._log.touch()

    def play(self, tool: str, script: str) -> None:
        """A tool, by the body of a shell script; $S is a directory for what it has to remember."""
        path = self.directory / tool
        path.write_text(f'#!/bin/sh\nS={self.directory}\necho "{tool} $*" >>$S/calls\n{script}\n')
        path.chmod(0o755)

    def calls(self) -> list[str]:
        """How the tools were called since the last time."""
        calls = self._log.read_text().splitlines()
        self._log.write_text("")
        return calls


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    directory = tmp_path / "stage"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return Stage(directory)


@pytest.fixture
def every_type(stage: Stage) -> Stage:
    """All types of pools can be defined: those that are missing without their tools have tools, which always fail."""
    for tool in ("iscsi-ls", "rbd", "mount.glusterfs", "zfs", "vstorage-mount"):
        if programs.installed(tool) is None:
            stage.play(tool, "exit 1")
    return stage


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes programs look as if they were not installed."""

    def hide(*tools: str) -> None:
        installed = programs.installed
        monkeypatch.setattr(programs, "installed", lambda name: None if name in tools else installed(name))

    return hide
