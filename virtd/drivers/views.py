"""All guests, networks or pools of an instance at one moment, under each of their names: what every driver looks into.

A view is made of entries, whatever they are; it does not change.
"""

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class Entry(Protocol):
    """What is defined, or active, or both."""

    @property
    def name(self) -> str: ...

    @property
    def uuid(self) -> str: ...


E = TypeVar("E", bound=Entry)


class View(Generic[E]):
    """What there is at one moment.

    Args:
        entries: all of it; of two with one uuid the last counts.

    Attributes:
        by_uuid: the entries by their uuid as text.
        by_name: the entries by their name.
    """

    def __init__(self, entries: Iterable[E]) -> None:
        self.by_uuid = {entry.uuid: entry for entry in entries}
        self.by_name = {entry.name: entry for entry in self.by_uuid.values()}

    def __iter__(self) -> Iterator[E]:
        return iter(self.by_uuid.values())
