"""What a client has opened: nothing yet, or a connection to drivers, and the few calls that concern only that.

`CALLS` are the procedures which the server answers itself, before or instead of any driver. They are methods of the
session, called like a driver's.
"""

import os
from collections.abc import Callable
from typing import Any

from virtd import constants as c
from virtd.drivers import open_connection
from virtd.drivers.base import Connection, Context
from virtd.errors import VirtError
from virtd.protocol.records import TypedParam
from virtd.server import auth, identity, log
from virtd.server.process import title
from virtd.state.paths import Paths

# The numbers that CONNECT_SUPPORTS_FEATURE takes; they are not part of libvirt's public API.
FEATURE_FD_PASSING = 8
FEATURE_KEEPALIVE = 10
FEATURE_EVENT_CALLBACK = 14
FEATURE_CLOSE_CALLBACK = 15
# What the server can whatever the drivers can; of the others they are asked.
FEATURES = frozenset((FEATURE_FD_PASSING, FEATURE_KEEPALIVE, FEATURE_EVENT_CALLBACK, FEATURE_CLOSE_CALLBACK))


class Session:
    """One client's connection, as far as drivers are concerned.

    Args:
        peer: who the client is.
        paths: the instance's directories.

    Attributes:
        connection: what the client has opened; None before.
        read_only: whether it may only look.
        keepalive: whether the client has said that it answers pings.
        closing: whether the client has asked to close.
    """

    def __init__(self, peer: auth.Peer, paths: Paths) -> None:
        self.peer = peer
        self.paths = paths
        self.connection: Connection | None = None
        self.read_only = peer.identity.read_only
        self.keepalive = False
        self.closing = False

    @property
    def label(self) -> str:
        """Who the client is and what it has opened, for titles and the log."""
        return self.peer.label if self.connection is None else f"{self.peer.label} {self.connection.uri}"

    def open(self, name: str | None, flags: int) -> None:
        """CONNECT_OPEN. Flags that nobody knows are ignored, as libvirtd does.

        Raises:
            VirtError: it is open already, or no driver takes the URI.
        """
        if self.connection is not None:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "connection already open", domain=c.VIR_FROM_RPC)
        read_only = self.read_only or bool(flags & c.VIR_CONNECT_RO)
        context = Context(self.paths, self.peer.identity, os.getpid(), read_only)
        self.connection = open_connection(name, context)
        self.read_only = read_only
        log.about(self.label)

    def set_identity(self, params: list[TypedParam], flags: int) -> None:
        """CONNECT_SET_IDENTITY: the client speaks for somebody else, as a virtd --remote does.

        Raises:
            VirtError: it may not.
        """
        assert self.connection is not None
        self.peer = identity.assume(self.peer, params, flags)
        for driver in self.connection.drivers:
            driver.context = driver.context._replace(identity=self.peer.identity)
        log.about(self.label)
        title(f"worker for {self.label}: idle")

    def close(self) -> None:
        """CONNECT_CLOSE: the worker ends the connection when the answer is sent."""
        self.closing = True

    def supports_feature(self, feature: int) -> int:
        """CONNECT_SUPPORTS_FEATURE; of the keepalive program a client may ask before it has opened anything."""
        if feature == FEATURE_KEEPALIVE:
            self.keepalive = True
            return 1
        if self.connection is None:
            raise not_open("connect_supports_feature")
        if feature in FEATURES:
            return 1
        method = self.connection.method("connect_supports_feature")
        return int(method(feature)) if method else 0

    def ignored(self) -> None:
        """The client wants to hear, or no more, when the connection ends: it hears that from the socket."""

    def release(self) -> bool:
        """Close the connection to the drivers, whatever they do then.

        Returns:
            Whether nothing of this client is left in the process.
        """
        connection, self.connection = self.connection, None
        if connection is None:
            return True
        try:
            clean = connection.clean()
            connection.close()
        except VirtError as error:
            log.error(f"closing the connection failed: {error.message}")
            return False
        except Exception as problem:
            log.bug("closing the connection failed", problem)
            return False
        return clean


CALLS: dict[str, Callable[..., Any]] = {
    "connect_open": Session.open,
    "connect_close": Session.close,
    "connect_set_identity": Session.set_identity,
    "connect_supports_feature": Session.supports_feature,
    "connect_register_close_callback": Session.ignored,
    "connect_unregister_close_callback": Session.ignored,
}

_SECONDARY = ("network_", "storage_", "node_device_", "interface_", "secret_", "nwfilter_")


def not_open(method: str) -> VirtError:
    """What libvirtd says to a call before CONNECT_OPEN."""
    what = "connection not open" if method.startswith(_SECONDARY) else "hypervisor connection not open"
    return VirtError(c.VIR_ERR_INTERNAL_ERROR, what, domain=c.VIR_FROM_RPC)
