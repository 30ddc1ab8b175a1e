"""Importing a library without modules which it imports and does not need.

    with standins({"typing": {"Callable": anything}}):
        import library

Inside, an empty module with a few names takes the place of one that is not loaded yet. If the library asks for
another name, now or ever after, the real module is loaded: that costs time and memory, and nothing else.
"""

from __future__ import annotations

import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(__import__(self.__name__), name)


class standins:  # noqa: N801
    """A context in which modules that are not loaded are replaced.

    Args:
        known: what each of them has, by name.
    """

    def __init__(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        self._known = known

    def __enter__(self) -> None:
        for name, attributes in self._known.items():
            if name not in sys.modules:
                sys.modules[name] = stand_in = _StandIn(name)
                vars(stand_in).update(attributes)

    def __exit__(self, *error: object) -> None:
        for name in self._known:
            if isinstance(sys.modules.get(name), _StandIn):
                del sys.modules[name]
