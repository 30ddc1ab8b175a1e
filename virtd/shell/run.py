"""Running commands: what is printed around them, and what becomes of their failures."""

import sys
import time

from virtd.errors import VirtError
from virtd.shell import output, parse, words
from virtd.shell.command import JSON, Args
from virtd.shell.failure import Failure
from virtd.shell.session import Session


def run_line(session: Session, line: str) -> bool:
    """Run the commands of a line; whether the last one succeeded."""
    if not session.interactive:
        session.trace(f'commands: "{line}"')
    try:
        commands = [parse.parse(command, session.trace) for command in words.split(line)]
    except Failure as error:
        report(session, error)
        return False
    except words.WordsError as error:
        session.complain(str(error))
        return False
    return run_all(session, commands)


def run_words(session: Session, command: list[str]) -> bool:
    """Run one command that has been split into words; whether it succeeded."""
    try:
        args = parse.parse(command, session.trace)
    except Failure as error:
        report(session, error)
        return False
    return run_all(session, [args])


def run_all(session: Session, commands: list[Args]) -> bool:
    """Run commands one after another, also after one has failed; whether the last one succeeded."""
    succeeded = True
    for args in commands:
        if args.command.connect and session.connection is None and not _connected(session):
            return False
        begin = time.perf_counter()
        succeeded = run(session, args)
        if session.ended:
            break
        if session.timing:
            session.write(f"\n(Time: {(time.perf_counter() - begin) * 1000:.3f} ms)\n\n")
        else:
            session.say("\n")
    return succeeded


def run(session: Session, args: Args) -> bool:
    """Run one command and print what it hands back; whether it succeeded."""
    session.command = args.command.name
    try:
        found = args.command.function(session, args)
        if found is not None:
            print_output(session, found, as_json=session.json or args.flag(JSON))
            return not found.failed
    except Failure as error:
        report(session, error)
        return False
    except VirtError as error:
        report(session, Failure(cause=error))
        return False
    return True


def print_output(session: Session, found: output.Output, *, as_json: bool) -> None:
    """Print what a command has found."""
    if as_json:
        import json

        session.write(json.dumps(found.data(), indent=2, ensure_ascii=False) + "\n")
    else:
        session.write(found.text(output.style(), quiet=session.quiet))


def report(session: Session, error: Failure) -> None:
    """Say why a command failed, and to a person what to do about it."""
    for message in error.messages:
        session.complain(message)
    if sys.stderr.isatty():
        from virtd.shell import hints

        hint = hints.find(session, error)
        if hint:
            sys.stderr.write(f"hint: {hint}\n")


def _connected(session: Session) -> bool:
    try:
        session.connect()
    except Failure as error:
        report(session, error)
        return False
    return True
