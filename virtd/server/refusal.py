"""Telling a client that it cannot be served: in the protocol's own words, as the answer to its first call.

Done by a child of the accept loop, which has decided it. The client gets a short while to make that call.
"""

import signal
import socket

from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol.framing import Framer, FramingError
from virtd.protocol.messages import CALL, CALL_WITH_FDS, make_error
from virtd.server import auth, log
from virtd.server.dispatch import close_all
from virtd.server.process import title

PATIENCE = 5  # seconds for the client to say anything


def refuse(sock: socket.socket, peer: auth.Peer, limit: str) -> None:
    """Answer a client's first call with an error that names the limit, and close the connection.

    Args:
        sock: the client.
        peer: who it is.
        limit: which limit, and how high it is.
    """
    title(f"refusing {peer.label}: {limit}")
    log.warning(f"{peer.label}: refused, because {limit} is reached")
    # Nothing in here outlives the client's patience: the default action of the signal ends the process.
    signal.alarm(PATIENCE)
    error = VirtError(
        c.VIR_ERR_RESOURCE_BUSY, f"too many clients: {limit} in virtd.conf is reached", domain=c.VIR_FROM_RPC
    )
    framer = Framer()
    sock.setblocking(True)
    try:
        while data := sock.recv(65536):
            framer.receive(data)
            while (message := framer.next_message()) is not None:
                close_all(message.fds)
                if message.type in (CALL, CALL_WITH_FDS):
                    sock.sendall(make_error(message, error).to_bytes())
                    return
    except (OSError, FramingError):
        return
