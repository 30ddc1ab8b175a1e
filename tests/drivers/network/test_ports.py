"""Guests' ports and taps: what they are plugged into, and what becomes of that."""

import json
import os
import socket
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.network.conftest import Host, Service, run
from virtd import constants as c
from virtd import uuids
from virtd.conf.network import parse_port
from virtd.drivers.network import links, portfiles, taps
from virtd.drivers.network.ports import Ports
from virtd.errors import VirtError
from virtd.protocol.records import Network, NetworkPort, TypedParam, TypedValue
from virtd.state import undo

OWNER = "<owner><name>guest</name><uuid>22222222-c91e-6742-64da-4a736edb9a00</uuid></owner>"


def port_xml(more: str = "", number: int = 0xCC) -> str:
    mac = f"52:54:00:aa:bb:{number:02x}"
    return f"<networkport><uuid>{uuid.uuid4()}</uuid>{OWNER}<mac address='{mac}'/>{more}</networkport>"


def started(service: Service, inner: str, name: str = "n") -> Network:
    network = service.driver.network_define_xml(f"<network><name>{name}</name>{inner}</network>")
    service.driver.network_create(network)
    return network


def created(driver: Ports, network: Network, more: str = "", flags: int = 0) -> tuple[NetworkPort, str]:
    port = driver.network_port_create_xml(network, port_xml(more), flags)
    xml = driver.network_port_get_xml_desc(port, 0)
    return port, xml[xml.index("<mac") :]


def test_life_of_a_port(service: Service) -> None:
    driver = service.driver
    network = started(service, "<bridge name='vb'/>")
    port, xml = created(driver, network)
    assert "<plug type='network' bridge='vb'/>" in xml
    other = service.open()
    assert other.network_list_all_ports(network, 1, 0) == ([port], 1)
    assert other.network_port_lookup_by_uuid(network, port.uuid) == port
    assert "<network connections='1'>" in other.network_get_xml_desc(network, 0)
    macs = Path(f"{service.root}/var/lib/virtd/dnsmasq/vb.macs")
    assert json.loads(macs.read_text()) == [{"domain": "guest", "macs": ["52:54:00:aa:bb:cc"]}]
    text = f"Network port with UUID {uuids.to_text(port.uuid)} already exists"
    again = other.network_port_get_xml_desc(port, 0).replace("<plug type='network' bridge='vb'/>", "")
    with pytest.raises(VirtError, match=text) as failure:
        other.network_port_create_xml(network, again, 0)
    assert failure.value.code == c.VIR_ERR_NETWORK_PORT_EXIST
    other.network_port_delete(port, 0)
    assert json.loads(macs.read_text()) == []
    for function in (driver.network_port_delete, driver.network_port_get_xml_desc):
        with pytest.raises(VirtError) as failure:
            function(port, 0)
        assert failure.value.code == c.VIR_ERR_NO_NETWORK_PORT
    created(driver, network)
    driver.network_destroy(network)
    with pytest.raises(VirtError, match="network 'n' is not active"):
        driver.network_list_all_ports(network, 1, 0)
    assert not macs.exists()
    other.close()


def test_plugs(service: Service) -> None:
    driver = service.driver
    for name in ("d0", "d1"):
        run("ip", "link", "add", name, "type", "bridge")
    bridge = started(service, "<forward mode='bridge'/><bridge name='d0'/>", "bridge")
    assert "<plug type='bridge' bridge='d0'/>" in created(driver, bridge)[1]
    pool = "<interface dev='d0'/><interface dev='d1'/>"
    vepa = started(service, f"<forward mode='vepa'>{pool}</forward>", "vepa")
    chosen = [created(driver, vepa)[1] for _ in range(3)]
    assert ["d1" in xml for xml in chosen] == [False, True, False]
    assert all("mode='vepa'" in xml for xml in chosen)
    assert "<interface dev='d0' connections='2'/>" in driver.network_get_xml_desc(vepa, 0)
    assert "connections" not in driver.network_get_xml_desc(vepa, c.VIR_NETWORK_XML_INACTIVE)
    passthrough = started(service, f"<forward mode='passthrough'>{pool}</forward>", "passthrough")
    first, _ = created(driver, passthrough)
    created(driver, passthrough)
    text = "network 'passthrough' requires exclusive access to interfaces, but none are available"
    with pytest.raises(VirtError, match=text):
        created(driver, passthrough)
    driver.network_port_delete(first, 0)
    assert "dev='d0'" in created(driver, passthrough)[1]
    empty = started(service, "<forward mode='private'/>", "private")
    with pytest.raises(VirtError, match="but has no forward dev and no interface pool"):
        created(driver, empty)


def test_what_a_port_inherits(service: Service) -> None:
    group = "<bandwidth><inbound average='7'/></bandwidth>"
    network = started(
        service,
        "<bridge name='vb'/><port isolated='yes'/>"
        f"<portgroup name='fast' trustGuestRxFilters='yes'>{group}</portgroup><portgroup name='usual' default='yes'/>",
    )
    assert "isolated='yes'" in created(service.driver, network)[1]
    xml = created(service.driver, network, "<group>fast</group>")[1]
    assert "<inbound average='7'/>" in xml
    assert "<rxfilters trustGuest='yes'/>" in xml
    own = "<group>fast</group><bandwidth><inbound average='9'/></bandwidth><port isolated='no'/>"
    xml = created(service.driver, network, own)[1]
    assert "<inbound average='9'/>" in xml
    assert "isolated='no'" in xml
    service.driver.network_destroy(network)


@pytest.mark.parametrize(
    ("more", "flags", "text"),
    [
        ("<virtualport type='openvswitch'/>", 0, "not supported for network 'n' which uses IP forwarding"),
        ("<vlan><tag id='1'/></vlan>", 0, "is requesting a vlan tag"),
        ("<bandwidth><inbound average='1' floor='1'/></bandwidth>", 0, "network 'n' has no inbound QoS set"),
        ("<bandwidth><inbound floor='1' peak='2'/></bandwidth>", 0, "'peak' and 'burst' require 'average' attribute"),
        ("<plug type='bridge' bridge='b'/>", 0, "Port reclaim not requested but plug type is not none"),
        ("", c.VIR_NETWORK_PORT_CREATE_RECLAIM, "Port reclaim requested but plug type is none"),
        ("", 8, "unsupported flags"),
    ],
)
def test_refused(service: Service, more: str, flags: int, text: str) -> None:
    network = started(service, "<bridge name='vb'/>")
    with pytest.raises(VirtError, match=text):
        created(service.driver, network, more, flags)
    assert service.driver.network_list_all_ports(network, 0, 0) == ([], 0)
    service.driver.network_destroy(network)


def classes() -> dict[str, str]:
    """The classes of traffic at the network's bridge, each with the rate that it gets in any case."""
    shown = run("tc", "class", "show", "dev", "vb")
    return {words[2]: words[words.index("rate") + 1] for words in map(str.split, shown.splitlines())}


def floor(kib: int, more: str = "") -> str:
    return f"<bandwidth><inbound floor='{kib}'{more}/></bandwidth>"


def test_guarantees(service: Service) -> None:
    """What ports are guaranteed is taken from what all others share, and never more than there is."""
    driver = service.driver
    network = started(service, "<bridge name='vb'/><bandwidth><inbound average='1000' peak='5000'/></bandwidth>")
    assert classes() == {"1:1": "8Mbit", "1:2": "8Mbit"}
    first, xml = created(driver, network, floor(200, " average='300'"))
    assert "<bandwidth classID='3'>\n    <inbound average='300' floor='200'/>" in xml
    other = service.open()  # which finds what is guaranteed already
    second, xml = created(other, network, floor(400))
    assert "<bandwidth classID='4'>" in xml
    assert classes() == {"1:1": "8Mbit", "1:2": "35200Kbit", "1:3": "1600Kbit", "1:4": "3200Kbit"}
    text = "Cannot plug '52:54:00:aa:bb:cc' interface into 'vb' because new combined inbound floor="
    with pytest.raises(VirtError) as failure:
        created(driver, network, floor(4401))
    assert failure.value.message.endswith(f"{text}5001 would overcommit peak=5000 on network 'n'")
    assert failure.value.code == c.VIR_ERR_OPERATION_INVALID
    assert driver.network_list_all_ports(network, 0, 0)[1] == 2
    third, _ = created(driver, network, floor(4400))
    assert classes()["1:2"] == "8Kbit"  # next to nothing
    driver.network_port_delete(third, 0)
    driver.network_port_delete(first, 0)
    assert classes() == {"1:1": "8Mbit", "1:2": "36800Kbit", "1:4": "3200Kbit"}
    assert "classID='3'" in created(driver, network, floor(100))[1]

    def tune(**values: int) -> None:
        params = [TypedParam(f"inbound.{k}", TypedValue(c.VIR_TYPED_PARAM_UINT, v)) for k, v in values.items()]
        driver.network_port_set_parameters(second, params, 0)

    tune(floor=500, average=500)
    assert classes() == {"1:1": "8Mbit", "1:2": "35200Kbit", "1:3": "800Kbit", "1:4": "4Mbit"}
    with pytest.raises(VirtError, match="floor=5100 would overcommit"):
        tune(floor=5000)
    assert "<inbound average='500' floor='500'/>" in driver.network_port_get_xml_desc(second, 0)
    tune(average=500)
    assert classes() == {"1:1": "8Mbit", "1:2": "39200Kbit", "1:3": "800Kbit"}
    assert "classID" not in driver.network_port_get_xml_desc(second, 0)
    other.close()
    driver.network_destroy(network)


def test_what_is_guaranteed_to_whom(service: Service, host: Callable[..., Host]) -> None:
    """Packets are counted to the guest to whose MAC address they go."""
    limits, address = "<bandwidth><inbound average='1000'/></bandwidth>", "<ip address='10.6.1.1' prefix='24'/>"
    network = started(service, f"<bridge name='vb' stp='off' delay='0'/>{limits}{address}")
    # Until a port forwards, the bridge sends nothing.
    guest = host("g1", "vb")
    guest.run("ip", "addr", "add", "10.6.1.9/24", "dev", "eth0")
    guest.run("busybox", "ping", "-q", "-c", "1", "-W", "10", "10.6.1.1")
    created(service.driver, network, floor(100))
    for number, mac in ((2, "52:54:00:aa:bb:cc"), (3, "52:54:00:aa:bb:dd")):
        run("ip", "neigh", "add", f"10.6.1.{number}", "lladdr", mac, "dev", "vb")

    def sent() -> dict[str, int]:
        words = run("tc", "-s", "class", "show", "dev", "vb").split()
        starts = [n for n, word in enumerate(words) if word == "class"]
        return {words[n + 2]: int(words[words.index("Sent", n) + 1]) for n in starts}

    for number, whose, others in ((2, "1:3", "1:2"), (3, "1:2", "1:3")):
        before = sent()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(bytes(1000), (f"10.6.1.{number}", 9))
        after = sent()
        assert after[whose] - before[whose] >= 1000 > after[others] - before[others]
    service.driver.network_destroy(network)


def test_reclaim(service: Service) -> None:
    """The port of a guest that runs is told of to a network that was started again."""
    network = started(service, "<forward mode='vepa'><interface dev='a'/><interface dev='b'/></forward>")
    plug = "<plug type='direct' dev='b' mode='vepa'/>"
    _, xml = created(service.driver, network, plug, c.VIR_NETWORK_PORT_CREATE_RECLAIM)
    assert plug in xml
    assert "<interface dev='b' connections='1'/>" in service.driver.network_get_xml_desc(network, 0)


def test_parameters(service: Service) -> None:
    driver = service.driver
    network = started(service, "<bridge name='vb'/>")
    port, _ = created(driver, network, "<bandwidth><inbound average='5' burst='6'/></bandwidth>")

    def parameters() -> dict[str, int]:
        params, count = driver.network_port_get_parameters(port, 0, 0)
        assert count == len(params)
        return {param.field: param.value.value for param in params}

    assert parameters() == {"inbound.average": 5, "inbound.peak": 0, "inbound.floor": 0, "inbound.burst": 6}
    kind = c.VIR_TYPED_PARAM_UINT
    driver.network_port_set_parameters(port, [TypedParam("outbound.average", TypedValue(kind, 3))], 0)
    assert parameters() == {"outbound.average": 3, "outbound.peak": 0, "outbound.burst": 0}
    with pytest.raises(VirtError, match="parameter 'x' not supported"):
        driver.network_port_set_parameters(port, [TypedParam("x", TypedValue(kind, 3))], 0)
    driver.network_destroy(network)


def test_hostdev_ports_are_counted() -> None:
    port = parse_port(port_xml("<plug type='hostdev-pci'><address domain='0' bus='3' slot='2' function='1'/></plug>"))
    assert portfiles.device_key(port) == "0000:03:02.1"
    assert portfiles.device_key(parse_port(port_xml())) is None


def test_tap(service: Service, host: Callable[..., Host]) -> None:
    network = started(service, "<bridge name='vb' stp='off'/><mtu size='1400'/><ip address='10.1.1.1' prefix='24'/>")
    first = taps.make(taps.Manner(bridge="vb", mac="52:54:00:aa:bb:cc", vnet_header=False))
    second = taps.make(taps.Manner(bridge="vb", mac="fe:54:00:aa:bb:cc", queues=2, isolated=True, up=False))
    named = taps.make(taps.Manner(bridge=None, mac="52:54:00:aa:bb:cd", name="my%d"))
    assert [tap.name for tap in (first, second, named)] == ["vnet0", "vnet1", "my0"]
    assert [len(tap.fds) for tap in (first, second, named)] == [1, 2, 1]
    found = {link.name: link for link in links.links()}
    assert (found["vnet0"].mac, found["vnet1"].mac) == ("fe:54:00:aa:bb:cc", "fa:54:00:aa:bb:cc")
    assert found["vnet0"].mtu == 1400
    assert found["vnet0"].master == found["vb"].number != 0
    assert "isolated on" in run("ip", "-d", "link", "show", "vnet1")
    # Where the bridge does not learn who is there, it is told (macTableManager='libvirt').
    told = taps.make(taps.Manner(bridge="vb", mac="52:54:00:aa:bb:ce", learning=False))
    assert "learning off flood off" in run("bridge", "-d", "link", "show", "dev", told.name)
    assert "52:54:00:aa:bb:ce master vb static" in run("bridge", "fdb", "show", "dev", told.name)
    os.close(told.fds[0])
    assert ",UP" not in run("ip", "link", "show", "vnet1")
    # What the guest's end sends arrives at the bridge: the host answers an ARP request.
    mac = bytes.fromhex("525400aabbcc")
    request = struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, bytes([10, 1, 1, 2]), bytes(6), bytes([10, 1, 1, 1])
    )
    os.write(first.fds[0], b"\xff" * 6 + mac + b"\x08\x06" + request)
    while True:
        frame = os.read(first.fds[0], 2000)
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2":
            break
    assert frame[28:32] == bytes([10, 1, 1, 1])
    # Taps go with their descriptors, and the bridge's MTU stays what was asked for.
    for tap in (first, second, named):
        for descriptor in tap.fds:
            os.close(descriptor)
    assert {link.name for link in links.links()} == {"lo", "vb"}
    assert links.mtu("vb") == 1400
    service.driver.network_destroy(network)


def test_tap_refused(namespace: None) -> None:
    with pytest.raises(VirtError, match="Cannot get interface MTU on 'nope': No such device"):
        taps.make(taps.Manner(bridge="nope", mac="52:54:00:aa:bb:cc"))
    with pytest.raises(VirtError, match="is too long"):
        taps.make(taps.Manner(bridge=None, mac="52:54:00:aa:bb:cc", name="a-name-that-is-too-long"))
    assert [link.name for link in links.links()] == ["lo"]


def test_macvtap(host: Callable[..., Host], tmp_path: Path) -> None:
    host("cable")
    notes = str(tmp_path / "undo")
    try:
        first = taps.make_macvtap("cable", "bridge", "52:54:00:aa:bb:cc", notes)
    except VirtError as error:
        if error.int1 in (2, 95):  # ENOENT of its character device, EOPNOTSUPP
            pytest.skip(f"no macvtap here: {error}")
        raise
    second = taps.make_macvtap("cable", "bridge", "52:54:00:aa:bb:cd", notes, queues=2)
    assert (first.name, second.name, len(second.fds)) == ("macvtap0", "macvtap1", 2)
    for descriptor in (*first.fds, *second.fds):
        os.close(descriptor)
    run("ip", "link", "set", "macvtap1", "address", "52:54:00:aa:bb:ff")  # another's by now
    undo.undo(notes)
    assert {link.name for link in links.links()} == {"lo", "cable", "macvtap1"}
