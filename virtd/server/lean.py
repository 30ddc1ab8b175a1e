"""click and setproctitle, without the modules they import and do not need.

setproctitle imports logging for the case that it does not work, logging imports threading, and click imports that
for one class. Once threading is loaded, Python runs a hook of it after each fork, which dirties 450 KiB: a quarter of
what an idle worker may have for itself. There are no threads anywhere in virtd.

While the two are imported, stand-ins take the place of logging and threading. They know what is used of them; if a
later version asks for more, the real module is loaded, which costs memory and nothing else.
"""

import _thread
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _stand_ins(known: dict[str, dict[str, Any]]) -> Iterator[None]:
    for name, attributes in known.items():
        if name not in sys.modules:
            sys.modules[name] = stand_in = _StandIn(name)
            vars(stand_in).update(attributes)
    try:
        yield
    finally:
        for name in known:
            if isinstance(sys.modules.get(name), _StandIn):
                del sys.modules[name]


def _no_logger(_name: str) -> SimpleNamespace:
    return SimpleNamespace(debug=lambda *_args: None)


with _stand_ins({"logging": {"getLogger": _no_logger}, "threading": {"local": _thread._local}}):
    import click
    from setproctitle import setproctitle

__all__ = ["click", "setproctitle"]
