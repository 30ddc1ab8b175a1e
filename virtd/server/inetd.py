"""One client on standard input and output, and nothing else: what inetd, systemd and sshd start.

There is no accept loop and no lock: any number of such processes may serve beside each other and beside a daemon.
"""

import os
import socket
import sys
from typing import TYPE_CHECKING

from virtd.server import auth, log
from virtd.server.channel import Channel, PipeChannel, SocketChannel
from virtd.server.config import Config
from virtd.server.daemon import quiet, raise_limits
from virtd.server.listeners import allowed
from virtd.server.process import Signals, handle_signals
from virtd.server.shared import Shared
from virtd.server.worker import serving
from virtd.state.paths import Paths

if TYPE_CHECKING:
    from virtd.server.front import Target


def shares_output() -> bool:
    """Whether standard error goes to the client, as inetd does it: then nothing may be written there."""
    try:
        there, here = os.fstat(2), os.fstat(0)
    except OSError:
        return True
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def serve(config: Config, paths: Paths, target: "Target | None" = None) -> None:
    """Serve the client on standard input to its end."""
    peer, sock = auth.stdio_peer(0)
    channel: Channel
    if sock is not None and sock.family != socket.AF_UNIX and not allowed(sock.getsockname(), config):
        log.error(f"{peer.label} is not served: it comes from another host, and virtd.conf does not set auth_tcp")
        return
    if sock is not None:
        channel = SocketChannel(sock, unix=sock.family == socket.AF_UNIX)
    else:
        channel = PipeChannel(os.dup(0), os.dup(1))
    # Programs that drivers start inherit these: what they print must not reach the client as messages.
    sys.stderr.flush()
    quiet(2 if shares_output() else 1)
    serve_client(channel, peer, config, paths, target)


def serve_client(
    channel: Channel, peer: auth.Peer, config: Config, paths: Paths, target: "Target | None" = None
) -> None:
    """Serve one client to its end, in a process that does nothing else."""
    raise_limits()
    # Whoever started the process may have had any.
    os.umask(0o022)
    handle_signals()
    signals = Signals()
    serving(channel, peer, Shared(config, paths, [], alone=True, target=target), signals).run()
    signals.close()
