"""virt-ssh-helper by itself, joined by a socket pair or by pipes."""

from __future__ import annotations

import configparser
import importlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers.instance import REPOSITORY, Instance
from virtd.protocol import codec
from virtd.protocol.framing import Framer
from virtd.protocol.messages import make_call
from virtd.protocol.programs import METHODS
from virtd.server.sshhelper import command


def helper(*arguments: str, root: Path | None = None, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run virt-ssh-helper to its end."""
    environment = {key: value for key, value in os.environ.items() if key != "VIRTD_ROOT"}
    if root:
        environment["VIRTD_ROOT"] = str(root)
    return subprocess.run(
        [sys.executable, "-m", "virtd.server.sshhelper", *arguments],
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ([], 2, "Missing argument 'URI'"),
        (["--bogus"], 2, "No such option '--bogus'"),
        (["qemu+ssh://h/system"], 2, "is not a URI of this machine"),
        (["qemu://h/system"], 2, "is not a URI of this machine"),
        (["remote:qemu:///system"], 2, "is not a URI of this machine"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], status: int, text: str) -> None:
    result = helper(*arguments)
    assert result.returncode == status
    [line] = result.stderr.decode().splitlines()
    assert line.startswith("virt-ssh-helper: ")
    assert text in line
    assert result.stdout == b""


def test_version() -> None:
    assert helper("--version").stdout == b"virt-ssh-helper 0.1.0 (libvirt 9.0.0)\n"


def test_the_system_without_a_server_is_for_root(nobody: int) -> None:
    result = helper("qemu:///system", user=nobody, cwd=REPOSITORY)
    if b"Permission denied" not in result.stderr:
        assert b"without a server, qemu:///system is for root only" in result.stderr
    assert result.returncode == 5


def calls(mode: str) -> bytes:
    """What a client says that asks for one thing and then shuts down its side."""
    made = [("connect_open", (f"qemu:///{mode}", 0)), ("connect_get_uri", ())]
    return b"".join(make_call(METHODS[name], number, args).to_bytes() for number, (name, args) in enumerate(made))


@pytest.mark.parametrize("server", [True, False])
def test_pipes_and_half_close(instance: Instance, server: bool) -> None:
    """Standard input may end first: what was asked for before is still answered."""
    if server:
        instance.start()
    result = helper(f"qemu:///{instance.mode}", root=instance.root, input=calls(instance.mode))
    framer = Framer()
    framer.receive(result.stdout)
    opened, uri = framer.next_message(), framer.next_message()
    assert opened
    assert uri
    assert codec.decode_result(METHODS["connect_get_uri"], uri.payload) == f"qemu:///{instance.mode}"


def test_read_only(instance: Instance) -> None:
    if instance.mode == "session":
        pytest.skip("a session has no read-only socket")
    calls = [("connect_open", ("qemu:///system", 0)), ("domain_define_xml", ("<domain/>",))]
    data = b"".join(make_call(METHODS[name], 1, args).to_bytes() for name, args in calls)
    for server in (False, True):
        if server:
            instance.start()
        result = helper("-r", "qemu:///system", root=instance.root, input=data)
        assert b"read only access" in result.stdout


def test_much_both_ways(tmp_path: Path) -> None:
    """A server that sends back what it gets: 32 MiB come through whole, by a helper that keeps little of it."""
    sock = socket.socket(socket.AF_UNIX)
    (tmp_path / "run/libvirt").mkdir(parents=True)
    sock.bind(str(tmp_path / "run/libvirt/libvirt-sock"))
    sock.listen()

    def echo() -> None:
        connection, _ = sock.accept()
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    server = threading.Thread(target=echo)
    server.start()
    data = bytes(range(256)) * (32 << 12)
    result = helper("qemu:///system" if os.geteuid() == 0 else "qemu:///session", root=tmp_path, input=data)
    server.join(10)
    sock.close()
    assert result.returncode == 0
    assert result.stdout == data


def test_the_client_is_gone_before_the_answer(tmp_path: Path) -> None:
    """Nobody reads any more, and nothing is sent: the helper sees it all the same."""
    sock = socket.socket(socket.AF_UNIX)
    (tmp_path / "run/libvirt").mkdir(parents=True)
    sock.bind(str(tmp_path / "run/libvirt/libvirt-sock"))
    sock.listen()
    reader, writer = os.pipe()
    running = subprocess.Popen(
        [sys.executable, "-m", "virtd.server.sshhelper", f"--root={tmp_path}", "qemu:///system"],
        stdin=subprocess.PIPE,
        stdout=writer,
    )
    os.close(writer)
    connection, _ = sock.accept()
    os.close(reader)
    assert running.wait(20) == 0
    assert connection.recv(1) == b""
    connection.close()
    sock.close()
    assert running.stdin
    running.stdin.close()


def test_the_man_page_has_all_options() -> None:
    page = (REPOSITORY / "man/virt-ssh-helper.1").read_text().replace("\\-", "-")
    for parameter in command.params:
        for option in parameter.opts:
            assert option in page or option == "uri", option


def test_the_entry_points_are_there() -> None:
    """What setup.cfg calls a program is a function."""
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    scripts = dict(
        line.split(" = ") for line in parser["options.entry_points"]["console_scripts"].splitlines() if line.strip()
    )
    assert {"virtd", "virt-ssh-helper"} <= scripts.keys()
    module, _, function = scripts["virt-ssh-helper"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
