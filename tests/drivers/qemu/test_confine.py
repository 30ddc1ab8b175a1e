"""What a confined process is: its user, its environment, its descriptors, its signals."""

import os
import pwd
import signal
import stat
from pathlib import Path

import pytest

from virtd import constants as c
from virtd.drivers.qemu.run import confine
from virtd.errors import VirtError

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root")
NOBODY = confine.User(65534, 65534, (65534,))


def run(tmp_path: Path, command: str, fds: list[int] | None = None, user: confine.User | None = None) -> list[str]:
    """The output of a shell command in confinement."""
    output = os.open(tmp_path / "output", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        environment = {"PATH": confine.PATH, "A": "b"}
        argv = ["/bin/sh", "-c", command]
        pid = confine.spawn(argv, environment=environment, output=output, fds=fds or [], user=user)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        return os.pread(output, 65536, 0).decode().splitlines()
    finally:
        os.close(output)


def test_environment_descriptors_and_session(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    os.write(writing, b"given")
    try:
        lines = run(
            tmp_path,
            f"env -u PWD -u _ -u OLDPWD -u SHLVL | sort; echo $$; ps -o sid= -p $$; umask; pwd; read x; echo end$x;"
            f" ls /proc/self/fd | tr '\\n' ' '; echo; head -c 5 /proc/self/fd/{reading}; echo; echo err >&2",
            [reading],
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert lines[:2] == ["A=b", f"PATH={confine.PATH}"]
    assert lines[2] == lines[3].strip()  # the leader of a session of its own
    assert lines[4:7] == ["0002", "/", "end"]
    # ls itself has the directory open; nothing else of ours is there.
    assert set(lines[7].split()) <= {"0", "1", "2", str(reading), "3", "4"}
    assert len(lines[7].split()) == 5
    assert lines[8:] == ["given", "err"]


def test_signals_are_as_a_program_expects_them(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        lines = run(tmp_path, "cat /proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGHUP, before)
    masks = dict(line.split(":\t") for line in lines if line.startswith("Sig"))
    assert masks["SigBlk"] == masks["SigIgn"] == masks["SigCgt"] == "0" * 16


def test_no_privileges_can_be_gained(tmp_path: Path) -> None:
    lines = run(tmp_path, "grep -E 'NoNewPrivs|Cap(Prm|Eff|Bnd)' /proc/self/status")
    values = dict(line.split(":\t") for line in lines)
    assert values["NoNewPrivs"] == "1"
    assert int(values["CapPrm"], 16) == int(values["CapEff"], 16) == 0
    if ROOT:
        assert int(values["CapBnd"], 16) == 0


@needs_root
def test_another_user(tmp_path: Path) -> None:
    user = confine.User(65534, 65534, (65534, 12345))
    assert run(tmp_path, "id -u; id -g; id -G", user=user) == ["65534", "65534", "65534 12345"]


def test_a_program_that_does_not_exist_is_an_error_and_no_process(tmp_path: Path) -> None:
    with open(tmp_path / "output", "w") as output, pytest.raises(VirtError) as caught:
        confine.spawn(["/nonexistent"], environment={}, output=output.fileno())
    assert caught.value.code == c.VIR_ERR_SYSTEM_ERROR
    assert caught.value.message == "Cannot run '/nonexistent': No such file or directory"
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_group_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with open(tmp_path / "output", "w") as output, pytest.raises(VirtError, match="cannot enter control group"):
        confine.spawn(["/bin/true"], environment={}, output=output.fileno(), group=str(tmp_path / "none"))


def test_a_group_is_entered_before_anything_is_run(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("")
    with open(tmp_path / "output", "w") as output:
        pid = confine.spawn(["/bin/true"], environment={}, output=output.fileno(), group=str(tmp_path))
    os.waitpid(pid, 0)
    assert (tmp_path / "cgroup.procs").read_text() == "0\n"


def test_who_qemu_runs_as() -> None:
    assert confine.find_user(privileged=False, user="root") is None
    assert confine.find_user(privileged=True, user="root") == confine.User(0, 0, (0,))
    assert confine.find_user(privileged=True, user="+4711") == confine.User(4711, 4711, (4711,))
    assert confine.find_user(privileged=True, user="4711", group="+12") == confine.User(4711, 12, (12,))
    nobody = pwd.getpwnam("nobody")
    found = confine.find_user(privileged=True, user="nobody", group="0")
    assert found is not None
    assert (found.uid, found.gid) == (nobody.pw_uid, 0)
    assert set(found.groups) >= {0, nobody.pw_gid}
    assert confine.User(1, 2, ()).label == "+1:+2"
    for wrong in ({"user": "no such user"}, {"user": "root", "group": "no such group"}, {"user": "+x"}):
        with pytest.raises(VirtError, match="Failed to parse"):
            confine.find_user(privileged=True, **wrong)


def test_the_environment_of_a_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.delenv("TMPDIR", raising=False)
    system = confine.environment("/run/g", privileged=True)
    assert system["HOME"] == "/run/g"
    assert system["XDG_CONFIG_HOME"] == "/run/g/.config"
    session = confine.environment("/run/g", privileged=False)
    assert session["HOME"] == "/home/u"
    assert session["XDG_CACHE_HOME"] == "/run/g/.cache"
    for made in (system, session):
        assert made["LC_ALL"] == "C"
        assert "SECRET" not in made
        assert "TMPDIR" not in made


@pytest.mark.parametrize(
    ("owner", "group", "mode", "allowed"),
    [
        (65534, 0, 0o600, True),
        (65534, 0, 0o466, False),
        (0, 65534, 0o060, True),
        (0, 65534, 0o646, False),
        (0, 0, 0o606, True),
        (0, 0, 0o660, False),
    ],
)
def test_permission_bits(owner: int, group: int, mode: int, allowed: bool) -> None:
    found = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, group, 0, 0, 0, 0))
    assert confine.may_use(found, NOBODY) is allowed
