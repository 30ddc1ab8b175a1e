"""The programs beside QEMU: they serve it, and they end with it, however it ends."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.drivers.qemu.commandline import domain_xml, parse
from tests.drivers.qemu.instance import Instance
from tests.helpers.waiting import SECONDS, ends, wait_for
from virtd import constants as c
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.run import helpers, vhostuser
from virtd.errors import VirtError
from virtd.state import undo
from virtd.state.process import Process

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="they are system mode's")
NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
DIRECTORY = (
    "<filesystem type='mount'><driver type='virtiofs'/>{binary}<source dir='{dir}'/><target dir='t'/></filesystem>"
)


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


def beside(name: str, root: str) -> list[int]:
    """The processes of a program that have to do with an instance."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if words.split(b"\0")[0].endswith(name.encode()) and root.encode() in words:
            found.append(int(entry.name))
    return found


def start(instance: Instance, devices: str, more: str = "") -> tuple[Guest, int]:
    """Start a guest; returns its directory, and QEMU's pid."""
    xml = instance.xml(more=more, devices=devices)
    domain = instance.driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    return instance.driver.guest(instance.driver.guests.find(domain)), instance.qemu(domain)


def test_a_directory_is_served(instance: Instance) -> None:
    guest, qemu = start(instance, DIRECTORY.format(dir=instance.root, binary=""), SHARED)
    pids = beside("virtiofsd", instance.root)
    assert pids
    assert os.stat(f"/proc/{pids[0]}").st_uid == 0
    os.kill(qemu, signal.SIGKILL)
    for pid in pids:
        ends(pid)
    wait_for(lambda: not os.path.exists(f"{guest.private}/fs0-fs.sock"), "its socket's being gone")


def test_a_directory_is_served_as_it_is_said(instance: Instance) -> None:
    binary = (
        "<binary path='/usr/lib/qemu/virtiofsd' xattr='on'><cache mode='always'/><sandbox mode='chroot'/>"
        "<lock posix='off' flock='on'/><thread_pool size='3'/></binary>"
    )
    start(instance, DIRECTORY.format(dir=instance.root, binary=binary), SHARED)
    words = Path(f"/proc/{beside('virtiofsd', instance.root)[0]}/cmdline").read_text().split("\0")
    assert f"source={instance.root},cache=always,sandbox=chroot,xattr,no_posix_lock,flock" in words
    assert "--thread-pool-size=3" in words


def test_a_directory_that_is_not_there(instance: Instance) -> None:
    with pytest.raises(VirtError, match="the virtiofs export directory '/nonesuch' does not exist"):
        start(instance, DIRECTORY.format(dir="/nonesuch", binary=""), SHARED)


def test_a_program_that_does_not_work_ends_the_start(instance: Instance) -> None:
    """QEMU itself says that nobody serves it; and nothing is left."""
    with pytest.raises(VirtError):
        start(instance, DIRECTORY.format(dir=instance.root, binary="<binary path='/bin/false'/>"), SHARED)
    assert not beside("qemu-system-x86_64", instance.root)


def test_what_is_started_before_a_start_that_fails_is_ended(instance: Instance) -> None:
    """virtiofsd waits for QEMU, which never comes to that: its own arguments end it."""
    devices = DIRECTORY.format(dir=instance.root, binary="")
    arguments = f"<q:commandline xmlns:q='{NAMESPACE}'><q:arg value='-nonesuch'/></q:commandline></domain>"
    xml = instance.xml(more=SHARED, devices=devices).replace("</domain>", arguments)
    with pytest.raises(VirtError, match="-nonesuch: invalid option"):
        instance.driver.domain_create_xml(xml, 0)
    for pid in beside("virtiofsd", instance.root):
        ends(pid)


def test_a_bus_for_a_display(instance: Instance) -> None:
    guest, qemu = start(instance, "<graphics type='dbus'/>")
    (pid,) = beside("dbus-daemon", instance.root)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{guest.private}/dbus.sock")
        client.sendall(b"\0AUTH EXTERNAL " + b"0".hex().encode() + b"\r\n")
        assert client.recv(100).startswith(b"OK ")
    os.kill(qemu, signal.SIGKILL)
    ends(pid)


def test_reservations_are_seen_to(tmp_path: Path) -> None:
    """Only the helper: a device that has reservations no test has. It is there at once, and is ended with the guest."""
    disk = (
        "<disk type='block' device='lun'><driver name='qemu' type='raw'/><source dev='/dev/null'>"
        "<reservations managed='yes'/></source><target dev='sda' bus='scsi'/></disk>"
    )
    guest = Guest(str(tmp_path), "a", "a")
    os.makedirs(guest.private)
    made, ends = vhostuser.prepare(parse(domain_xml(disk)), guest, None, privileged=True)
    assert ends == {}
    helpers.start(made[0], guest.undo_path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{guest.private}/pr-helper0.sock")
        (pid,) = beside("qemu-pr-helper", str(tmp_path))
    undo.undo(guest.undo_path)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, -signal.SIGTERM, -signal.SIGKILL)
    assert not os.path.exists(f"{guest.private}/pr-helper0.sock")


def test_one_that_does_not_end_when_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "_END_SECONDS", 0.05)
    path = str(tmp_path / "undo")
    with subprocess.Popen(["sh", "-c", "trap '' TERM; echo; read wait"], stdin=PIPE, stdout=PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"\n"
        undo.note(path, "process", pid=program.pid, start=Process.of(program.pid).start)
        undo.undo(path)
        assert program.wait(SECONDS) == -signal.SIGKILL


def test_a_gpu_that_nobody_serves(instance: Instance) -> None:
    video = "<video><driver name='vhostuser'/><model type='virtio'/></video>"
    with pytest.raises(VirtError, match="Unable to find a satisfying vhost-user-gpu") as caught:
        start(instance, video, SHARED)
    assert caught.value.code == c.VIR_ERR_OPERATION_FAILED


def test_descriptions_hide_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early, late = tmp_path / "etc", tmp_path / "usr"
    for folder, name, text in (
        (late, "50-a.json", '{"type": "gpu", "binary": "/late"}'),
        (late, "60-b.json", '{"type": "gpu", "binary": "/other"}'),
        (early, "50-a.json", ""),
        (early, "70-c.json", "not JSON"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(helpers, "DIRECTORIES", (str(early), str(late)))
    assert helpers.device_program("gpu")[0] == "/other"
    assert helpers.device_program("fs", unless="/mine")[0] == "/mine"
    with pytest.raises(VirtError, match="Unable to find a satisfying virtiofsd"):
        helpers.device_program("fs")
