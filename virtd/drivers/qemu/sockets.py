"""Unix stream sockets of guests: connecting and listening, with names of any length and a bound on waiting.

The kernel takes at most 107 bytes of a socket's path. A directory may be deeper than that, so the name is
given relative to an open descriptor of its directory, by way of /proc/self/fd.

This module knows no protocol and no guest.
"""

import math
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from virtd import deadlines

_MAX_PATH = 107


@contextmanager
def _address(path: str) -> Iterator[str]:
    """A name for path, short enough for the kernel while the block lasts."""
    if len(os.fsencode(path)) <= _MAX_PATH:
        yield path
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def connect(path: str, seconds: float) -> socket.socket:
    """Connect to a listening socket, waiting for room in its queue at most seconds and within the bound.

    Raises:
        OSError: as connect(2); BlockingIOError when the time was up.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A unix socket whose queue is full refuses a non-blocking connect at once, and nothing can be
        # polled for. A blocking one with a send time-out waits in the kernel, and no longer than that.
        left = max(0.001, min(deadlines.remaining(seconds), 1e6))
        fraction, whole = math.modf(left)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(whole), int(fraction * 1e6)))
        with _address(path) as address:
            client.connect(address)
    except BaseException:
        client.close()
        raise
    client.setblocking(False)
    return client


def listen(path: str, backlog: int = 16) -> socket.socket:
    """A listening socket at path, made anew: what was there is removed first.

    The socket is made with the process's umask; who may connect is the caller's matter.

    Raises:
        OSError: as unlink(2), bind(2), listen(2).
    """
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        with _address(path) as address:
            server.bind(address)
        server.listen(backlog)
    except BaseException:
        server.close()
        raise
    return server
