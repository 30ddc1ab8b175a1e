"""The linters and the type checker find nothing. They run as tests, so that one command says whether all is well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "--quiet", "."], id="ruff-check"),
        pytest.param(["ruff", "format", "--check", "--diff", "--quiet", "."], id="ruff-format"),
        pytest.param(["mypy"], id="mypy"),
    ],
)
def test_finds_nothing(command: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "script",
    [
        "contrib/packages.sh",
        "contrib/run",
        "contrib/test",
        "contrib/faults",
        "contrib/stuck",
        "contrib/fuzz/messages",
        ".ci/run",
        "tests/guests/init.sh",
    ],
)
def test_shell_scripts_can_be_parsed_by_a_plain_sh(script: str) -> None:
    result = subprocess.run(["/bin/sh", "-n", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
