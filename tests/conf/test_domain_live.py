"""What a running guest's XML has beside its definition's, and what a definition does not take from it."""

from pathlib import Path

import pytest

from virtd.conf.domain import Domain, assign_aliases, format_both, format_domain, parse_domain
from virtd.conf.domain.chardev import PtySource
from virtd.conf.domain.display import VncGraphics
from virtd.conf.host import GOLDEN_HOST

GOLDEN = Path(__file__).parent / "golden"


def running(name: str) -> Domain:
    """A guest as if it had just been started."""
    domain = parse_domain((GOLDEN / f"{name}.in.xml").read_text(), GOLDEN_HOST)
    domain.id = 7
    assign_aliases(domain)
    return domain


def test_aliases() -> None:
    domain = running("linux-pc")
    assert [disk.info.alias for disk in domain.disks] == ["virtio-disk0", "ide0-1-0"]
    assert [nic.info.alias for nic in domain.interfaces] == ["net0", "net1"]
    assert [one.info.alias for one in domain.controllers] == ["usb", "pci.0", "ide", "virtio-serial0"]
    assert domain.memballoon is not None
    assert domain.memballoon.info.alias == "balloon0"
    assert [device.info.alias for device in domain.inputs] == ["input0", "input1", "input2"]


def test_aliases_q35() -> None:
    domain = running("linux-q35")
    assert [disk.info.alias for disk in domain.disks] == ["scsi0-0-0-0", "sata0-0-1", "virtio-disk0"]
    aliases = {one.info.alias for one in domain.controllers}
    assert {"pcie.0", "pci.1", "ide", "usb", "scsi0"} <= aliases


def test_run_time_values_are_shown_live_only() -> None:
    domain = running("linux-pc")
    source, graphics = domain.serials[0].source, domain.graphics[0]
    assert isinstance(source, PtySource)
    assert isinstance(graphics, VncGraphics)
    source.path, graphics.port, graphics.passwd = "/dev/pts/4", 5901, "secret"
    live = format_domain(domain, live=True)
    assert "<domain type='qemu' id='7'>" in live
    assert "<console type='pty' tty='/dev/pts/4'>\n      <source path='/dev/pts/4'/>" in live
    assert "<alias name='serial0'/>" in live
    assert "port='5901' autoport='yes'" in live
    assert "secret" not in live
    assert "passwd='secret'" in format_domain(domain, live=True, secure=True)
    inactive = format_domain(domain)
    assert inactive == (GOLDEN / "linux-pc.out.xml").read_text()


PASSWORD = "<graphics type='vnc' port='5900' passwd='secret'/>"
COOKIE = """<disk type='network'><source protocol='https' name='image'><host name='example.org' port='443'/>
<cookies><cookie name='user'>secret</cookie></cookies></source><target dev='vdz' bus='virtio'/></disk>"""


@pytest.mark.parametrize("device", ["", PASSWORD, COOKIE])
@pytest.mark.parametrize("live", [False, True])
def test_both_with_and_without_passwords(device: str, live: bool) -> None:
    xml = (GOLDEN / "linux-pc.in.xml").read_text().replace("</devices>", f"{device}</devices>")
    domain = parse_domain(xml, GOLDEN_HOST)
    public, whole = format_both(domain, live=live)
    assert public == format_domain(domain, live=live)
    assert whole == format_domain(domain, live=live, secure=True)
    assert ("secret" in public, "secret" in whole) == (False, device != "")


def test_live_xml_is_read_back() -> None:
    domain = running("linux-q35")
    live = format_domain(domain, live=True)
    again = parse_domain(live, GOLDEN_HOST, inactive=False)
    assert format_domain(again, live=True) == live
    assert again.id == 7
    definition = parse_domain(live, GOLDEN_HOST)
    assert definition.id is None
    assert format_domain(definition) == (GOLDEN / "linux-q35.out.xml").read_text()


def test_aliases_of_users_stay() -> None:
    xml = (
        (GOLDEN / "linux-pc.in.xml")
        .read_text()
        .replace("<target dev='hdc'/>", "<target dev='hdc'/><alias name='ua-cd'/>")
    )
    domain = parse_domain(xml, GOLDEN_HOST)
    assert "<alias name='ua-cd'/>" in format_domain(domain)
    assign_aliases(domain)
    assert domain.disks[1].info.alias == "ua-cd"
