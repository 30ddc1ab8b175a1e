"""Who a client is, as one server tells another (CONNECT_SET_IDENTITY, virConnectSetIdentity).

Numbers only: names would have to be looked up, and may hang with whoever is asked. A client from the network has no
number, and nothing is said of it; it is nobody then. Who may speak for others: whoever has at least the power
of the server itself.
"""

import os
from collections.abc import Sequence

from virtd import constants as c
from virtd.drivers.base import Identity
from virtd.errors import VirtError
from virtd.protocol.records import TypedParam, TypedValue
from virtd.server.auth import NOBODY, Peer, user

_START_TIME = 19  # field 22 of /proc/PID/stat, counted from behind the name, proc(5)

# Each name and its type, as libvirt's own servers send them.
_TYPES = {
    c.VIR_CONNECT_IDENTITY_UNIX_USER_ID: c.VIR_TYPED_PARAM_ULLONG,
    c.VIR_CONNECT_IDENTITY_UNIX_GROUP_ID: c.VIR_TYPED_PARAM_ULLONG,
    c.VIR_CONNECT_IDENTITY_PROCESS_ID: c.VIR_TYPED_PARAM_LLONG,
    c.VIR_CONNECT_IDENTITY_PROCESS_TIME: c.VIR_TYPED_PARAM_ULLONG,
    c.VIR_CONNECT_IDENTITY_USER_NAME: c.VIR_TYPED_PARAM_STRING,
    c.VIR_CONNECT_IDENTITY_GROUP_NAME: c.VIR_TYPED_PARAM_STRING,
    c.VIR_CONNECT_IDENTITY_SASL_USER_NAME: c.VIR_TYPED_PARAM_STRING,
    c.VIR_CONNECT_IDENTITY_X509_DISTINGUISHED_NAME: c.VIR_TYPED_PARAM_STRING,
    c.VIR_CONNECT_IDENTITY_SELINUX_CONTEXT: c.VIR_TYPED_PARAM_STRING,
}


def describe(identity: Identity) -> list[TypedParam]:
    """What there is to say of a client, for the params of CONNECT_SET_IDENTITY."""
    if identity.uid == NOBODY:
        return []
    found = {
        c.VIR_CONNECT_IDENTITY_UNIX_USER_ID: identity.uid,
        c.VIR_CONNECT_IDENTITY_UNIX_GROUP_ID: identity.gid,
    }
    if identity.pid > 0:
        found[c.VIR_CONNECT_IDENTITY_PROCESS_ID] = identity.pid
        try:
            with open(f"/proc/{identity.pid}/stat", "rb") as file:
                found[c.VIR_CONNECT_IDENTITY_PROCESS_TIME] = int(file.read().rpartition(b") ")[2].split()[_START_TIME])
        except (OSError, IndexError):
            pass  # it has ended since, or lives in another PID namespace
    return [TypedParam(name, TypedValue(_TYPES[name], value)) for name, value in found.items()]


def trusted(identity: Identity) -> bool:
    """Whether a client may speak for others."""
    return identity.uid != NOBODY and identity.uid in (0, os.geteuid())


def assume(peer: Peer, params: Sequence[TypedParam], flags: int) -> Peer:
    """The client for whom a peer speaks.

    Args:
        peer: the other end of the connection.
        params, flags: the arguments of CONNECT_SET_IDENTITY.

    Raises:
        VirtError: the peer may not speak for others, or says what is no identity.
    """
    if flags:
        text = f"unsupported flags (0x{flags:x}) in function virConnectSetIdentity"
        raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_RPC)
    if not trusted(peer.identity):
        text = f"{peer.label} may not speak for others"
        raise VirtError(c.VIR_ERR_ACCESS_DENIED, text, domain=c.VIR_FROM_RPC)
    values = {}
    for name, (kind, value) in params:
        if _TYPES.get(name) != kind:
            text = f"parameter '{name}' not supported" if name not in _TYPES else f"invalid type of parameter '{name}'"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_RPC)
        values[name] = value
    uid = values.get(c.VIR_CONNECT_IDENTITY_UNIX_USER_ID, NOBODY)
    gid = values.get(c.VIR_CONNECT_IDENTITY_UNIX_GROUP_ID, NOBODY)
    pid = values.get(c.VIR_CONNECT_IDENTITY_PROCESS_ID, 0)
    label = f"{'somebody' if uid == NOBODY else user(uid)} by {peer.label}"
    return Peer(peer.identity._replace(uid=uid, gid=gid, pid=pid), label)
