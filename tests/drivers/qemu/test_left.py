"""What cannot be taken back when a guest has ended keeps nobody from anything, and is taken back later."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.drivers.qemu.instance import Instance
from tests.helpers.waiting import SECONDS, wait_for
from virtd import constants as c
from virtd.state import sockets


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
