"""Storage that does not answer: a file system whose server takes requests and says nothing (FUSE, so really hung),
and a job that keeps a pool. Who needs it hears so in time, with its name; all others do not notice.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import lacking
from tests.drivers.storage.conftest import Connect, Stage
from tests.helpers.instance import Instance
from virtd import constants as c
from virtd import deadlines
from virtd.drivers.storage.driver import StorageDriver
from virtd.errors import VirtError
from virtd.protocol.records import StoragePool


@pytest.fixture
def hang() -> Iterator[Callable[[Path], None]]:
    """Makes what is done with a directory hang, until the end of the test."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not Path("/dev/fuse").exists():
        lacking("/dev/fuse")
    made: list[tuple[int, Path]] = []

    def mount(path: Path) -> None:
        device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
        command = ["mount", "-i", "-t", "fuse", "-o", options, "silent", str(path)]
        subprocess.run(command, pass_fds=[device], check=True)
        made.append((device, path))

    yield mount
    for device, path in made:
        os.close(device)  # whoever waits goes on with an error
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def timed_out(function: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(VirtError) as failure:
        function(*arguments)
    assert failure.value.code == c.VIR_ERR_OPERATION_TIMEOUT
    return failure.value.detail


def test_no_change_begins_where_nothing_answers(
    driver: StorageDriver,
    pool: StoragePool,
    images: Path,
    hang: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (images / "a").touch()
    volume = driver.storage_vol_lookup_by_name(pool, "a")
    hang(images)
    monkeypatch.setattr(deadlines, "PATIENCE", 0.2)
    text = f"storage pool 'images': '{images}' did not answer in 0 s"
    new = "<volume><name>b</name><capacity>1</capacity></volume>"
    assert timed_out(driver.storage_pool_refresh, pool, 0) == text
    assert timed_out(driver.storage_vol_create_xml, pool, new, 0) == text
    assert timed_out(driver.storage_vol_create_xml_from, pool, new, volume, 0) == text
    assert timed_out(driver.storage_vol_resize, volume, 1, 0) == text
    assert timed_out(driver.storage_vol_wipe, volume, 0) == text
    assert timed_out(driver.storage_vol_delete, volume, 0) == text
    assert timed_out(driver.storage_vol_upload, volume, 0, 0, 0) == text
    # It can be stopped.
    driver.storage_pool_destroy(pool)


def test_only_who_asks_it_waits(
    instance: Instance,
    libvirt: Any,
    tmp_path: Path,
    hang: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over the wire: a query of the hung pool is answered in the end; other clients, and other pools, meanwhile."""
    monkeypatch.setenv("VIRTD_PATIENCE", "1.2")
    instance.start()
    connections = [libvirt.open(instance.uri) for _ in range(2)]
    try:
        for name in ("hung", "well"):
            (tmp_path / name).mkdir()
            xml = f"<pool type='dir'><name>{name}</name><target><path>{tmp_path}/{name}</path></target></pool>"
            connections[0].storagePoolCreateXML(xml, 0)
        hang(tmp_path / "hung")
        pid = os.fork()
        if not pid:
            # A client that gets tired of it.
            with contextlib.suppress(libvirt.libvirtError):
                libvirt.open(instance.uri).storagePoolLookupByName("hung").listAllVolumes()
            os._exit(0)
        begin = time.monotonic()
        for connection in connections:
            assert connection.storagePoolLookupByName("well").info()[0] == libvirt.VIR_STORAGE_POOL_RUNNING
            assert len(connection.listAllStoragePools()) == 2
        assert time.monotonic() - begin < 2
        with pytest.raises(libvirt.libvirtError, match=r"StoragePoolGetInfo.*hung.* did not end in") as failure:
            connections[0].storagePoolLookupByName("hung").info()
        assert failure.value.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT
        os.waitpid(pid, 0)
    finally:
        for connection in connections:
            connection.close()


def test_a_job_on_a_pool_is_waited_for_and_named(driver: StorageDriver, connect: Connect, stage: Stage) -> None:
    stage.play("zpool", "echo $$ >$S/pid; kill -STOP $$")
    stage.play("zfs", "")
    (stage.directory / "pid").touch()
    xml = "<pool type='zfs'><name>z</name><source><name>tank</name><device path='/dev/a'/></source></pool>"
    pool = driver.storage_pool_define_xml(xml, 0)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        with contextlib.suppress(VirtError):
            connect().storage_pool_build(pool, 0)
        os._exit(0)
    os.close(write)
    try:
        # Its tool has begun when it has written down its number.
        deadline = time.monotonic() + 20
        while not (stage.directory / "pid").read_text():
            assert time.monotonic() < deadline
        with deadlines.limit(0.3):
            text = timed_out(driver.storage_pool_create, pool, 0)
        assert "lock of storage pool 'z'" in text
        assert "virStoragePoolBuild" in text
        # Nobody has to wait in order to look.
        assert driver.storage_pool_get_info(pool)[0] == c.VIR_STORAGE_POOL_INACTIVE
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
    with deadlines.limit(20):
        driver.storage_pool_create(pool, 0)
