"""What a remote URI says: how to get to a server, and what to ask it to open there.

    DRIVER[+TRANSPORT]://[USER@][HOST][:PORT]/PATH[?OPTION=VALUE&…]

Without a transport, a host means tls. What options the client does not know itself go on to the server.
This module only reads and writes URIs: it opens nothing.
"""

from __future__ import annotations

from types import MappingProxyType

from virtd import constants as c
from virtd import uri as uris
from virtd.errors import VirtError
from virtd.state import paths
from virtd.state.paths import Paths
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Transports and their ports; 0 where there are none. Which port ssh takes, its own configuration says.
PORTS = {"unix": 0, "tcp": 16509, "tls": 16514, "ssh": 0, "libssh": 22, "libssh2": 22, "ext": 0}

# Options that are for the client, not for the server (libvirt's documentation of remote URIs).
_OWN = frozenset(
    (
        "auth", "command", "keyfile", "known_hosts", "known_hosts_verify", "mode", "name", "netcat", "no_sanity",
        "no_tty", "no_verify", "pkipath", "proxy", "socket", "sshauth", "tls_priority",
    )
)  # fmt: skip


class Address(NamedTuple):
    """Where a connection goes.

    Attributes:
        uri: the whole URI, as it was given.
        name: the URI that the server is asked to open.
        transport: "unix", "tcp", …: a key of PORTS.
        host, port: for those that go over a network.
        socket: the path of the server's socket, for unix; for ssh only if the URI says it.
        user: whom to be there, for ssh.
        options: those of the client.
        read_only: whether nothing is to be changed there.
    """

    uri: str
    name: str
    transport: str
    host: str = ""
    port: int = 0
    socket: str = ""
    user: str = ""
    options: Mapping[str, str] = MappingProxyType({})
    read_only: bool = False


def _invalid(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_REMOTE)


def instance(path: str, here: Paths) -> Paths:
    """The instance of this machine whose URIs have this path: the caller's own, or the other one."""
    others = {"/session": paths.session, "/system": paths.system}
    return here if path == f"/{here.mode}" else others.get(path, paths.system)()


def default_socket(where: Paths, read_only: bool) -> str:
    """Where an instance's server listens. That of a session has one socket only: who may use it may do anything."""
    return f"{where.sockets}/libvirt-sock{'-ro' if read_only and where.privileged else ''}"


def parse(uri: str, here: Paths, *, read_only: bool = False) -> Address:
    """Read a remote URI.

    Args:
        uri: the URI.
        here: the instance of the caller, for the default socket.
        read_only: whether the default socket is the read-only one.

    Raises:
        VirtError: VIR_ERR_INVALID_ARG for what is no remote URI.
    """
    try:
        parts = uris.split(uri)
        port = parts.port
    except ValueError as error:
        raise _invalid(f"cannot parse URI {uri}: {error}") from None
    scheme, _, transport = parts.scheme.partition("+")
    host = parts.host
    transport = transport or ("tls" if host else "unix")
    if transport not in PORTS:
        known = "|".join(PORTS)
        raise _invalid(f"remote_open: transport in URL not recognised (should be {known})")
    if transport == "unix" and host:
        raise _invalid(f"using unix socket and remote server '{host}' is not supported.")
    own = {key: value for key, value in parts.options if key in _OWN}
    theirs = parts.without(_OWN)
    path = own.get("socket") or default_socket(instance(parts.path, here), read_only)
    return Address(
        uri=uri,
        # An authority that is empty is written all the same: qemu:///system.
        name=own.get("name") or f"{scheme}://{parts.path}{theirs and '?'}{theirs}",
        transport=transport,
        host=host or ("" if transport == "unix" else "localhost"),
        port=port or PORTS[transport],
        socket=path if transport == "unix" else own.get("socket", ""),
        user=parts.user,
        options=own,
        read_only=read_only,
    )
