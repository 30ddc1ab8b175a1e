"""The life of guests, with real QEMUs: states, reasons and events as libvirt 9.0.0 gives them."""

import os
import select
import signal
from collections.abc import Iterator

import pytest

from tests.drivers.qemu.instance import Instance
from tests.helpers.waiting import ends
from virtd import constants as c
from virtd import deadlines
from virtd.errors import VirtError

RUNNING, PAUSED, SHUTOFF, CRASHED = (
    c.VIR_DOMAIN_RUNNING,
    c.VIR_DOMAIN_PAUSED,
    c.VIR_DOMAIN_SHUTOFF,
    c.VIR_DOMAIN_CRASHED,
)


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


def ended(events: list[tuple[object, ...]]) -> bool:
    return any(event[0] == "lifecycle" and event[3] == c.VIR_DOMAIN_EVENT_STOPPED for event in events)


def test_define_start_suspend_resume_destroy_undefine(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_define_xml(instance.xml())
    assert instance.events() == [("lifecycle", "g", -1, 0, 0)]
    assert driver.domain_get_state(domain, 0) == (SHUTOFF, 0)

    driver.domain_create(domain)
    assert instance.events() == [("lifecycle", "g", 1, 4, 0), ("lifecycle", "g", 1, 2, 0)]
    assert driver.domain_get_state(domain, 0) == (RUNNING, c.VIR_DOMAIN_RUNNING_BOOTED)
    with pytest.raises(VirtError, match="Requested operation is not valid: domain is already running"):
        driver.domain_create(domain)

    driver.domain_suspend(domain)
    assert driver.domain_get_state(domain, 0) == (PAUSED, c.VIR_DOMAIN_PAUSED_USER)
    driver.domain_suspend(domain)  # again: no error, no event
    driver.domain_resume(domain)
    assert driver.domain_get_state(domain, 0) == (RUNNING, c.VIR_DOMAIN_RUNNING_UNPAUSED)
    assert instance.events() == [("lifecycle", "g", 1, 3, 0), ("lifecycle", "g", 1, 4, 0)]

    driver.domain_destroy(domain)
    assert driver.domain_get_state(domain, 0) == (SHUTOFF, c.VIR_DOMAIN_SHUTOFF_DESTROYED)
    assert instance.events() == [("lifecycle", "g", 1, 6, 2), ("lifecycle", "g", -1, 5, 1)]
    driver.domain_undefine(domain)
    assert instance.events() == [("lifecycle", "g", -1, 1, 0)]
    with pytest.raises(VirtError) as caught:
        driver.domain_get_state(domain, 0)
    assert caught.value.code == c.VIR_ERR_NO_DOMAIN


def test_a_guest_started_paused(instance: Instance) -> None:
    domain = instance.driver.domain_create_xml(instance.xml(), c.VIR_DOMAIN_START_PAUSED)
    assert instance.events() == [("lifecycle", "g", 1, 2, 0), ("lifecycle", "g", 1, 3, 0)]
    assert instance.driver.domain_get_state(domain, 0) == (PAUSED, c.VIR_DOMAIN_PAUSED_USER)
    assert instance.driver.domain_is_persistent(domain) == 0


def test_a_transient_guest_is_gone_when_it_has_ended(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_create_xml(instance.xml(), 0)
    driver.domain_destroy(domain)
    assert driver.connect_list_all_domains(1, 0) == ([], 0)
    with pytest.raises(VirtError, match="no domain with matching uuid"):
        driver.domain_get_info(domain)


def test_the_power_button(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_define_xml(instance.xml())
    driver.domain_create(domain)
    instance.wait_for_boot("g")
    instance.events()
    driver.domain_shutdown(domain)
    assert instance.events(ended) == [("lifecycle", "g", 1, 6, 1), ("lifecycle", "g", 1, 5, 0)]
    assert driver.domain_get_state(domain, 0) == (SHUTOFF, c.VIR_DOMAIN_SHUTOFF_SHUTDOWN)


def test_a_reboot_by_the_power_button_keeps_the_guest(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_create_xml(instance.xml(), 0)
    instance.wait_for_boot("g")
    instance.events()
    driver.domain_reboot(domain, 0)
    assert instance.events()[0] == ("reboot", "g", 1)
    instance.wait_for_boot("g")
    assert driver.domain_get_state(domain, 0)[0] == RUNNING
    # The next press of the button is a real shutdown.
    driver.domain_shutdown(domain)
    assert instance.events(ended)[-1] == ("lifecycle", "g", 1, 5, 0)


def test_a_guest_that_panics(instance: Instance) -> None:
    driver = instance.driver
    xml = instance.xml(then="panic", more="<on_crash>preserve</on_crash>", devices="<panic model='isa'/>")
    domain = driver.domain_create_xml(xml, 0)
    events = instance.events(lambda found: any(event[3:] == (8, 0) for event in found))
    assert [event[3:] for event in events] == [(4, 0), (2, 0), (3, 0), (8, 0)]
    assert driver.domain_get_state(domain, 0) == (CRASHED, c.VIR_DOMAIN_CRASHED_PANICKED)


def test_a_killed_qemu(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_define_xml(instance.xml())
    driver.domain_create(domain)
    instance.events()
    os.kill(instance.qemu(domain), signal.SIGKILL)
    assert instance.events(ended) == [("lifecycle", "g", 1, 5, 5)]
    assert driver.domain_get_state(domain, 0) == (SHUTOFF, c.VIR_DOMAIN_SHUTOFF_CRASHED)
    driver.domain_create(domain)
    assert driver.domain_get_info(domain)[0] == RUNNING


def test_a_killed_supervisor_is_replaced(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_create_xml(instance.xml(), 0)
    before, qemu = instance.supervisor(domain), instance.qemu(domain)
    os.kill(before, signal.SIGKILL)
    ends(before)
    assert driver.domain_get_state(domain, 0) == (RUNNING, c.VIR_DOMAIN_RUNNING_BOOTED)
    assert instance.supervisor(domain) != before
    assert instance.qemu(domain) == qemu
    instance.events()
    driver.domain_suspend(domain)
    assert instance.events() == [("lifecycle", "g", 1, 3, 0)]
    # What happens while nobody listens is found out by the next one who looks.
    second = instance.supervisor(domain)
    os.kill(second, signal.SIGKILL)
    ends(second)
    os.kill(qemu, signal.SIGKILL)
    ends(qemu)
    assert driver.connect_list_all_domains(1, 0) == ([], 0)
    assert instance.events(ended) == [("lifecycle", "g", 1, 5, 5)]


def test_a_stuck_guest_hangs_only_its_caller_and_can_be_destroyed(instance: Instance) -> None:
    driver = instance.driver
    stuck = driver.domain_create_xml(instance.xml("stuck"), 0)
    healthy = driver.domain_create_xml(instance.xml("healthy"), 0)
    os.kill(instance.qemu(stuck), signal.SIGSTOP)
    with deadlines.limit(0.5), pytest.raises(VirtError, match="vm='stuck'") as caught:
        driver.domain_suspend(stuck)
    assert caught.value.code == c.VIR_ERR_OPERATION_TIMEOUT
    driver.domain_suspend(healthy)
    assert len(driver.connect_list_all_domains(1, 0)[0]) == 2
    assert driver.domain_get_info(stuck)[0] == RUNNING
    guest = driver.guest(driver.guests.find(stuck))
    lock = guest.lock("virDomainSaveFlags")
    driver.domain_destroy(stuck)  # whoever holds the lock
    guest.unlock(lock)
    assert [domain.name for domain in driver.connect_list_all_domains(1, 0)[0]] == ["healthy"]


def test_a_waiter_hears_who_holds_the_lock(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_create_xml(instance.xml(), 0)
    guest = driver.guest(driver.guests.find(domain))
    lock = guest.lock("virDomainBlockCopy")
    try:
        with deadlines.limit(0.1), pytest.raises(VirtError) as caught:
            driver.domain_suspend(domain)
    finally:
        guest.unlock(lock)
    assert f"(held by pid {os.getpid()} in virDomainBlockCopy for " in caught.value.message


def test_autodestroy_ends_the_guest_with_its_owner(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_define_xml(instance.xml())
    instance.events()
    pid = os.fork()
    if pid == 0:
        other = instance.open()
        other.domain_create_with_flags(domain, c.VIR_DOMAIN_START_AUTODESTROY)
        os._exit(0 if not other.clean() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert instance.events(ended)[-1] == ("lifecycle", "g", -1, 5, 1)
    assert driver.domain_get_state(domain, 0) == (SHUTOFF, c.VIR_DOMAIN_SHUTOFF_DESTROYED)


@pytest.mark.parametrize("milliseconds", [2, 8, 16, 24, 32])
def test_a_start_whose_starter_dies_leaves_nothing_or_a_whole_guest(instance: Instance, milliseconds: int) -> None:
    driver = instance.driver
    domain = driver.domain_define_xml(instance.xml())
    pid = os.fork()
    if pid == 0:
        instance.open().domain_create(domain)
        os._exit(0)
    descriptor = os.pidfd_open(pid)
    try:
        select.select([descriptor], [], [], milliseconds / 1000)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)
        os.waitpid(pid, 0)
    state = driver.domain_get_state(domain, 0)[0]
    if state == SHUTOFF:
        driver.domain_create(domain)  # nothing of the first attempt is in its way
    assert driver.domain_get_state(domain, 0)[0] == RUNNING


def test_a_start_that_fails_says_what_qemu_said_and_leaves_nothing(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_define_xml(instance.xml())
    (instance.disk()).unlink()
    with pytest.raises(VirtError, match=r"g\.img"):
        driver.domain_create(domain)
    assert driver.domain_get_state(domain, 0)[0] == SHUTOFF
    assert instance.events() == [("lifecycle", "g", -1, 0, 0)]
    instance.disk()
    driver.domain_create(domain)


def test_a_definition_that_was_edited_by_hand_gets_its_defaults(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_define_xml(instance.xml())
    before = driver.domain_get_xml_desc(domain, 0)
    path = driver.guests.definitions.path("g")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace("</devices>", "<rng model='virtio'><backend model='random'/></rng></devices>"))
    with driver.generation.commit():
        pass
    after = driver.domain_get_xml_desc(domain, 0)
    assert after != before
    assert "<rng model='virtio'>" in after
    assert after.count("<address type='pci'") == before.count("<address type='pci'") + 1


def test_the_cpu_time_of_a_guest(instance: Instance) -> None:
    """That of all its threads, as /proc counts it in hundredths of a second."""
    domain = instance.driver.domain_create_xml(instance.xml(), 0)
    instance.wait_for_boot("g")
    instance.driver.domain_suspend(domain)
    with open(f"/proc/{instance.qemu(domain)}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    counted = (int(fields[11]) + int(fields[12])) * 10_000_000
    assert 0 <= instance.driver.domain_get_info(domain)[4] - counted < 100_000_000
    assert counted > 0
