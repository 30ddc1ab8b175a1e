"""Recognising images: those that qemu-img makes, damaged ones, and random bytes."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtd.drivers.storage import probe
from virtd.drivers.storage.describe import backing_path
from virtd.drivers.storage.probe import Image

SIZE = 4 << 20


def probed(path: Path) -> Image:
    with path.open("rb") as file:
        return probe.probe(file.fileno(), path.stat().st_size)


@pytest.fixture
def create(need_program: Callable[[str], str], tmp_path: Path) -> Callable[..., Path]:
    program = need_program("qemu-img")

    def run(kind: str, *options: str, size: str = "4M") -> Path:
        path = tmp_path / f"image.{kind}"
        subprocess.run([program, "create", "-q", "-f", kind, *options, str(path), size], check=True)
        return path

    return run


@pytest.mark.parametrize("kind", ["qcow", "qcow2", "qed", "vdi", "vmdk"])
def test_formats(create: Callable[..., Path], kind: str) -> None:
    found = probed(create(kind))
    assert (found.format, found.capacity, found.backing, found.encryption) == (kind, SIZE, None, None)


def test_vpc_tells_the_size_its_geometry_has(create: Callable[..., Path]) -> None:
    found = probed(create("vpc"))
    assert found.format == "vpc"
    assert found.capacity is not None
    assert SIZE <= found.capacity < SIZE * 1.1


def test_raw_ones_tell_nothing(create: Callable[..., Path], tmp_path: Path) -> None:
    assert probed(create("raw")) == probe.RAW
    (tmp_path / "empty").touch()
    assert probed(tmp_path / "empty") == probe.RAW


def test_qcow2_versions_and_features(create: Callable[..., Path]) -> None:
    assert probed(create("qcow2", "-o", "compat=0.10")) == Image("qcow2", SIZE, cluster_size=65536)
    expected = Image("qcow2", SIZE, compat="1.1", cluster_size=65536, features=frozenset())
    assert probed(create("qcow2")) == expected
    options = "cluster_size=128k,lazy_refcounts=on,extended_l2=on"
    features = frozenset({"lazy_refcounts", "extended_l2"})
    expected = Image("qcow2", SIZE, compat="1.1", cluster_size=131072, features=features)
    assert probed(create("qcow2", "-o", options)) == expected


@pytest.mark.parametrize("kind", ["qcow2", "qed", "qcow"])
def test_backing_files(create: Callable[..., Path], kind: str) -> None:
    found = probed(create(kind, "-u", "-b", "base.img", "-F", "raw"))
    assert found.backing == "base.img"
    assert found.backing_format == (None if kind == "qcow" else "raw")


def test_backing_paths() -> None:
    assert backing_path("/a/b/image", "base") == "/a/b/base"
    assert backing_path("/a/b/image", "../c/base") == "/a/c/base"
    assert backing_path("/a/b/image", "/base") == "/base"
    assert backing_path("/a/b/image", "file:/base") == "/base"
    for name in ("json:{}", "nbd://localhost/x", "rbd:pool/image"):
        assert backing_path("/a/b/image", name) is None


def test_encrypted_ones(create: Callable[..., Path], tmp_path: Path) -> None:
    path = create("qcow2")
    with path.open("r+b") as file:
        file.seek(32)
        file.write(b"\0\0\0\2")
    assert (probed(path).format, probed(path).encryption) == ("qcow2", "luks")
    # A LUKS header whose data begins after 8 sectors.
    path = tmp_path / "luks"
    path.write_bytes(b"LUKS\xba\xbe\0\1" + bytes(96) + b"\0\0\0\x08" + bytes(8192 - 108))
    assert probed(path) == Image("raw", 4096, encryption="luks")


def test_an_iso_image(tmp_path: Path) -> None:
    path = tmp_path / "iso"
    path.write_bytes(bytes(32769) + b"CD001" + bytes(100))
    assert probed(path).format == "iso"


def test_cut_off_headers_are_raw(create: Callable[..., Path]) -> None:
    for kind in ("qcow2", "qed", "vdi", "vmdk", "qcow"):
        path = create(kind)
        os.truncate(path, 12)
        assert probed(path) == probe.RAW, kind


MAGICS = [magic for offset, magic, _ in probe._MAGICS if offset == 0]


@given(st.sampled_from([*MAGICS, b"", b"QFI\xfb\0\0\0\2", b"QFI\xfb\0\0\0\3"]), st.binary(max_size=300))
def test_anything_can_stand_in_a_file(magic: bytes, rest: bytes) -> None:
    """Whatever a guest writes, probing gives an answer whose parts are within bounds."""
    descriptor = os.memfd_create("image")
    try:
        os.write(descriptor, magic + rest)
        found = probe.probe(descriptor, len(magic + rest))
    finally:
        os.close(descriptor)
    assert found.capacity is None or 0 <= found.capacity < 1 << 74
    assert found.backing is None or 0 < len(os.fsencode(found.backing)) <= probe.NAME_MAX
    assert found.backing_format is None or len(found.backing_format) <= 16
