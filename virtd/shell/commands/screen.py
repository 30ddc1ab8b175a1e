"""What shows on a guest's terminal and screen: console, screenshot."""

import os
import time

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.session import Session

_CONSOLE_FLAGS = {"force": c.VIR_DOMAIN_CONSOLE_FORCE, "safe": c.VIR_DOMAIN_CONSOLE_SAFE}
_SUFFIXES = {"image/png": ".png", "image/x-portable-pixmap": ".ppm"}


def console(session: Session, args: Args) -> None:
    """virDomainOpenConsole."""
    from virtd.shell import console as terminal

    domain = session.domain(args.required("domain"))
    terminal.attach(session, domain, args.text("devname"), args.flags(_CONSOLE_FLAGS))


def screenshot(session: Session, args: Args) -> None:
    """virDomainScreenshot."""
    name = args.required("domain")
    path = args.text("file")
    screen = args.natural("screen") or 0
    domain = session.domain(name)
    with failing(f"could not take a screenshot of {name}"):
        transfer = session.stream("domain_screenshot", domain, screen, 0)
    with transfer:
        if path is None:
            suffix = _SUFFIXES.get(transfer.value or "", "")
            path = f"{domain.name}-{time.strftime('%Y-%m-%d-%H:%M:%S')}{suffix}"
        _receive(transfer.descriptor, path, name)
        try:
            transfer.finish()
        except VirtError as error:
            raise Failure(f"could not receive data from domain '{name}'", cause=error) from None
    session.say(f"Screenshot saved to {path}, with type of {transfer.value}")


def _receive(descriptor: int, path: str, name: str) -> None:
    """Write everything a stream brings to a file, which is gone again if that fails."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise Failure(f"cannot create file {path}: {error.strerror}") from None
    try:
        while data := os.read(descriptor, 262144):
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
    except OSError as error:
        os.unlink(path)
        raise Failure(f"could not receive data from domain '{name}': {error.strerror}") from None
    finally:
        os.close(file)


COMMANDS = (
    Command(
        "console",
        "<domain> [--devname <string>] [--force] [--safe]",
        "connect this terminal with a guest's console",
        console,
    ),
    Command(
        "screenshot",
        "<domain> [--file <string>] [--screen <number>]",
        "save a picture of a guest's screen to a file",
        screenshot,
        kinds={"file": "path"},
    ),
)
