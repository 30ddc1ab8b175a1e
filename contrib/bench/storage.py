"""Volumes: their content to and fro through virsh, and pools with many of them.

Content is moved by Debian's virsh, to and from files of the benchmark's own. What it moves is checked each time: a
sparse volume has to have its SHA-256 and its holes afterwards.
"""

import hashlib
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import libvirt
from servers import PREFIX, Server
from work import Bench, Work, each

PLAIN = 1 << 30  # bytes
SPARSE = 4 << 30  # bytes, of which DATA are there
DATA = 256 << 20
MANY = 10_000  # volumes
_POOL = f"{PREFIX}pool"
_NAME = {True: "sparse", False: "plain"}


def _pool(bench: Bench, server: Server, name: str) -> tuple[libvirt.virStoragePool, Path]:
    """A server's own pool, and its directory."""
    path = Path(bench.directory) / f"{name}-{server.name}"
    connection = server.connect()
    if not path.exists():
        path.mkdir()
        xml = f"<pool type='dir'><name>{PREFIX}{name}</name><target><path>{path}</path></target></pool>"
        return connection.storagePoolCreateXML(xml), path
    return connection.storagePoolLookupByName(f"{PREFIX}{name}"), path


def _original(bench: Bench, sparse: bool) -> tuple[Path, bytes]:
    """The file that is moved, and its digest; made once."""
    path = Path(bench.directory) / f"original-{_NAME[sparse]}"
    if not path.exists():
        dice, left = random.Random(1), DATA if sparse else PLAIN
        with path.open("wb") as file:
            file.truncate(SPARSE if sparse else PLAIN)
            while left > 0:
                size = dice.choice((1 << 12, 1 << 16, 1 << 20, 1 << 22)) if sparse else 1 << 20
                file.write(dice.randbytes(size))
                left -= size
                if sparse:
                    file.seek(dice.choice((1 << 16, 1 << 20, 1 << 24)), os.SEEK_CUR)
            file.truncate(SPARSE if sparse else PLAIN)
        path.with_suffix(".digest").write_bytes(_digest(path))
    return path, path.with_suffix(".digest").read_bytes()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _check(copy: Path, original: Path, digest: bytes, sparse: bool) -> None:
    if _digest(copy) != digest:
        raise RuntimeError(f"{copy} is not what was moved")
    if sparse and copy.stat().st_blocks > original.stat().st_blocks + 2048:
        raise RuntimeError(f"{copy} has lost its holes")


def _virsh(server: Server, *words: str) -> float:
    """The time a command takes."""
    command = ["virsh", "--quiet", "--connect", server.uri, *words]
    return each(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), 1)


def _upload(sparse: bool) -> Callable[[Bench, Server], float]:
    def do(bench: Bench, server: Server) -> float:
        original, digest = _original(bench, sparse)
        pool, path = _pool(bench, server, "pool")
        name, options = _NAME[sparse], ["--sparse"] if sparse else []
        (path / name).unlink(missing_ok=True)
        pool.refresh()
        size = original.stat().st_size
        pool.createXML(f"<volume><name>{name}</name><capacity>{size}</capacity><allocation>0</allocation></volume>")
        taken = _virsh(server, "vol-upload", name, str(original), "--pool", _POOL, *options)
        _check(path / name, original, digest, sparse)
        return taken

    return do


def _download(sparse: bool) -> Callable[[Bench, Server], float]:
    def do(bench: Bench, server: Server) -> float:
        original, digest = _original(bench, sparse)
        pool, path = _pool(bench, server, "pool")
        name, options = _NAME[sparse], ["--sparse"] if sparse else []
        if not (path / name).exists():
            subprocess.run(["cp", "--sparse=always", original, path / name], check=True)
            pool.refresh()
        copy = Path(bench.directory) / f"copy-{server.name}"
        copy.unlink(missing_ok=True)
        taken = _virsh(server, "vol-download", name, str(copy), "--pool", _POOL, *options)
        _check(copy, original, digest, sparse)
        copy.unlink()
        return taken

    return do


def _many(bench: Bench, server: Server) -> libvirt.virStoragePool:
    pool, path = _pool(bench, server, "many")
    if not any(path.iterdir()):
        for number in range(MANY):
            (path / f"volume-{number}").touch()
        pool.refresh()
    return pool


def refresh(bench: Bench, server: Server) -> float:
    return each(_many(bench, server).refresh, 1)


def list_volumes(bench: Bench, server: Server) -> float:
    return each(_many(bench, server).listAllVolumes, 1)


def look_up(bench: Bench, server: Server) -> float:
    pool = _many(bench, server)
    return each(lambda: pool.storageVolLookupByName("volume-5000").info(), 100)


WORKS = (
    Work("upload_sparse", "virsh vol-upload --sparse of 4 GiB, 256 MiB of it data", _upload(True), 1.0),
    Work("download_sparse", "virsh vol-download --sparse of the same", _download(True), 1.0),
    Work("upload", "virsh vol-upload of 1 GiB", _upload(False), 1.0, rounds=3),
    Work("download", "virsh vol-download of 1 GiB", _download(False), 1.0, rounds=3),
    Work("pool_refresh", "refresh of a pool with 10,000 volumes", refresh, 1.0),
    Work("pool_list", "list of a pool with 10,000 volumes", list_volumes, 1.0),
    Work("volume_look_up", "look-up of one of 10,000 volumes, and its sizes", look_up, 1.0),
)
