"""What goes on while a call takes its time: how far it is, and what Ctrl-C does.

The call is made by this process. A child with a connection of its own asks about the work and draws the line, so that
the two disturb each other as little as two users do. It ends when this process tells it to, or is gone.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import contextmanager
from functools import partial

from virtd.errors import VirtError
from virtd.shell import terminal
from virtd.shell.progress import line
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
    with _beside(partial(_draw, session, domain, what), wanted=verbose or sys.stderr.isatty()):
        try:
            yield
        except KeyboardInterrupt:
            _cancel(session, domain)
            raise


@contextmanager
def waiting(what: str, measure: Callable[[], tuple[int, int]] | None = None) -> Iterator[None]:
    """A context around a long call that is no job of a guest: on a terminal a line says how long it takes already.

    Args:
        what: what is going on.
        measure: asks how many bytes are done, and of how many; None if nobody can say.
    """
    with _beside(partial(_tick, what, measure), wanted=sys.stderr.isatty()):
        yield


@contextmanager
def _beside(draw: Callable[[int], None], *, wanted: bool) -> Iterator[None]:
    """A context with a child that draws beside it.

    Args:
        draw: draws, until something can be read from a descriptor: 1 if all went well, 0 if not.
        wanted: whether it is to be drawn at all.
    """
    if not wanted:
        yield
        return
    sys.stdout.flush()
    listen, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(tell)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            draw(listen)
        finally:
            os._exit(0)
    os.close(listen)
    done = False
    try:
        yield
        done = True
    finally:
        os.write(tell, b"1" if done else b"0")
        os.close(tell)
        os.waitpid(child, 0)


def _tick(what: str, measure: Callable[[], tuple[int, int]] | None, listen: int) -> None:
    drawn = False
    begin = time.monotonic()
    while not select.select([listen], [], [], _INTERVAL_MS / 1000)[0]:
        seconds = time.monotonic() - begin
        text = f"{what}  {seconds:.0f} s"
        if measure is not None:
            try:
                done, total = measure()
            except VirtError:
                done = total = 0  # it cannot be said now
            if done < total:
                text = line(what, done, total, seconds, terminal.size(2)[0] - 1)
        sys.stderr.write(f"\r{text}\033[K")
        sys.stderr.flush()
        drawn = True
    if drawn:
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()


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
