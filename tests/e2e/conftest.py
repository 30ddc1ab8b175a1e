"""What the end-to-end tests share: guests of the running virtd, connections of libvirt-python, recorded events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.e2e import guests
from tests.e2e.events import Events
from tests.helpers.instance import Instance


@pytest.fixture
def new_guest(instance: Instance) -> Callable[..., guests.Guest]:
    """new_guest("web1", then="serve", …) -> files of a new guest (guests.make); virtd is not told of it."""

    def make(name: str, *args: Any, **options: Any) -> guests.Guest:
        return guests.make(instance.root, name, *args, **options)

    return make


@pytest.fixture
def defined(virtd: Instance, new_guest: Callable[..., guests.Guest]) -> Callable[..., guests.Guest]:
    """defined("web1", …) -> a new guest, defined."""

    def define(name: str, *args: Any, **options: Any) -> guests.Guest:
        guest = new_guest(name, *args, **options)
        virtd.virsh("define", str(guest.file))
        return guest

    return define


@pytest.fixture
def running(virtd: Instance, defined: Callable[..., guests.Guest]) -> Callable[..., guests.Guest]:
    """running("web1", …) -> a new guest, defined and started; it has booted unless its serial port is a console."""

    def start(name: str, *args: Any, **options: Any) -> guests.Guest:
        guest = defined(name, *args, **options)
        virtd.virsh("start", name)
        if guest.output is not None:
            guest.wait()
        return guest

    return start


@pytest.fixture(scope="session")
def event_loop(libvirt: ModuleType) -> None:
    """libvirt's own event loop, in a thread: events, keepalive and streams of all connections are served by it."""
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, daemon=True, name="libvirt's event loop").start()


@pytest.fixture
def connect(virtd: Instance, libvirt: ModuleType, event_loop: None) -> Iterator[Callable[..., Any]]:
    """connect(uri=…) -> a connection of libvirt-python to the running virtd; closed at the end."""
    opened: list[Any] = []

    def connect(uri: str | None = None) -> Any:
        opened.append(libvirt.open(uri or virtd.uri))
        return opened[-1]

    yield connect
    for connection in opened:
        # Tests may have closed it, or have ended its server.
        try:
            connection.close()
        except libvirt.libvirtError:
            pass


@pytest.fixture
def connection(connect: Callable[..., Any]) -> Any:
    """A connection of libvirt-python to the running virtd."""
    return connect()


@pytest.fixture
def events(connect: Callable[..., Any], libvirt: ModuleType, virtd: Instance) -> Events:
    """All events of all guests, from a connection that does nothing else."""
    return Events(libvirt, connect(), virtd)
