"""What `virtsh list` imports: it has to be quick, and each library costs more than the whole command may."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import xdrlib3

_REPOSITORY = Path(__file__).parents[2]
# Libraries, and parts of virtd, that take a millisecond or more.
_HEAVY = (
    "argparse", "asyncio", "click", "contextlib", "dataclasses", "enum", "inspect", "json", "logging", "lxml", "re",
    "selectors", "socket", "subprocess", "typing", "urllib", "virtd.conf", "virtd.drivers.remote.ssh",
)  # fmt: skip


def _imported(*args: str) -> set[str]:
    """The modules that the command virtsh imports; without what the machine's own Python start-up does."""
    libraries = [str(_REPOSITORY), str(Path(xdrlib3.__file__).parents[1])]
    result = subprocess.run(
        [sys.executable, "-S", "-X", "importtime", _REPOSITORY / "bin" / "virtsh", *args],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(libraries)},
    )
    return {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time")}


def test_a_client_of_a_server_imports_little(virtd: object) -> None:
    imported = _imported("-c", virtd.uri, "list")  # type: ignore[attr-defined]
    assert not [name for name in imported if name in _HEAVY or name.startswith(tuple(f"{heavy}." for heavy in _HEAVY))]
    modules = {name for name in imported if name.startswith("virtd.shell.commands.")}
    assert modules == {"virtd.shell.commands.listing"}
