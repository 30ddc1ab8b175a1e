"""What libvirt 9.0 says to QEMU 7.2 beyond the obvious: each of these was seen in a real libvirtd's command lines."""

import dataclasses

import pytest

from tests.drivers.qemu.commandline import binary, disk, domain_xml, native, objects, options, parse
from virtd import constants as c
from virtd.conf.domain.domain import Sev
from virtd.drivers.qemu.command import Setup, build
from virtd.drivers.qemu.host.binary import Binary
from virtd.errors import VirtError

__all__ = ["binary"]

QCOW2 = "<driver name='qemu' type='qcow2'/>"
SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/><allocation mode='immediate' threads='2'/>"
CELL = "<cpu><numa><cell id='0' cpus='0-1' memory='65536'/></numa></cpu><maxMemory slots='1'>1048576</maxMemory>"
ODD = "<cell id='0' cpus='0' memory='32769'/><cell id='1' cpus='1' memory='32767'/>"
COOKIES = "<cookies><cookie name='a'>b</cookie><cookie name='c'>d</cookie></cookies>"
SLICE = "<slices><slice type='storage' offset='512' size='1024'/></slices>"
BELOW = "<backingStore type='file'><format type='raw'/><source file='/b'/><backingStore/></backingStore>"

# XML of devices, XML above them, kind of option, properties that one such option has (None: it must not have it).
DETAILS: list[tuple[str, str, str, dict[str, object]]] = [
    (disk("vda", "<source file='/a'/><serial>a b</serial>"), "", "device", {"serial": "a\\ b"}),
    (disk("vda", "<driver type='vhd'/><source file='/a'/>"), "", "blockdev", {"driver": "vhdx"}),
    (disk("fda", "<driver cache='none'/><source file='/a'/>", device="floppy"), "", "device", {"write-cache": "on"}),
    (
        disk("vda", "<driver type='qcow2' discard='unmap'/><source file='/a'/>", BELOW),
        "",
        "blockdev",
        {"node-name": "libvirt-2-format", "discard": "unmap"},
    ),
    (
        disk("vda", QCOW2, f"<source file='/a'>{SLICE}</source>"),
        "",
        "blockdev",
        {"node-name": "libvirt-1-slice-sto", "driver": "raw", "offset": 512, "size": 1024},
    ),
    (
        disk("vda", QCOW2, f"<source file='/a'>{SLICE}</source>"),
        "",
        "blockdev",
        {"node-name": "libvirt-1-format", "file": "libvirt-1-slice-sto", "offset": None},
    ),
    (
        disk("vda", f"<source protocol='http' name='a b/é'><host name='h'/>{COOKIES}</source>", kind="network"),
        "",
        "blockdev",
        {"url": "http://h:80/a%20b/%C3%A9", "cookie-secret": "libvirt-1-storage-httpcookie-secret0"},
    ),
    (
        disk("vda", "<source protocol='nbd' name='e' tls='yes'><host name='h'/></source>", kind="network"),
        "",
        "object",
        {"qom-type": "tls-creds-x509", "dir": "/etc/pki/qemu", "endpoint": "client", "verify-peer": True},
    ),
    (
        "<controller type='scsi' model='am53c974'/>" + disk("sda", "<source file='/a'/>"),
        "",
        "device",
        {"driver": "scsi-hd", "scsi-id": 0, "lun": None},
    ),
    (
        "<serial type='tcp'><source mode='bind' host='h' service='1' tls='yes'/></serial>",
        "",
        "object",
        {"endpoint": "server"},
    ),
    (
        "<memory model='dimm'><target><size unit='MiB'>64</size><node>0</node></target>"
        "<address type='dimm' slot='0' base='0x100000000'/></memory>",
        CELL,
        "device",
        {"id": "dimm0", "memdev": "memdimm0"},
    ),
    (
        "<memory model='virtio-mem'><target><size unit='MiB'>64</size><node>0</node><block unit='MiB'>2</block>"
        "<requested>0</requested></target></memory>",
        f"{CELL}{SHARED}</memoryBacking>",
        "device",
        {"driver": "virtio-mem-pci", "prealloc": True, "requested-size": None},
    ),
    ("", f"<cpu><numa>{ODD}</numa></cpu>", "m", {"": "65"}),
    (
        "",
        "<clock offset='utc'><timer name='pit' present='yes'/></clock>",
        "global",
        {"": "kvm-pit.lost_tick_policy=delay"},
    ),
    (
        "",
        "<sysinfo type='smbios'><baseBoard><entry name='asset'>x</entry></baseBoard></sysinfo>",
        "smbios",
        {"": "type=2,manufacturer=,asset=x"},
    ),
    (
        "<filesystem accessmode='mapped' fmode='777'><source dir='/s'/><target dir='t'/></filesystem>",
        "",
        "fsdev",
        {"": "local,security_model=mapped,fmode=0777,id=fsdev-fs0,path=/s"},
    ),
    ("<graphics type='dbus' p2p='yes'/>", "", "display", {"": "dbus,p2p=on"}),
]


@pytest.mark.parametrize(("devices", "top", "option", "expected"), DETAILS)
def test_what_libvirt_says(binary: Binary, devices: str, top: str, option: str, expected: dict[str, object]) -> None:
    system = "<smbios mode='sysinfo'/>" if "smbios" in top else ""
    features = "<features><acpi/></features>" if "<maxMemory" in top else ""
    xml = domain_xml(devices, features + top, os_xml=system)
    values = [value for name, value in native(xml, binary) if name == option]
    if "" in expected:
        assert expected[""] in values
    else:
        tables = [value for value in values if isinstance(value, dict)]
        assert any(all(one.get(name) == value for name, value in expected.items()) for one in tables)


def test_a_tpm_that_the_host_does_not_have(binary: Binary) -> None:
    xml = domain_xml("<tpm><backend type='passthrough'><device path='/dev/nonesuch'/></backend></tpm>")
    with pytest.raises(VirtError, match="Could not open TPM device /dev/nonesuch: No such file") as caught:
        native(xml, binary)
    assert caught.value.code == c.VIR_ERR_SYSTEM_ERROR


@pytest.mark.parametrize("kind", ["block", "network"])
def test_variables_of_a_firmware_that_are_no_file(binary: Binary, kind: str) -> None:
    sources = {
        "block": ("<source dev='/dev/x'/>", {"driver": "host_device", "filename": "/dev/x"}),
        "network": (
            "<source protocol='iscsi' name='iqn.a/1'><host name='h'/></source>",
            {"driver": "iscsi", "portal": "h:3260", "lun": 1},
        ),
    }
    source, expected = sources[kind]
    loader = f"<loader type='pflash' readonly='yes'>/x</loader><nvram type='{kind}'>{source}</nvram>"
    found = native(domain_xml(top="<features><acpi/></features>", os_xml=loader), binary)
    tables = [value for name, value in found if name == "blockdev" and isinstance(value, dict)]
    (storage,) = (one for one in tables if one["node-name"] == "libvirt-pflash1-storage")
    assert expected.items() <= storage.items()
    assert "pflash1=libvirt-pflash1-format" in str(dict(found)["machine"])


SERVERS: list[tuple[str, dict[str, object]]] = [
    ("protocol='nfs' name='/p'><host name='h'/><identity user='+10' group='20'/>", {"user": 10, "group": 20}),
    ("protocol='nfs' name='/p'><host name='h'/><identity user='root'/>", {"user": 0, "group": None}),
    ("protocol='nbd' name='e' tls='yes' tlsHostname='t'><host name='h'/>", {"tls-hostname": "t"}),
    ("protocol='rbd' name='a/b'><host name='h'/>", {"server": [{"host": "h", "port": "0"}]}),
]


@pytest.mark.parametrize(("source", "expected"), SERVERS)
def test_servers(binary: Binary, source: str, expected: dict[str, object]) -> None:
    found = native(domain_xml(disk("vda", f"<source {source}</source>", kind="network")), binary)
    tables = [value for name, value in found if name == "blockdev" and isinstance(value, dict)]
    (storage,) = (one for one in tables if one["node-name"] == "libvirt-1-storage")
    assert {name: storage.get(name) for name in expected} == expected


def test_encrypted_memory(binary: Binary) -> None:
    """No host at hand has it: what QEMU would say of one is made up."""
    said: dict[str, object] = {"cbitpos": 51, "reduced-phys-bits": 1}
    host = dataclasses.replace(binary, sev=said, types=binary.types | {"sev-guest"})
    config = parse(domain_xml(machine="q35"))
    config.launch_security = Sev(kernel_hashes=True, reduced_bits=5, policy=3, dh_cert="abc")
    found = options(build(config, host, Setup(private="/private")))
    assert objects(found, "sev-guest") == [
        {
            "qom-type": "sev-guest",
            "id": "lsec0",
            "cbitpos": 51,
            "policy": 3,
            "reduced-phys-bits": 5,
            "dh-cert-file": "/private/dh_cert.base64",
            "kernel-hashes": True,
        }
    ]
    assert "confidential-guest-support=lsec0" in str(dict(found)["machine"])
    with pytest.raises(VirtError, match="SEV launch security is not supported with this QEMU binary"):
        build(config, dataclasses.replace(host, sev=None), Setup(private="/private"))


def test_virtual_cpus_that_can_go_again(binary: Binary) -> None:
    vcpus = "<vcpu id='0' enabled='yes' hotpluggable='no'/><vcpu id='1' enabled='no' hotpluggable='yes'/>"
    vcpus += "<vcpu id='2' enabled='yes' hotpluggable='yes'/>"
    found = native(domain_xml(top=f"<vcpu current='2'>3</vcpu><vcpus>{vcpus}</vcpus>"), binary)
    assert ("smp", "1,maxcpus=3,sockets=3,cores=1,threads=1") in found
