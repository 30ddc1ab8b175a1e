"""--json: whatever lists or describes prints data. And volumes' content, to and from files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.drivers.remote.conftest import Libvirtd, libvirtd
from tests.shell.conftest import Shell
from tests.shell.shell import run, write_documents

__all__ = ["libvirtd"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("list --all", [{"id": 1, "name": "test", "state": "running"}]),
        ("list --name", ["test"]),
        ("list --id --name", [{"id": 1, "name": "test"}]),
        ("domid test", {"id": 1}),
        ("domstate test --reason", {"state": {"name": "running", "reason": "unknown"}}),
        ("vcpucount test", {"vcpus": {"maximum": {"config": 2, "live": 2}, "current": {"config": 2, "live": 2}}}),
        ("domblklist test", [{"target": "vda", "source": "/guest/diskimage1"}]),
        ("domcontrol test", None),
        (
            "domifaddr test",
            {
                "interfaces": [
                    {"name": "testnet0", "mac": "aa:bb:cc:dd:ee:ff", "addresses": ["192.168.122.3/24"]},
                ]
            },
        ),
        ("vcpupin test 0", [{"vcpu": 0, "affinity": [0, 1, 2, 3, 4, 5, 6, 7]}]),
        ("net-list", [{"name": "default", "state": "active", "autostart": False, "persistent": True}]),
        ("pool-list", [{"name": "default-pool", "state": "active", "autostart": False}]),
        ("vol-list default-pool", []),
        ("iface-list", [{"name": "eth1", "state": "active", "mac": "aa:bb:cc:dd:ee:ff"}]),
        ("snapshot-list test --tree", []),
        ("hostname", None),
        ("nodeinfo", None),
        ("nodecpumap", None),
        ("freecell --all", {"free_kib": {"0": 2048, "1": 4096}}),
        ("memtune test", {"parameters": dict.fromkeys(("hard_limit", "soft_limit", "swap_hard_limit"))}),
        ("schedinfo test", {"parameters": {"weight": 50}}),
        ("domstats test --state", {"domains": [{"domain": "test", "state.state": 1, "state.reason": 0}]}),
        ("domblkinfo test vda", None),
        ("domblkstat test vda", None),
        ("dommemstat test", None),
        ("cpu-stats test", None),
        ("vcpuinfo test", None),
        ("version", None),
        ("dumpxml test", None),
        ("pool-info default-pool", None),
        ("net-info default", None),
        ("domjobinfo test", None),
        ("help list", None),
        ("pwd", {"directory": "/"}),
        ("start test", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_json(command: str, expected: object, libvirtd: Libvirtd) -> None:
    result = run("--json", "-c", libvirtd.uri("test"), command, cwd=Path("/"))
    if command.startswith(("start", "domjobinfo")):
        assert result.stdout == ""  # an error, and nothing that is no data
        return
    found = json.loads(result.stdout)
    if expected is not None:
        assert found == expected
    again = run("-q", "-c", libvirtd.uri("test"), *command.split(), "--json", cwd=Path("/"))
    assert json.loads(again.stdout).__class__ is found.__class__


def test_dominfo(libvirtd: Libvirtd) -> None:
    found = json.loads(run("--json", "-c", libvirtd.uri("test"), "dominfo", "test").stdout)
    assert found["max_memory_kib"] == 8388608
    assert found["autostart"] is False
    assert isinstance(found["cpu_time_ns"], int)


def test_what_is_in_a_volume(shell: Shell) -> None:
    home = shell.instance.root / "pool"
    home.mkdir()
    shell("pool-define-as", "p", "dir", "--target", str(home))
    shell("pool-start", "p")
    shell("vol-create-as", "p", "v", "3M")
    content = bytes(range(256)) * 4096 + bytes(1 << 20) + b"end"
    source, copy = shell.instance.root / "in", shell.instance.root / "out"
    source.write_bytes(content)
    assert shell("vol-upload", "v", str(source), "--pool", "p") == ""
    assert shell("vol-download", "v", str(copy), "--pool", "p") == ""
    assert copy.read_bytes() == content + bytes((3 << 20) - len(content))
    assert shell("vol-download", "v", str(copy), "--pool", "p", "--sparse") == ""
    assert copy.read_bytes() == content + bytes((3 << 20) - len(content))
    assert copy.stat().st_blocks * 512 < 2 << 20
    assert shell("vol-download", "v", str(copy), "--pool", "p", "--offset", "1M", "--length", "10") == ""
    assert copy.read_bytes() == bytes(10)
    assert shell.error("vol-upload", "v", "/nonexistent", "--pool", "p") == [
        "error: cannot read /nonexistent: No such file or directory"
    ]
    assert shell.error("vol-download", "nope", str(copy), "--pool", "p")[0] == "error: failed to get vol 'nope'"
    shell("pool-destroy", "p")


def test_holes_stay_holes(shell: Shell) -> None:
    """With zeros in their place, this would take minutes."""
    home = shell.instance.root / "pool"
    home.mkdir()
    shell("pool-create-as", "p", "dir", "--target", str(home))
    source, copy = shell.instance.root / "in", shell.instance.root / "out"
    parts = {0: b"first", 40 << 30: os.urandom(3 << 20), (200 << 30) - 4: b"last"}
    with source.open("wb") as file:
        for place, data in parts.items():
            file.seek(place)
            file.write(data)
        file.truncate((200 << 30) + 12345)

    def read(path: Path, place: int) -> bytes:
        with path.open("rb") as file:
            return os.pread(file.fileno(), 3 << 20, place)

    shell("vol-create-as", "p", "v", str(source.stat().st_size), "--allocation", "0")
    assert shell("vol-upload", "v", str(source), "--pool", "p", "--sparse") == ""
    assert shell("vol-download", "v", str(copy), "--pool", "p", "--sparse") == ""
    for path in (home / "v", copy):
        assert path.stat().st_size == source.stat().st_size
        assert path.stat().st_blocks * 512 < 4 << 20
        assert all(read(path, place).startswith(data) for place, data in parts.items())
    assert shell("vol-download", "v", str(copy), "--pool", "p", "--sparse", "--offset", "1G", "--length", "40G") == ""
    assert copy.stat().st_size == 40 << 30
    assert read(copy, 39 << 30) == parts[40 << 30]
    shell("pool-destroy", "p")


def test_editing(shell: Shell) -> None:
    write_documents(shell.instance.root)
    document = shell.instance.root / "a.xml"
    document.write_text("<domain type='qemu'><name>a</name><memory>8192</memory><os><type>hvm</type></os></domain>")
    shell("define", str(document))

    def edit(script: str) -> tuple[str, list[str]]:
        env = {"EDITOR": f"sed -i {script}", "VISUAL": ""}
        from tests.shell.shell import VIRTSH

        result = shell.instance.run(*VIRTSH, "-c", shell.uri, "edit", "a", env=env, check=False)
        return result.stdout.strip(), result.stderr.splitlines()

    assert edit("-e 's/8192/16384/'") == ("Domain 'a' XML configuration edited.", [])
    assert "<memory unit='KiB'>16384</memory>" in shell("dumpxml", "a")
    assert edit("-e s/x/x/") == ("Domain 'a' XML configuration not changed.", [])
    assert edit("-e 's/<name>.*/<nam>/'")[1] != []
    assert edit("--nonsense")[1][-1].startswith("error: internal error: Child process (sed -i --nonsense ")
