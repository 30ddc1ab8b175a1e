"""Networks and ports: what libvirt 9.0.0 made of small documents, each about one thing, and what it refused them with.

measured.json holds them: the document, and what was measured. UUIDs are left out, and so are the MAC addresses and
names of bridges that libvirt chose.
"""

import json
import re
from pathlib import Path

import pytest

from virtd import constants as c
from virtd.conf.network import Network, format_network, format_port, parse_network, parse_port
from virtd.conf.network.update import update
from virtd.errors import VirtError

MEASURED = json.loads((Path(__file__).parent / "measured.json").read_text())
UUID = "81ff0d90-c91e-6742-64da-4a736edb9a9b"


@pytest.mark.parametrize("name", MEASURED)
def test_as_libvirt(name: str) -> None:
    case = MEASURED[name]
    if "error" in case:
        with pytest.raises(VirtError) as failure:
            parse_network(case["in"])
        assert [failure.value.code, failure.value.message] == case["error"]
        return
    text = format_network(parse_network(case["in"]))
    text = re.sub(r"  <uuid>.*</uuid>\n", "", text)
    assert text == case["out"]
    # What is written is read back as the same.
    network = parse_network(format_network(parse_network(case["in"])))
    assert parse_network(format_network(network)) == network


def test_metadata_is_kept_and_may_hold_anything() -> None:
    xml = f"""<network>
  <name>n</name>
  <uuid>{UUID}</uuid>
  <metadata>
    <a:ip xmlns:a="http://x/" address="1">
      <ip/>
    </a:ip>
  </metadata>
  <bridge name='b' stp='on' delay='0'/>
  <mac address='52:54:00:00:00:01'/>
  <ip address='10.0.0.1' prefix='24'>
  </ip>
</network>
"""
    assert format_network(parse_network(xml)) == xml


def test_live_values() -> None:
    forward = "<forward mode='vepa'><interface dev='a' connections='2'/></forward>"
    xml = f"<network connections='3'><name>n</name>{forward}</network>"
    live = format_network(parse_network(xml, inactive=False), live=True)
    assert "<network connections='3'>" in live
    assert "<interface dev='a' connections='2'/>" in live
    assert "connections" not in format_network(parse_network(xml, inactive=False))
    assert "connections" not in format_network(parse_network(xml), live=True)


PORT = f"""<networkport>
  <uuid>{UUID}</uuid>
  <owner>
    <name>guest</name>
    <uuid>22222222-c91e-6742-64da-4a736edb9a00</uuid>
  </owner>
  <group>g</group>
  <mac address='52:54:00:aa:bb:cc'/>
  <virtualport type='802.1Qbh'>
    <parameters profileid='p'/>
  </virtualport>
  <bandwidth>
    <inbound average='5' peak='6' floor='1' burst='7'/>
    <outbound average='3'/>
  </bandwidth>
  <vlan>
    <tag id='3'/>
  </vlan>
  <port isolated='yes'/>
  <rxfilters trustGuest='yes'/>
  <plug type='hostdev-pci' managed='yes'>
    <driver name='vfio'/>
    <address domain='0x0000' bus='0x01' slot='0x02' function='0x3'/>
  </plug>
</networkport>
"""


def test_port() -> None:
    assert format_port(parse_port(PORT)) == PORT


@pytest.mark.parametrize(
    ("before", "after", "code", "message"),
    [
        (f"<uuid>{UUID}</uuid>", "", c.VIR_ERR_INTERNAL_ERROR, "internal error: network port has no uuid"),
        ("<name>guest</name>", "", c.VIR_ERR_INTERNAL_ERROR, "internal error: network port has no owner name"),
        (UUID, "x", c.VIR_ERR_INTERNAL_ERROR, "internal error: Unable to parse UUID 'x'"),
        ("aa:bb:cc", "zz", c.VIR_ERR_INTERNAL_ERROR, "internal error: Unable to parse MAC '52:54:00:zz'"),
        (
            "hostdev-pci",
            "x",
            c.VIR_ERR_XML_ERROR,
            "XML error: Invalid value for attribute 'type' in element 'plug': 'x'.",
        ),
        ("hostdev-pci", "bridge", c.VIR_ERR_XML_ERROR, "XML error: Missing network port bridge name"),
        ("networkport", "foo", c.VIR_ERR_XML_ERROR, "XML error: expecting root element of 'networkport', not 'foo'"),
    ],
)
def test_port_refused(before: str, after: str, code: int, message: str) -> None:
    with pytest.raises(VirtError) as failure:
        parse_port(PORT.replace(before, after))
    assert (failure.value.code, failure.value.message) == (code, message)


def base() -> Network:
    return parse_network(
        "<network><name>u</name><forward mode='nat'/><bridge name='b'/><dns><host ip='10.0.0.9'><hostname>h</hostname>"
        "</host><txt name='t' value='v'/><srv service='s' protocol='tcp' target='x' port='5'/></dns>"
        "<ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.0.2' end='10.0.0.50'/>"
        "<host mac='52:54:00:00:00:01' name='a' ip='10.0.0.5'/></dhcp></ip>"
        "<ip family='ipv6' address='2001:db8::1' prefix='64'/><portgroup name='pg'/></network>"
    )


MODIFY, DELETE, LAST, FIRST = 1, 2, 3, 4
HOST, RANGE = c.VIR_NETWORK_SECTION_IP_DHCP_HOST, c.VIR_NETWORK_SECTION_IP_DHCP_RANGE
INTERFACE, GROUP = c.VIR_NETWORK_SECTION_FORWARD_INTERFACE, c.VIR_NETWORK_SECTION_PORTGROUP
DNS_HOST, TXT, SRV = c.VIR_NETWORK_SECTION_DNS_HOST, c.VIR_NETWORK_SECTION_DNS_TXT, c.VIR_NETWORK_SECTION_DNS_SRV


@pytest.mark.parametrize(
    ("section", "command", "element", "there", "gone"),
    [
        (HOST, LAST, "<host mac='52:54:00:00:00:02' ip='10.0.0.6'/>", "00:02' ip='10.0.0.6'/>\n    </dhcp>", None),
        (HOST, FIRST, "<host name='z' ip='10.0.0.6'/>", "<host name='z' ip='10.0.0.6'/>\n      <host mac", None),
        (HOST, MODIFY, "<host name='a' ip='10.0.0.7'/>", "<host name='a' ip='10.0.0.7'/>", "52:54"),
        (HOST, DELETE, "<host mac='52:54:00:00:00:01'/>", None, "<host mac"),
        (RANGE, FIRST, "<range start='10.0.0.60' end='10.0.0.61'/>", "10.0.0.61'/>\n      <range", None),
        (RANGE, DELETE, "<range start='10.0.0.2' end='10.0.0.50'/>", None, "<range"),
        (INTERFACE, LAST, "<interface dev='e0'/>", "<forward dev='e0' mode='nat'>\n    <interface dev='e0'/>", None),
        (GROUP, MODIFY, "<portgroup name='pg' default='yes'/>", "<portgroup name='pg' default='yes'>", None),
        (GROUP, DELETE, "<portgroup name='pg'/>", None, "<portgroup"),
        (DNS_HOST, LAST, "<host ip='10.0.0.8'><hostname>h</hostname></host>", "<host ip='10.0.0.8'>", None),
        (DNS_HOST, DELETE, "<host><hostname>h</hostname></host>", None, "<hostname>"),
        (TXT, FIRST, "<txt name='b' value=''/>", "<txt name='b' value=''/>\n    <txt name='t'", None),
        (TXT, DELETE, "<txt name='t'/>", None, "<txt"),
        (SRV, LAST, "<srv service='s' protocol='udp'/>", "<srv service='s' protocol='udp'/>", None),
        (SRV, DELETE, "<srv service='s'/>", None, "<srv"),
    ],
)
def test_update(section: int, command: int, element: str, there: str | None, gone: str | None) -> None:
    network = base()
    update(network, command, section, -1, element)
    text = format_network(network)
    assert there is None or there in text
    assert gone is None or gone not in text
    assert parse_network(text) == network


@pytest.mark.parametrize(
    ("section", "command", "element", "code", "text"),
    [
        (c.VIR_NETWORK_SECTION_BRIDGE, LAST, "<x/>", 84, "can't update 'bridge' section of network 'u'"),
        (13, LAST, "<x/>", 84, "can't update unrecognized section of network"),
        (HOST, LAST, "<x/>", 27, "unexpected element <x>, expecting <host>, while updating network 'u'"),
        (HOST, 9, "<host name='b' ip='10.0.0.7'/>", 84, "unrecognized network update command code 9"),
        (
            HOST,
            LAST,
            "<host name='b' ip='10.0.0.5'/>",
            55,
            "there is an existing dhcp host entry in network 'u' that matches "
            "\"<host mac='unknown' name='b' ip='10.0.0.5'/>\"",
        ),
        (HOST, DELETE, "<host name='b'/>", 55, "couldn't locate a matching dhcp host entry in network 'u'"),
        (
            RANGE,
            MODIFY,
            "<range start='10.0.0.6' end='10.0.0.7'/>",
            84,
            "dhcp ranges cannot be modified, only added or deleted",
        ),
        (
            INTERFACE,
            DELETE,
            "<interface dev='e9'/>",
            55,
            "couldn't find an interface entry in network 'u' matching <interface dev='e9'>",
        ),
        (
            GROUP,
            MODIFY,
            "<portgroup name='no'/>",
            55,
            "couldn't find a portgroup entry in network 'u' matching <portgroup name='no'>",
        ),
        (TXT, LAST, "<txt name='t' value='w'/>", 55, "there is already a DNS TXT record with name 't' in network u"),
        (SRV, DELETE, "<srv service='no'/>", 55, "couldn't locate a matching DNS SRV record in network u"),
        (DNS_HOST, DELETE, "<host/>", 35, "Missing ip and hostname in network 'u' DNS HOST record"),
    ],
)
def test_update_refused(section: int, command: int, element: str, code: int, text: str) -> None:
    with pytest.raises(VirtError) as failure:
        update(base(), command, section, -1, element)
    assert (failure.value.code, failure.value.detail) == (code, text)


def test_update_must_leave_a_network() -> None:
    """A DNS host in a network that has no DNS could be written, and never read again."""
    network = parse_network("<network><name>n</name><forward mode='bridge'/><bridge name='b'/></network>")
    with pytest.raises(VirtError, match="Unsupported <dns> element in network n"):
        update(network, LAST, DNS_HOST, -1, "<host ip='10.0.0.8'><hostname>h</hostname></host>")


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ("<forward dev='a'><interface dev='a'/><pf dev='b'/></forward>", "attribute cannot be used when <address> or"),
        ("<forward mode='passthrough' dev='a'><pf dev='a'/><pf dev='b'/></forward>", "attribute cannot be used when"),
        ("<forward mode='passthrough'><pf dev='a'/><pf dev='b'/></forward>", "Only one <pf> element is allowed in"),
        ("<vlan trunk='x'><tag id='1'/><tag id='2'/></vlan>", "trunk='yes' is required for more than one vlan tag"),
        ("<vlan trunk='x'><tag id='1'/></vlan>", "must be yes or no"),
        (
            "<ip address='10.0.0.1' prefix='24'><dhcp><range start='fd00::2' end='10.0.0.9'/></dhcp></ip>",
            "mismatch of address family in range fd00::2 - 10.0.0.9$",
        ),
        ("<bandwidth><inbound peak='3' floor='1'/></bandwidth>", "'peak' and 'burst' require 'average' attribute"),
    ],
)
def test_refused_as_libvirtd_does(inner: str, message: str) -> None:
    with pytest.raises(VirtError, match=message):
        parse_network(f"<network><name>n</name>{inner}</network>")


def test_what_is_empty_is_not_there() -> None:
    """A netmask, and one name of several; libvirtd takes both."""
    dns = "<dns><host ip='10.0.0.4'><hostname/><hostname>a</hostname></host></dns>"
    network = parse_network(f"<network><name>n</name>{dns}<ip address='10.0.0.1' netmask='' prefix='24'/></network>")
    shown = format_network(network)
    assert "netmask" not in shown
    assert shown.count("<hostname>") == 1
