"""Who is at the other end of a connection, and the calls by which a client proves it.

On a Unix socket the kernel says who it is. Nothing else is offered yet: AUTH_LIST answers "none", and the calls of
SASL and polkit fail as they do in libvirtd when they were not offered. When they are, they become functions in
`CALLS`, and `Peer.known` stays False until one of them succeeds.
"""

import os
import socket
import stat
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from virtd import constants as c
from virtd.drivers.base import Identity
from virtd.drivers.identities import NOBODY
from virtd.errors import VirtError

NONE = 0  # REMOTE_AUTH_NONE

_UCRED = struct.Struct("3i")


class Peer(NamedTuple):
    """The other end of a connection.

    Attributes:
        identity: what drivers are told of it.
        label: what titles and the log call it: root@unix, uid 1000@unix, 192.0.2.7@tcp.
        known: whether it counts as more than somebody who opened a connection. The kernel vouches for a local
            client; one from the network has at least to say something first.
    """

    identity: Identity
    label: str
    known: bool = True


def unix_peer(sock: socket.socket, read_only: bool, transport: str = "unix") -> Peer:
    """Who connected to a Unix socket (SO_PEERCRED, unix(7))."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(Identity(uid, gid, pid, transport, read_only), f"{user(uid)}@{transport}")


def network_peer(sock: socket.socket, transport: str = "tcp") -> Peer:
    """Who connected over a network: an address, which proves nothing."""
    try:
        host = str(sock.getpeername()[0])
    except OSError:
        host = "somebody"
    return Peer(Identity(NOBODY, NOBODY, 0, transport, False), f"{host}@{transport}", known=False)


def own_peer(transport: str, read_only: bool) -> Peer:
    """Who ran this program, and is served by it."""
    uid, gid = os.getuid(), os.getgid()
    return Peer(Identity(uid, gid, os.getppid(), transport, read_only), f"{user(uid)}@{transport}")


def stdio_peer(descriptor: int) -> tuple[Peer, socket.socket | None]:
    """Who is at the other end of standard input: inetd's client, or whoever ran the program (sshd).

    Returns:
        The peer, and the socket if it is one.
    """
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return own_peer("stdio", False), None
    sock = socket.socket(fileno=os.dup(descriptor))
    if sock.family == socket.AF_UNIX:
        # Of a socket that somebody else accepted, the path says whether its clients may only look.
        read_only = os.fsencode(sock.getsockname()).endswith(b"-ro")
        return unix_peer(sock, read_only, "stdio"), sock
    return network_peer(sock, "stdio"), sock


def user(uid: int) -> str:
    """A user, for titles and the log."""
    # Not the user's name: looking it up may ask a directory server, and hang with it.
    return "root" if uid == 0 else f"uid {uid}"


def auth_list() -> list[int]:
    """AUTH_LIST: by which ways a client may prove who it is."""
    return [NONE]


def _failed() -> VirtError:
    return VirtError(c.VIR_ERR_AUTH_FAILED, "authentication failed", domain=c.VIR_FROM_RPC)


def _sasl(*_arguments: Any) -> None:
    raise _failed()


def _polkit(*_arguments: Any) -> None:
    # libvirtd answers with an error that names nothing at all here.
    raise _failed()


CALLS: dict[str, Callable[..., Any]] = {
    "auth_list": auth_list,
    "auth_sasl_init": _sasl,
    "auth_sasl_start": _sasl,
    "auth_sasl_step": _sasl,
    "auth_polkit": _polkit,
}
