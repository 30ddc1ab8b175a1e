"""What goes on while a call about a guest takes its time: how far it is, and what Ctrl-C does.

The call is made by this process. A child with a connection of its own asks about the job and draws the line, so that
the two disturb each other as little as two users do. It ends when this process tells it to, or is gone.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import contextmanager

from virtd.errors import VirtError
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_INTERVAL_MS = 500  # between two questions about the job


@contextmanager
def watching(session: Session, domain: Any, what: str, *, verbose: bool) -> Iterator[None]:
    """A context around a long call about a guest. Ctrl-C inside cancels the job.

    Args:
        session: whose call it is.
        domain: the guest.
        what: how the line begins.
        verbose: draw the line wherever standard error leads, not just on a terminal.
    """
    sys.stdout.flush()
    child, tell = _start(session, domain, what) if verbose or sys.stderr.isatty() else (0, -1)
    done = False
    try:
        yield
        done = True
    except KeyboardInterrupt:
        _cancel(session, domain)
        raise
    finally:
        if child:
            os.write(tell, b"1" if done else b"0")
            os.close(tell)
            os.waitpid(child, 0)


def _start(session: Session, domain: Any, what: str) -> tuple[int, int]:
    listen, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(listen)
        return child, tell
    try:
        os.close(tell)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _draw(session, domain, what, listen)
    finally:
        os._exit(0)


def _draw(session: Session, domain: Any, what: str, listen: int) -> None:
    drawn = False
    while not select.select([listen], [], [], _INTERVAL_MS / 1000)[0]:
        try:
            info = session.call("domain_get_job_info", domain)
        except VirtError:
            continue  # there is no job yet, or no more, or nobody who could say
        total, remaining = info[3], info[5]
        if total:
            share = 100 - int(remaining * 100 / total)
            sys.stderr.write(f"\r{what}: [{min(share, 99):3d} %]")
            sys.stderr.flush()
            drawn = True
    if os.read(listen, 1) == b"1":
        sys.stderr.write(f"\r{what}: [100 %]")
    elif drawn:
        sys.stderr.write("\n")
    sys.stderr.flush()


def _cancel(session: Session, domain: Any) -> None:
    """Cancel a guest's job, over a connection of its own: the other one waits for the call's answer."""
    other = Session(session.uri, session.root)
    try:
        other.call("domain_abort_job", domain)
    except VirtError as error:
        session.complain(error.message)
    finally:
        other.disconnect()
