"""virsh's commands about one guest and about the node say what they say with libvirtd 9.0.0."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

from tests.e2e import commands
from tests.helpers.instance import Instance

EXPECTED: Final = Path(__file__).parent / "expected" / "commands.json"
ROOT: Final = "\nMessages: tainted: running with undesirable elevated privileges"


def test_every_command(virtd: Instance) -> None:
    def virsh(*words: str) -> subprocess.CompletedProcess[str]:
        return virtd.virsh_result(*words, seconds=60)

    wrong = {}
    with commands.guest(virsh) as directory:
        answers = json.loads(EXPECTED.read_text())
        assert [command for command, _ in answers] == list(commands.COMMANDS)
        for number, (command, expected) in enumerate(answers):
            if not commands.possible(command):
                continue
            said = commands.run(virsh, directory, command)
            wanted = expected.replace(ROOT, "")  # there libvirtd ran QEMU as root
            if said != wanted:
                wrong[number, command] = (wanted, said)
    assert not wrong
