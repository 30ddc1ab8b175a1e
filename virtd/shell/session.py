"""What commands work with: the connection, the calls over it, and where their output goes.

Whether the connection leads into this process or over a wire shows nowhere but in `connect()`.
"""

from __future__ import annotations

import sys

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell.failure import Failure, failing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TextIO

    from virtd.drivers.base import Connection, Event
    from virtd.shell.streams import Transfer

# How important is what is said: virsh's levels, of which it uses these.
DEBUG, INFO, ERROR = 0, 1, 4
_LEVELS = {DEBUG: "DEBUG", INFO: "INFO", ERROR: "ERROR"}


class Session:
    """One run of virtsh.

    Args:
        uri: the connection's URI; None for the user's own.
        root: the value of --root.
    """

    def __init__(self, uri: str | None = None, root: str | None = None) -> None:
        self.uri = uri
        self.root = root
        self.read_only = False
        self.quiet = False
        self.json = False
        self.timing = False
        self.escape = "^]"
        self.keepalive: tuple[int | None, int | None] = (None, None)
        self.interactive = False
        self.ended = False  # quit was said
        self.connection: Connection | None = None
        self.log: TextIO | None = None
        self.level = ERROR  # what is less important than this is said to nobody
        self.command = ""  # which is being run, for what is said about it
        self.local = False  # the connection leads into this process
        self.lost = False  # the connection has come to an end by itself

    # The connection

    def connect(self) -> Connection:
        """The connection, opened if it is not.

        Raises:
            Failure: it cannot be opened.
        """
        if self.connection is None:
            from virtd.shell import linkage

            with failing("failed to connect to the hypervisor"):
                self.connection, self.local = linkage.open_link(self)
        return self.connection

    def disconnect(self) -> None:
        """Close the connection, if there is one."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        self.lost = False

    def call(self, name: str, *args: Any, fds: list[int] | None = None) -> Any:
        """Call a procedure.

        Args:
            name: its name in lower case, as of a driver's method.
            args: its arguments.
            fds: descriptors that go with the call.

        Returns:
            Its result, or a Reply of one with descriptors.

        Raises:
            VirtError: the answer is an error; VIR_ERR_NO_SUPPORT if nobody serves the procedure.
        """
        method = self._method(name, args)
        try:
            return method(*args) if fds is None else method(*args, fds=fds)
        except VirtError:
            client = self.client()
            self.lost = client is not None and client.broken
            raise

    def client(self) -> Any:
        """The conversation with the server, if there is one that this process holds."""
        if self.connection is None or self.local:
            return None
        return getattr(self.connection.drivers[0], "client", None)

    def stream(self, name: str, *args: Any, sparse: bool = False) -> Transfer:
        """Call a procedure that opens a stream; as call().

        Args:
            name, args: the procedure, as for call().
            sparse: holes are to stay holes, where they can (Transfer.holes).
        """
        from virtd.shell.streams import Transfer

        return Transfer(self._method(name, args), args, sparse=sparse)

    def _method(self, name: str, args: tuple[Any, ...]) -> Callable[..., Any]:
        method = self.connect().method(name)
        if method is None or (self.read_only and self.local):
            from virtd.shell import linkage

            linkage.check_call(name, args, served=method is not None)
        assert method is not None
        return method

    def read_events(self) -> list[Event]:
        """The events that have come; none if none has."""
        return self.connect().read_events()

    # Output

    def write(self, text: str) -> None:
        """Write what was asked for."""
        sys.stdout.write(text)

    def say(self, text: str) -> None:
        """Write what is said beside it; nothing with --quiet."""
        if not self.quiet and not self.json:
            sys.stdout.write(text)

    def complain(self, text: str) -> None:
        """Say on standard error what is wrong."""
        sys.stdout.flush()
        sys.stderr.write(f"error: {text}\n")
        sys.stderr.flush()
        self.note(text, ERROR)

    def note(self, text: str, level: int = INFO) -> None:
        """Write a line to the log, if there is one."""
        if self.log is not None:
            import os
            import time

            now = time.strftime("%Y.%m.%d %H:%M:%S")
            self.log.write(f"[{now} virtsh {os.getpid()}] {_LEVELS[level]} {text}\n")
            self.log.flush()

    def trace(self, text: str, level: int = INFO) -> None:
        """Say what is being done, on standard output and in the log, to whoever wants to know that (--debug).

        Args:
            text: what is done.
            level: how important that is: INFO, or DEBUG.
        """
        if level >= self.level:
            sys.stdout.write(f"{text}\n")
            self.note(text, level)

    # Look-ups

    def domain(self, text: str, ways: str = "id uuid name") -> Any:
        """The guest that a text names.

        Args:
            text: its id, UUID or name.
            ways: which of these it may be.

        Raises:
            Failure: there is none.
        """
        self.trace(f"{self.command}: found option <domain>: {text}")
        if "id" in ways.split() and text.isascii() and text.isdigit() and int(text) < 2**31:
            try:
                return self._look_up("domain_lookup_by_id", int(text))
            except VirtError as error:
                if error.code not in _ABSENT:
                    raise
        # Of a guest virsh says no more than that there is none.
        return self._find("domain", text, ways, f"failed to get domain '{text}'", silent=True)

    def network(self, text: str, ways: str = "uuid name") -> Any:
        """The network that a text names; as domain()."""
        self.trace(f"{self.command}: found option <network>: {text}")
        return self._find("network", text, ways, f"failed to get network '{text}'")

    def pool(self, text: str, ways: str = "uuid name") -> Any:
        """The storage pool that a text names; as domain()."""
        self.trace(f"{self.command}: found option <pool>: {text}")
        return self._find("storage_pool", text, ways, f"failed to get pool '{text}'")

    def nwfilter(self, text: str) -> Any:
        """The network filter that a text names; as domain()."""
        self.trace(f"{self.command}: found option <nwfilter>: {text}")
        return self._find("nwfilter", text, "uuid name", f"failed to get nwfilter '{text}'")

    def secret(self, text: str) -> Any:
        """The secret that a UUID names; as domain()."""
        self.trace(f"{self.command}: found option <secret>: {text}", DEBUG)
        if _uuid(text) is None:
            problem = "uuidstr in virSecretLookupByUUIDString must be a valid UUID"
            raise Failure(f"failed to get secret '{text}'", problem)
        return self._find("secret", text, "uuid", f"failed to get secret '{text}'")

    def interface(self, text: str, ways: str = "name mac") -> Any:
        """The host's network interface that a name or MAC address means; as domain()."""
        self.trace(f"{self.command}: found option <interface>: {text}")
        # What looks like a MAC address is none's name.
        way, call = ("mac", "mac_string") if _is_mac(text) else ("name", "name")
        calls = [(f"interface_lookup_by_{call}", (text,))] if way in ways.split() else []
        return self._first(calls, f"failed to get interface '{text}'")

    def volume(self, text: str, pool: str | None, ways: str = "name key path", *, option: str = "pool") -> Any:
        """The volume that a text names; as domain().

        Args:
            text: its name, key or path.
            pool: the pool that it is in; None if that is not said.
            ways: which of these it may be.
            option: the option that would have said the pool.
        """
        place = None if pool is None else self.pool(pool)
        self.trace(f"{self.command}: found option <vol>: {text}", DEBUG)
        calls: list[tuple[str, tuple[Any, ...]]] = []
        if place is not None and "name" in ways.split():
            calls.append(("storage_vol_lookup_by_name", (place, text)))
        calls += [(f"storage_vol_lookup_by_{way}", (text,)) for way in ("key", "path") if way in ways.split()]
        unsaid = pool is None and "name" in ways.split()
        found = self._first(
            calls, f"failed to get vol '{text}'" + (f", specifying --{option} might help" if unsaid else "")
        )
        if place is not None and found.pool != place.name:
            raise Failure(f"Requested volume '{text}' is not in pool '{place.name}'")
        return found

    def _find(self, noun: str, text: str, ways: str, failure: str, *, silent: bool = False) -> Any:
        calls: list[tuple[str, tuple[Any, ...]]] = []
        uuid = _uuid(text)
        if uuid is not None and "uuid" in ways.split():
            calls.append((f"{noun}_lookup_by_uuid", (uuid,)))
        if "name" in ways.split():
            calls.append((f"{noun}_lookup_by_name", (text,)))
        return self._first(calls, failure, silent=silent)

    def _look_up(self, name: str, *values: Any) -> Any:
        if self.level == DEBUG and not name.startswith("secret"):
            noun, _, way = name.removeprefix("storage_").removesuffix("_string").partition("_lookup_by_")
            tried = f"{noun} {way if noun == 'vol' else way.upper()}"
            self.trace(f"{self.command}: <{noun}> {'looks like ID' if way == 'id' else f'trying as {tried}'}", DEBUG)
        return self.call(name, *values)

    def _first(self, calls: Sequence[tuple[str, tuple[Any, ...]]], failure: str, *, silent: bool = False) -> Any:
        """The result of the first look-up that finds something."""
        cause = None
        for name, values in calls:
            try:
                return self._look_up(name, *values)
            except VirtError as error:
                if error.code not in _ABSENT:
                    raise Failure(failure, cause=error) from None
                cause = error
        raise Failure(failure, cause=None if silent else cause)


# What a look-up answers if there is nothing of that name.
_ABSENT = frozenset(
    {
        c.VIR_ERR_NO_DOMAIN,
        c.VIR_ERR_NO_NETWORK,
        c.VIR_ERR_NO_STORAGE_POOL,
        c.VIR_ERR_NO_STORAGE_VOL,
        c.VIR_ERR_NO_SECRET,
        c.VIR_ERR_NO_NWFILTER,
        c.VIR_ERR_NO_NWFILTER_BINDING,
        c.VIR_ERR_NO_INTERFACE,
        c.VIR_ERR_NO_NODE_DEVICE,
        c.VIR_ERR_NO_DOMAIN_SNAPSHOT,
        c.VIR_ERR_NO_DOMAIN_CHECKPOINT,
        c.VIR_ERR_NO_NETWORK_PORT,
    }
)


def _is_mac(text: str) -> bool:
    parts = text.split(":")
    return len(parts) == 6 and all(len(part) <= 2 and set(part) <= set("0123456789abcdefABCDEF") for part in parts)


def _uuid(text: str) -> bytes | None:
    """The UUID that a text is; None if it is none."""
    if len(text) != 36:
        return None
    try:
        uuid = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return None
    return uuid if len(uuid) == 16 else None


def read_text(path: str) -> str:
    """The content of a file that a user named.

    Raises:
        Failure: it cannot be read.
    """
    try:
        file = open(path, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    except IsADirectoryError as error:
        raise Failure(f"Failed to read file '{path}': {error.strerror}") from None
    except OSError as error:
        raise Failure(f"Failed to open file '{path}': {error.strerror}") from None
    with file:
        try:
            return file.read()
        except OSError as error:
            raise Failure(f"Failed to read file '{path}': {error.strerror}") from None
