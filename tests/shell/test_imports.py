"""What `virtsh list` imports: it has to be quick, and each library costs more than the whole command may."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.shell.shell import VIRTSH

_HEAVY = (
    "lxml",
    "asyncio",
    "click",
    "dataclasses",
    "inspect",
    "logging",
    "json",
    "virtd.conf",
    "argparse",
)


def test_a_client_of_a_server_imports_little(virtd: object) -> None:
    uri = virtd.uri  # type: ignore[attr-defined]
    command = [VIRTSH[0], "-X", "importtime", *VIRTSH[1:], "-c", uri, "list"]
    repository = Path(__file__).parents[2]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=repository)
    imported = {
        line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time")
    }
    assert "virtd.shell.commands.listing" in imported
    assert not [name for name in imported if name.startswith(_HEAVY)]
    modules = {name for name in imported if name.startswith("virtd.shell.commands.")}
    assert modules == {"virtd.shell.commands.listing"}
    assert sys.executable == VIRTSH[0]
