"""click, setproctitle and subprocess, without the modules they import and do not need.

setproctitle imports logging for the case that it does not work, logging imports threading, click imports that for one
class, subprocess for one lock. Once threading is loaded, Python runs a hook of it after each fork, which dirties
450 KiB: a quarter of what an idle worker may have for itself. There are no threads anywhere in virtd.

While they are imported, stand-ins take the place of logging and threading (virtd.standins).
"""

import _thread
from types import SimpleNamespace

from virtd.standins import standins


def _no_logger(_name: str) -> SimpleNamespace:
    return SimpleNamespace(debug=lambda *_args: None)


_THREADING = {"local": _thread._local, "Lock": _thread.allocate_lock}

with standins({"logging": {"getLogger": _no_logger}, "threading": _THREADING}):
    import subprocess  # for drivers, who find it imported

    import click
    from setproctitle import setproctitle

__all__ = ["click", "setproctitle", "subprocess"]
