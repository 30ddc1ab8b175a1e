"""The command line of devices against what libvirt 9.0 makes of the same XML."""

from pathlib import Path

import pytest

from tests.drivers.qemu.commandline import (
    FILE,
    XHCI,
    binary,
    devices_of,
    disk,
    domain_xml,
    interface,
    native,
    options,
    parse,
)
from virtd.drivers.qemu.command import Setup, build, storage
from virtd.drivers.qemu.host.binary import Binary
from virtd.errors import VirtError

__all__ = ["binary"]


BLK = {
    "driver": "virtio-blk-pci",
    "bus": "pci.0",
    "addr": "0x2",
    "drive": "libvirt-1-format",
    "id": "virtio-disk0",
    "bootindex": 1,
}
DISKS = [
    (disk("vda", FILE), BLK),
    (disk("vda", "<driver name='qemu' type='raw' cache='none'/>", FILE), BLK | {"write-cache": "on"}),
    (disk("vda", "<driver name='qemu' type='raw' cache='writethrough'/>", FILE), BLK | {"write-cache": "off"}),
    (
        disk(
            "vda",
            FILE,
            "<shareable/><serial>abc</serial><blockio logical_block_size='512' physical_block_size='4096'/>",
        ),
        BLK
        | {"share-rw": True, "write-cache": "on", "serial": "abc"}
        | {"logical_block_size": 512, "physical_block_size": 4096},
    ),
    (
        disk("vda", "<driver name='qemu' type='raw' error_policy='enospace' rerror_policy='ignore' queues='4'/>", FILE),
        BLK | {"werror": "enospc", "rerror": "ignore", "num-queues": 4},
    ),
    (
        disk(
            "sda",
            FILE,
            "<target dev='sda' bus='scsi' rotation_rate='7200'/><wwn>5000c50015ea71ac</wwn><serial>x</serial>",
        )
        + "<controller type='scsi' model='virtio-scsi'/>",
        {"driver": "scsi-hd", "bus": "scsi0.0", "channel": 0, "scsi-id": 0, "lun": 0, "device_id": "x", "serial": "x"}
        | {"drive": "libvirt-1-format", "id": "scsi0-0-0-0", "bootindex": 1}
        | {"wwn": 5764824127192592812, "rotation_rate": 7200},
    ),
    (
        disk("sda", FILE) + "<controller type='scsi' model='lsilogic'/>",
        {"driver": "scsi-hd", "bus": "scsi0.0", "scsi-id": 0, "device_id": "drive-scsi0-0-0", "bootindex": 1}
        | {"drive": "libvirt-1-format", "id": "scsi0-0-0"},
    ),
    (
        disk("sda", FILE, "<target dev='sda' bus='usb' removable='on'/>") + XHCI,
        {"driver": "usb-storage", "bus": "usb.0", "port": "1", "drive": "libvirt-1-format", "id": "usb-disk0"}
        | {"bootindex": 1, "removable": True},
    ),
    (
        disk("hda", FILE, "<target dev='hda' bus='ide'/><geometry cyls='1' heads='2' secs='3' trans='lba'/>"),
        {"driver": "ide-hd", "bus": "ide.0", "unit": 0, "drive": "libvirt-1-format", "id": "ide0-0-0", "bootindex": 1}
        | {"cyls": 1, "heads": 2, "secs": 3, "bios-chs-trans": "lba"},
    ),
    (disk("hda", device="cdrom"), {"driver": "ide-cd", "bus": "ide.0", "unit": 0, "id": "ide0-0-0"}),
    (
        disk("fda", FILE, device="floppy"),
        {"driver": "floppy", "unit": 0, "drive": "libvirt-1-format", "id": "fdc0-0-0"},
    ),
    (
        disk("vda", "<source type='unix' path='/vu.sock'/>", kind="vhostuser"),
        {
            "driver": "vhost-user-blk-pci",
            "bus": "pci.0",
            "addr": "0x2",
            "chardev": "chr-vu-virtio-disk0",
            "bootindex": 1,
        }
        | {"id": "virtio-disk0"},
    ),
]


@pytest.mark.parametrize(("devices", "expected"), DISKS)
def test_disk_devices(binary: Binary, devices: str, expected: dict[str, object]) -> None:
    top = (
        "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>" if "vhostuser" in devices else ""
    )
    assert expected in devices_of(native(domain_xml(devices, top), binary))


STORAGE = [
    (disk("vda", FILE), {"driver": "file", "filename": "/a.img"}),
    (
        disk("vda", "<driver name='qemu' type='raw' io='native' cache='none'/>", FILE),
        {"driver": "file", "filename": "/a.img", "aio": "native", "cache": {"direct": True, "no-flush": False}},
    ),
    (disk("vda", "<source dev='/dev/sdx'/>", kind="block"), {"driver": "host_device", "filename": "/dev/sdx"}),
    (
        disk("vda", "<source protocol='nbd' name='e'><host name='h'/></source>", kind="network"),
        {"driver": "nbd", "server": {"type": "inet", "host": "h", "port": "10809"}, "export": "e"},
    ),
    (
        disk("vda", "<source protocol='iscsi' name='iqn.x/1'><host name='::1' port='1'/></source>", kind="network"),
        {"driver": "iscsi", "portal": "[::1]:1", "target": "iqn.x", "lun": 1, "transport": "tcp"},
    ),
    (
        disk("vda", "<source protocol='rbd' name='p/i'><host name='h'/><snapshot name='s'/></source>", kind="network"),
        {"driver": "rbd", "pool": "p", "image": "i", "snapshot": "s", "server": [{"host": "h", "port": "0"}]},
    ),
    (
        disk("vda", "<source protocol='gluster' name='v/a/b'><host name='h'/></source>", kind="network"),
        {
            "driver": "gluster",
            "volume": "v",
            "path": "a/b",
            "debug": 4,
            "server": [{"type": "inet", "host": "h", "port": "24007"}],
        },
    ),
    (
        disk(
            "vda",
            "<source protocol='https' name='a/b' query='x=1'><host name='h'/><ssl verify='no'/></source>",
            kind="network",
        ),
        {"driver": "https", "url": "https://h:443/a/b?x=1", "sslverify": False},
    ),
    (
        disk("vda", "<source protocol='ssh' name='/a'><host name='h'/></source>", kind="network"),
        {"driver": "ssh", "path": "/a", "server": {"host": "h", "port": "22"}},
    ),
    (
        disk("vda", "<driver name='qemu' type='fat'/><source dir='/x'/><readonly/>", kind="dir"),
        {"driver": "vvfat", "dir": "/x", "floppy": False, "rw": False},
    ),
]


@pytest.mark.parametrize(("devices", "expected"), STORAGE)
def test_where_images_are(binary: Binary, devices: str, expected: dict[str, object]) -> None:
    found = next(value for name, value in native(domain_xml(devices), binary) if name == "blockdev")
    assert found == expected | {"node-name": "libvirt-1-storage", "auto-read-only": True, "discard": "unmap"}


def test_a_chain_of_images(binary: Binary) -> None:
    devices = disk(
        "vda",
        "<driver name='qemu' type='qcow2' discard='unmap' detect_zeroes='unmap' copy_on_read='on'/>",
        FILE,
        "<backingStore type='file'><format type='qcow2'/><source file='/b'/><backingStore/></backingStore>",
    )
    found = native(domain_xml(devices + disk("vdb", "<source file='/c'/>")), binary)
    nodes = [value for name, value in found if name == "blockdev" and isinstance(value, dict)]
    # The last disk has the lowest numbers; what a node refers to comes before it.
    names = [node["node-name"] for node in nodes]
    assert names == [
        *("libvirt-3-storage", "libvirt-3-format", "libvirt-2-storage", "libvirt-2-format", "libvirt-CoR-vda"),
        *("libvirt-1-storage", "libvirt-1-format"),
    ]
    assert nodes[1]["backing"] is None
    assert nodes[1]["read-only"] is True
    assert nodes[3]["backing"] == "libvirt-3-format"
    assert (nodes[3]["discard"], nodes[3]["detect-zeroes"]) == ("unmap", "unmap")
    assert devices_of(found, "virtio-blk-pci")[0]["drive"] == "libvirt-CoR-vda"


def test_what_an_image_itself_says_lies_below_it(tmp_path: Path) -> None:
    def qcow2(name: str, backing: str) -> None:
        header = b"QFI\xfb" + (3).to_bytes(4, "big") + (104).to_bytes(8, "big") + len(backing).to_bytes(4, "big")
        (tmp_path / name).write_bytes(header.ljust(104, b"\0") + backing.encode())

    qcow2("top", "middle")
    qcow2("middle", str(tmp_path / "bottom"))
    (tmp_path / "bottom").write_bytes(b"raw")
    assert storage.backing_files(str(tmp_path / "top")) == [str(tmp_path / "middle"), str(tmp_path / "bottom")]
    qcow2("circle", "circle")
    assert len(storage.backing_files(str(tmp_path / "circle"))) <= storage._MOST_IMAGES
    qcow2("far", "nbd://host/x")
    assert storage.backing_files(str(tmp_path / "far")) == []
    (tmp_path / "cut").write_bytes(b"QFI\xfb\0")
    assert storage.backing_files(str(tmp_path / "cut")) == []


def test_limits_are_set_before_the_guest_runs(binary: Binary) -> None:
    limits = "<iotune><total_bytes_sec>1000</total_bytes_sec><total_bytes_sec_max>2000</total_bytes_sec_max></iotune>"
    made = build(parse(domain_xml(disk("vda", FILE, limits))), binary, Setup())
    (name, arguments) = made.commands[0]
    assert name == "block_set_io_throttle"
    assert arguments["id"] == "/machine/peripheral/virtio-disk0/virtio-backend"
    assert (arguments["bps"], arguments["bps_max"], arguments["iops"]) == (1000, 2000, 0)


CONTROLLERS = [
    (
        "<controller type='usb' model='qemu-xhci' ports='4'/>",
        "pc",
        {"driver": "qemu-xhci", "p2": 4, "p3": 4, "id": "usb", "bus": "pci.0", "addr": "0x2"},
    ),
    (
        "<controller type='usb' index='0' model='ich9-ehci1'/><controller type='usb' index='0' model='ich9-uhci1'>"
        "<master startport='0'/></controller>",
        "pc",
        {
            "driver": "ich9-usb-uhci1",
            "masterbus": "usb.0",
            "firstport": 0,
            "bus": "pci.0",
            "multifunction": True,
            "addr": "0x2",
        },
    ),
    ("<controller type='sata' index='0'/>", "pc", {"driver": "ahci", "id": "sata0", "bus": "pci.0", "addr": "0x2"}),
    (
        "<controller type='scsi' model='virtio-scsi'><driver queues='4' iommu='on' packed='on'/></controller>",
        "pc",
        {
            "driver": "virtio-scsi-pci",
            "iommu_platform": True,
            "packed": True,
            "id": "scsi0",
            "num_queues": 4,
            "bus": "pci.0",
            "addr": "0x2",
        },
    ),
    (
        "<controller type='pci' index='1' model='pcie-root-port'><target chassis='9' port='0x30' hotplug='off'/>"
        "</controller>",
        "q35",
        {
            "driver": "pcie-root-port",
            "port": 48,
            "chassis": 9,
            "id": "pci.1",
            "hotplug": False,
            "bus": "pcie.0",
            "addr": "0x1",
        },
    ),
    (
        "<controller type='pci' index='1' model='dmi-to-pci-bridge'/>"
        "<controller type='pci' index='2' model='pci-bridge'/>",
        "q35",
        {"driver": "pci-bridge", "chassis_nr": 2, "id": "pci.2", "bus": "pci.1", "addr": "0x0"},
    ),
    (
        "<controller type='virtio-serial' index='0' ports='4' vectors='4'/>",
        "pc",
        {
            "driver": "virtio-serial-pci",
            "id": "virtio-serial0",
            "max_ports": 4,
            "vectors": 4,
            "bus": "pci.0",
            "addr": "0x2",
        },
    ),
]


@pytest.mark.parametrize(("devices", "machine", "expected"), CONTROLLERS)
def test_controllers(binary: Binary, devices: str, machine: str, expected: dict[str, object]) -> None:
    assert expected in devices_of(native(domain_xml(devices, machine=machine), binary))


BACKENDS = [
    ("pty", "", "pty,id=charserial0"),
    ("null", "", "null,id=charserial0"),
    (
        "file",
        "<source path='/f' append='on'/><log file='/l' append='off'/>",
        "file,id=charserial0,path=/f,append=on,logfile=/l,logappend=off",
    ),
    ("dev", "<source path='/dev/ttyS0'/>", "serial,id=charserial0,path=/dev/ttyS0"),
    ("unix", "<source mode='bind' path='/s,t'/>", "socket,id=charserial0,path=/s,,t,server=on,wait=off"),
    (
        "unix",
        "<source mode='connect' path='/s'><reconnect enabled='yes' timeout='5'/></source>",
        "socket,id=charserial0,path=/s,reconnect=5",
    ),
    (
        "tcp",
        "<source mode='bind' host='0.0.0.0' service='22'/><protocol type='telnet'/>",
        "socket,id=charserial0,host=0.0.0.0,port=22,telnet=on,server=on,wait=off",
    ),
    (
        "udp",
        "<source mode='bind' host='0.0.0.0' service='22'/><source mode='connect' host='::1' service='23'/>",
        "udp,id=charserial0,host=::1,port=23,localaddr=0.0.0.0,localport=22",
    ),
]


@pytest.mark.parametrize(("kind", "source", "expected"), BACKENDS)
def test_back_ends(binary: Binary, kind: str, source: str, expected: str) -> None:
    found = native(domain_xml(f"<serial type='{kind}'>{source}</serial>"), binary)
    assert ("chardev", expected) in found
    assert {"driver": "isa-serial", "chardev": "charserial0", "id": "serial0", "index": 0} in devices_of(found)


def test_channels_and_consoles(binary: Binary) -> None:
    devices = (
        "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        "<channel type='unix'><target type='virtio'/></channel>"
        "<console type='pty'><target type='virtio'/></console>"
        "<channel type='pty'><target type='guestfwd' address='10.0.2.1' port='4600'/></channel>"
    )
    found = native(domain_xml(devices), binary)
    sockets = [value for name, value in found if name == "chardev" and str(value).startswith("socket,id=charchannel")]
    assert sockets == [
        "socket,id=charchannel0,path=/channels/org.qemu.guest_agent.0,server=on,wait=off",
        "socket,id=charchannel1,path=/channels/vioser-00-00-02.sock,server=on,wait=off",
    ]
    ports = devices_of(found, "virtserialport", "virtconsole")
    assert ports[0] == {
        "driver": "virtserialport",
        "bus": "virtio-serial0.0",
        "nr": 1,
        "chardev": "charchannel0",
        "id": "channel0",
        "name": "org.qemu.guest_agent.0",
    }
    assert ports[2]["driver"] == "virtconsole"
    assert (
        "netdev",
        {"type": "user", "guestfwd": [{"str": "tcp:10.0.2.1:4600-chardev:charchannel2"}], "id": "channel2"},
    ) in found


NETWORKS = [
    (interface(), {"type": "user", "id": "hostnet0"}),
    (
        interface(
            "<ip family='ipv4' address='172.17.2.0' prefix='24'/><ip family='ipv6' address='2001:db8::' prefix='64'/>"
        ),
        {"type": "user", "net": "172.17.2.0/24", "ipv6-prefix": "2001:db8::", "ipv6-prefixlen": 64, "id": "hostnet0"},
    ),
    (
        interface("<source address='127.0.0.1' port='5558'/>", kind="server"),
        {"type": "socket", "listen": "127.0.0.1:5558", "id": "hostnet0"},
    ),
    (
        interface("<source address='127.0.0.1' port='1'><local address='127.0.0.1' port='2'/></source>", kind="udp"),
        {"type": "socket", "udp": "127.0.0.1:1", "localaddr": "127.0.0.1:2", "id": "hostnet0"},
    ),
]


@pytest.mark.parametrize(("devices", "expected"), NETWORKS)
def test_what_is_behind_a_network_card(binary: Binary, devices: str, expected: dict[str, object]) -> None:
    assert ("netdev", expected) in native(domain_xml(devices), binary)


def test_network_cards(binary: Binary) -> None:
    card = interface(
        "<driver ioeventfd='on' rx_queue_size='256' iommu='on'><host csum='off' tso4='off'/><guest ufo='off'/></driver>"
        "<rom bar='off'/><boot order='1'/>"
    )
    (found,) = devices_of(native(domain_xml(card), binary), "virtio-net-pci")
    assert found == {
        "driver": "virtio-net-pci",
        "iommu_platform": True,
        "ioeventfd": True,
        "csum": False,
        "host_tso4": False,
        "guest_ufo": False,
        "rx_queue_size": 256,
        "netdev": "hostnet0",
        "id": "net0",
        "mac": "52:54:00:00:00:01",
        "bootindex": 1,
        "rombar": 0,
        "bus": "pci.0",
        "addr": "0x2",
    }
    (found,) = devices_of(native(domain_xml(interface(model="e1000e")), binary), "e1000e")
    assert found["netdev"] == "hostnet0"


def test_a_link_that_is_down_is_taken_down_before_the_guest_runs(binary: Binary) -> None:
    made = build(parse(domain_xml(interface("<link state='down'/>"))), binary, Setup())
    assert ("set_link", {"name": "net0", "up": False}) in made.commands


def test_tap_devices_come_as_descriptors(binary: Binary) -> None:
    card = interface("<source bridge='br0'/><driver name='vhost' queues='2'/>", kind="bridge")
    setup = Setup(monitors=[("monitor", 99)], taps={"net0": [70, 71]}, vhosts={"net0": [72, 73]})
    made = build(parse(domain_xml(card)), binary, setup)
    found = options(made)
    assert ("netdev", {"type": "tap", "fds": "70:71", "vhost": True, "vhostfds": "72:73", "id": "hostnet0"}) in found
    assert made.fds == [99, 70, 71, 72, 73]
    assert made.opened == []
    (device,) = devices_of(found, "virtio-net-pci")
    assert (device["mq"], device["vectors"]) == (True, 6)
    with pytest.raises(VirtError, match="interface type 'bridge' is not supported"):
        build(parse(domain_xml(card)), binary, Setup(monitors=[("monitor", 99)]))


GRAPHICS = [
    ("<graphics type='vnc' port='5901' autoport='no'/>", [("vnc", "127.0.0.1:1,audiodev=audio1")]),
    (
        "<graphics type='vnc' port='5901' autoport='no' websocket='5700' listen='::1' keymap='de' "
        "sharePolicy='force-shared'/>",
        [("vnc", "[::1]:1,websocket=5700,share=force-shared,audiodev=audio1"), ("k", "de")],
    ),
    ("<graphics type='vnc' socket='/a,b'/>", [("vnc", "vnc=unix:/a,,b,audiodev=audio1")]),
    (
        "<graphics type='vnc'><listen type='socket'/></graphics>",
        [("vnc", "vnc=unix:/private/vnc.sock,audiodev=audio1")],
    ),
    ("<graphics type='vnc'><listen type='none'/></graphics>", [("vnc", "none,audiodev=audio1")]),
    (
        "<graphics type='spice' port='5930' autoport='no'><image compression='glz'/><mouse mode='client'/><clipboard "
        "copypaste='no'/></graphics>",
        [
            (
                "spice",
                "port=5930,addr=127.0.0.1,agent-mouse=on,disable-ticketing=on,image-compression=glz,disable-copy-paste=on,"
                "seamless-migration=on",
            )
        ],
    ),
    ("", [("display", "none")]),
]


@pytest.mark.parametrize(("devices", "expected"), GRAPHICS)
def test_graphics(binary: Binary, devices: str, expected: list[tuple[str, object]]) -> None:
    found = native(domain_xml(devices), binary)
    assert [one for one in found if one[0] in ("vnc", "spice", "k", "display")] == expected


def test_a_displays_password_is_set_by_command(binary: Binary) -> None:
    made = build(
        parse(domain_xml("<graphics type='vnc' passwd='secret' passwdValidTo='2030-01-01T00:00:00'/>")), binary, Setup()
    )
    assert not any("secret" in word for word in made.argv)
    assert ("set_password", {"protocol": "vnc", "password": "secret"}) in made.commands
    assert ("expire_password", {"protocol": "vnc", "time": "1893456000"}) in made.commands


VIDEOS = [
    ("vga", {"driver": "VGA", "vgamem_mb": 16}),
    ("cirrus", {"driver": "cirrus-vga"}),
    ("vmvga", {"driver": "vmware-svga", "vgamem_mb": 16}),
    ("virtio", {"driver": "virtio-vga", "max_outputs": 1}),
    ("bochs", {"driver": "bochs-display", "vgamem": 16777216}),
    (
        "qxl",
        {
            "driver": "qxl-vga",
            "max_outputs": 1,
            "ram_size": 67108864,
            "vram_size": 67108864,
            "vram64_size_mb": 0,
            "vgamem_mb": 16,
        },
    ),
]


@pytest.mark.parametrize(("model", "expected"), VIDEOS)
def test_video(binary: Binary, model: str, expected: dict[str, object]) -> None:
    found = native(domain_xml(f"<graphics type='vnc'/><video><model type='{model}'/></video>"), binary)
    assert devices_of(found) == [expected | {"id": "video0", "bus": "pci.0", "addr": "0x2"}]


def test_sound(binary: Binary) -> None:
    devices = (
        "<sound model='ich9'><codec type='micro'/><audio id='2'/></sound><sound model='ac97'/>"
        "<audio id='1' type='none'/><audio id='2' type='file' path='/x.wav'><input mixingEngine='yes' "
        "fixedSettings='yes'>"
        "<settings frequency='44100'/></input></audio>"
    )
    found = native(domain_xml(devices), binary)
    settings = {"mixing-engine": True, "fixed-settings": True, "frequency": 44100}
    wav = {"id": "audio2", "driver": "wav", "path": "/x.wav", "in": settings}
    assert ("audiodev", wav) in found
    codec = {"driver": "hda-micro", "id": "sound0-codec0", "bus": "sound0.0", "cad": 0, "audiodev": "audio2"}
    assert codec in devices_of(found)
    assert devices_of(found, "AC97")[0]["audiodev"] == "audio1"


EXTRAS = [
    (
        "<input type='tablet' bus='usb'/>" + XHCI,
        "device",
        {"driver": "usb-tablet", "id": "input0", "bus": "usb.0", "port": "1"},
    ),
    (
        "<input type='keyboard' bus='virtio'/>",
        "device",
        {"driver": "virtio-keyboard-pci", "id": "input0", "bus": "pci.0", "addr": "0x2"},
    ),
    (
        "<memballoon model='virtio' autodeflate='on'/>",
        "device",
        {"driver": "virtio-balloon-pci", "id": "balloon0", "deflate-on-oom": True, "bus": "pci.0", "addr": "0x2"},
    ),
    (
        "<rng model='virtio'><rate bytes='1234'/><backend model='random'>/dev/urandom</backend></rng>",
        "object",
        {"qom-type": "rng-random", "id": "objrng0", "filename": "/dev/urandom"},
    ),
    (
        "<rng model='virtio'><rate bytes='1234'/><backend model='builtin'/></rng>",
        "device",
        {
            "driver": "virtio-rng-pci",
            "rng": "objrng0",
            "id": "rng0",
            "max-bytes": 1234,
            "period": 1000,
            "bus": "pci.0",
            "addr": "0x2",
        },
    ),
    ("<watchdog model='i6300esb' action='dump'/>", "watchdog-action", "pause"),
    (
        "<panic model='isa'><address type='isa' iobase='0x505'/></panic>",
        "device",
        {"driver": "pvpanic", "ioport": 1285},
    ),
    (
        "<shmem name='a'><model type='ivshmem-plain'/><size unit='M'>4</size></shmem>",
        "device",
        {"driver": "ivshmem-plain", "id": "shmem0", "memdev": "shmmem-shmem0", "bus": "pci.0", "addr": "0x2"},
    ),
    (
        "<filesystem type='mount'><source dir='/e'/><target dir='t'/><readonly/></filesystem>",
        "device",
        {"driver": "virtio-9p-pci", "id": "fs0", "fsdev": "fsdev-fs0", "mount_tag": "t", "bus": "pci.0", "addr": "0x2"},
    ),
    (
        "<tpm model='tpm-crb'><backend type='external'><source type='unix' mode='connect' path='/t'/></backend></tpm>",
        "device",
        {"driver": "tpm-crb", "tpmdev": "tpm-tpm0", "id": "tpm0"},
    ),
    ("<hub type='usb'/>" + XHCI, "device", {"driver": "usb-hub", "id": "hub0", "bus": "usb.0", "port": "1"}),
]


@pytest.mark.parametrize(("devices", "option", "expected"), EXTRAS)
def test_extras(binary: Binary, devices: str, option: str, expected: object) -> None:
    assert (option, expected) in native(domain_xml(devices, top="<features><acpi/></features>"), binary)


def test_memory_that_the_balloon_takes_at_the_start(binary: Binary) -> None:
    xml = domain_xml(
        "<memballoon model='virtio'><stats period='5'/></memballoon>", "<currentMemory>32768</currentMemory>"
    )
    commands = build(parse(xml), binary, Setup()).commands
    assert ("balloon", {"value": 32768 * 1024}) in commands
    assert commands[-1][1]["property"] == "guest-stats-polling-interval"


def test_an_iommu(binary: Binary) -> None:
    devices = "<iommu model='intel'><driver intremap='on' caching_mode='on' aw_bits='48'/></iommu>"
    found = native(domain_xml(devices, "<features><ioapic driver='qemu'/></features>", machine="q35"), binary)
    expected = {"driver": "intel-iommu", "id": "iommu0", "intremap": "on", "caching-mode": True, "aw-bits": 48}
    assert devices_of(found)[0] == expected
