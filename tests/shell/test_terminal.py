"""virtsh and a person at a terminal: console, prompt, completion, hints, top."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import re
import signal
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.remote.conftest import Libvirtd, libvirtd
from tests.helpers.console import Console
from tests.helpers.instance import Instance
from tests.helpers.waiting import wait_ended
from tests.shell.conftest import Shell, start_guest
from tests.shell.shell import VIRTSH, run
from virtd.deadlines import limit
from virtd.errors import VirtError
from virtd.shell import hints
from virtd.shell.failure import Failure
from virtd.shell.session import Session
from virtd.state import locks

__all__ = ["libvirtd"]


def _answer(console: Console) -> None:
    """Type until the guest echoes it: what is typed before it has booted is lost."""
    for _ in range(20):
        console.type(b"x")
        try:
            console.until(b"x", 2)
        except AssertionError:
            continue
        return
    raise AssertionError(f"no echo, but {console.output!r}")


def test_a_console(shell: Shell, guest: str) -> None:
    with shell.terminal("console", guest) as console:
        before = termios.tcgetattr(console._terminal)
        console.until(b"Connected to domain 'g1'\r\nEscape character is ^] (Ctrl + ])\r\n")
        _answer(console)
        assert console.leave() == 0
        assert termios.tcgetattr(console._terminal) == before
    # Somebody else's console is not taken without being told to.
    with shell.terminal("console", guest) as first:
        first.until(b"Escape character")
        _answer(first)
        assert shell.error("console", guest) == ["error: Cannot run interactive console without a controlling TTY"]
        with shell.terminal("console", guest) as second:
            second.until(b"error: operation failed: Active console session exists for this domain")
        with shell.terminal("console", guest, "--force") as third:
            third.until(b"Escape character")
            first.until_end()


def test_the_console_ends_with_the_guest(shell: Shell, guest: str) -> None:
    with shell.terminal("-e", "^a", "console", guest) as console:
        before = termios.tcgetattr(console._terminal)
        console.until(b"Escape character is ^a (Ctrl + a)")
        _answer(console)
        shell("destroy", guest)
        console.until_end()
        assert termios.tcgetattr(console._terminal) == before


def test_a_killed_console_gives_the_terminal_back(local: Shell, boot_disk: Callable[..., Path]) -> None:
    from tests.shell.conftest import start_guest

    guest = start_guest(local, boot_disk())
    with local.terminal("console", guest) as console:
        before = termios.tcgetattr(console._terminal)
        console.until(b"Escape character")
        _answer(console)
        assert termios.tcgetattr(console._terminal) != before
        console.process.terminate()
        console.until_end()
        assert termios.tcgetattr(console._terminal) == before


def _prompted(libvirtd: Libvirtd, home: Path, *args: str) -> Console:
    env = {**os.environ, "TERM": "dumb", "XDG_STATE_HOME": str(home), "NO_COLOR": "1", "INPUTRC": "/dev/null"}
    return Console([*VIRTSH, "-c", libvirtd.uri("test"), *args], env=env)


def test_the_prompt(libvirtd: Libvirtd, tmp_path: Path) -> None:
    with _prompted(libvirtd, tmp_path) as shell:
        shell.until(b"Welcome to virtsh")
        shell.until(b"virtsh # ")
        shell.type(b"domst\t")
        shell.until(b"at")
        shell.type(b"e t\t")
        shell.until(b"est ")
        shell.type(b"\n")
        shell.until(b"running")
        shell.until(b"virtsh # ")
        shell.type(b"net-info --net\tdef\t\n")
        shell.until(b"virbr0")
        shell.until(b"virtsh # ")
        shell.type(b"half a li")
        shell.until(b"half a li")
        shell.process.send_signal(signal.SIGINT)  # Ctrl-C drops the line and nothing else
        shell.until(b"virtsh # ")
        shell.type(b"nonsense; list\n")
        shell.until(b"unknown command: 'nonsense'")
        shell.until(b"virtsh # ")
        shell.type(b"event --all --loop --timeout 1\n")
        shell.until(b"events received: 0")
        shell.until(b"virtsh # ")
        shell.type(b"cd /; pwd\n")
        shell.until(b"\r\n/\r\n")
        shell.type(b"connect --readonly\n")
        shell.until(b"virtsh > ")
        shell.type(b"destroy test\n")
        shell.until(b"read only access prevents virDomainDestroy")
        shell.until(b"virtsh > ")
        shell.type(b"\x04")
        assert shell.until_end() == 0
    history = tmp_path / "virtd/virtsh_history"
    assert "net-info --network default " in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600
    with _prompted(libvirtd, tmp_path) as shell:
        shell.until(b"virtsh # ")
        shell.type(b"\x1b[A\x1b[A\x1b[A\n")  # three up: cd /; pwd
        shell.until(b"\r\n/\r\n")
        shell.type(b"quit\n")
        assert shell.until_end() == 0


def test_lines_from_a_pipe(libvirtd: Libvirtd) -> None:
    result = run("-q", "-c", libvirtd.uri("test"), stdin="domid test\ndomid nope\nquit\nlist\n")
    assert result.stdout == "virtsh # domid test\n1\nvirtsh # domid nope\nvirtsh # quit\n"
    assert (result.stderr, result.returncode) == ("error: failed to get domain 'nope'\n", 0)


def test_a_connection_that_is_gone_is_made_again(instance: Instance) -> None:
    instance.start()
    with Shell(instance, instance.uri).terminal() as shell:
        shell.until(b"virtsh # ")
        shell.type(b"hostname\n")
        shell.until(b"virtsh # ")
        instance.kill("virtd: worker")
        shell.type(b"hostname\n")
        shell.until(b"the next command connects again")
        shell.until(b"virtsh # ")
        shell.type(b"uri\n")
        shell.until(instance.uri.encode())


def test_a_prompt_lasts(instance: Instance) -> None:
    """The server asks whether its client is alive, and is answered while the user thinks."""
    config = instance.root / "virtd.conf"
    config.write_text("keepalive_interval = 1\nkeepalive_count = 1\n")
    instance.start("--config", str(config))
    with Shell(instance, instance.uri).terminal() as shell:
        shell.until(b"virtsh # ")
        shell.type(b"hostname\n")
        shell.until(b"virtsh # ")
        worker = next(one for one in instance.processes() if one.title.startswith("virtd: worker"))
        # Had it not been answered, the server would have closed the connection after two seconds.
        assert not wait_ended(worker.pid, 4)
        shell.type(b"hostname\n")
        shell.until(b"virtsh # ")
        assert b"error" not in shell.output


def test_colours_are_for_terminals_that_want_them(libvirtd: Libvirtd, tmp_path: Path) -> None:
    plain = {**os.environ, "TERM": "xterm"}
    plain.pop("NO_COLOR", None)
    for env, coloured in (
        (plain, True),
        ({**plain, "NO_COLOR": "1"}, False),
        ({**plain, "TERM": "dumb"}, False),
    ):
        with Console([*VIRTSH, "-c", libvirtd.uri("test"), "list"], env=env) as shell:
            shell.until_end()
            assert (b"\x1b[32mrunning\x1b[0m" in shell.output) == coloured
    assert "\x1b" not in run("-c", libvirtd.uri("test"), "list", env=plain).stdout


def test_hints_are_for_people(libvirtd: Libvirtd) -> None:
    missing = "qemu+unix:///system?socket=/nonexistent/socket"
    for args, hint in (
        (["-c", missing, "list"], b"hint: no server listens at /nonexistent/socket: start one with `virtd --daemon`"),
        (["-c", libvirtd.uri("test"), "domstat test"], b"hint: did you mean domstat"),
        (["-c", libvirtd.uri("test"), "dominfo nope"], b"hint: `list --all` shows what there is at test+unix://"),
    ):
        with Console([*VIRTSH, *args]) as shell:
            shell.until(hint)
        assert "hint" not in run(*args).stderr


def test_top(shell: Shell, guest: str) -> None:
    with shell.terminal("top", "--delay", "1") as console:
        console.until(b"1 guest ")
        console.until(b"CPU %")
        console.until(guest.encode())
        console.type(b"m")
        console.until(b"sorted by memory")
        console.type(b"q")
        assert console.until_end() == 0
        assert console.output.rstrip().endswith(b"\x1b[?25h\x1b[?1049l")
    [line] = shell.data("top", "--delay", "1")
    assert (line["name"], line["state"]) == (guest, "running")
    assert re.match(r"\d\d:\d\d:\d\d  1 guest  CPU", shell("top", "--delay", "1"))


def test_a_long_start_says_that_it_goes_on(shell: Shell, boot_disk: Callable[..., Path]) -> None:
    """The start waits for a lock, as for a slow disk; then the console is there."""
    start_guest(shell, boot_disk())
    shell("destroy", "g1")
    uuid = shell("domuuid", "g1").strip()
    directory = shell.instance.root / "run/virtd/qemu" / uuid
    directory.mkdir()
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with shell.terminal("start", "g1", "--console") as console:
            console.until(b"\rstarting g1  1 s")
            fcntl.flock(lock, fcntl.LOCK_UN)
            console.until(b"\r\x1b[KDomain 'g1' started")
            console.until(b"Escape character is ^]")
            _answer(console)
            assert console.leave() == 0


def test_how_far_a_copy_is() -> None:
    script = "from virtd.shell.jobwatch import waiting\nwith waiting('copying v', lambda: (1 << 20, 4 << 20)): input()"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "80", "TERM": "xterm"}
    with Console([VIRTSH[0], "-c", script], env=environment) as console:
        console.until(b"copying v [##########..............................]  25%  1.0 MiB")
        console.type(b"\n")
        assert console.until_end() == 0
        assert console.output.endswith(b"\r\x1b[K")


def test_hints_say_who_and_what(tmp_path: Path) -> None:
    session = Session("qemu:///system")

    def hint(*messages: str) -> str | None:
        return hints.find(session, Failure(*messages))

    lock = str(tmp_path / "lock")
    with locks.held(lock, "virDomainTest", what="lock of a guest"), limit(0.01), pytest.raises(VirtError) as caught:
        locks.acquire(lock, "virDomainOther")
    assert (
        hint(caught.value.message) == f"`ps -fp {os.getpid()}` shows who holds it; it is free again when that has ended"
    )
    path = tmp_path / "socket"
    path.touch()
    path.chmod(0o660)
    os.chown(path, -1, 4)
    said = hint(f"Failed to connect socket to '{path}': Permission denied") or ""
    assert said.startswith(f"`setfacl -m u:{pwd.getpwuid(os.geteuid()).pw_name}:rw {path}` lets ")
    assert said.endswith(f"so does membership of the group {grp.getgrgid(4).gr_name}, from the next login on")
    assert hint(f"cannot open '{path}': Permission denied") == f"see `namei -l {path}` for who may use it"
    assert hint("no hint") is None


def test_ctrl_c_ends_waiting_as_in_virsh(remote: Shell) -> None:
    document = remote.instance.root / "new.xml"
    uuid = "<uuid>11111111-2222-3333-4444-555555555577</uuid>"
    document.write_text(
        f"<domain type='qemu'><name>n</name>{uuid}<memory>8192</memory><os><type>hvm</type></os></domain>"
    )
    answers = []
    for program in (["virsh"], VIRTSH):
        command = [*program, "-c", remote.uri, "event", "--event", "lifecycle", "--loop"]
        with Console(command, env=remote.instance.environment) as shell:
            for _ in range(20):  # until it listens
                remote("define", str(document))
                try:
                    shell.until(b"event 'lifecycle' for domain 'n': Defined", 1)
                except AssertionError:
                    continue
                break
            shell.process.send_signal(signal.SIGINT)
            shell.until(b"event loop interrupted\r\n")
            shell.until(b"events received: ")
            answers.append(shell.until_end())
    assert answers[0] == answers[1]
