"""Two Linux guests on virtual networks, and a server beyond them: all that passes between them, in one run.

Booting two guests is what costs; so one test goes through everything, step by step.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.drivers.network.conftest import Host, host, namespace, run  # noqa: F401 - fixtures
from tests.guests.linux import Guest
from tests.guests.xml import linux_domain
from tests.helpers.console import Console
from tests.helpers.instance import Instance

# No spanning tree: a new port would listen for seconds before it forwards.
NETWORKS = {
    "lan": "<forward mode='nat'/><bridge name='vb-lan' stp='off'/><domain name='lan' localOnly='yes'/>"
    "<ip address='10.61.1.1' prefix='24'><dhcp><range start='10.61.1.10' end='10.61.1.99'/></dhcp></ip>",
    "apart": "<bridge name='vb-apart' stp='off'/><port isolated='yes'/>"
    "<ip address='10.61.2.1' prefix='24'><dhcp><range start='10.61.2.10' end='10.61.2.99'/></dhcp></ip>",
}
NAMESPACE = "http://libvirt.org/schemas/network/dnsmasq/1.0"
# Nor need dnsmasq find out for seconds whether somebody has an address.
NO_PING = "<dnsmasq:options><dnsmasq:option value='no-ping'/></dnsmasq:options>"
MACS = {"one": "52:54:00:61:00:01", "two": "52:54:00:61:00:02"}


class Shell:
    """The shell of a guest's console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def run(self, command: str) -> str:
        """Run a command in the guest, which must succeed; returns what it wrote."""
        status, output = self._run(command)
        assert status == 0, f"{command}: {status}: {output}"
        return output

    def reaches(self, address: str) -> bool:
        """Whether it gets an answer from an address; what is on the way may only just have come up."""
        return self._run(f"ping -c 1 -W 1 {address} >/dev/null || ping -c 6 -w 6 {address} >/dev/null")[0] == 0

    def misses(self, address: str) -> bool:
        """Whether it gets no answer from an address, which others would get at once."""
        return self._run(f"ping -c 2 -w 2 {address} >/dev/null")[0] != 0

    def wake(self) -> None:
        """Wait until the console is connected to a shell that has long been there: what is typed before is lost."""
        for _ in range(30):
            self._console.type(b"\n")
            with suppress(AssertionError):
                self._console.until(b"guest# ", 1)
                return
        raise AssertionError("no shell answers")

    def _run(self, command: str) -> tuple[int, str]:
        # What is typed is shown, perhaps twice; it must not look like the answer.
        self._console.type(f'{command}; echo en""ded:$?\n'.encode())
        output = self._console.until(b"ended:", 60).decode(errors="replace")
        return int(self._console.until(b"\r\n")), output


@pytest.fixture
def service(namespace: None, instance: Instance) -> Iterator[Instance]:  # noqa: F811
    """A virtd with the networks, in a namespace of its own."""
    instance.start()
    for name, inner in NETWORKS.items():
        path = instance.root / f"{name}.xml"
        path.write_text(f"<network xmlns:dnsmasq='{NAMESPACE}'><name>{name}</name>{inner}{NO_PING}</network>")
        instance.virsh("net-create", str(path))
    yield instance
    for name in instance.virsh("list", "--name").split():
        instance.virsh("destroy", name)
    for name in NETWORKS:
        instance.virsh("net-destroy", name)
    assert links() <= {"lo", "uplink"}
    assert run("nft", "list", "ruleset") == ""


def links() -> set[str]:
    """The names of all network devices of the namespace."""
    return {link["ifname"] for link in json.loads(run("ip", "-json", "link"))}


def card(name: str, network: str, more: str = "") -> str:
    return (
        f"<interface type='network'><mac address='{MACS[name]}'/><source network='{network}'/>"
        f"<model type='virtio'/>{more}</interface>"
    )


def test_two_guests(
    service: Instance,
    linux_guest: Guest,
    host: Callable[..., Host],  # noqa: F811
) -> None:
    outside = host("uplink")
    run("ip", "addr", "add", "192.0.2.1/24", "dev", "uplink")
    outside.run("ip", "addr", "add", "192.0.2.9/24", "dev", "eth0")
    with ExitStack() as opened:
        consoles = {}
        for name in MACS:
            options = ("virtd.net=dhcp", f"virtd.name={name}")
            service.define(linux_domain(name, linux_guest, *options, devices=card(name, "lan")))
            service.virsh("start", name)
            consoles[name] = opened.enter_context(service.console(name))
        shells = {}
        for name, console in consoles.items():
            console.until(b"guest# ", seconds=90)
            shells[name] = Shell(console)
        addresses = leases_are_known(service)
        they_talk(shells, addresses)
        names_are_known(service, shells, addresses)
        the_way_out(service, shells["one"], outside)
        the_link_is_switched(service, shells["one"], addresses["two"])
        shells = virtd_is_killed(service, opened, shells, addresses)
        isolated_ports(service, shells)
        a_card_comes_and_goes(service, shells["one"])


def leases_are_known(service: Instance) -> dict[str, str]:
    """Both have addresses of the network's; net-dhcp-leases and domifaddr know them. Returns them."""
    table = {
        row.split()[2]: row.split() for row in service.virsh("net-dhcp-leases", "lan").splitlines() if "ipv4" in row
    }
    found = {}
    for name, mac in MACS.items():
        address = table[mac][4]
        assert re.fullmatch(r"10\.61\.1\.\d+/24", address)
        assert table[mac][5] == name
        assert address in service.virsh("domifaddr", name)
        found[name] = address.partition("/")[0]
    assert MACS["two"] not in service.virsh("net-dhcp-leases", "lan", MACS["one"])
    return found


def they_talk(shells: dict[str, Shell], addresses: dict[str, str]) -> None:
    shells["one"].run(f"ping -c 1 -W 5 {addresses['two']}")
    shells["two"].run(f"ping -c 1 -W 5 {addresses['one']}")


def names_are_known(service: Instance, shells: dict[str, Shell], addresses: dict[str, str]) -> None:
    """Each other's names, by dnsmasq; whom the host has talked to, from its table; for all programs of the host, by
    libvirt's module for glibc.
    """
    assert addresses["two"] in shells["one"].run("nslookup two.lan")
    shells["one"].run("ping -c 1 -W 5 two")
    shells["one"].run("ping -c 1 -W 5 10.61.1.1")
    assert addresses["one"] in service.virsh("domifaddr", "one", "--source", "arp")
    files = service.root / "var/lib/virtd/dnsmasq"
    for database, name in (("libvirt", "two"), ("libvirt_guest", "one")):
        mount = f"mkdir -p /var/lib/libvirt/dnsmasq && mount --bind {files} /var/lib/libvirt/dnsmasq"
        command = f"{mount} && exec getent -s hosts:{database} hosts {name}"
        done = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, check=False)
        assert done.stdout.split()[:1] == [addresses[name]], (database, done)


def the_way_out(service: Instance, shell: Shell, outside: Host) -> None:
    """A server beyond the host sees the host's address; it cannot reach the guest of itself."""
    (service.root / "page").write_text("hello\n")
    server = subprocess.Popen(
        ["nsenter", "-t", str(outside.pid), "-n", "busybox", "httpd", "-f", "-v", "-p", "80", "-h", str(service.root)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "hello" in shell.run("for n in 1 2 3 4 5; do wget -q -O - http://192.0.2.9/page && break; sleep 1; done")
        assert server.stderr is not None
        assert "192.0.2.1" in server.stderr.readline()
    finally:
        server.kill()
        server.wait()


def the_link_is_switched(service: Instance, shell: Shell, address: str) -> None:
    service.virsh("domif-setlink", "one", "vnet0", "down")
    assert service.virsh("domif-getlink", "one", "vnet0").split() == ["vnet0", "down"]
    assert shell.misses(address)
    service.virsh("domif-setlink", "one", "vnet0", "up")
    assert shell.reaches(address)


def virtd_is_killed(
    service: Instance, opened: ExitStack, shells: dict[str, Shell], addresses: dict[str, str]
) -> dict[str, Shell]:
    """kill -9 of everything in virtd: guests go on talking, and what was running is found again."""
    leased = service.virsh("net-dhcp-leases", "lan")
    shells["one"].run(f"(ping -i 0.2 {addresses['two']} >/run/ping & echo $! >/run/pid)")
    assert len(service.kill("virtd: ")) >= 5  # the server, two guests' supervisors, two networks'
    for address in addresses.values():
        run("busybox", "ping", "-c", "2", "-W", "5", address)
    service.start()
    assert service.virsh("net-dhcp-leases", "lan") == leased
    assert service.virsh("domstate", "one") == "running"
    again = {name: Shell(opened.enter_context(service.console(name))) for name in shells}
    for shell in again.values():
        shell.wake()
    assert " 0% packet loss" in again["one"].run("kill -INT $(cat /run/pid); sleep 1; cat /run/ping")
    assert addresses["two"] in again["one"].run("nslookup two.lan")
    return again


def isolated_ports(service: Instance, shells: dict[str, Shell]) -> None:
    """Both are moved to a network whose ports are isolated: they reach the host, but not each other."""
    found = {}
    for number, (name, shell) in enumerate(shells.items(), 50):
        path = service.root / "card.xml"
        path.write_text(card(name, "apart"))
        service.virsh("update-device", name, str(path))
        found[name] = f"10.61.2.{number}"
        shell.run(f"ip addr flush dev eth0; ip addr add {found[name]}/24 dev eth0")
        assert shell.reaches("10.61.2.1")
    assert shells["one"].misses(found["two"])
    assert len(service.virsh("net-port-list", "apart").split()) == 2
    assert service.virsh("net-port-list", "lan").split() == []


def a_card_comes_and_goes(service: Instance, shell: Shell) -> None:
    """A second card, with limits: the guest sees it, gets an address with it, and lets go of it when it is asked to."""
    service.virsh("attach-interface", "one", "network", "lan", "--model", "virtio", "--outbound", "500", "--live")
    shell.run("for n in 1 2 3 4 5 6 7 8; do [ -e /sys/class/net/eth1 ] && break; sleep 1; done; ip link set eth1 up")
    assert "10.61.1." in shell.run("udhcpc -i eth1 -s /run/dhcp -t 10 -T 1 -n -q")
    _, _, _, mac = next(row.split()[1:] for row in service.virsh("domiflist", "one").splitlines() if "lan" in row)
    assert mac in service.virsh("net-dhcp-leases", "lan")
    assert "limit rate over 500 kbytes" in run("nft", "list", "ruleset")
    before = links()
    service.virsh("detach-interface", "one", "network", "--mac", mac, "--live")
    assert len(links()) == len(before) - 1
    assert mac not in service.virsh("domiflist", "one")
    assert service.virsh("net-port-list", "lan").split() == []
    assert "limit" not in run("nft", "list", "ruleset")
    shell.run("[ ! -e /sys/class/net/eth1 ]")
    assert not Path("/sys/class/net/eth1").exists()
