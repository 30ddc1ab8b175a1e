"""All guests, networks or pools of an instance at one moment, under each of their names: what every driver looks into.

A view is made of entries, whatever they are; it does not change. Who is looked for in vain is named in the same words
everywhere.
"""

from __future__ import annotations

from virtd import uuids
from virtd.errors import VirtError
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Generic, Protocol, TypeVar

    class Entry(Protocol):
        """What is defined, or active, or both."""

        @property
        def name(self) -> str: ...

        @property
        def uuid(self) -> str: ...

        @property
        def active(self) -> bool: ...

    class Reference(Protocol):
        """What goes over the wire for an entry."""

        @property
        def name(self) -> str: ...

        @property
        def uuid(self) -> bytes: ...

    E = TypeVar("E", bound=Entry)
else:
    E = None

    class Generic:
        """What typing has: its import would take as long as a list of guests."""

        def __class_getitem__(cls, _: Any) -> type:
            return cls


class Kind(NamedTuple):
    """What is looked for, for the errors of those who do not find it.

    Attributes:
        noun: libvirt's name of it: 'domain'.
        missing: the error's code: VIR_ERR_NO_….
        domain: the driver that has the error: VIR_FROM_….
    """

    noun: str
    missing: int
    domain: int

    def error(self, what: str) -> VirtError:
        """The error for one that is not there; what: by which property it was looked for, and the property."""
        return VirtError(self.missing, f"no {self.noun} with matching {what}", domain=self.domain)


class View(Generic[E]):
    """What there is at one moment.

    Args:
        entries: all of it; of two with one uuid the last counts.

    Attributes:
        by_uuid: the entries by their uuid as text.
        by_name: the entries by their name.
    """

    def __init__(self, entries: Iterable[E]) -> None:
        # No comprehensions: a function is made for each, which dirties pages of a worker's memory even for no guests.
        self.by_uuid: dict[str, E] = {}
        self.by_name: dict[str, E] = {}
        for entry in entries:
            self.by_uuid[entry.uuid] = entry
        for entry in self.by_uuid.values():
            self.by_name[entry.name] = entry

    def __iter__(self) -> Iterator[E]:
        return iter(self.by_uuid.values())


class Collection(Generic[E]):
    """Base of what knows all guests, networks or pools of an instance."""

    kind: Kind

    def view(self) -> View[E]:
        """All of them as they are now."""
        raise NotImplementedError

    def find(self, reference: Reference) -> E:
        """The one that a client means: by its uuid, which alone never changes.

        Raises:
            VirtError: VIR_ERR_NO_….
        """
        uuid = uuids.to_text(reference.uuid)
        entry = self.view().by_uuid.get(uuid)
        if entry is None:
            raise self.kind.error(f"uuid '{uuid}' ({reference.name})")
        return entry

    def find_uuid(self, uuid: bytes) -> E:
        """The one with a uuid.

        Raises:
            VirtError: VIR_ERR_NO_….
        """
        text = uuids.to_text(uuid)
        entry = self.view().by_uuid.get(text)
        if entry is None:
            raise self.kind.error(f"uuid '{text}'")
        return entry

    def find_name(self, name: str) -> E:
        """The one with a name.

        Raises:
            VirtError: VIR_ERR_NO_….
        """
        entry = self.view().by_name.get(name)
        if entry is None:
            raise self.kind.error(f"name '{name}'")
        return entry

    def active_names(self, most: int, *, active: bool) -> list[str]:
        """The names of those that are active, or of those that are not, as libvirt's oldest lists have them.

        Args:
            most: how many the client has room for.
            active: which.
        """
        return [entry.name for entry in self.view() if entry.active == active][: max(0, most)]
