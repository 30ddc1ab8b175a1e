"""Upload and download, at the ends of the sockets."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from virtd import constants as c
from virtd.drivers import holes
from virtd.drivers.base import Event, Reply
from virtd.drivers.storage.driver import StorageDriver
from virtd.errors import VirtError
from virtd.protocol.records import StoragePool, StorageVol
from virtd.state import files

MIB = 1 << 20


@pytest.fixture
def volume(driver: StorageDriver, pool: StoragePool) -> StorageVol:
    """A volume of 8 MiB without blocks."""
    xml = "<volume><name>a</name><capacity unit='MiB'>8</capacity><allocation>0</allocation></volume>"
    return driver.storage_vol_create_xml(pool, xml, 0)


def exchange(reply: Reply, client: Callable[[int], None]) -> None:
    """Do the work of a stream while a thread is the client at the other end."""
    stream = reply.stream
    assert stream is not None
    assert stream.work is not None

    def run() -> None:
        try:
            client(stream.descriptor)
        finally:
            os.close(stream.descriptor)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        stream.work()
    finally:
        thread.join()


def download(driver: StorageDriver, volume: StorageVol, offset: int = 0, length: int = 0, flags: int = 0) -> bytes:
    received = bytearray()

    def client(end: int) -> None:
        while chunk := os.read(end, MIB):
            received.extend(chunk)

    exchange(driver.storage_vol_download(volume, offset, length, flags), client)
    return bytes(received)


def upload(
    driver: StorageDriver, volume: StorageVol, data: bytes, offset: int = 0, length: int = 0, flags: int = 0
) -> None:
    def client(end: int) -> None:
        try:
            files.write_all(end, data)
        except OSError:
            pass  # refused in the middle

    exchange(driver.storage_vol_upload(volume, offset, length, flags), client)


def test_up_and_down(driver: StorageDriver, volume: StorageVol, images: Path) -> None:
    data = os.urandom(3 * MIB + 12345)
    upload(driver, volume, data)
    assert (images / "a").read_bytes() == data + bytes(8 * MIB - len(data))
    assert download(driver, volume) == (images / "a").read_bytes()
    assert download(driver, volume, 1000, 70000) == data[1000:71000]
    assert download(driver, volume, 8 * MIB - 5) == bytes(5)
    assert download(driver, volume, 9 * MIB) == b""
    upload(driver, volume, b"hello", 100)
    assert download(driver, volume, 99, 7) == data[99:100] + b"hello" + data[105:106]
    # Longer than it was, it grows.
    upload(driver, volume, b"end", 8 * MIB)
    assert driver.storage_vol_get_info(volume)[1] == 8 * MIB + 3


def test_holes_are_kept(driver: StorageDriver, volume: StorageVol, images: Path) -> None:
    sparse = c.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM
    data = bytes(MIB) + os.urandom(MIB) + bytes(3 * MIB) + b"x" + bytes(MIB - 1)
    upload(driver, volume, data, flags=sparse)
    assert (images / "a").read_bytes() == data + bytes(2 * MIB)
    assert driver.storage_vol_get_info(volume)[2] <= MIB + 3 * 65536
    # What was there before gives way to a hole.
    upload(driver, volume, bytes(8 * MIB), flags=sparse)
    assert driver.storage_vol_get_info(volume) == (0, 8 * MIB, 0)
    # Zeros at the end make the file longer, too.
    upload(driver, volume, bytes(10 * MIB), flags=sparse)
    assert driver.storage_vol_get_info(volume) == (0, 10 * MIB, 0)


def sparse_exchange(reply: Reply, client: Callable[[int], None]) -> None:
    """As exchange(), with holes."""
    assert reply.stream is not None
    assert reply.stream.sparse is not None
    stream = reply.stream.sparse()
    assert stream.holes
    exchange(Reply(stream=stream), client)


def test_holes_go_over_as_such(driver: StorageDriver, volume: StorageVol, images: Path) -> None:
    """Downloaded as packets and uploaded as packets, a volume is the same, and no zeros have been moved."""
    first, second = os.urandom(MIB), os.urandom(100000)
    with (images / "a").open("r+b") as file:
        os.pwrite(file.fileno(), first, 2 * MIB)
        os.pwrite(file.fileno(), second, 5 * MIB)
    parts: list[bytes | int] = []

    def receive(end: int) -> None:
        parts.extend(holes.receive(end))

    flag = c.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM
    sparse_exchange(driver.storage_vol_download(volume, 0, 0, flag), receive)
    lengths = [part if isinstance(part, int) else len(part) for part in parts]
    assert sum(lengths) == 8 * MIB
    assert parts[0] == 2 * MIB
    assert isinstance(parts[-1], int)
    assert sum(len(part) for part in parts if isinstance(part, bytes)) < MIB + 2 * 65536

    def send(end: int) -> None:
        for part in parts:
            holes.send(end, part)

    original = (images / "a").read_bytes()
    (images / "a").write_bytes(os.urandom(8 * MIB))
    sparse_exchange(driver.storage_vol_upload(volume, 0, 0, flag), send)
    assert (images / "a").read_bytes() == original
    assert driver.storage_vol_get_info(volume)[2] <= MIB + 3 * 65536
    # A part of it, in the middle of a hole.
    parts.clear()
    sparse_exchange(driver.storage_vol_download(volume, MIB, MIB + 10, flag), receive)
    assert parts == [MIB, first[:10]]


def test_more_than_announced_is_refused(driver: StorageDriver, volume: StorageVol, images: Path) -> None:
    with pytest.raises(VirtError, match="cannot write to stream: No space left on device"):
        upload(driver, volume, b"x" * 200, length=100)


def test_an_upload_is_told_of_and_gives_its_lock_back(
    driver: StorageDriver, volume: StorageVol, pool: StoragePool
) -> None:
    callback = driver.connect_storage_pool_event_register_any(c.VIR_STORAGE_POOL_EVENT_ID_REFRESH, pool)
    upload(driver, volume, b"x")
    assert driver.read_events() == [Event("remote", "STORAGE_POOL_EVENT_REFRESH", (callback, pool))]
    driver.storage_vol_delete(volume, 0)
    driver.close()


def test_a_client_that_has_enough_ends_a_download(driver: StorageDriver, volume: StorageVol) -> None:
    exchange(driver.storage_vol_download(volume, 0, 0, 0), lambda end: None)


def test_what_cannot_be_moved(driver: StorageDriver, pool: StoragePool, images: Path) -> None:
    (images / "dir").mkdir()
    directory = driver.storage_vol_lookup_by_name(pool, "dir")
    for call in (driver.storage_vol_download, driver.storage_vol_upload):
        with pytest.raises(VirtError, match=r"Unable to open stream for '.*/dir': Is a directory"):
            call(directory, 0, 0, 0)
        with pytest.raises(VirtError, match="unsupported flags"):
            call(directory, 0, 0, 2)
