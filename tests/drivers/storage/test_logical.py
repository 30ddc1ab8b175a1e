"""Volume groups: what LVM does on the disk is real here, on loop devices; logical volumes themselves take a kernel with
a device mapper and are tried in test_guest.py. What is left is played: reports of volumes of all kinds.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drivers.storage.conftest import Loop, Stage
from virtd import constants as c
from virtd.drivers.storage import programs
from virtd.drivers.storage.backends import logical
from virtd.drivers.storage.driver import StorageDriver
from virtd.errors import VirtError
from virtd.protocol.records import StoragePool, StorageVol

MIB = 1 << 20


@pytest.fixture
def group(tmp_path: Path) -> str:
    """A name that no other volume group of the machine has."""
    return f"virtd-test-{tmp_path.stat().st_ino}"


@pytest.fixture
def devices(loop: Loop, need_program: Callable[[str], str]) -> Iterator[list[str]]:
    found = [loop(32), loop(32)]
    need_program("lvm")
    yield found
    # What a failed test left would be found on the next device with the same number.
    for device in found:
        Path(device).write_bytes(bytes(MIB))


def define(driver: StorageDriver, group: str, devices: list[str]) -> StoragePool:
    source = "".join(f"<device path='{device}'/>" for device in devices)
    xml = f"<pool type='logical'><name>{group}</name><source>{source}</source></pool>"
    return driver.storage_pool_define_xml(xml, 0)


def test_life(driver: StorageDriver, group: str, devices: list[str]) -> None:
    pool = define(driver, group, devices)
    with pytest.raises(VirtError) as failure:
        driver.storage_pool_create(pool, 0)
    text = f"cannot find logical volume group name '{group}'"
    assert (failure.value.code, failure.value.detail) == (c.VIR_ERR_CONFIG_UNSUPPORTED, text)
    driver.storage_pool_create(pool, c.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    state, capacity, allocation, available = driver.storage_pool_get_info(pool)
    assert (state, allocation) == (c.VIR_STORAGE_POOL_RUNNING, 0)
    assert capacity == available == 56 * MIB
    xml = driver.storage_pool_get_xml_desc(pool, 0)
    assert f"<path>/dev/{group}</path>" in xml
    assert "permissions" not in xml
    assert driver.storage_pool_num_of_volumes(pool) == 0
    found = driver.connect_find_storage_pool_sources("logical", None, 0)
    expected = "".join(f"    <device path='{device}'/>\n" for device in devices)
    assert f"  <source>\n{expected}    <name>{group}</name>\n    <format type='lvm2'/>\n  </source>\n" in found
    driver.storage_pool_destroy(pool)
    driver.storage_pool_delete(pool, 0)
    assert group not in driver.connect_find_storage_pool_sources("logical", None, 0)


def test_what_is_on_a_device_is_not_overwritten_by_accident(
    driver: StorageDriver, group: str, devices: list[str]
) -> None:
    pool = define(driver, group, devices)
    programs.run("mkfs", ["-t", "ext4", "-q", devices[1]])
    for flags in (0, c.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE):
        with pytest.raises(VirtError, match=f"'{devices[1]}' does not match the expected format 'LVM2_member'"):
            driver.storage_pool_build(pool, flags)
        # Nothing is left of what was done before it came to that.
        assert devices[0] not in programs.run("pvs", ["--noheadings"])
    driver.storage_pool_build(pool, c.VIR_STORAGE_POOL_BUILD_OVERWRITE)
    with pytest.raises(VirtError, match=f"'{devices[0]}' already formatted using 'LVM2_member'") as failure:
        driver.storage_pool_build(pool, 0)
    assert failure.value.code == c.VIR_ERR_STORAGE_POOL_BUILT
    both = c.VIR_STORAGE_POOL_BUILD_OVERWRITE | c.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE
    with pytest.raises(VirtError, match="are mutually exclusive"):
        driver.storage_pool_build(pool, both)
    # Another pool's device is not this group's.
    driver.storage_pool_undefine(pool)
    pool = define(driver, group, ["/dev/nonesuch"])
    with pytest.raises(VirtError, match="cannot find any matching source devices for logical volume group"):
        driver.storage_pool_create(pool, 0)


def segment(name: str, uuid: str, attributes: str, size: int, devices: str, **more: str) -> dict[str, str]:
    """A row of lvs's report; sizes in extents of 4 MiB."""
    row = {"lv_name": name, "origin": "", "lv_uuid": uuid, "devices": devices, "stripes": "1", "segtype": "linear"}
    row |= {"seg_size_pe": str(size), "vg_extent_size": str(4 * MIB), "lv_size": str(size * 4 * MIB)}
    return row | {"lv_attr": attributes, "origin_size": "", "data_percent": ""} | more


UUIDS = [f"AAAAAA-AAAA-AAAA-AAAA-AAAA-AAAA-00000{n}" for n in range(9)]
REPORT = [
    segment("one", UUIDS[0], "owi-a-s---", 2, "/dev/a(0)", lv_size=str(12 * MIB)),
    segment("one", UUIDS[0], "owi-a-s---", 1, "/dev/b(7)", lv_size=str(12 * MIB)),
    segment("off", UUIDS[1], "-wi-------", 2, "/dev/a(2)"),
    segment("striped", UUIDS[2], "-wi-a-----", 4, "/dev/a(4),/dev/b(0)", stripes="2", segtype="striped"),
    segment("snap", UUIDS[3], "swi-a-s---", 1, "/dev/a(8)", origin="one", origin_size=str(12 * MIB)),
    segment("sparse", UUIDS[4], "swi-a-s---", 1, "/dev/a(9)", origin="[sparse_vorigin]", origin_size=str(64 * MIB)),
    segment("pool", UUIDS[5], "twi-aotz--", 4, "pool_tdata(0)", segtype="thin-pool"),
    segment("thin", UUIDS[6], "Vwi-a-tz--", 25, "", segtype="thin", data_percent="12.00"),
]


@pytest.fixture
def played(driver: StorageDriver, stage: Stage) -> StoragePool:
    """An active pool, of which LVM says what REPORT says."""
    report = json.dumps({"report": [{"lv": REPORT}]})
    stage.play("lvs", f"cat <<'EOF'\n{report}\nEOF")
    stage.play("pvs", """echo '{"report": [{"pv": [{"pv_name":"/dev/a", "vg_name":"vg"}]}]}'""")
    stage.play("vgchange", "")
    pool = define(driver, "vg", [])
    driver.storage_pool_create(pool, 0)
    assert "vgchange -aly vg" in stage.calls()
    return pool


def test_volumes_of_all_kinds(driver: StorageDriver, played: StoragePool) -> None:
    assert driver.storage_pool_list_volumes(played, 99) == ["one", "snap", "sparse", "striped", "thin"]
    one = driver.storage_vol_lookup_by_key(UUIDS[0])
    assert one == StorageVol("vg", "one", UUIDS[0])
    assert driver.storage_vol_get_path(one) == "/dev/vg/one"
    assert driver.storage_vol_get_info(one) == (c.VIR_STORAGE_VOL_BLOCK, 12 * MIB, 12 * MIB)
    xml = driver.storage_vol_get_xml_desc(one, 0)
    assert (
        f"""  <source>
    <device path='/dev/a'>
      <extent start='0' end='{8 * MIB}'/>
    </device>
    <device path='/dev/b'>
      <extent start='{28 * MIB}' end='{32 * MIB}'/>
    </device>
  </source>
"""
        in xml
    )
    assert "format" not in xml
    striped = driver.storage_vol_lookup_by_path("/dev/vg/striped")
    xml = driver.storage_vol_get_xml_desc(striped, 0)
    assert f"<extent start='{16 * MIB}' end='{24 * MIB}'/>" in xml
    assert f"<extent start='0' end='{8 * MIB}'/>" in xml
    for name, capacity, allocation in (("snap", 12, 4), ("sparse", 64, 4), ("thin", 100, 12)):
        info = driver.storage_vol_get_info(StorageVol("vg", name, ""))
        assert info == (c.VIR_STORAGE_VOL_BLOCK, capacity * MIB, allocation * MIB)
    for name, backed in (("snap", True), ("sparse", False)):
        xml = driver.storage_vol_get_xml_desc(driver.storage_vol_lookup_by_name(played, name), 0)
        assert ("<path>/dev/vg/one</path>" in xml) == backed
        with pytest.raises(VirtError, match=f"logical volume '/dev/vg/{name}' is sparse, volume wipe not supported"):
            driver.storage_vol_wipe(StorageVol("vg", name, ""), 0)
    for name in ("off", "pool", "nonesuch"):
        with pytest.raises(VirtError, match=f"no storage vol with matching name '{name}'"):
            driver.storage_vol_lookup_by_name(played, name)
    with pytest.raises(VirtError, match="storage pool does not support changing of volume capacity"):
        driver.storage_vol_resize(one, 1 << 30, 0)


def test_how_volumes_are_made(driver: StorageDriver, played: StoragePool, stage: Stage) -> None:
    stage.play("lvcreate", "echo '  no space' >&2; exit 5")

    def create(name: str, more: str) -> str:
        stage.calls()
        with pytest.raises(VirtError, match=r"unexpected exit status 5: +no space"):
            driver.storage_vol_create_xml(played, f"<volume><name>{name}</name>{more}</volume>", 0)
        return next(call for call in stage.calls() if call.startswith("lvcreate"))

    capacity = "<capacity unit='M'>8</capacity>"
    assert create("new", capacity) == "lvcreate --yes --name new -L 8192K vg"
    sparse = create("new", f"{capacity}<allocation unit='M'>1</allocation>")
    assert sparse == "lvcreate --yes --name new -L 1024K --type snapshot --virtualsize 8192K vg"
    backed = create("new", f"{capacity}<backingStore><path>/dev/vg/one</path></backingStore>")
    assert backed == "lvcreate --yes --name new -L 8192K -s /dev/vg/one"
    with pytest.raises(VirtError, match="storage volume 'one' exists already"):
        driver.storage_vol_create_xml(played, f"<volume><name>one</name>{capacity}</volume>", 0)
    with pytest.raises(VirtError, match="volume capacity required for this storage pool"):
        driver.storage_vol_create_xml(played, "<volume><name>x</name><capacity>0</capacity></volume>", 0)


def test_what_a_killed_copy_leaves_is_removed(
    driver: StorageDriver,
    played: StoragePool,
    pool: StoragePool,
    images: Path,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A volume without its content is in no list, and goes with the next change of the pool."""
    monkeypatch.setattr(logical, "set_owner", lambda volume, path: None)  # there is no node
    (images / "a").write_bytes(b"content")
    lvs = (stage.directory / "lvs").read_text()
    more = json.dumps({"report": [{"lv": [*REPORT, segment("new", UUIDS[7], "-wi-a-----", 1, "/dev/a(11)")]}]})
    stage.play("lvcreate", f"cat >$S/lvs <<'EOF'\n#!/bin/sh\necho '{more}'\nEOF")
    stage.play("lvremove", f"cat >$S/lvs <<'END'\n{lvs}\nEND")
    stage.play("qemu-img", "kill -KILL $PPID; kill -STOP $$")
    xml = "<volume><name>new</name><capacity>1</capacity></volume>"
    source = driver.storage_vol_lookup_by_name(pool, "a")
    pid = os.fork()
    if not pid:
        driver.storage_vol_create_xml_from(played, xml, source, 0)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 9
    assert "new" in programs.run("lvs", [])
    assert "new" not in driver.storage_pool_list_volumes(played, 99)
    with pytest.raises(VirtError, match="no storage vol with matching name 'new'"):
        driver.storage_vol_lookup_by_name(played, "new")
    driver.storage_pool_refresh(played, 0)
    assert "lvremove --force vg/new" in stage.calls()
    assert "new" not in programs.run("lvs", [])
