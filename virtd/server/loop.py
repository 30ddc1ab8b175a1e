"""The poll loop of a worker: descriptors, and what to do when they are ready.

A descriptor may be gated: it is left alone while the gate is shut, which it is while the client does not take what
it is sent. So whatever makes something for the client (streams, events, results) waits where it is, and nobody's
memory grows. poll(2) and not epoll(7): a worker has few descriptors, regular files are among them, and forked children
that still hold a copy of one must not keep it alive in the set.

A client that makes one call after the other is waited for actively, for a few dozen microseconds: to fall asleep
and be woken takes longer than the call. That ends as soon as the next call is late, or anybody else wants to run.
"""

import os
import select
import time
from collections.abc import Callable
from typing import NamedTuple

READ = select.POLLIN
WRITE = select.POLLOUT
ENDED = select.POLLHUP | select.POLLERR | select.POLLNVAL

SPINS = 60  # looks at the descriptors, of about a microsecond each, before falling asleep
SOON = 200e-6  # seconds: a wait shorter than this would have been worth staying awake
CONTENDED = 20e-6  # seconds: giving way takes longer than this if there is somebody to give way to
RESTS = 16  # waits without spinning after that

Handler = Callable[[int], None]


class _Watch(NamedTuple):
    events: int
    handler: Handler
    gated: bool


class Loop:
    """Descriptors to wait for. A handler gets the poll events, and has to bear being called for nothing."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._watches: dict[int, _Watch] = {}
        self._shut = False
        self._eager = False
        self._rests = 0

    def watch(self, descriptor: int, events: int, handler: Handler, *, gated: bool = False) -> None:
        """Wait for a descriptor; what was said of it before is forgotten.

        Args:
            descriptor: it must not be closed before `unwatch`.
            events: READ, WRITE, both, or 0 to hear only of its end.
            handler: called with the poll events.
            gated: leave it alone while the gate is shut.
        """
        self._watches[descriptor] = _Watch(events, handler, gated)
        if not (gated and self._shut):
            self._poll.register(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        """Wait for a descriptor no more; one that is not waited for does not matter."""
        watch = self._watches.pop(descriptor, None)
        if watch is not None and not (watch.gated and self._shut):
            self._poll.unregister(descriptor)

    def watched(self, descriptor: int) -> bool:
        """Whether a descriptor is waited for."""
        return descriptor in self._watches

    def shut(self, wanted: bool) -> None:
        """Shut the gate, or open it."""
        if wanted == self._shut:
            return
        self._shut = wanted
        for descriptor, watch in self._watches.items():
            if watch.gated and wanted:
                self._poll.unregister(descriptor)
            elif watch.gated:
                self._poll.register(descriptor, watch.events)

    def turn(self, timeout: float | None) -> None:
        """Wait until something is ready, and handle it.

        Args:
            timeout: the longest wait in seconds; None for ever.
        """
        ready = self._spin() if self._eager and timeout != 0 else None
        if not ready:
            began = time.perf_counter()
            # Rounded up: a wait of less than a millisecond must not become a busy loop.
            ready = self._poll.poll(None if timeout is None else int(timeout * 1000 + 0.999))
            self._rests -= self._rests > 0
            self._eager = not self._rests and time.perf_counter() - began < SOON
        for descriptor, events in ready:
            watch = self._watches.get(descriptor)
            if watch is not None:
                watch.handler(events)

    def _spin(self) -> list[tuple[int, int]] | None:
        """Look whether something is ready, for a short while, giving way to everybody else."""
        poll, clock = self._poll.poll, time.perf_counter
        last = clock()
        for _ in range(SPINS):
            if ready := poll(0):
                return ready
            os.sched_yield()
            now = clock()
            if now - last > CONTENDED:
                self._rests = RESTS
                return None
            last = now
        return None
