"""Pools that need more of the kernel than machines let tests have: run in a guest by test_guest.py, as root of it.

All is real here: LVM with the kernel's device mapper, iSCSI and NFS from this machine to itself, a SCSI adapter, a
multipath device.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.storage.conftest import Loop
from tests.drivers.storage.test_iscsi_direct import TARGET, Target
from virtd import constants as c
from virtd.drivers.secret.driver import SecretDriver
from virtd.drivers.storage.driver import StorageDriver
from virtd.errors import VirtError
from virtd.protocol.records import StoragePool, StorageVol

MIB = 1 << 20


def modules(*names: str) -> None:
    """Have the kernel load modules, or skip the test: it has none like that."""
    for name in names:
        if subprocess.run(["modprobe", name], capture_output=True, check=False).returncode:
            pytest.skip(f"the kernel has no {name}")


def do(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def volume(name: str, size: int, more: str = "") -> str:
    return f"<volume><name>{name}</name><capacity unit='M'>{size}</capacity>{more}</volume>"


@pytest.fixture
def group(driver: StorageDriver, loop: Loop) -> StoragePool:
    """An active volume group, made by the driver, on two devices."""
    modules("dm-snapshot", "loop")
    devices = f"<device path='{loop(64)}'/><device path='{loop(32)}'/>"
    xml = f"<pool type='logical'><name>vg</name><source>{devices}</source></pool>"
    pool = driver.storage_pool_define_xml(xml, 0)
    driver.storage_pool_create(pool, c.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    return pool


def test_logical_volumes(driver: StorageDriver, group: StoragePool, pool: StoragePool, images: Path) -> None:
    create = driver.storage_vol_create_xml
    content = os.urandom(MIB)
    (images / "a").write_bytes(content)
    original = driver.storage_vol_lookup_by_name(pool, "a")
    one = driver.storage_vol_create_xml_from(group, volume("one", 4), original, 0)
    assert Path("/dev/vg/one").read_bytes()[:MIB] == content
    assert Path("/dev/vg/one").stat().st_mode & 0o777 == 0o600
    create(group, volume("snap", 8, "<backingStore><path>/dev/vg/one</path></backingStore>"), 0)
    create(group, volume("sparse", 80, "<allocation unit='M'>4</allocation>"), 0)
    assert driver.storage_pool_list_volumes(group, 99) == ["one", "snap", "sparse"]
    for name, capacity, allocation in (("one", 4, 4), ("snap", 4, 8), ("sparse", 80, 4)):
        info = driver.storage_vol_get_info(StorageVol("vg", name, ""))
        assert info == (c.VIR_STORAGE_VOL_BLOCK, capacity * MIB, allocation * MIB), name
    assert driver.storage_vol_lookup_by_key(one.key) == one
    xml = driver.storage_vol_get_xml_desc(StorageVol("vg", "snap", ""), 0)
    assert re.search(r"<backingStore>\s*<path>/dev/vg/one</path>\s*<permissions>", xml)
    driver.storage_vol_wipe(one, 0)
    assert not any(Path("/dev/vg/one").read_bytes())
    assert Path("/dev/vg/snap").read_bytes()[:MIB] == content
    with pytest.raises(VirtError, match="is sparse, volume wipe not supported"):
        driver.storage_vol_wipe(StorageVol("vg", "snap", ""), 0)
    driver.storage_vol_delete(StorageVol("vg", "snap", ""), 0)
    assert driver.storage_pool_list_volumes(group, 99) == ["one", "sparse"]
    driver.storage_pool_destroy(group)
    driver.storage_pool_delete(group, 0)
    assert do("pvs", "--noheadings") == ""


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    server = Target(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def initiator() -> Iterator[None]:
    """The daemon that iscsiadm talks to."""
    modules("iscsi_tcp", "sd_mod")
    process = subprocess.Popen(["iscsid", "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield
    process.kill()
    process.wait()


def test_iscsi(driver: StorageDriver, target: Target, initiator: None) -> None:
    target.administer("--op", "new", "--mode", "account", "--user", "me", "--password", "let me in now")
    target.administer("--op", "bind", "--mode", "account", "--tid", "1", "--user", "me")
    secrets = SecretDriver(driver.context)
    key = secrets.secret_define_xml("<secret><usage type='iscsi'><target>t</target></usage></secret>", 0)
    secrets.secret_set_value(key, b"let me in now", 0)
    host = f"<host name='127.0.0.1' port='{target.port}'/>"
    found = driver.connect_find_storage_pool_sources("iscsi", f"<source>{host}</source>", 0)
    assert f"<device path='{TARGET}'/>" in found
    auth = "<auth type='chap' username='me'><secret usage='t'/></auth>"
    auth += "<initiator><iqn name='iqn.2020-01.org.me:i'/></initiator>"
    source = f"<source>{host}<device path='{TARGET}'/>{auth}</source>"
    xml = f"<pool type='iscsi'><name>i</name>{source}<target><path>/dev/disk/by-path</path></target></pool>"
    pool = driver.storage_pool_define_xml(xml, 0)
    driver.storage_pool_create(pool, 0)
    driver.storage_pool_refresh(pool, 0)
    volumes, _ = driver.storage_pool_list_all_volumes(pool, 1, 0)
    assert [volume.name for volume in volumes] == ["unit:0:0:1", "unit:0:0:2"]
    path = driver.storage_vol_get_path(volumes[0])
    assert path == f"/dev/disk/by-path/ip-127.0.0.1:{target.port}-iscsi-{TARGET}-lun-1"
    assert driver.storage_vol_lookup_by_path(path) == volumes[0]
    assert volumes[0].key != path
    assert driver.storage_vol_get_info(volumes[0]) == (c.VIR_STORAGE_VOL_BLOCK, 20 * MIB, 20 * MIB)
    assert driver.storage_pool_get_info(pool) == (c.VIR_STORAGE_POOL_RUNNING, 25 * MIB, 25 * MIB, 0)
    driver.storage_pool_destroy(pool)
    assert subprocess.run(["iscsiadm", "-m", "session"], capture_output=True, check=False).returncode == 21


def test_scsi(driver: StorageDriver) -> None:
    modules("sd_mod")
    if subprocess.run(["modprobe", "scsi_debug", "dev_size_mb=8", "max_luns=2"], check=False).returncode:
        pytest.skip("the kernel has no scsi_debug")
    [host] = Path("/sys/bus/pseudo/drivers/scsi_debug/adapter0").glob("host*")
    source = f"<source><adapter type='scsi_host' name='scsi_{host.name}'/></source>"
    xml = f"<pool type='scsi'><name>s</name>{source}<target><path>/dev</path></target></pool>"
    pool = driver.storage_pool_create_xml(xml, 0)
    volumes, _ = driver.storage_pool_list_all_volumes(pool, 1, 0)
    assert [volume.name for volume in volumes] == ["unit:0:0:0", "unit:0:0:1"]
    assert len({volume.key for volume in volumes}) == 2
    assert all(not volume.key.startswith("/") for volume in volumes)
    assert driver.storage_vol_lookup_by_key(volumes[1].key) == volumes[1]
    assert driver.storage_vol_get_info(volumes[0])[1:] == (8 * MIB, 8 * MIB)
    driver.storage_pool_destroy(pool)


def test_multipath(driver: StorageDriver, loop: Loop) -> None:
    modules("loop", "dm-multipath", "dm-round-robin")
    device = loop(8)
    xml = "<pool type='mpath'><name>m</name><target><path>/dev/mapper</path></target></pool>"
    pool = driver.storage_pool_create_xml(xml, 0)
    assert driver.storage_pool_num_of_volumes(pool) == 0
    number = os.stat(device).st_rdev
    path = f"{os.major(number)}:{os.minor(number)}"
    do("dmsetup", "create", "linear one", "--table", f"0 2048 linear {path} 0")
    do("dmsetup", "create", "path a", "--table", f"0 4096 multipath 0 0 1 1 round-robin 0 1 1 {path} 1000")
    [volume], _ = driver.storage_pool_list_all_volumes(pool, 1, 0)
    assert re.fullmatch(r"dm-\d+", volume.name)
    assert driver.storage_vol_get_path(volume) == "/dev/mapper/path\\x20a"
    assert driver.storage_vol_get_info(volume) == (c.VIR_STORAGE_VOL_BLOCK, 2 * MIB, 2 * MIB)
    driver.storage_pool_destroy(pool)
    do("dmsetup", "remove", "path a")
    do("dmsetup", "remove", "linear one")


@pytest.fixture
def export(tmp_path: Path) -> Iterator[Path]:
    """A directory that an NFS server on this machine exports."""
    modules("nfsd", "nfs", "nfsv3", "nfsv4")
    directory = tmp_path / "export"
    directory.mkdir()
    Path("/run/rpcbind").mkdir(exist_ok=True)
    do("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    do("rpcbind")
    do("exportfs", "-o", "rw,no_root_squash,fsid=1,insecure", f"*:{directory}")
    do("rpc.nfsd", "1")
    do("rpc.mountd")
    yield directory
    do("exportfs", "-au")
    do("rpc.nfsd", "0")


def test_netfs(driver: StorageDriver, export: Path, tmp_path: Path) -> None:
    found = driver.connect_find_storage_pool_sources("netfs", "<source><host name='127.0.0.1'/></source>", 0)
    assert f"<dir path='{export}'/>\n    <format type='nfs'/>" in found
    mount = tmp_path / "mnt"
    source = f"<source><host name='127.0.0.1'/><dir path='{export}'/><format type='nfs'/></source>"
    options = "<fs:mount_opts><fs:option name='soft'/></fs:mount_opts>"
    namespace = "xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'"
    xml = f"<pool type='netfs' {namespace}><name>n</name>{source}<target><path>{mount}</path></target>{options}</pool>"
    pool = driver.storage_pool_create_xml(xml, c.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    driver.storage_vol_create_xml(pool, volume("a", 1), 0)
    assert (export / "a").stat().st_size == MIB
    assert re.search(f" {mount} nfs4? .*nosuid,nodev,noexec.*soft", Path("/proc/mounts").read_text())
    driver.storage_pool_destroy(pool)
    assert not mount.is_mount()
