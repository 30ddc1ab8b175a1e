"""What dnsmasq does for a network beyond addresses: booting from the network, records, forwarders; asked for real."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.drivers.network.conftest import Host, Service, run

LINK = "<bridge name='vb-n' stp='off'/>"
OPTIONS = (
    "<d:options><d:option value='no-ping'/><d:option value='address=/by-option.test/10.66.1.77'/></d:options></network>"
)


def network(inner: str, name: str = "n") -> str:
    return f"<network xmlns:d='http://libvirt.org/schemas/network/dnsmasq/1.0'><name>{name}</name>{inner}{OPTIONS}"


def ask(guest: Host, kind: str, name: str, server: str = "10.66.1.1") -> str:
    """What a name server answers to a query of a type."""
    return guest.run("busybox", "nslookup", f"-type={kind}", name, server, check=False)


def test_booting_from_the_network(service: Service, host: Callable[..., Host], tmp_path: Path) -> None:
    """A guest is told which file to load, and gets it by TFTP."""
    (tmp_path / "boot.img").write_text("the kernel\n")
    for directory in (tmp_path, *list(tmp_path.parents)[:3]):
        directory.chmod(0o755)  # dnsmasq's user passes through it
    created = service.driver.network_create_xml(
        network(
            f"{LINK}<ip address='10.66.1.1' prefix='24'><tftp root='{tmp_path}'/><dhcp>"
            "<range start='10.66.1.10' end='10.66.1.20'/><bootp file='boot.img'/></dhcp></ip>"
        )
    )
    guest = host("g1", "vb-n")
    script = tmp_path / "dhcp.sh"
    script.write_text('#!/bin/sh\n[ "$1" != bound ] || { echo file=$boot_file; ip addr add $ip/$mask dev eth0; }\n')
    script.chmod(0o755)
    said = guest.run("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-T", "1", "-s", str(script))
    assert "file=boot.img" in said
    copy = tmp_path / "copy"
    guest.run("busybox", "tftp", "-g", "-r", "boot.img", "-l", str(copy), "10.66.1.1")
    assert copy.read_text() == "the kernel\n"
    service.driver.network_destroy(created)


def test_records(service: Service, host: Callable[..., Host]) -> None:
    """Services, texts and names of the XML, a line for dnsmasq itself; what is not known stays in the network."""
    created = service.driver.network_create_xml(
        network(
            f"{LINK}<domain name='lab' localOnly='yes'/><dns forwardPlainNames='no'>"
            "<txt name='note' value='hello there'/><srv service='ldap' protocol='tcp' domain='lab' target='a.lab' "
            "port='389' priority='5' weight='6'/><host ip='10.66.1.9'><hostname>printer</hostname></host></dns>"
            "<ip address='10.66.1.1' prefix='24' localPtr='yes'/>"
        )
    )
    guest = host("g1", "vb-n")
    guest.run("ip", "addr", "add", "10.66.1.5/24", "dev", "eth0")
    assert "hello there" in ask(guest, "txt", "note")
    assert "5 6 389 a.lab" in ask(guest, "srv", "_ldap._tcp.lab")
    assert "10.66.1.9" in ask(guest, "a", "printer.lab")
    assert "10.66.1.77" in ask(guest, "a", "by-option.test")
    assert "NXDOMAIN" in ask(guest, "a", "nobody.lab")
    service.driver.network_destroy(created)


def test_forwarders(service: Service, host: Callable[..., Host]) -> None:
    """One network's dnsmasq asks another's, for one domain only; where names are switched off nobody answers."""
    driver = service.driver
    above = driver.network_create_xml(
        network(
            "<bridge name='vb-up' stp='off'/><dns><host ip='10.66.2.9'><hostname>far.example</hostname></host>"
            "<host ip='10.66.2.8'><hostname>far.other</hostname></host></dns>"
            "<ip address='10.66.2.1' prefix='24'/>",
            "up",
        )
    )
    below = driver.network_create_xml(
        network(
            f"{LINK}<forward mode='nat'/><dns><forwarder domain='example' addr='10.66.2.1'/></dns>"
            "<ip address='10.66.1.1' prefix='24'/>"
        )
    )
    silent = driver.network_create_xml(
        "<network><name>s</name><bridge name='vb-s' stp='off'/><dns enable='no'/><ip address='10.66.3.1' prefix='24'>"
        "<dhcp><range start='10.66.3.2' end='10.66.3.9'/></dhcp></ip></network>"
    )
    guest, other = host("g1", "vb-n"), host("g2", "vb-s")
    guest.run("ip", "addr", "add", "10.66.1.5/24", "dev", "eth0")
    other.run("ip", "addr", "add", "10.66.3.5/24", "dev", "eth0")
    assert "10.66.2.9" in ask(guest, "a", "far.example")
    assert "10.66.2.8" not in ask(guest, "a", "far.other")
    closed = "import socket; socket.create_connection(('10.66.3.1', 53), 5)"
    done = subprocess.run(
        ["nsenter", "-t", str(other.pid), "-n", "python3", "-c", closed], capture_output=True, text=True, check=False
    )
    assert "ConnectionRefusedError" in done.stderr
    for one in (above, below, silent):
        driver.network_destroy(one)


def test_mtu(service: Service, host: Callable[..., Host]) -> None:
    """A network's MTU is its bridge's, and what guests are told."""
    created = service.driver.network_create_xml(
        network(
            f"{LINK}<mtu size='1400'/><ip address='10.66.1.1' prefix='24'><dhcp>"
            "<range start='10.66.1.10' end='10.66.1.20'/></dhcp></ip>"
        )
    )
    assert "mtu 1400" in run("ip", "link", "show", "vb-n")
    host("g1", "vb-n").lease()
    assert "mtu 1400" in run("ip", "link", "show", "vb-n")
    service.driver.network_destroy(created)
