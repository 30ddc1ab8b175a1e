"""One client on standard input and output, and nothing else: what inetd, systemd and sshd start.

There is no accept loop and no lock: any number of such processes may serve beside each other and beside a daemon.
"""

import os
import signal
import sys

from virtd.server import auth
from virtd.server.channel import Channel, PipeChannel, SocketChannel
from virtd.server.config import Config
from virtd.server.daemon import quiet
from virtd.server.process import Signals
from virtd.server.shared import Shared
from virtd.server.worker import Worker
from virtd.state.paths import Paths


def shares_output() -> bool:
    """Whether standard error goes to the client, as inetd does it: then nothing may be written there."""
    try:
        there, here = os.fstat(2), os.fstat(0)
    except OSError:
        return True
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def serve(config: Config, paths: Paths) -> None:
    """Serve the client on standard input to its end."""
    peer, sock = auth.stdio_peer(0)
    channel: Channel = SocketChannel(sock) if sock is not None else PipeChannel(os.dup(0), os.dup(1))
    # Programs that drivers start inherit these: what they print must not reach the client as messages.
    sys.stderr.flush()
    quiet(2 if shares_output() else 1)
    signals = Signals((signal.SIGTERM, signal.SIGINT), ignored=(signal.SIGPIPE, signal.SIGHUP))
    Worker(channel, peer, Shared(config, paths, [], alone=True), signals).run()
    signals.close()
