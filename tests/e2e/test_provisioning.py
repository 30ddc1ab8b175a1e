"""Who makes many things over one connection is served by few processes, and finds each as it was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.e2e import guests
from tests.helpers.instance import Instance
from tests.helpers.processes import descendants

MANY = 20
# A process waits a second for another call, and ten at most: a slow machine needs a few of them.
FEW = 5


@pytest.fixture
def performers(virtd: Instance, connection: Any) -> Callable[[], set[int]]:
    """The processes that perform the calls of this connection."""
    server = virtd.pid
    assert server is not None
    return lambda: {process.pid for process in descendants([server]) if process.ppid != server}


def test_guests(
    connection: Any, new_guest: Callable[..., guests.Guest], performers: Callable[[], set[int]], libvirt: ModuleType
) -> None:
    xml = new_guest("web").file.read_text()
    used: set[int] = set()
    for number in range(MANY):
        connection.defineXML(xml.replace("<name>web</name>", f"<name>web{number}</name>"))
        used |= performers()
    assert 0 < len(used) <= FEW
    assert {guest.name() for guest in connection.listAllDomains()} == {f"web{number}" for number in range(MANY)}
    for number in range(MANY):
        # Another client, or this one by hand: what a process has seen is not what it goes by.
        connection.lookupByName(f"web{number}").setMetadata(0, f"number {number}", None, None, 0)
    for number in range(0, MANY, 2):
        guest = connection.lookupByName(f"web{number}")
        guest.undefine()
        with pytest.raises(libvirt.libvirtError, match="Domain not found"):
            guest.undefine()
    assert {guest.metadata(0, None) for guest in connection.listAllDomains()} == {
        f"number {number}" for number in range(1, MANY, 2)
    }
    assert len(used) > 0


def test_volumes(connection: Any, tmp_path: Path, performers: Callable[[], set[int]]) -> None:
    pool = connection.storagePoolDefineXML(
        f"<pool type='dir'><name>images</name><target><path>{tmp_path}</path></target></pool>"
    )
    pool.create()
    used: set[int] = set()
    for number in range(MANY):
        pool.createXML(f"<volume><name>v{number}</name><capacity>{1 << 20}</capacity></volume>")
        used |= performers()
    for number in range(0, MANY, 2):
        pool.storageVolLookupByName(f"v{number}").delete()
        used |= performers()
    assert sorted(pool.listVolumes()) == sorted(f"v{number}" for number in range(1, MANY, 2))
    assert 0 < len(used) <= FEW
