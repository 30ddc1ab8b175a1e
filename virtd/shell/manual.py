"""The help: of all commands by group, of a group, of a command."""

from virtd.shell import index
from virtd.shell.command import FLAG, REST, Command, Option
from virtd.shell.failure import Failure


def overview(*, colon: bool = True) -> str:
    """All commands by group, with what they do."""
    return "".join(group_text(group, colon=colon) for group in index.GROUPS)


def group_text(group: index.Group, *, colon: bool = True) -> str:
    """The commands of a group, with what they do."""
    known = {name: command for module in group.modules for name, command in index.commands(module).items()}
    lines = [f"    {name:<30} {known[name].summary}\n" for name in group.names]
    return f" {group.title} (help keyword '{group.keyword}'){':' if colon else ''}\n{''.join(lines)}\n"


def topic(name: str) -> str:
    """The help on a command or group.

    Raises:
        Failure: there is none of that name.
    """
    for group in index.GROUPS:
        if group.keyword == name:
            return group_text(group)
    command = index.find(name)
    if command is None:
        raise Failure(f"command or command group '{name}' doesn't exist")
    return command_text(command)


def command_text(command: Command) -> str:
    """The help on a command."""
    from virtd.shell import optionhelp

    synopsis = " ".join([command.name, *(synopsis_of(option) for option in command.options)])
    text = f"  NAME\n    {command.name} - {command.summary}\n\n  SYNOPSIS\n    {synopsis}\n"
    options = command.options
    if options:
        names = []
        for option in options:
            name = f"[--{option.name}]" if option.required or option.kind == REST else f"--{option.name}"
            names.append(name if option.kind == FLAG else f"{name} <{option.type_name}>")
        space = min(max(map(len, names)), 30)
        text += "\n  OPTIONS\n"
        for name, option in zip(names, options, strict=True):
            text += f"    {name:<{space}}  {optionhelp.find(command.name, option.name)}\n"
    return text + "\n"


def synopsis_of(option: Option) -> str:
    """An option as virsh's synopses write it."""
    match option:
        case Option(name, "flag"):
            return f"[--{name}]"
        case Option(name, "rest", required=True):
            return "{[--" + name + "] <string>}..."
        case Option(name, "rest"):
            return f"[[--{name}] <string>]..."
        case Option(name, required=True):
            return f"<{name}>"
    return f"[--{option.name} <{option.type_name}>]"
