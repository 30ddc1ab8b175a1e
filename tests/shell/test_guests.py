"""Guests' lives, in virtsh's own process and by way of a server: what one does the other sees."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.instance import Instance
from tests.shell.conftest import Shell, start_guest
from tests.shell.shell import VIRTSH, run


def test_a_life(shell: Shell, guest: str) -> None:
    assert shell("domstate", guest, "--reason") == "running (booted)"
    assert shell("suspend", guest) == shell("resume", guest) == ""
    assert shell("domstate", guest, "--reason") == "running (unpaused)"
    number = shell("domid", guest)
    assert shell("domname", number) == guest
    assert shell("list", "--name") == guest
    assert shell("vcpucount", guest, "--current", "--live") == "1"
    assert shell.error("start", guest) == ["error: Domain is already active"]
    assert shell("destroy", guest) == ""
    assert shell("domstate", guest) == "shut off"
    assert shell.error("destroy", guest) == [
        f"error: Failed to destroy domain '{guest}'",
        "error: Requested operation is not valid: domain is not running",
    ]
    assert shell("undefine", guest) == ""
    assert shell.error("dominfo", guest) == [f"error: failed to get domain '{guest}'"]


def test_what_is_started_without_a_server_is_the_servers_too(local: Shell, boot_disk: Callable[..., Path]) -> None:
    guest = start_guest(local, boot_disk())
    local.instance.start()
    assert local.instance.virsh("list", "--name") == guest
    local.instance.virsh("suspend", guest)
    assert local("domstate", guest) == "paused"
    local("destroy", guest)
    assert local.instance.virsh("list", "--name") == ""
    local.instance.virsh("start", guest)
    local.instance.stop()
    assert local("list", "--name") == guest
    local("destroy", guest)


# What virsh and virtsh print of one and the same guest.
_QUESTIONS = [
    "list",
    "list --all --title --managed-save",
    "list --id --name --uuid",
    "list --state-paused",
    "dominfo {}",
    "domstate {} --reason",
    "domid {}",
    "domuuid {}",
    "dumpxml {}",
    "dumpxml {} --inactive",
    "dumpxml {} --xpath //devices/disk",
    "domblklist {} --details",
    "domiflist {}",
    "domblkinfo {} vda",
    "domdisplay {}",
    "vncdisplay {}",
    "ttyconsole {}",
    "domcontrol {}",
    "vcpucount {}",
    "vcpuinfo {} --pretty",
    "vcpupin {}",
    "emulatorpin {}",
    "iothreadinfo {}",
    "memtune {}",
    "schedinfo {}",
    "domblkerror {}",
    "domjobinfo {}",
    "domstats {} --state",
    "desc {}",
    "snapshot-list {}",
    "nodeinfo",
    "nodecpumap",
    "hostname",
    "uri",
    "version --daemon",
    "maxvcpus",
    "cpu-models x86_64",
    "capabilities",
    "domcapabilities",
    "net-list --all",
    "pool-list --all --details",
    "secret-list",
    "domif-getlink {} nope",
    "domblkstat {} nope",
    "setvcpus {} 9",
    "desc nope",
    "resume {}",
    "start {}",
]


def test_says_what_virsh_says(remote: Shell, boot_disk: Callable[..., Path]) -> None:
    guest = start_guest(remote, boot_disk())
    remote("suspend", guest)  # so that its numbers stand still
    line = "; ".join(question.format(guest) for question in _QUESTIONS if question != "resume {}")
    theirs = remote.instance.run("virsh", "-c", remote.uri, line, check=False)
    ours = remote.result(line)
    ours.stdout, theirs.stdout = (re.sub("(CPU time: +).*", r"\1-", one.stdout) for one in (ours, theirs))
    assert ours.stdout.splitlines() == theirs.stdout.splitlines()
    assert ours.stderr.splitlines() == theirs.stderr.splitlines()
    assert (ours.stdout, ours.returncode) == (theirs.stdout, theirs.returncode)


def test_read_only(shell: Shell, guest: str) -> None:
    result = shell.result("-r", f"domstate {guest}; destroy {guest}")
    assert result.stdout == "running\n\n\n"
    assert result.stderr.splitlines() == [
        f"error: Failed to destroy domain '{guest}'",
        "error: operation forbidden: read only access prevents virDomainDestroy",
    ]
    assert shell("domstate", guest) == "running"


def test_a_screenshot(shell: Shell, guest: str) -> None:
    picture = shell.instance.root / "screen.png"
    assert shell("screenshot", guest, str(picture)) == ""
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.read_bytes().endswith(b"IEND\xaeB`\x82")
    [said] = shell.result("screenshot", guest, str(picture)).stdout.splitlines()
    assert said == f"Screenshot saved to {picture}, with type of image/png"
    assert shell.error("screenshot", guest, str(picture), "--screen", "7") == [
        f"error: could not take a screenshot of {guest}",
        "error: Requested operation is not valid: no such screen ID",
    ]


def test_a_guest_bound_to_virtsh_ends_with_it(shell: Shell, boot_disk: Callable[..., Path]) -> None:
    guest = start_guest(shell, boot_disk())
    shell("destroy", guest)
    output = shell(f"event --event lifecycle --timeout 1; start {guest} --autodestroy; domstate {guest}")
    assert output.splitlines()[-1] == "running"
    shell.instance.run("sh", "-c", "true")
    # Its end comes after virtsh's own: wait for it as anybody would.
    with shell.terminal("event", "--event", "lifecycle", "--domain", guest, "--timeout", "10") as console:
        if shell("domstate", guest) != "shut off":
            console.until(b"Stopped")
    assert shell("domstate", guest) == "shut off"


def test_events_come_from_others(shell: Shell, guest: str) -> None:
    with shell.terminal("event", "--all", "--loop", "--domain", guest) as console:
        # Nobody says when it listens: so things happen until it has heard of one.
        for _ in range(20):
            shell(f"suspend {guest}; resume {guest}")
            try:
                console.until(f"for domain '{guest}': Suspended".encode(), 2)
            except AssertionError:
                continue
            break
        shell("desc", guest, "new")
        console.until(b"event 'metadata-change' for domain 'g1': type description, uri <null>")
        console.process.send_signal(signal.SIGINT)
        console.until(b"event loop interrupted")
        console.until(b"events received: ")
        assert console.until_end() == 0


def test_an_event_that_does_not_come(shell: Shell) -> None:
    result = shell.result("event", "--event", "reboot", "--timeout", "1")
    assert (result.stdout, result.returncode) == ("event loop timed out\nevents received: 0\n\n", 1)


def test_another_place(instances: Callable[[], Instance]) -> None:
    """--root, VIRTD_ROOT and qemu:///embed mean the same, each its own instance."""
    one, other = instances(), instances()
    document = one.root / "a.xml"
    document.write_text("<domain type='qemu'><name>a</name><memory>8192</memory><os><type>hvm</type></os></domain>")
    Shell(one, f"qemu:///embed?root={one.root}")("define", str(document))
    assert Shell(one, f"qemu:///{one.mode}")("list", "--all", "--name") == "a"
    assert Shell(other, f"qemu:///{one.mode}")("list", "--all", "--name") == ""
    assert Shell(other, f"qemu:///{one.mode}")("--root", str(one.root), "list", "--all", "--name") == "a"
    assert Shell(other, f"qemu:///embed?root={one.root}")("uri") == f"qemu:///embed?root={one.root}"


@pytest.mark.skipif(os.geteuid() != 0, reason="others' rights are for root to take away")
def test_a_user_without_rights_needs_no_server(tmp_path: Path) -> None:
    """The user's own guests are in this process; the machine's are the server's affair."""
    home = Path(os.environ.get("TMPDIR", "/tmp")) / f"virtsh-home-{os.getpid()}"
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    try:
        names = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
        env = dict.fromkeys(names, str(home))
        as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"]
        if run(*as_nobody, sys.executable, "-c", "import lxml.etree", program="setpriv", env=env).returncode:
            pytest.skip("this Python is not for others to use")
        result = run(*as_nobody, *VIRTSH, "-q", "list --all; uri; net-list", program="setpriv", env=env)
        assert (result.stdout, result.stderr) == ("qemu:///session\n", "")
        result = run(*as_nobody, *VIRTSH, "-q", "-c", "qemu:///system", "list", program="setpriv", env=env)
        assert result.stderr.splitlines()[0] == "error: failed to connect to the hypervisor"
        assert "/run/libvirt/libvirt-sock" in result.stderr
    finally:
        shutil.rmtree(home)
