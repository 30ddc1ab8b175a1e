"""Security labels: who QEMU runs as, whose its files are meanwhile, and whose they are again afterwards."""

import os
from collections.abc import Iterator

import pytest

from tests.drivers.qemu.instance import Instance
from virtd import constants as c
from virtd.errors import VirtError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="users are changed by root only")
NOBODY, NOGROUP = 65534, 65534


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


def start(instance: Instance, label: str, disk: str = "") -> tuple[tuple[int, int], tuple[int, int], str]:
    """Start a guest with labels; returns the owners of QEMU and of its disk, and the labels of its live XML."""
    xml = instance.xml(more=label)
    xml = xml.replace("g.img'/>", f"g.img'>{disk}</source>") if disk else xml
    image = f"{instance.root}/g.img"
    os.chmod(image, 0o600)
    domain = instance.driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    process, file = os.stat(f"/proc/{instance.qemu(domain)}"), os.stat(image)
    live = instance.driver.domain_get_xml_desc(domain, 0)
    instance.driver.domain_destroy(domain)
    assert (os.stat(image).st_uid, os.stat(image).st_gid) == (0, 0)
    labels = live[live.index("<seclabel") : live.index("</domain>")]
    return (process.st_uid, process.st_gid), (file.st_uid, file.st_gid), labels


def test_the_usual_user(instance: Instance) -> None:
    user = instance.driver.capabilities.user
    assert user is not None
    process, file, live = start(instance, "<seclabel type='dynamic' model='dac'><baselabel>0:0</baselabel></seclabel>")
    assert process == file == (user.uid, user.gid)
    assert f"<label>{user.label}</label>" in live
    assert f"<imagelabel>{user.label}</imagelabel>" in live


def test_a_static_label(instance: Instance) -> None:
    label = "<seclabel type='static' model='dac' relabel='yes'><label>nobody:nogroup</label></seclabel>"
    process, file, live = start(instance, label)
    assert process == file == (NOBODY, NOGROUP)
    assert "<imagelabel>nobody:nogroup</imagelabel>" in live


def test_a_static_label_that_lets_files_be(instance: Instance) -> None:
    label = "<seclabel type='static' model='dac' relabel='no'><label>+0:+0</label></seclabel>"
    process, file, live = start(instance, label)
    assert process == file == (0, 0)
    assert "imagelabel" not in live


def test_a_disk_of_its_own_label(instance: Instance) -> None:
    user = instance.driver.capabilities.user
    assert user is not None
    disk = f"<seclabel model='dac'><label>+{user.uid}:+{NOGROUP}</label></seclabel>"
    process, file, _ = start(instance, "<seclabel type='dynamic' model='dac'/>", disk)
    assert process == (user.uid, user.gid)
    assert file == (user.uid, NOGROUP)


def test_a_disk_that_is_not_labelled(instance: Instance) -> None:
    with pytest.raises(VirtError, match=r"Cannot access storage file .*: the user may not open"):
        start(instance, "", "<seclabel model='dac' relabel='no'/>")
    assert os.stat(f"{instance.root}/g.img").st_uid == 0


def test_what_is_plugged_in_has_the_guests_own_label(instance: Instance) -> None:
    label = "<seclabel type='static' model='dac' relabel='yes'><label>nobody:nogroup</label></seclabel>"
    xml = instance.xml(more=label, devices="<controller type='usb' model='qemu-xhci'/>")
    domain = instance.driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    image = instance.disk("plugged")
    os.chmod(image, 0o600)
    disk = f"<disk type='file'><driver name='qemu' type='raw'/><source file='{image}'/>"
    instance.driver.domain_attach_device(domain, disk + "<target dev='sda' bus='usb'/></disk>")
    assert (os.stat(image).st_uid, os.stat(image).st_gid) == (NOBODY, NOGROUP)
    instance.driver.domain_destroy(domain)
    assert (os.stat(image).st_uid, os.stat(image).st_gid) == (0, 0)


def test_a_driver_that_there_is_not(instance: Instance) -> None:
    label = "<seclabel type='dynamic' model='selinux'/>"
    with pytest.raises(VirtError, match="Security driver model 'selinux' is not available") as caught:
        start(instance, label)
    assert caught.value.code == c.VIR_ERR_CONFIG_UNSUPPORTED
