"""Words to commands with their arguments.

Nothing runs before all commands of a line have been understood. Options stand anywhere, `--` ends them; what is no
option fills those that can be given by their place, in their order.
"""

from __future__ import annotations

from virtd.shell import index
from virtd.shell.command import FLAG, HELP, JSON, REST, Args, Command, Option
from virtd.shell.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def parse(words: list[str], trace: Callable[[str], None] = lambda text: None) -> Args:
    """Understand one command.

    Args:
        words: the command and its options.
        trace: is told each option as it is understood.

    Raises:
        Failure: there is no such command, or it does not take these options.
    """
    command = index.find(words[0])
    if command is None:
        raise Failure(f"unknown command: '{words[0]}'")
    values = _values(command, words[1:], trace)
    if HELP in values and not any(option.name == HELP for option in command.options):
        manual = index.find("help")
        assert manual is not None
        return Args(manual, {"command": [command.name]})
    for option in command.options:
        if option.required and option.name not in values:
            raise Failure(f"command '{command.name}' requires <{option.name}> option")
    return Args(command, values)


def _values(command: Command, words: list[str], trace: Callable[[str], None]) -> dict[str, object]:
    options = command.options
    named = {option.name: option for option in options}
    places = [option for option in options if option.positional]
    values: dict[str, object] = {}
    queue = list(reversed(words))
    only_data = False
    while queue:
        word = queue.pop()
        if not only_data and word == "--":
            only_data = True
            continue
        if not only_data and word.startswith("--") and word[2:3].isalnum():
            option, value = _option(command, named, word)
            if option.name in values and option.kind != REST:
                raise Failure(f"option --{option.name} already seen")
            if option.kind == FLAG:
                if value is not None:
                    raise Failure(f"invalid '=' after option --{option.name}")
                values[option.name] = True
                trace(f"{command.name}: {option.name}(bool): (none)")
                continue
            if value is None:
                if not queue:
                    raise Failure(f"expected syntax: --{option.name} <{option.type_name}>")
                value = queue.pop()
        else:
            place = next((one for one in places if one.kind == REST or one.name not in values), None)
            if place is None:
                raise Failure(f"unexpected data '{word}'")
            option, value = place, word
        trace(f"{command.name}: {option.name}(optdata): {value}")
        if option.kind == REST:
            words_so_far = values.setdefault(option.name, [])
            assert isinstance(words_so_far, list)
            words_so_far.append(value)
        else:
            values[option.name] = value
    return values


def _option(command: Command, named: dict[str, Option], word: str) -> tuple[Option, str | None]:
    """The option that a word like --mode=acpi means, and the value that it brings along."""
    name, sign, text = word[2:].partition("=")
    value = text if sign else None
    option = named.get(name) or named.get(name.replace("_", "-"))
    if option is None and name in command.aliases:
        other, implied = command.aliases[name]
        option, value = named[other], implied or value  # of a flag nothing is implied
    if option is None and name in (HELP, JSON):
        option = Option(name, FLAG)
    if option is None:
        raise Failure(f"command '{command.name}' doesn't support option --{name}")
    return option, value
