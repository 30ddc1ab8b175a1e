"""What all tests share: a directory, a virtd, clients, and guests to run. See tests/helpers and tests/guests for
what is behind them.

Tests run in any order, several at once (pytest-xdist), each in directories of its own. What a machine lacks skips
the tests that need it, unless VIRTD_TEST_ALL is set, as contrib/test does: then it fails them.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest

from tests.guests import bootsector, linux
from tests.helpers.instance import Instance, make_root

# How long an example takes says something of the machine only. Each run has the same ones; contrib/fuzz tries others.
hypothesis.settings.register_profile(
    "virtd", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("virtd")


def lacking(what: str) -> None:
    """Skip the test because the machine lacks something; under contrib/test, which has installed everything, fail
    it.
    """
    if os.environ.get("VIRTD_TEST_ALL"):
        pytest.fail(f"this machine has no {what}")
    pytest.skip(f"this machine has no {what}")


@pytest.fixture
def need_program() -> Callable[[str], str]:
    """need_program("qemu-img") -> its path, or the test is skipped."""

    def need(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            lacking(f"program {name}")
        assert path
        return path

    return need


@pytest.fixture
def roots() -> Iterator[Callable[[], Path]]:
    """Makes directories for --root, for tests that need several. They are removed at the end."""
    made: list[Path] = []

    def make() -> Path:
        made.append(make_root())
        return made[-1]

    yield make
    for root in made:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def root(roots: Callable[[], Path]) -> Path:
    """An empty directory with a short name, for --root."""
    return roots()


@pytest.fixture
def instances(roots: Callable[[], Path]) -> Iterator[Callable[[], Instance]]:
    """Makes instances (tests/helpers/instance.py), not started. At the end of the test, each is ended, guests and all.

    The test fails if a process then still runs that was started for one of them, by whomever.
    """
    made: list[Instance] = []

    def make() -> Instance:
        made.append(Instance(roots()))
        return made[-1]

    yield make
    left = [process for instance in made for process in instance.finish()]
    if left:
        listing = "\n".join(f"  {process.pid} {process.state} {process.title}" for process in left)
        pytest.fail(f"left behind, and killed now:\n{listing}", pytrace=False)


@pytest.fixture
def instance(instances: Callable[[], Instance]) -> Instance:
    """A root directory for which no virtd runs yet."""
    return instances()


@pytest.fixture
def virtd(instance: Instance, need_program: Callable[[str], str]) -> Instance:
    """A running virtd."""
    need_program("virsh")
    instance.start()
    return instance


@pytest.fixture(scope="session")
def libvirt() -> ModuleType:
    """The module libvirt (libvirt-python), with its own printing of errors switched off."""
    try:
        module = importlib.import_module("libvirt")
    except ImportError:
        lacking("Python module libvirt")
    module.registerErrorHandler(lambda _context, _error: None, None)
    return module


@pytest.fixture
def libvirt_conn(virtd: Instance, libvirt: ModuleType) -> Iterator[Any]:
    """A connection of libvirt-python to the running virtd."""
    connection = libvirt.open(virtd.uri)
    yield connection
    connection.close()


@pytest.fixture
def boot_disk(root: Path) -> Callable[..., Path]:
    """boot_disk(then="serve", message="virtd: booted") -> a new disk image that boots the guest of
    tests/guests/bootsector.py.
    """
    made = 0

    def make(then: str = "serve", message: str = bootsector.MESSAGE) -> Path:
        nonlocal made
        made += 1
        return bootsector.write_boot_disk(root / f"boot{made}.img", message, then)

    return make


@pytest.fixture(scope="session")
def linux_guest() -> linux.Guest:
    """The kernel and initrd of a small Linux guest, built once for all test runs of this machine."""
    try:
        return linux.build()
    except FileNotFoundError as error:
        lacking(str(error))
        raise
