"""virtsh itself: where it is, what it is connected to, and its help."""

import os

from virtd.shell import manual, words, xmltext
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure
from virtd.shell.output import Lines, Output, Plain, Single
from virtd.shell.session import Session


def cd(session: Session, args: Args) -> None:
    """Change the directory, in the interactive shell."""
    if not session.interactive:
        raise Failure("cd: command valid only in interactive mode")
    path = args.text("dir") or os.path.expanduser("~")
    try:
        os.chdir(path)
    except OSError as error:
        raise Failure(f"cd: {path}: {error.strerror}") from None


def connect(session: Session, args: Args) -> None:
    """Connect to something else."""
    session.disconnect()
    session.uri = args.text("name") or session.uri
    session.read_only = args.flag("readonly")
    session.connect()


def echo(session: Session, args: Args) -> None:
    """Print words; for scripts that want to know how a line is split."""
    given = args.rest("string")
    if args.flag("split"):
        parts = [part for word in given for part in _split(word)]
        session.write("".join(f"{part}\n" for part in parts))
        return
    if args.flag("xml"):
        given = [xmltext.escape(word) for word in given]
    if args.flag("shell"):
        given = [word if word and _harmless(word) else words.quote(word) if word else "''" for word in given]
    text = " ".join(given)
    if args.flag("err"):
        session.complain(text)
    else:
        session.say(text) if not session.quiet else session.write(text)


def _harmless(word: str) -> bool:
    return all(one.isalnum() or one in "-_./=:,%+@" for one in word)


def _split(word: str) -> list[str]:
    """A list parted by commas; two of them stand for one that does not part."""
    return [part.replace("\0", ",") for part in word.replace(",,", "\0").split(",")]


def leave(session: Session, args: Args) -> None:
    """End the program."""
    session.ended = True


def complete(session: Session, args: Args) -> Output:
    """Ways to complete a command line, for other shells: the words of a command, the last one unfinished."""
    from virtd.shell.complete import Completer

    given = args.rest("string") or [""]
    return Lines(Completer(session).candidates(given[:-1], given[-1]))


def show_help(session: Session, args: Args) -> Output:
    """The help."""
    topic = args.rest("command")
    text = manual.topic(topic[0]) if topic else f"Grouped commands:\n\n{manual.overview()}"
    return Plain("help", text)


def pwd(session: Session, args: Args) -> Output:
    """The directory."""
    try:
        return Single("directory", os.getcwd())
    except OSError as error:
        raise Failure(f"pwd: cannot get current directory: {error.strerror}") from None


COMMANDS = (
    Command("cd", "[--dir <string>]", "change the directory", cd, connect=False, kinds={"dir": "path"}),
    Command("complete", "[<string>...]", "say how a command could go on; for other shells", complete, connect=False),
    Command("connect", "[--name <string>] [--readonly]", "connect to another URI", connect, connect=False),
    Command(
        "echo",
        "[--shell] [--xml] [--split] [--err] [<string>...]",
        "print words as they were understood",
        echo,
        connect=False,
    ),
    Command("exit", "", "leave virtsh", leave, connect=False),
    Command("help", "[<command>...]", "explain a command, a group, or what there is", show_help, connect=False),
    Command("pwd", "", "show the directory", pwd, connect=False),
    Command("quit", "", "leave virtsh", leave, connect=False),
)
