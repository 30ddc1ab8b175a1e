"""The drivers, and the one way to them: open_connection(uri)."""

from __future__ import annotations

import os
from functools import cache, partial
from importlib import import_module

from virtd import constants as c
from virtd import uri as uris
from virtd.drivers.base import Connection, Context, Driver
from virtd.errors import VirtError
from virtd.state import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# The drivers of this process's own, and their classes.
_CLASSES = {
    "qemu": "virtd.drivers.qemu.driver:QemuDriver",
    "network": "virtd.drivers.network.driver:NetworkDriver",
    "storage": "virtd.drivers.storage.driver:StorageDriver",
    "secret": "virtd.drivers.secret.driver:SecretDriver",
}
# What serves a URI's scheme, in order of precedence: a hypervisor's connection reaches the other services, too.
_SCHEMES = {
    "qemu": ("qemu", "network", "storage", "secret"),
    "network": ("network",),
    "storage": ("storage",),
    "secret": ("secret",),
}
LOCAL_SCHEMES = tuple(_SCHEMES)
# A part that is a driver by itself, and all that a program asks for which lists guests and ends: it takes a quarter of
# the time to import that the whole takes.
_SMALL = {"qemu": "virtd.drivers.qemu.lookup:Lookup"}


def local_drivers(scheme: str) -> list[type[Driver]] | None:
    """The classes which serve a URI's scheme in this process, in order of precedence; None for an unknown scheme.

    They are imported here, when somebody asks for them: a client of a remote server pays for none of them.
    """
    names = _SCHEMES.get(scheme)
    return None if names is None else [_import(_CLASSES[name]) for name in names]


def _import(place: str) -> type[Driver]:
    module, _, attribute = place.partition(":")
    found: type[Driver] = getattr(import_module(module), attribute)
    return found


def autostart(context: Context) -> list[VirtError]:
    """Start what is to be started with the machine; returns what could not be. Does nothing after the first time."""
    return _each(context, lambda driver: driver.autostart())


def reapply(context: Context) -> list[VirtError]:
    """Put what others may have removed in its place again (SIGHUP); returns what could not be."""
    return _each(context, lambda driver: driver.reapply())


def _each(context: Context, act: Callable[[Driver], list[VirtError]]) -> list[VirtError]:
    failures: list[VirtError] = []
    # Guests come last: they need the other services.
    for name in reversed(_CLASSES):
        driver = _import(_CLASSES[name])(context)
        try:
            failures += act(driver)
        finally:
            driver.close()
    return failures


def open_connection(uri: str | None, context: Context) -> Connection:
    """Open a connection, local or remote; the caller need not know which.

    Args:
        uri: libvirt's connection URI. Empty or None: the one of this user's own instance.
        context: what the drivers are told of the connection.

    Raises:
        VirtError: VIR_ERR_NO_CONNECT for a URI that no driver takes, VIR_ERR_INTERNAL_ERROR for a wrong path,
            or what the driver says.
    """
    try:
        parts = uris.split(uri or f"qemu:///{context.paths.mode}")
    except ValueError as error:
        raise VirtError(c.VIR_ERR_INVALID_ARG, f"cannot parse connection URI '{uri}': {error}") from None
    if _is_remote(parts):
        return _open_remote(uri or "", context)
    scheme = parts.scheme
    if scheme not in LOCAL_SCHEMES:
        raise VirtError(c.VIR_ERR_NO_CONNECT, uri or "")
    if parts.path == "/embed" and context.identity.transport == "local":
        return _connect(f"{scheme}:///embed?{parts.query}", scheme, _embedded(parts, context))
    # As libvirtd: the system's instance answers to both names, a user's session to its own only.
    if parts.path not in ("/session", f"/{context.paths.mode}"):
        text = f"unexpected {scheme} URI path '{parts.path}', try {scheme}:///{context.paths.mode}"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
    return _connect(f"{scheme}://{parts.path}", scheme, context)


def _connect(uri: str, scheme: str, context: Context) -> Connection:
    if context.identity.transport == "local" and scheme in _SMALL:
        loaders = {name: partial(_import, _CLASSES[name]) for name in _SCHEMES[scheme]}
        return Connection(uri, [_import(_SMALL[scheme])(context)], loaders)
    first, others = _of_server(scheme)
    return Connection(uri, [first(context)], others)


@cache
def _of_server(scheme: str) -> tuple[type[Driver], dict[str, Callable[[], type[Driver]]]]:
    """The first driver of a scheme, and what gives the others, as a server needs them for each client."""
    first, *others = local_drivers(scheme) or []
    return first, {other.__name__: partial(_itself, other) for other in others}


def _itself(found: type[Driver]) -> type[Driver]:
    return found


def _embedded(parts: uris.Uri, context: Context) -> Context:
    """The context of qemu:///embed?root=DIR: an instance below a directory, in the caller's own process."""
    root = dict(parts.options).get("root", "")
    if not os.path.isabs(root):
        text = "qemu:///embed needs an absolute directory: qemu:///embed?root=DIR"
        raise VirtError(c.VIR_ERR_INVALID_ARG, text)
    return context._replace(paths=paths.below(root))


def _is_remote(parts: uris.Uri) -> bool:
    scheme, _, transport = parts.scheme.partition("+")
    return bool(transport or parts.authority or scheme == "remote")


def refuse_remote(uri: str) -> None:
    """What a server does with a URI before anything else: it may not lead to another server.

    Raises:
        VirtError: VIR_ERR_NO_CONNECT: it does.
    """
    try:
        remote = _is_remote(uris.split(uri))
    except ValueError:
        return
    if remote:
        # A server that went on to other servers would sooner or later meet itself.
        text = f"{uri}: a server opens no connection to another server; ask for it from the client"
        raise VirtError(c.VIR_ERR_NO_CONNECT, text, domain=c.VIR_FROM_REMOTE)


def _open_remote(uri: str, context: Context) -> Connection:
    if context.identity.transport != "local":
        refuse_remote(uri)
    from virtd.drivers.remote.driver import open_remote

    return open_remote(uri, context)
