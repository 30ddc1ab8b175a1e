"""The manual page and the completions for bash, fish and zsh, which all say what there is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.remote.conftest import Libvirtd, libvirtd
from tests.helpers.console import Console
from tests.shell.shell import VIRTSH, run
from virtd.shell import index, main, manual

__all__ = ["libvirtd"]

REPOSITORY = Path(__file__).parents[2]


def test_the_page_has_every_command_and_option() -> None:
    page = (REPOSITORY / "man/virtsh.1").read_text().replace("\\-", "-").replace("\\(aq", "'")
    for group in index.GROUPS:
        section = page.partition(f".SS {group.title} (help {group.keyword})\n")[2].partition("\n.S")[0]
        named = [line.removeprefix(".B ") for line in section.splitlines() if line.startswith(".B ")]
        assert named == group.names
        for module in group.modules:
            for name, command in index.commands(module).items():
                if name in named:
                    assert command.summary[1:] + "." in section, name
    for switch in main.SWITCHES:
        assert f"-{switch.short}" in page
        assert f"--{switch.long}" in page or not switch.long


def test_the_page_is_well_formed() -> None:
    result = subprocess.run(
        ["man", "--warnings", "--encoding=UTF-8", "--local-file", str(REPOSITORY / "man/virtsh.1")],
        capture_output=True,
        text=True,
        check=False,
        env={"MANWIDTH": "100", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_help() -> None:
    result = run("help")
    assert result.stdout.startswith("Grouped commands:\n\n Domain Management (help keyword 'domain'):\n")
    assert run("help", "host").stdout == manual.topic("host") + "\n"
    assert run("list", "--help").stdout == manual.topic("list") + "\n"
    assert "--connect=URI" in run("--help").stdout
    assert run("-V").stdout.startswith("virtsh, the command line client of virtd ")


# What follows `virtsh -c URI `, and what can stand in its last word's place.
_COMPLETIONS = [
    ("domst", ["domstate", "domstats"]),
    ("dominfo ", ["test"]),
    ("start --pa", ["--pass-fds", "--paused"]),
    ("net-info --network ", ["default"]),
    ("domblkinfo test ", ["vda"]),
    ("domifstat test aa:bb", ["bb:cc:dd:ee:ff"]),
    ("shutdown test --mode ag", ["agent"]),
    ("help snaps", ["snapshot", *(name for name in index.names() if name.startswith("snaps"))]),
    ("help filt", ["filter"]),
    ("--js", ["--json"]),
    ("cd /us", ["/usr/"]),
    ("nonsense ", []),
    ("dominfo nope ", []),
]


@pytest.fixture
def programs(tmp_path: Path) -> str:
    """A PATH on which virtsh is this one."""
    program = tmp_path / "virtsh"
    program.write_text(f"""#!/bin/sh\ncd {REPOSITORY} && exec {" ".join(VIRTSH)} "$@"\n""")
    program.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


@pytest.mark.parametrize(("line", "found"), _COMPLETIONS)
def test_completion_in_bash(line: str, found: list[str], libvirtd: Libvirtd) -> None:
    command = f"virtsh -c {libvirtd.uri('test')} {line}"
    script = f"""
        set -eu
        virtsh() {{ {" ".join(VIRTSH)} "$@"; }}
        . {REPOSITORY}/contrib/completions/virtsh.bash
        COMP_LINE={command!r} COMP_POINT={len(command)}
        _virtsh
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    result = run("-c", script, program="bash")
    assert result.stderr == ""
    assert sorted(result.stdout.split()) == sorted(found)


@pytest.mark.parametrize(("line", "found"), _COMPLETIONS)
def test_completion_in_fish(
    line: str, found: list[str], libvirtd: Libvirtd, programs: str, need_program: Callable[[str], str], tmp_path: Path
) -> None:
    need_program("fish")
    script = f"""
        source {REPOSITORY}/contrib/completions/virtsh.fish
        complete --do-complete "virtsh -c '{libvirtd.uri("test")}' {line}"
    """
    result = run("--no-config", "-c", script, program="fish", env={"PATH": programs, "HOME": str(tmp_path)})
    assert result.stderr == ""
    words = [candidate.partition("\t")[0] for candidate in result.stdout.splitlines()]
    # Unlike the others, fish replaces the whole word also behind a colon.
    assert sorted(words) == sorted("aa:" + one if one.startswith("bb:cc") else one for one in found)


def test_completion_in_zsh(
    libvirtd: Libvirtd, programs: str, need_program: Callable[[str], str], tmp_path: Path
) -> None:
    need_program("zsh")
    environment = {"PATH": programs, "HOME": str(tmp_path), "TERM": "dumb", "PS1": "READY> ", "LC_ALL": "C.UTF-8"}
    # Shorter than a line, which zsh would scroll.
    environment["VIRSH_DEFAULT_CONNECT_URI"] = libvirtd.uri("test")
    with Console(["zsh", "-f", "-i"], env=environment) as shell:
        shell.until(b"READY> ")
        shell.type(f"fpath=({REPOSITORY}/contrib/completions $fpath)\n".encode())
        shell.until(b"READY> ")
        shell.type(b"autoload -Uz compinit; compinit -D -u; unsetopt beep; setopt auto_list\n")
        shell.until(b"READY> ")
        for line, completed in (
            (b"dominfo \t", b"dominfo test "),
            (b"start --pau\t", b"start --paused "),
            (b"net-info --network \t", b"net-info --network default "),
            (b"domblkinfo test \t", b"domblkinfo test vda "),
            (b"domifstat test aa:bb\t", b"domifstat test aa:bb:cc:dd:ee:ff "),
            (b"--js\t", b"--json "),
        ):
            shell.type(b"virtsh -q " + line)
            shell.until(completed)
            shell.type(b"\x15\n")  # Ctrl-U: nothing of it is run
            shell.until(b"READY> ")
        shell.type(b"virtsh -q domst\t\t")
        shell.until(b"domstate  domstats")
