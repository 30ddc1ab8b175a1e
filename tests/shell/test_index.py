"""The table of commands: whole, explained, and as virsh has it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import pytest

from virtd.protocol.programs import METHODS
from virtd.shell import complete, index, manual, optionhelp
from virtd.shell.command import FLAG

# What virsh has not, and what it writes in another way for reasons of its own.
_OWN = {"top", "complete", "net-doctor"}
_OTHERWISE = {"domstats", "echo", "help"}


def test_the_index_and_the_modules_agree() -> None:
    indexed: dict[str, set[str]] = {}
    for group in index.GROUPS:
        for module, names in group.modules.items():
            indexed.setdefault(module, set()).update(names.split())
    declared = {module: set(index.commands(module)) for module in indexed}
    assert declared == indexed


@pytest.mark.parametrize("name", index.names())
def test_every_command_is_explained(name: str) -> None:
    command = index.find(name)
    assert command is not None
    assert command.summary
    assert not command.summary.endswith(".")
    names = [option.name for option in command.options]
    assert len(names) == len(set(names))
    for option in command.options:
        assert optionhelp.find(name, option.name), option.name
    for option_name in command.kinds:
        assert option_name in names
    for other, _ in command.aliases.values():
        assert other in names
    assert manual.topic(name).startswith(f"  NAME\n    {name} - {command.summary}\n")


def test_every_help_text_has_its_option() -> None:
    used = {name: [option.name for option in index.find(name).options] for name in index.names()}  # type: ignore[union-attr]
    optionhelp.find("list", "all")
    for key in optionhelp._texts:
        command, dot, option = key.rpartition(".")
        assert option in used[command] if dot else any(option in names for names in used.values()), key


def test_every_kind_of_value_can_be_completed() -> None:
    known = set(complete._FIXED) | {"path", "name"}
    known |= {name[1:].replace("_", "-") for name in dir(complete.Completer) if not name.startswith("__")}
    for name in index.names():
        command = index.find(name)
        assert command is not None
        assert set(command.kinds.values()) <= known, name


def test_the_commands_are_those_of_virsh(need_program: Callable[[str], str]) -> None:
    virsh = need_program("virsh")
    listed = subprocess.run([virsh, "help"], capture_output=True, text=True, check=True).stdout
    theirs = set(re.findall(r"^    ([a-z][a-z-]*) ", listed, re.MULTILINE))
    assert theirs == set(index.names()) - _OWN
    names = sorted(theirs - _OTHERWISE)
    line = "; ".join(f"help {name}" for name in names)
    texts = subprocess.run([virsh, line], capture_output=True, text=True, check=True).stdout
    synopses = re.findall(r"SYNOPSIS\n    (.*)\n", texts)
    assert len(synopses) == len(names)
    for name, synopsis in zip(names, synopses, strict=True):
        command = index.find(name)
        assert command is not None
        assert " ".join([name, *(manual.synopsis_of(option) for option in command.options)]) == synopsis


@pytest.mark.parametrize("name", ["send-key", "schedinfo", "qemu-agent-command", "snapshot-create-as"])
def test_what_is_given_by_its_place_ends_up_in_the_list(name: str) -> None:
    command = index.find(name)
    assert command is not None
    places = [option for option in command.options if option.positional and option.kind != FLAG]
    assert places[-1].kind == "rest"


def test_the_procedures_that_commands_call_are_in_the_table() -> None:
    """A misspelt name would be found out only when somebody uses the command."""
    from pathlib import Path

    import virtd.shell

    directory = Path(virtd.shell.__file__).parent
    for path in directory.rglob("*.py"):
        for name in re.findall(r"session\.(?:call|stream)\(\s*\"(\w+)\"", path.read_text()):
            assert name in METHODS, f"{path.name}: {name}"
