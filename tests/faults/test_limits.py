"""A user whose limit of processes is reached (RLIMIT_NPROC, which does not bind root): fork() fails in earnest."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guests import bootsector
from tests.guests.xml import boot_domain
from tests.helpers.instance import Instance, make_root
from tests.helpers.processes import end
from tests.helpers.waiting import SECONDS, wait_for
from tests.linkage.conftest import nobody
from tests.server.harness import Client
from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol.records import Domain

__all__ = ["nobody"]

# Who has no other processes: the kernel counts all that a user has.
USER = 60000 + os.getpid() % 4000 if os.geteuid() == 0 else os.geteuid()
_LIMIT = "import resource, sys\nfor pid in sys.argv[2:]:\n  try:\n    resource.prlimit(int(pid), {0}, ({1}, {2}))\n"
_LIMIT += "  except ProcessLookupError:\n    pass\n"
HARD = resource.getrlimit(resource.RLIMIT_NPROC)[1]
# As this process says it, and as QEMU does, which needs threads.
_NO_ROOM = r"cannot fork child process: Resource temporarily unavailable|qemu_thread_create: Resource temporarily"


class Limited(Instance):
    """A session's instance of a user without privileges, all of whose processes can be limited."""

    def __init__(self, root: Path, become: list[str]) -> None:
        super().__init__(root)
        self.mode = "session"
        self.uri = f"qemu+unix:///session?socket={self.socket}"
        self._become = become

    def start(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [*self._become, sys.executable, "-m", "virtd.server.main", "--root", str(self.root), "--daemon"]
        return self.run(*command, *options, check=check, env={"HOME": str(self.root)})

    def limit(self, number: int) -> None:
        """Let this be the most processes the user may have when one of this instance is to fork."""
        pids = [str(process.pid) for process in self.processes()]
        script = _LIMIT.format(int(resource.RLIMIT_NPROC), number, HARD)
        subprocess.run([*self._become, sys.executable, "-ISc", script, "-", *pids], check=True)

    def lift(self) -> None:
        """Lift the limit, also from those that are forked meanwhile by one who has it still."""

        whole = "unlimited" if HARD == resource.RLIM_INFINITY else str(HARD)

        def lifted() -> bool:
            self.limit(HARD)
            return all(_limit_of(process.pid) in ("", whole) for process in self.processes())

        wait_for(lifted, "the limit's end")

    def client(self) -> Client:
        """A connection."""
        return Client(str(self.socket), timeout=SECONDS, uri="qemu:///session")

    def of(self, name: str) -> list[str]:
        """What runs of a guest."""
        titles = [process.title for process in self.processes()]
        return [title for title in titles if re.search(rf"virtd: guest {name}$|-name guest={name},", title)]


def _limit_of(pid: int) -> str:
    """The limit that is in force for a process; empty if it has ended."""
    try:
        found = re.search(r"^Max processes +(\d+|unlimited)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return found[1] if found else ""


def tasks() -> int:
    """How many processes and threads the user has."""
    found = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == USER:
                found += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue  # it has ended
    return found


@pytest.fixture
def limited(request: pytest.FixtureRequest, need_program: Callable[[str], str]) -> Iterator[Limited]:
    become = []
    if os.geteuid() == 0:
        request.getfixturevalue("nobody")  # others can run this
    root = make_root()
    if os.geteuid() == 0:
        os.chown(root, USER, USER)
        become = [need_program("setpriv"), f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    made = Limited(root, become)
    made.start()
    try:
        yield made
        made.lift()
    finally:
        left = made.finish()
    assert not left


def define(client: Client, root: Path, name: str) -> Domain:
    disk = bootsector.write_boot_disk(root / f"{name}.img", then="serve")
    disk.chmod(0o666)
    domain: Domain = client.call("domain_define_xml_flags", boot_domain(name, disk), 0)
    return domain


def state(client: Client, domain: Domain) -> int:
    found: int = client.call("domain_get_state", domain, 0)[0]
    return found


def test_a_start_fails_wherever_the_limit_is_reached(limited: Limited) -> None:
    """With room for no process more, for one, two, …: until there is enough, nothing is left of the attempt."""
    with limited.client() as client:
        running, off = (define(client, limited.root, name) for name in ("running", "off"))
        client.call("domain_create_with_flags", running, 0)
        qemu = limited.of("running")
        said = []
        for room in range(40):
            limited.limit(tasks() + room)
            try:
                client.call("domain_create_with_flags", off, 0)
                break
            except VirtError as error:
                said.append(error.message)
            assert (state(client, running), state(client, off)) == (c.VIR_DOMAIN_RUNNING, c.VIR_DOMAIN_SHUTOFF)
            wait_for(lambda: not limited.of("off"), "the end of what was started")
            left = [path for path in (limited.root / "run/virtd/qemu").iterdir() if off.uuid.hex()[:8] in path.name]
            assert left == []
        assert [text for text in said if not re.search(_NO_ROOM, text)] == []
        assert len(said) >= 4  # a call's process, the supervisor's two, QEMU's own
        assert limited.of("running") == qemu
        limited.lift()
        client.call("domain_destroy_flags", off, 0)
        client.call("domain_create_with_flags", off, 0)


def test_who_cannot_be_served_waits(limited: Limited) -> None:
    with limited.client() as client:
        running = define(client, limited.root, "running")
        client.call("domain_create_with_flags", running, 0)
        wait_for(lambda: len([p for p in limited.processes() if p.title == "virtd: spare"]) >= 5, "spares")
        limited.limit(1)
        # Those for whom a process waits already are served, and nobody is hung up on.
        waiting = [Client(str(limited.socket), timeout=SECONDS, opened=False) for _ in range(20)]
        for one in waiting:
            one.send("connect_open", "qemu:///session", 0)
        for one in waiting[:3]:
            one.receive()
        # What needs a process says so; the rest is answered.
        for call in (("domain_suspend", running), ("domain_destroy_flags", running, 0)):
            with pytest.raises(VirtError, match=_NO_ROOM):
                client.call(*call)
        assert len(client.call("connect_get_all_domain_stats", [], 0, 0)) == 1
        # A guest whose supervisor dies goes on without, as long as there can be no other.
        end(process.pid for process in limited.processes() if process.title == "virtd: guest running")
        assert state(client, running) == c.VIR_DOMAIN_RUNNING
        assert len(limited.of("running")) == 1
        limited.lift()
        for one in waiting[3:]:
            answer = one.receive()
            assert answer is not None
            assert answer.status == 0
            one.close()
        for one in waiting[:3]:
            one.close()
        client.call("domain_suspend", running)
        assert state(client, running) == c.VIR_DOMAIN_PAUSED
        wait_for(lambda: len(limited.of("running")) == 2, "the end of those who came too late to supervise it")
