"""The remote driver and a real libvirtd 9.0.0."""

import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drivers.remote.conftest import Libvirtd
from virtd import constants as c
from virtd.drivers.base import Connection, Context, Event, Reply
from virtd.drivers.remote.driver import RemoteDriver, open_remote
from virtd.errors import VirtError
from virtd.protocol import streams
from virtd.protocol.programs import METHODS
from virtd.protocol.records import Domain, StorageVol, TypedParam, TypedValue

Connect = Callable[..., Connection]


def driver_of(connection: Connection) -> RemoteDriver:
    [driver] = connection.drivers
    assert isinstance(driver, RemoteDriver)
    return driver


@pytest.fixture
def test(connect: Connect) -> RemoteDriver:
    """libvirt's test driver, with its one guest called test."""
    return driver_of(connect("test"))


def test_reading(test: RemoteDriver) -> None:
    assert test.connect_get_type() == "TEST"
    assert test.connect_get_uri() == "test:///default"
    assert test.connect_get_lib_version() == 9_000_000
    guests, count = test.connect_list_all_domains(1, 0)
    assert count == 1
    [guest] = guests
    assert (guest.name, guest.id) == ("test", 1)
    assert test.domain_lookup_by_name("test") == guest
    assert test.domain_get_info(guest)[0] == c.VIR_DOMAIN_RUNNING
    assert test.domain_get_xml_desc(guest, 0).startswith("<domain type='test' id='1'>")
    assert test.node_get_info()[0] == b"i686"
    [stats] = test.connect_get_all_domain_stats([], 0, 0)
    assert stats.dom == guest
    assert TypedParam("state.state", TypedValue(c.VIR_TYPED_PARAM_INT, 1)) in stats.params
    assert test.connect_is_secure() == 1


def test_errors(test: RemoteDriver) -> None:
    with pytest.raises(VirtError) as caught:
        test.domain_lookup_by_name("nosuch")
    assert (caught.value.code, caught.value.domain) == (c.VIR_ERR_NO_DOMAIN, c.VIR_FROM_TEST)
    with pytest.raises(VirtError, match="not supported by the connection driver: virDomainGetJobInfo"):
        test.domain_get_job_info(test.domain_lookup_by_name("test"))


def test_many_calls_at_once(test: RemoteDriver) -> None:
    """More than libvirtd serves at a time: it answers them all, in whatever order."""
    client = test.client
    serials = [client.start(METHODS["domain_lookup_by_name"], ("test",)) for _ in range(50)]
    assert {client.result(serial)[0].name for serial in reversed(serials)} == {"test"}


def test_events(connect: Connect) -> None:
    watching, acting = driver_of(connect("test", ping=(5, 5))), driver_of(connect("test"))
    guest = watching.domain_lookup_by_name("test")
    callback = watching.connect_domain_event_callback_register_any(c.VIR_DOMAIN_EVENT_ID_LIFECYCLE, None)
    acting.domain_suspend(guest)
    acting.domain_resume(guest)
    found: list[Event] = []
    descriptor = watching.event_fd()
    assert descriptor is not None
    while len(found) < 2:
        assert select.select([descriptor], [], [], 10)[0]
        found += watching.read_events()
    assert [event.procedure for event in found] == ["DOMAIN_EVENT_CALLBACK_LIFECYCLE"] * 2
    assert [event.values[1][1] for event in found] == [c.VIR_DOMAIN_EVENT_SUSPENDED, c.VIR_DOMAIN_EVENT_RESUMED]
    assert {event.values[0] for event in found} == {callback}
    watching.connect_domain_event_callback_deregister_any(callback)


def test_child_uses_a_connection_of_its_own(test: RemoteDriver) -> None:
    """As a server's worker does: the call is made in a forked child, and the parent goes on using the driver."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for _ in range(20):
                test.connect_get_hostname()
            test.domain_lookup_by_name("test")
            test.close()
            status = 0
        finally:
            os._exit(status)
    for _ in range(20):
        assert test.domain_lookup_by_name("test").name == "test"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert test.domain_lookup_by_name("test").name == "test"


def copy(reply: Reply, other: Callable[[socket.socket], bool]) -> bool:
    """Run a stream, with a child at the other end of its descriptor; whether that was content."""
    assert reply.stream is not None
    assert reply.stream.work is not None
    child = os.fork()
    if child == 0:
        good = False
        try:
            with socket.socket(fileno=reply.stream.descriptor) as end:
                good = other(end)
        finally:
            os._exit(not good)
    os.close(reply.stream.descriptor)
    reply.stream.work()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def read_all(end: socket.socket) -> bytes:
    found = b""
    while data := end.recv(1 << 20):
        found += data
    return found


def write_all(end: socket.socket, data: bytes) -> bool:
    end.sendall(data)
    return True


def test_screenshot(test: RemoteDriver) -> None:
    reply = test.domain_screenshot(test.domain_lookup_by_name("test"), 0, 0)
    assert isinstance(reply, Reply)
    assert reply.value == "image/png"
    assert copy(reply, lambda end: read_all(end).startswith(b"\x89PNG"))


@pytest.fixture
def volume(
    connect: Connect, libvirtd: Libvirtd, request: pytest.FixtureRequest
) -> Iterator[tuple[RemoteDriver, StorageVol, Path]]:
    """A volume of 1 MiB without data, and where it lies."""
    driver = driver_of(connect("qemu"))
    directory = libvirtd.home / f"pool-{os.getpid()}-{request.node.name}"
    directory.mkdir()
    directory.chmod(0o777)
    xml = f"<pool type='dir'><name>{directory.name}</name><target><path>{directory}</path></target></pool>"
    pool = driver.storage_pool_create_xml(xml, 0)
    xml = "<volume><name>v</name><allocation>0</allocation><capacity>1048576</capacity></volume>"
    yield driver, driver.storage_vol_create_xml(pool, xml, 0), directory / "v"
    driver.storage_pool_destroy(pool)


def test_upload_with_holes(volume: tuple[RemoteDriver, StorageVol, Path]) -> None:
    driver, vol, path = volume
    _, stream = driver.open_stream("storage_vol_upload", vol, 0, 0, c.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
    stream.send(b"begin")
    stream.send_hole(300_000)
    stream.send(b"end")
    stream.finish()
    assert path.read_bytes()[:300_008] == b"begin" + bytes(300_000) + b"end"
    _, stream = driver.open_stream("storage_vol_download", vol, 0, 300_008, c.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
    content, holes = b"", 0
    while (event := stream.receive()).kind != streams.END:
        content += event.data + bytes(event.length)
        holes += event.length
    stream.finish()
    assert content == b"begin" + bytes(300_000) + b"end"


def test_upload_and_download(volume: tuple[RemoteDriver, StorageVol, Path]) -> None:
    """Through descriptors, with more data than any buffer holds."""
    driver, vol, path = volume
    data = bytes(range(256)) * 4096
    assert copy(driver.storage_vol_upload(vol, 0, 0, 0), lambda end: write_all(end, data))
    assert path.read_bytes() == data
    assert copy(driver.storage_vol_download(vol, 0, 0, 0), lambda end: read_all(end) == data)


def test_abort(volume: tuple[RemoteDriver, StorageVol, Path]) -> None:
    driver, vol, _ = volume
    _, stream = driver.open_stream("storage_vol_download", vol, 0, 0, 0)
    assert stream.receive().kind == streams.DATA
    stream.abort()
    assert driver.storage_vol_get_info(vol)[1] == 1048576


def test_descriptors_with_a_call(test: RemoteDriver) -> None:
    """They arrive, for the connection is still in step behind them."""
    with pytest.raises(VirtError, match="missing name information"):
        test.domain_create_xml_with_files("<domain/>", 0, fds=[0, 1])
    assert test.domain_lookup_by_name("test").name == "test"


def test_unknown_uri(libvirtd: Libvirtd, context: Context) -> None:
    with pytest.raises(VirtError, match="no connection driver available for nosuch:///x"):
        open_remote(f"nosuch+unix:///x?socket={libvirtd.socket}", context)


def test_nobody_there(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "none"
    with pytest.raises(VirtError) as caught:
        open_remote(f"test+unix:///default?socket={path}", context)
    assert str(caught.value) == f"Failed to connect socket to '{path}': No such file or directory"
    assert (caught.value.code, caught.value.domain) == (c.VIR_ERR_SYSTEM_ERROR, c.VIR_FROM_RPC)


def test_nobody_there_over_tcp(context: Context) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(VirtError) as caught:
        open_remote(f"test+tcp://127.0.0.1:{port}/default", context)
    assert str(caught.value) == f"unable to connect to server at '127.0.0.1:{port}': Connection refused"
    with pytest.raises(VirtError, match="Unable to resolve address 'no such host' service '16509'"):
        open_remote("test+tcp://no such host/default", context)


def test_transport_that_is_not_there(context: Context) -> None:
    with pytest.raises(VirtError, match=r"transport libssh of .* this client has unix, tcp, ssh, ext"):
        open_remote("qemu+libssh://host/system", context)


def test_read_only(libvirtd: Libvirtd, context: Context) -> None:
    connection = open_remote(libvirtd.uri("test"), context._replace(read_only=True))
    driver = driver_of(connection)
    guest = driver.domain_lookup_by_name("test")
    with pytest.raises(VirtError, match="read only access prevents virDomainSuspend"):
        driver.domain_suspend(guest)
    connection.close()


def test_record_types(test: RemoteDriver) -> None:
    assert isinstance(test.domain_lookup_by_id(1), Domain)
