"""From a call's bytes to a method and its arguments, and from what the method gives or raises to an answer's bytes.

All errors become the wire's here, and nowhere else: a VirtError as it is, with the domain of the driver if it names
none; anything else is a bug, which is logged with its traceback, told to the client as an internal error, and
ends neither the worker nor the connection. The order of the checks, and what is said, are libvirtd 9.0.0's.

Nothing here reads, writes, forks or waits.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from virtd import constants as c
from virtd.deadlines import DeadlineExceeded
from virtd.drivers.base import Driver, Reply, Stream
from virtd.errors import VirtError
from virtd.protocol import access, codec
from virtd.protocol.messages import Message, make_error, make_reply, reply_bytes, rpc_error
from virtd.protocol.procedure import EVENT, INSTANT, Procedure
from virtd.protocol.programs import LXC, QEMU, REMOTE, Program
from virtd.server import auth, log, session
from virtd.server.session import Session

# What a client's socket serves; the administration program would have a socket of its own.
SERVED: dict[tuple[int, int], Program] = {(p.number, p.version): p for p in (REMOTE, QEMU, LXC)}


class Entry:
    """A procedure as one connection sees it: found once, called many times.

    Attributes:
        procedure: its line in the table.
        kind: INSTANT, QUERY or CHANGE.
        method: what serves it.
        domain: of errors that name none.
        basis: gives what the answer follows from, if that is known (virtd.drivers.base.Driver.basis).
        guarded: whether it depends on the call if a read-only client may make it.
        kept: the last answer: what it followed from, the call's payload and its own.
        repeated: whether the process that performed it may perform another call.
    """

    __slots__ = ("basis", "domain", "guarded", "kept", "kind", "method", "procedure", "repeated")

    def __init__(
        self, procedure: Procedure, kind: str, method: Callable[..., Any], domain: int, *, guarded: bool
    ) -> None:
        self.procedure = procedure
        self.kind = kind
        self.method = method
        self.domain = domain
        self.guarded = guarded
        self.basis: Callable[[], object] | None = None
        driver = getattr(method, "__self__", None)
        self.repeated = False
        if isinstance(driver, Driver):
            self.repeated = procedure.method in driver.REPEATED
            if procedure.method in driver.LISTS:
                self.basis = driver.basis
        self.kept: tuple[object, bytes, bytes] | None = None

    @property
    def activity(self) -> str:
        """What titles and the log call it."""
        return "".join(word.capitalize() for word in self.procedure.name.split("_"))


class Answer(NamedTuple):
    """What goes back to the client.

    Attributes:
        data: the reply or the error, as bytes.
        fds: descriptors that follow it.
        stream: what flows after it.
    """

    data: bytes
    fds: tuple[int, ...] = ()
    stream: Stream | None = None


class Dispatcher:
    """Finds what serves a call of one client.

    Args:
        session: what the client has opened.
        passes_fds: whether descriptors can go to the client.
    """

    def __init__(self, session: Session, passes_fds: bool) -> None:
        self.session = session
        self.passes_fds = passes_fds
        self._entries: dict[tuple[int, ...], Entry] = {}

    def forget(self) -> None:
        """Find everything anew: the session has opened something."""
        self._entries.clear()

    def prepare(self, message: Message) -> tuple[Entry, tuple[Any, ...]]:
        """What serves a call, and with which arguments.

        Raises:
            VirtError: nobody, or not this client, or the call cannot be understood.
        """
        entry = self._entries.get(message[:3]) or self._find(message)
        if message.status:
            raise rpc_error(f"Unexpected message status {message.status}")
        try:
            args = codec.decode_args(entry.procedure, message.payload)
        except codec.DecodeError as error:
            log.debug(f"{entry.activity}: {error}")
            raise rpc_error("Unable to decode message payload") from None
        if entry.guarded and not access.read_only_allows(entry.procedure, args):
            raise access.read_only_refusal(entry.procedure, args)
        return entry, args

    def _find(self, message: Message) -> Entry:
        program = SERVED.get((message.program, message.version))
        if program is None:
            raise rpc_error(f"Cannot find program {message.program} version {message.version}")
        procedure = program.procedures.get(message.procedure)
        if procedure is None or procedure.kind == EVENT:
            raise rpc_error(f"unknown procedure: {message.procedure}")
        entry = self._own(procedure)
        if entry is None:
            entry = self._driver(procedure, message)
        self._entries[message[:3]] = entry
        return entry

    def _own(self, procedure: Procedure) -> Entry | None:
        """The entry of a procedure which the server answers itself."""
        method: Callable[..., Any] | None = auth.CALLS.get(procedure.method)
        if method is None:
            function = session.CALLS.get(procedure.method)
            if function is None or (procedure.opened and self.session.connection is None):
                return None
            method = function.__get__(self.session)
        return Entry(procedure, INSTANT, method, c.VIR_FROM_RPC, guarded=False)

    def _driver(self, procedure: Procedure, message: Message) -> Entry:
        """The entry of a procedure which a driver serves."""
        connection = self.session.connection
        if connection is None:
            # Even then libvirtd first says that it cannot understand a call, if it cannot.
            try:
                codec.decode_args(procedure, message.payload)
            except codec.DecodeError:
                raise rpc_error("Unable to decode message payload") from None
            raise session.not_open(procedure.method)
        method = connection.method(procedure.method)
        guarded = self.session.read_only and not _always_allowed(procedure)
        if method is None:
            return Entry(procedure, INSTANT, _unsupported(procedure), c.VIR_FROM_NONE, guarded=guarded)
        domain = getattr(getattr(method, "__self__", None), "error_domain", c.VIR_FROM_NONE)
        return Entry(procedure, procedure.kind, method, domain, guarded=guarded)

    def refresh(self) -> None:
        """Bring what the drivers keep up to date, before a child is forked that will need it."""
        connection = self.session.connection
        if connection is not None:
            connection.refresh()

    def perform(self, entry: Entry, message: Message, args: tuple[Any, ...], *, patient: bool = True) -> Answer:
        """Call the method, and make an answer of what it gives or raises.

        The descriptors that came with the call are the method's if it returns; if it raises, they are closed.

        Raises:
            DeadlineExceeded: only if not patient; the call can then be done again with more time.
        """
        if entry.basis is not None:
            return self._list(entry, entry.basis, message, args)
        try:
            passed = {"fds": list(message.fds)} if entry.procedure.fds_in_call else {}
            result = entry.method(*args, **passed)
        except Exception as problem:
            if not patient and isinstance(problem, DeadlineExceeded):
                raise
            if entry.procedure.fds_in_call:
                close_all(message.fds)
            return Answer(error_bytes(message, problem, entry))
        try:
            if type(result) is Reply or entry.procedure.fds_in_reply:
                return self._answer(entry, message, result if type(result) is Reply else Reply(result))
            return Answer(reply_bytes(message, codec.encode_result(entry.procedure, result)))
        except Exception as problem:
            if type(result) is Reply:
                close_all([*result.fds, *([result.stream.descriptor] if result.stream else [])])
            return Answer(error_bytes(message, problem, entry))

    def _list(self, entry: Entry, basis: Callable[[], object], message: Message, args: tuple[Any, ...]) -> Answer:
        """As perform(), of a call which many a client makes again and again, and which seldom has another answer."""
        try:
            found = basis()
            kept = entry.kept
            if kept is None or kept[0] is not found or kept[1] != message.payload:
                payload = codec.encode_result(entry.procedure, entry.method(*args))
                entry.kept = kept = found, message.payload, payload
            return Answer(reply_bytes(message, kept[2]))
        except Exception as problem:
            return Answer(error_bytes(message, problem, entry))

    def _answer(self, entry: Entry, message: Message, reply: Reply) -> Answer:
        if reply.fds and not self.passes_fds:
            raise VirtError(
                c.VIR_ERR_INTERNAL_ERROR,
                "Sending file descriptors is not supported on this socket",
                domain=c.VIR_FROM_RPC,
            )
        data = make_reply(message, entry.procedure, reply.value, reply.fds).to_bytes()
        return Answer(data, tuple(reply.fds), reply.stream)


def error_bytes(message: Message, problem: Exception, entry: Entry | None = None) -> bytes:
    """The answer to a call that failed.

    Args:
        message: the call, or a packet of a stream.
        problem: what was raised.
        entry: the procedure, if it was found.
    """
    if isinstance(problem, VirtError):
        error = problem
        if error.domain == c.VIR_FROM_NONE and not error.placed and entry is not None:
            error.domain = entry.domain
    else:
        name = entry.activity if entry else "a call"
        log.bug(f"{name} failed by a bug", problem)
        text = f"{name} failed by a bug in virtd ({type(problem).__name__}: {problem}); see its log"
        error = VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_RPC)
    return make_error(message, error).to_bytes()


def activity(entry: Entry, args: tuple[Any, ...]) -> str:
    """A call as titles show it: the procedure's name, and the object's if it has one."""
    name = getattr(args[0], "name", None) if args else None
    return f"{entry.activity} {name}" if isinstance(name, str) else entry.activity


def close_all(descriptors: tuple[int, ...] | list[int]) -> None:
    """Close descriptors that nobody wants."""
    for descriptor in descriptors:
        os.close(descriptor)


def _always_allowed(procedure: Procedure) -> bool:
    """Whether a read-only client may make any call of a procedure."""
    return all(rule.argument < 0 for rule in access.rules(procedure)) and access.read_only_allows(procedure, ())


def _unsupported(procedure: Procedure) -> Callable[..., Any]:
    """A method that says that nobody implements a procedure."""
    # The part of libvirt that says so is the one that would refuse the call to a read-only client.
    domain = access.read_only_refusal(procedure, (0,) * len(codec.argument_names(procedure))).domain

    def refuse(*_args: Any, fds: list[int] | None = None) -> None:
        raise VirtError(c.VIR_ERR_NO_SUPPORT, procedure.api or procedure.method, domain=domain)

    return refuse
