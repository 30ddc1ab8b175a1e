"""Unix sockets at paths of any length.

The kernel takes at most 107 bytes of path. A longer one is reached through the descriptor of its directory
(/proc/self/fd/N/name), which names the same socket.
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from virtd.state.files import os_error

LONGEST = 107  # sizeof(sockaddr_un.sun_path) less the terminating zero, unix(7)


@contextmanager
def _short(path: str) -> Iterator[str]:
    """A name of the path that fits into a socket address."""
    if len(os.fsencode(path)) <= LONGEST:
        yield path
        return
    directory, name = os.path.split(path)
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def listen(path: str, *, mode: int = 0o600, backlog: int = 128) -> socket.socket:
    """A stream socket that listens at a path. A socket file already there is replaced: the caller holds the
    lock which says that nobody serves it.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        with _short(path) as name:
            # The socket must not be open to all for the moment between bind() and chmod().
            before = os.umask(0o177)
            try:
                sock.bind(name)
            finally:
                os.umask(before)
        os.chmod(path, mode)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise os_error(error, f"cannot listen on socket '{path}'") from None
    return sock


def connect(path: str, *, timeout: float | None = None) -> socket.socket:
    """A stream socket connected to the one that listens at a path.

    Args:
        path: the socket's file.
        timeout: the longest wait in seconds for a listener whose queue is full; it stays set on the socket.

    Raises:
        BlockingIOError: the listener's queue stayed full.
        OSError: nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if timeout is not None:
            # A non-blocking connect to a full queue fails at once (unix(7)); only this option makes it wait.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout))
        with _short(path) as name:
            sock.connect(name)
        sock.settimeout(timeout)
    except BaseException:
        sock.close()
        raise
    return sock


def _timeval(seconds: float) -> bytes:
    """A struct timeval; never zero, which would mean no limit."""
    microseconds = max(1, int(seconds * 1_000_000))
    return struct.pack("@ll", *divmod(microseconds, 1_000_000))
