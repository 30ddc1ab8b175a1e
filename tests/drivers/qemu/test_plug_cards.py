"""Network cards of guests that run: plugged in, moved, limited, taken away; in a network namespace, with real bridges.

The guests are stopped or do not listen to the host: what a guest is asked to let go of goes with its next reset.
"""

import ctypes
import json
import os
import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.network.conftest import namespace, run  # noqa: F401 - a fixture
from tests.drivers.qemu.instance import Instance
from tests.helpers.waiting import ends, wait_for
from virtd import constants as c
from virtd.drivers.base import Context, Identity
from virtd.drivers.network.driver import NetworkDriver
from virtd.drivers.qemu.driver import QemuDriver
from virtd.drivers.qemu.plug import live as plugging
from virtd.drivers.qemu.run import launch
from virtd.errors import VirtError
from virtd.protocol.records import Domain, TypedParam, TypedValue
from virtd.state import paths

LIVE, CONFIG = c.VIR_DOMAIN_AFFECT_LIVE, c.VIR_DOMAIN_AFFECT_CONFIG
MAC = "52:54:00:11:22:33"
_CLONE_NEWNS = 0x00020000


@pytest.fixture
def instance(namespace: None) -> Iterator[Instance]:  # noqa: F811
    made = Instance()
    yield made
    made.close()


@pytest.fixture
def networks(instance: Instance) -> Iterator[NetworkDriver]:
    """The network service of the same instance, with networks 'one', 'two', and 'outside', on a bridge of the host."""
    pid = os.getpid()
    driver = NetworkDriver(Context(paths.below(instance.root), Identity(os.geteuid(), os.getegid(), pid), pid))
    run("ip", "link", "add", "br0", "type", "bridge")
    for xml in (
        "<network><name>one</name><bridge name='vb1'/><portgroup name='slow'>"
        "<bandwidth><outbound average='20'/></bandwidth></portgroup></network>",
        "<network><name>two</name><bridge name='vb2'/><bandwidth><inbound average='500'/></bandwidth></network>",
        "<network><name>outside</name><forward mode='bridge'/><bridge name='br0'/></network>",
    ):
        driver.network_create_xml(xml)
    yield driver
    for entry in list(driver.networks.view()):
        driver.network_destroy(entry.reference)
    run("ip", "link", "delete", "br0")
    driver.close()
    assert links() == {"lo": None}
    assert run("nft", "list", "tables") == ""


@pytest.fixture
def domain(instance: Instance, networks: NetworkDriver) -> Iterator[Domain]:
    """A guest that has booted, and does not listen."""
    found = instance.driver.domain_define_xml(instance.xml())
    instance.driver.domain_create(found)
    instance.wait_for_boot("g")
    yield found
    instance.driver.domain_destroy(found)


def card(source: str, kind: str = "network", more: str = "") -> str:
    return f"<interface type='{kind}'><mac address='{MAC}'/>{source}<model type='virtio'/>{more}</interface>"


def on(network: str, more: str = "", group: str = "") -> str:
    return card(f"<source network='{network}'{group}/>", more=more)


def links() -> dict[str, str | None]:
    """The links of the namespace, each with its bridge."""
    return {link["ifname"]: link.get("master") for link in json.loads(run("ip", "-json", "link"))}


def ports(networks: NetworkDriver) -> dict[str, int]:
    """How many ports each network has."""
    entries = [entry for entry in networks.networks.view() if entry.active]
    return {entry.name: networks.network_list_all_ports(entry.reference, 0, 0)[1] for entry in entries}


def shown(instance: Instance, domain: Domain) -> str:
    """The card as it stands in the live XML, without line breaks; empty if it is not there."""
    xml = instance.driver.domain_get_xml_desc(domain, 0)
    found = re.search(r"<interface.*?</interface>", xml, re.DOTALL)
    return re.sub(r">\s+<", "><", found[0]) if found else ""


def test_a_card_comes_and_goes(
    instance: Instance, networks: NetworkDriver, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = instance.driver
    for event_id in (c.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, c.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED):
        driver.connect_domain_event_callback_register_any(event_id, None)
    instance.events(lambda found: bool(found))
    driver.domain_attach_device_flags(domain, on("one"), LIVE)
    assert instance.events()[-1] == ("device_added", "g", 1, "net0")
    assert re.fullmatch(
        rf"<interface type='network'><mac address='{MAC}'/>"
        r"<source network='one' portid='[0-9a-f-]{36}' bridge='vb1'/><target dev='vnet0'/><model type='virtio'/>"
        r"<alias name='net0'/><address type='pci' .*/></interface>",
        shown(instance, domain),
    )
    assert links()["vnet0"] == "vb1"
    assert ports(networks) == {"one": 1, "two": 0, "outside": 0}
    assert driver.domain_interface_stats(domain, "vnet0")[1] >= 0
    monkeypatch.setattr(plugging, "UNPLUG_SECONDS", 0.1)
    driver.domain_detach_device(domain, on("one"))
    assert "vnet0" in links()  # the guest has been asked
    driver.domain_reset(domain, 0)
    removed = ("device_removed", "g", 1, "net0")
    assert removed in instance.events(lambda found: removed in found)
    assert shown(instance, domain) == ""
    driver.domain_attach_device(domain, on("two"))  # under the same name: nothing is left of the first
    assert links()["vnet0"] == "vb2"
    assert ports(networks) == {"one": 0, "two": 1, "outside": 0}


def test_a_card_is_moved(instance: Instance, networks: NetworkDriver, domain: Domain) -> None:
    driver = instance.driver
    driver.domain_attach_device(domain, on("one"))

    def update(xml: str) -> str:
        driver.domain_update_device_flags(domain, xml, LIVE)
        return shown(instance, domain)

    assert "<source network='two' portid=" in update(on("two"))
    assert (links()["vnet0"], ports(networks)) == ("vb2", {"one": 0, "two": 1, "outside": 0})
    xml = update(on("outside"))
    assert xml.startswith("<interface type='bridge'>")  # what it is for as long as it runs
    assert "<source network='outside' portid=" in xml
    assert "bridge='br0'/>" in xml
    assert (links()["vnet0"], ports(networks)) == ("br0", {"one": 0, "two": 0, "outside": 1})
    # What virsh sends to switch the link: the live description, in which two words are changed.
    assert "<link state='down'/>" in update(xml.replace("<alias", "<link state='down'/><alias"))
    assert ports(networks)["outside"] == 1
    assert "<link" not in update(xml)
    assert "<source bridge='vb1'/>" in update(card("<source bridge='vb1'/>", "bridge"))
    assert (links()["vnet0"], ports(networks)) == ("vb1", {"one": 0, "two": 0, "outside": 0})
    before = shown(instance, domain)
    for xml, text in (
        (on("nope"), "Network not found: no network with matching name 'nope'"),
        (card("<source bridge='nope'/>", "bridge"), "operation failed: bridge nope doesn't exist"),
        (card("", "user"), "Operation not supported: unable to change config on 'user' network type"),
        (on("one").replace("virtio", "e1000"), "cannot modify network device model from virtio to e1000"),
        (on("one", "<driver queues='3'/>"), "cannot modify virtio network device driver attributes"),
        (on("one", "<mtu size='1400'/>"), "cannot modify MTU"),
        (on("one", "<target dev='x0'/>"), "cannot modify network device tap name"),
        (on("one", "<rom bar='off'/>"), "cannot modify network device rom bar setting"),
        (on("one", "<vlan><tag id='5'/></vlan>"), f"interface {MAC} - vlan tag not supported for this connection type"),
        (on("one", "<filterref filter='clean-traffic'/>"), "failed to add new filter rules to 'vnet0'"),
        (on("one").replace(MAC, "52:54:00:00:00:99"), "no device found at address '(<null>)' matching MAC address"),
    ):
        with pytest.raises(VirtError) as caught:
            driver.domain_update_device_flags(domain, xml, LIVE)
        assert text in caught.value.message
    assert shown(instance, domain) == before
    assert (links()["vnet0"], ports(networks)) == ("vb1", {"one": 0, "two": 0, "outside": 0})


def test_limits_of_a_card(instance: Instance, networks: NetworkDriver, domain: Domain) -> None:
    driver = instance.driver

    def limits() -> tuple[list[str], int]:
        shaped = re.findall(r"rate (\S+) ceil (\S+)", run("tc", "class", "show", "dev", "vnet0"))
        dropped = re.findall(r"limit rate over (\d+) kbytes", run("nft", "list", "ruleset"))
        return [word for pair in shaped for word in pair], int(dropped[0]) if dropped else 0

    def tune(**values: int) -> None:
        params = [
            TypedParam(name.replace("_", "."), TypedValue(c.VIR_TYPED_PARAM_UINT, value))
            for name, value in values.items()
        ]
        driver.domain_set_interface_parameters(domain, "vnet0", params, LIVE)

    driver.domain_attach_device(domain, on("one", group=" portgroup='slow'"))
    assert limits() == ([], 20)  # those of the port group
    assert "<bandwidth><outbound average='20'/></bandwidth>" in shown(instance, domain)
    tune(inbound_average=100, inbound_peak=200, inbound_burst=64, outbound_average=50)
    assert limits() == (["800Kbit", "1600Kbit"], 50)
    values = {
        param.field: param.value.value for param in driver.domain_get_interface_parameters(domain, "vnet0", 9, 0)[0]
    }
    assert (values["inbound.average"], values["inbound.peak"], values["outbound.average"]) == (100, 200, 50)
    tune(inbound_average=0)
    assert limits() == ([], 50)
    driver.domain_update_device_flags(domain, on("one", "<bandwidth><inbound average='70'/></bandwidth>"), LIVE)
    assert limits() == (["560Kbit", "560Kbit"], 0)
    tune(outbound_average=50)
    run("nft", "flush", "ruleset")
    assert driver.reapply() == []
    assert limits()[1] == 50  # goes with the guest, as the fixture sees


def test_guarantees_of_a_card(instance: Instance, networks: NetworkDriver, domain: Domain) -> None:
    """What a network guarantees a card is tuned while the guest runs, goes with the card, and is never too much."""
    driver = instance.driver

    def classes() -> list[str]:
        return re.findall(r"htb 1:([2-9]) .* rate (\S+) ", run("tc", "class", "show", "dev", "vb2"))

    def tune(floor: int) -> None:
        params = [TypedParam("inbound.floor", TypedValue(c.VIR_TYPED_PARAM_UINT, floor))]
        driver.domain_set_interface_parameters(domain, "vnet0", params, LIVE)

    with pytest.raises(VirtError, match="floor=501 would overcommit average=500 on network 'two'"):
        driver.domain_attach_device_flags(domain, on("two", "<bandwidth><inbound floor='501'/></bandwidth>"), LIVE)
    assert ports(networks) == {"one": 0, "two": 0, "outside": 0}
    driver.domain_attach_device_flags(domain, on("two", "<bandwidth><inbound floor='100'/></bandwidth>"), LIVE)
    assert classes() == [("2", "3200Kbit"), ("3", "800Kbit")]
    assert "<bandwidth><inbound floor='100'/></bandwidth>" in shown(instance, domain)
    tune(200)
    assert classes() == [("2", "2400Kbit"), ("3", "1600Kbit")]
    with pytest.raises(VirtError, match="floor=600 would overcommit"):
        tune(600)
    assert "<bandwidth><inbound floor='200'/></bandwidth>" in shown(instance, domain)
    driver.domain_update_device_flags(domain, on("two", "<bandwidth><inbound floor='300'/></bandwidth>"), LIVE)
    assert classes() == [("2", "1600Kbit"), ("3", "2400Kbit")]
    with pytest.raises(VirtError, match="network 'one' has no inbound QoS set"):
        driver.domain_update_device_flags(domain, on("one", "<bandwidth><inbound floor='300'/></bandwidth>"), LIVE)
    driver.domain_update_device_flags(domain, on("one"), LIVE)
    assert classes() == [("2", "4Mbit")]


def test_what_fails_half_way_is_undone(instance: Instance, networks: NetworkDriver, domain: Domain) -> None:
    driver = instance.driver
    before = driver.domain_get_xml_desc(domain, 0)
    queue = driver.qemu_domain_monitor_command(domain, "info network", 1)
    for xml, text in (
        (on("one", "<rom file='/nope'/>"), "nope"),
        (on("nope"), "no network with matching name 'nope'"),
        (card("<source bridge='nope'/>", "bridge"), "Cannot get interface MTU on 'nope': No such device"),
        (card("<source dev='nope' mode='bridge'/>", "direct"), "nope"),
        (on("one", "<filterref filter='clean-traffic'/>"), "referenced filter 'clean-traffic' is missing"),
        (
            card("<source address='1.2.3.4' port='5'/>", "mcast"),
            "hotplug of interface type of mcast is not implemented",
        ),
    ):
        with pytest.raises(VirtError) as caught:
            driver.domain_attach_device(domain, xml)
        assert text in caught.value.message
        assert ports(networks) == {"one": 0, "two": 0, "outside": 0}
        assert not [name for name in links() if name.startswith(("vnet", "macvtap"))]
    assert driver.domain_get_xml_desc(domain, 0) == before
    assert driver.qemu_domain_monitor_command(domain, "info network", 1) == queue
    driver.domain_attach_device(domain, on("one"))  # and the name is free


def test_cards_without_a_network(instance: Instance, networks: NetworkDriver, domain: Domain) -> None:
    driver = instance.driver
    driver.domain_attach_device_flags(
        domain, card("<target dev='mine0'/>", "ethernet", "<driver queues='2'/><mtu size='1400'/>"), LIVE
    )
    assert links()["mine0"] is None
    assert json.loads(run("ip", "-json", "link", "show", "mine0"))[0]["mtu"] == 1400
    second = "<interface type='user'><model type='e1000'/></interface>"
    driver.domain_attach_device_flags(domain, second, LIVE | CONFIG)
    macs = [
        set(re.findall(r"<mac address='(.*?)'/>", driver.domain_get_xml_desc(domain, flags)))
        for flags in (0, c.VIR_DOMAIN_XML_INACTIVE)
    ]
    assert len(macs[1]) == 1  # made up once, for both
    assert macs[0] == macs[1] | {MAC}


def test_a_killed_caller_leaves_nothing(
    instance: Instance, networks: NetworkDriver, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever plugs in a card dies in the middle: at the guest's end nothing of it is left."""
    driver = instance.driver
    monkeypatch.setattr(plugging.Plug, "plug", lambda *_: os._exit(9))
    pid = os.fork()
    if pid == 0:
        driver.domain_attach_device(domain, on("one", "<bandwidth><outbound average='9'/></bandwidth>"))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert ports(networks)["one"] == 1
    driver.domain_destroy(domain)
    assert ports(networks)["one"] == 0
    assert Path("/sys/class/net/vnet0").exists() is False
    driver.domain_create(domain)


def test_a_killed_starter_leaves_nothing(
    instance: Instance, networks: NetworkDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who starts a guest dies before there is anybody to look after it: who looks next gives its port back."""
    driver = instance.driver
    found = driver.domain_define_xml(instance.xml(devices=on("one")))
    monkeypatch.setattr(launch, "build", lambda *_: os._exit(9))
    pid = os.fork()
    if pid == 0:
        instance.open().domain_create(found)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert ports(networks)["one"] == 1
    assert driver.connect_list_all_domains(0, c.VIR_CONNECT_LIST_DOMAINS_ACTIVE) == ([], 0)
    wait_for(lambda: ports(networks)["one"] == 0, "the port's being given back")


def test_at_the_start(instance: Instance, networks: NetworkDriver, domain: Domain) -> None:
    """What cards of a guest are that is started with them: the same as if they had come later."""
    driver = instance.driver
    xml = instance.xml("h", devices=on("outside") + on("one", group=" portgroup='slow'").replace(MAC, MAC[:-1] + "4"))
    other = driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    first, second = re.findall(r"<interface.*?</interface>", driver.domain_get_xml_desc(other, 0), re.DOTALL)
    assert "<interface type='bridge'>" in first
    assert "<source network='outside' portid=" in first
    assert "<outbound average='20'/>" in second
    assert "limit rate over 20 kbytes" in run("nft", "list", "ruleset")
    assert ports(networks) == {"one": 1, "two": 0, "outside": 1}
    driver.domain_destroy(other)
    with pytest.raises(VirtError, match="referenced filter 'clean-traffic' is missing") as caught:
        driver.domain_create_xml(instance.xml("h", devices=on("one", "<filterref filter='clean-traffic'/>")), 0)
    assert (caught.value.code, caught.value.domain) == (c.VIR_ERR_INTERNAL_ERROR, c.VIR_FROM_NWFILTER)
    assert ports(networks) == {"one": 0, "two": 0, "outside": 0}


def test_cards_on_a_device_of_the_host(
    instance: Instance, networks: NetworkDriver, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Macvtaps: by a network's mode, and by the guest's own description; they go with the card."""
    driver = instance.driver
    run("ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1")
    networks.network_create_xml("<network><name>private</name><forward mode='private' dev='cable0'/></network>")
    try:
        driver.domain_attach_device(domain, on("private"))
        xml = shown(instance, domain)
        assert xml.startswith("<interface type='direct'>")
        assert re.search(r"<source network='private' portid='[0-9a-f-]*' dev='cable0' mode='private'/>", xml)
        assert "<target dev='macvtap0'/>" in xml
        details = json.loads(run("ip", "-json", "-details", "link", "show", "macvtap0"))[0]
        assert (details["link"], details["address"], details["linkinfo"]["info_data"]["mode"]) == (
            "cable0",
            MAC,
            "private",
        )
        assert "connections='1'" in networks.network_get_xml_desc(networks.network_lookup_by_name("private"), 0)
        second = card("<source dev='cable0' mode='bridge'/>", "direct").replace(MAC, MAC[:-1] + "4")
        driver.domain_attach_device(domain, second)
        assert "macvtap1" in links()
        with pytest.raises(VirtError, match="unable to change config on 'network' network type"):
            driver.domain_update_device_flags(domain, on("one"), LIVE)
        driver.connect_domain_event_callback_register_any(c.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, None)
        monkeypatch.setattr(plugging, "UNPLUG_SECONDS", 0.1)
        driver.domain_detach_device(domain, second)
        driver.domain_reset(domain, 0)
        instance.events(lambda found: ("device_removed", "g", 1, "net1") in found)
        driver.domain_attach_device_flags(domain, on("one").replace(MAC, MAC[:-1] + "6"), LIVE)
        assert "macvtap1" not in links()
        driver.domain_destroy(domain)
        assert "macvtap0" not in links()
        driver.domain_create(domain)
    finally:
        run("ip", "link", "delete", "cable0")


@pytest.fixture
def switch(networks: NetworkDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An Open vSwitch with a bridge ovs0, of its own, in user space."""
    monkeypatch.setenv("OVS_RUNDIR", str(tmp_path))
    database, socket = str(tmp_path / "conf.db"), f"unix:{tmp_path}/db.sock"
    quiet = ["--detach", "--pidfile", "--log-file=/dev/null", "-vconsole:off"]
    run("ovsdb-tool", "create", database, "/usr/share/openvswitch/vswitch.ovsschema")
    run("ovsdb-server", database, f"--remote=p{socket}", *quiet)
    run("ovs-vswitchd", socket, "--disable-system", *quiet)
    run("ovs-vsctl", "--timeout=10", "add-br", "ovs0", "--", "set", "bridge", "ovs0", "datapath_type=netdev")
    yield
    run("ovs-vsctl", "--timeout=10", "del-br", "ovs0")
    for name in ("ovs-vswitchd", "ovsdb-server"):
        pid = int((tmp_path / f"{name}.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        ends(pid)
    run("ip", "link", "delete", "ovs-netdev", check=False)


def test_open_vswitch(
    switch: None, instance: Instance, networks: NetworkDriver, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cards become ports of a real Open vSwitch, with who they are and their VLANs; and go from it."""
    driver = instance.driver
    networks.network_create_xml(
        "<network><name>switched</name><forward mode='bridge'/><bridge name='ovs0'/><virtualport type='openvswitch'/>"
        "<portgroup name='red'><vlan trunk='yes'><tag id='5'/><tag id='7' nativeMode='untagged'/></vlan></portgroup>"
        "</network>"
    )
    driver.domain_attach_device(domain, on("switched", group=" portgroup='red'"))
    assert run("ovs-vsctl", "list-ports", "ovs0").split() == ["vnet0"]
    assert run("ovs-vsctl", "get", "port", "vnet0", "trunks", "tag", "vlan_mode").split("\n")[:3] == [
        "[5, 7]",
        "7",
        "native-untagged",
    ]
    ids = run("ovs-vsctl", "get", "interface", "vnet0", "external_ids")
    xml = shown(instance, domain)
    assert f'attached-mac="{MAC}"' in ids
    assert re.search(r"<virtualport type='openvswitch'><parameters interfaceid='(.*?)'/>", xml)[1] in ids  # type: ignore[index]
    assert str(uuid.UUID(bytes=domain.uuid)) in ids
    driver.connect_domain_event_callback_register_any(c.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, None)
    monkeypatch.setattr(plugging, "UNPLUG_SECONDS", 0.1)
    driver.domain_detach_device(domain, on("switched"))
    driver.domain_reset(domain, 0)
    removed = ("device_removed", "g", 1, "net0")
    instance.events(lambda found: removed in found)
    port = "<virtualport type='openvswitch'/><vlan><tag id='9'/></vlan>"
    driver.domain_attach_device(domain, card("<source bridge='ovs0'/>", "bridge", port))
    assert run("ovs-vsctl", "get", "port", "vnet0", "tag").strip() == "9"
    for bridge, more, text in (
        ("vb1", port, "internal error: Unable to add port vnet1 to OVS bridge vb1"),
        ("vb1", "<vlan><tag id='9'/></vlan>", "vlan tag not supported for this connection type"),
    ):
        with pytest.raises(VirtError) as caught:
            driver.domain_attach_device(domain, card(f"<source bridge='{bridge}'/>", "bridge", more))
        assert text in caught.value.message
        assert "vnet1" not in links()
    driver.domain_destroy(domain)
    assert run("ovs-vsctl", "list-ports", "ovs0").split() == []
    driver.domain_create(domain)


def test_a_sessions_guest_on_a_bridge(instance: Instance, tmp_path: Path) -> None:
    """Who may make no tap gets one from QEMU's helper, on the bridges that its list allows."""
    for name in ("br1", "br2"):
        run("ip", "link", "add", name, "type", "bridge")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            # A list of its own, which nobody else sees.
            assert ctypes.CDLL(None).unshare(_CLONE_NEWNS) == 0
            run("mount", "--make-rprivate", "/")
            run("mount", "-t", "tmpfs", "t", str(tmp_path))
            for directory in ("upper", "work"):
                (tmp_path / directory).mkdir()
            layers = f"lowerdir=/etc,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
            run("mount", "-t", "overlay", "-o", layers, "o", "/etc")
            os.makedirs("/etc/qemu", exist_ok=True)
            Path("/etc/qemu/bridge.conf").write_text("allow br1\n")
            _guest_of_a_session(instance)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert links() == {"lo": None, "br1": None, "br2": None}
    for name in ("br1", "br2"):
        run("ip", "link", "delete", name)


def _guest_of_a_session(instance: Instance) -> None:
    where = paths.below(instance.root, privileged=False)
    driver = QemuDriver(Context(where, Identity(os.geteuid(), os.getegid(), os.getpid()), os.getpid()))
    xml = instance.xml(devices=card("<source bridge='br1'/>", "bridge"))
    found = driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    assert links()["tap0"] == "br1"
    driver.domain_attach_device(found, card("<source bridge='br1'/>", "bridge").replace(MAC, MAC[:-1] + "4"))
    assert links()["tap1"] == "br1"
    with pytest.raises(VirtError, match="qemu-bridge-helper: failed to communicate with bridge helper: access denied"):
        driver.domain_attach_device(found, card("<source bridge='br2'/>", "bridge").replace(MAC, MAC[:-1] + "5"))
    driver.domain_destroy(found)
    driver.close()
