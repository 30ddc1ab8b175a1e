"""Waiting, for tests: the end of a process, and whatever else comes to pass by somebody else's doing.

Nothing here takes longer than what it waits for, and no bound is one that a busy machine comes near. Knows nothing of
virtd but its way of watching a directory.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

from virtd.state import inotify

__all__ = ["SECONDS", "ends", "wait_ended", "wait_for"]

SECONDS = 60.0  # for what takes a fraction of one, unless the machine is overloaded
_PAUSE = 0.02  # seconds between two looks at what tells nobody that it has changed: a title, memory, a mount
_CHANGES = inotify.IN_MODIFY | inotify.IN_CLOSE_WRITE | inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_DELETE
_Value = TypeVar("_Value")


def wait_for(
    condition: Callable[[], _Value],
    what: str = "what was waited for",
    *,
    directory: Path | str | None = None,
    seconds: float = SECONDS,
) -> _Value:
    """Look until something is so.

    Args:
        condition: the look.
        what: what is to be, for the message.
        directory: where it shows: it is looked at again at once when anything changes there.
        seconds: the longest wait.

    Returns:
        What the condition said, which is true.

    Raises:
        AssertionError: it never was.
    """
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        watch = directory and stack.enter_context(closing(inotify.Watch(str(directory), _CHANGES)))
        while not (value := condition()):
            assert time.monotonic() < deadline, f"it has not come to {what} in {seconds:.0f} s"
            # What a directory shows may need a moment more: a file is there before its maker's new title is.
            if select.select([watch] if watch else [], [], [], _PAUSE)[0]:
                watch.clear()
    return value


def wait_ended(pid: int, seconds: float = SECONDS) -> bool:
    """Wait until a process, child or not, has ended (a zombie has); False if it lives on after `seconds`."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def ends(pid: int) -> None:
    """Wait until a process has ended. Raises AssertionError if it does not."""
    assert wait_ended(pid), f"process {pid} does not end"
