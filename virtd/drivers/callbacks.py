"""Event subscriptions of one connection with one driver: callbacks by number, and the journal they are fed from.

Which events there are, and how they are sent, the driver knows; who wants which, and what has happened since, is here.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from virtd import constants as c
from virtd.drivers.base import Event
from virtd.errors import VirtError
from virtd.state import journal
from virtd.state.commit import Generation


class _Subscription(NamedTuple):
    event_id: int
    subject: bytes | None  # uuid or name of the object whose events are wanted; None: all objects'


class Callbacks:
    """The subscriptions.

    Args:
        generation: the instance's generation, whose journal is read.
        source: the source of the records (Change.event).
        noun: what the events are of, for messages: 'domain', 'network', ….
    """

    def __init__(self, generation: Generation, source: str, noun: str) -> None:
        self._generation = generation
        self._source = source
        self._noun = noun
        self._subscriptions: dict[int, _Subscription] = {}
        self._older: set[int] = set()
        self._next = 0
        self._journal: journal.Reader | None = None

    def register(self, event_id: int, events: int, subject: bytes | None) -> int:
        """Subscribe to an event; returns the callback's number.

        Args:
            event_id: which event.
            events: how many events there are.
            subject: of which object; None for all.

        Raises:
            VirtError: VIR_ERR_INTERNAL_ERROR, there is no such event.
        """
        if not 0 <= event_id < events:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"unsupported event ID {event_id}")
        self._listen()
        number, self._next = self._next, self._next + 1
        self._subscriptions[number] = _Subscription(event_id, subject)
        return number

    def deregister(self, callback: int) -> None:
        """End a subscription.

        Raises:
            VirtError: VIR_ERR_INTERNAL_ERROR, there is no such callback.
        """
        if self._subscriptions.pop(callback, None) is None:
            text = f"{self._noun} event callback {callback} not registered"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
        self._listen_no_more()

    def register_older(self, event_id: int) -> None:
        """Subscribe a client that knows no callbacks.

        Raises:
            VirtError: VIR_ERR_INTERNAL_ERROR, it has subscribed already.
        """
        if event_id in self._older:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"{self._noun} event {event_id} already registered")
        self._listen()
        self._older.add(event_id)

    def deregister_older(self, event_id: int) -> None:
        """End such a subscription.

        Raises:
            VirtError: VIR_ERR_INTERNAL_ERROR, there is none.
        """
        if event_id not in self._older:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"{self._noun} event {event_id} not registered")
        self._older.remove(event_id)
        self._listen_no_more()

    def wanted(self, event_id: int, subject: bytes) -> Iterator[int]:
        """The callbacks that want an event of an object."""
        for number, subscription in self._subscriptions.items():
            if subscription.event_id == event_id and subscription.subject in (None, subject):
                yield number

    def wanted_older(self, event_id: int) -> bool:
        """Whether a client that knows no callbacks wants an event."""
        return event_id in self._older

    def fileno(self) -> int | None:
        """Readable when something may have happened; None while nobody subscribed to anything."""
        return None if self._journal is None else self._journal.fileno()

    def read(self, messages: Callable[[journal.Record], Iterable[Event]]) -> list[Event]:
        """What has happened since the last call; an empty list means no more for now.

        Args:
            messages: makes the messages for this client of a record of the driver's.
        """
        events: list[Event] = []
        while self._journal is not None and not events:
            records = self._journal.read()
            if not records:
                break
            for record in records:
                if record.get("source") == self._source:
                    events += messages(record)
        return events

    def close(self) -> None:
        """End all subscriptions."""
        self._subscriptions.clear()
        self._older.clear()
        self._listen_no_more()

    def _listen(self) -> None:
        if self._journal is None:
            self._journal = self._generation.subscribe()

    def _listen_no_more(self) -> None:
        if self._journal is not None and not self._subscriptions and not self._older:
            self._journal.close()
            self._journal = None
