"""Events of guests as a client of libvirt gets them, recorded in their order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from tests.guests.xml import domain
from tests.helpers.instance import Instance
from tests.helpers.waiting import SECONDS

__all__ = ["Event", "Events", "lifecycle", "stopped"]

_FENCE = "fence"
_FENCE_UUID = "00000000-0000-4000-8000-0000000fe0ce"


class Event(NamedTuple):
    """An event: `kind` as libvirt's constants name it, the guest's name and its id inside the event."""

    kind: str
    guest: str
    id: int
    values: tuple[Any, ...]


def lifecycle(guest: str, number: int, event: int, detail: int) -> Event:
    """A life cycle event (VIR_DOMAIN_EVENT_*, and its detail)."""
    return Event("LIFECYCLE", guest, number, (event, detail))


def stopped(found: list[Event]) -> bool:
    """Whether a guest has ended."""
    return any(event.kind == "LIFECYCLE" and event.values[0] == 5 for event in found)


class Events:
    """Callbacks for all events on one connection, which may be read-only.

    That nothing more comes is known through a fence: a change of the title of a guest of its own, whose event comes
    after all that were there before.

    Args:
        libvirt: the module, whose event loop runs already.
        connection: the connection.
        instance: the virtd it leads to.
        guest: the guest (virDomain) whose events are recorded; None: all guests'.
        older: life cycle events by virConnectDomainEventRegister.
    """

    def __init__(
        self, libvirt: ModuleType, connection: Any, instance: Instance, guest: Any = None, *, older: bool = False
    ) -> None:
        self._found: list[Event] = []
        self._fences = 0
        self._changed = threading.Condition()
        self._instance = instance
        self.callbacks: list[int] = []
        instance.define(domain(_FENCE, uuid=_FENCE_UUID))
        fence = libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE
        if guest is not None:
            connection.domainEventRegisterAny(None, fence, self._recorder("METADATA_CHANGE"), None)
        if older:
            connection.domainEventRegister(self._recorder("LIFECYCLE"), None)
        for name, number in sorted(vars(libvirt).items()):
            kind = name.removeprefix("VIR_DOMAIN_EVENT_ID_")
            if kind not in (name, "LAST") and not (older and kind == "LIFECYCLE"):
                callback = self._recorder(kind)
                self.callbacks.append(connection.domainEventRegisterAny(guest, number, callback, None))

    def _recorder(self, kind: str) -> Callable[..., None]:
        def callback(_connection: Any, guest: Any, *values: Any) -> None:
            *arguments, _opaque = values
            with self._changed:
                if guest.name() != _FENCE:
                    self._found.append(Event(kind, guest.name(), guest.ID(), tuple(arguments)))
                elif kind == "METADATA_CHANGE":
                    self._fences += 1
                self._changed.notify_all()

        return callback

    def wait(self, until: Callable[[list[Event]], bool], seconds: float = SECONDS) -> None:
        """Wait until what has come since the last take() is enough."""
        with self._changed:
            assert self._changed.wait_for(lambda: until(self._found), seconds), f"only {self._found} came"

    def take(self, until: Callable[[list[Event]], bool] | None = None, seconds: float = SECONDS) -> list[Event]:
        """What has come since the last call.

        Args:
            until: when what comes is enough; it is waited for. Then, as without, for what has been caused already.
            seconds: for how long.
        """
        if until is not None:
            self.wait(until, seconds)
        before = self._fences
        # By a connection of its own: the one that is listened to may be read-only, or busy.
        self._instance.virsh("desc", _FENCE, "--title", "--new-desc", "fence")
        with self._changed:
            assert self._changed.wait_for(lambda: self._fences > before, SECONDS), f"no fence, but {self._found}"
            found, self._found = self._found, []
            return found
