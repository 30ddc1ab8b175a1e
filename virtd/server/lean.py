"""click and setproctitle, without the modules they import and do not need.

setproctitle imports logging for the case that it does not work, logging imports threading, and click imports that
for one class. Once threading is loaded, Python runs a hook of it after each fork, which dirties 450 KiB: a quarter of
what an idle worker may have for itself. There are no threads anywhere in virtd.

While the two are imported, stand-ins take the place of logging and threading (virtd.standins).
"""

import _thread
from types import SimpleNamespace

from virtd.standins import standins


def _no_logger(_name: str) -> SimpleNamespace:
    return SimpleNamespace(debug=lambda *_args: None)


with standins({"logging": {"getLogger": _no_logger}, "threading": {"local": _thread._local}}):
    import click
    from setproctitle import setproctitle

__all__ = ["click", "setproctitle"]
