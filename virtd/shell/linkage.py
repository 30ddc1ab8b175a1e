"""From a URI to a connection: into this process where no server is needed, over a wire otherwise.

qemu:///session                 this user's guests, in this process
qemu:///system                  the machine's: in this process for root, by way of the server for others
qemu:///embed?root=DIR          an instance below a directory, in this process
qemu+TRANSPORT://…, qemu://HOST/…, …?socket=PATH    a server
"""

from __future__ import annotations

import os

from virtd import constants as c
from virtd.drivers import open_connection
from virtd.drivers.base import Connection, Context, Identity
from virtd.errors import VirtError
from virtd.state import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from virtd.shell.session import Session


def default_uri(root: str | None) -> str:
    """The URI that counts when none is given: of the environment, else the user's own instance."""
    named = os.environ.get("VIRSH_DEFAULT_CONNECT_URI") or os.environ.get("LIBVIRT_DEFAULT_URI")
    return named or f"qemu:///{paths.find(root).mode}"


def open_link(session: Session) -> tuple[Connection, bool]:
    """Open a session's connection.

    Returns:
        The connection, and whether it leads into this process.

    Raises:
        VirtError: it cannot be opened.
    """
    uri = session.uri = session.uri or default_uri(session.root)
    scheme, _, rest = uri.partition("://")
    authority, _, path = rest.partition("/")
    path, _, query = path.partition("?")
    local = "+" not in scheme and not authority and "socket=" not in query
    place = paths.find(session.root)
    if not (session.root or os.environ.get("VIRTD_ROOT")):
        if path == "session":
            place = paths.session()
        elif path == "system" and local:
            place = paths.system()
            if os.geteuid() != 0:
                # The machine's guests are others' business: the server lets in whom it may.
                uri, local = f"{scheme}+unix:///{path}", False
    pid = os.getpid()
    identity = Identity(os.geteuid(), os.getegid(), pid, "local", session.read_only)
    context = Context(place, identity, pid, session.read_only)
    if local:
        return open_connection(uri, context), True
    from virtd.drivers.remote.driver import open_remote

    return open_remote(uri, context, ping=_ping(session)), False


def _ping(session: Session) -> tuple[float, int] | None:
    """After how many seconds of silence, and how often, to ask whether the server is still there."""
    interval, count = session.keepalive
    interval = 5 if interval is None else interval
    return (float(interval), 6 if count is None else count) if interval else None


def check_call(name: str, args: tuple[Any, ...], *, served: bool) -> None:
    """Refuse what a read-only connection may not do, and what nobody serves.

    A server does so itself; this is for connections into this process.

    Raises:
        VirtError: VIR_ERR_OPERATION_DENIED, VIR_ERR_NO_SUPPORT.
    """
    from virtd.protocol import access
    from virtd.protocol.programs import METHODS

    procedure = METHODS[name]
    if not served:
        raise VirtError(c.VIR_ERR_NO_SUPPORT, procedure.api, domain=c.VIR_FROM_DOMAIN)
    if not access.read_only_allows(procedure, args):
        raise access.read_only_refusal(procedure, args)
