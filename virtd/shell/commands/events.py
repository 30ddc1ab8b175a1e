"""Events of guests, networks, pools, devices and secrets."""

from __future__ import annotations

from virtd import constants as c
from virtd import uuids
from virtd.drivers.base import Event
from virtd.errors import VirtError
from virtd.shell import eventloop, eventnames
from virtd.shell.command import Args, Command
from virtd.shell.eventloop import Subscription
from virtd.shell.failure import Failure
from virtd.shell.output import Lines, Output
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from virtd.shell.eventloop import Description


def event(session: Session, args: Args) -> Output:
    """virConnectDomainEventRegisterAny."""
    for one, other in (("all", "event"), ("list", "all"), ("list", "event")):
        args.exclusive(one, other)
    if args.flag("list"):
        return Lines(eventnames.DOMAIN)
    name = args.text("event")
    if name is None and not args.flag("all"):
        raise Failure("one of --list, --all, or --event <type> is required")
    if name is not None and name not in eventnames.DOMAIN:
        raise Failure(f"unknown event type {name}")
    whose = args.text("domain")
    domain = None if whose is None else session.domain(whose)
    wanted = range(len(eventnames.DOMAIN)) if name is None else [eventnames.DOMAIN.index(name)]
    with Subscription(session, "connect_domain_event_callback_deregister_any") as subscription:
        for number in wanted:
            try:
                subscription.add("connect_domain_event_callback_register_any", number, domain)
            except VirtError:
                # Of all events, those that the server knows.
                if name is not None or not subscription.callbacks:
                    raise
        return eventloop.wait(session, args, subscription, _describe_domain)


def _describe_domain(one: Event) -> Description:
    return eventnames.describe_domain(one.procedure, one.values)


def _noun_event(
    noun: str,
    procedures: tuple[str, str],
    messages: dict[str, tuple[str, tuple[str, ...] | None]],
    option: str,
    find: Callable[[Session, str], Any],
    name_of: Callable[[Any], str],
) -> Callable[[Session, Args], Output]:
    """A command that waits for events of objects other than guests.

    Args:
        noun: what the objects are called.
        procedures: which registers, and which takes that back.
        messages: the events by the procedures that carry them, in the order of their numbers: name, and what the
            numbers of a life cycle mean.
        option: the option that names an object.
        find: finds it.
        name_of: what an object is called.
    """
    known = [name for name, _ in messages.values()]

    def describe(one: Event) -> Description:
        found = messages.get(one.procedure)
        if found is None:
            return None
        name, types = found
        callback, thing, *rest = one.values
        what = "" if types is None else f": {eventnames.of(types, rest[0])}"
        data = {"event": name, noun.replace(" ", "_"): name_of(thing)}
        if types is not None:
            data["type"] = eventnames.of(types, rest[0])
        return callback, f"event '{name}' for {noun} {name_of(thing)}{what}", data

    def function(session: Session, args: Args) -> Output:
        if args.flag("list"):
            return Lines(known)
        name = args.text("event")
        if name is None:
            raise Failure("either --list or --event <type> is required")
        if name not in known:
            raise Failure(f"unknown event type {name}")
        whose = args.text(option)
        thing = None if whose is None else find(session, whose)
        with Subscription(session, procedures[1]) as subscription:
            subscription.add(procedures[0], known.index(name), thing)
            return eventloop.wait(session, args, subscription, describe)

    return function


def _device(session: Session, name: str) -> Any:
    try:
        return session.call("node_device_lookup_by_name", name)
    except VirtError as error:
        if error.code != c.VIR_ERR_NO_NODE_DEVICE:
            raise
        raise Failure(f"Could not find matching device '{name}'", cause=error) from None


def _name(thing: Any) -> str:
    return str(thing.name)


_REST = "[--loop] [--timeout <number>] [--list] [--timestamp]"

COMMANDS = (
    Command(
        "event",
        f"[--domain <string>] [--event <string>] [--all] {_REST}",
        "wait for events of guests",
        event,
        kinds={"event": "domain-event"},
    ),
    Command(
        "net-event",
        f"[--network <string>] [--event <string>] {_REST}",
        "wait for events of networks",
        _noun_event(
            "network",
            ("connect_network_event_register_any", "connect_network_event_deregister_any"),
            {"NETWORK_EVENT_LIFECYCLE": ("lifecycle", eventnames.NETWORK)},
            "network",
            lambda session, name: session.network(name),
            _name,
        ),
        kinds={"event": "network-event"},
    ),
    Command(
        "nodedev-event",
        f"[--device <string>] [--event <string>] {_REST}",
        "wait for events of the host's devices",
        _noun_event(
            "node device",
            ("connect_node_device_event_register_any", "connect_node_device_event_deregister_any"),
            {
                "NODE_DEVICE_EVENT_LIFECYCLE": ("lifecycle", eventnames.NODE_DEVICE),
                "NODE_DEVICE_EVENT_UPDATE": ("update", None),
            },
            "device",
            _device,
            _name,
        ),
        kinds={"event": "device-event"},
    ),
    Command(
        "pool-event",
        f"[--pool <string>] [--event <string>] {_REST}",
        "wait for events of pools",
        _noun_event(
            "storage pool",
            ("connect_storage_pool_event_register_any", "connect_storage_pool_event_deregister_any"),
            {
                "STORAGE_POOL_EVENT_LIFECYCLE": ("lifecycle", eventnames.POOL),
                "STORAGE_POOL_EVENT_REFRESH": ("refresh", None),
            },
            "pool",
            lambda session, name: session.pool(name),
            _name,
        ),
        kinds={"event": "pool-event"},
    ),
    Command(
        "secret-event",
        f"[--secret <string>] [--event <string>] {_REST}",
        "wait for events of secrets",
        _noun_event(
            "secret",
            ("connect_secret_event_register_any", "connect_secret_event_deregister_any"),
            {
                "SECRET_EVENT_LIFECYCLE": ("lifecycle", eventnames.SECRET),
                "SECRET_EVENT_VALUE_CHANGED": ("value-changed", None),
            },
            "secret",
            lambda session, name: session.secret(name),
            lambda secret: uuids.to_text(secret.uuid),
        ),
        kinds={"event": "secret-event"},
    ),
)
