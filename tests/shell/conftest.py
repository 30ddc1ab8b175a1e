"""What the tests of virtsh share: virtsh itself on an instance, in its own process or by way of a server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.guests import xml
from tests.helpers.console import Console
from tests.helpers.instance import Instance
from tests.shell.shell import VIRTSH


class Shell:
    """virtsh on an instance."""

    def __init__(self, instance: Instance, uri: str) -> None:
        self.instance = instance
        self.uri = uri

    def result(self, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run virtsh; what it leaves running belongs to the instance."""
        return self.instance.run(*VIRTSH, "-c", self.uri, *args, stdin=stdin, check=False)

    def __call__(self, *args: str) -> str:
        """What virtsh prints, without headings and blank lines. It has to succeed."""
        result = self.result("-q", *args)
        assert (result.stderr, result.returncode) == ("", 0), result.stdout
        return result.stdout.strip("\n")

    def error(self, *args: str) -> list[str]:
        """What virtsh says on standard error. It has to fail."""
        result = self.result("-q", *args)
        assert result.returncode == 1, result.stdout
        return result.stderr.splitlines()

    def data(self, *args: str) -> Any:
        """What virtsh prints with --json."""
        return json.loads(self("--json", *args))

    def terminal(self, *args: str) -> Console:
        """virtsh on a terminal."""
        env = {**self.instance.environment, "TERM": "xterm", "XDG_STATE_HOME": str(self.instance.root / "state")}
        return Console([*VIRTSH, "-c", self.uri, *args], env=env)


@pytest.fixture
def local(instance: Instance) -> Shell:
    """virtsh without any server."""
    return Shell(instance, f"qemu:///{instance.mode}")


@pytest.fixture
def remote(virtd: Instance) -> Shell:
    """virtsh by way of a running virtd."""
    return Shell(virtd, virtd.uri)


@pytest.fixture(params=["local", "remote"])
def shell(request: pytest.FixtureRequest) -> Shell:
    """Either."""
    found: Shell = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def guest(shell: Shell, boot_disk: Callable[..., Path]) -> str:
    """The name of a guest that runs."""
    return start_guest(shell, boot_disk())


def start_guest(shell: Shell, disk: Path, name: str = "g1") -> str:
    """Define and start a guest."""
    video = "<video><model type='vga'/></video><graphics type='vnc' port='-1' autoport='yes'/>"
    path = shell.instance.root / f"{name}.xml"
    path.write_text(xml.boot_domain(name, disk, devices=video))
    shell("define", str(path))
    shell("start", name)
    return name
