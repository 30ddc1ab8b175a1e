"""Every kind of device that libvirt's QEMU driver plugs into a running guest, and takes away again; libvirt's words for
the others, as libvirtd 9.0.0 said them.

The guest is paused: USB devices, ports of channels, SCSI disks go at once; what is on PCI needs a guest that listens.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.qemu.instance import Instance
from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol.records import Domain

LIVE, CONFIG = c.VIR_DOMAIN_AFFECT_LIVE, c.VIR_DOMAIN_AFFECT_CONFIG
NO_SLOTS = "internal error: No more available PCI slots"
FULL = (
    "<controller type='virtio-serial'/><controller type='scsi' model='virtio-scsi'/>"
    "<controller type='usb' model='qemu-xhci'/>"
)
CELL = "<cell id='0' cpus='0' memory='16' unit='MiB'/>"
MEMORY = f"<maxMemory slots='4' unit='MiB'>512</maxMemory><cpu><numa>{CELL}</numa></cpu>"
GRAPHICS = "<graphics type='vnc' autoport='yes' listen='127.0.0.1' passwd='before'/>"
DIMM = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"
VIRTIO_MEM = (
    "<memory model='virtio-mem'><target><size unit='MiB'>128</size><node>0</node><block unit='KiB'>2048</block>"
    "<requested unit='KiB'>0</requested></target></memory>"
)
# Description ({root} is the instance's directory), what stands of it in the live XML, whether it goes at once.
PLUGGED = [
    ("<rng model='virtio'><backend model='builtin'/></rng>", "<alias name='rng0'/>", False),
    (
        "<rng model='virtio'><backend model='egd' type='unix'><source mode='bind' path='{root}/egd'/></backend></rng>",
        "<source mode='bind' path='{root}/egd'/>",
        False,
    ),
    ("<watchdog model='i6300esb' action='pause'/>", "<alias name='watchdog0'/>", False),
    ("<controller type='scsi' model='virtio-scsi' index='3'/>", "<alias name='scsi3'/>", False),
    ("<serial type='pty'><target type='usb-serial'/></serial>", "<source path='/dev/pts/", True),
    ("<serial type='file'><source path='{root}/s'/><target type='pci-serial'/></serial>", "name='pci-serial'/>", False),
    ("<console type='pty'><target type='virtio'/></console>", "<console type='pty' tty='/dev/pts/", True),
    ("<channel type='unix'><target type='virtio' name='a.b'/></channel>", "/a.b'/>", True),
    ("<channel type='tcp'><source mode='bind' host='127.0.0.1' service='0'/>"
     "<target type='virtio' name='a.c'/></channel>",
     "<alias name='channel0'/>", True),
    ("<channel type='file'><source path='{root}/out/c'/><target type='virtio' name='a.d'/></channel>",
     "<address type='virtio-serial' controller='0' bus='0' port='1'/>", True),
    ("<channel type='udp'><source mode='bind' host='127.0.0.1' service='0'/>"
     "<source mode='connect' host='127.0.0.1' service='9'/><target type='virtio' name='a.e'/></channel>",
     "<alias name='channel0'/>", True),
    ("<channel type='null'><target type='guestfwd' address='10.0.2.1' port='4600'/></channel>", "'guestfwd'", True),
    ("<channel type='qemu-vdagent'><target type='virtio'/></channel>", "<alias name='channel0'/>", True),
    ("<redirdev bus='usb' type='tcp'><source mode='bind' host='127.0.0.1' service='0'/></redirdev>",
     "<alias name='redir0'/>", True),
    ("<shmem name='{name}'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>",
     "<alias name='shmem0'/>", False),
    (DIMM, "<address type='dimm' slot='0' base='0x100000000'/>", False),
    (VIRTIO_MEM, "<current unit='KiB'>0</current>", False),
    ("<input type='tablet' bus='usb'/>", "<alias name='input2'/>", True),
    ("<input type='keyboard' bus='virtio'/>", "<alias name='input2'/>", False),
    ("<disk type='file' device='disk'><source file='{root}/more.img'/><target dev='sdb' bus='usb'/><readonly/></disk>",
     "<alias name='usb-disk1'/>", True),
    ("<disk type='file' device='cdrom'><source file='{root}/more.img'/><target dev='sdc' bus='scsi'/></disk>",
     "<alias name='scsi0-0-0-2'/>", True),
    ("<disk type='file' device='disk'><source file='{root}/more.img'/><target dev='sdj' bus='scsi'/><readonly/>"
     "<address type='drive' controller='2' bus='0' target='0' unit='1'/></disk>", "<alias name='scsi2-0-0-1'/>", True),
]  # fmt: skip
# What a running guest cannot get, or a definition, or a guest that has none of the controllers.
REFUSED = [
    ("<sound model='ich6'/>", LIVE, "Operation not supported: live attach of device 'sound' is not supported"),
    ("<video><model type='virtio'/></video>", LIVE, "live attach of device 'video' is not supported"),
    ("<video><model type='virtio'/></video>", CONFIG, "persistent attach of device 'video' is not supported"),
    ("<tpm model='tpm-crb'><backend type='emulator'/></tpm>", CONFIG, "persistent attach of device 'tpm' is"),
    ("<hub type='usb'/>", LIVE, "live attach of device 'hub' is not supported"),
    ("<panic model='isa'/>", LIVE, "live attach of device 'panic' is not supported"),
    ("<panic model='pvpanic'/>", LIVE, "unsupported configuration: unknown panic model 'pvpanic'"),
    ("<redirfilter><usbdev allow='no'/></redirfilter>", LIVE, "unknown device type 'redirfilter'"),
    ("<controller type='usb' model='qemu-xhci'/>", LIVE, "'usb' controller cannot be hot plugged."),
    ("<controller type='scsi' index='0'/>", LIVE, "operation failed: target scsi:0 already exists"),
    ("<controller type='scsi' index='0'/>", CONFIG, "controller index='0' already exists"),
    ("<watchdog model='ib700'/>", LIVE, "hotplug of watchdog of model ib700 is not supported"),
    ("<serial type='pty'/>", LIVE, "'device_add': Bus 'isa.0' does not support hotplugging"),
    ("<console type='pty'/>", LIVE, "unsupported configuration: unsupported console target type serial"),
    ("<console type='pty'/>", CONFIG, "attaching serial console is not supported"),
    ("<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>", LIVE,
     "chardev 'spicevmc' not supported without spice graphics"),
    ("<input type='mouse' bus='ps2'/>", LIVE, "input device on bus 'ps2' cannot be hot plugged."),
    ("<filesystem type='mount'><source dir='/tmp'/><target dir='t'/></filesystem>", LIVE,
     "only virtiofs filesystems can be hotplugged"),
    ("<memory model='dimm'><target><size unit='MiB'>128</size></target></memory>", LIVE,
     "target NUMA node needs to be specified for memory device"),
    ("<memory model='dimm'><target><size unit='GiB'>1</size><node>0</node></target></memory>", LIVE,
     "Attaching memory device with size '1048576' would exceed domain's maxMemory config size '524288'"),
    ("<disk type='file' device='floppy'><source file='/x'/><target dev='fda' bus='fdc'/></disk>", LIVE,
     "floppy device hotplug isn't supported"),
    ("<interface type='server'><source address='127.0.0.1' port='5559'/></interface>", LIVE,
     "hotplug of interface type of server is not implemented yet"),
]  # fmt: skip


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    made = Instance()
    made.disk("more")
    yield made
    made.close()


@pytest.fixture
def domain(instance: Instance) -> Iterator[Domain]:
    driver = instance.driver
    found = driver.domain_define_xml(instance.xml(more=MEMORY, devices=FULL + GRAPHICS))
    driver.domain_create_with_flags(found, c.VIR_DOMAIN_START_PAUSED)
    yield found
    driver.domain_destroy(found)
    driver.domain_undefine(found)


@pytest.mark.parametrize(("xml", "shown", "goes"), PLUGGED, ids=range(len(PLUGGED)))
def test_devices_come_and_go(instance: Instance, domain: Domain, xml: str, shown: str, goes: bool) -> None:
    driver = instance.driver
    values = {"root": instance.root, "name": Path(instance.root).name}
    xml, shown = xml.format(**values), shown.format(**values)
    before, backends = driver.domain_get_xml_desc(domain, 0), _behind(instance, domain)
    driver.domain_attach_device_flags(domain, xml, LIVE)
    live = driver.domain_get_xml_desc(domain, 0)
    assert live.count(shown) == before.count(shown) + 1
    assert driver.domain_get_xml_desc(domain, c.VIR_DOMAIN_XML_INACTIVE).count(shown) == 0
    if goes:
        new = set(re.findall(r"<alias name='(.*?)'", live)) - set(re.findall(r"<alias name='(.*?)'", before))
        (alias,) = (one for one in new if not re.fullmatch(r"scsi\d", one))
        driver.domain_detach_device_alias(domain, alias, LIVE)
        if "controller='2'" not in xml:  # the controllers that came with it stay
            assert driver.domain_get_xml_desc(domain, 0) == before
        assert _behind(instance, domain) == backends
        driver.domain_attach_device(domain, xml)  # there is nothing left in its way
    Path(f"/dev/shm/{values['name']}").unlink(missing_ok=True)


def _behind(instance: Instance, domain: Domain) -> list[str]:
    """What QEMU has behind devices."""
    asked = ("info chardev", "info network", "info block -n", "info memdev")
    return [instance.driver.qemu_domain_monitor_command(domain, command, 1) for command in asked]


@pytest.mark.parametrize(("xml", "flags", "text"), REFUSED, ids=range(len(REFUSED)))
def test_others_are_refused(instance: Instance, domain: Domain, xml: str, flags: int, text: str) -> None:
    driver = instance.driver
    before = driver.domain_get_xml_desc(domain, c.VIR_DOMAIN_XML_INACTIVE if flags == CONFIG else 0)
    with pytest.raises(VirtError) as caught:
        driver.domain_attach_device_flags(domain, xml, flags)
    assert text in caught.value.message
    assert driver.domain_get_xml_desc(domain, c.VIR_DOMAIN_XML_INACTIVE if flags == CONFIG else 0) == before


def test_what_a_definition_gets_and_loses(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    before = driver.domain_get_xml_desc(domain, c.VIR_DOMAIN_XML_INACTIVE)
    for xml in (
        "<sound model='ich6'/>",
        "<vsock><cid auto='yes'/></vsock>",
        "<serial type='pty'><target port='1'/></serial>",
        "<parallel type='pty'/>",
        DIMM,
        VIRTIO_MEM,
        "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>",
        "<input type='mouse' bus='usb'/>",
        "<filesystem type='mount'><source dir='/tmp'/><target dir='t'/></filesystem>",
    ):
        driver.domain_attach_device_flags(domain, xml, CONFIG)
        assert driver.domain_get_xml_desc(domain, c.VIR_DOMAIN_XML_INACTIVE) != before
        driver.domain_detach_device_flags(domain, xml, CONFIG)
        assert driver.domain_get_xml_desc(domain, c.VIR_DOMAIN_XML_INACTIVE) == before


def test_what_is_not_there_cannot_go(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    for xml, flags, text in (
        ("<watchdog model='i6300esb'/>", LIVE, "watchdog device not present in domain configuration"),
        ("<serial type='file'><source path='/x'/></serial>", LIVE, "chr type 'serial' device not present in domain"),
        ("<redirdev bus='usb' type='tcp'><source mode='bind' host='::' service='1'/></redirdev>", LIVE,
         "Requested operation is not valid: no matching redirdev was not found"),
        ("<shmem name='x'><model type='ivshmem-plain'/></shmem>", LIVE, "model 'ivshmem-plain' shmem device not"),
        ("<input type='mouse' bus='ps2'/>", LIVE, "input device on bus 'ps2' cannot be detached"),
        ("<controller type='usb' index='0'/>", LIVE, "'usb' controller cannot be hot unplugged."),
        ("<controller type='scsi' index='9'/>", LIVE, "device not found: controller scsi:9 not found"),
        ("<controller type='scsi' index='9'/>", CONFIG, "device not found: device not present in domain configuration"),
        ("<hostdev mode='subsystem' type='usb'><source><address bus='14' device='3'/></source></hostdev>", LIVE,
         "device not found: host usb device 014.003 not found"),
        ("<disk type='file'><target dev='vdz' bus='virtio'/><source file='/x'/></disk>", LIVE, "disk vdz not found"),
        ("<video><model type='virtio'/></video>", CONFIG, "persistent detach of device 'video' is not supported"),
    ):  # fmt: skip
        with pytest.raises(VirtError) as caught:
            driver.domain_detach_device_flags(domain, xml, flags)
        assert text in caught.value.message


def test_what_can_be_changed(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    driver.domain_attach_device(domain, VIRTIO_MEM)
    driver.domain_update_device_flags(
        domain, VIRTIO_MEM.replace("<requested unit='KiB'>0", "<requested unit='KiB'>4096"), LIVE
    )
    assert "<requested unit='KiB'>4096</requested>" in driver.domain_get_xml_desc(domain, 0)
    path = '{"execute":"qom-get","arguments":{"path":"/machine/peripheral/virtiomem0","property":"requested-size"}}'
    assert "4194304" in driver.qemu_domain_monitor_command(domain, path, 0)
    driver.domain_update_device_flags(domain, GRAPHICS.replace("before", "secret"), LIVE)
    assert "passwd='secret'" in driver.domain_get_xml_desc(domain, c.VIR_DOMAIN_XML_SECURE)
    for xml, flags, text in (
        (DIMM, LIVE, "unsupported configuration: memory '(null)' not found"),
        (VIRTIO_MEM.replace("128", "64"), LIVE, "memory '(null)' not found"),
        (
            "<graphics type='spice' autoport='yes'/>",
            LIVE,
            "cannot find existing graphics device to modify of type 'spice'",
        ),
        (
            "<graphics type='spice' autoport='yes'/>",
            CONFIG,
            "cannot find existing graphics type 'spice' device to modify",
        ),
        (GRAPHICS.replace("autoport='yes'", "port='5999'"), LIVE, "cannot change port settings on vnc graphics"),
        (GRAPHICS.replace("127.0.0.1", "0.0.0.0"), LIVE, "cannot change listen address setting on 'vnc' graphics"),
        ("<graphics type='vnc' socket='/x'/>", LIVE, "cannot change the type of listen address on 'vnc' graphics"),
        ("<watchdog model='i6300esb'/>", LIVE, "unsupported configuration: live update of device 'watchdog' is not"),
        ("<serial type='pty'/>", LIVE, "live update of device 'chr' is not supported"),
        ("<serial type='pty'/>", CONFIG, "Operation not supported: persistent update of device 'chr' is not supported"),
    ):
        with pytest.raises(VirtError) as caught:
            driver.domain_update_device_flags(domain, xml, flags)
        assert text in caught.value.message


def test_a_guest_without_controllers(instance: Instance) -> None:
    """What would need one more, which cannot come while the guest runs, is refused; SCSI controllers come."""
    driver = instance.driver
    xml = instance.xml("q").replace("<type>", "<type machine='q35'>").replace("bus='ide'", "bus='sata'")
    domain = driver.domain_create_xml(xml.replace("hda", "sda"), c.VIR_DOMAIN_START_PAUSED)
    before = driver.domain_get_xml_desc(domain, 0)
    for device, text in (
        (
            "<channel type='pty'><target type='virtio' name='a.b'/></channel>",
            "no virtio-serial controllers are available",
        ),
        ("<interface type='user'><model type='e1000'/></interface>", NO_SLOTS),
        ("<watchdog model='i6300esb'/>", NO_SLOTS),
        ("<shmem name='s'><model type='ivshmem-plain'/></shmem>", NO_SLOTS),
    ):
        with pytest.raises(VirtError) as caught:
            driver.domain_attach_device(domain, device)
        assert text in caught.value.message
    assert driver.domain_get_xml_desc(domain, 0) == before
    count = next(number for number in range(8) if not _gets_another(instance, domain))
    assert count >= 1
    driver.domain_destroy(domain)


def _gets_another(instance: Instance, domain: Domain) -> bool:
    """Give a guest one more device on PCI; tells whether there was room for it."""
    try:
        instance.driver.domain_attach_device(domain, "<rng model='virtio'><backend model='builtin'/></rng>")
    except VirtError as error:
        if error.message != NO_SLOTS:
            raise
        return False
    return True
