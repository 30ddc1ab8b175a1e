"""What every worker needs, made ready once, before the first fork.

Modules are imported and codecs built, so that all processes share the memory of them; and a few clients are played
through a worker, because what the interpreter notes in its code when that first runs would otherwise be noted, and
paid for in memory and time, by each worker anew. Measured: a third of an idle worker's private memory.

Drivers are opened on an empty directory that is removed again: the accept loop knows nothing of any guest.

Before and after it is seen to where in memory things lie (virtd.server.layout).
"""

import gc
import os
import shutil
import signal
from importlib import import_module

from virtd.drivers import LOCAL_SCHEMES, local_drivers
from virtd.protocol import codec
from virtd.protocol.messages import make_call
from virtd.protocol.programs import METHODS
from virtd.server import layout
from virtd.server.config import Config
from virtd.server.listeners import Listener
from virtd.server.process import HANDLED, handle_signals, title
from virtd.server.reports import TOOK
from virtd.server.shared import Shared
from virtd.server.spare import Spare
from virtd.state import files, sockets
from virtd.state.paths import Paths, below

CLIENTS = 10  # a little more often than it takes the interpreter to specialise what it runs (PEP 659)

DIALOGUE = (
    ("auth_list", ()),
    ("connect_supports_feature", (10,)),
    ("connect_open", ("qemu:///system", 0)),
    ("connect_get_lib_version", ()),
    ("connect_list_all_domains", (1, 0)),
    ("connect_close", ()),
)


def prepare(config: Config, paths: Paths, *, drivers: bool = True) -> None:
    """Load everything, rehearse, and keep the garbage collector away from it all. Signals wait until that is done.

    Args:
        config: the settings.
        paths: the instance's directories.
        drivers: whether clients are served by drivers, and not forwarded.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    # Hardly anything of what is loaded is garbage: to look for it time and again would take a sixth of the time.
    gc.disable()
    try:
        handle_signals()
        if drivers:
            _prepare_drivers(config, paths)
        else:
            import_module("virtd.server.front")
        title("starting")
        gc.collect()
        layout.fill_holes()
        gc.freeze()
    finally:
        gc.enable()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def _prepare_drivers(config: Config, paths: Paths) -> None:
    """Load the drivers, and rehearse. That comes last: what is made of classes later would undo what has been noted."""
    codec.warm()
    for scheme in LOCAL_SCHEMES:
        local_drivers(scheme)
    for scheme in LOCAL_SCHEMES:
        for driver in local_drivers(scheme) or ():
            driver.share(paths)
    layout.gather(lambda: _rehearse(config, paths, 1))
    _rehearse(config, paths, CLIENTS)


def _rehearse(config: Config, paths: Paths, clients: int) -> None:
    """Play a few clients. Nothing is left of it. The handled signals are blocked: it would take them for its own.

    Args:
        config: the settings.
        paths: the instance's directories: a directory of its own is made in the one for the run time.
        clients: how many.
    """
    directory = f"{paths.runtime}/rehearsal-{os.getpid()}"
    try:
        _play_all(config, below(directory, privileged=paths.privileged), clients)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _play_all(config: Config, paths: Paths, clients: int) -> None:
    files.make_directory(paths.runtime)
    address = f"{paths.runtime}/socket"
    listener = Listener(sockets.listen(address), "unix", False, address, True)
    listener.sock.setblocking(False)
    shared = Shared(config, paths, [listener])
    calls = b"".join(make_call(METHODS[name], 1, args).to_bytes() for name, args in DIALOGUE)
    for _ in range(clients):
        _play(shared, calls)
        for scheme in LOCAL_SCHEMES:
            for driver in local_drivers(scheme) or ():
                driver.unshare(paths)
    shared.close()
    listener.sock.close()


def _play(shared: Shared, calls: bytes) -> None:
    """The life of a process which serves one client."""
    with sockets.connect(shared.listeners[0].address) as client:
        client.sendall(calls)
        spare = Spare(shared)
        accepted = spare.wait()
        shared.reports.send(TOOK)
        shared.reports.read()
        spare.leaving = True
        spare.run(accepted)
        spare.close()
