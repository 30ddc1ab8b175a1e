"""NamedTuple as typing has it, at next to no cost, for what programs of a moment import.

typing imports re and contextlib, which take as long as Python's own start, and compiles code for each class that is
declared; here a class is made in the time of a few dictionaries. It is used by the same words:

    class Place(NamedTuple):
        host: str
        port: int = 0

Type checkers are shown typing's own. This module imports nothing that costs.
"""

from __future__ import annotations

from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypeVar
    from typing import NamedTuple as NamedTuple

    T = TypeVar("T", bound=NamedTuple)

    def declare(name: str, fields: Iterable[str]) -> type[tuple[Any, ...]]: ...

    def many(kind: type[T], *columns: Iterable[Any]) -> list[T]: ...
else:
    # What reads a field in collections.namedtuple: in half the time of a property of an itemgetter.
    from _collections import _tuplegetter

    class _Declaring(type):
        """Makes classes of the fields that are annotated in their bodies."""

        def __new__(mcs, name, bases, body):
            if bases and bases[0] is not tuple and not bases[0]._fields:
                fields = tuple(body.get("__annotations__", ()))
                defaults = {field: body[field] for field in fields if field in body}
                getters = {field: _tuplegetter(place, None) for place, field in enumerate(fields)}
                body |= getters | {"_fields": fields, "__match_args__": fields, "_field_defaults": defaults}
            return super().__new__(mcs, name, bases, {"__slots__": (), **body})

    class NamedTuple(tuple, metaclass=_Declaring):
        """Base of classes whose annotated fields are the elements of a tuple; those with a value may be left out."""

        _fields = ()
        _field_defaults = {}  # noqa: RUF012

        def __new__(cls, *values, **named):
            if named or len(values) != len(cls._fields):
                values = cls._whole(values, named)
            return tuple.__new__(cls, values)

        @classmethod
        def _whole(cls, values, named):
            """All values in order: by place, by name, and by default."""
            fields = cls._fields
            given = dict(zip(fields, values, strict=False))
            every = cls._field_defaults | given | named
            if len(values) > len(fields) or given.keys() & named or every.keys() ^ set(fields):
                raise TypeError(f"{cls.__name__} takes {fields}, not {values} and {named}")
            return map(every.get, fields)

        @classmethod
        def _make(cls, values):
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"{cls.__name__} takes {cls._fields}, not {tuple(made)}")
            return made

        def _replace(self, **named):
            if not named.keys() <= set(self._fields):
                raise TypeError(f"{type(self).__name__} takes {self._fields}, not {named}")
            return tuple.__new__(type(self), map(named.get, self._fields, self))

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def __getnewargs__(self):
            return tuple(self)

        def __repr__(self):
            shown = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({shown})"

    def declare(name, fields):
        """A class of named tuples whose fields are known only when the program runs (collections.namedtuple)."""
        return _Declaring(name, (NamedTuple,), {"__annotations__": dict.fromkeys(fields)})

    def many(kind, *columns):
        """Thousands of named tuples at once, without a function call for each; a column for each field."""
        if len(columns) != len(kind._fields):
            raise TypeError(f"{kind.__name__} takes {kind._fields}, not {len(columns)} columns")
        return list(map(partial(tuple.__new__, kind), zip(*columns, strict=False)))
