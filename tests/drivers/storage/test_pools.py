"""Pools: their life, what is told of it, and what is refused."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.storage.conftest import Connect, Loop, Stage
from virtd import constants as c
from virtd import deadlines, uuids
from virtd.conf.storage import POOL_TYPES
from virtd.drivers.base import Event
from virtd.drivers.storage import hazard
from virtd.drivers.storage.backends import Backend, backend_class
from virtd.drivers.storage.backends.directory import DirectoryBackend
from virtd.drivers.storage.driver import StorageDriver
from virtd.errors import VirtError
from virtd.protocol.records import StoragePool

UUID = "11111111-1111-1111-1111-111111111111"


def directory(name: str, path: Path, uuid: str = "", target: str = "") -> str:
    uuid = f"<uuid>{uuid}</uuid>" if uuid else ""
    return f"<pool type='dir'><name>{name}</name>{uuid}<target><path>{path}</path>{target}</target></pool>"


def refused(code: int, text: str, function: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(VirtError) as failure:
        function(*arguments)
    assert (failure.value.code, failure.value.detail) == (code, text)


def test_life(driver: StorageDriver, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "a"
    pool = driver.storage_pool_define_xml(directory("a", path, UUID), 0)
    assert pool == StoragePool("a", uuids.to_bytes(UUID))
    other = connect()
    assert other.storage_pool_get_info(pool) == (c.VIR_STORAGE_POOL_INACTIVE, 0, 0, 0)
    with pytest.raises(VirtError, match=f"cannot open directory '{path}': No such file or directory"):
        driver.storage_pool_create(pool, 0)
    driver.storage_pool_create(pool, c.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    assert path.stat().st_mode & 0o777 == 0o711
    invalid = c.VIR_ERR_OPERATION_INVALID
    for call, arguments, state in (
        (driver.storage_pool_create, (pool, 0), "is already active"),
        (driver.storage_pool_build, (pool, 0), "is already active"),
        (driver.storage_pool_delete, (pool, 0), "is still active"),
        (driver.storage_pool_undefine, (pool,), "is still active"),
    ):
        refused(invalid, f"storage pool 'a' {state}", call, *arguments)
    state, capacity, allocation, available = other.storage_pool_get_info(pool)
    assert state == c.VIR_STORAGE_POOL_RUNNING
    assert capacity == allocation + available > 0
    assert "<mode>0711</mode>" in other.storage_pool_get_xml_desc(pool, 0)
    assert other.storage_pool_lookup_by_target_path(f"{path}/") == pool
    driver.storage_pool_destroy(pool)
    for call, arguments in (
        (driver.storage_pool_destroy, (pool,)),
        (driver.storage_pool_refresh, (pool, 0)),
        (driver.storage_pool_num_of_volumes, (pool,)),
    ):
        refused(invalid, "storage pool 'a' is not active", call, *arguments)
    (path / "file").touch()
    text = f"failed to remove pool '{path}': Directory not empty"
    refused(c.VIR_ERR_SYSTEM_ERROR, text, driver.storage_pool_delete, pool, 0)
    (path / "file").unlink()
    driver.storage_pool_delete(pool, 0)
    assert not path.exists()
    driver.storage_pool_undefine(pool)
    text = f"no storage pool with matching uuid '{UUID}' (a)"
    refused(c.VIR_ERR_NO_STORAGE_POOL, text, other.storage_pool_is_active, pool)


def test_a_new_definition_of_an_active_pool_is_for_its_next_start(driver: StorageDriver, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    pool = driver.storage_pool_define_xml(directory("a", old, UUID), 0)
    driver.storage_pool_create(pool, 0)
    driver.storage_pool_define_xml(directory("a", new, UUID), 0)
    assert str(old) in driver.storage_pool_get_xml_desc(pool, 0)
    assert str(new) in driver.storage_pool_get_xml_desc(pool, c.VIR_STORAGE_XML_INACTIVE)
    driver.storage_pool_destroy(pool)
    assert str(new) in driver.storage_pool_get_xml_desc(pool, 0)


def test_transient_ones_end_when_they_are_stopped(driver: StorageDriver, tmp_path: Path) -> None:
    xml = directory("t", tmp_path / "t")
    pool = driver.storage_pool_create_xml(xml, c.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    assert not driver.storage_pool_is_persistent(pool)
    refused(c.VIR_ERR_INTERNAL_ERROR, "pool has no config file", driver.storage_pool_set_autostart, pool, 1)
    # Defined while it runs, it stays.
    uuid = uuids.to_text(pool.uuid)
    driver.storage_pool_define_xml(directory("t", tmp_path / "t", uuid), 0)
    assert driver.storage_pool_is_persistent(pool)
    text = "pool is already active as 't'"
    again = directory("t", tmp_path / "t", uuid)
    refused(c.VIR_ERR_OPERATION_INVALID, text, driver.storage_pool_create_xml, again, 0)
    driver.storage_pool_destroy(pool)
    driver.storage_pool_undefine(pool)
    pool = driver.storage_pool_create_xml(xml, 0)
    driver.storage_pool_destroy(pool)
    text = "no storage pool with matching name 't'"
    refused(c.VIR_ERR_NO_STORAGE_POOL, text, driver.storage_pool_lookup_by_name, "t")


def test_names_uuids_and_storage_are_unique(driver: StorageDriver, tmp_path: Path) -> None:
    define, failed = driver.storage_pool_define_xml, c.VIR_ERR_OPERATION_FAILED
    define(directory("a", tmp_path / "a", UUID), 0)
    text = f"pool 'a' already exists with uuid {UUID}"
    refused(failed, text, define, directory("a", tmp_path / "a", UUID.replace("1", "2")), 0)
    text = f"pool 'a' is already defined with uuid {UUID}"
    refused(failed, text, define, directory("b", tmp_path / "b", UUID), 0)
    text = "Storage source conflict with pool: 'a'"
    refused(failed, text, define, directory("b", tmp_path / "a"), 0)
    refused(failed, text, driver.storage_pool_create_xml, directory("b", tmp_path / "a"), 0)
    for kind in ("fs", "logical", "disk"):
        device = "<source><device path='/dev/nonesuch'/></source><target><path>/nonesuch</path></target>"
        xml = f"<pool type='{kind}'><name>{kind}</name>{device}</pool>"
        if kind == "fs":
            define(xml, 0)
        else:
            refused(failed, "Storage source conflict with pool: 'fs'", define, xml, 0)


def test_lists(driver: StorageDriver, tmp_path: Path) -> None:
    active = driver.storage_pool_create_xml(directory("active", tmp_path / "x"), 1)
    defined = driver.storage_pool_define_xml(directory("defined", tmp_path / "y"), 0)
    driver.storage_pool_set_autostart(defined, 1)
    xml = (
        "<pool type='fs'><name>f</name><source><device path='/dev/z'/></source><target><path>/z</path></target></pool>"
    )
    files = driver.storage_pool_define_xml(xml, 0)

    def names(flags: int) -> set[str]:
        found, count = driver.connect_list_all_storage_pools(1, flags)
        assert len(found) == count == driver.connect_list_all_storage_pools(0, flags)[1]
        return {pool.name for pool in found}

    everything = {active.name, defined.name, files.name}
    assert names(0) == everything
    for flags, expected in (
        (c.VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE, {"defined", "f"}),
        (c.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE, {"active"}),
        (c.VIR_CONNECT_LIST_STORAGE_POOLS_INACTIVE | c.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE, everything),
        (c.VIR_CONNECT_LIST_STORAGE_POOLS_PERSISTENT, {"defined", "f"}),
        (c.VIR_CONNECT_LIST_STORAGE_POOLS_TRANSIENT, {"active"}),
        (c.VIR_CONNECT_LIST_STORAGE_POOLS_AUTOSTART, {"defined"}),
        (c.VIR_CONNECT_LIST_STORAGE_POOLS_NO_AUTOSTART, {"active", "f"}),
        (c.VIR_CONNECT_LIST_STORAGE_POOLS_FS, {"f"}),
        (c.VIR_CONNECT_LIST_STORAGE_POOLS_DIR, {"active", "defined"}),
        (c.VIR_CONNECT_LIST_STORAGE_POOLS_DIR | c.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE, {"active"}),
        (c.VIR_CONNECT_LIST_STORAGE_POOLS_ISCSI_DIRECT, set()),
    ):
        assert names(flags) == expected, flags
    assert driver.connect_list_storage_pools(10) == ["active"]
    assert sorted(driver.connect_list_defined_storage_pools(10)) == ["defined", "f"]
    assert (driver.connect_num_of_storage_pools(), driver.connect_num_of_defined_storage_pools()) == (1, 2)


def test_autostart_happens_once_after_each_boot(driver: StorageDriver, connect: Connect, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    for path in (good, bad):
        pool = driver.storage_pool_define_xml(directory(path.name, path), 0)
        driver.storage_pool_set_autostart(pool, 1)
        assert driver.storage_pool_get_autostart(pool) == 1
    [failure] = driver.autostart()
    assert "Failed to autostart storage pool 'bad'" in failure.message
    assert connect().connect_list_storage_pools(9) == ["good"]
    driver.storage_pool_destroy(driver.storage_pool_lookup_by_name("good"))
    assert connect().autostart() == []
    assert driver.connect_num_of_storage_pools() == 0


def test_events(driver: StorageDriver, connect: Connect, tmp_path: Path) -> None:
    listener = connect()
    life = listener.connect_storage_pool_event_register_any(c.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, None)
    refresh = listener.connect_storage_pool_event_register_any(c.VIR_STORAGE_POOL_EVENT_ID_REFRESH, None)
    pool = driver.storage_pool_define_xml(directory("a", tmp_path / "a"), 0)
    driver.storage_pool_build(pool, 0)
    driver.storage_pool_create(pool, 0)
    driver.storage_pool_refresh(pool, 0)
    driver.storage_pool_destroy(pool)
    driver.storage_pool_delete(pool, 0)
    driver.storage_pool_undefine(pool)

    def event(number: int) -> Event:
        return Event("remote", "STORAGE_POOL_EVENT_LIFECYCLE", (life, pool, number, 0))

    assert listener.read_events() == [
        event(c.VIR_STORAGE_POOL_EVENT_DEFINED),
        event(c.VIR_STORAGE_POOL_EVENT_CREATED),
        event(c.VIR_STORAGE_POOL_EVENT_STARTED),
        Event("remote", "STORAGE_POOL_EVENT_REFRESH", (refresh, pool)),
        event(c.VIR_STORAGE_POOL_EVENT_STOPPED),
        event(c.VIR_STORAGE_POOL_EVENT_DELETED),
        event(c.VIR_STORAGE_POOL_EVENT_UNDEFINED),
    ]
    listener.close()


def test_a_start_that_hangs_keeps_nobody_waiting(
    driver: StorageDriver, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What starts has its name and its storage already, and is waited for only by those who want the same."""
    read, write = os.pipe()
    monkeypatch.setattr(DirectoryBackend, "start", lambda _: (os.close(write), signal.pause()))
    pid = os.fork()
    if not pid:
        driver.storage_pool_create_xml(directory("slow", tmp_path / "slow"), 0)
        os._exit(0)
    os.close(write)
    monkeypatch.undo()
    try:
        assert os.read(read, 1) == b""
        other = connect()
        other.storage_pool_create_xml(directory("quick", tmp_path / "quick"), 1)
        failed = c.VIR_ERR_OPERATION_FAILED
        text = "pool 'slow' is being started by someone else"
        refused(failed, text, other.storage_pool_define_xml, directory("slow", tmp_path / "x"), 0)
        text = "Storage source conflict with pool: 'slow'"
        refused(failed, text, other.storage_pool_define_xml, directory("y", tmp_path / "slow"), 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
    # Its process is dead: all is free again.
    other.storage_pool_define_xml(directory("slow", tmp_path / "slow"), 0)


def test_permissions_of_a_built_directory(driver: StorageDriver, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er"
    wanted = f"<permissions><mode>0750</mode><owner>{os.geteuid()}</owner></permissions>"
    pool = driver.storage_pool_define_xml(directory("a", path, target=wanted), 0)
    driver.storage_pool_build(pool, 0)
    assert path.stat().st_mode & 0o777 == 0o750


def test_a_type_that_is_no_more(driver: StorageDriver) -> None:
    text = "missing backend for pool type 10 (sheepdog)"
    xml = "<pool type='sheepdog'><name>s</name><source><host name='h'/><name>n</name></source></pool>"
    refused(c.VIR_ERR_INTERNAL_ERROR, text, driver.storage_pool_define_xml, xml, 0)
    refused(c.VIR_ERR_INTERNAL_ERROR, text, driver.connect_find_storage_pool_sources, "sheepdog", None, 0)


def test_every_other_type_has_a_back_end(driver: StorageDriver, every_type: Stage) -> None:
    document = driver.connect_get_storage_pool_capabilities(0)
    for kind in POOL_TYPES:
        assert f"<pool type='{kind}' supported='{'no' if kind == 'sheepdog' else 'yes'}'>" in document
        if kind != "sheepdog":
            assert issubclass(backend_class(kind), Backend)


def test_finding_sources(driver: StorageDriver) -> None:
    find = driver.connect_find_storage_pool_sources
    refused(c.VIR_ERR_INTERNAL_ERROR, "unknown storage pool type x", find, "x", None, 0)
    refused(c.VIR_ERR_NO_SUPPORT, "pool type 'dir' does not support source discovery", find, "dir", None, 0)
    refused(c.VIR_ERR_INVALID_ARG, "hostname must be specified for netfs sources", find, "netfs", None, 0)


def test_a_mount_is_noticed_at_once(images: Path) -> None:
    """The list of mounts is read again only when it changes, by each process for itself."""

    def there() -> bool:
        return f" {images} ".encode() in hazard._mounts.content()

    assert not there()
    if subprocess.run(["mount", "-t", "tmpfs", "none", images], check=False).returncode:
        pytest.skip("needs to mount")
    try:
        pid = os.fork()
        if not pid:
            os._exit(there())
        assert there()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    finally:
        subprocess.run(["umount", images], check=True)
    assert not there()


def test_a_server_that_hangs_is_not_touched_in_a_shared_process(
    driver: StorageDriver, pool: StoragePool, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try of a query takes place in the worker; what may hang is left to a process of its own."""
    mounts = f"1 1 0:1 / / rw - ext4 a rw\n2 1 0:2 / {images} rw - nfs4 s:/x rw\n".encode()
    monkeypatch.setattr(hazard._mounts, "content", lambda: mounts)
    assert hazard.remote(f"{images}/a")
    assert not hazard.remote(f"{images}s/a")
    (images / "a").touch()
    queries: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (driver.storage_pool_get_info, (pool,)),
        (driver.storage_pool_list_all_volumes, (pool, 1, 0)),
        (driver.storage_vol_lookup_by_name, (pool, "a")),
    ]
    for function, arguments in queries:
        with deadlines.limit(0.05), pytest.raises(deadlines.DeadlineExceeded, match=str(images)):
            function(*arguments)
        with deadlines.limit(30):
            function(*arguments)


def test_file_systems(driver: StorageDriver, loop: Loop, tmp_path: Path) -> None:
    """Formatted, mounted while active; formatted again only if forced."""
    device = loop(16)
    path = tmp_path / "mnt"
    xml = (
        f"<pool type='fs'><name>f</name><source><device path='{device}'/><format type='ext4'/></source>"
        f"<target><path>{path}</path></target></pool>"
    )
    pool = driver.storage_pool_define_xml(xml, 0)
    driver.storage_pool_build(pool, 0)
    with pytest.raises(VirtError, match=r"unexpected exit status 32: mount: .*wrong fs type"):
        driver.storage_pool_create(pool, 0)
    driver.storage_pool_create(pool, c.VIR_STORAGE_POOL_CREATE_WITH_BUILD_NO_OVERWRITE)
    try:
        assert path.is_mount()
        assert driver.storage_pool_list_volumes(pool, 9) == ["lost+found"]
        assert driver.storage_pool_get_info(pool)[1] < 16 << 20
    finally:
        driver.storage_pool_destroy(pool)
    assert not path.is_mount()
    for kind, words in (("ext4", "already formatted using 'ext4'"), ("ext3", "forced overwrite is necessary")):
        driver.storage_pool_undefine(pool)
        pool = driver.storage_pool_define_xml(xml.replace("ext4", kind), 0)
        with pytest.raises(VirtError, match=words) as failure:
            driver.storage_pool_build(pool, c.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE)
        assert failure.value.code == c.VIR_ERR_STORAGE_POOL_BUILT
    both = c.VIR_STORAGE_POOL_BUILD_OVERWRITE | c.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE
    with pytest.raises(VirtError, match="are mutually exclusive"):
        driver.storage_pool_build(pool, both)
    driver.storage_pool_build(pool, c.VIR_STORAGE_POOL_BUILD_OVERWRITE)
