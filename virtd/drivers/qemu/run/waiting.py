"""What a supervisor waits for: descriptors and moments, each with what is to be done then. It knows of no guest."""

import select
import time
from collections.abc import Callable


class Waiting:
    """Descriptors and moments that somebody waits for."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def watch(self, descriptor: int, handler: Callable[[], None], events: int = select.POLLIN) -> None:
        """Wait for a descriptor.

        Args:
            descriptor: it must not be closed before `unwatch`.
            handler: called when it is ready.
            events: those of poll(2).
        """
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events of a descriptor that is waited for."""
        self._poll.modify(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        """Wait for a descriptor no more; one that is not waited for does not matter."""
        if self._handlers.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later, once."""
        self._timers.append((time.monotonic() + seconds, action))

    def turn(self) -> None:
        """Wait until something is ready or due, and do what is to be done."""
        left = max(0.0, min(self._timers)[0] - time.monotonic()) if self._timers else None
        for descriptor, _ in self._poll.poll(None if left is None else int(left * 1000) + 1):
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler()
        now = time.monotonic()
        due = [action for at, action in self._timers if at <= now]
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for action in due:
            action()
