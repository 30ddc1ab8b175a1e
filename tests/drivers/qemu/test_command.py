"""The command line against what libvirt 9.0 makes of the same XML: subject by subject."""

import ast
import importlib
import os
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import virtd.conf.domain
from tests.drivers.qemu.commandline import binary, domain_xml, native, options, parse
from virtd import constants as c
from virtd.conf.xml.model import Model
from virtd.drivers.qemu import command
from virtd.drivers.qemu.binary import Binary
from virtd.drivers.qemu.command import Setup, build, refused, storage
from virtd.errors import VirtError

__all__ = ["binary"]

FILE = "<source file='/a.img'/>"
XHCI = "<controller type='usb' model='qemu-xhci'/>"


def disk(target: str, *inner: str, device: str = "disk", kind: str = "file", attributes: str = "") -> str:
    """The XML of a disk."""
    bus = {"vd": "virtio", "hd": "ide", "fd": "fdc"}.get(target[:2], "scsi")
    given = "".join(inner)
    parts = given if "<target" in given else f"{given}<target dev='{target}' bus='{bus}'/>"
    return f"<disk type='{kind}' device='{device}' {attributes}>{parts}</disk>"


def interface(*inner: str, kind: str = "user", model: str = "virtio") -> str:
    """The XML of a network card."""
    given = "".join(inner)
    mac = "<mac address='52:54:00:00:00:01'/>"
    return f"<interface type='{kind}'>{mac}<model type='{model}'/>{given}</interface>"


# (what the XML says, the options of one kind that come of it; the kind is the first word)
MACHINES = [
    ("", "pc-i440fx-7.2,usb=off,dump-guest-core=off,memory-backend=pc.ram"),
    (
        "<features><acpi/><ioapic driver='qemu'/><smm state='on'/><vmport state='off'/></features>",
        "pc-i440fx-7.2,usb=off,vmport=off,smm=on,kernel_irqchip=split,dump-guest-core=off,memory-backend=pc.ram",
    ),
    (
        "<memoryBacking><nosharepages/></memoryBacking>",
        "pc-i440fx-7.2,usb=off,dump-guest-core=off,mem-merge=off,memory-backend=pc.ram",
    ),
    (
        "<vcpu>2</vcpu><cpu><numa><cell id='0' cpus='0-1' memory='65536'/></numa></cpu>",
        "pc-i440fx-7.2,usb=off,dump-guest-core=off",
    ),
]


@pytest.mark.parametrize(("top", "expected"), MACHINES)
def test_machine(binary: Binary, top: str, expected: str) -> None:
    assert ("machine", expected) in native(domain_xml(top=top), binary)


CPUS = [
    ("", "qemu64"),
    ("<cpu mode='maximum'/>", "max"),
    ("<cpu mode='maximum' migratable='off'/>", "max,migratable=off"),
    ("<cpu mode='maximum'><cache mode='passthrough'/></cpu>", "max,host-cache-info=on,l3-cache=off"),
    ("<cpu mode='maximum'><maxphysaddr mode='emulate' bits='42'/></cpu>", "max,phys-bits=42"),
    (
        "<cpu mode='custom'><model vendor_id='KVMKVMKVMKVM'>qemu64</model><feature policy='optional' name='vmx'/>"
        "<feature policy='force' name='lahf_lm'/><feature policy='forbid' name='pclmuldq'/></cpu>",
        "qemu64,vendor=KVMKVMKVMKVM,vmx=off,lahf-lm=on,pclmulqdq=off",
    ),
    (
        "<features><hyperv><relaxed state='on'/><spinlocks state='on' retries='8191'/><vendor_id state='on' "
        "value='KVM, Hv'/><stimer state='off'/></hyperv><kvm><hidden state='on'/></kvm><pmu state='off'/>"
        "<apic eoi='on'/></features><clock offset='utc'><timer name='hypervclock' present='yes'/></clock>",
        "qemu64,hv-time=on,kvm-pv-eoi=on,hv-relaxed=on,hv-spinlocks=0x1fff,hv-vendor-id=KVM,, Hv,kvm=off,pmu=off",
    ),
]


@pytest.mark.parametrize(("top", "expected"), CPUS)
def test_cpu(binary: Binary, top: str, expected: str) -> None:
    assert ("cpu", expected) in native(domain_xml(top=top), binary)


SMP = [
    ("<vcpu>3</vcpu>", "3,sockets=3,cores=1,threads=1"),
    ("<vcpu current='1'>4</vcpu>", "1,maxcpus=4,sockets=4,cores=1,threads=1"),
    (
        "<vcpu>6</vcpu><cpu><topology sockets='1' cores='2' threads='3'/></cpu>",
        "6,sockets=1,dies=1,cores=2,threads=3",
    ),
]


@pytest.mark.parametrize(("top", "expected"), SMP)
def test_smp(binary: Binary, top: str, expected: str) -> None:
    assert ("smp", expected) in native(domain_xml(top=top), binary)


CLOCKS = [
    ("<clock offset='localtime'/>", [("rtc", "base=localtime")]),
    ("<clock offset='absolute' start='1000'/>", [("rtc", "base=1970-01-01T00:16:40")]),
    (
        "<clock offset='utc'><timer name='rtc' track='guest' tickpolicy='catchup'/><timer name='pit' "
        "tickpolicy='delay'/><timer name='hpet' present='no'/></clock>",
        [
            ("rtc", "base=utc,clock=vm,driftfix=slew"),
            ("global", "kvm-pit.lost_tick_policy=delay"),
            ("no-hpet", None),
        ],
    ),
]


@pytest.mark.parametrize(("top", "expected"), CLOCKS)
def test_clock(binary: Binary, top: str, expected: list[tuple[str, object]]) -> None:
    found = native(domain_xml(top=top), binary)
    assert [option for option in found if option[0] in ("rtc", "global", "no-hpet")] == expected


def test_a_clock_of_another_zone_is_a_matter_of_the_environment(binary: Binary) -> None:
    config = parse(domain_xml(top="<clock offset='timezone' timezone='Europe/Berlin'/>"))
    assert build(config, binary, Setup()).environment == {"TZ": "Europe/Berlin"}


def test_power_management(binary: Binary) -> None:
    top = "<pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='yes'/></pm>"
    assert ("global", "PIIX4_PM.disable_s3=1") in native(domain_xml(top=top), binary)
    found = native(domain_xml(top=f"<features><acpi/></features>{top}", machine="q35"), binary)
    assert ("global", "ICH9-LPC.disable_s4=0") in found
    assert ("no-acpi", None) not in found
    assert ("no-acpi", None) in native(domain_xml(), binary)


MEMORY = [
    ("<source type='memfd'/><access mode='shared'/>", {"qom-type": "memory-backend-memfd", "share": True}),
    ("<access mode='shared'/>", {"qom-type": "memory-backend-file", "mem-path": "/memory/pc.ram", "share": True}),
    ("<source type='file'/>", {"qom-type": "memory-backend-file", "mem-path": "/memory/pc.ram"}),
    (
        "<source type='memfd'/><allocation mode='immediate' threads='4'/>",
        {"qom-type": "memory-backend-memfd", "prealloc": True, "prealloc-threads": 4},
    ),
    (
        "<hugepages><page size='2048' unit='KiB'/></hugepages><source type='memfd'/>",
        {"qom-type": "memory-backend-memfd", "hugetlb": True, "hugetlbsize": 2097152, "prealloc": True},
    ),
]


@pytest.mark.parametrize(("backing", "expected"), MEMORY)
def test_memory_backing(binary: Binary, backing: str, expected: dict[str, object]) -> None:
    (found,) = objects(native(domain_xml(top=f"<memoryBacking>{backing}</memoryBacking>"), binary), "memory-backend")
    common = {"id": "pc.ram", "size": 67108864, "x-use-canonical-path-for-ramblock-id": False}
    assert found == expected | common


def test_numa_cells(binary: Binary) -> None:
    top = (
        "<vcpu>4</vcpu><cpu><numa><cell id='0' cpus='0' memory='65536'/><cell id='1' cpus='2-3' memory='65536' "
        "memAccess='shared'><distances><sibling id='0' value='21'/></distances></cell></numa></cpu>"
        "<numatune><memnode cellid='0' mode='preferred' nodeset='0'/></numatune>"
    )
    found = native(domain_xml(top=top), binary)
    nodes = [value for name, value in found if name == "numa"]
    assert nodes[:2] == ["node,nodeid=0,cpus=0-1,memdev=ram-node0", "node,nodeid=1,cpus=2-3,memdev=ram-node1"]
    assert "dist,src=0,dst=1,val=21" in nodes
    first, second = objects(found, "memory-backend")
    assert first["host-nodes"] == [0]
    assert first["policy"] == "preferred"
    assert second == {
        "qom-type": "memory-backend-file",
        "id": "ram-node1",
        "mem-path": "/memory/ram-node1",
        "share": True,
        "size": 67108864,
    }
    # The oldest machine types know no memory objects for their cells.
    old = native(
        domain_xml(top=top.partition("<numatune")[0].replace("memAccess='shared'", ""), machine="pc-i440fx-2.5"), binary
    )
    assert ("numa", "node,nodeid=1,cpus=2-3,mem=64") in old


def test_memory_that_is_plugged_in(binary: Binary) -> None:
    cell = "<cell id='0' cpus='0-1' memory='65536'/>"
    top = f"<maxMemory slots='4' unit='KiB'>1048576</maxMemory><cpu><numa>{cell}</numa></cpu>"
    devices = (
        "<memory model='dimm'><target><size unit='KiB'>131072</size><node>0</node></target></memory>"
        "<memory model='nvdimm' access='shared'><source><path>/nvdimm</path></source><target>"
        "<size unit='KiB'>523264</size><node>0</node><label><size unit='KiB'>128</size></label></target></memory>"
    )
    found = native(domain_xml(devices, top), binary)
    assert ("m", "size=65536k,slots=4,maxmem=1048576k") in found
    assert ("device", {"driver": "pc-dimm", "node": 0, "memdev": "memdimm0", "id": "dimm0", "slot": 0}) in found
    nvdimm = next(value for value in devices_of(found) if value["driver"] == "nvdimm")
    assert nvdimm["label-size"] == 131072
    backend = next(one for one in objects(found, "memory-backend") if one["id"] == "memnvdimm0")
    assert backend["size"] == 512 * 1024**2  # modules are multiples of 2 MiB
    assert backend["prealloc"] is True


def objects(found: list[tuple[str, object]], kind: str) -> list[dict[str, object]]:
    """The objects whose type begins so."""
    tables = (value for name, value in found if name == "object" and isinstance(value, dict))
    return [table for table in tables if table["qom-type"].startswith(kind)]


def devices_of(found: list[tuple[str, object]], *drivers: str) -> list[dict[str, object]]:
    """The devices, of some kinds or all."""
    tables = (value for name, value in found if name == "device" and isinstance(value, dict))
    return [table for table in tables if not drivers or table["driver"] in drivers]


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
        {"driver": "rbd", "pool": "p", "image": "i", "snapshot": "s", "server": [{"host": "h", "port": "6789"}]},
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
    assert arguments["id"] == "virtio-disk0"
    assert (arguments["bps"], arguments["bps_max"], arguments["iops"]) == (1000, 2000, 0)


def test_boot_order(binary: Binary) -> None:
    boot = "<boot dev='network'/><boot dev='cdrom'/><boot dev='hd'/>"
    devices = disk("vda", FILE) + disk("vdb", FILE) + disk("hdc", FILE, device="cdrom") + interface() + interface()
    found = native(domain_xml(devices, os_xml=boot), binary)
    order = {
        str(one["id"]): one.get("bootindex") for one in devices_of(found, "virtio-blk-pci", "ide-cd", "virtio-net-pci")
    }
    assert order == {"virtio-disk0": 3, "virtio-disk1": None, "ide0-1-0": 2, "net0": 1, "net1": None}
    own = disk("vda", FILE, "<boot order='2'/>") + interface("<boot order='1'/>")
    order = {
        str(one["id"]): one.get("bootindex")
        for one in devices_of(native(domain_xml(own), binary))
        if "bootindex" in one
    }
    assert order == {"virtio-disk0": 2, "net0": 1}


def test_booting_from_a_floppy(binary: Binary) -> None:
    devices = disk("fda", FILE, "<boot order='1'/>", device="floppy")
    assert ("global", "isa-fdc.bootindexA=1") in native(domain_xml(devices), binary)
    assert ("device", {"driver": "isa-fdc", "bootindexA": 1}) in native(domain_xml(devices, machine="q35"), binary)


def test_a_kernel_and_what_goes_with_it(binary: Binary) -> None:
    config = parse(domain_xml(os_xml="<kernel>/k</kernel><initrd>/i</initrd><cmdline>a=b, c</cmdline>"))
    made = build(config, binary, Setup())
    found = options(made)
    assert [one for one in found if one[0] in ("kernel", "initrd", "append")] == [
        ("kernel", "/k"),
        ("initrd", "/i"),
        ("append", "a=b, c"),
    ]
    assert ("/k", False) in made.files
    assert ("/i", False) in made.files


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
        "<audio id='1' type='none'/><audio id='2' type='file' path='/x.wav'><input mixingEngine='yes'>"
        "<settings frequency='44100'/></input></audio>"
    )
    found = native(domain_xml(devices), binary)
    wav = {"id": "audio2", "driver": "wav", "path": "/x.wav", "in": {"mixing-engine": True, "frequency": 44100}}
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


def test_smbios_and_firmware_blobs(binary: Binary) -> None:
    top = (
        "<sysinfo type='smbios'><bios><entry name='version'>1,2</entry></bios><oemStrings><entry>a,b</entry>"
        "</oemStrings></sysinfo><sysinfo type='fwcfg'><entry name='opt/a'>text</entry></sysinfo>"
    )
    found = native(domain_xml(top=top, os_xml="<smbios mode='sysinfo'/>"), binary)
    assert ("smbios", "type=0,version=1,,2") in found
    assert ("smbios", "type=11,value=a,,b") in found
    assert ("fw_cfg", "name=opt/a,string=text") in found


def test_arguments_and_variables_of_ones_own(binary: Binary) -> None:
    inner = "<qemu:arg value='-unknown'/><qemu:arg value='-x'/><qemu:env name='A' value='b'/>"
    own = f"<qemu:commandline>{inner}</qemu:commandline>"
    made = build(parse(domain_xml(top=own)), binary, Setup())
    at = made.argv.index("-unknown")
    assert made.argv[at + 1] == "-x"
    assert made.environment["A"] == "b"


def test_properties_of_devices_that_are_overridden(binary: Binary) -> None:
    top = (
        "<qemu:override><qemu:device alias='video0'><qemu:frontend><qemu:property name='a' type='unsigned' value='3'/>"
        "<qemu:property name='b' type='bool' value='true'/><qemu:property name='vgamem_mb' type='remove'/>"
        "</qemu:frontend></qemu:device></qemu:override><qemu:deprecation behavior='reject'/>"
    )
    devices = "<graphics type='vnc'/><video><model type='vga'/></video>"
    found = native(domain_xml(devices, top), binary)
    assert {"driver": "VGA", "id": "video0", "bus": "pci.0", "addr": "0x2", "a": 3, "b": True} in devices_of(found)
    assert ("compat", {"deprecated-output": "hide", "deprecated-input": "reject"}) in found


def test_io_threads(binary: Binary) -> None:
    top = "<iothreads>2</iothreads><iothreadids><iothread id='5' thread_pool_min='1'/></iothreadids>"
    found = objects(native(domain_xml(top=top), binary), "iothread")
    assert {"qom-type": "iothread", "id": "iothread5", "thread-pool-min": 1} in found
    assert {"qom-type": "iothread", "id": "iothread1"} in found
    assert len(found) == 2


def test_every_monitor_has_its_socket(binary: Binary) -> None:
    setup = Setup(monitors=[("monitor", 70), ("query", 71)])
    found = options(build(parse(domain_xml()), binary, setup))
    assert ("chardev", "socket,id=charmonitor,fd=70,server=on,wait=off") in found
    assert ("mon", "chardev=charquery,id=query,mode=control") in found


REFUSED = [
    ("", "<cputune><shares>2048</shares></cputune>", "<cputune> is not supported"),
    ("", "<memtune><hard_limit unit='KiB'>1</hard_limit></memtune>", "<memtune> is not supported"),
    ("", "<cpu mode='host-passthrough'/>", "CPU mode 'host-passthrough' for x86_64 qemu domain on x86_64 host"),
    (
        "<hostdev mode='subsystem' type='pci'><source><address bus='1'/></source></hostdev>",
        "",
        "hostdev subsys type 'pci'",
    ),
    ("<graphics type='rdp'/>", "", "rdp graphics are not supported with this QEMU"),
    (
        "<channel type='spicevmc'><target type='virtio'/></channel>",
        "",
        "chardev 'spicevmc' not supported without spice graphics",
    ),
    (disk("vda", FILE, device="cdrom"), "", "disk type of 'vda' does not support ejectable media"),
    (
        disk("vda", "<driver name='qemu' type='iso'/>", FILE),
        "",
        "storage format 'iso' is not directly supported by QEMU",
    ),
    (disk("vda", "<source protocol='tftp' name='a'><host name='h'/></source>", kind="network"), "", "'tftp' protocol"),
    (interface(model="nonesuch"), "", "network card model 'nonesuch'"),
    (interface("<driver queues='2'/>"), "", "Multiqueue network is not supported for: user"),
    (interface("<bandwidth><inbound average='1000'/></bandwidth>"), "", "<bandwidth> is not supported"),
    ("<watchdog model='diag288'/>", "", "watchdog"),
    ("<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>", "", "TPM backend type 'emulator'"),
]


@pytest.mark.parametrize(("devices", "top", "text"), REFUSED)
def test_what_cannot_be_had_is_refused_by_name(binary: Binary, devices: str, top: str, text: str) -> None:
    with pytest.raises(VirtError, match=re.escape(text)) as caught:
        build(parse(domain_xml(devices, top)), binary, Setup(monitors=[("monitor", 99)]))
    assert caught.value.code == c.VIR_ERR_CONFIG_UNSUPPORTED


def test_nothing_is_left_open_when_something_is_refused(binary: Binary, tmp_path: Path) -> None:
    tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    devices = f"<serial type='file'><source path='{tmp_path}/log'/></serial>{tpm}"
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(VirtError):
        build(parse(domain_xml(devices)), binary, Setup(monitors=[("monitor", 99)]))
    assert len(os.listdir("/proc/self/fd")) == before


def models() -> Iterator[type[Model]]:
    """All classes of the domain's model."""
    for module in pkgutil.iter_modules(virtd.conf.domain.__path__):
        importlib.import_module(f"virtd.conf.domain.{module.name}")
    waiting = list(Model.__subclasses__())
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if model.__module__.startswith("virtd.conf.domain"):
            yield model


def test_every_declaration_is_carried_out_or_refused_or_known_to_be_inert() -> None:
    """Nothing that a guest's XML can say is dropped in silence."""
    named: set[str] = set()
    for path in Path(command.__file__).parent.glob("*.py"):
        if path.name == "refused.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                named.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                named.add(node.value)
    missing = []
    for model in models():
        lists = (refused.REFUSED, refused.INERT)
        known = {name for base in model.__mro__ for table in lists for name in table.get(base.__name__, ())}
        if model.__name__ not in refused.BELOW:
            missing += [f"{model.__name__}.{name}" for name in model.fields if name not in named | known]
    assert missing == []
