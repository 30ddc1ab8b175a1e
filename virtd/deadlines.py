"""How long the current call may still take.

One bound for the whole process, which is single-threaded and works on one call at a time: whoever takes a
call on sets it, and all code below that waits asks what is left of it. A bound inside another one can only
be tighter. Waiting is on descriptors; when the bound passes, the caller hears what it was waiting for.

This module knows no guest, no file and no protocol.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Collection

from virtd import constants as c
from virtd.errors import VirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

# How long a call may wait for a guest: for its lock and its monitor together, in s. libvirt has the same patience with
# its lock, and none with a monitor.
PATIENCE = float(os.environ.get("VIRTD_PATIENCE", "30"))

_end: float | None = None


class DeadlineExceeded(VirtError):
    """The bound of the current call passed; the other party may still do what it was asked to do.

    Args:
        what: what did not happen, naming guest and command; becomes the detail of the message.
        domain: a VIR_FROM_* constant.
    """

    def __init__(self, what: str, *, domain: int | None = None) -> None:
        super().__init__(c.VIR_ERR_OPERATION_TIMEOUT, what, domain=domain)


class _Bound:
    """A context with a bound of its own: a time on the monotonic clock, or None."""

    __slots__ = ("_mine", "_outer")

    def __init__(self, end: float | None) -> None:
        self._mine = end

    def __enter__(self) -> None:
        global _end
        self._outer, _end = _end, self._mine

    def __exit__(self, *error: object) -> None:
        global _end
        _end = self._outer


def limit(seconds: float) -> _Bound:
    """Bound what is done inside: seconds from now, or the bound already in force if that ends earlier."""
    mine = time.monotonic() + seconds
    return _Bound(mine if _end is None else min(mine, _end))


def unlimited() -> _Bound:
    """Lift the bound inside. Only for a freshly forked process, whose life is no longer that call's."""
    return _Bound(None)


def remaining(default: float) -> float:
    """Seconds left for what the caller wants to wait for: at most default, never below zero."""
    if _end is None:
        return default
    return max(0.0, min(default, _end - time.monotonic()))


def readable(fd: int, seconds: float) -> bool:
    """Wait until fd can be read (or is at its end), for at most seconds and within the bound."""
    return ready(fd, select.POLLIN, seconds) != 0


def any_readable(fds: Collection[int], seconds: float) -> set[int]:
    """Wait until one of several descriptors can be read; returns those that can, none when the time was up."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(int(remaining(seconds) * 1000 + 0.999))}


def ready(fd: int, wanted: int, seconds: float) -> int:
    """Wait for poll events on one descriptor, for at most seconds and within the bound.

    Args:
        fd: the descriptor.
        wanted: POLLIN, POLLOUT or both.
        seconds: the longest wait of its own; math.inf if only the bound counts.

    Returns:
        The poll events that came, POLLHUP and POLLERR among them; 0 when the time was up.
    """
    poll = select.poll()
    poll.register(fd, wanted)
    left = remaining(seconds)
    # Rounded up: a wait of less than a millisecond must not become a busy loop.
    answers = poll.poll(None if left == float("inf") else int(left * 1000 + 0.999))
    return answers[0][1] if answers else 0
