"""Devices of the host for a guest. No machine where this runs has one to give: the kernel's side is made up here."""

import os
from pathlib import Path

import pytest

from tests.drivers.qemu.commandline import binary, devices_of, disk, domain_xml, native, options, parse
from virtd import constants as c
from virtd.conf.domain import Domain, format_domain
from virtd.conf.domain.hostdev import UsbSource
from virtd.conf.domain.interface import Interface, NetworkSource
from virtd.conf.network.port import NetworkPort, Plug, PlugAddress
from virtd.drivers.base import Context, Identity
from virtd.drivers.qemu.command import Setup, build
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.host import sysfs
from virtd.drivers.qemu.host.binary import Binary
from virtd.drivers.qemu.run import hostdevices, interfaces, networkports
from virtd.drivers.storage import programs
from virtd.errors import VirtError
from virtd.state import undo
from virtd.state.paths import below

__all__ = ["binary"]

NIC = "0000:01:00.0"
MDEV = "53764d0e-85a0-42b4-af5c-2046b460b1dc"


def pci(more: str = "", managed: str = "yes") -> str:
    return (
        f"<hostdev mode='subsystem' type='pci' managed='{managed}'>{more}"
        "<source><address domain='0' bus='1' slot='0' function='0'/></source></hostdev>"
    )


def usb(source: str, policy: str = "") -> str:
    xhci = "<controller type='usb' model='qemu-xhci'/>"
    return f"{xhci}<hostdev mode='subsystem' type='usb'><source {policy}>{source}</source></hostdev>"


class Host:
    """A kernel's /sys with a network card and three USB devices, that does what a kernel does when it is written to."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.device = root / "bus/pci/devices" / NIC
        for name in ("e1000e", "vfio-pci"):
            (root / "bus/pci/drivers" / name).mkdir(parents=True)
        self.device.mkdir(parents=True)
        (self.device / "config").touch()
        (root / "kernel/iommu_groups/7").mkdir(parents=True)
        (self.device / "iommu_group").symlink_to(root / "kernel/iommu_groups/7")
        self.override = ""
        self._take("e1000e")
        for name, words in {"1-1": "1234 abcd 1 2", "1-2": "5678 0001 1 3", "2-1": "5678 0001 2 4"}.items():
            folder = root / "bus/usb/devices" / name
            folder.mkdir(parents=True)
            for file, word in zip(("idVendor", "idProduct", "busnum", "devnum"), words.split(), strict=True):
                (folder / file).write_text(f"{word}\n")
        (root / "bus/usb/devices/usb1").mkdir()
        (root / "bus/mdev/devices" / MDEV).mkdir(parents=True)

    def _take(self, driver: str) -> None:
        (self.device / "driver").symlink_to(f"{self.root}/bus/pci/drivers/{driver}")

    def write(self, path: str, text: str) -> None:
        """What is written into a file of /sys."""
        name = os.path.basename(path)
        if name == "driver_override":
            self.override = text.strip()
        elif name == "unbind":
            (self.device / "driver").unlink()
        elif name == "drivers_probe":
            self._take(self.override or "e1000e")
        else:
            raise AssertionError(path)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path / "sys")
    monkeypatch.setattr(sysfs, "_write", made.write)
    monkeypatch.setattr(sysfs, "DEVICE", str(tmp_path))
    return made


def guest(tmp_path: Path, name: str = "a") -> Guest:
    """A guest's directory, as it is while it starts."""
    made = Guest(str(tmp_path / "run"), f"uuid-{name}", name)
    os.makedirs(made.directory)
    Path(made.status_path).touch()
    return made


def prepare(tmp_path: Path, host: Host, devices: str, name: str = "a") -> tuple[Domain, Guest]:
    config, directory = parse(domain_xml(devices)), guest(tmp_path, name)
    hostdevices.prepare(config, directory, str(tmp_path / "claims"), host.root)
    return config, directory


def test_a_managed_device_is_taken_and_given_back(tmp_path: Path, host: Host) -> None:
    config, directory = prepare(tmp_path, host, pci())
    assert sysfs.driver(str(host.device)) == "vfio-pci"
    assert config.hostdevs[0].backend == "vfio"
    undo.undo(directory.undo_path)
    assert sysfs.driver(str(host.device)) == "e1000e"
    assert host.override == ""
    assert os.listdir(tmp_path / "claims") == []


def test_a_device_that_is_not_managed_must_have_been_taken(tmp_path: Path, host: Host) -> None:
    text = f"Unmanaged PCI device {NIC} must be manually detached from the host"
    with pytest.raises(VirtError, match=text) as caught:
        prepare(tmp_path, host, pci(managed="no"))
    assert caught.value.code == c.VIR_ERR_OPERATION_INVALID
    undo.undo(f"{tmp_path}/run/uuid-a/undo")
    sysfs.bind(NIC, "vfio-pci", host.root)
    _, directory = prepare(tmp_path, host, pci(managed="no"), "b")
    undo.undo(directory.undo_path)
    assert sysfs.driver(str(host.device)) == "vfio-pci"


def test_a_device_belongs_to_one_guest(tmp_path: Path, host: Host) -> None:
    """One that has gone without a word has it no more."""
    _, first = prepare(tmp_path, host, pci())
    with pytest.raises(VirtError, match=f"PCI device {NIC} is in use by driver QEMU, domain a") as caught:
        prepare(tmp_path, host, pci(), "b")
    assert caught.value.code == c.VIR_ERR_OPERATION_INVALID
    os.unlink(first.status_path)
    prepare(tmp_path, host, pci(), "c")


@pytest.mark.parametrize("backend", ["", "<driver name='vfio'/>"])
def test_a_host_without_vfio(tmp_path: Path, host: Host, backend: str) -> None:
    os.rmdir(f"{host.root}/kernel/iommu_groups/7")
    with pytest.raises(VirtError, match=r"host doesn't support (VFIO PCI passthrough|passthrough of host)") as caught:
        prepare(tmp_path, host, pci(backend))
    assert caught.value.code == c.VIR_ERR_CONFIG_UNSUPPORTED
    mdev = f"<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='{MDEV}'/></source></hostdev>"
    with pytest.raises(VirtError, match="Mediated host device assignment requires VFIO support"):
        prepare(tmp_path, host, mdev, "b")


def test_a_device_that_is_not_there(tmp_path: Path, host: Host) -> None:
    with pytest.raises(VirtError, match=r"Device 0000:02:00.0 not found: could not access .*/0000:02:00.0/config"):
        prepare(tmp_path, host, pci().replace("bus='1'", "bus='2'"))


USB = [
    ("<vendor id='0x1234'/><product id='0xabcd'/>", "", (1, 2)),
    ("<vendor id='0x5678'/><product id='0x0001'/><address bus='2' device='4'/>", "", (2, 4)),
    ("<address bus='1' device='3'/>", "", (1, 3)),
    ("<vendor id='0x9999'/><product id='0x0001'/>", "startupPolicy='optional'", None),
]


@pytest.mark.parametrize(("source", "policy", "expected"), USB)
def test_usb_devices_are_found(
    tmp_path: Path, host: Host, source: str, policy: str, expected: tuple[int, int] | None
) -> None:
    config, _ = prepare(tmp_path, host, usb(source, policy))
    found = [(one.source.bus, one.source.device) for one in config.hostdevs if isinstance(one.source, UsbSource)]
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<vendor id='0x9999'/><product id='0x0001'/>", "Did not find USB device 9999:1"),
        ("<address bus='9' device='9'/>", "Did not find USB device bus:9 device:9"),
        ("<vendor id='0x5678'/><product id='0x0001'/>", "Multiple USB devices for 5678:1, use <address>"),
    ],
)
def test_usb_devices_that_are_not_meant(tmp_path: Path, host: Host, source: str, text: str) -> None:
    with pytest.raises(VirtError, match=text):
        prepare(tmp_path, host, usb(source))


def test_the_command_line_of_a_pci_device(tmp_path: Path, binary: Binary) -> None:
    more = "<driver name='vfio'/><rom bar='off' file='/r'/><boot order='1'/>"
    xml = domain_xml(pci(more), top="<memtune><hard_limit>1000</hard_limit></memtune>")
    (device,) = devices_of(native(xml, binary), "vfio-pci")
    wanted = {"host": NIC, "id": "hostdev0", "bootindex": 1, "rombar": 0, "romfile": "/r", "bus": "pci.0"}
    assert wanted.items() <= device.items()
    command = build(parse(xml), binary, Setup(private="/p"))
    assert command.locked == 1000 * 1024
    assert build(parse(domain_xml(pci(more))), binary, Setup(private="/p")).locked == (65536 << 10) + (1 << 30)


def test_the_command_line_of_logical_units(binary: Binary) -> None:
    """Their nodes are numbered behind those of disks."""
    unit = (
        "<hostdev mode='subsystem' type='scsi'>"
        "<source protocol='iscsi' name='iqn.a/2'><host name='h' port='1'/></source>"
        "<readonly/><address type='drive' controller='0' bus='0' target='3' unit='4'/></hostdev>"
    )
    xml = domain_xml(
        "<controller type='scsi' index='0' model='virtio-scsi'/>" + disk("vda", "<source file='/a'/>") + unit
    )
    found = native(xml, binary)
    (backend,) = (value for name, value in found if name == "blockdev" and "backend" in str(value))
    assert isinstance(backend, dict)
    assert {"driver": "iscsi", "portal": "h:1", "lun": 2, "read-only": True}.items() <= backend.items()
    assert devices_of(found, "scsi-generic") == [
        {
            "driver": "scsi-generic",
            "drive": "libvirt-2-backend",
            "id": "hostdev0",
            "bus": "scsi0.0",
            "channel": 0,
            "scsi-id": 3,
            "lun": 4,
        }
    ]


def test_units_of_the_host_are_looked_up(tmp_path: Path) -> None:
    (tmp_path / "bus/scsi/devices/0:1:2:3/scsi_generic/sg5").mkdir(parents=True)
    assert sysfs.scsi_generic("scsi_host0", 1, 2, 3, str(tmp_path)) == "/dev/sg5"
    with pytest.raises(VirtError, match=r"cannot open directory '.*/1:1:2:3/scsi_generic'") as caught:
        sysfs.scsi_generic("scsi_host1", 1, 2, 3, str(tmp_path))
    assert caught.value.code == c.VIR_ERR_SYSTEM_ERROR


@pytest.mark.skipif(os.path.exists("/dev/vhost-scsi"), reason="this kernel has it")
def test_a_target_in_the_kernel_that_is_not_there(binary: Binary) -> None:
    source = "<source protocol='vhost' wwpn='naa.5123456789abcde0'/>"
    xml = domain_xml(f"<hostdev mode='subsystem' type='scsi_host'>{source}</hostdev>")
    with pytest.raises(VirtError, match="vhost-scsi device file '/dev/vhost-scsi' cannot be found"):
        options(build(parse(xml), binary, Setup(private="/p")))


VF = "0000:01:10.0"
CARD = (
    "<interface type='hostdev' managed='yes'><mac address='52:54:00:00:00:01'/><source>"
    "<address type='pci' domain='0' bus='1' slot='{slot}' function='0'/></source>{more}</interface>"
)


def make_function(host: Host) -> None:
    """A virtual function of the card: the fourth of eth7."""
    (host.device / "net/eth7").mkdir(parents=True)
    host.device = host.device.with_name(VF)
    host.device.mkdir()
    (host.device / "config").touch()
    (host.device / "physfn").symlink_to(host.device.with_name(NIC))
    (host.device.with_name(NIC) / "virtfn3").symlink_to(host.device)


def test_a_virtual_function_gets_the_guests_address(
    tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And loses it again."""
    make_function(host)
    ran: list[str] = []
    monkeypatch.setattr(programs, "run", lambda program, words: ran.append(" ".join([program, *words])))
    vlan = "<vlan><tag id='42'/></vlan>"
    config, directory = prepare(tmp_path, host, CARD.format(slot="0x10", more=vlan))
    assert ran == ["ip link set dev eth7 vf 3 mac 52:54:00:00:00:01 vlan 42"]
    assert sysfs.driver(str(host.device)) == "vfio-pci"
    assert [one.info.alias for one in config.interfaces] == ["hostdev0"]
    undo.undo(directory.undo_path)
    assert ran[1:] == ["ip link set dev eth7 vf 3 mac 00:00:00:00:00:00 vlan 0"]


def test_a_card_of_a_networks_pool(tmp_path: Path, host: Host, binary: Binary, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network chooses it; from then on it is a card of the host like one that is named."""
    make_function(host)
    ran: list[str] = []
    monkeypatch.setattr(programs, "run", lambda program, words: ran.append(" ".join([program, *words])))
    monkeypatch.setattr(hostdevices.prepare_card, "__defaults__", (host.root,))

    def ask(context: Context, guest: Guest, interface: Interface, source: NetworkSource) -> NetworkPort:
        assert source.network == "pool"
        address = PlugAddress(domain=0, bus=1, slot=0x10, function=0)
        return NetworkPort(plug=Plug(type="hostdev-pci", managed=True, address=address), vlan=interface.vlan)

    monkeypatch.setattr(networkports, "ask", ask)
    config = parse(
        domain_xml(
            "<interface type='user'/><interface type='network'><mac address='52:54:00:00:00:01'/>"
            "<source network='pool'/><vlan><tag id='42'/></vlan></interface>"
        )
    )
    directory = guest(tmp_path)
    context = Context(below(str(tmp_path), privileged=True), Identity(0, 0, 0), 0)
    interfaces.plug(context, directory, config, None).close()
    assert ran == ["ip link set dev eth7 vf 3 mac 52:54:00:00:00:01 vlan 42"]
    assert sysfs.driver(str(host.device)) == "vfio-pci"
    assert [(one.type, one.info.alias) for one in config.interfaces] == [("user", "net0"), ("hostdev", "hostdev0")]
    shown = format_domain(config, live=True)
    assert "<interface type='hostdev' managed='yes'>" in shown
    assert "<address type='pci' domain='0x0000' bus='0x01' slot='0x10' function='0x0'/>\n      </source>" in shown
    found = devices_of(options(build(config, binary, Setup(private="/p"))), "vfio-pci")
    assert [(one["host"], one["id"]) for one in found] == [(VF, "hostdev0")]
    undo.undo(directory.undo_path)
    assert ran[1:] == ["ip link set dev eth7 vf 3 mac 00:00:00:00:00:00 vlan 0"]


def test_a_whole_network_card_is_not_for_an_interface(tmp_path: Path, host: Host) -> None:
    with pytest.raises(VirtError, match="Interface type hostdev is currently supported on SR-IOV Virtual Functions"):
        prepare(tmp_path, host, CARD.format(slot="0", more=""))


def test_the_command_line_of_a_card_of_the_host(binary: Binary) -> None:
    devices = CARD.format(slot="0x10", more="<driver name='vfio'/><boot order='1'/>") + pci("<driver name='vfio'/>")
    config = parse(domain_xml(devices))
    found = devices_of(options(build(config, binary, Setup(private="/p"))), "vfio-pci")
    assert [(one["host"], one["id"], one.get("bootindex")) for one in found] == [
        (VF, "hostdev0", 1),
        (NIC, "hostdev1", None),
    ]
