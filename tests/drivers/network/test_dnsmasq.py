"""dnsmasq's files and the packet filter's rules, as they follow from the XML; no dnsmasq and no kernel."""

import pytest

from virtd.conf.network import parse_network
from virtd.drivers.network import dnsmasq, firewall
from virtd.errors import VirtError

WHERE = dnsmasq.Files("/D", "/L/leases", "/log")
NAT = "<forward mode='nat'/>"
V4 = "<ip address='10.9.0.1' prefix='24'>{}</ip>"
V6 = "<ip family='ipv6' address='2001:db8:9::1' prefix='64'>{}</ip>"
RANGE = "<range start='10.9.0.2' end='10.9.0.9'/>"
ALWAYS = ["strict-order", "pid-file=/D/dnsmasq.pid", "except-interface=lo", "bind-dynamic", "interface=b"]
ALONE = ["dhcp-option=3", "no-resolv", "ra-param=*,0,0"]
NAMES = "addn-hosts=/D/addnhosts"
HOSTS = "dhcp-hostsfile=/D/hostsfile"
OF_4 = ["dhcp-no-override", "dhcp-authoritative"]


def lines(inner: str) -> list[str]:
    network = parse_network(f"<network><name>n</name><bridge name='b'/>{inner}</network>")
    return [line for line in dnsmasq.configuration(network, WHERE).splitlines() if line[0] != "#"]


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (V4.format(""), [*ALWAYS, *ALONE, NAMES]),
        (NAT + V4.format(""), [*ALWAYS, NAMES]),
        (
            NAT
            + "<dns><forwarder addr='8.8.8.8'/><forwarder domain='a.b' addr='8.8.4.4'/><forwarder domain='c'/></dns>"
            + V4.format(""),
            [ALWAYS[0], "server=8.8.8.8", "server=/a.b/8.8.4.4", "server=/c/#", "no-resolv", *ALWAYS[1:], NAMES],
        ),
        (
            NAT + "<dns forwardPlainNames='no'/><domain name='d.e' localOnly='yes'/>" + V4.format(""),
            [ALWAYS[0], "local=/d.e/", "domain=d.e", "expand-hosts", "domain-needed", "local=//", *ALWAYS[1:], NAMES],
        ),
        (
            NAT + "<dns enable='no'/>" + V4.format(f"<dhcp>{RANGE}</dhcp>"),
            [
                ALWAYS[0],
                "port=0",
                *ALWAYS[1:],
                "dhcp-range=10.9.0.2,10.9.0.9,255.255.255.0",
                *OF_4,
                "dhcp-lease-max=8",
                HOSTS,
            ],
        ),
        (
            NAT + V4.format("<dhcp><host mac='52:54:00:00:00:01' ip='10.9.0.5'/></dhcp>"),
            [*ALWAYS, "dhcp-range=10.9.0.1,static", *OF_4, HOSTS, NAMES],
        ),
        (
            NAT
            + "<mtu size='1400'/>"
            + V4.format(
                "<tftp root='/t'/><dhcp><range start='10.9.0.2' end='10.9.0.3'><lease expiry='3' unit='hours'/></range>"
                "<range start='10.9.0.4' end='10.9.0.4'><lease expiry='0'/></range>"
                "<bootp file='p' server='10.9.0.3'/></dhcp>"
            ),
            [
                *ALWAYS,
                "enable-tftp",
                "tftp-root=/t",
                "dhcp-range=10.9.0.2,10.9.0.3,255.255.255.0,3h",
                "dhcp-range=10.9.0.4,10.9.0.4,255.255.255.0,infinite",
                *OF_4,
                "dhcp-boot=p,,10.9.0.3",
                "dhcp-lease-max=3",
                HOSTS,
                NAMES,
                "dhcp-option=option:mtu,1400",
            ],
        ),
        (NAT + V6.format(""), [*ALWAYS, NAMES, "dhcp-range=2001:db8:9::1,ra-only"]),
        (
            NAT + V6.format("<dhcp><range start='2001:db8:9::5' end='2001:db8:9::9'/></dhcp>"),
            [*ALWAYS, "dhcp-range=2001:db8:9::5,2001:db8:9::9,64", "dhcp-lease-max=5", HOSTS, NAMES, "enable-ra"],
        ),
        (
            NAT
            + "<dns><txt name='t' value='v w'/><srv service='a' protocol='tcp'/>"
            + "<srv service='a' protocol='tcp' domain='d' target='t' weight='3'/>"
            + "<srv service='a' protocol='udp' target='t' priority='3'/>"
            + "<srv service='a' protocol='tcp' target='.'/></dns>"
            + V4.format(""),
            [
                *ALWAYS,
                "txt-record=t,v w",
                "srv-host=_a._tcp",
                "srv-host=_a._tcp.d,t,1,0,3",
                "srv-host=_a._udp,t,1,3",
                "srv-host=_a._tcp",
                NAMES,
            ],
        ),
        (
            NAT
            + "<ip address='10.9.0.1' prefix='16' localPtr='yes'/>"
            + "<ip family='ipv6' address='2001:db8:9::1' prefix='56' localPtr='yes'/>",
            [
                ALWAYS[0],
                "local=/9.10.in-addr.arpa/",
                "local=/0.0.9.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa/",
                *ALWAYS[1:],
                NAMES,
                "dhcp-range=2001:db8:9::1,ra-only",
            ],
        ),
        (
            NAT
            + V4.format("")
            + "<d:options xmlns:d='http://libvirt.org/schemas/network/dnsmasq/1.0'>"
            + "<d:option value='log-dhcp'/></d:options>",
            [*ALWAYS, NAMES, "log-dhcp"],
        ),
    ],
)
def test_configuration(inner: str, expected: list[str]) -> None:
    assert lines(inner) == expected


def test_what_cannot_be_said() -> None:
    text = "PTR domain for IPv4 network with prefix 20 cannot be automatically created"
    with pytest.raises(VirtError, match=text):
        lines("<ip address='10.9.0.1' prefix='20' localPtr='yes'/>")
    with pytest.raises(VirtError, match="line break"):
        lines("<domain name='x&#10;dhcp-script=/bin/sh'/>" + V4.format(""))


def test_hosts_and_names() -> None:
    network = parse_network(
        "<network><name>n</name><dns><host ip='10.9.0.9'><hostname>q</hostname><hostname>r</hostname></host></dns>"
        + V4.format(
            "<dhcp><host mac='52:54:00:00:00:01' name='n' ip='10.9.0.5'><lease expiry='5'/></host>"
            "<host mac='52:54:00:00:00:02' ip='10.9.0.6'><lease expiry='0'/></host>"
            "<host name='o' ip='10.9.0.7'/></dhcp>"
        )
        + V6.format("<dhcp><host id='0:1' name='p' ip='2001:db8:9::6'/><host name='s' ip='2001:db8:9::7'/></dhcp>")
        + "</network>"
    )
    assert dnsmasq.hosts_file(network).splitlines() == [
        "52:54:00:00:00:01,10.9.0.5,n,5m",
        "52:54:00:00:00:02,10.9.0.6,infinite",
        "o,10.9.0.7",
        "id:0:1,p,[2001:db8:9::6]",
        "s,[2001:db8:9::7]",
    ]
    assert dnsmasq.names_file(network) == "10.9.0.9\tq\tr\t\n"


@pytest.mark.parametrize(
    ("inner", "needed"),
    [
        ("", False),
        ("<domain name='a'/>", False),
        (V4.format(""), True),
        ("<dns enable='no'/>" + V4.format(""), False),
        ("<dns enable='no'/>" + V4.format("<tftp root='/t'/>"), True),
        ("<dns enable='no'/>" + V4.format(f"<dhcp>{RANGE}</dhcp>"), True),
        ("<forward mode='bridge'/><bridge name='b'/>", False),
    ],
)
def test_needed(inner: str, needed: bool) -> None:
    assert dnsmasq.needed(parse_network(f"<network><name>n</name>{inner}</network>")) == needed


def rules(forward: str, ips: str) -> list[str]:
    network = parse_network(f"<network><name>n</name><bridge name='b'/>{forward}{ips}</network>")
    return [line.strip() for line in firewall.rules(network) if " " in line.strip() and "chain" not in line]


def test_rules_of_nat() -> None:
    forward = "<forward mode='nat' dev='e'><nat ipv6='yes'><address start='1.2.3.4' end='1.2.3.5'/>"
    forward += "<port start='500' end='600'/></nat></forward>"
    found = rules(forward, V4.format("") + V6.format(""))
    assert 'oifname "b" iifname "e" ip daddr 10.9.0.0/24 ct state related,established accept' in found
    assert 'iifname "b" oifname "e" ip6 saddr 2001:db8:9::/64 accept' in found
    leaving = 'ip saddr 10.9.0.0/24 ip daddr != 10.9.0.0/24 oifname "e"'
    assert f"meta l4proto {{ tcp, udp }} {leaving} snat ip to 1.2.3.4-1.2.3.5:500-600" in found
    assert f"{leaving} snat ip to 1.2.3.4-1.2.3.5" in found
    leaving = 'ip6 saddr 2001:db8:9::/64 ip6 daddr != 2001:db8:9::/64 oifname "e"'
    assert f"{leaving} masquerade" in found


def test_rules_of_the_others() -> None:
    assert rules("", V4.format(""))[1:] == [
        'iifname "b" oifname "b" accept',
        'oifname "b" reject',
        'iifname "b" reject',
    ]
    routed = rules("<forward mode='route'/>", V4.format(""))
    assert 'oifname "b" ip daddr 10.9.0.0/24 accept' in routed
    assert not any("masquerade" in line or "snat" in line for line in routed)
    # Without NAT of IPv6 the network is routed there.
    assert 'oifname "b" ip6 daddr 2001:db8:9::/64 accept' in rules(NAT, V4.format("") + V6.format(""))


def test_table_names_are_nfts() -> None:
    assert firewall.table_name("virbr0") == "virtd_virbr0"
    assert firewall.table_name("a-b.c") == "virtd_a_2db_2ec"
    assert len({firewall.table_name(name) for name in ("a-b", "a_b", "a.b", "a_2db")}) == 4
