"""Waiting for events and printing them as they come: until one has come, or the user has had enough."""

from __future__ import annotations

import gc
import select
import sys
import time

from virtd.drivers.base import Event
from virtd.errors import VirtError
from virtd.shell.command import JSON, Args
from virtd.shell.output import Output, Plain
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    # What a description of an event hands back: callback, sentence, data; None for an event of somebody else.
    Description = tuple[int, str, dict[str, Any]] | None


class Subscription:
    """Events asked for; a context that takes the wish back at its end.

    Args:
        session: the connection.
        deregister: the procedure that takes a wish back.

    Attributes:
        callbacks: the numbers of what was asked for.
    """

    def __init__(self, session: Session, deregister: str) -> None:
        self._session = session
        self._deregister = deregister
        self.callbacks: list[int] = []

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        for callback in self.callbacks:
            try:
                self._session.call(self._deregister, callback)
            except VirtError:
                return  # the connection is gone, and the subscriptions with it

    def add(self, register: str, *args: Any) -> None:
        """Ask for an event.

        Raises:
            VirtError: there is no such event here.
        """
        self.callbacks.append(self._session.call(register, *args))


def wait(session: Session, args: Args, subscription: Subscription, describe: Callable[[Event], Description]) -> Output:
    """Print events as they come, by the options --loop, --timeout and --timestamp.

    Args:
        session: the connection.
        args: the command's options.
        subscription: what was asked for.
        describe: says what an event says.

    Returns:
        The last line, which says how many have come; a failure if none has.
    """
    gc.enable()
    timeout = args.natural("timeout", 2**31 // 1000)
    end = None if not timeout else time.monotonic() + timeout
    as_json = session.json or args.flag(JSON)
    count = 0
    why = ""
    try:
        while not why and (count == 0 or args.flag("loop")):
            for event in session.read_events():
                found = describe(event)
                if found is None or found[0] not in subscription.callbacks:
                    continue
                _print(session, found[1], found[2], as_json=as_json, stamp=args.flag("timestamp"))
                count += 1
                if not args.flag("loop"):
                    break
            else:
                why = _pause(session, end)
    except KeyboardInterrupt:
        why = "event loop interrupted\n"
    last = Plain("events_received", "" if as_json else f"{why}events received: {count}\n", count)
    last.failed = count == 0
    return last


def _pause(session: Session, end: float | None) -> str:
    """Wait until events may be there; returns what to say if the time is up."""
    poll = select.poll()
    for descriptor in session.connect().event_fds():
        poll.register(descriptor, select.POLLIN)
    left = None if end is None else max(0.0, end - time.monotonic())
    if not poll.poll(None if left is None else left * 1000):
        return "event loop timed out\n"
    return ""


def _print(session: Session, sentence: str, data: dict[str, Any], *, as_json: bool, stamp: bool) -> None:
    now = time.time()
    if as_json:
        import json

        session.write(json.dumps({"time": round(now, 3), **data}, ensure_ascii=False) + "\n")
    else:
        session.write(f"{timestamp(now)}: {sentence}\n" if stamp else f"{sentence}\n")
    # Whoever reads this reads it as it happens.
    sys.stdout.flush()


def timestamp(seconds: float) -> str:
    """A time as virsh prints it with events: UTC, with milliseconds."""
    whole = int(seconds)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1000):03}+0000"
