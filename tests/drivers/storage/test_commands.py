"""virsh's commands about pools of all types say what they say with libvirtd 9.0.0."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.drivers.storage import commands
from tests.drivers.storage.conftest import Loop, Stage
from tests.helpers.instance import Instance

EXPECTED: Final = Path(__file__).parent / "expected" / "pools.json"


def test_every_command(
    every_type: Stage,
    virtd: Instance,
    loop: Loop,
    tmp_path: Path,
    need_program: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VISUAL", "true")  # pool-edit without a change
    device = loop(64)
    for program in ("parted", "lvm"):
        need_program(program)

    def virsh(*words: str) -> subprocess.CompletedProcess[str]:
        return virtd.virsh_result(*words, seconds=60)

    wrong = {}
    answers = json.loads(EXPECTED.read_text())
    assert [command for command, _ in answers] == commands.commands()
    for number, (command, expected) in enumerate(answers):
        said = commands.run(virsh, tmp_path, device, command)
        if said != expected:
            wrong[number, command] = (expected, said)
    assert not wrong
