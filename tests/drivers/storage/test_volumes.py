"""Volumes: made, looked at, changed and removed, with the real qemu-img."""

import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.storage.conftest import Connect
from virtd import constants as c
from virtd.drivers.secret.driver import SecretDriver
from virtd.drivers.storage.driver import StorageDriver
from virtd.errors import VirtError
from virtd.protocol.records import StoragePool, StorageVol

MIB = 1 << 20


def volume(name: str, *, size: int | None = 1, kind: str = "raw", more: str = "", target: str = "") -> str:
    capacity = "" if size is None else f"<capacity unit='MiB'>{size}</capacity>"
    return f"<volume><name>{name}</name>{capacity}{more}<target><format type='{kind}'/>{target}</target></volume>"


def refused(code: int, text: str, function: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(VirtError) as failure:
        function(*arguments)
    assert (failure.value.code, failure.value.detail) == (code, text)


def test_raw_ones(driver: StorageDriver, connect: Connect, pool: StoragePool, images: Path) -> None:
    made = driver.storage_vol_create_xml(pool, volume("a"), 0)
    assert made == StorageVol("images", "a", f"{images}/a")
    other = connect()
    assert other.storage_vol_get_info(made) == (c.VIR_STORAGE_VOL_FILE, MIB, MIB)
    assert (images / "a").stat().st_mode & 0o777 == 0o600
    sparse = driver.storage_vol_create_xml(pool, volume("s", size=1024, more="<allocation>0</allocation>"), 0)
    assert other.storage_vol_get_info(sparse) == (c.VIR_STORAGE_VOL_FILE, 1024 * MIB, 0)
    more = driver.storage_vol_create_xml(pool, volume("m", more="<allocation unit='MiB'>3</allocation>"), 0)
    assert other.storage_vol_get_info(more)[1] == 3 * MIB
    for function, argument in (
        (other.storage_vol_lookup_by_path, f"{images}//a"),
        (other.storage_vol_lookup_by_key, f"{images}/a"),
        (lambda name: other.storage_vol_lookup_by_name(pool, name), "a"),
    ):
        assert function(argument) == made
    assert other.storage_vol_get_path(made) == f"{images}/a"
    assert other.storage_pool_lookup_by_volume(made) == pool
    driver.storage_vol_delete(made, 0)
    text = "no storage vol with matching name 'a'"
    for call in (driver.storage_vol_get_info, driver.storage_vol_get_path):
        refused(c.VIR_ERR_NO_STORAGE_VOL, text, call, made)
    refused(c.VIR_ERR_NO_STORAGE_VOL, text, driver.storage_vol_delete, made, 0)


def test_what_is_in_the_directory_is_what_there_is(driver: StorageDriver, pool: StoragePool, images: Path) -> None:
    (images / "file").write_text("hello")
    (images / ".hidden").touch()
    (images / "dir").mkdir()
    (images / "link").symlink_to("file")
    (images / "broken").symlink_to("nowhere")
    (images / "new\nline").touch()
    (images / ".virtd-new.12345678.0").touch()
    os.mkfifo(images / "fifo")
    names = [".hidden", "dir", "file", "link"]
    assert driver.storage_pool_list_volumes(pool, 99) == names
    assert driver.storage_pool_list_volumes(pool, 2) == names[:2]
    assert driver.storage_pool_num_of_volumes(pool) == 4
    found, count = driver.storage_pool_list_all_volumes(pool, 1, 0)
    assert [one.name for one in found] == names
    assert count == 4
    for name in ("fifo", "broken", ".virtd-new.12345678.0", "a/b", "..", ""):
        with pytest.raises(VirtError, match="no storage vol with matching name"):
            driver.storage_vol_lookup_by_name(pool, name)
    kind, capacity, allocation = driver.storage_vol_get_info(driver.storage_vol_lookup_by_name(pool, "dir"))
    assert (kind, capacity, allocation) == (c.VIR_STORAGE_VOL_DIR, 0, 0)
    for path in ("/etc/passwd", f"{images}/nonesuch", "file"):
        with pytest.raises(VirtError, match="no storage vol with matching path"):
            driver.storage_vol_lookup_by_path(path)


def test_names_that_cannot_be(driver: StorageDriver, pool: StoragePool, images: Path) -> None:
    invalid, create = c.VIR_ERR_OPERATION_INVALID, driver.storage_vol_create_xml
    driver.storage_vol_create_xml(pool, volume("a"), 0)
    refused(c.VIR_ERR_STORAGE_VOL_EXIST, "storage volume 'a' exists already", create, pool, volume("a"), 0)
    refused(invalid, "volume name 'a/b' cannot contain '/'", create, pool, volume("a/b"), 0)
    refused(invalid, f"volume target path '{images}/..' already exists", create, pool, volume(".."), 0)
    refused(invalid, "volume names that begin with '.virtd-new.' are reserved", create, pool, volume(".virtd-new.x"), 0)


@pytest.mark.parametrize("kind", ["qcow2", "qcow", "vmdk", "vdi", "qed", "vpc"])
def test_formats(
    driver: StorageDriver, pool: StoragePool, images: Path, kind: str, need_program: Callable[[str], str]
) -> None:
    need_program("qemu-img")
    made = driver.storage_vol_create_xml(pool, volume("a", size=4, kind=kind), 0)
    assert f"<format type='{kind}'/>" in driver.storage_vol_get_xml_desc(made, 0)
    subprocess.run(["qemu-img", "info", "-f", kind, str(images / "a")], check=True, stdout=subprocess.DEVNULL)
    assert os.listdir(images) == ["a"]
    assert os.listdir(driver.pools.jobs._directory) == []


def test_qcow2(driver: StorageDriver, pool: StoragePool, images: Path, need_program: Callable[[str], str]) -> None:
    need_program("qemu-img")
    target = "<features><lazy_refcounts/></features><clusterSize unit='KiB'>128</clusterSize>"
    made = driver.storage_vol_create_xml(pool, volume("new", size=4, kind="qcow2", target=target), 0)
    xml = driver.storage_vol_get_xml_desc(made, 0)
    assert (
        "    <compat>1.1</compat>\n    <clusterSize unit='B'>131072</clusterSize>\n    <features>\n"
        "      <lazy_refcounts/>\n    </features>\n"
    ) in xml
    old = driver.storage_vol_create_xml(pool, volume("old", size=4, kind="qcow2"), 0)
    assert "compat" not in driver.storage_vol_get_xml_desc(old, 0)
    # libvirt does not read what it has just made, only at a refresh.
    assert "clusterSize" not in driver.storage_vol_get_xml_desc(old, 0)
    driver.storage_pool_refresh(pool, 0)
    assert "<clusterSize unit='B'>65536</clusterSize>" in driver.storage_vol_get_xml_desc(old, 0)
    # With a backing file its size is taken, and its owner shown.
    backing = f"<backingStore><path>{images}/old</path><format type='qcow2'/></backingStore>"
    top = driver.storage_vol_create_xml(pool, volume("top", size=None, kind="qcow2", more=backing), 0)
    assert driver.storage_vol_get_info(top)[1] == 4 * MIB
    assert f"  <backingStore>\n    <path>{images}/old</path>\n    <format type='qcow2'/>\n    <permissions>\n" in (
        driver.storage_vol_get_xml_desc(top, 0)
    )
    whole = driver.storage_vol_create_xml(pool, volume("whole", size=4, kind="qcow2"), 1)
    _, capacity, allocation = driver.storage_vol_get_info(whole)
    assert allocation >= capacity
    nowhere = backing.replace("/old", "/nonesuch")
    with pytest.raises(VirtError, match=r"inaccessible backing store volume .*/nonesuch: No such file or directory"):
        driver.storage_vol_create_xml(pool, volume("b", kind="qcow2", more=nowhere), 0)


@pytest.mark.parametrize(
    ("xml", "flags", "code", "text"),
    [
        (volume("a"), 1, c.VIR_ERR_CONFIG_UNSUPPORTED, "metadata preallocation is not supported for raw volumes"),
        (volume("a", kind="vmdk"), 1, c.VIR_ERR_CONFIG_UNSUPPORTED, "metadata preallocation only available with qcow2"),
        (
            volume("a", more="<backingStore><path>/nonesuch</path></backingStore>"),
            0,
            c.VIR_ERR_NO_SUPPORT,
            "backing storage not supported for raw volumes",
        ),
        (
            volume("a", kind="qcow2", target="<compat>0.10</compat><features><lazy_refcounts/></features>"),
            0,
            c.VIR_ERR_CONFIG_UNSUPPORTED,
            "lazy_refcounts not supported with compat level 0.10",
        ),
        (
            volume("a", target="<encryption format='luks'/>"),
            0,
            c.VIR_ERR_INVALID_ARG,
            "A single <secret type='passphrase'...> element is expected in encryption description",
        ),
        (
            volume("a", target="<encryption format='luks'><secret type='passphrase' usage='x'/></encryption>"),
            0,
            c.VIR_ERR_NO_SECRET,
            "no secret with matching usage 'x'",
        ),
        (volume("a", size=1 << 42), 0, c.VIR_ERR_SYSTEM_ERROR, "cannot extend file '{}/a': File too large"),
        (volume("a"), 8, c.VIR_ERR_INVALID_ARG, "unsupported flags (0x8) in function storageVolCreateXML"),
    ],
)
def test_refused_ones_leave_nothing(
    driver: StorageDriver, pool: StoragePool, images: Path, xml: str, flags: int, code: int, text: str
) -> None:
    refused(code, text.format(images), driver.storage_vol_create_xml, pool, xml, flags)
    assert os.listdir(images) == []
    assert os.listdir(driver.pools.jobs._directory) == []


def test_what_qemu_img_says_is_passed_on(
    driver: StorageDriver, pool: StoragePool, images: Path, need_program: Callable[[str], str]
) -> None:
    need_program("qemu-img")
    xml = volume("a", kind="qcow2", target="<clusterSize unit='KiB'>3</clusterSize>")
    with pytest.raises(VirtError) as failure:
        driver.storage_vol_create_xml(pool, xml, 0)
    assert f"qemu-img: {images}/a: Cluster size must be a power of two" in failure.value.message
    assert os.listdir(images) == []


def test_resizing(driver: StorageDriver, pool: StoragePool, need_program: Callable[[str], str]) -> None:
    need_program("qemu-img")
    resize = driver.storage_vol_resize
    delta, shrink, allocate = (
        c.VIR_STORAGE_VOL_RESIZE_DELTA,
        c.VIR_STORAGE_VOL_RESIZE_SHRINK,
        c.VIR_STORAGE_VOL_RESIZE_ALLOCATE,
    )
    raw = driver.storage_vol_create_xml(pool, volume("raw", more="<allocation>0</allocation>"), 0)
    qcow2 = driver.storage_vol_create_xml(pool, volume("qcow2", kind="qcow2"), 0)
    for one in (raw, qcow2):
        for capacity, flags, expected in (
            (4 * MIB, 0, 4),
            (2 * MIB, delta, 6),
            (1 * MIB, delta | shrink, 5),
            (3 * MIB, shrink, 3),
        ):
            resize(one, capacity, flags)
            assert driver.storage_vol_get_info(one)[1] == expected * MIB
        text = "Can't shrink capacity below current capacity unless shrink flag explicitly specified"
        refused(c.VIR_ERR_INVALID_ARG, text, resize, one, 2 * MIB, 0)
    resize(raw, 3 * MIB, allocate)
    assert driver.storage_vol_get_info(raw)[2] == 3 * MIB
    refused(c.VIR_ERR_INVALID_ARG, "can't shrink capacity below existing allocation", resize, raw, MIB, shrink)
    text = "Not enough space left in storage pool"
    refused(c.VIR_ERR_OPERATION_FAILED, text, resize, raw, 1 << 55, allocate)
    text = "preallocate is only supported for raw type volume"
    refused(c.VIR_ERR_OPERATION_UNSUPPORTED, text, resize, qcow2, 5 * MIB, allocate)


def test_wiping(driver: StorageDriver, pool: StoragePool, images: Path) -> None:
    full = driver.storage_vol_create_xml(pool, volume("full"), 0)
    (images / "full").write_bytes(b"x" * MIB)
    driver.storage_vol_wipe(full, 0)
    assert (images / "full").read_bytes() == bytes(MIB)
    assert driver.storage_vol_get_info(full)[2] == MIB
    sparse = driver.storage_vol_create_xml(pool, volume("sparse", size=64, more="<allocation>0</allocation>"), 0)
    with (images / "sparse").open("r+b") as file:
        file.write(b"x")
    driver.storage_vol_wipe_pattern(sparse, c.VIR_STORAGE_VOL_WIPE_ALG_ZERO, 0)
    assert driver.storage_vol_get_info(sparse) == (c.VIR_STORAGE_VOL_FILE, 64 * MIB, 0)
    for algorithm, code, text in (
        (c.VIR_STORAGE_VOL_WIPE_ALG_TRIM, c.VIR_ERR_ARGUMENT_UNSUPPORTED, "'trim' algorithm not supported"),
        (99, c.VIR_ERR_INVALID_ARG, "wiping algorithm 99 not supported"),
    ):
        refused(code, text, driver.storage_vol_wipe_pattern, full, algorithm, 0)


def test_a_program_that_is_missing_is_named(
    driver: StorageDriver, pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = driver.storage_vol_create_xml(pool, volume("a"), 0)
    monkeypatch.setattr("virtd.drivers.storage.programs._PATH", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    text = "Cannot find 'scrub' in path: No such file or directory"
    pattern = c.VIR_STORAGE_VOL_WIPE_ALG_DOD
    refused(c.VIR_ERR_SYSTEM_ERROR, text, driver.storage_vol_wipe_pattern, made, pattern, 0)


def test_copies(
    driver: StorageDriver, pool: StoragePool, images: Path, tmp_path: Path, need_program: Callable[[str], str]
) -> None:
    need_program("qemu-img")
    content = os.urandom(MIB)
    original = driver.storage_vol_create_xml(pool, volume("raw", size=8, more="<allocation>0</allocation>"), 0)
    with (images / "raw").open("r+b") as file:
        file.seek(2 * MIB)
        file.write(content)
    copy = driver.storage_vol_create_xml_from
    same = copy(pool, volume("same", size=1, more="<allocation>0</allocation>"), original, 0)
    assert (images / "same").read_bytes() == (images / "raw").read_bytes()
    assert driver.storage_vol_get_info(same)[2] < 2 * MIB
    # A file system may count more than the file has, and a client hands that on.
    copy(pool, volume("counted", size=8, more="<allocation unit='KiB'>8196</allocation>"), same, 0)
    assert (images / "counted").read_bytes() == (images / "raw").read_bytes()
    qcow2 = copy(pool, volume("qcow2", size=16, kind="qcow2"), same, 0)
    assert driver.storage_vol_get_info(qcow2)[1] == 16 * MIB
    back = copy(pool, volume("back", size=None), qcow2, 0)
    assert (images / "back").read_bytes() == (images / "raw").read_bytes() + bytes(8 * MIB)
    assert driver.storage_vol_get_info(back)[1] == 16 * MIB
    # Into another pool.
    path = tmp_path / "other"
    xml = f"<pool type='dir'><name>other</name><target><path>{path}</path></target></pool>"
    other = driver.storage_pool_create_xml(xml, c.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    assert copy(other, volume("raw", size=None), original, 0).key == f"{path}/raw"
    text = "storage volume name 'same' already in use."
    refused(c.VIR_ERR_INTERNAL_ERROR, text, copy, pool, volume("same"), original, 0)
    text = "unsupported flags (0x2) in function storageBackendCreateQemuImg"
    refused(c.VIR_ERR_INVALID_ARG, text, copy, pool, volume("x", kind="qcow2"), original, 2)
    assert set(os.listdir(images)) == {"raw", "same", "counted", "qcow2", "back"}


def test_encrypted_ones(
    driver: StorageDriver, pool: StoragePool, images: Path, need_program: Callable[[str], str]
) -> None:
    need_program("qemu-img")
    secrets = SecretDriver(driver.context)
    usage = f"<usage type='volume'><volume>{images}/a</volume></usage>"
    secret = secrets.secret_define_xml(f"<secret private='yes'>{usage}</secret>", 0)
    secrets.secret_set_value(secret, b"open sesame", 0)
    encryption = (
        f"    <encryption format='luks'>\n      <secret type='passphrase' usage='{images}/a'/>\n"
        "      <cipher name='aes' size='128' mode='xts' hash='sha256'/>\n    </encryption>\n"
    )
    made = None
    for _ in range(5):
        # QEMU's measurement of key derivation fails at times on a busy machine; nothing may be left then either.
        if made is None:
            with contextlib.suppress(VirtError):
                made = driver.storage_vol_create_xml(pool, volume("a", target=encryption), 0)
            assert os.listdir(images) == ([] if made is None else ["a"])
    assert made is not None
    assert driver.storage_vol_get_info(made)[1] == MIB
    opened = ["driver=luks", f"file.filename={images}/a", "key-secret=s"]
    key = ["--object", "secret,id=s,data=open sesame"]
    command = ["qemu-img", "info", *key, "--image-opts", ",".join(opened)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    try:
        os.setxattr(images, "user.test", b"")
    except OSError:
        pytest.skip("the file system has no extended attributes for users")
    assert encryption in driver.storage_vol_get_xml_desc(made, 0)
    # What is noted at the file is anybody's who may write it: nonsense does not count.
    os.setxattr(images / "a", "user.virtd.encryption", b"<encryption")
    assert "<encryption format='luks'/>" in driver.storage_vol_get_xml_desc(made, 0)
