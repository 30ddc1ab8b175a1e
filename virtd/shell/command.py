"""How a command is declared, and the arguments it was called with.

A command is one line of its module's table. Its synopsis is the declaration of its options, written as the manual
writes it:

    <domain>             must be given; by its place, or as --domain
    <size:number>        the same; the help says that it is a number
    [--paused]           a flag
    [--mode <string>]    may be given; as --mode, or by its place after those that must
    [--xpath =<string>]  may be given, as --xpath only
    [<domain>...]        any number of words; <key>... at least one

Numbers are checked when a function asks for them, because only it knows their range.
"""

from __future__ import annotations

from virtd.shell.failure import Failure
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from virtd.shell.session import Session

FLAG, STRING, NUMBER, REST = "flag", "string", "number", "rest"

# What every command takes beside its own options.
HELP = "help"
JSON = "json"


class Option(NamedTuple):
    """An option of a command."""

    name: str
    kind: str  # FLAG, STRING, NUMBER or REST
    required: bool = False
    positional: bool = False

    @property
    def type_name(self) -> str:
        """What the help calls its value."""
        return "number" if self.kind == NUMBER else "string"


class Command(NamedTuple):
    """A line of a table.

    Attributes:
        name: what the user types.
        synopsis: its options, see above.
        summary: what it does, for the help.
        function: takes the session and the arguments; returns an output object, or None.
        connect: whether it needs a connection.
        kinds: what an option's value names, where its own name does not say it: {"path": "disk"}.
        aliases: other words for an option and its value: {"shareable": ("mode", "shareable")}.
    """

    name: str
    synopsis: str
    summary: str
    function: Callable[[Session, Args], Any]
    connect: bool = True
    kinds: dict[str, str] = {}  # noqa: RUF012
    aliases: dict[str, tuple[str, str]] = {}  # noqa: RUF012

    @property
    def options(self) -> list[Option]:
        """The options in their order."""
        return parse_synopsis(self.synopsis)


def parse_synopsis(synopsis: str) -> list[Option]:
    """The options that a synopsis declares."""
    options: list[Option] = []
    words = iter(synopsis.split())
    for word in words:
        if word.startswith("[--"):
            if word.endswith("]"):
                options.append(Option(word[3:-1], FLAG))
            else:
                value = next(words).rstrip("]")
                kind = NUMBER if "number" in value else STRING
                options.append(Option(word[3:], kind, positional=not value.startswith("=")))
        else:
            name, _, kind = word.strip("[]<>.").partition(":")
            kind = REST if word.rstrip("]").endswith("...") else kind or STRING
            options.append(Option(name, kind, required=not word.startswith("["), positional=True))
    return options


class Args:
    """What a command was called with.

    Args:
        command: the command.
        values: by option name: True of a flag, a text, a list of words.
    """

    def __init__(self, command: Command, values: dict[str, Any]) -> None:
        self.command = command
        self.values = values

    def flag(self, name: str) -> bool:
        """Whether a flag was given."""
        return name in self.values

    def text(self, name: str, *, empty: bool = False) -> str | None:
        """The value of an option; None if it was not given.

        Args:
            name: the option.
            empty: whether the empty text is a value, too.

        Raises:
            Failure: it is empty.
        """
        value: str | None = self.values.get(name)
        if value == "" and not empty:
            raise Failure(f"Failed to get option '{name}': Option argument is empty")
        return value

    def required(self, name: str, *, empty: bool = False) -> str:
        """The value of an option which must be given."""
        value = self.text(name, empty=empty)
        if value is None:
            raise Failure(f"command '{self.command.name}' requires <{name}> option")
        return value

    def rest(self, name: str) -> list[str]:
        """The words of a list; none if it was not given."""
        words: list[str] = self.values.get(name, [])
        return words

    def number(self, name: str, least: int = -(2**31), most: int = 2**31 - 1) -> int | None:
        """The value of an option that is a whole number; None if it was not given.

        Raises:
            Failure: it is not a number between the bounds.
        """
        text = self.text(name, empty=True)
        if text is None:
            return None
        number = _whole(text)
        if number is None or not least <= number <= most:
            raise Failure(f"Numeric value '{text}' for <{name}> option is malformed or out of range")
        return number

    def natural(self, name: str, most: int = 2**32 - 1) -> int | None:
        """The same for a number that is not negative."""
        return self.number(name, 0, most)

    def scaled(self, name: str, unit: int = 1, most: int = 2**64 - 1) -> int | None:
        """The value of an option that is a size, in bytes; None if it was not given.

        Args:
            name: the option.
            unit: what a number without a suffix counts, in bytes.
            most: the largest size that can be, in bytes.

        Raises:
            Failure: it is no size, or too large.
        """
        text = self.text(name, empty=True)
        if text is None:
            return None
        from virtd.shell import units

        try:
            return units.parse_size(text, unit, most)
        except units.SizeError as error:
            problem = f"Scaled numeric value '{text}' for <{name}> option is malformed or out of range"
            raise Failure(problem, *error.reasons) from None

    def exclusive(self, *names: str) -> None:
        """Refuse options that cannot be given together.

        Raises:
            Failure: two of them were given.
        """
        given = [name for name in names if name in self.values]
        if len(given) > 1:
            raise Failure(f"Options --{given[0]} and --{given[1]} are mutually exclusive")

    def requires(self, name: str, other: str) -> None:
        """Refuse an option without the one it makes sense with.

        Raises:
            Failure: the first was given, the other was not.
        """
        if name in self.values and other not in self.values:
            raise Failure(f"Option --{other} is required by option --{name}")

    def flags(self, table: dict[str, int]) -> int:
        """The flags of a call: those whose options were given, joined by |."""
        flags = 0
        for name, flag in table.items():
            if name in self.values:
                flags |= flag
        return flags


def _whole(text: str) -> int | None:
    """A decimal number as strtol takes it whole: blanks and a sign before it, nothing else."""
    digits = text.lstrip(" \t\n\v\f\r")
    unsigned = digits[1:] if digits[:1] in ("+", "-") else digits
    return int(digits) if unsigned.isascii() and unsigned.isdigit() else None
