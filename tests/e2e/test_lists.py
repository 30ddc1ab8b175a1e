"""Lists and look-ups: every filter of `virsh list`, and the older calls in two steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.guests import Guest
from tests.helpers.instance import Instance

# Filters as virsh names them, and whom they show of the guests below.
FILTERS = [
    ("", {"running", "paused", "transient"}),
    ("--inactive", {"off", "auto"}),
    ("--all", {"running", "paused", "transient", "off", "auto"}),
    ("--persistent", {"running", "paused"}),
    ("--all --persistent", {"running", "paused", "off", "auto"}),
    ("--all --transient", {"transient"}),
    ("--state-running", {"running", "transient"}),
    ("--all --state-running", {"running", "transient"}),
    ("--state-paused", {"paused"}),
    ("--all --state-shutoff", {"off", "auto"}),
    ("--all --state-other", set()),
    ("--all --state-paused --state-shutoff", {"paused", "off", "auto"}),
    ("--autostart", {"paused"}),
    ("--all --autostart", {"paused", "auto"}),
    ("--all --autostart --state-shutoff", {"auto"}),
    ("--all --no-autostart", {"running", "transient", "off"}),
    ("--all --with-managed-save", set()),
    ("--all --without-managed-save", {"running", "paused", "transient", "off", "auto"}),
    ("--all --with-snapshot", set()),
    ("--all --without-snapshot", {"running", "paused", "transient", "off", "auto"}),
    ("--all --with-checkpoint", set()),
    ("--all --without-checkpoint", {"running", "paused", "transient", "off", "auto"}),
]


@pytest.fixture
def guests(virtd: Instance, new_guest: Callable[..., Guest], defined: Callable[..., Guest]) -> None:
    """Guests of all kinds, named after what they are."""
    for name in ("off", "auto", "running", "paused"):
        defined(name)
    for name in ("auto", "paused"):
        virtd.virsh("autostart", name)
    virtd.virsh("start", "running")
    virtd.virsh("start", "paused", "--paused")
    virtd.virsh("create", str(new_guest("transient").file))


def test_filters(virtd: Instance, guests: None) -> None:
    found = {options: set(virtd.virsh("list", "--name", *options.split()).split()) for options, _ in FILTERS}
    assert found == dict(FILTERS)


def test_the_table(virtd: Instance, guests: None) -> None:
    virtd.virsh("desc", "off", "--title", "--new-desc", "a guest that is off")
    lines = virtd.virsh("list", "--all", "--title").splitlines()
    rows = {line.split()[1]: line.split(maxsplit=2)[2] for line in lines}
    assert {name: " ".join(row.split()) for name, row in rows.items()} == {
        "off": "shut off a guest that is off",
        "auto": "shut off",
        "running": "running",
        "paused": "paused",
        "transient": "running",
    }
    ids = {line.split()[1]: line.split()[0] for line in lines}
    assert ids["off"] == ids["auto"] == "-"
    assert {int(ids[name]) for name in ("running", "paused", "transient")} == {1, 2, 3}
    assert set(virtd.virsh("list", "--uuid").split()) == {
        virtd.virsh("domuuid", name) for name in ("running", "paused", "transient")
    }


def test_the_older_calls(connection: Any, guests: None) -> None:
    assert connection.numOfDomains() == 3
    assert connection.numOfDefinedDomains() == 2
    assert set(connection.listDefinedDomains()) == {"off", "auto"}
    ids = connection.listDomainsID()
    assert {connection.lookupByID(number).name() for number in ids} == {"running", "paused", "transient"}


def test_look_ups(connection: Any, guests: None) -> None:
    for guest in connection.listAllDomains():
        for same in (
            connection.lookupByName(guest.name()),
            connection.lookupByUUID(guest.UUID()),
            connection.lookupByUUIDString(guest.UUIDString()),
        ):
            assert (same.name(), same.UUID(), same.ID()) == (guest.name(), guest.UUID(), guest.ID())
