"""What a driver is, and what its methods give back.

A driver is a class. For each procedure it serves it has a method of the procedure's name in lower case, which takes
the procedure's arguments and returns its results, decoded (`Driver` says how). The dispatcher and the command line
call drivers through a `Connection` and cannot tell a local driver from one that asks a server.
"""

from __future__ import annotations

from types import MappingProxyType

from virtd import constants as c
from virtd.errors import VirtError
from virtd.state.paths import Paths
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


class Identity(NamedTuple):
    """Who is at the other end of a connection."""

    uid: int
    gid: int
    pid: int  # 0 if it is not known: a client on another machine
    transport: str = "unix"  # 'unix', 'tcp', 'tls', 'stdio', 'local' (the caller's own process)
    read_only: bool = False


class Context(NamedTuple):
    """What a driver is told of the connection it is opened for."""

    paths: Paths
    identity: Identity
    owner: int  # pid of the process that holds the connection: guests bound to it end with it
    read_only: bool = False  # asked for by the client (VIR_CONNECT_RO), or ordered by the socket


class Stream:
    """Data that flows beside a call: a descriptor handed to whoever made the call.

    Bytes read from it go to the client, the client's bytes are written to it.

    Args:
        descriptor: this side's end of a socket or pipe; it belongs to the receiver of the Reply from then on.
        work: called after the reply has been sent, in the process that ran the method, to do the copying at the other
            end. Its return ends the stream well, its VirtError ends it with that error. Without work the stream
            ends when the descriptor does.
        sparse: makes the stream that is to be taken instead of this one by whoever can do with holes. Everybody else
            gets zeros.
        holes: what flows are parts with heads, as virtd.drivers.holes says.
    """

    __slots__ = ("descriptor", "holes", "sparse", "work")

    def __init__(
        self,
        descriptor: int,
        work: Callable[[], None] | None = None,
        *,
        sparse: Callable[[], Stream] | None = None,
        holes: bool = False,
    ) -> None:
        self.descriptor = descriptor
        self.work = work
        self.sparse = sparse
        self.holes = holes


class Reply:
    """A result with more than values.

    Args:
        value: the result as it would be returned alone.
        stream: the stream that the call opened.
        fds: descriptors that go to the client with the reply.
    """

    __slots__ = ("fds", "stream", "value")

    def __init__(self, value: Any = None, *, stream: Stream | None = None, fds: list[int] | None = None) -> None:
        self.value = value
        self.stream = stream
        self.fds = fds or []


class Event(NamedTuple):
    """A message for the client: which one, and the fields of its type in wire order."""

    program: str
    procedure: str
    values: tuple[Any, ...]


class Driver:
    """Base of all drivers: one instance serves one connection.

    A method is named like its procedure in lower case (`domain_create_with_flags`); procedures of programs other than
    'remote' carry the program's name before it (`qemu_domain_monitor_command`). It takes the fields of the
    procedure's arguments in wire order, descriptors as keyword `fds`. It returns None, the bare value of a
    one-field result, a tuple of several fields in wire order, or a Reply.

    Methods of kind `instant` may keep state in the instance. Those of kind `query` and `change` may run in a forked
    child: what they change of the instance is lost, but see REPEATED.
    """

    error_domain = c.VIR_FROM_NONE  # VIR_FROM_* of errors which do not say where they come from
    # The methods of kind `instant` whose answers follow from basis() and their arguments alone.
    LISTS: frozenset[str] = frozenset()
    # The methods of kind `change` which alter nothing in the memory of the process that performs them, and are called
    # many times in a row: a child that has performed one may perform another call.
    REPEATED: frozenset[str] = frozenset()

    def __init__(self, context: Context) -> None:
        self.context = context

    @classmethod
    def share(cls, paths: Paths) -> None:
        """Make what all connections of a process have in common, before it forks others that will need it."""

    @classmethod
    def unshare(cls, paths: Paths) -> None:
        """Let go of what share(), or a connection, made."""

    def autostart(self) -> list[VirtError]:
        """Start what is to be started with the machine, once after each boot; returns what could not be."""
        return []

    def reapply(self) -> list[VirtError]:
        """Put what others may have removed in its place again (SIGHUP), such as firewall rules; returns what failed."""
        return []

    def refresh(self) -> None:
        """Bring what the instance keeps up to date: called before a child is forked, which inherits it."""

    def basis(self) -> object:
        """What the answers of LISTS follow from: the same object for as long as that has not changed.

        Who is given the same one again may give the answer again that he has kept.
        """
        raise NotImplementedError

    def event_fd(self) -> int | None:
        """A descriptor that is readable when events may be there; None while nobody subscribed to any."""
        return None

    def read_events(self) -> list[Event]:
        """The events since the last call, oldest first. Returns a bounded number; an empty list means no more."""
        return []

    def clean(self) -> bool:
        """Whether the instance keeps nothing from its client, so that the process may serve another."""
        return self.event_fd() is None

    def close(self) -> None:
        """Let go of everything that belongs to the connection; called once, at its end."""


class Connection:
    """An open connection: drivers, of which the first one that has a procedure serves it.

    Args:
        uri: the URI it was opened with, made whole (what virConnectGetURI answers).
        drivers: those that are open, in order of precedence; the first is the hypervisor's.
        others: what gives the classes of drivers behind them, by a name of each: imported, and opened, when a
            procedure of theirs is first asked for. Most clients of a hypervisor never ask for its networks.
    """

    def __init__(
        self, uri: str, drivers: list[Driver], others: Mapping[str, Callable[[], type[Driver]]] = MappingProxyType({})
    ) -> None:
        self.uri = uri
        self.drivers = drivers
        self._others = dict(others)

    def method(self, name: str) -> Callable[..., Any] | None:
        """The method which serves a procedure; None if no driver has it."""
        for driver in self.drivers:
            method: Callable[..., Any] | None = getattr(driver, name, None)
            if method is not None:
                return method
        # The one whose own name is in the procedure's most likely has it.
        for other in sorted(self._others, key=lambda other: other not in name):
            found = self._others[other]()
            if hasattr(found, name):
                del self._others[other]
                self.drivers.append(found(self.drivers[0].context))
                return self.method(name)
        return None

    def require(self, name: str, api: str) -> Callable[..., Any]:
        """The method which serves a procedure.

        Args:
            name: the method's name.
            api: libvirt's name of the function, for the message.

        Raises:
            VirtError: VIR_ERR_NO_SUPPORT if no driver has it.
        """
        method = self.method(name)
        if method is None:
            raise VirtError(c.VIR_ERR_NO_SUPPORT, api, domain=c.VIR_FROM_DOMAIN)
        return method

    def refresh(self) -> None:
        """Bring what the drivers keep up to date, for the sake of a child that is about to be forked."""
        for driver in self.drivers:
            driver.refresh()

    def event_fds(self) -> list[int]:
        """The descriptors to wait on for events, at most one for each driver."""
        return [fd for driver in self.drivers if (fd := driver.event_fd()) is not None]

    def read_events(self) -> list[Event]:
        """The events of all drivers since the last call; an empty list means no more for now."""
        return [event for driver in self.drivers for event in driver.read_events()]

    def clean(self) -> bool:
        """Whether nothing of the client is left in any driver; see Driver.clean()."""
        return all(driver.clean() for driver in self.drivers)

    def close(self) -> None:
        """Close all drivers."""
        for driver in self.drivers:
            driver.close()
