"""The real client's commands, over the wire: every pool-*, vol-* command that does not need a terminal."""

import hashlib
import os
import random
from pathlib import Path

from tests.helpers.instance import Instance

MIB = 1 << 20


def test_pools(virtd: Instance, tmp_path: Path) -> None:
    run = virtd.virsh
    path = tmp_path / "pool"
    run("pool-define-as", "images", "dir", "--target", str(path))
    run("pool-build", "images")
    run("pool-start", "images")
    run("pool-autostart", "images")
    rows = [line.split() for line in run("pool-list", "--all", "--details").splitlines() if line]
    assert rows[0][:4] == ["images", "running", "yes", "yes"]
    assert "State:          running" in run("pool-info", "images")
    assert run("pool-name", run("pool-uuid", "images").strip()).strip() == "images"
    xml = tmp_path / "pool.xml"
    xml.write_text(run("pool-dumpxml", "images"))
    run("pool-refresh", "images")
    assert "storagepoolCapabilities" in run("pool-capabilities")
    run("pool-destroy", "images")
    run("pool-delete", "images")
    assert not path.exists()
    run("pool-undefine", "images")
    run("pool-create", str(xml), "--build")
    assert run("pool-list", "--transient", "--name").split() == ["images"]
    assert "Storage source conflict with pool: 'images'" in virtd.virsh_error(
        "pool-create-as", "other", "dir", "--target", str(path)
    )
    run("pool-destroy", "images")
    assert run("pool-list", "--all", "--name").split() == []


def test_volumes(virtd: Instance, tmp_path: Path) -> None:
    run = virtd.virsh
    path = tmp_path / "pool"
    path.mkdir()
    run("pool-create-as", "images", "dir", "--target", str(path))
    run("vol-create-as", "images", "a", "8M", "--allocation", "0")
    run("vol-create-as", "images", "q", "8M", "--format", "qcow2", "--backing-vol", "a", "--backing-vol-format", "raw")
    assert run("vol-path", "a", "--pool", "images").strip() == f"{path}/a"
    assert run("vol-name", f"{path}/a").strip() == "a"
    assert run("vol-pool", f"{path}/a").strip() == "images"
    assert run("vol-key", "a", "images").strip() == f"{path}/a"
    assert "Capacity:       8.00 MiB" in run("vol-info", "a", "images")
    assert "<backingStore>" in run("vol-dumpxml", "q", "images")
    data = tmp_path / "data"
    with data.open("wb") as file:
        file.write(os.urandom(MIB))
        file.seek(6 * MIB)
        file.write(os.urandom(2 * MIB))
    digest = hashlib.sha256(data.read_bytes()).digest()
    for options in ([], ["--sparse"]):
        run("vol-wipe", "a", "images")
        run("vol-upload", "a", str(data), "--pool", "images", *options)
        assert hashlib.sha256((path / "a").read_bytes()).digest() == digest
        run("vol-download", "a", str(tmp_path / "back"), "--pool", "images", *options)
        assert hashlib.sha256((tmp_path / "back").read_bytes()).digest() == digest
    for file in (path / "a", tmp_path / "back"):
        assert file.stat().st_blocks * 512 < 4 * MIB
    run("vol-clone", "a", "b", "--pool", "images")
    assert hashlib.sha256((path / "b").read_bytes()).digest() == digest
    run("vol-resize", "b", "16M", "--pool", "images")
    names = [line.split()[0] for line in run("vol-list", "images").splitlines() if line]
    assert names == ["a", "b", "q"]
    xml = tmp_path / "vol.xml"
    xml.write_text("<volume><name>c</name><capacity>0</capacity><target><format type='qcow2'/></target></volume>")
    run("vol-create-from", "images", str(xml), "b", "--inputpool", "images")
    for name in ("a", "b", "c", "q"):
        run("vol-delete", name, "--pool", "images")
    assert os.listdir(path) == []
    assert "Storage volume not found" in virtd.virsh_error("vol-info", "a", "images")


def extents(path: Path) -> tuple[int, list[tuple[int, str]]]:
    """A file's length, and where its data lie, with their SHA-256: what it holds, without reading its holes."""
    found, place = [], 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while place < size:
            try:
                start = os.lseek(file.fileno(), place, os.SEEK_DATA)
            except OSError:
                break  # holes to the end
            place = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append((start, hashlib.sha256(os.pread(file.fileno(), place - start, start)).hexdigest()))
    return size, found


def test_four_gigabytes_with_holes(virtd: Instance, tmp_path: Path) -> None:
    """What is data stays data and what is a hole a hole, there and back; contrib/bench does it beside libvirtd."""
    dice, source, copy = random.Random(4), tmp_path / "source", tmp_path / "copy"
    with source.open("wb") as file:
        file.truncate(4 << 30)
        for place in sorted(dice.sample(range(4 << 30 >> 20), 40)):
            file.seek((place << 20) + 4096 * dice.randrange(16))
            file.write(dice.randbytes(dice.choice((1, 4096, 65536, 300_000, 900_000))))
    path = tmp_path / "pool"
    path.mkdir()
    virtd.virsh("pool-create-as", "images", "dir", "--target", str(path))
    virtd.virsh("vol-create-as", "images", "v", "4G", "--allocation", "0")
    virtd.virsh("vol-upload", "v", str(source), "--pool", "images", "--sparse")
    virtd.virsh("vol-download", "v", str(copy), "--pool", "images", "--sparse")
    assert extents(source) == extents(path / "v") == extents(copy)
    assert len(extents(source)[1]) > 30
    # The pool's view of it is right at once.
    allocated = source.stat().st_blocks * 512
    assert virtd.virsh("vol-info", "v", "images", "--bytes").split("Allocation:")[1].split()[0] == str(allocated)
    pool = virtd.virsh("pool-info", "images", "--bytes")
    assert "Capacity:" in pool
