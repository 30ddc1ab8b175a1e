"""The manual page and the completion for bash, which both say what there is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.drivers.remote.conftest import Libvirtd, libvirtd
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


@pytest.mark.parametrize(
    ("line", "found"),
    [
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
    ],
)
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
