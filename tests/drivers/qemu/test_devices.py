"""Devices that come, go and change: of a guest that is off, and of one that runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.qemu.instance import Instance
from virtd import constants as c
from virtd.drivers.qemu.plug import live as plugging
from virtd.errors import VirtError
from virtd.protocol.records import Domain

LIVE, CONFIG = c.VIR_DOMAIN_AFFECT_LIVE, c.VIR_DOMAIN_AFFECT_CONFIG
INACTIVE = c.VIR_DOMAIN_XML_INACTIVE
MAC = "52:54:00:11:22:33"
CARD = f"<interface type='user'><mac address='{MAC}'/><model type='virtio'/></interface>"
RNG = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"
DRIVE = "<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>"


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


@pytest.fixture
def domain(instance: Instance) -> Domain:
    return instance.driver.domain_define_xml(instance.xml(devices=DRIVE))


def image(instance: Instance, name: str, size: int = 1 << 20) -> str:
    path = Path(instance.root) / name
    path.write_bytes(b"")
    with path.open("r+b") as file:
        file.truncate(size)
    return str(path)


def disk(path: str | None, target: str = "vdb", bus: str = "virtio", more: str = "") -> str:
    source = f"<source file='{path}'/>" if path else ""
    kind = "cdrom" if "hdc" in target else "disk"
    return (
        f"<disk type='file' device='{kind}'><driver name='qemu' type='raw'/>{source}"
        f"<target dev='{target}' bus='{bus}'/>{more}</disk>"
    )


def test_a_definition_gets_and_loses_devices(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    data = image(instance, "data")
    before = driver.domain_get_xml_desc(domain, 0)
    for xml in (disk(data), CARD, RNG):
        driver.domain_attach_device_flags(domain, xml, 0)
    xml = driver.domain_get_xml_desc(domain, 0)
    assert data in xml
    assert MAC in xml
    assert xml.count("<address type='pci'") == before.count("<address type='pci'") + 3  # each got a place
    with pytest.raises(VirtError, match="target vdb already exists"):
        driver.domain_attach_device_flags(domain, disk(image(instance, "other")), 0)
    with pytest.raises(VirtError, match="domain is not running"):
        driver.domain_attach_device(domain, disk(data, "vdc"))
    for xml in (disk(data), CARD, RNG):
        driver.domain_detach_device_flags(domain, xml, CONFIG)
    assert driver.domain_get_xml_desc(domain, 0) == before
    with pytest.raises(VirtError, match="device not found: no target device vdb"):
        driver.domain_detach_device_flags(domain, disk(data), 0)


def test_a_running_guest_gets_devices(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    driver.domain_create(domain)
    data = image(instance, "data", 3 << 20)
    for event_id in (15, 19):
        driver.connect_domain_event_callback_register_any(event_id, None)
    instance.events()
    driver.domain_attach_device(domain, disk(data))
    assert instance.events()[-1] == ("device_added", "g", 1, "virtio-disk1")
    driver.domain_attach_device_flags(domain, CARD, LIVE | CONFIG)
    driver.domain_attach_device_flags(domain, RNG, LIVE)
    live, later = driver.domain_get_xml_desc(domain, 0), driver.domain_get_xml_desc(domain, INACTIVE)
    for text, of_both in ((data, False), (MAC, True), ("/dev/urandom", False)):
        assert text in live
        assert (text in later) == of_both
    assert "<alias name='net0'/>" in live
    # It is a disk like the others for all calls.
    assert driver.domain_get_block_info(domain, "vdb", 0)[1] == 3 << 20
    assert driver.domain_block_stats(domain, "vdb") == (0, 0, 0, 0, -1)
    with pytest.raises(VirtError, match="target 'vdb' duplicated for disk sources"):
        driver.domain_attach_device(domain, disk(image(instance, "other")))
    with pytest.raises(VirtError, match=r"Cannot access storage file '.*/nope': No such file or directory"):
        driver.domain_attach_device(domain, disk(f"{instance.root}/nope", "vdc"))
    with pytest.raises(VirtError, match="live attach of device 'memballoon' is not supported"):
        driver.domain_attach_device(domain, "<memballoon model='virtio'/>")


def test_what_qemu_refuses_leaves_nothing(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    driver.domain_create(domain)
    before = driver.domain_get_xml_desc(domain, 0)
    nodes = driver.qemu_domain_monitor_command(domain, "info block -n", 1)
    with pytest.raises(VirtError, match="does not support hotplugging"):
        driver.domain_attach_device(domain, disk(image(instance, "data"), "hdd", "ide"))
    assert driver.domain_get_xml_desc(domain, 0) == before
    assert driver.qemu_domain_monitor_command(domain, "info block -n", 1) == nodes


def test_a_guest_lets_go_of_a_device_at_last(
    instance: Instance, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = instance.driver
    driver.domain_create(domain)
    driver.connect_domain_event_callback_register_any(c.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, None)
    data = image(instance, "data")
    driver.domain_attach_device(domain, disk(data))
    instance.wait_for_boot("g")
    instance.events()
    monkeypatch.setattr(plugging, "UNPLUG_SECONDS", 0.1)
    driver.domain_detach_device(domain, disk(data))  # this guest does not listen: it has been asked, no more
    assert data in driver.domain_get_xml_desc(domain, 0)
    driver.domain_reset(domain, 0)  # a reset takes away what was asked for
    instance.wait_for_boot("g")
    assert data not in driver.domain_get_xml_desc(domain, 0)
    removed = ("device_removed", "g", 1, "virtio-disk1")
    assert instance.events(lambda found: removed in found).count(removed) == 1
    driver.domain_attach_device(domain, disk(data))  # the file is free again
    assert driver.qemu_domain_monitor_command(domain, "info block -n", 1).count(data) == 2  # format and storage, once
    with pytest.raises(VirtError, match="no device found with alias nope"):
        driver.domain_detach_device_alias(domain, "nope", 0)
    with pytest.raises(VirtError, match="disk device type 'cdrom' cannot be detached"):
        driver.domain_detach_device(domain, disk(None, "hdc", "ide"))


def test_media_are_changed(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    driver.domain_create(domain)
    first, second = image(instance, "first", 1 << 20), image(instance, "second", 2 << 20)
    for path in (first, second):
        driver.domain_update_device_flags(domain, disk(path, "hdc", "ide", "<readonly/>"), 0)
        assert path in driver.domain_get_xml_desc(domain, 0)
        assert driver.domain_get_block_info(domain, "hdc", 0)[1] == Path(path).stat().st_size
    with pytest.raises(VirtError, match="Cannot access storage file"):
        driver.domain_update_device_flags(domain, disk(f"{instance.root}/nope", "hdc", "ide"), 0)
    driver.domain_update_device_flags(domain, disk(None, "hdc", "ide", "<readonly/>"), LIVE)
    xml = driver.domain_get_xml_desc(domain, 0)
    assert first not in xml
    assert second not in xml
    assert "first" not in driver.qemu_domain_monitor_command(domain, "info block -n", 1)  # no node is left of it
    driver.domain_update_device_flags(domain, disk(first, "hdc", "ide", "<readonly/>"), CONFIG)
    assert first in driver.domain_get_xml_desc(domain, INACTIVE)
    with pytest.raises(VirtError, match="disk source can be changed only in removable drives"):
        driver.domain_update_device_flags(domain, disk(first, "hda", "ide"), LIVE)
    with pytest.raises(VirtError, match="internal error: disk 'hdb' not found"):
        driver.domain_update_device_flags(domain, disk(first, "hdb", "ide"), LIVE)


def test_the_link_of_a_card(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_create_xml(instance.xml(devices=CARD), 0)
    down = CARD.replace("</interface>", "<link state='down'/></interface>")
    driver.domain_update_device_flags(domain, down, 0)
    assert "<link state='down'/>" in driver.domain_get_xml_desc(domain, 0)
    with pytest.raises(VirtError, match="cannot modify network device model from virtio to e1000"):
        driver.domain_update_device_flags(domain, down.replace("'virtio'", "'e1000'"), 0)


def test_descriptions_that_are_wrong(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    for call, xml, flags, text in (
        (driver.domain_attach_device_flags, "<foo/>", 0, "unsupported configuration: unknown device type 'foo'"),
        (driver.domain_attach_device_flags, "<graphics type='vnc'/>", 0, "persistent attach of device 'graphics'"),
        (driver.domain_attach_device_flags, "<disk", 0, "(device_definition):1: Couldn't find end of Start Tag"),
        (driver.domain_attach_device_flags, CARD, 4, "(0x4) in function qemuDomainAttachDeviceLiveAndConfig"),
        (driver.domain_detach_device_flags, CARD, 64, "(0x40) in function qemuDomainDetachDeviceLiveAndConfig"),
        (driver.domain_update_device_flags, CARD, 64, "(0x40) in function qemuDomainUpdateDeviceFlags"),
    ):
        with pytest.raises(VirtError) as caught:
            call(domain, xml, flags)
        assert text in caught.value.message
