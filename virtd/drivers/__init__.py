"""The drivers, and the one way to them: open_connection(uri)."""

from urllib.parse import urlsplit

from virtd import constants as c
from virtd.drivers.base import Connection, Context, Driver
from virtd.errors import VirtError


def local_drivers(scheme: str) -> list[type[Driver]] | None:
    """The classes which serve a URI's scheme in this process, in order of precedence; None for an unknown scheme.

    They are imported here, when somebody asks for them: a client of a remote server pays for none of them.
    """
    if scheme == "qemu":
        from virtd.drivers.qemu.driver import QemuDriver

        from virtd.drivers.secret.driver import SecretDriver

        return [QemuDriver, SecretDriver]
    if scheme == "secret":
        from virtd.drivers.secret.driver import SecretDriver

        return [SecretDriver]
    return None


# All drivers of this process's own, for what concerns each of them.
LOCAL_SCHEMES = ("qemu",)


def autostart(context: Context) -> list[VirtError]:
    """Start what is to be started with the machine; returns what could not be. Does nothing after the first time."""
    failures: list[VirtError] = []
    for scheme in LOCAL_SCHEMES:
        for driver_class in local_drivers(scheme) or []:
            driver = driver_class(context)
            try:
                failures += driver.autostart()
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
    parts = urlsplit(uri or f"qemu:///{context.paths.mode}")
    scheme, _, transport = parts.scheme.partition("+")
    classes = None if transport or parts.netloc else local_drivers(scheme)
    if classes is None:
        raise VirtError(c.VIR_ERR_NO_CONNECT, uri or "")
    # As libvirtd: the system's instance answers to both names, a user's session to its own only.
    if parts.path not in ("/session", f"/{context.paths.mode}"):
        text = f"unexpected {scheme} URI path '{parts.path}', try {scheme}:///{context.paths.mode}"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
    return Connection(f"{scheme}://{parts.path}", [driver(context) for driver in classes])
