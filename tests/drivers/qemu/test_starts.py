"""Guests of many kinds are really started and stopped, and leave nothing behind; what displays are given then."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.qemu.instance import Instance
from virtd import constants as c
from virtd.conf.domain.disk import FileSource
from virtd.conf.domain.display import SpiceGraphics, VncGraphics
from virtd.errors import VirtError

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_every_kind_of_guest_starts() -> None:
    """A small corpus through contrib/starts, by which larger ones are tried by hand."""
    command = [sys.executable, "contrib/starts", "tests/conf/golden"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.search(r"^started (\d+), cannot exist here (\d+), failed 0$", done.stdout, re.MULTILINE)
    assert counts is not None
    assert int(counts[1]) >= 6


def spice(instance: Instance, attributes: str) -> SpiceGraphics:
    """The SPICE server of a guest that has been started."""
    xml = instance.xml(devices=f"<graphics type='spice' {attributes}/>")
    domain = instance.driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    (graphics,) = instance.driver.live(instance.driver.guests.find(domain)).graphics
    assert isinstance(graphics, SpiceGraphics)
    return graphics


def test_spice_listens_on_a_port_that_was_free(instance: Instance) -> None:
    graphics = spice(instance, "autoport='yes' listen='127.0.0.1'")
    assert graphics.port is not None
    with socket.create_connection(("127.0.0.1", graphics.port), 5) as client:
        client.sendall(b"REDQ" + bytes(12))  # the magic of a link message, and nonsense: it is there, and hangs up
        assert client.recv(4) in (b"REDQ", b"")


def test_spice_without_a_port_has_none(instance: Instance) -> None:
    assert not spice(instance, "").port


def test_where_vnc_listens_is_shown(instance: Instance) -> None:
    """As in libvirt: of a running guest, what was chosen; of its definition, what was said."""
    named = instance.driver.domain_define_xml(instance.xml(devices="<graphics type='vnc'/>"))
    domain = instance.driver.domain_create_with_flags(named, c.VIR_DOMAIN_START_PAUSED)
    live = instance.driver.domain_get_xml_desc(domain, 0)
    assert re.search(r"<graphics type='vnc' port='\d+' autoport='yes' listen='127.0.0.1'>", live)
    assert "<listen type='address' address='127.0.0.1'/>" in live
    saved = instance.driver.domain_get_xml_desc(domain, c.VIR_DOMAIN_XML_INACTIVE)
    assert "<graphics type='vnc' port='-1' autoport='yes'>" in saved
    assert "<listen type='address'/>" in saved


def test_vnc_that_is_not_on_the_network_has_no_port(instance: Instance) -> None:
    for number, listen in enumerate(("none", "socket")):
        xml = instance.xml(f"v{number}", devices=f"<graphics type='vnc'><listen type='{listen}'/></graphics>")
        domain = instance.driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
        entry = instance.driver.guests.find(domain)
        (graphics,) = instance.driver.live(entry).graphics
        assert isinstance(graphics, VncGraphics)
        assert not graphics.port


def test_a_secure_port_is_refused_without_tls(instance: Instance) -> None:
    with pytest.raises(VirtError, match="Auto allocation of spice TLS port requested but spice TLS is disabled"):
        spice(instance, "autoport='yes' defaultMode='secure'")


def test_a_display_on_a_network_that_is_not_there(instance: Instance) -> None:
    xml = instance.xml(devices="<graphics type='vnc'><listen type='network' network='nonesuch'/></graphics>")
    with pytest.raises(VirtError) as caught:
        instance.driver.domain_create_xml(xml, 0)
    assert caught.value.code == c.VIR_ERR_NO_NETWORK


def test_memory_in_a_file(instance: Instance) -> None:
    xml = instance.xml(more="<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>")
    domain = instance.driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    assert instance.driver.domain_get_state(domain, 0)[0] == c.VIR_DOMAIN_PAUSED


def test_virtual_cpus_that_can_go_again_are_there_at_once(instance: Instance) -> None:
    vcpus = "<vcpu id='0' enabled='yes' hotpluggable='no'/><vcpu id='1' enabled='no' hotpluggable='yes'/>"
    vcpus += "<vcpu id='2' enabled='yes' hotpluggable='yes'/>"
    xml = instance.xml(more=f"<vcpu current='2'>3</vcpu><vcpus>{vcpus}</vcpus>")
    domain = instance.driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    answer = instance.driver.qemu_domain_monitor_command(domain, '{"execute": "query-cpus-fast"}', 0)
    assert [one["cpu-index"] for one in json.loads(answer)["return"]] == [0, 2]


def test_what_is_written_to_a_transient_disk_is_forgotten(instance: Instance) -> None:
    image = f"{instance.root}/g.img"
    xml = instance.xml().replace("dev='hda' bus='ide'/>", "dev='hda' bus='ide'/><transient/>")
    domain = instance.driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    (disk,) = instance.driver.live(instance.driver.guests.find(domain)).disks
    assert disk.source == FileSource(file=f"{image}.TRANSIENT-g", index=1)
    assert disk.backing is not None
    assert disk.backing.source == FileSource(file=image, index=None)
    assert (disk.driver.type, disk.backing.format) == ("qcow2", "raw")
    assert os.path.exists(f"{image}.TRANSIENT-g")
    instance.driver.domain_destroy(domain)
    assert not os.path.exists(f"{image}.TRANSIENT-g")
    Path(f"{image}.TRANSIENT-g").touch()
    with pytest.raises(VirtError, match=r"Overlay file '.*' for transient disk 'hda' already exists"):
        instance.driver.domain_create_xml(xml, 0)
    assert os.path.exists(f"{image}.TRANSIENT-g")
