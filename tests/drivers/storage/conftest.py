"""A storage driver on a root of its own, and a pool in a directory."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from virtd.drivers.base import Context, Identity
from virtd.drivers.storage.driver import StorageDriver
from virtd.protocol.records import StoragePool
from virtd.state import paths

Connect = Callable[[], StorageDriver]


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
