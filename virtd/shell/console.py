"""A guest's console on the user's terminal, until the escape character is typed or the guest is gone."""

from __future__ import annotations

import os
import select
import sys

from virtd import constants as c
from virtd.shell import terminal
from virtd.shell.failure import Failure
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def require_terminal() -> None:
    """Refuse a console where there is no terminal for it.

    Raises:
        Failure: standard input is none.
    """
    terminal.require()


def attach(session: Session, domain: Any, device: str | None, flags: int) -> None:
    """Connect a guest's console with the user's terminal (virDomainOpenConsole).

    Args:
        session: says what the escape character is.
        domain: the guest.
        device: the alias of a device; None for the first one.
        flags: VIR_DOMAIN_CONSOLE_*.

    Raises:
        Failure: there is no terminal, or the console cannot be opened.
    """
    if session.call("domain_get_state", domain, 0)[0] == c.VIR_DOMAIN_SHUTOFF:
        raise Failure("The domain is not running")
    keyboard = terminal.require()
    escape = session.escape
    key = f" (Ctrl + {escape[1]})" if len(escape) == 2 else ""
    with session.stream("domain_open_console", domain, device, flags) as transfer:
        try:
            with terminal.Raw(keyboard):
                # Said when it is true: what is typed from now on goes to the guest.
                session.say(f"Connected to domain '{domain.name}'\r\nEscape character is {escape}{key}\r\n")
                sys.stdout.flush()
                left = copy(transfer.descriptor, keyboard, 1, escape_byte(escape))
            if left:
                transfer.hang_up()
        except terminal.Interrupted:
            transfer.abort()


def escape_byte(escape: str) -> int:
    """The byte of an escape character: of ^] or ^a, or of a character as it is."""
    if len(escape) == 2:
        return ord(escape[1].upper()) ^ 0x40
    return escape.encode()[0]


def copy(guest: int, keyboard: int, screen: int, escape: int) -> bool:
    """Copy between a console and a terminal until the escape byte is typed or either has ended.

    Returns:
        Whether the user left, rather than the guest.

    Nothing is read that could not be passed on: a guest that does not read holds up the keyboard only.
    """
    to_guest = to_screen = b""
    os.set_blocking(guest, False)
    while True:
        poll = select.poll()
        poll.register(guest, (select.POLLOUT if to_guest else 0) | (0 if to_screen else select.POLLIN))
        if not to_guest:
            poll.register(keyboard, select.POLLIN)
        if to_screen:
            poll.register(screen, select.POLLOUT)
        for descriptor, events in poll.poll():
            if descriptor == keyboard and events & (select.POLLIN | select.POLLHUP):
                typed = os.read(keyboard, 1024)
                to_guest, sign, _ = typed.partition(bytes([escape]))
                if sign or not typed:
                    _write(guest, to_guest)
                    return True
            elif descriptor == screen and events & select.POLLOUT:
                to_screen = to_screen[os.write(screen, to_screen) :]
            elif descriptor == guest:
                if events & select.POLLOUT and to_guest:
                    to_guest = to_guest[_write(guest, to_guest) :]
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and not to_screen:
                    to_screen = _read(guest)
                    if not to_screen:
                        return False


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""  # the other end was closed


def _write(descriptor: int, data: bytes) -> int:
    try:
        return os.write(descriptor, data) if data else 0
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)  # nobody reads it any more; the end is seen when reading
