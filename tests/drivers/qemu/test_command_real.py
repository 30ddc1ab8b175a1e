"""The command line in a real QEMU: it is accepted, and the machine is the one that was asked for."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.qemu.commandline import binary, domain_xml, running
from virtd.conf.domain import Domain
from virtd.conf.domain.base import Device, PciAddress
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.host.binary import Binary
from virtd.drivers.qemu.monitor.client import Monitor
from virtd.state import undo

__all__ = ["binary"]

# What both kinds of machine can have.
DEVICES = """
  <disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='{folder}/a.img'/>
    <target dev='vda' bus='virtio'/><iotune><total_iops_sec>100</total_iops_sec></iotune></disk>
  <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{folder}/b.img'/>
    <target dev='sda' bus='scsi'/><serial>b</serial></disk>
  <disk type='file' device='cdrom'><target dev='sdb' bus='{cdrom}'/></disk>
  <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{folder}/c.img'/>
    <target dev='sdx' bus='usb'/></disk>
  <controller type='scsi' index='0' model='virtio-scsi'/>
  <controller type='usb' index='0' model='qemu-xhci'/>
  <interface type='user'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface>
  <interface type='user'><mac address='52:54:00:00:00:02'/><model type='e1000'/><link state='down'/></interface>
  <serial type='pty'/>
  <serial type='file'><source path='{folder}/serial.log'/><log file='{folder}/second.log'/></serial>
  <parallel type='null'/>
  <console type='pty'><target type='virtio'/></console>
  <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  <input type='tablet' bus='usb'/>
  <input type='keyboard' bus='virtio'/>
  <graphics type='vnc' passwd='secret'><listen type='socket'/></graphics>
  <video><model type='virtio'/></video>
  <sound model='ich9'/>
  <watchdog model='i6300esb' action='pause'/>
  <memballoon model='virtio'/>
  <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  <panic model='isa'/>
"""
TOP = (
    "<vcpu>2</vcpu><iothreads>1</iothreads><features><acpi/><apic/></features><genid/>"
    "<cpu mode='maximum'/><clock offset='utc'><timer name='hpet' present='no'/></clock>"
    "<pm><suspend-to-mem enabled='no'/></pm><currentMemory>49152</currentMemory>"
)


def devices(config: Domain) -> Iterator[Device]:
    """All devices that are devices in QEMU too."""
    yield from config.disks
    yield from config.interfaces
    yield from [*config.serials, *config.parallels, *config.channels]
    yield from (console for console in config.consoles if console.target_type == "virtio")
    yield from (one for one in config.inputs if one.bus != "ps2")
    yield from [*config.videos, *config.sounds, *config.watchdogs, *config.rngs]
    if config.memballoon is not None and config.memballoon.model != "none":
        yield config.memballoon
    # The root and the chip set's own have no names of their own.
    yield from (
        one for one in config.controllers if one.type not in ("ide", "sata", "fdc") and (one.model or "")[-4:] != "root"
    )


def place(monitor: Monitor, name: str) -> tuple[str, str]:
    """The bus that a PCI device is on, and slot and function there."""
    path = f"/machine/peripheral/{name}"
    bus, where = monitor.execute_all(
        [("qom-get", {"path": path, "property": prop}) for prop in ("parent_bus", "legacy-addr")]
    )
    return str(bus).rpartition("/")[2], str(where)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with images."""
    for name in ("a.img", "b.img", "c.img"):
        (tmp_path / name).write_bytes(b"")
        os.truncate(tmp_path / name, 1 << 20)
    return tmp_path


@pytest.mark.parametrize(("machine", "cdrom"), [("pc", "ide"), ("q35", "sata")])
def test_a_guest_with_much_in_it(binary: Binary, folder: Path, machine: str, cdrom: str) -> None:
    xml = domain_xml(DEVICES.format(folder=folder, cdrom=cdrom), TOP, machine=machine)
    with running(xml, binary, folder) as (monitor, config, command):
        assert monitor.query("query-status")["status"] == "prelaunch"
        assert monitor.query("query-name")["name"] == "a"
        assert monitor.query("query-uuid")["UUID"] == config.uuid
        assert len(monitor.query_list("query-cpus-fast")) == 2
        peripherals = monitor.query_list("qom-list", {"path": "/machine/peripheral"})
        names = {shape.text(one, "name") for one in peripherals}
        assert {device.info.alias for device in devices(config)} <= names
        buses = {one.index: one.info.alias for one in config.controllers if one.type == "pci"}
        for device in devices(config):
            address = device.info.address
            if isinstance(address, PciAddress):
                expected = buses[address.bus], f"{address.slot:02x}.{address.function:x}"
                assert place(monitor, device.info.alias or "") == expected
        nodes = {shape.text(one, "node-name") for one in monitor.query_list("query-named-block-nodes")}
        assert {"libvirt-1-format", "libvirt-2-storage", "libvirt-3-format"} <= nodes
        assert {name for name in command.disks if name.endswith("-format")} <= nodes
        assert command.disks["virtio-disk0"] == ("virtio-disk0", f"{folder}/a.img")
        # Everything that is left for the monitor is accepted by it.
        for name, arguments in command.commands:
            monitor.execute(name, arguments)
        assert {name for name, _ in command.commands} >= {
            "set_password",
            "balloon",
            "set_link",
            "block_set_io_throttle",
        }
        blocks = {shape.text(one, "qdev"): one for one in monitor.query_list("query-block")}
        assert blocks.keys() <= command.disks.keys()
        block = blocks["/machine/peripheral/virtio-disk0/virtio-backend"]
        assert shape.number(shape.table(block, "inserted"), "iops") == 100


def test_sockets_are_there_before_qemu_answers_and_are_noted_for_removal(binary: Binary, folder: Path) -> None:
    xml = domain_xml(
        f"<channel type='unix'><source mode='bind' path='{folder}/agent'/><target type='virtio' name='x'/></channel>"
    )
    with running(xml, binary, folder) as (_, config, command), socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{folder}/agent")
        assert (f"{folder}/agent", True) in command.files
        assert (folder / "agent").stat().st_mode & 0o777 == 0o660
        assert config.channels[0].source.kind == "unix"
    undo.undo(str(folder / "undo"))
    assert not (folder / "agent").exists()


def test_a_channel_without_a_path_gets_one_that_is_shown(binary: Binary, folder: Path) -> None:
    xml = domain_xml("<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>")
    with running(xml, binary, folder) as (_, config, _):
        assert getattr(config.channels[0].source, "path", None) == f"{folder}/org.qemu.guest_agent.0"
        assert (folder / "org.qemu.guest_agent.0").is_socket()


def test_logs_are_opened_by_us(binary: Binary, folder: Path) -> None:
    """The log is truncated where that is wanted, and stays where it is not."""
    (folder / "old").write_text("before")
    (folder / "kept").write_text("before")
    xml = domain_xml(
        f"<serial type='file'><source path='{folder}/old'/></serial>"
        f"<serial type='null'><log file='{folder}/kept' append='on'/></serial>"
    )
    with running(xml, binary, folder):
        assert (folder / "old").read_text() == ""
        assert (folder / "kept").read_text() == "before"


def test_memory_in_cells_and_plugged_in(binary: Binary, folder: Path) -> None:
    cells = "<cell id='0' cpus='0' memory='32768'/><cell id='1' cpus='1' memory='32768'/>"
    top = (
        "<features><acpi/></features><maxMemory slots='2' unit='MiB'>512</maxMemory><vcpu>2</vcpu><memoryBacking>"
        "<source type='memfd'/><access mode='shared'/></memoryBacking>"
        f"<cpu mode='maximum'><numa>{cells}</numa></cpu>"
    )
    dimm = "<memory model='dimm'><target><size unit='MiB'>16</size><node>1</node></target></memory>"
    with running(domain_xml(dimm, top), binary, folder) as (monitor, _, _):
        sizes = {shape.text(one, "id"): shape.number(one, "size") for one in monitor.query_list("query-memdev")}
        assert sizes == {"ram-node0": 32 << 20, "ram-node1": 32 << 20, "memdimm0": 16 << 20}
        (device,) = monitor.query_list("query-memory-devices")
        assert shape.number(shape.table(device, "data"), "node") == 1


def test_the_order_in_which_the_firmware_tries_devices(binary: Binary, folder: Path) -> None:
    boot = "<boot dev='network'/><boot dev='hd'/>"
    xml = domain_xml(DEVICES.format(folder=folder, cdrom="ide"), TOP, os_xml=boot)
    with running(xml, binary, folder) as (monitor, _, _):
        for name, place in (("net0", 1), ("virtio-disk0", 2)):
            arguments = {"path": f"/machine/peripheral/{name}", "property": "bootindex"}
            assert monitor.execute("qom-get", arguments) == place


@pytest.mark.skipif(not os.path.exists("/usr/share/qemu/firmware/60-edk2-x86_64.json"), reason="needs OVMF")
@pytest.mark.parametrize(("machine", "secure"), [("pc", False), ("q35", True)])
def test_a_firmware_that_is_chosen(binary: Binary, folder: Path, machine: str, secure: bool) -> None:
    xml = domain_xml(top="<features><acpi/></features>", machine=machine, os_attributes=" firmware='efi'")
    with running(xml, binary, folder) as (monitor, config, _):
        loader, nvram = config.os.loader, config.os.nvram
        assert loader is not None
        assert loader.secure is secure
        assert nvram is not None
        assert nvram.path == f"{folder}/a_VARS.fd"
        assert (folder / "a_VARS.fd").stat().st_size > 0
        nodes = {shape.text(one, "node-name") for one in monitor.query_list("query-named-block-nodes")}
        assert {"libvirt-pflash0-format", "libvirt-pflash1-format"} <= nodes
        machine_smm = monitor.execute("qom-get", {"path": "/machine", "property": "smm"})
        assert (machine_smm == "on") is secure
