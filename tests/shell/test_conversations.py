"""virtsh says, byte for byte, what virsh says to the same commands of the same server.

The server is a libvirtd with libvirt's test driver, of which every connection gets a new one: guest, network, pool,
device and all. A conversation is a paragraph of a file; its lines are given to one run of each program. What changes
from one moment to the next is blotted out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.remote.conftest import Libvirtd, libvirtd
from tests.shell.conftest import Shell, start_guest
from tests.shell.shell import run, write_documents

__all__ = ["libvirtd"]

_CONVERSATIONS = sorted((Path(__file__).parent / "conversations").glob("*.txt"))
_QEMU = sorted((Path(__file__).parent / "conversations" / "qemu").glob("*.txt"))
_MOVING = re.compile(
    r"(?<=CPU time: )[ ]+[\d.]+s|(?<=cpu_time )[ ]+[\d.]+|(?<=vcpu_time )[ ]+[\d.]+"
    r"|(?<=[rt]x_)(\w+ )\d+|(?<=(?:rd|wr)_)(\w+ )\d+|(?<=errs )\d+"
    r"|<uuid>.*</uuid>|UUID: .*|20\d\d-\d\d-\d\d [\d:]+ \+0000|<creationTime>.*"
    r"|(?<=with uuid )[-0-9a-f]+|(?<=Allocation: )[ ]+\S+|(?<=Available: )[ ]+\S+"
    r"|(?<=<allocation unit='bytes'>)\d+|(?<=<available unit='bytes'>)\d+"
)


def _cases(paths: list[Path]) -> list[object]:
    cases = []
    for path in paths:
        for number, text in enumerate(path.read_text().strip().split("\n\n")):
            cases.append(pytest.param(text, id=f"{path.stem}-{number}"))
    return cases


@pytest.mark.parametrize("conversation", _cases(_CONVERSATIONS))
def test_says_what_virsh_says(conversation: str, libvirtd: Libvirtd, tmp_path: Path) -> None:
    write_documents(tmp_path)
    _compare(libvirtd.uri("test"), conversation.replace("@DIR@", str(libvirtd.home)), tmp_path)


def _compare(uri: str, conversation: str, directory: Path) -> None:
    answers = []
    for program in ("virsh", ""):
        result = run("-c", uri, conversation.replace("\n", "; "), program=program, cwd=directory)
        answers.append((_MOVING.sub("~", result.stdout), _MOVING.sub("~", result.stderr), result.returncode))
    theirs, ours = answers
    assert ours[0].splitlines() == theirs[0].splitlines()
    assert ours[1].splitlines() == theirs[1].splitlines()
    assert ours == theirs


def test_says_of_virtd_what_virsh_says(remote: Shell, boot_disk: Callable[..., Path]) -> None:
    """All commands that virtd serves, with a guest that runs and one that does not, and most that it does not serve."""
    place = remote.instance.root / "files"
    place.mkdir()
    place.chmod(0o711)
    write_documents(place)
    for name in ("n.img", "m.img"):
        (place / name).write_bytes(bytes(1 << 20))
        (place / name).chmod(0o666)
    start_guest(remote, boot_disk(), "a")
    remote("define", str(place / "new.xml"))
    remote("domrename", "n", "b")
    remote("pool-create-as", "p1", "dir", "--target", str(place / "p1"), "--build")
    for conversation in (text for path in _QEMU for text in path.read_text().strip().split("\n\n")):
        _compare(remote.uri, conversation.replace("@DIR@", str(place)), place)


@pytest.mark.parametrize(
    "args",
    [
        ["list", "--all"],
        ["domid", "--domain=test"],
        ["domid", "--", "test"],
        ["domid", "test", ";", "uri"],
        ["list", "--al"],
        ["start", "--domain", "--paused"],
        ["setmem", "test", "1x"],
        ["echo", "a  b", "c'd", ""],
        ["echo", "--shell", "a b", "c'd", "", "x"],
        ["echo", "--xml", "<a>&'\""],
        ["echo", "--split", "a,b,,c"],
        ["echo 'a b' \"c d\" e\\ f; echo 'open"],
        ['echo "open'],
        ["uri # comment\nuri\\\n;;domid test;"],
        ["desc test; desc test --title", "-q"],
        [""],
        [" "],
        ["quit; uri"],
        ["help nope"],
        ["cd /tmp"],
    ],
    ids=lambda args: " ".join(args),
)
def test_understands_what_virsh_understands(args: list[str], libvirtd: Libvirtd) -> None:
    options = ["-q"] if args[-1] == "-q" else []
    words = args[:-1] if options else args
    theirs, ours = (
        run(*options, "-c", libvirtd.uri("test"), *words, program=program, cwd=Path("/")) for program in ("virsh", "")
    )
    assert (ours.stdout, ours.stderr, ours.returncode) == (theirs.stdout, theirs.stderr, theirs.returncode)


@pytest.mark.parametrize(
    "args",
    [
        ["-x"],
        ["--nonsense"],
        ["-c"],
        ["--conn"],
        ["-k", "x", "uri"],
        ["-e", "xyz", "uri"],
        ["-l", "/nonexistent/log", "uri"],
        ["-v"],
        ["--version"],
        ["-c", "qemu+unix:///system?socket=/nonexistent/socket", "list"],
        ["-qc", "qemu+unix:///system?socket=/nonexistent/socket", "list"],
    ],
    ids=" ".join,
)
def test_refuses_what_virsh_refuses(args: list[str]) -> None:
    theirs, ours = (run(*args, program=program) for program in ("virsh", ""))
    assert (ours.stdout, ours.stderr, ours.returncode) == (theirs.stdout, theirs.stderr, theirs.returncode)


@pytest.mark.parametrize("level", ["0", "1", "2", "4", "5", "x"])
def test_says_what_it_does_as_virsh_does(level: str, libvirtd: Libvirtd, tmp_path: Path) -> None:
    line = (
        "list --all --title; dominfo nope; dumpxml --domain=test --xpath /domain/name; net-info default; domname 1;"
        "domname 6695eb01-f6a4-8304-79aa-97f2502e193f; net-name 00000000-0000-0000-0000-000000000000; pool-uuid p;"
        "vol-info v; vol-info v --pool default-pool; iface-name 01:02:03:04:05:06; iface-mac eth1; secret-dumpxml x;"
        "nwfilter-dumpxml x; echo a b; vol-path /x"
    )
    answers = []
    for program in ("virsh", ""):
        log = tmp_path / f"log{program}"
        result = run("-c", libvirtd.uri("test"), "-d", level, "-l", str(log), line, program=program)
        written = log.read_text() if log.exists() else ""
        form = re.sub(r"^\[\d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d virt?sh \d+\]", "", written, flags=re.M)
        answers.append((result.stdout.splitlines(), result.stderr.splitlines(), result.returncode, form.splitlines()))
    for theirs, ours in zip(*answers, strict=True):
        assert ours == theirs


def test_takes_the_same_from_the_environment(libvirtd: Libvirtd, tmp_path: Path) -> None:
    logs = []
    for program in ("virsh", ""):
        log = tmp_path / f"log{program}"
        env = {"VIRSH_DEBUG": "1", "VIRSH_LOG_FILE": str(log), "VIRSH_DEFAULT_CONNECT_URI": libvirtd.uri("test")}
        result = run("domid nope", program=program, env=env)
        assert result.stdout.splitlines()[0] == 'commands: "domid nope"'
        logs.append([line.partition("] ")[2] for line in log.read_text().splitlines()])
    assert logs[0] == logs[1] != []
    assert run("uri", env={"VIRSH_LOG_FILE": "/nonexistent/log"}).returncode == 1
