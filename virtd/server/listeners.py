"""The sockets by which clients come in: made here, inherited from systemd, or taken over from an older virtd.

All of them are non-blocking: several processes wait for the same socket, and the one that comes too late must not
hang in accept(). Socket files are made while the caller holds the instance's lock, so that a file which is in the
way belongs to nobody. This module accepts nobody and knows no protocol.
"""

import contextlib
import grp
import ipaddress
import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from virtd import constants as c
from virtd.errors import VirtError
from virtd.server import log
from virtd.server.config import Config
from virtd.state.files import make_directory, os_error
from virtd.state.paths import Paths
from virtd.state.sockets import listen

FIRST_INHERITED = 3  # sd_listen_fds(3): the descriptors begin behind standard error

# libvirt's modular daemons; each has NAME-sock and NAME-sock-ro.
MODULAR = (
    "virtqemud", "virtnetworkd", "virtstoraged", "virtnodedevd", "virtsecretd", "virtnwfilterd", "virtinterfaced",
    "virtproxyd",
)  # fmt: skip


class Listener(NamedTuple):
    """One listening socket.

    Attributes:
        sock: the socket itself.
        transport: 'unix' or 'tcp'.
        read_only: whether its clients may only look.
        address: its path, or ADDR:PORT.
        ours: whether the socket's file is to be removed when nobody serves it any more; False for an inherited
            one, which systemd keeps.
    """

    sock: socket.socket
    transport: str
    read_only: bool
    address: str
    ours: bool

    def describe(self) -> dict[str, Any]:
        """All but the socket, for the virtd that takes it over."""
        return {key: getattr(self, key) for key in ("transport", "read_only", "address", "ours")}

    def remove(self) -> None:
        """Remove the socket's file, unless it belongs to somebody else by now; nobody new finds the server then."""
        if self.transport != "unix" or not self.ours:
            return
        with contextlib.suppress(OSError):
            os.unlink(self.address)


def adopt(sock: socket.socket, description: dict[str, Any]) -> Listener:
    """A listener from a socket and what describe() said of it."""
    sock.setblocking(False)
    return Listener(
        sock,
        str(description["transport"]),
        bool(description["read_only"]),
        str(description["address"]),
        bool(description["ours"]),
    )


def inherited() -> list[Listener]:
    """The sockets that systemd passed, as sd_listen_fds(3) describes; the environment is cleared of them.

    A socket is read-only if its name (FileDescriptorName=) or its path says so.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED for a socket of a kind that virtd does not serve.
    """
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return []
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    found = []
    for number in range(count):
        name = names[number] if number < len(names) else ""
        descriptor = FIRST_INHERITED + number
        os.set_inheritable(descriptor, False)
        found.append(_inherited(socket.socket(fileno=descriptor), name))
    return found


def _inherited(sock: socket.socket, name: str) -> Listener:
    address = sock.getsockname()
    unix = sock.family == socket.AF_UNIX
    text = os.fsdecode(address) if unix else _tcp_name(address)
    accepting = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    parts = name.removesuffix(".socket").split("-")
    if not accepting or "tls" in parts or "admin" in parts:
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, f"cannot serve the inherited socket '{name or text}'")
    sock.setblocking(False)
    read_only = unix and ("ro" in parts or text.endswith("-ro"))
    return Listener(sock, "unix" if unix else "tcp", read_only, text, False)


def unix(config: Config, paths: Paths) -> list[Listener]:
    """Make the Unix sockets that the configuration asks for; files in their way are replaced.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, naming the path.
    """
    directory = config.text("unix_sock_dir") or paths.sockets
    group = config.text("unix_sock_group")
    gid = -1 if group is None else _group(group)
    writing = config.mode("unix_sock_rw_perms")
    if writing is None:
        writing = 0o700 if group is None else 0o770
    reading = config.mode("unix_sock_ro_perms") or 0
    names = ("libvirt", *MODULAR) if config.number("modular_sockets") else ("libvirt",)
    make_directory(directory, 0o755)
    made: list[Listener] = []
    try:
        for name in names:
            for suffix, mode in (("-sock", writing), ("-sock-ro", reading)):
                # A user's own instance has no read-only socket: nobody else gets at it anyway.
                if suffix == "-sock-ro" and not paths.privileged:
                    continue
                path = f"{directory}/{name}{suffix}"
                made.append(_unix(path, mode, gid, config.number("max_queued_clients")))
    except VirtError:
        for listener in made:
            listener.sock.close()
            listener.remove()
        raise
    return made


def _unix(path: str, mode: int, gid: int, backlog: int) -> Listener:
    # Closed to all until it belongs to the right group.
    sock = listen(path, mode=0o600, backlog=backlog)
    try:
        if gid >= 0:
            os.chown(path, -1, gid)
        os.chmod(path, mode)
    except OSError as error:
        sock.close()
        raise os_error(error, f"cannot set the permissions of socket '{path}'") from None
    sock.setblocking(False)
    return Listener(sock, "unix", path.endswith("-ro"), path, True)


def _group(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, f"unix_sock_group: there is no group '{name}'") from None


def split_address(text: str) -> tuple[str | None, str]:
    """Take ADDR:PORT apart; an IPv6 address stands in brackets, no address means all of the host's.

    Raises:
        VirtError: VIR_ERR_INVALID_ARG.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not port:
        raise VirtError(c.VIR_ERR_INVALID_ARG, f"'{text}' is not of the form ADDR:PORT")
    return (None if host in ("", "*") else host), port


def tcp(host: str | None, port: str, config: Config, there: Sequence[str] = ()) -> list[Listener]:
    """Listen for TCP connections, on each of the addresses that a host name has.

    Args:
        host: a name or an address; None for all of the host's.
        port: a number or a service's name; 0 lets the system choose one.
        config: for auth_tcp, without which nothing but the host itself may come in, and max_queued_clients.
        there: addresses that are listened on already, because they were taken over; they are left out.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR or VIR_ERR_CONFIG_UNSUPPORTED.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        what = f"Unable to resolve address '{host or '*'}' service '{port}': {error.strerror}"
        raise VirtError(c.VIR_ERR_SYSTEM_ERROR, what) from None
    made: list[Listener] = []
    try:
        for family, _type, _protocol, _name, address in found:
            if family in (socket.AF_INET, socket.AF_INET6) and _tcp_name(address) not in there:
                made.append(_tcp(family, address, config))
    except VirtError:
        for listener in made:
            listener.sock.close()
        raise
    return made


def allowed(address: Any, config: Config) -> bool:
    """Whether clients may come in by an address of this host: from other machines only if auth_tcp says so."""
    found = ipaddress.ip_address(address[0].partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    return found.is_loopback or config.text("auth_tcp") is not None


def _tcp(family: int, address: Any, config: Config) -> Listener:
    if not allowed(address, config):
        raise VirtError(
            c.VIR_ERR_CONFIG_UNSUPPORTED,
            f"listening on {_tcp_name(address)} would let every host in that reaches it, for TCP connections have no "
            'authentication yet; set auth_tcp = "none" in virtd.conf if that is meant',
        )
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(config.number("max_queued_clients"))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise os_error(error, f"Unable to bind to port: {_tcp_name(address)}") from None
    name = _tcp_name(sock.getsockname())
    log.warning(f"{name} has no authentication: whoever reaches it has all the power of this virtd")
    return Listener(sock, "tcp", False, name, True)


def _tcp_name(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
