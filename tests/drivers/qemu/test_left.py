"""Of a guest that has ended nothing is left; what cannot be taken back hinders nobody, and is taken back later."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.drivers.qemu.instance import Instance
from tests.helpers.waiting import SECONDS, wait_for
from virtd import constants as c
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.monitor import ask
from virtd.errors import VirtError
from virtd.state import files, locks, sockets


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


def test_what_was_busy_goes_with_the_next_guest_that_ends(instance: Instance) -> None:
    driver, path = instance.driver, Path(instance.root) / "out/socket"
    xml = instance.xml(devices=f"<serial type='unix'><source mode='bind' path='{path}'/></serial>")
    domain = driver.domain_define_xml(xml)
    uuid = f"<uuid>{driver.domain_get_xml_desc(domain, 0).partition('<uuid>')[2].partition('<')[0]}</uuid>"
    driver.domain_create(domain)
    if os.geteuid() or subprocess.run(["mount", "--bind", "/dev/null", path], check=False).returncode:
        lacking("right to mount")
    try:
        driver.domain_destroy(domain)
        assert driver.domain_get_state(domain, 0) == (c.VIR_DOMAIN_SHUTOFF, c.VIR_DOMAIN_SHUTOFF_DESTROYED)
        log = Path(driver.guests.log_path("g"))
        why = f"for guest 'g' cannot be undone now (kind file, path {path}): Device or resource busy"
        assert log.read_text().count(why) == 1
        # It runs again, without what it had there; and is undefined.
        driver.domain_define_xml(instance.xml(more=uuid))
        driver.domain_create(domain)
        driver.domain_destroy(domain)
        driver.domain_undefine(domain)
        assert driver.connect_list_all_domains(1, 0) == ([], 0)
        assert os.listdir(driver.guests.running) == []
        assert path.exists()
    finally:
        subprocess.run(["umount", path], check=True)
    driver.domain_destroy(driver.domain_create_xml(instance.xml("other"), 0))
    wait_for(lambda: not path.exists(), "another try", directory=path.parent)
    wait_for(lambda: os.listdir(f"{driver.guests.running}.undo") == ["lock"], "its end")


def test_what_was_busy_goes_before_the_next_start(instance: Instance) -> None:
    driver, path = instance.driver, Path(instance.root) / "out/socket"
    xml = instance.xml(devices=f"<serial type='unix'><source mode='bind' path='{path}'/></serial>")
    domain = driver.domain_define_xml(xml)
    driver.domain_create(domain)
    if os.geteuid() or subprocess.run(["mount", "--bind", "/dev/null", path], check=False).returncode:
        lacking("right to mount")
    try:
        driver.domain_destroy(domain)
    finally:
        subprocess.run(["umount", path], check=True)
    driver.domain_create(domain)
    sockets.connect(str(path), timeout=SECONDS).close()
    assert os.listdir(f"{driver.guests.running}.undo") == ["lock"]
    # What another one leaves behind, or its end, does not concern what this one has made anew.
    driver.domain_destroy(driver.domain_create_xml(instance.xml("other"), 0))
    assert path.is_socket()
    driver.domain_destroy(domain)
    assert not path.exists()


def test_who_waits_with_a_question_makes_nothing_anew(instance: Instance) -> None:
    """The guest is destroyed meanwhile, and its directory goes."""
    driver = instance.driver
    domain = driver.domain_create_xml(instance.xml(), 0)
    guest = driver.guest(driver.guests.find(domain))
    with locks.held(f"{guest.directory}/query.lock", "a test") as lock:
        pid = os.fork()
        if not pid:
            lock.pass_on()
            try:
                ask.ask(guest, [("query-status", None)])
            except VirtError as error:
                os._exit(7 if "domain is not running" in error.message else 1)
            os._exit(0)
        wait_for(lambda: re.search(rf"-> FLOCK .* {pid} ", Path("/proc/locks").read_text()), "the wait")
        driver.domain_destroy(domain)
        assert os.listdir(driver.guests.running) == []
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert os.listdir(driver.guests.running) == []
    # Nor who comes when it has gone.
    with pytest.raises(VirtError, match="domain is not running"):
        ask.ask(guest, [("query-status", None)])
    ask.remember(guest, [("query-status", None)], [{}])
    assert os.listdir(driver.guests.running) == []


@pytest.mark.parametrize("made", ["query.lock", ".answers.new", "supervisor", "lock"])
def test_what_is_made_while_a_directory_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str) -> None:
    """By who only asks, or supervises too late, it goes, too; not what belongs to the next start."""
    guest = Guest(str(tmp_path), "uuid", "g")
    lock = guest.lock("a test")
    started: list[locks.Lock] = []
    real = files.remove

    def remove(path: str) -> bool:
        found = real(path)
        if path == guest.lock_path:
            monkeypatch.undo()
            if made == "lock":
                started.append(guest.lock("the next start"))
            Path(guest.directory, made).touch()
        return found

    monkeypatch.setattr(files, "remove", remove)
    guest.unlock(lock)
    assert os.path.exists(guest.directory) == bool(started)
    for next_lock in started:
        guest.unlock(next_lock)
    assert os.listdir(tmp_path) == []
