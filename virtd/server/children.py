"""The accept loop's table of its children: what each does, and how many do what.

The numbers are kept as they change, so that no event costs more with more clients.
"""

import time
from typing import Final

# What a child does.
WAITING: Final = "waiting"
SERVING: Final = "serving"
REFUSING: Final = "refusing"
HELPING: Final = "helping"  # does something for the server itself


class Child:
    """What the accept loop knows of one of its children. Changed by `Children` only."""

    __slots__ = ("anonymous", "forked", "retired", "served", "state")

    def __init__(self, state: str, anonymous: bool) -> None:
        self.state = state
        self.anonymous = anonymous  # serves a client of whom it does not know yet who it is
        self.forked = time.monotonic()
        self.retired = False  # has been told to end when it can
        self.served = 0

    @property
    def age(self) -> float:
        """Seconds since it was forked."""
        return time.monotonic() - self.forked


class Children:
    """All children, by process id."""

    def __init__(self) -> None:
        self._by_pid: dict[int, Child] = {}
        self._counts = {WAITING: 0, SERVING: 0, REFUSING: 0, HELPING: 0}
        self.anonymous = 0
        self.retired_waiting = 0

    def __len__(self) -> int:
        return len(self._by_pid)

    def pids(self) -> list[int]:
        """The process ids of all children."""
        return list(self._by_pid)

    def number(self, state: str) -> int:
        """How many children are in a state."""
        return self._counts[state]

    @property
    def serving(self) -> int:
        """How many clients are served."""
        return self._counts[SERVING]

    @property
    def available(self) -> int:
        """How many processes wait for a client and are to go on doing so."""
        return self._counts[WAITING] - self.retired_waiting

    def add(self, pid: int, state: str, anonymous: bool = False) -> None:
        """A child was forked."""
        self._by_pid[pid] = child = Child(state, anonymous)
        self._count(child, 1)

    def remove(self, pid: int) -> Child | None:
        """A child was reaped; what it was."""
        child = self._by_pid.pop(pid, None)
        if child is not None:
            self._count(child, -1)
        return child

    def change(self, pid: int, state: str) -> None:
        """A child has said what it does now."""
        child = self._by_pid.get(pid)
        if child is None:
            return
        self._count(child, -1)
        child.state = state
        child.served += state is SERVING
        self._count(child, 1)

    def known(self, pid: int) -> None:
        """A child has said that it knows who its client is."""
        child = self._by_pid.get(pid)
        if child is not None and child.anonymous:
            self._count(child, -1)
            child.anonymous = False
            self._count(child, 1)

    def retire(self, pid: int) -> None:
        """A child is being told to end when it can."""
        child = self._by_pid[pid]
        self._count(child, -1)
        child.retired = True
        self._count(child, 1)

    def most_used(self, number: int) -> list[int]:
        """The waiting children that have served most, as many as asked for."""
        waiting = [
            (child.served, pid) for pid, child in self._by_pid.items() if child.state is WAITING and not child.retired
        ]
        return [pid for _served, pid in sorted(waiting, reverse=True)[:number]]

    def waiting(self) -> list[int]:
        """The process ids of the children that wait for a client."""
        return [pid for pid, child in self._by_pid.items() if child.state is WAITING]

    def _count(self, child: Child, by: int) -> None:
        self._counts[child.state] += by
        self.anonymous += by * child.anonymous
        self.retired_waiting += by * (child.retired and child.state is WAITING)
