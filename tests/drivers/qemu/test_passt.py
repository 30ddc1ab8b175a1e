"""passt beside a guest: a real one, in a network namespace of its own; it lives as long as the guest's card."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.network.conftest import namespace, run  # noqa: F401 - a fixture
from tests.drivers.qemu.instance import Instance
from tests.drivers.qemu.test_helpers import beside
from tests.helpers.waiting import ends
from virtd import constants as c
from virtd.drivers.base import Context, Identity
from virtd.drivers.qemu.driver import QemuDriver
from virtd.drivers.qemu.plug import live as plugging
from virtd.errors import VirtError
from virtd.state import paths

START_PAUSED = c.VIR_DOMAIN_START_PAUSED


@pytest.fixture
def instance(namespace: None) -> Iterator[Instance]:  # noqa: F811
    # The device that leads out of here, which the guest will look like.
    run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "far")
    for device in ("up0", "far"):
        run("ip", "link", "set", device, "up")
    run("ip", "addr", "add", "10.8.0.1/24", "dev", "up0")
    run("ip", "route", "add", "default", "via", "10.8.0.2")
    made = Instance()
    yield made
    made.close()


def card(inner: str, attributes: str = "", mac: str = "52:54:00:00:00:01") -> str:
    return (
        f"<interface type='user'><mac address='{mac}'/>{inner}<model type='virtio'/>"
        f"<backend type='passt'{attributes}/></interface>"
    )


def forward(port: int, proto: str = "tcp") -> str:
    return f"<portForward proto='{proto}' address='127.0.0.1'><range start='{port}' to='22'/></portForward>"


def words(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_it_ends_with_the_guest(instance: Instance) -> None:
    log = f"{instance.root}/out/passt.log"
    inner = f"<source dev='up0'/><ip address='10.9.0.5' prefix='20'/>{forward(2022)}"
    inner += "<portForward proto='udp' dev='up0'><range start='5000' end='5009' to='6000'/>"
    inner += "<range start='5003' end='5004' exclude='yes'/></portForward>"
    domain = instance.driver.domain_create_xml(instance.xml(devices=card(inner, f" logFile='{log}'")), START_PAUSED)
    (pid,) = beside("passt", instance.root)
    said = " ".join(words(pid))
    for option in (
        f"--log-file {log}",
        "--interface up0",
        "--address 10.9.0.5 --netmask 20",
        "--tcp-ports 127.0.0.1/2022:22",
        "--udp-ports 0.0.0.0%up0/5000-5009:6000-6009,~5003-5004",
    ):
        assert option in said
    assert accepts(2022)
    assert os.stat(f"/proc/{pid}").st_uid == os.stat(f"/proc/{instance.qemu(domain)}").st_uid
    assert "10.9.0.5" in Path(log).read_text()
    shown = instance.driver.domain_get_xml_desc(domain, 0)
    assert f"<backend type='passt' logFile='{log}'/>" in shown
    assert "<source dev='up0'/>" in shown
    instance.driver.domain_destroy(domain)
    ends(pid)
    assert not accepts(2022)


def test_it_comes_and_goes_with_a_card(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = instance.driver
    domain = driver.domain_define_xml(instance.xml())
    driver.domain_create(domain)
    instance.wait_for_boot("g")
    driver.domain_attach_device_flags(domain, card(forward(2023)), c.VIR_DOMAIN_AFFECT_LIVE)
    (pid,) = beside("passt", instance.root)
    assert accepts(2023)
    taken = card(forward(2023), mac="52:54:00:00:00:02")
    with pytest.raises(VirtError, match="'passt' ended with 1"):
        driver.domain_attach_device_flags(domain, taken, c.VIR_DOMAIN_AFFECT_LIVE)
    assert beside("passt", instance.root) == [pid]
    driver.connect_domain_event_callback_register_any(c.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, None)
    monkeypatch.setattr(plugging, "UNPLUG_SECONDS", 0.1)
    driver.domain_detach_device(domain, card(""))
    driver.domain_reset(domain, 0)  # the guest, which does not listen, lets go of it
    instance.events(lambda found: any(event[0] == "device_removed" for event in found))
    driver.domain_attach_device_flags(domain, card(forward(2026)), c.VIR_DOMAIN_AFFECT_LIVE)  # under the same name
    ends(pid)
    assert (accepts(2023), accepts(2026)) == (False, True)
    driver.domain_destroy(domain)


def test_what_it_cannot_have_ends_the_start(instance: Instance) -> None:
    with socket.create_server(("127.0.0.1", 2024)), pytest.raises(VirtError, match="'passt' ended with 1"):
        instance.driver.domain_create_xml(instance.xml(devices=card(forward(2024))), START_PAUSED)
    assert (
        "Failed to bind any port for '-t 127.0.0.1/2024:22'"
        in Path(f"{instance.root}/var/log/virtd/qemu/g.log").read_text()
    )
    assert beside("passt", instance.root) == beside("qemu-system-x86_64", instance.root) == []


def test_of_a_session(instance: Instance) -> None:
    where = paths.below(instance.root, privileged=False)
    driver = QemuDriver(Context(where, Identity(os.geteuid(), os.getegid(), os.getpid()), os.getpid()))
    domain = driver.domain_create_xml(instance.xml(devices=card(forward(2025))), START_PAUSED)
    (pid,) = beside("passt", instance.root)
    assert accepts(2025)
    driver.domain_destroy(domain)
    ends(pid)
    driver.close()


@pytest.mark.parametrize(
    ("xml", "text"),
    [
        (f"<interface type='user'>{forward(1)}</interface>", "<portForward> is not supported without <backend type="),
        (card("").replace("'user'", "'ethernet'"), "'passt' backend can only be used with interface type='user'"),
        (card("").replace("passt", "slirp"), "Invalid value for attribute 'type' in element 'backend': 'slirp'"),
    ],
)
def test_refused(instance: Instance, xml: str, text: str) -> None:
    with pytest.raises(VirtError, match=text):
        instance.driver.domain_create_xml(instance.xml(devices=xml), START_PAUSED)
