"""Guests on virtual networks, in a network namespace of the test's own: real bridges, real dnsmasq, real NAT."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from tests.drivers.network.conftest import namespace, run  # noqa: F401 - a fixture
from tests.guests.linux import Guest
from tests.guests.xml import linux_domain
from tests.helpers.instance import Instance

NETWORK = """<network><name>default</name><forward mode='nat'/><bridge name='virbr0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
  </ip></network>"""
CARD = "<interface type='network'><source network='default'/><model type='virtio'/></interface>"


@pytest.fixture
def on_network(namespace: None, instance: Instance) -> Iterator[Instance]:  # noqa: F811
    """A virtd with the network 'default', in a namespace of its own."""
    instance.start()
    (instance.root / "net.xml").write_text(NETWORK)
    instance.virsh("net-define", str(instance.root / "net.xml"))
    instance.virsh("net-start", "default")
    yield instance
    for name in instance.virsh("list", "--name").split():
        instance.virsh("destroy", name)
    instance.virsh("net-destroy", "default")
    assert links() == {"lo"}
    assert run("nft", "list", "ruleset") == ""


def links() -> set[str]:
    """The names of all network devices of the namespace."""
    return {link["ifname"] for link in json.loads(run("ip", "-json", "link"))}


def test_a_linux_guest_gets_its_address_from_dnsmasq(on_network: Instance, linux_guest: Guest) -> None:
    on_network.define(linux_domain("web1", linux_guest, "virtd.net=dhcp", devices=CARD))
    on_network.virsh("start", "web1")
    assert "vnet0" in links()
    with on_network.console("web1") as console:
        console.until(b"guest# ", seconds=60)
        console.type(b"ip -o -4 addr show\n")
        console.until(b"192.168.122.")
        console.type(b"ping -c 1 192.168.122.1\n")
        console.until(b"1 packets received")
    leases = on_network.virsh("net-dhcp-leases", "default")
    assert "192.168.122." in leases
    assert len(on_network.virsh("net-port-list", "default").split()) == 1
    on_network.virsh("destroy", "web1")
    assert links() == {"lo", "virbr0"}
    assert len(on_network.virsh("net-port-list", "default").split()) == 0


def test_a_guest_whose_network_is_not_active_is_not_started(on_network: Instance, linux_guest: Guest) -> None:
    on_network.define(linux_domain("web1", linux_guest, devices=CARD))
    on_network.virsh("net-destroy", "default")
    error = on_network.virsh_error("start", "web1")
    assert "Requested operation is not valid: network 'default' is not active" in error
    assert on_network.virsh("domstate", "web1") == "shut off"
    on_network.virsh("net-start", "default")


def test_many_clients_start_guests_on_one_network_at_once(on_network: Instance, libvirt: ModuleType) -> None:
    """Each start connects to the server that is doing it: what a server of one process would hang at."""
    count = 50

    def start(number: int) -> None:
        connection = libvirt.open(on_network.uri)
        connection.createXML(
            f"""<domain type='qemu'><name>g{number}</name><memory unit='MiB'>16</memory>
            <os><type>hvm</type></os><devices>{CARD}</devices></domain>""",
            libvirt.VIR_DOMAIN_START_PAUSED,
        )
        connection.close()

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(start, range(count)))
    assert len([name for name in links() if name.startswith("vnet")]) == count
    assert len(on_network.virsh("list", "--name").split()) == count
