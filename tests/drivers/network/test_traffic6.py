"""What guests have of a network with IPv6: addresses by advertisements and by DHCP, names, a way out; real packets."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.network.conftest import Host, Service, run
from tests.helpers.waiting import wait_for
from virtd import constants as c
from virtd.protocol.records import DhcpLease, Network

NET = "fd00:66:1"
REACHED = " 0% packet loss"


def xml(*, forward: str = "", dhcp: str = "", more: str = "") -> str:
    return (
        f"<network><name>n</name>{forward}<bridge name='vb-n' stp='off'/>{more}"
        f"<ip family='ipv6' address='{NET}::1' prefix='64'>{dhcp}</ip></network>"
    )


DHCP = f"<dhcp><range start='{NET}::100' end='{NET}::1ff'/><host name='fixed' ip='{NET}::42'/></dhcp>"


def plug(guest: Host, bridge: str = "vb-n") -> None:
    """Switch a machine's link on at a bridge, so that it asks for a router, at once."""
    guest.run("ip", "link", "set", "eth0", "down")
    guest.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad")
    run("ip", "link", "set", guest.name, "master", bridge)
    guest.run("ip", "link", "set", "eth0", "up")


def lease(guest: Host, directory: Path, *options: str) -> str:
    """Ask for an address by DHCPv6, and take it."""
    script = directory / "dhclient"
    bound = directory / "bound"
    script.write_text(
        '#!/bin/sh\n[ -n "$new_ip6_address" ] || exit 0\n'
        f"ip -6 addr replace $new_ip6_address/128 dev eth0 nodad && touch {bound}\n"
    )
    script.chmod(0o755)
    files = ["-sf", str(script), "-lf", str(directory / "leases"), "-pf", str(directory / "pid")]
    (directory / "leases").touch()
    (directory / "conf").write_text("".join(f"{option};\n" for option in options))
    guest.run("dhclient", "-6", "-1", "-nw", *files, "-cf", str(directory / "conf"), "eth0")
    # It writes the lease down first, and has the script run then.
    wait_for(bound.exists, directory=directory)
    pid = int((directory / "pid").read_text())
    os.kill(pid, 9)
    return next(
        line.split()[1] for line in (directory / "leases").read_text().splitlines() if line.strip().startswith("iaaddr")
    )


def leases(service: Service, network: Network) -> list[DhcpLease]:
    """The network's leases, when there are any."""
    found: list[DhcpLease] = []

    def there() -> bool:
        found[:] = service.driver.network_get_dhcp_leases(network, None, 1, 0)[0]
        return bool(found)

    wait_for(there, directory=f"{service.root}/var/lib/virtd/dnsmasq")
    return found


def routers(guest: Host) -> list[str]:
    """The devices over which a machine has learnt of a way out, when there is one."""
    for _ in range(50):
        routes = json.loads(guest.run("ip", "-6", "-json", "route", "show", "default"))
        if routes:
            return [route["dev"] for route in routes]
        guest.run("timeout", "0.2", "ip", "-6", "monitor", "route", check=False)
    return []


def ping(guest: Host, address: str, *, tries: int = 5) -> bool:
    """Whether an address answers; the first packets may get lost while neighbours are found."""
    command = ["busybox", "ping", "-6", "-c", "1", "-W", "2", address]
    return any(REACHED in guest.run(*command, check=False) for _ in range(tries))


@pytest.fixture
def outside(host: Callable[..., Host]) -> Host:
    """A machine beyond the host, 2001:db8::9, which knows of no network of guests."""
    found = host("uplink")
    run("ip", "addr", "add", "2001:db8::1/64", "dev", "uplink", "nodad")
    found.run("ip", "addr", "add", "2001:db8::9/64", "dev", "eth0", "nodad")
    return found


@pytest.mark.parametrize("mode", ["nat", "nat without IPv6", "route"])
def test_dhcp_and_the_way_out(
    service: Service, host: Callable[..., Host], outside: Host, tmp_path: Path, mode: str
) -> None:
    """A guest gets an address by DHCPv6 and the host as its router; its packets appear outside as the mode says."""
    forward = "<forward mode='route'/>" if mode == "route" else "<forward mode='nat'><nat ipv6='yes'/></forward>"
    if mode == "nat without IPv6":
        forward = "<forward mode='nat'/>"
    network = service.driver.network_create_xml(xml(forward=forward, dhcp=DHCP, more="<domain name='six'/>"))
    guest = host("g1")
    plug(guest)
    assert routers(guest) == ["eth0"]
    address = lease(guest, tmp_path, 'send fqdn.fqdn "first"', "send fqdn.encoded on")
    assert address.startswith(f"{NET}::1")
    (found,) = leases(service, network)
    assert (found.ipaddr, found.type, found.prefix, found.mac) == (address, c.VIR_IP_ADDR_TYPE_IPV6, 64, guest.mac)
    assert found.iaid
    assert ping(guest, f"{NET}::1")
    assert address in guest.run("busybox", "nslookup", "-type=aaaa", "first.six", f"{NET}::1", check=False)
    if mode == "route":
        outside.run("ip", "route", "add", f"{NET}::/64", "via", "2001:db8::1")
    reached = ping(guest, "2001:db8::9", tries=1 if mode == "nat without IPv6" else 5)
    assert reached == (mode != "nat without IPv6")
    assert ping(outside, address, tries=5 if mode == "route" else 1) == (mode == "route")
    seen = outside.run("ip", "-6", "neighbour")
    assert ("2001:db8::1 " in seen) == reached
    service.driver.network_destroy(network)


def test_addresses_by_advertisements(service: Service, host: Callable[..., Host]) -> None:
    """Without DHCP guests make their addresses themselves; an isolated network is no way out."""
    network = service.driver.network_create_xml(xml())
    guest = host("g1")
    plug(guest)
    own = ""
    for _ in range(50):
        table = json.loads(guest.run("ip", "-6", "-json", "addr", "show", "dev", "eth0", "scope", "global"))
        own = next((one["local"] for entry in table for one in entry.get("addr_info", [])), "")
        if own:
            break
        guest.run("timeout", "0.2", "ip", "-6", "monitor", "address", check=False)
    assert own.startswith(f"{NET}:")
    assert ping(guest, f"{NET}::1")
    assert json.loads(guest.run("ip", "-6", "-json", "route", "show", "default")) == []
    service.driver.network_destroy(network)


def test_a_host_with_a_fixed_address(service: Service, host: Callable[..., Host], tmp_path: Path) -> None:
    network = service.driver.network_create_xml(xml(dhcp=DHCP))
    guest = host("g1")
    plug(guest)
    assert lease(guest, tmp_path, 'send fqdn.fqdn "fixed"', "send fqdn.encoded on") == f"{NET}::42"
    service.driver.network_destroy(network)
