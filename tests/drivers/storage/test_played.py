"""Pools whose tools or kernel this machine need not have: all tools in this module are played.

What they answer is written after the manuals of the real ones (and, for iscsiadm and dmsetup, after what those print
in the guest of test_guest.py, where they are real).
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.storage.conftest import Connect, Stage
from virtd import constants as c
from virtd.drivers.base import Context
from virtd.drivers.secret.driver import SecretDriver
from virtd.drivers.storage import programs
from virtd.drivers.storage.backends import scsi
from virtd.drivers.storage.driver import StorageDriver
from virtd.errors import VirtError
from virtd.protocol.records import StoragePool, StorageVol

MIB = 1 << 20


def define(driver: StorageDriver, kind: str, source: str, target: str = "", more: str = "") -> StoragePool:
    target = f"<target><path>{target}</path></target>" if target else ""
    namespace = " xmlns:rbd='http://libvirt.org/schemas/storagepool/rbd/1.0'" if more else ""
    xml = f"<pool type='{kind}'{namespace}><name>p</name><source>{source}</source>{target}{more}</pool>"
    return driver.storage_pool_define_xml(xml, 0)


def volume(name: str, size: int, allocation: int | None = None) -> str:
    told = "" if allocation is None else f"<allocation>{allocation}</allocation>"
    return f"<volume><name>{name}</name><capacity>{size}</capacity>{told}</volume>"


def refused(code: int, text: str, function: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(VirtError) as failure:
        function(*arguments)
    assert (failure.value.code, failure.value.detail) == (code, text)


def secret(context: Context, usage: str, name: str, value: bytes) -> None:
    tag = {"ceph": "name", "iscsi": "target"}[usage]
    xml = f"<secret><usage type='{usage}'><{tag}>{name}</{tag}></usage></secret>"
    secrets = SecretDriver(context)
    secrets.secret_set_value(secrets.secret_define_xml(xml, 0), value, 0)


def test_a_tool_that_is_missing_is_named(driver: StorageDriver, without: Callable[..., None]) -> None:
    without("pvs", "iscsiadm")
    for kind, source, tool in (
        ("logical", "<name>v</name>", "pvs"),
        ("iscsi", "<host name='h'/><device path='iqn.a'/>", "iscsiadm"),
    ):
        pool = define(driver, kind, source, "/nonesuch")
        text = f"Cannot find '{tool}' in path: No such file or directory"
        refused(c.VIR_ERR_SYSTEM_ERROR, text, driver.storage_pool_create, pool, 0)
        driver.storage_pool_undefine(pool)


@pytest.mark.parametrize(
    ("number", "kind", "source", "tool", "package"),
    [
        (6, "iscsi-direct", "<initiator><iqn name='b'/></initiator>", "iscsi-ls", "libiscsi-bin"),
        (9, "rbd", "", "rbd", "ceph-common"),
        (11, "gluster", "", "mount.glusterfs", "glusterfs-client"),
        (12, "zfs", "", "zfs", "zfsutils-linux"),
        (13, "vstorage", "", "vstorage-mount", ""),
    ],
)
def test_a_type_is_missing_without_its_tool(
    driver: StorageDriver,
    connect: Connect,
    every_type: Stage,
    without: Callable[..., None],
    number: int,
    kind: str,
    source: str,
    tool: str,
    package: str,
) -> None:
    source = f"<host name='h'/><name>v</name><device path='iqn.a'/>{source}"
    there = f"<pool type='{kind}' supported='yes'>"
    assert there in driver.connect_get_storage_pool_capabilities(0)
    assert f"<value>{kind}</value>" in driver.connect_get_capabilities()
    kept = define(driver, kind, source, "/nonesuch")
    without(tool)
    text = f"missing backend for pool type {number} ({kind}): '{tool}' is not installed"
    text += f", it is in the package {package}" if package else ""
    xml = f"<pool type='{kind}'><name>q</name><source>{source}</source><target><path>/x</path></target></pool>"
    for function, arguments in (
        (driver.storage_pool_define_xml, (xml, 0)),
        (driver.storage_pool_create_xml, (xml, 0)),
        (driver.connect_find_storage_pool_sources, (kind, None, 0)),
    ):
        refused(c.VIR_ERR_INTERNAL_ERROR, text, function, *arguments)
    assert there not in driver.connect_get_storage_pool_capabilities(0)
    assert f"<value>{kind}</value>" not in driver.connect_get_capabilities()
    # What was defined while the tool was there stays, and can be seen and removed.
    later = connect()
    assert f"<pool type='{kind}'>" in later.storage_pool_get_xml_desc(kept, 0)
    with pytest.raises(VirtError, match=tool):
        later.storage_pool_create(kept, 0)
    later.storage_pool_undefine(kept)


ZFS = r"""
case "$1" in
list) [ -f $S/tank ] || { echo "cannot open '$8': dataset does not exist" >&2; exit 1; }; cat $S/tank;;
create)
    shift; reserved=none
    while [ $# -gt 1 ]; do
        case $1 in -o) reserved=${2#refreservation=}; shift;; -V) size=$2; shift;; -s) reserved=${reserved};; esac
        shift
    done
    bytes() { case $1 in *K) echo $((${1%K} * 1024));; *) echo $1;; esac; }
    printf '%s\t%s\t%s\n' $1 $(bytes $size) $(bytes $reserved) >>$S/tank;;
destroy) grep -v "^$2	" $S/tank >$S/new; mv $S/new $S/tank;;
esac
"""
ZPOOL = r"""
case "$1" in
create) : >$S/tank;;
destroy) rm $S/tank;;
get) printf 'size\t1000\nfree\t600\nallocated\t400\n';;
esac
"""


def test_zfs(driver: StorageDriver, stage: Stage) -> None:
    stage.play("zfs", ZFS)
    stage.play("zpool", ZPOOL)
    pool = define(driver, "zfs", "<device path='/dev/a'/><device path='/dev/b'/><name>tank</name>")
    with pytest.raises(VirtError, match="dataset does not exist"):
        driver.storage_pool_create(pool, 0)
    stage.calls()
    driver.storage_pool_create(pool, c.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    assert stage.calls()[0] == "zpool create tank /dev/a /dev/b"
    assert driver.storage_pool_get_info(pool) == (c.VIR_STORAGE_POOL_RUNNING, 1000, 400, 600)
    one = driver.storage_vol_create_xml(pool, volume("one", 10 * MIB), 0)
    assert one == StorageVol("p", "one", "/dev/zvol/tank/one")
    driver.storage_vol_create_xml(pool, volume("two", 10 * MIB, MIB), 0)
    driver.storage_vol_create_xml(pool, volume("three", 10 * MIB, 0), 0)
    created = [call for call in stage.calls() if call.startswith("zfs create")]
    assert created == [
        "zfs create -V 10240K tank/one",
        "zfs create -s -o refreservation=1024K -V 10240K tank/two",
        "zfs create -s -V 10240K tank/three",
    ]
    two = driver.storage_vol_lookup_by_path("/dev/zvol/tank/two")
    assert driver.storage_vol_get_info(two) == (c.VIR_STORAGE_VOL_BLOCK, 10 * MIB, MIB)
    driver.storage_vol_delete(two, 0)
    assert driver.storage_pool_list_volumes(pool, 9) == ["one", "three"]
    driver.storage_pool_destroy(pool)
    driver.storage_pool_delete(pool, 0)
    assert stage.calls()[-1] == "zpool destroy tank"


# {'name': {'size': …, 'snapshots': […]}}, kept in a file.
RBD = r"""
exec python3 -I -S - "$S" "$@" <<'SCRIPT'
import json, sys
state, words = sys.argv[1] + "/images", [word for word in sys.argv[2:] if not word.startswith("--no-")]
try:
    images = json.load(open(state))
except FileNotFoundError:
    images = {}
command = words[words.index("--auth-supported") + 2:]
if command[0] == "--id":
    open(sys.argv[1] + "/key", "wb").write(open(command[3], "rb").read())
    command = command[4:]
def named(word):
    return word.split("/")[1].split("@")[0]
match command:
    case ["ls", "--long", pool, "--format", "json"]:
        rows = [{"image": name, "size": image["size"], "format": 2} for name, image in images.items()]
        rows += [{"image": n, "snapshot": s, "size": 1} for n, image in images.items() for s in image["snapshots"]]
        print(json.dumps(rows))
    case ["info", image, "--format", "json"]:
        print(json.dumps({"name": named(image), "size": 1, "features": ["layering", "fast-diff"], "flags": []}))
    case ["du", image, "--format", "json"]:
        print(json.dumps({"images": [{"name": named(image), "provisioned_size": 9, "used_size": 4096}]}))
    case ["create" | "resize", "--size", size, *_, image]:
        images.setdefault(named(image), {"snapshots": []})["size"] = int(size.rstrip("B"))
    case ["snap", "create", snapshot]:
        images[named(snapshot)]["snapshots"].append(snapshot.split("@")[1])
    case ["snap", "ls", image, "--format", "json"]:
        print(json.dumps([{"id": 4, "name": s, "protected": "true"} for s in images[named(image)]["snapshots"]]))
    case ["snap", "purge", image]:
        images[named(image)]["snapshots"] = []
    case ["snap", "protect" | "unprotect", _]:
        pass
    case ["clone", snapshot, image]:
        images[named(image)] = {"size": images[named(snapshot)]["size"], "snapshots": []}
    case ["rm", image]:
        if images[named(image)]["snapshots"]:
            sys.exit("rbd: image has snapshots - these must be deleted with 'rbd snap purge'")
        del images[named(image)]
    case _:
        sys.exit(f"rbd: unknown {command}")
json.dump(images, open(state, "w"))
SCRIPT
"""
CEPH_DF = {
    "stats": {"total_bytes": 5000, "total_avail_bytes": 4000, "total_used_raw_bytes": 1000},
    "pools": [{"name": "other", "id": 1, "stats": {}}, {"name": "rbdpool", "id": 2, "stats": {"bytes_used": 500}}],
}


def test_rbd(driver: StorageDriver, stage: Stage, pool: StoragePool) -> None:
    images_pool = pool
    stage.play("rbd", RBD)
    stage.play("ceph", f"cat <<'EOF'\n{json.dumps(CEPH_DF)}\nEOF")
    secret(driver.context, "ceph", "libvirt secret", b"\0key\xff")
    auth = "<auth type='ceph' username='admin'><secret usage='libvirt secret'/></auth>"
    options = "<rbd:config_opts><rbd:option name='rbd_default_features' value='3'/></rbd:config_opts>"
    hosts = "<host name='one' port='6789'/><host name='::1'/>"
    pool = define(driver, "rbd", f"{hosts}<name>rbdpool</name>{auth}", more=options)
    assert "<rbd:option name='rbd_default_features' value='3'/>" in driver.storage_pool_get_xml_desc(pool, 0)
    driver.storage_pool_create(pool, 0)
    [call] = stage.calls()
    assert "--mon-host one:6789,[::1]" in call
    assert "--rados-mon-op-timeout=30" in call
    assert "--rbd_default_features=3" in call
    assert (stage.directory / "key").read_bytes() == b"AGtlef8="
    assert driver.storage_pool_get_info(pool) == (c.VIR_STORAGE_POOL_RUNNING, 5000, 500, 4000)
    one = driver.storage_vol_create_xml(pool, volume("one", 10 * MIB), 0)
    assert one == StorageVol("p", "one", "rbdpool/one")
    assert driver.storage_vol_get_info(one) == (c.VIR_STORAGE_VOL_NETWORK, 10 * MIB, 4096)
    xml = driver.storage_vol_get_xml_desc(one, 0)
    assert "<volume type='network'>" in xml
    assert "<path>rbdpool/one</path>" in xml
    driver.storage_vol_resize(one, 20 * MIB, 0)
    two = driver.storage_vol_create_xml_from(pool, "<volume><name>two</name></volume>", one, 0)
    assert driver.storage_vol_get_info(two)[1] == 20 * MIB
    assert driver.storage_pool_list_volumes(pool, 9) == ["one", "two"]
    text = "This storage backend does not support zeroed removal of volumes"
    refused(c.VIR_ERR_NO_SUPPORT, text, driver.storage_vol_delete, one, c.VIR_STORAGE_VOL_DELETE_ZEROED)
    with pytest.raises(VirtError, match="image has snapshots"):
        driver.storage_vol_delete(one, 0)
    driver.storage_vol_delete(one, c.VIR_STORAGE_VOL_DELETE_WITH_SNAPSHOTS)
    assert driver.storage_vol_lookup_by_key("rbdpool/two") == two
    refused(
        c.VIR_ERR_CONFIG_UNSUPPORTED,
        "only RAW volumes are supported by this storage pool",
        driver.storage_vol_create_xml,
        pool,
        "<volume><name>x</name><capacity>1</capacity><target><format type='qcow2'/></target></volume>",
        0,
    )
    text = "unsupported input storage vol type 3"
    copy = driver.storage_vol_create_xml_from
    refused(c.VIR_ERR_INTERNAL_ERROR, text, copy, images_pool, "<volume><name>x</name></volume>", two, 0)
    text = "storage pool doesn't support volume upload"
    refused(c.VIR_ERR_NO_SUPPORT, text, driver.storage_vol_upload, two, 0, 0, 0)
    text = "storage pool doesn't support volume wiping"
    refused(c.VIR_ERR_NO_SUPPORT, text, driver.storage_vol_wipe, two, 0)


def test_gluster(driver: StorageDriver, stage: Stage) -> None:
    stage.play("mount.glusterfs", "")
    stage.play("gluster", 'case "$*" in *volume\\ list) printf "v1\\nv2\\n";; esac')
    stage.play("showmount", "exit 1")
    find = driver.connect_find_storage_pool_sources
    found = find("gluster", "<source><host name='h'/></source>", 0)
    assert re.findall("<(?:name|dir path)[=>]'?([^<']*)", found) == ["/", "v1", "/", "v2"]
    found = find("netfs", "<source><host name='h'/></source>", 0)
    assert re.findall("<dir path='(.*)'/>", found) == ["/v1", "/v2"]
    assert "<format type='glusterfs'/>" in found
    # The real mount(8) has nothing to mount here.
    stage.play("mount", "for last; do :; done; mkdir $last/images; echo data >$last/images/a; mkdir $last/images/d")
    pool = define(driver, "gluster", "<host name='h' port='24008'/><name>v1</name><dir path='/images'/>")
    driver.storage_pool_create(pool, 0)
    assert "-o nodev,nosuid,noexec,direct-io-mode=1,server-port=24008 h:/v1" in stage.calls()[-1]
    assert driver.storage_pool_list_volumes(pool, 9) == ["a", "d"]
    volume = driver.storage_vol_lookup_by_path("gluster://h:24008/v1/images/a")
    assert driver.storage_vol_get_info(volume)[:2] == (c.VIR_STORAGE_VOL_NETWORK, 5)
    xml = driver.storage_vol_get_xml_desc(volume, 0)
    assert "<format type='raw'/>" in xml
    assert "permissions" not in xml
    driver.storage_vol_delete(volume, 0)
    directory = driver.storage_vol_lookup_by_name(pool, "d")
    assert driver.storage_vol_get_info(directory)[0] == c.VIR_STORAGE_VOL_NETDIR
    driver.storage_vol_delete(directory, 0)
    assert driver.storage_pool_num_of_volumes(pool) == 0
    text = "storage pool does not support volume creation"
    refused(
        c.VIR_ERR_NO_SUPPORT,
        text,
        driver.storage_vol_create_xml,
        pool,
        "<volume><name>x</name><capacity>1</capacity></volume>",
        0,
    )


def test_vstorage(driver: StorageDriver, stage: Stage, images: Path) -> None:
    stage.play("vstorage-mount", "")
    wanted = "<permissions><mode>0700</mode><owner>0</owner><group>0</group></permissions>"
    target = f"<target><path>{images}</path>{wanted}</target>"
    xml = f"<pool type='vstorage'><name>p</name><source><name>c</name></source>{target}</pool>"
    pool = driver.storage_pool_create_xml(xml, 0)
    assert stage.calls() == [f"vstorage-mount -c c {images} -m 700 -g root -u root"]
    driver.storage_vol_create_xml(pool, volume("a", MIB), 0)
    assert (images / "a").stat().st_size == MIB
    driver.storage_pool_destroy(pool)


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SCSI host 7 with a disk, a tape and an optical drive without medium."""
    path = tmp_path / "sys"
    monkeypatch.setattr(scsi, "SYS", str(path))
    host = path / "class" / "scsi_host" / "host7"
    host.mkdir(parents=True)
    (host / "scan").touch()
    for unit, kind, device in (
        ("7:0:0:1", 0, "zero"),
        ("7:0:0:2", 1, ""),
        ("7:0:0:3", 5, "nonesuch"),
        ("8:0:0:1", 0, "zero"),
    ):
        entry = path / "bus" / "scsi" / "devices" / unit
        entry.mkdir(parents=True)
        (entry / "type").write_text(f"{kind}\n")
        if device:
            (entry / "block" / device).mkdir(parents=True)
    return path


def test_scsi(driver: StorageDriver, sysfs: Path, without: Callable[..., None]) -> None:
    without("/lib/udev/scsi_id")
    pool = define(driver, "scsi", "<adapter type='scsi_host' name='scsi_host7'/>", "/dev")
    driver.storage_pool_create(pool, 0)
    assert (sysfs / "class/scsi_host/host7/scan").read_text() == "- - -"
    # What has no lasting name in the pool's directory is left out.
    driver.storage_pool_destroy(pool)
    driver.storage_pool_undefine(pool)
    pool = define(driver, "scsi", "<adapter type='scsi_host' name='scsi_host7'/>", "/dev/disk/by-path")
    driver.storage_pool_create(pool, 0)
    assert driver.storage_pool_num_of_volumes(pool) == 0
    driver.storage_pool_destroy(pool)
    driver.storage_pool_undefine(pool)
    pool = define(driver, "scsi", "<adapter type='scsi_host' name='scsi_host7'/>", "/dev")
    driver.storage_pool_create(pool, 0)
    # A character device stands for the disk: it can be opened everywhere, and has no size.
    assert driver.storage_pool_list_all_volumes(pool, 1, 0)[0] == [StorageVol("p", "unit:0:0:1", "/dev/zero")]
    unit = StorageVol("p", "unit:0:0:1", "")
    copying = "storage pool does not support volume creation from an existing volume"
    for function, arguments, text in (
        (driver.storage_vol_create_xml_from, (pool, volume("x", 1), unit, 0), copying),
        (driver.storage_vol_create_xml, (pool, volume("x", 1), 0), "storage pool does not support volume creation"),
        (
            driver.storage_vol_delete,
            (StorageVol("p", "unit:0:0:1", ""), 0),
            "storage pool does not support vol deletion",
        ),
    ):
        refused(c.VIR_ERR_NO_SUPPORT, text, function, *arguments)
    driver.storage_pool_destroy(pool)
    refused(c.VIR_ERR_NO_SUPPORT, "pool does not support pool deletion", driver.storage_pool_delete, pool, 0)
    driver.storage_pool_undefine(pool)
    pool = define(driver, "scsi", "<adapter type='scsi_host' name='scsi_host9'/>", "/dev")
    text = f"Could not open '{sysfs}/class/scsi_host/host9/scan' to trigger host scan: No such file or directory"
    refused(c.VIR_ERR_SYSTEM_ERROR, text, driver.storage_pool_create, pool, 0)


def test_fibre_channel(driver: StorageDriver, sysfs: Path) -> None:
    names = "wwnn='2000000012341234' wwpn='1000000012341234'"
    pool = define(driver, "scsi", f"<adapter type='fc_host' {names}/>", "/dev")
    text = "'parent' for vHBA not specified, and cannot find one on this host"
    refused(c.VIR_ERR_XML_ERROR, text, driver.storage_pool_create, pool, 0)
    port = sysfs / "class" / "fc_host" / "host7"
    port.mkdir(parents=True)
    (port / "node_name").write_text("0x2000000012341234\n")
    (port / "port_name").write_text("0x1000000012341299\n")
    with pytest.raises(VirtError, match="virtd makes no virtual ports"):
        driver.storage_pool_create(pool, 0)
    (port / "port_name").write_text("0x1000000012341234\n")
    driver.storage_pool_create(pool, 0)


ISCSIADM = r"""
case "$*" in
"--mode session") [ -f $S/session ] && cat $S/session && exit 0; echo "iscsiadm: No active sessions." >&2; exit 21;;
"--mode iface") echo "default tcp,<empty>,<empty>,<empty>,<empty>";;
*discovery*) echo "192.0.2.1:3260,1 iqn.2020-01.org:a"; echo "192.0.2.1:3260,1 iqn.2020-01.org:b";;
*--login) echo "tcp: [3] 192.0.2.1:3260,1 iqn.2020-01.org:a (non-flash)" >$S/session;;
*--logout) rm $S/session;;
*password*) [ ! -f $S/fail ] || { echo "iscsiadm: cannot set $*" >&2; exit 6; };;
esac
"""


def test_iscsi(driver: StorageDriver, stage: Stage, sysfs: Path) -> None:
    stage.play("iscsiadm", ISCSIADM)
    session = sysfs / "devices" / "host7" / "session3"
    session.mkdir(parents=True)
    (sysfs / "class" / "iscsi_session" / "session3").mkdir(parents=True)
    (sysfs / "class" / "iscsi_session" / "session3" / "device").symlink_to(session)
    found = driver.connect_find_storage_pool_sources("iscsi", "<source><host name='192.0.2.1'/></source>", 0)
    assert re.findall("<device path='(.*)'/>", found) == ["iqn.2020-01.org:a", "iqn.2020-01.org:b"]
    assert "<host name='192.0.2.1' port='3260'/>" in found
    stage.calls()
    auth = "<auth type='chap' username='me'><secret usage='s'/></auth><initiator><iqn name='iqn.me'/></initiator>"
    source = "<host name='192.0.2.1'/><device path='iqn.2020-01.org:a'/>"
    pool = define(driver, "iscsi", source + auth, "/dev")
    text = "no secret with matching usage 's'"
    refused(c.VIR_ERR_NO_SECRET, text, driver.storage_pool_create, pool, 0)
    secret(driver.context, "iscsi", "s", b"let me in")
    (stage.directory / "fail").touch()
    with pytest.raises(VirtError, match="cannot set") as failure:
        driver.storage_pool_create(pool, 0)
    assert "let me in" not in failure.value.message
    (stage.directory / "fail").unlink()
    stage.calls()
    driver.storage_pool_create(pool, 0)
    calls = stage.calls()
    node = (
        "iscsiadm --mode node --portal 192.0.2.1:3260 --targetname iqn.2020-01.org:a --interface libvirt-iface-5e2a5da9"
    )
    for action in (
        "--op new",
        "--op update --name node.startup --value manual",
        "--op update --name node.session.auth.authmethod --value CHAP",
        "--op update --name node.session.auth.password --value let me in",
        "--login",
    ):
        assert f"{node} {action}" in calls
    assert driver.storage_pool_list_volumes(pool, 9) == ["unit:0:0:1"]
    driver.storage_pool_refresh(pool, 0)
    assert "iscsiadm --mode session -r 3 -R" in stage.calls()
    driver.storage_pool_destroy(pool)
    assert not (stage.directory / "session").exists()


def test_multipath(driver: StorageDriver, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = define(driver, "mpath", "", "/dev/mapper")
    monkeypatch.setattr("virtd.drivers.storage.backends.mpath._there", lambda: False)
    driver.storage_pool_create(pool, 0)
    assert driver.storage_pool_num_of_volumes(pool) == 0
    monkeypatch.setattr("virtd.drivers.storage.backends.mpath._there", lambda: True)
    stage.play("dmsetup", "echo 'No devices found'")
    assert driver.storage_pool_num_of_volumes(pool) == 0
    stage.play("dmsetup", r"printf 'mpatha\t(253:4)\nmy disk\t(253:5)\n'")
    volumes, _ = driver.storage_pool_list_all_volumes(pool, 1, 0)
    assert [(volume.name, volume.key) for volume in volumes] == [
        ("dm-4", "/dev/mapper/mpatha"),
        ("dm-5", "/dev/mapper/my\\x20disk"),
    ]


def test_a_tool_that_hangs_is_given_up(driver: StorageDriver, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops without an end; what it is told to do is in the message, and nothing of it stays."""
    stage.play("zfs", "echo $$ >$S/pid; kill -STOP $$")
    run = programs.run
    monkeypatch.setattr(programs, "run", lambda *a, **k: run(*a, **{**k, "seconds": 1.2}))
    pool = define(driver, "zfs", "<name>tank</name>")
    with pytest.raises(VirtError, match=r"zfs list .* did not end in 1 s") as failure:
        driver.storage_pool_create(pool, 0)
    assert failure.value.code == c.VIR_ERR_OPERATION_TIMEOUT
    pid = (stage.directory / "pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists()
    assert not driver.storage_pool_is_active(pool)
