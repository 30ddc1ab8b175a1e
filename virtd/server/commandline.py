"""What the command lines of virtd and virt-ssh-helper have in common: exit statuses, and how a failure is said."""

import enum
import sys
from typing import NoReturn

from virtd import LIBVIRT_VERSION, __version__
from virtd.server import log
from virtd.server.lean import click


class Status(enum.IntEnum):
    """The exit status: what kept the server from running."""

    DONE = 0  # nothing: it has ended as it was told
    BUG = 1
    USAGE = 2  # the command line is wrong
    CONFIG = 3  # the configuration file is wrong
    RUNNING = 4  # another virtd serves this root
    LISTEN = 5  # a socket, directory or file of its own cannot be made
    TAKEOVER = 6  # the running virtd could not be replaced
    UNSUPPORTED = 7  # what was asked for does not exist yet


class StartError(Exception):
    """The server cannot run."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


def say_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """What --version does (a callback of click)."""
    if not wanted or context.resilient_parsing:
        return
    number = LIBVIRT_VERSION
    libvirt = f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"
    click.echo(f"{context.command.name} {__version__} (libvirt {libvirt})")
    context.exit()


def execute(command: click.Command, arguments: list[str] | None) -> NoReturn:
    """Run a command, and turn what goes wrong into one line and an exit status."""
    try:
        command.main(arguments, standalone_mode=False)
        status = Status.DONE
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as problem:
        log.complain(f"{problem.format_message()} (see {command.name} --help)", command.name)
        status = Status.USAGE
    except StartError as problem:
        log.complain(str(problem), command.name)
        status = problem.status
    except (KeyboardInterrupt, click.Abort):
        status = Status.DONE
    except Exception as problem:
        log.complain(log.trace(problem), command.name)
        status = Status.BUG
    sys.exit(status)
