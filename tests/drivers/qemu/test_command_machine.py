"""The command line of the machine itself against what libvirt 9.0 makes of the same XML."""

import pytest

from tests.drivers.qemu.commandline import (
    FILE,
    binary,
    devices_of,
    disk,
    domain_xml,
    interface,
    native,
    objects,
    options,
    parse,
)
from virtd.drivers.qemu.command import Setup, build, memory
from virtd.drivers.qemu.host.binary import Binary

__all__ = ["binary"]


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
        "value='KVM Hv'/><stimer state='off'/></hyperv><kvm><hidden state='on'/></kvm><pmu state='off'/>"
        "<apic eoi='on'/></features><clock offset='utc'><timer name='hypervclock' present='yes'/></clock>",
        "qemu64,hv-time=on,kvm-pv-eoi=on,hv-relaxed=on,hv-spinlocks=0x1fff,hv-vendor-id=KVM Hv,kvm=off,pmu=off",
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
def test_memory_backing(
    binary: Binary, monkeypatch: pytest.MonkeyPatch, backing: str, expected: dict[str, object]
) -> None:
    monkeypatch.setattr(memory, "_hugetlbfs", lambda _: "/dev/hugepages")  # few machines where this runs have it
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
    backend = next(one for one in objects(found, "memory-backend") if one["id"] == "memnvdimm1")
    assert backend["size"] == 512 * 1024**2  # modules are multiples of 2 MiB
    assert backend["prealloc"] is True


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
    top = (
        "<iothreads>2</iothreads><iothreadids><iothread id='5' thread_pool_min='1' thread_pool_max='4'/></iothreadids>"
    )
    found = objects(native(domain_xml(top=top), binary), "iothread")
    assert {"qom-type": "iothread", "id": "iothread5", "thread-pool-min": 1, "thread-pool-max": 4} in found
    assert {"qom-type": "iothread", "id": "iothread1"} in found
    assert len(found) == 2


def test_every_monitor_has_its_socket(binary: Binary) -> None:
    setup = Setup(monitors=[("monitor", 70), ("query", 71)])
    found = options(build(parse(domain_xml()), binary, setup))
    assert ("chardev", "socket,id=charmonitor,fd=70,server=on,wait=off") in found
    assert ("mon", "chardev=charquery,id=query,mode=control") in found
