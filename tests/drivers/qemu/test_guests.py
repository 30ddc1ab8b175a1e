"""The view of all guests: one that is kept and brought up to date is the same as one that is read anew."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.drivers.qemu.instance import Instance
from virtd import deadlines
from virtd.drivers.qemu.guest import Control, Guest
from virtd.drivers.qemu.guests import Entry, Guests
from virtd.drivers.qemu.run import launch
from virtd.errors import VirtError
from virtd.protocol.records import Domain
from virtd.state import sockets
from virtd.state.commit import Generation


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


def guests(instance: Instance) -> Guests:
    """The guests as a process of its own sees them."""
    paths = instance.driver.paths
    return Guests(paths, Generation(paths.runtime))


def seen(found: Guests) -> tuple[dict[str, Entry], dict[str, Entry], dict[int, Entry]]:
    view = found.view()
    return view.by_uuid, view.by_name, view.by_id


def test_a_kept_view_is_as_good_as_a_new_one(instance: Instance) -> None:
    driver, chance = instance.driver, random.Random(7)
    kept, seldom = guests(instance), guests(instance)
    seen(kept), seen(seldom)
    full = kept._read
    kept._read = lambda: pytest.fail("everything was read again")  # type: ignore[method-assign]
    for step in range(80):
        _act(instance, step, chance)
        assert seen(kept) == seen(guests(instance)), f"step {step}"
        if step % 16 == 15:
            assert seen(seldom) == seen(kept), f"step {step}"
    kept._read = full  # type: ignore[method-assign]
    for entry in driver.guests.view():
        if entry.active:
            driver.domain_destroy(entry.reference)
    assert seen(kept) == seen(guests(instance))


def _act(instance: Instance, step: int, chance: random.Random) -> None:
    """Do something to some guest: starts are rare, they take their time."""
    driver = instance.driver
    there = list(driver.guests.view())
    if len(there) < 3 or chance.random() < 0.3:
        driver.domain_define_xml(instance.xml(f"g{step}"))
        return
    entry = chance.choice(there)
    actions: list[Callable[[Domain], object]] = [
        lambda domain: driver.domain_set_autostart(domain, int(not entry.autostart)),
        driver.domain_undefine,
        lambda domain: driver.domain_define_xml(driver.domain_get_xml_desc(domain, 2)),
    ]
    if entry.active:
        actions += [driver.domain_suspend, driver.domain_resume, driver.domain_destroy]
    else:
        actions += [lambda domain: driver.domain_rename(domain, f"r{step}", 0)] * 2
        actions += [driver.domain_create] if step % 8 == 0 else []
    if entry.persistent:
        chance.choice(actions)(entry.reference)
    else:
        driver.domain_destroy(entry.reference)


def test_a_start_that_is_cut_short_is_seen_by_views_that_are_kept(instance: Instance) -> None:
    """Nothing is committed when who starts a guest is killed: the claim must not be kept for good."""
    driver = instance.driver
    domain = driver.domain_define_xml(instance.xml())
    kept = guests(instance)
    entry = driver.guests.find(domain)
    lock = driver.guest(entry).lock("the start")
    launch.claim(driver, driver.config(entry))
    seen(kept)
    assert list(kept._statuses) == [entry.uuid]
    lock.release()
    driver.domain_set_autostart(domain, 1)
    assert seen(kept) == seen(guests(instance))
    assert list(kept._statuses) == []


def test_a_name_belongs_to_the_guest_that_is_being_started_with_it(instance: Instance) -> None:
    """Two transient guests of one name, started at the same time: the second one is refused."""
    driver = instance.driver
    config = driver.read_config(instance.xml(), validate=False)
    guest = Guest.of(driver.guests.running, config)
    lock = guest.lock("the start")
    launch.claim(driver, config)
    with pytest.raises(VirtError, match=f"domain 'g' already exists with uuid {config.uuid}"):
        driver.domain_create_xml(instance.xml(), 0)
    with pytest.raises(VirtError, match="already exists"):
        driver.domain_define_xml(instance.xml())
    lock.release()  # its starter has died
    driver.domain_define_xml(instance.xml())


def test_a_supervisor_that_is_asked_too_late(tmp_path: Path) -> None:
    """With no time left a call says so, whatever the kernel calls it."""
    guest = Guest(str(tmp_path), "a", "a")
    os.makedirs(os.path.dirname(guest.control_path))
    with (
        closing(sockets.listen(guest.control_path)),
        Control(guest) as control,
        deadlines.limit(0),
        pytest.raises(deadlines.DeadlineExceeded, match="the supervisor of guest 'a' does not answer"),
    ):
        control.reboot(True)
    with (
        closing(sockets.listen(guest.control_path, backlog=0)),
        closing(sockets.connect(guest.control_path)),
        deadlines.limit(0),
        pytest.raises(deadlines.DeadlineExceeded, match="the supervisor of guest 'a' does not answer"),
    ):
        Control(guest)
