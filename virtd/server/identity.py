"""Whose identity a server takes on its peer's word (CONNECT_SET_IDENTITY, virConnectSetIdentity).

Who may speak for others: whoever has at least the power of the server itself.
"""

import os
from collections.abc import Sequence

from virtd import constants as c
from virtd.drivers.base import Identity
from virtd.drivers.identities import NOBODY, TYPES
from virtd.errors import VirtError
from virtd.protocol.records import TypedParam
from virtd.server.auth import Peer, user


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
        if TYPES.get(name) != kind:
            text = f"parameter '{name}' not supported" if name not in TYPES else f"invalid type of parameter '{name}'"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_RPC)
        values[name] = value
    uid = values.get(c.VIR_CONNECT_IDENTITY_UNIX_USER_ID, NOBODY)
    gid = values.get(c.VIR_CONNECT_IDENTITY_UNIX_GROUP_ID, NOBODY)
    pid = values.get(c.VIR_CONNECT_IDENTITY_PROCESS_ID, 0)
    label = f"{'somebody' if uid == NOBODY else user(uid)} by {peer.label}"
    return Peer(peer.identity._replace(uid=uid, gid=gid, pid=pid), label)
