"""Ctrl-C in the middle of work on volumes: nothing half-made is left, and nobody who goes on with it."""

from __future__ import annotations

import filecmp
import os
import signal
from pathlib import Path

import pytest

from tests.helpers.console import Console
from tests.helpers.waiting import wait_for
from tests.shell.conftest import Shell

SIZE = 256 << 20  # bytes


@pytest.fixture
def pool(shell: Shell) -> Path:
    """The directory of a pool 'p' with a volume 'v'."""
    home = shell.instance.root / "pool"
    home.mkdir()
    shell("pool-create-as", "p", "dir", "--target", str(home))
    shell("vol-create-as", "p", "v", str(SIZE), "--allocation", "0")
    return home


def interrupt(console: Console) -> None:
    """Ctrl-C: for everybody in the terminal's foreground."""
    os.killpg(console.process.pid, signal.SIGINT)
    assert console.until_end() != 0, console.output


def nothing_is_left(shell: Shell, pool: Path, names: set[str]) -> None:
    # The next change waits for whoever still works, and clears away what is left.
    shell("vol-resize", "v", str(SIZE + (1 << 20)), "--pool", "p")
    assert {line.split()[0] for line in shell("vol-list", "p").splitlines()} == names == set(os.listdir(pool))
    assert os.listdir(shell.instance.root / "run/virtd/storage/jobs") == []
    shell("pool-destroy", "p")


@pytest.mark.parametrize("options", [(), ("--sparse",)])
def test_upload(shell: Shell, pool: Path, options: tuple[str, ...]) -> None:
    source = shell.instance.root / "source"
    os.mkfifo(source)
    with (
        shell.terminal("vol-upload", "v", str(source), "--pool", "p", *options) as console,
        source.open("wb", buffering=0) as file,
    ):
        file.write(b"x" * (1 << 20))
        wait_for(lambda: (pool / "v").stat().st_blocks > 0, directory=pool)
        # How far it has come is seen from outside, too.
        assert "Allocation:     0" not in shell("vol-info", "v", "p", "--bytes")
        interrupt(console)
    assert (pool / "v").stat().st_size == SIZE
    nothing_is_left(shell, pool, {"v"})


def test_download(shell: Shell, pool: Path) -> None:
    target = shell.instance.root / "target"
    os.mkfifo(target)
    with (
        shell.terminal("vol-download", "v", str(target), "--pool", "p") as console,
        target.open("rb", buffering=0) as file,
    ):
        assert file.read(1 << 20)
        interrupt(console)
    assert not target.exists()
    nothing_is_left(shell, pool, {"v"})


def test_clone(shell: Shell, pool: Path) -> None:
    (pool / "v").write_bytes(os.urandom(1 << 20) * (SIZE >> 20))
    with shell.terminal("vol-clone", "v", "copy", "--pool", "p") as console:
        wait_for(lambda: len(os.listdir(pool)) > 1, directory=pool)
        interrupt(console)
    # A server goes on without its client; then the copy is whole.
    wait_for(lambda: not list(pool.glob(".*")), directory=pool)
    listed = set(shell("vol-list", "p").split())
    if str(pool / "copy") in listed:
        assert filecmp.cmp(pool / "copy", pool / "v", shallow=False)
        shell("vol-delete", "copy", "--pool", "p")
    nothing_is_left(shell, pool, {"v"})
