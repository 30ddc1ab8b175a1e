"""SIGKILL in the middle of the work: nothing half-made is listed, nothing is left, everybody can go on."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.storage.conftest import Connect
from tests.drivers.storage.kills import kills
from tests.helpers.waiting import wait_for
from virtd.drivers.storage import imagetool, jobs
from virtd.drivers.storage.driver import StorageDriver
from virtd.errors import VirtError
from virtd.protocol.records import StoragePool, StorageVol

SOURCE_SIZE = 64 << 20  # bytes
COPIED = "8M"  # of it in a second, so that qemu-img is interrupted however busy the machine is
RUN = "virtd.drivers.storage.programs.subprocess.run"


def volume(name: str, kind: str = "raw", capacity: str = "<capacity unit='MiB'>64</capacity>") -> str:
    return f"<volume><name>{name}</name>{capacity}<target><format type='{kind}'/></target></volume>"


@pytest.fixture
def source(driver: StorageDriver, pool: StoragePool, images: Path) -> StorageVol:
    """A volume to copy."""
    (images / "source").write_bytes(os.urandom(1 << 20) * (SOURCE_SIZE >> 20))
    return driver.storage_vol_lookup_by_name(pool, "source")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy takes its time."""
    real = subprocess.run

    def run(command: list[str], **options: object) -> object:
        if command[1:2] == ["convert"]:
            command[2:2] = ["-r", COPIED]
        return real(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(RUN, run)


def child(work: Callable[[], object]) -> int:
    """Do something in a process of its own, as the server does."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def killed_while_it_is_made(work: Callable[[], object], images: Path) -> None:
    """Let something be made, and kill who makes it as soon as there is a part of it."""
    pid = child(work)
    wait_for(lambda: any(jobs.hidden(name) for name in os.listdir(images)), "a part of it", directory=images)
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def nobody_is_left(driver: StorageDriver) -> None:
    """Wait for whoever still holds a lock of a volume: qemu-img goes with its caller, but a moment later, and so does
    a process that has not become qemu-img yet.
    """
    for path in Path(driver.pools.jobs._directory).glob("*.lock"):
        with path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)


def all_is_well(driver: StorageDriver, pool: StoragePool, images: Path, names: set[str]) -> None:
    """No list shows more than there should be, and after the next change there is no more."""
    assert set(driver.storage_pool_list_volumes(pool, 99)) == names
    nobody_is_left(driver)
    driver.storage_vol_create_xml(pool, volume("next", capacity="<capacity>1</capacity>"), 0)
    assert set(os.listdir(images)) == names | {"next"}
    assert os.listdir(driver.pools.jobs._directory) == []


def test_a_copy(
    slow: None,
    driver: StorageDriver,
    pool: StoragePool,
    source: StorageVol,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    xml = volume("copy", "qcow2")
    killed_while_it_is_made(lambda: driver.storage_vol_create_xml_from(pool, xml, source, 0), images)
    with pytest.raises(VirtError, match="no storage vol with matching name 'copy'"):
        driver.storage_vol_lookup_by_name(pool, "copy")
    monkeypatch.undo()
    all_is_well(driver, pool, images, {"source"})
    driver.storage_vol_create_xml_from(pool, xml, source, 0)
    assert driver.storage_vol_get_info(driver.storage_vol_lookup_by_name(pool, "copy"))[1] == SOURCE_SIZE


def test_a_new_volume(driver: StorageDriver, pool: StoragePool, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the making of the file and its getting its name."""
    monkeypatch.setattr(imagetool, "set_owner", lambda *_: signal.pause())
    killed_while_it_is_made(lambda: driver.storage_vol_create_xml(pool, volume("new"), 0), images)
    monkeypatch.undo()
    all_is_well(driver, pool, images, set())
    driver.storage_vol_create_xml(pool, volume("new"), 0)


def test_while_a_volume_is_made_its_name_is_taken_and_others_can_go_on(
    driver: StorageDriver, connect: Connect, pool: StoragePool, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagetool, "set_owner", lambda *_: signal.pause())
    pid = child(lambda: driver.storage_vol_create_xml(pool, volume("slow"), 0))
    try:
        wait_for(lambda: os.listdir(images), "a file", directory=images)
        monkeypatch.undo()
        other = connect()
        with pytest.raises(VirtError, match="storage volume 'slow' exists already"):
            other.storage_vol_create_xml(pool, volume("slow"), 0)
        other.storage_vol_create_xml(pool, volume("quick"), 0)
        other.storage_pool_refresh(pool, 0)
        assert other.storage_pool_list_volumes(pool, 9) == ["quick"]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    all_is_well(driver, pool, images, {"quick"})


def test_a_resize(driver: StorageDriver, pool: StoragePool, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any moment: the image has its old size or the new one, and is whole."""
    made = driver.storage_vol_create_xml(pool, volume("a", "qcow2"), 0)
    real = subprocess.run

    def half(command: list[str], **options: object) -> object:
        real(command, **options)  # type: ignore[call-overload]
        return signal.pause()

    read, write = os.pipe()
    for stub, expected in ((lambda *_a, **_o: (os.close(write), signal.pause()), 64), (half, 128)):
        monkeypatch.setattr(RUN, stub)
        pid = child(lambda: driver.storage_vol_resize(made, 128 << 20, 0))
        if expected == 64:
            os.close(write)
            assert os.read(read, 1) == b""
        else:
            wait_for(lambda: driver.storage_vol_get_info(made)[1] == 128 << 20, directory=images)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        monkeypatch.undo()
        assert driver.storage_vol_get_info(made)[1] == expected << 20
        subprocess.run(["qemu-img", "check", "-q", str(images / "a")], check=True)
    os.close(read)
    driver.storage_vol_resize(made, 256 << 20, 0)


def test_a_reboot_in_the_middle(
    slow: None,
    driver: StorageDriver,
    connect: Connect,
    pool: StoragePool,
    source: StorageVol,
    images: Path,
    tmp_path: Path,
) -> None:
    """The records are gone with the run-time directory; the pool's next start clears away what they told of."""
    xml = volume("copy", "qcow2")
    killed_while_it_is_made(lambda: driver.storage_vol_create_xml_from(pool, xml, source, 0), images)
    nobody_is_left(driver)
    definition = driver.storage_pool_get_xml_desc(pool, 0)
    foreign = images / f"{jobs.PREFIX}00000000.0"
    foreign.touch()
    subprocess.run(["rm", "-r", str(tmp_path / "root" / "run")], check=True)
    after = connect()
    assert after.connect_num_of_storage_pools() == 0
    after.storage_pool_create_xml(definition, 0)
    # What another machine is making in a shared directory stays.
    assert set(os.listdir(images)) == {"source", foreign.name}
    assert after.storage_pool_list_volumes(pool, 9) == ["source"]


def test_at_any_instant() -> None:
    """A few of the many that contrib/kills does: through a real server, whoever dies."""
    found = list(kills(seed=3, rounds=2))
    assert [kill for kill in found if kill.problem] == []
    assert any(kill.hit for kill in found)
