"""Connections by ssh: both clients, with and without a server at the far end."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.guests import xml
from tests.helpers.instance import Instance
from tests.linkage.conftest import Sshd, talk, write_program
from tests.shell.conftest import Shell
from virtd import constants as c
from virtd.deadlines import limit
from virtd.drivers import open_connection
from virtd.drivers.base import Context
from virtd.drivers.remote import address, ssh
from virtd.errors import VirtError
from virtd.state import paths

XML = "<domain type='qemu'><name>quiet</name><memory>16384</memory><os><type arch='x86_64'>hvm</type></os></domain>"
HERE = paths.below("/r", privileged=True)


def virsh(sshd: Sshd, uri: str, *command: str, check: bool = True) -> str:
    """Debian's virsh by ssh; with its errors, if it must fail."""
    result = sshd.instance.run("virsh", "--quiet", "-c", uri, *command, check=check)
    return (result.stdout + result.stderr).strip()


@pytest.fixture(params=["with a server", "without a server"])
def far(request: pytest.FixtureRequest, sshd: Sshd) -> Sshd:
    """An sshd, with and without a virtd beside it."""
    if request.param == "with a server":
        sshd.instance.start()
    return sshd


def test_virsh_unmodified(far: Sshd, tmp_path: Path) -> None:
    (tmp_path / "quiet.xml").write_text(XML)
    virsh(far, far.uri(), "define", str(tmp_path / "quiet.xml"))
    assert virsh(far, far.uri("proxy=native"), "list", "--all", "--name") == "quiet"
    assert virsh(far, far.uri(), "uri").startswith("qemu+ssh://far/")
    error = virsh(far, far.uri(), "dominfo", "nobody", check=False)
    assert "failed to get domain 'nobody'" in error
    read_only = far.instance.run("virsh", "-r", "-c", far.uri(), "undefine", "quiet", check=False)
    assert "read only access" in read_only.stderr
    assert read_only.returncode == 1
    virsh(far, far.uri(), "undefine", "quiet")


def test_a_console_by_virsh(far: Sshd, boot_disk: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "web.xml").write_text(xml.boot_domain("web", boot_disk()))
    virsh(far, far.uri(), "create", str(tmp_path / "web.xml"))
    talk(far.uri(), far.instance, b"over ssh")
    virsh(far, far.uri(), "destroy", "web")


def test_a_volume_there_and_back(far: Sshd, tmp_path: Path) -> None:
    """Streams of files, by virsh, in both directions: nothing is lost or out of order."""
    data = os.urandom(4 << 20)
    (tmp_path / "data").write_bytes(data)
    for command in (
        f"pool-create-as p dir --target {far.instance.root}/pool --build",
        "vol-create-as p v 4M",
        f"vol-upload v {tmp_path}/data --pool p",
        f"vol-download v {tmp_path}/back --pool p",
        "vol-delete v --pool p",
        "pool-destroy p",
    ):
        virsh(far, far.uri(), *command.split())
    assert (tmp_path / "back").read_bytes() == data


def test_events_by_libvirt(far: Sshd, libvirt: ModuleType) -> None:
    libvirt.virEventRegisterDefaultImpl()
    connection = libvirt.open(far.uri())
    heard: list[int] = []
    callback = connection.domainEventRegisterAny(
        None,
        libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
        lambda _conn, _dom, event, _detail, _data: heard.append(event),
        None,
    )
    guest = connection.defineXML(XML)
    guest.undefine()
    late: list[int] = []
    timer = libvirt.virEventAddTimeout(20000, lambda _timer, _data: late.append(1), None)
    while len(heard) < 2 and not late:
        libvirt.virEventRunDefaultImpl()
    libvirt.virEventRemoveTimeout(timer)
    assert heard == [libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED]
    connection.domainEventDeregisterAny(callback)
    del guest
    connection.close()


def test_the_remote_driver(far: Sshd, context: Context, boot_disk: Callable[..., Path]) -> None:
    connection = open_connection(far.uri(), context)
    [driver] = connection.drivers
    assert connection.require("connect_get_uri", "")() == f"qemu:///{far.instance.mode}"
    assert connection.require("connect_is_secure", "")() == 1
    connection.require("connect_domain_event_callback_register_any", "")(c.VIR_DOMAIN_EVENT_ID_LIFECYCLE, None)
    guest = connection.require("domain_create_xml", "")(xml.boot_domain("web", boot_disk()), 0)
    [descriptor] = connection.event_fds()
    names = []
    while "STARTED" not in names:
        assert select.select([descriptor], [], [], 20)[0]
        events = {c.VIR_DOMAIN_EVENT_STARTED: "STARTED"}
        names += [events.get(event.values[1].event, "") for event in connection.read_events()]
    _, stream = driver.open_stream("domain_open_console", guest, None, 0)
    stream.send(b"over ssh")
    heard = b""
    with limit(20):
        while b"over ssh" not in heard:
            heard += stream.receive().data
    stream.abort()
    with pytest.raises(VirtError) as caught:
        connection.require("domain_lookup_by_name", "")("nobody")
    assert caught.value.code == c.VIR_ERR_NO_DOMAIN
    connection.require("domain_destroy_flags", "")(guest, 0)
    tunnel = driver.client._link._tunnel  # type: ignore[attr-defined]
    connection.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(tunnel._pid, os.WNOHANG)


def test_calls_by_children(far: Sshd, context: Context) -> None:
    """A child that calls has a connection of its own, and leaves the parent's alone."""
    connection = open_connection(far.uri(), context)
    lookup = connection.require("domain_lookup_by_name", "")
    pid = os.fork()
    if not pid:
        status = 1
        try:
            lookup("nobody")
        except VirtError as error:
            status = 0 if error.code == c.VIR_ERR_NO_DOMAIN else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(VirtError, match="nobody"):
        lookup("nobody")
    connection.close()


def test_a_killed_ssh_is_a_plain_error(far: Sshd, context: Context) -> None:
    connection = open_connection(far.uri(), context)
    [driver] = connection.drivers
    os.kill(driver.client._link._tunnel._pid, signal.SIGKILL)  # type: ignore[attr-defined]
    with pytest.raises(VirtError) as caught:
        connection.require("connect_get_hostname", "")()
    # What was sent and not read by ssh makes a reset of the end.
    assert caught.value.message in (
        "End of file while reading data: ssh was killed by signal 9: Input/output error",
        "Cannot recv data: ssh was killed by signal 9: Connection reset by peer",
        "Cannot write data: ssh was killed by signal 9: Broken pipe",
    )
    with pytest.raises(VirtError, match="client socket is closed"):
        connection.require("connect_get_hostname", "")()
    connection.close()


def test_the_far_end_dies(far: Sshd, context: Context) -> None:
    connection = open_connection(far.uri(), context)
    for pid in far.sessions()[1:]:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(VirtError) as caught:
        connection.require("connect_get_hostname", "")()
    # ssh has noticed it either by reading or by writing; or it could just tell that all is over.
    assert re.search("Connection to 127.0.0.1|disconnect|ssh ended with status", caught.value.message)
    connection.close()


@pytest.mark.parametrize("client", ["virsh", "virtd"])
def test_what_ssh_says_is_said(sshd: Sshd, context: Context, client: str) -> None:
    (sshd.here / "known_hosts").unlink()
    uri = sshd.uri("no_tty=1")
    if client == "virsh":
        said = virsh(sshd, uri, "list", check=False)
    else:
        with pytest.raises(VirtError) as caught:
            open_connection(uri, context)
        said = caught.value.message
    assert "Host key verification failed." in said
    # Accepted once, known for ever.
    virsh(sshd, sshd.uri("no_verify=1", "no_tty=1"), "version")
    open_connection(uri, context).close()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["the tunnel breaks", "nobody answers"])
def test_the_shell_by_ssh(far: Sshd, end: signal.Signals) -> None:
    """The prompt lasts, hears of the connection's end by itself, and the next command has another connection."""
    with Shell(far.instance, far.uri()).terminal("-k", "1", "-K", "1") as shell:
        shell.until(b"virtsh # ")
        shell.type(b"hostname\n")
        shell.until(b"virtsh # ")
        shell.type(b"ur")  # in the middle of a line
        shell.until(b"ur")
        session = far.sessions()[-1]
        os.kill(session, end)
        try:
            shell.until(b"Disconnected from qemu+ssh://far/")
            shell.until(b"virtsh # ur")
            shell.type(b"i; list --all\n")
            shell.until(b"qemu+ssh://far/")
            shell.until(b"Name")
            shell.until(b"virtsh # ")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(session, signal.SIGKILL)
        assert shell.output.count(b"error") == 1
        shell.type(b"quit\n")
        assert shell.until_end() == 0


def test_keyfile(sshd: Sshd, context: Context) -> None:
    key = sshd.here / "client"
    key.rename(sshd.here / "moved")
    with pytest.raises(VirtError, match="Permission denied"):
        open_connection(sshd.uri("no_tty=1"), context)
    open_connection(sshd.uri("no_tty=1", f"keyfile={sshd.here}/moved"), context).close()


def test_netcat(sshd: Sshd, context: Context, need_program: Callable[[str], str]) -> None:
    need_program("nc")
    sshd.instance.start()
    sshd.helper.unlink()
    uri = sshd.uri(f"socket={sshd.instance.socket}")
    assert virsh(sshd, uri, "list") == ""
    open_connection(uri, context).close()
    with pytest.raises(VirtError, match=f"{ssh.HELPER}: "):
        open_connection(sshd.uri("proxy=native"), context)
    with pytest.raises(VirtError, match="nonesuch: "):
        open_connection(sshd.uri("proxy=netcat", "netcat=nonesuch"), context)


def test_the_servers_own_error(sshd: Sshd, context: Context) -> None:
    sshd.helper.write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(VirtError) as caught:
        open_connection(sshd.uri(), context)
    assert ": ssh ended with status 7: " in caught.value.message
    with pytest.raises(VirtError, match="cannot execute binary /nonesuch: No such file or directory"):
        open_connection("qemu+ssh://far/system?command=/nonesuch", context)


def test_another_program(instance: Instance, context: Context, tmp_path: Path) -> None:
    program = f"#!/bin/sh\nexec {sys.executable} -m virtd.server.sshhelper --root {instance.root} test:///default\n"
    command = write_program(tmp_path / "carry", program.replace("test:///default", f"qemu:///{instance.mode}"))
    connection = open_connection(f"qemu+ext://far/{instance.mode}?command={command}", context)
    assert connection.require("connect_get_uri", "")() == f"qemu:///{instance.mode}"
    connection.close()
    with pytest.raises(VirtError, match="for 'ext' transport, command is required"):
        open_connection("qemu+ext://far/system", context)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("qemu+ssh://h/system", []),
        ("qemu+ssh://me@h:2222/system", ["-p", "2222", "-l", "me"]),
        ("qemu+ssh://me%40x@h/system?keyfile=/k", ["-l", "me@x", "-i", "/k"]),
        ("qemu+ssh://h/system?no_tty=1&no_verify=1", ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]),
        ("qemu+ssh://h/system?no_tty=0&no_verify=0", []),
        ("qemu+ssh://h/system?command=/usr/bin/myssh", []),
    ],
)
def test_the_command_line_is_libvirts(uri: str, words: list[str], tmp_path: Path) -> None:
    """All but the last word, which is for the shell at the far end, is what virsh itself runs."""
    log = tmp_path / "log"
    script = f'#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done >{log}\n'
    write_program(tmp_path / "ssh", script)
    where = "&" if "?" in uri else "?"
    subprocess.run(
        ["virsh", "-c", f"{uri.split('command')[0]}{where}command={tmp_path}/ssh".replace("?&", "?"), "list"],
        capture_output=True,
        check=False,
    )
    theirs = log.read_text().splitlines()
    ours = ssh._ssh(address.parse(uri, HERE))
    assert ours[1:-1] == theirs[: len(ours) - 2]
    assert [word for word in ours[1:-1] if word not in ("-T", "-e", "none", "--", "h")] == words
    assert ours[0] == ("/usr/bin/myssh" if "command" in uri else "ssh")


@pytest.mark.parametrize(
    ("uri", "code", "text"),
    [
        ("qemu+ssh://h/system?no_tty=x", c.VIR_ERR_INVALID_ARG, "Failed to parse value of URI component no_tty"),
        ("qemu+ssh://h/system?proxy=x", c.VIR_ERR_INVALID_ARG, "Unknown proxy type 'x'"),
        ("qemu+ssh://h/system?mode=x", c.VIR_ERR_INVALID_ARG, "Unknown remote mode 'x'"),
        ("qemu+ssh://h/system?mode=direct", c.VIR_ERR_OPERATION_UNSUPPORTED, "Cannot use direct socket mode for ssh"),
    ],
)
def test_wrong_options(uri: str, code: int, text: str) -> None:
    with pytest.raises(VirtError, match=text) as caught:
        ssh.start(address.parse(uri, HERE))
    assert caught.value.code == code


def test_what_the_far_end_is_told() -> None:
    def told(uri: str, *, read_only: bool = False) -> str:
        return ssh._far_end(address.parse(uri, HERE, read_only=read_only))

    assert told("qemu+ssh://h/system?proxy=native") == "virt-ssh-helper qemu:///system"
    assert told("qemu+ssh://h/system?proxy=native&x=1", read_only=True) == "virt-ssh-helper -r 'qemu:///system?x=1'"
    assert told("qemu+ssh://h/system").startswith("if command -v virt-ssh-helper")
    assert told("qemu+ssh://h/system", read_only=True).endswith("nc $q -U /run/libvirt/libvirt-sock-ro; fi")
    assert told("qemu+ssh://h/system?socket=/a b").endswith("nc $q -U '/a b'")
    assert "virt-ssh-helper" not in told("qemu+ssh://h/system?socket=/s")
    session = told("qemu+ssh://h/session?proxy=netcat&netcat=ncat")
    assert session.endswith('ncat $q -U "${XDG_RUNTIME_DIR:-$HOME/.cache}/libvirt/libvirt-sock"')
