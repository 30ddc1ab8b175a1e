"""The outer command line: options of virtsh itself, then a command, or a line of commands, or the interactive shell.

Written by hand because it must cost nothing (the usual libraries take longer to import than `virtsh list` may take)
and because abbreviations and messages are getopt_long's, as virsh's are.
"""

from __future__ import annotations

import gc
import os
import sys

from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from virtd.shell.session import Session


class Switch(NamedTuple):
    """An option of virtsh itself."""

    short: str
    long: str
    value: str  # what the help calls its value; "" if it has none
    help: str


SWITCHES = (
    Switch("c", "connect", "URI", "what to connect to"),
    Switch("d", "debug", "NUM", "say what is being done: 0 for all there is to say, 4 for errors only"),
    Switch("e", "escape", "CHAR", "what ends a console, such as ^]"),
    Switch("h", "help", "", "this help"),
    Switch("k", "keepalive-interval", "NUM", "seconds between questions whether the server is alive; 0: never"),
    Switch("K", "keepalive-count", "NUM", "how many of these may stay without an answer"),
    Switch("l", "log", "FILE", "note commands and errors in a file"),
    Switch("q", "quiet", "", "nothing but what was asked for"),
    Switch("r", "readonly", "", "connect read-only"),
    Switch("t", "timing", "", "say how long each command took"),
    Switch("v", "", "", "the version"),
    Switch("V", "", "", "the version, and what this is"),
    Switch("", "version", "[TYPE]", "one of these, short or long"),
    Switch("", "json", "", "print what was found as JSON"),
    Switch("", "root", "DIR", "work on the instance below a directory"),
)


class UsageError(Exception):
    """The command line cannot be understood; the message says why."""


def main(argv: list[str] | None = None) -> NoReturn:
    """The program `virtsh`."""
    # Most runs are over before there is any garbage; those that last (shell, event, top) switch this on again.
    gc.disable()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # Names are bytes to libvirt, and whatever came in must go out again.
        stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    try:
        status = _main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    except KeyboardInterrupt:
        status = 130
    # What the process holds, the kernel lets go; tearing the interpreter down takes longer than many a command.
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _main(argv: list[str]) -> int:
    from virtd.shell.session import Session

    session = Session()
    try:
        _surroundings(session)
        words = _switches(session, argv)
    except UsageError as error:
        session.complain(str(error))
        return 1
    if words is None:
        return 0
    if not words:
        from virtd.shell import interactive

        return interactive.interact(session)
    from virtd.shell import run

    try:
        if len(words) == 1:
            return 0 if words[0] and run.run_line(session, words[0]) else 1
        return 0 if run.run_words(session, words) else 1
    finally:
        session.disconnect()


def _surroundings(session: Session) -> None:
    """Take what stands in the environment; options count more."""
    level = os.environ.get("VIRSH_DEBUG", "")
    if level in ("0", "1", "2", "3", "4"):
        session.level = int(level)
    elif level:
        session.complain("VIRSH_DEBUG not set with a valid numeric value")
    path = os.environ.get("VIRSH_LOG_FILE")
    if path:
        _open_log(session, path)


def _switches(session: Session, argv: list[str]) -> list[str] | None:
    """Take virtsh's own options from a command line.

    Returns:
        The words after them; None if nothing is left to do.

    Raises:
        UsageError: an option is unknown, or its value is.
    """
    queue = list(reversed(argv))
    while queue and queue[-1].startswith("-") and queue[-1] != "-":
        word = queue.pop()
        if word == "--":
            break
        if word.startswith("--"):
            name, sign, text = word[2:].partition("=")
            switch = _long(name, word)
            value: str | None = text if sign else None
            if switch.value and value is None and not switch.value.startswith("["):
                value = _next(queue, switch)
            if not _apply(session, switch, value):
                return None
            continue
        letters = word[1:]
        while letters:
            found = next((one for one in SWITCHES if one.short == letters[0]), None)
            if found is None:
                raise UsageError(f"unsupported option '-{letters[0]}'. See --help.")
            letters = letters[1:]
            value = None
            if found.value:
                value, letters = letters or _next(queue, found), ""
            if not _apply(session, found, value):
                return None
    return list(reversed(queue))


def _long(name: str, word: str) -> Switch:
    """The option of a long name, or of a beginning that only one has."""
    found = [switch for switch in SWITCHES if switch.long and switch.long.startswith(name)]
    exact = [switch for switch in found if switch.long == name]
    if exact or len(found) == 1:
        return (exact or found)[0]
    raise UsageError(f"unsupported option '{word}'. See --help.")


def _next(queue: list[str], switch: Switch) -> str:
    if not queue:
        names = f"'-{switch.short}'/'--{switch.long}'" if switch.short else f"'--{switch.long}'"
        raise UsageError(f"option {names} requires an argument")
    return queue.pop()


def _apply(session: Session, switch: Switch, value: str | None) -> bool:
    """Do what an option says; whether to go on after it."""
    match switch.long or switch.short:
        case "connect":
            session.uri = value
        case "root":
            session.root = value
        case "escape":
            session.escape = _escape(value or "")
        case "keepalive-interval":
            session.keepalive = _natural(switch, value), session.keepalive[1]
        case "keepalive-count":
            session.keepalive = session.keepalive[0], _natural(switch, value)
        case "debug":
            level = _natural(switch, value, f"option {_names(switch)} takes a numeric argument")
            if level > 4:
                session.complain(f"ignoring debug level {level} out of range [0-4]")
            else:
                session.level = level
        case "log":
            _open_log(session, value or "")
        case "quiet":
            session.quiet = True
        case "readonly":
            session.read_only = True
        case "timing":
            session.timing = True
        case "json":
            session.json = True
        case "help":
            _help(session)
            return False
        case "v" | "V" | "version":
            _version(session, wordy=switch.short == "V" or value == "long")
            return False
    return True


def _names(switch: Switch) -> str:
    return f"-{switch.short}"


def _natural(switch: Switch, value: str | None, problem: str = "") -> int:
    if not value or not (value.isascii() and value.isdigit()):
        raise UsageError(problem or f"Invalid value for option {_names(switch)}")
    return int(value)


def _escape(value: str) -> str:
    if len(value) == 1 or (len(value) == 2 and value[0] == "^" and "@" <= value[1].upper() <= "_"):
        return value
    raise UsageError(f"Invalid string '{value}' for escape sequence")


def _open_log(session: Session, path: str) -> None:
    try:
        session.log = open(path, "a", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    except OSError:
        raise UsageError("failed to open the log file. check the log file path") from None


def _help(session: Session) -> None:
    from virtd.shell import manual

    lines = ["", "virtsh [options]... [<command_string>]", "virtsh [options]... <command> [args...]", "", "  options:"]
    for short, long, value, text in SWITCHES:
        name = f"--{long}={value}" if value and not value.startswith("[") else f"--{long}" + value.replace("[", "[=")
        names = f"-{short} | {name}" if short and long else f"     {name}" if long else f"-{short}"
        lines += [f"    {names:<28} {text}"] if len(names) < 29 else [f"    {names}", f"    {'':<28} {text}"]
    session.write("\n".join(lines) + "\n  commands (non interactive mode):\n\n" + manual.overview(colon=False))
    session.write("\n  (specify help <group> for details about the commands in the group)\n")
    session.write("\n  (specify help <command> for details about the command)\n\n")


def _version(session: Session, *, wordy: bool) -> None:
    from virtd import LIBVIRT_VERSION, __version__

    number = f"{LIBVIRT_VERSION // 1_000_000}.{LIBVIRT_VERSION // 1000 % 1000}.{LIBVIRT_VERSION % 1000}"
    if wordy:
        session.write(f"virtsh, the command line client of virtd {__version__}\nSpeaks as libvirt {number} does.\n")
    else:
        session.write(f"{number}\n")


if __name__ == "__main__":
    main()
