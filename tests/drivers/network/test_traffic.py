"""What guests have of a network: addresses, names, a way out; with real dnsmasq, real bridges, real packets."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.network.conftest import Host, Service, run
from tests.helpers.waiting import ends, wait_for
from virtd import constants as c
from virtd import uuids
from virtd.drivers.network import leases as parser
from virtd.drivers.network import links
from virtd.errors import VirtError
from virtd.protocol.records import DhcpLease, Network

ADD_LAST = c.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST
LIVE, CONFIG = c.VIR_NETWORK_UPDATE_AFFECT_LIVE, c.VIR_NETWORK_UPDATE_AFFECT_CONFIG


def xml(
    *, forward: str = "", dhcp: str = "", more: str = "", last: int = 20, name: str = "n", net: str = "10.66.1"
) -> str:
    # No spanning tree: a new port would listen for seconds before it forwards. And dnsmasq need not ping for seconds
    # whether somebody has an address.
    return (
        f"<network xmlns:d='http://libvirt.org/schemas/network/dnsmasq/1.0'><name>{name}</name>{forward}"
        f"<bridge name='vb-{name}' stp='off'/>{more}<ip address='{net}.1' prefix='24'>"
        f"<dhcp><range start='{net}.10' end='{net}.{last}'/>{dhcp}</dhcp></ip>"
        "<d:options><d:option value='no-ping'/></d:options></network>"
    )


def leases(service: Service, network: Network, count: int) -> list[DhcpLease]:
    """The leases of a network, when there are so many."""
    found: list[DhcpLease] = []

    def there() -> bool:
        found[:] = service.driver.network_get_dhcp_leases(network, None, 1, 0)[0]
        return len(found) == count

    wait_for(there, directory=f"{service.root}/var/lib/virtd/dnsmasq")
    return found


def names(host: Host, server: str, name: str) -> str:
    """What a name server answers."""
    return host.run("busybox", "nslookup", name, server, check=False)


def test_dhcp(service: Service, host: Callable[..., Host]) -> None:
    network = service.driver.network_create_xml(xml())
    guest = host("g1", "vb-n")
    guest.lease("-x", "hostname:first")
    (lease,) = leases(service, network, 1)
    assert guest.addresses == [f"{lease.ipaddr}/24"]
    assert (lease.iface, lease.type, lease.mac, lease.iaid) == ("vb-n", c.VIR_IP_ADDR_TYPE_IPV4, guest.mac, None)
    assert (lease.prefix, lease.hostname) == (24, "first")
    table = json.loads(Path(f"{service.root}/var/lib/virtd/dnsmasq/vb-n.status").read_text())
    assert [one["ip-address"] for one in table] == [lease.ipaddr]
    get = service.driver.network_get_dhcp_leases
    assert get(network, guest.mac.upper(), 1, 0) == ([lease], 1)
    assert get(network, guest.mac, 0, 0) == ([], 1)
    assert get(network, "52:54:00:00:00:00", 1, 0) == ([], 0)
    # An isolated network says nothing of a way out.
    assert "default" not in guest.run("ip", "route")
    service.driver.network_destroy(network)


def test_leases_outlive_dnsmasq_and_the_network(service: Service, host: Callable[..., Host]) -> None:
    network = service.driver.network_define_xml(xml())
    service.driver.network_create(network)
    guest = host("g1", "vb-n")
    guest.lease()
    (lease,) = leases(service, network, 1)
    (dnsmasq,) = service.dnsmasq()
    os.kill(dnsmasq, signal.SIGKILL)
    ends(dnsmasq)
    directory = f"{service.root}/run/virtd/networks/{uuids.to_text(network.uuid)}"
    wait_for(lambda: len(service.dnsmasq()) == 1, directory=directory)
    assert leases(service, network, 1) == [lease]
    service.driver.network_destroy(network)
    service.driver.network_create(network)
    assert leases(service, network, 1) == [lease]
    service.driver.network_destroy(network)


def test_names(service: Service, host: Callable[..., Host]) -> None:
    dns = "<dns><host ip='10.66.1.200'><hostname>printer</hostname></host><txt name='note' value='hello'/></dns>"
    network = service.driver.network_create_xml(xml(more=f"<domain name='test.lan' localOnly='yes'/>{dns}"))
    first, second = host("g1", "vb-n"), host("g2", "vb-n")
    first.lease("-x", "hostname:first")
    second.lease()
    (address,) = (one.ipaddr for one in leases(service, network, 2) if one.mac == first.mac)
    assert address in names(second, "10.66.1.1", "first.test.lan")
    assert "10.66.1.200" in names(second, "10.66.1.1", "printer.test.lan")
    # Guests of one network reach each other.
    second.run("busybox", "ping", "-c", "1", "-W", "5", address)
    service.driver.network_destroy(network)


def test_update_without_a_restart(service: Service, host: Callable[..., Host]) -> None:
    """A host that is added gets its address; dnsmasq goes on, and so do the leases."""
    driver = service.driver
    network = driver.network_define_xml(xml(dhcp="<host mac='52:54:00:00:00:01' ip='10.66.1.50'/>"))
    driver.network_create(network)
    first, second = host("g1", "vb-n"), host("g2", "vb-n")
    first.lease()
    (lease,) = leases(service, network, 1)
    before = service.dnsmasq()
    element = f"<host mac='{second.mac}' name='second' ip='10.66.1.77'/>"
    driver.network_update(network, ADD_LAST, c.VIR_NETWORK_SECTION_IP_DHCP_HOST, -1, element, LIVE | CONFIG)
    element = "<host ip='10.66.1.201'><hostname>scanner</hostname></host>"
    driver.network_update(network, ADD_LAST, c.VIR_NETWORK_SECTION_DNS_HOST, -1, element, LIVE)
    second.lease()
    assert second.addresses == ["10.66.1.77/24"]
    assert "10.66.1.201" in names(second, "10.66.1.1", "scanner")
    assert lease in leases(service, network, 2)
    assert service.dnsmasq() == before
    inactive = driver.network_get_xml_desc(network, c.VIR_NETWORK_XML_INACTIVE)
    assert (second.mac in inactive, "scanner" in inactive) == (True, False)
    assert "scanner" in driver.network_get_xml_desc(network, 0)
    driver.network_destroy(network)


def test_update_with_a_restart(service: Service, host: Callable[..., Host]) -> None:
    driver = service.driver
    network = driver.network_create_xml(xml(last=10))
    first, second = host("g1", "vb-n"), host("g2", "vb-n")
    first.lease()
    (lease,) = leases(service, network, 1)
    before = service.dnsmasq()
    element = "<range start='10.66.1.30' end='10.66.1.30'/>"
    driver.network_update(network, ADD_LAST, c.VIR_NETWORK_SECTION_IP_DHCP_RANGE, -1, element, 0)
    second.lease()
    assert second.addresses == ["10.66.1.30/24"]
    assert lease in leases(service, network, 2)
    assert len(service.dnsmasq()) == 1
    assert service.dnsmasq() != before
    # What dnsmasq refuses changes nothing.
    element = "<txt name='x&#10;no-such-option' value='y'/>"
    with pytest.raises(VirtError, match="line break"):
        driver.network_update(network, ADD_LAST, c.VIR_NETWORK_SECTION_DNS_TXT, -1, element, 0)
    assert "no-such" not in driver.network_get_xml_desc(network, 0)
    assert len(service.dnsmasq()) == 1
    driver.network_destroy(network)


@pytest.mark.parametrize("mode", ["nat", "route", "none", "open"])
def test_the_way_out(service: Service, host: Callable[..., Host], mode: str) -> None:
    """A guest reaches a server beyond the host; from where, if at all, depends on the mode."""
    outside = host("uplink")
    run("ip", "addr", "add", "192.0.2.1/24", "dev", "uplink")
    outside.run("ip", "addr", "add", "192.0.2.9/24", "dev", "eth0")
    outside.run("ip", "route", "add", "10.66.1.0/24", "via", "192.0.2.1")
    network = service.driver.network_create_xml(xml(forward=f"<forward mode='{mode}'/>" if mode != "none" else ""))
    guest = host("g1", "vb-n")
    guest.lease()
    if mode == "none":
        # Not even where the host forwards for others.
        run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    guest.run("ip", "route", "replace", "default", "via", "10.66.1.1")
    address = guest.addresses[0].partition("/")[0]
    ping = ["busybox", "ping", "-c", "1", "-W", "1"]
    out = guest.run(*ping, "192.0.2.9", check=False)
    back = outside.run(*ping, address, check=False)
    reached = " 0% packet loss"
    assert (reached in out, reached in back) == {
        "nat": (True, False),
        "route": (True, True),
        "none": (False, False),
        "open": (True, True),
    }[mode]
    if mode == "nat":
        # The server sees the host.
        seen = outside.run("cat", "/proc/net/arp")
        assert "192.0.2.1 " in seen
        assert address not in seen
    service.driver.network_destroy(network)


def test_nat_of_addresses_and_ports(service: Service, host: Callable[..., Host]) -> None:
    """Connections appear outside with the addresses and ports of the XML."""
    outside = host("uplink")
    run("ip", "addr", "add", "192.0.2.1/24", "dev", "uplink")
    run("ip", "addr", "add", "192.0.2.7/24", "dev", "uplink")
    outside.run("ip", "addr", "add", "192.0.2.9/24", "dev", "eth0")
    forward = "<forward mode='nat' dev='uplink'><nat><address start='192.0.2.7' end='192.0.2.7'/>"
    forward += "<port start='50000' end='50001'/></nat></forward>"
    network = service.driver.network_create_xml(xml(forward=forward))
    guest = host("g1", "vb-n")
    guest.lease()
    server = (
        "import socket; s = socket.create_server(('192.0.2.9', 99)); print('ready', flush=True);print(*s.accept()[1])"
    )
    listening = subprocess.Popen(
        ["nsenter", "-t", str(outside.pid), "-n", "python3", "-c", server], stdout=subprocess.PIPE, text=True
    )
    try:
        assert listening.stdout is not None
        assert listening.stdout.readline() == "ready\n"
        guest.run("python3", "-c", "import socket; socket.create_connection(('192.0.2.9', 99), 5)")
        said, _ = listening.communicate(timeout=20)
    finally:
        listening.kill()
        listening.wait()
    peer, port = said.split()
    assert (peer, port in ("50000", "50001")) == ("192.0.2.7", True)
    service.driver.network_destroy(network)


def test_networks_are_apart(service: Service, host: Callable[..., Host]) -> None:
    """Guests of different NAT networks do not reach each other."""
    driver = service.driver
    one = driver.network_create_xml(xml(forward="<forward mode='nat'/>"))
    two = driver.network_create_xml(xml(forward="<forward mode='nat'/>", name="m", net="10.66.2"))
    first, second = host("g1", "vb-n"), host("g2", "vb-m")
    first.lease()
    second.lease()
    address = second.addresses[0].partition("/")[0]
    assert "100% packet loss" in first.run("busybox", "ping", "-c", "1", "-W", "1", address, check=False)
    for network in (one, two):
        driver.network_destroy(network)


def test_isolated_ports(service: Service, host: Callable[..., Host]) -> None:
    network = service.driver.network_create_xml(xml())
    guests = [host(f"g{n}", "vb-n") for n in range(3)]
    for guest in guests:
        guest.lease()
    for name in ("g0", "g1"):
        links.change_port(name, isolated=True)
    ping = ["busybox", "ping", "-c", "1", "-W", "1"]
    address = [guest.addresses[0].partition("/")[0] for guest in guests]
    assert "100% packet loss" in guests[0].run(*ping, address[1], check=False)
    assert " 0% packet loss" in guests[0].run(*ping, address[2], check=False)
    service.driver.network_destroy(network)


def test_dhcpv6_leases_are_understood() -> None:
    content = (
        b"duid 00:01:00:01:2c:aa:bb:cc:52:54:00:11:22:33\n"
        b"1700000000 5505024 2001:db8::15 guest 00:01:00:01:2c:11:22:33:52:54:00:aa:bb:cc\n"
        b"1700000000 T99 2001:db8::16 * 00:04:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10\n"
        b"0 52:54:00:00:00:01 10.0.0.2 * *\n"
        b"1700000000 06-52:54:00:00:00:02 10.0.0.3 two 01:52:54:00:00:00:02\n"
        b"17000"
    )
    first, second, third, fourth = parser.parse(content)
    assert (first["mac-address"], first["iaid"], first["hostname"]) == ("52:54:00:aa:bb:cc", "5505024", "guest")
    assert ("mac-address" in second, second["iaid"], "hostname" in second) == (False, "99", False)
    assert third == {"ip-address": "10.0.0.2", "expiry-time": 0, "mac-address": "52:54:00:00:00:01"}
    assert (fourth["mac-address"], fourth["client-id"]) == ("52:54:00:00:00:02", "01:52:54:00:00:00:02")


def test_limits(service: Service, host: Callable[..., Host]) -> None:
    """A network's limits of bandwidth are in force, and go with it."""
    limits = "<bandwidth><inbound average='100' peak='200' burst='64'/><outbound average='50' burst='20'/></bandwidth>"
    network = service.driver.network_create_xml(xml(more=limits))
    whole, others = run("tc", "class", "show", "dev", "vb-n").splitlines()
    assert "htb 1:1 root rate 800Kbit ceil 1600Kbit" in whole
    assert "htb 1:2 parent 1:1" in others
    assert "rate 800Kbit ceil 1600Kbit burst 64Kb" in others
    rules = run("nft", "list", "table", "netdev", "virtd_vb_2dn")
    assert "limit rate over 50 kbytes/second burst 20 kbytes drop" in rules
    # A burst of 20 KiB passes; what is far above the average is lost.
    guest = host("g1", "vb-n")
    guest.lease()
    flood = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    flood += "for n in range(200): s.sendto(bytes(1000), ('10.66.1.1', 9999))"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("10.66.1.1", 9999))
        guest.run("python3", "-c", flood)
        sink.setblocking(False)
        received = 0
        try:
            while sink.recv(2000):
                received += 1
        except BlockingIOError:
            pass
    assert 5 < received < 120
    run("nft", "flush", "ruleset")
    assert service.driver.reapply() == []
    assert run("nft", "list", "table", "netdev", "virtd_vb_2dn") == rules
    service.driver.network_destroy(network)
    assert run("nft", "list", "tables") == ""
