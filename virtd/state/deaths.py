"""Processes whose end somebody wants to notice, without waiting for it: pidfds, polled together.

By poll(2), not epoll(7): the set of an epoll descriptor is shared with forked children, which forget processes, too.
"""

import os
import select

from virtd import deadlines


class Deaths:
    """The processes that are watched, each under a key."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}
        self._poll = select.poll()

    def watch(self, key: str, pid: int) -> bool:
        """Watch a process; False if there is none of this number."""
        self.forget(key)
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        self._descriptors[key] = descriptor
        self._poll.register(descriptor, select.POLLIN)
        return True

    def alive(self, key: str) -> bool:
        """Whether a watched process lives; False if none is watched under the key."""
        descriptor = self._descriptors.get(key)
        return descriptor is not None and not deadlines.readable(descriptor, 0)

    def any(self) -> bool:
        """Whether a watched process has ended."""
        return bool(self._descriptors) and bool(self._poll.poll(0))

    def watched(self) -> list[str]:
        """What is watched."""
        return list(self._descriptors)

    def forget(self, key: str) -> None:
        """Watch a process no longer."""
        descriptor = self._descriptors.pop(key, None)
        if descriptor is not None:
            self._poll.unregister(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        """Let go of all descriptors."""
        for key in self.watched():
            self.forget(key)
