"""Who wants to hear of QEMU's own events: a lock that all such clients share.

Supervisors look at it before they write an event of QEMU's into the journal that nobody else wants. The kernel takes
a client off with its process, so that nobody is ever written for who has gone.

This module knows no guest and no event.
"""

import fcntl
import os

from virtd.state import files


def path(running: str) -> str:
    """The lock of the guests whose directories lie in one."""
    return f"{running}-onlookers.lock"


class Onlooker:
    """A client that wants to hear, until it is closed.

    Args:
        path: the lock's.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise files.os_error(error, f"cannot open lock file '{path}'") from None
        # Whoever looks holds it for a moment.
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        """Hear no more; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def anybody(path: str) -> bool:
    """Whether there is a client that wants to hear; others who look at the same moment may be taken for one."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False  # nobody ever wanted to
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
