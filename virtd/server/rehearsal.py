"""What every worker needs, made ready once, before the first fork.

Modules are imported and codecs built, so that all processes share the memory of them; and a few clients are played
through a worker, because what the interpreter notes in its code when that first runs would otherwise be noted, and
paid for in memory and time, by each worker anew. Measured: a third of an idle worker's private memory.

Drivers are opened on an empty directory that is removed again: the accept loop knows nothing of any guest.
"""

import gc
import os
import shutil
import socket
from importlib import import_module

from virtd.drivers import LOCAL_SCHEMES, local_drivers
from virtd.protocol import codec
from virtd.protocol.messages import make_call
from virtd.protocol.programs import METHODS
from virtd.server import auth
from virtd.server.channel import SocketChannel
from virtd.server.config import Config
from virtd.server.process import Signals, handle_signals, title
from virtd.server.shared import Shared
from virtd.server.worker import Worker
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
    """Load everything, rehearse, and keep the garbage collector away from it all.

    Args:
        config: the settings.
        paths: the instance's directories.
        drivers: whether clients are served by drivers, and not forwarded.
    """
    handle_signals()
    if drivers:
        codec.warm()
        for scheme in LOCAL_SCHEMES:
            local_drivers(scheme)
        directory = f"{paths.runtime}/rehearsal-{os.getpid()}"
        try:
            _rehearse(config, below(directory, privileged=paths.privileged))
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        for scheme in LOCAL_SCHEMES:
            for driver in local_drivers(scheme) or ():
                driver.share(paths)
    else:
        import_module("virtd.server.front")
    title("starting")
    gc.collect()
    gc.freeze()


def _rehearse(config: Config, paths: Paths) -> None:
    shared = Shared(config, paths, [], alone=True)
    calls = b"".join(make_call(METHODS[name], 1, args).to_bytes() for name, args in DIALOGUE)
    for _ in range(CLIENTS):
        _play(shared, calls)
        for scheme in LOCAL_SCHEMES:
            for driver in local_drivers(scheme) or ():
                driver.unshare(paths)
    shared.close()


def _play(shared: Shared, calls: bytes) -> None:
    client, server = socket.socketpair()
    with client:
        client.sendall(calls)
        signals = Signals()
        Worker(SocketChannel(server, unix=True), auth.unix_peer(server, False), shared, signals).run()
        signals.close()
