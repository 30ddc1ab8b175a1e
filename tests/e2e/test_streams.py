"""Streams through libvirt-python: a console both ways, pictures, and their ends of all kinds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.e2e.guests import Guest
from tests.helpers.instance import Instance
from tests.helpers.waiting import SECONDS

VIDEO = "<video><model type='vga'/></video>"
PNG = b"\x89PNG\r\n\x1a\n"


@contextmanager
def bounded(stream: Any) -> Iterator[None]:
    """Abort a stream if what is done with it takes too long: a call that waits for it fails then."""
    timer = threading.Timer(SECONDS, stream.abort)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def read_until(stream: Any, text: bytes) -> bytes:
    """Read from a blocking stream until a text has come."""
    found = b""
    with bounded(stream):
        while text not in found:
            data = stream.recv(4096)
            assert data, f"the stream has ended after {found!r}"
            found += data
    return found


def read_all(stream: Any) -> bytes:
    """Read a blocking stream to its end."""
    found = b""
    with bounded(stream):
        while data := stream.recv(65536):
            found += data
    return found


@pytest.fixture
def console_guest(virtd: Instance, defined: Callable[..., Guest], connection: Any) -> Any:
    """A running guest (virDomain) with a console, and nobody at it."""
    defined("web1", console=True)
    guest = connection.lookupByName("web1")
    guest.createWithFlags(1)  # paused
    return guest


def test_a_console_both_ways(connection: Any, console_guest: Any) -> None:
    stream = connection.newStream()
    console_guest.openConsole(None, stream, 0)
    console_guest.resume()
    assert read_until(stream, b"\r\n") == b"virtd: booted\r\n"
    sent = bytes(range(0x20, 0x7F)) * 20
    stream.send(sent)
    assert read_until(stream, sent).endswith(sent)
    stream.finish()
    # It is free again at once.
    stream = connection.newStream()
    console_guest.openConsole(None, stream, 0)
    stream.abort()


def test_a_stream_by_callbacks(libvirt: ModuleType, connection: Any, console_guest: Any) -> None:
    stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
    console_guest.openConsole(None, stream, 0)
    found, booted = [b""], threading.Event()

    def readable(stream: Any, events: int, _opaque: Any) -> None:
        data = stream.recv(4096)
        if isinstance(data, bytes):
            found[0] += data
        if b"virtd: booted" in found[0]:
            stream.eventRemoveCallback()
            booted.set()

    stream.eventAddCallback(libvirt.VIR_STREAM_EVENT_READABLE, readable, None)
    console_guest.resume()
    assert booted.wait(SECONDS), found
    stream.abort()


def test_force_ends_the_stream_of_the_one_before(
    libvirt: ModuleType, connect: Callable[..., Any], console_guest: Any
) -> None:
    connection = connect()
    guest = connection.lookupByName("web1")
    first, second = connection.newStream(), connection.newStream()
    guest.openConsole(None, first, 0)
    with pytest.raises(libvirt.libvirtError, match="Active console session exists") as refused:
        guest.openConsole(None, connection.newStream(), 0)
    assert refused.value.get_error_code() == libvirt.VIR_ERR_OPERATION_FAILED
    guest.openConsole(None, second, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
    with pytest.raises(libvirt.libvirtError):
        read_all(first)
    guest.resume()
    assert b"virtd: booted" in read_until(second, b"booted")
    second.abort()


def test_a_console_ends_well_with_the_guest(connection: Any, console_guest: Any, connect: Callable[..., Any]) -> None:
    stream = connection.newStream()
    console_guest.openConsole(None, stream, 0)
    connect().lookupByName("web1").destroy()
    assert read_all(stream) == b""
    stream.finish()


def test_a_screenshot(virtd: Instance, root: Path, running: Callable[..., Guest]) -> None:
    running("web1", devices=VIDEO)
    picture = root / "picture.png"
    virtd.virsh("screenshot", "web1", str(picture))
    data = picture.read_bytes()
    assert data.startswith(PNG)
    assert data[-8:-4] == b"IEND"
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert (width, height) in ((720, 400), (640, 480))
    # The guest has printed its message on the screen: that is not a blank picture.
    assert len(data) > 500


def test_many_screenshots_at_once_and_some_given_up(
    libvirt: ModuleType, connection: Any, running: Callable[..., Guest]
) -> None:
    running("web1", devices=VIDEO)
    guest = connection.lookupByName("web1")
    streams = [connection.newStream() for _ in range(12)]
    for stream in streams:
        assert guest.screenshot(stream, 0, 0) == "image/png"
    for stream in streams[::2]:
        stream.abort()
    pictures = {read_all(stream) for stream in streams[1::2]}
    for stream in streams[1::2]:
        stream.finish()
    assert all(picture.startswith(PNG) and picture[-8:-4] == b"IEND" for picture in pictures)


def test_no_such_screen(libvirt: ModuleType, connection: Any, virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1", devices=VIDEO)
    running("web2")
    for name, screen, text in (("web1", 1, "no such screen ID"), ("web2", 0, "no screens to take screenshot from")):
        with pytest.raises(libvirt.libvirtError) as caught:
            connection.lookupByName(name).screenshot(connection.newStream(), screen, 0)
        assert caught.value.get_error_message() == f"Requested operation is not valid: {text}"


def test_a_connection_closed_in_the_middle_of_a_stream(
    virtd: Instance, connect: Callable[..., Any], connection: Any, console_guest: Any
) -> None:
    other = connect()
    stream = other.newStream()
    other.lookupByName("web1").openConsole(None, stream, 0)
    del stream
    other.close()
    stream = connection.newStream()
    console_guest.openConsole(None, stream, 1)
    console_guest.resume()
    read_until(stream, b"virtd: booted")
    stream.abort()
