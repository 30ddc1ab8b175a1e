"""Disk pools, by the real parted(8) on loop devices with the kernel's own partitions."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.drivers.storage.conftest import Connect, Loop
from tests.drivers.storage.test_transfer import upload
from virtd import constants as c
from virtd.drivers.secret.driver import SecretDriver
from virtd.drivers.storage import imagetool, programs
from virtd.drivers.storage.driver import StorageDriver
from virtd.errors import VirtError
from virtd.protocol.records import StoragePool, StorageVol

MIB = 1 << 20


def disk(device: str, label: str, target: str = "/dev") -> str:
    source = f"<source><device path='{device}'/><format type='{label}'/></source>"
    return f"<pool type='disk'><name>d</name>{source}<target><path>{target}</path></target></pool>"


def partition(name: str, size: int, kind: str = "linux") -> str:
    target = f"<target><format type='{kind}'/></target>"
    return f"<volume><name>{name}</name><capacity unit='M'>{size}</capacity>{target}</volume>"


def built(driver: StorageDriver, device: str, label: str) -> StoragePool:
    pool = driver.storage_pool_define_xml(disk(device, label), 0)
    driver.storage_pool_build(pool, 0)
    driver.storage_pool_create(pool, 0)
    return pool


def refused(code: int, text: str, driver: StorageDriver, pool: StoragePool, xml: str) -> None:
    with pytest.raises(VirtError) as failure:
        driver.storage_vol_create_xml(pool, xml, 0)
    assert (failure.value.code, failure.value.detail) == (code, text)


def formats(driver: StorageDriver, pool: StoragePool) -> dict[str, str]:
    """Partition → format, by what is on the disk."""
    found = {}
    for name in driver.storage_pool_list_volumes(pool, 99):
        xml = driver.storage_vol_get_xml_desc(driver.storage_vol_lookup_by_name(pool, name), 0)
        match = re.search(r"<format type='(.*)'/>", xml)
        assert match is not None
        found[name] = match[1]
    return found


def test_what_is_on_a_disk_is_not_overwritten_by_accident(driver: StorageDriver, loop: Loop) -> None:
    device = loop(32)
    pool = driver.storage_pool_define_xml(disk(device, "gpt"), 0)
    with pytest.raises(VirtError, match="is unrecognized, requires build") as failure:
        driver.storage_pool_create(pool, 0)
    assert failure.value.code == c.VIR_ERR_STORAGE_PROBE_FAILED
    driver.storage_pool_create(pool, c.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    driver.storage_pool_destroy(pool)
    for flags in (0, c.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE):
        with pytest.raises(VirtError, match="already formatted using 'gpt'") as failure:
            driver.storage_pool_build(pool, flags)
        assert failure.value.code == c.VIR_ERR_STORAGE_POOL_BUILT
    driver.storage_pool_undefine(pool)
    pool = driver.storage_pool_define_xml(disk(device, "dos"), 0)
    with pytest.raises(VirtError, match="does not match the expected format 'dos'") as failure:
        driver.storage_pool_create(pool, 0)
    assert failure.value.code == c.VIR_ERR_OPERATION_INVALID
    driver.storage_pool_create(pool, c.VIR_STORAGE_POOL_CREATE_WITH_BUILD_OVERWRITE)
    driver.storage_pool_destroy(pool)
    driver.storage_pool_delete(pool, 0)
    with pytest.raises(VirtError, match="requires build"):
        driver.storage_pool_create(pool, 0)


def test_partitions_of_a_gpt(driver: StorageDriver, loop: Loop) -> None:
    device = loop(64)
    pool = built(driver, device, "gpt")
    _, capacity, allocation, available = driver.storage_pool_get_info(pool)
    assert 63 * MIB < available < capacity < 64 * MIB
    assert allocation == 0
    assert "<freeExtent start='17408' end=" in driver.storage_pool_get_xml_desc(pool, 0)
    base = f"{os.path.basename(device)}p"
    for number, kind in enumerate(("linux", "fat32", "linux-swap", "linux-lvm", "linux-raid"), 1):
        volume = driver.storage_vol_create_xml(pool, partition(f"{base}{number}", 8, kind), 0)
        assert volume == StorageVol("d", f"{base}{number}", f"{device}p{number}")
    wanted = ["linux", "fat32", "linux-swap", "linux-lvm", "linux-raid"]
    assert list(formats(driver, pool).values()) == wanted
    expected = f"invalid partition name 'x', expected '{base}6'"
    refused(c.VIR_ERR_INVALID_ARG, expected, driver, pool, partition("x", 8))
    refused(c.VIR_ERR_INTERNAL_ERROR, "no large enough free extent", driver, pool, partition(f"{base}6", 60))
    text = f"storage volume '{base}2' exists already"
    refused(c.VIR_ERR_STORAGE_VOL_EXIST, text, driver, pool, partition(f"{base}2", 1))
    assert driver.storage_pool_get_info(pool)[2] == 40 * MIB
    xml = driver.storage_vol_get_xml_desc(driver.storage_vol_lookup_by_path(f"{device}p2"), 0)
    for line in (
        "<volume type='block'>",
        f"<extent start='{9 * MIB}' end='{17 * MIB}'/>",
        f"<physical unit='bytes'>{8 * MIB}</physical>",
        "<mode>0600</mode>",
    ):
        assert line in xml
    # The number that becomes free is the next one.
    driver.storage_vol_delete(driver.storage_vol_lookup_by_name(pool, f"{base}2"), 0)
    assert not Path(f"{device}p2").exists()
    driver.storage_vol_create_xml(pool, partition(f"{base}2", 4), 0)
    driver.storage_pool_destroy(pool)


def test_partitions_of_an_mbr(driver: StorageDriver, loop: Loop) -> None:
    device = loop(64)
    pool = built(driver, device, "dos")
    base = f"{os.path.basename(device)}p"
    for number, kind in (
        (1, "linux"),
        (2, "fat16"),
        (3, "linux-swap"),
        (4, "extended"),
        (5, "linux"),
        (6, "linux-lvm"),
    ):
        size = 24 if kind == "extended" else 8
        driver.storage_vol_create_xml(pool, partition(f"{base}{number}", size, kind), 0)
    found = formats(driver, pool)
    assert [found[f"{base}{number}"] for number in range(1, 5)] == ["linux", "fat16", "linux-swap", "extended"]
    text = "extended partition already exists"
    refused(c.VIR_ERR_INTERNAL_ERROR, text, driver, pool, partition(f"{base}7", 1, "extended"))
    # Beside the extended partition there is room, but no number; in it there is none.
    refused(c.VIR_ERR_INTERNAL_ERROR, "no large enough free extent", driver, pool, partition(f"{base}7", 9))
    extended = driver.storage_vol_lookup_by_name(pool, f"{base}4")
    assert driver.storage_vol_get_info(extended) == (c.VIR_STORAGE_VOL_BLOCK, 24 * MIB, 0)
    with pytest.raises(VirtError, match="cannot wipe extended partition"):
        driver.storage_vol_wipe(extended, 0)
    driver.storage_vol_delete(driver.storage_vol_lookup_by_name(pool, f"{base}5"), 0)
    assert driver.storage_pool_num_of_volumes(pool) == 5
    driver.storage_pool_destroy(pool)


def test_content(driver: StorageDriver, pool: StoragePool, images: Path, loop: Loop) -> None:
    """Copied to a partition and back, wiped; not resized."""
    device = loop(32)
    place = built(driver, device, "gpt")
    base = f"{os.path.basename(device)}p"
    data = os.urandom(MIB)
    (images / "a").write_bytes(data)
    first = driver.storage_vol_create_xml(place, partition(f"{base}1", 2), 0)
    Path(device + "p1").write_bytes(b"\xff" * 2 * MIB)
    second = driver.storage_vol_create_xml_from(
        place, partition(f"{base}2", 1), driver.storage_vol_lookup_by_name(pool, "a"), 0
    )
    assert Path(second.key).read_bytes() == data
    # Zeros that become holes are zeros on a device as well.
    upload(driver, first, data[: MIB // 2] + bytes(MIB), flags=c.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
    assert Path(first.key).read_bytes() == data[: MIB // 2] + bytes(MIB) + b"\xff" * (MIB // 2)
    back = "<volume><name>b</name></volume>"
    driver.storage_vol_create_xml_from(pool, back, second, 0)
    assert (images / "b").read_bytes() == data
    driver.storage_vol_wipe(first, 0)
    assert not any(Path(first.key).read_bytes())
    secrets = SecretDriver(driver.context)
    key = secrets.secret_define_xml("<secret><usage type='volume'><volume>v</volume></usage></secret>", 0)
    secrets.secret_set_value(key, b"passphrase", 0)
    encryption = "<target><encryption format='luks'><secret type='passphrase' usage='v'/></encryption></target>"
    encrypted = f"<volume><name>{base}3</name><capacity unit='M'>4</capacity>{encryption}</volume>"
    third = driver.storage_vol_create_xml(place, encrypted, 0)
    image = json.loads(programs.run("qemu-img", ["info", "--output=json", third.key]))
    assert image["format"] == "luks"
    # What is asked for is what fits in, beside the header.
    assert 4 * MIB <= image["virtual-size"] < 5 * MIB
    with pytest.raises(VirtError, match="storage pool does not support changing of volume capacity"):
        driver.storage_vol_resize(first, 4 * MIB, 0)
    driver.storage_pool_destroy(place)


def test_what_a_killed_copy_leaves_is_removed(
    driver: StorageDriver,
    pool: StoragePool,
    images: Path,
    loop: Loop,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A partition without its content is in no list, and goes with the next change of the pool."""
    device = loop(32)
    place = built(driver, device, "gpt")
    name = f"{os.path.basename(device)}p1"
    (images / "a").write_bytes(b"content")
    original = driver.storage_vol_lookup_by_name(pool, "a")
    pid = os.fork()
    if not pid:
        monkeypatch.setattr(imagetool, "copy_to_device", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        connect().storage_vol_create_xml_from(place, partition(name, 1), original, 0)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert Path(f"{device}p1").is_block_device()
    assert driver.storage_pool_num_of_volumes(place) == 0
    with pytest.raises(VirtError, match="no storage vol with matching name"):
        driver.storage_vol_lookup_by_name(place, name)
    made = driver.storage_vol_create_xml_from(place, partition(name, 2), original, 0)
    assert Path(made.key).read_bytes().startswith(b"content")
    assert driver.storage_vol_get_info(made)[1] == 2 * MIB
    driver.storage_pool_destroy(place)
