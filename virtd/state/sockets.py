"""Unix sockets at paths of any length.

The kernel takes at most 107 bytes of path. A longer one is reached through the descriptor of its directory
(/proc/self/fd/N/name), which names the same socket.

`socket` makes enumerations of its constants when it is imported, which takes as long as half of Python's start: it is
imported by whoever makes a socket, and a client of a moment makes do with what it is built on, `_socket`.
"""

from __future__ import annotations

import _socket
import os
import struct

from virtd.state.faults import point
from virtd.state.files import os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

LONGEST = 107  # sizeof(sockaddr_un.sun_path) less the terminating zero, unix(7)


class _short:  # noqa: N801
    """A context with a name of the path that fits into a socket address."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= LONGEST:
            return self._path
        directory, name = os.path.split(self._path)
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._directory}/{name}"

    def __exit__(self, *error: object) -> None:
        if self._directory >= 0:
            os.close(self._directory)


def listen(path: str, *, mode: int = 0o600, backlog: int = 128) -> socket.socket:
    """A stream socket that listens at a path. A socket file already there is replaced: the caller holds the
    lock which says that nobody serves it.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    import socket

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
                point("socket.bind", fails=True)
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
    import socket

    sock = socket.socket(fileno=connect_plain(path, timeout=timeout).detach())
    sock.settimeout(timeout)
    return sock


def connect_plain(path: str, *, timeout: float | None = None) -> _socket.socket:
    """The same without what `socket` adds to a socket."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        if timeout is not None:
            # A non-blocking connect to a full queue fails at once (unix(7)); only this option makes it wait.
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _timeval(timeout))
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
