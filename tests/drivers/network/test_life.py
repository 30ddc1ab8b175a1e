"""Networks start and end: what they make is there, and gone afterwards, whoever dies when."""

import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drivers.network.conftest import Host, Service, run
from tests.helpers.waiting import ends, wait_for
from virtd import constants as c
from virtd import uuids
from virtd.drivers.network import life, supervisor
from virtd.drivers.network.driver import NetworkDriver
from virtd.drivers.network.running import Running
from virtd.errors import VirtError
from virtd.protocol.records import Network
from virtd.state import paths

UUID = "81ff0d90-c91e-6742-64da-4a736edb9a9b"


def xml(name: str = "n", third: int = 77, *, forward: str = "", more: str = "", uuid: str = "") -> str:
    """A network with DHCP on 10.77.X.0/24."""
    return (
        f"<network><name>{name}</name>{uuid and f'<uuid>{uuid}</uuid>'}{forward}<bridge name='vb-{name}'/>{more}"
        f"<ip address='10.77.{third}.1' prefix='24'><dhcp><range start='10.77.{third}.10' end='10.77.{third}.20'/>"
        "</dhcp></ip></network>"
    )


def refused(code: int, text: str, function: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(VirtError) as failure:
        function(*arguments)
    assert (failure.value.code, failure.value.message) == (code, text)


def traces(service: Service) -> list[str]:
    """All that networks leave: links, tables, files of run time, processes."""
    links = [line.split()[1].rstrip(":") for line in run("ip", "-o", "link").splitlines()]
    tables = run("nft", "list", "tables").splitlines()
    state = Path(service.root)
    found = [str(path) for path in (state / "run/virtd/networks").rglob("*")]
    found += [str(path) for path in (state / "var/lib/virtd/dnsmasq").rglob("*")]
    return [*(name for name in links if name != "lo"), *tables, *found, *service.processes().values()]


def sysctl(bridge: str, name: str) -> str:
    return Path(f"/proc/sys/net/ipv6/conf/{bridge}/{name}").read_text().strip()


@pytest.mark.parametrize("mode", ["none", "nat", "route", "open"])
def test_life(service: Service, mode: str) -> None:
    driver = service.driver
    network = driver.network_define_xml(xml(forward=f"<forward mode='{mode}'/>"))
    assert traces(service) == []
    driver.network_create(network)
    other = service.open()
    assert other.network_is_active(network) == 1
    assert "inet 10.77.77.1/24 brd 10.77.77.255" in run("ip", "addr", "show", "vb-n")
    assert (sysctl("vb-n", "disable_ipv6"), sysctl("vb-n", "accept_ra")) == ("1", "0")
    assert len(service.dnsmasq()) == len(service.supervisors()) == 1
    assert bool(run("nft", "list", "tables")) == (mode != "open")
    assert "<port start='1024' end='65535'/>" in other.network_get_xml_desc(network, 0) or mode != "nat"
    assert "<port start" not in other.network_get_xml_desc(network, c.VIR_NETWORK_XML_INACTIVE)
    refused(
        c.VIR_ERR_OPERATION_INVALID,
        "Requested operation is not valid: network is already active",
        other.network_create,
        network,
    )
    other.network_destroy(network)
    assert traces(service) == []
    assert driver.network_is_active(network) == 0
    text = "Requested operation is not valid: network 'n' is not active"
    refused(c.VIR_ERR_OPERATION_INVALID, text, driver.network_destroy, network)
    driver.network_undefine(network)
    assert os.listdir(f"{service.root}/var/lib/virtd/networks") == []
    other.close()


def test_transient(service: Service) -> None:
    driver = service.driver
    network = driver.network_create_xml(xml(uuid=UUID))
    assert (driver.network_is_persistent(network), driver.network_get_autostart(network)) == (0, 0)
    text = "Requested operation is not valid: cannot set autostart for transient network"
    refused(c.VIR_ERR_OPERATION_INVALID, text, driver.network_set_autostart, network, 1)
    text = "Requested operation is not valid: network is already active as 'n'"
    refused(c.VIR_ERR_OPERATION_INVALID, text, driver.network_create_xml, xml(uuid=UUID))
    driver.network_define_xml(xml(uuid=UUID))
    assert driver.network_is_persistent(network) == 1
    driver.network_set_autostart(network, 1)
    assert driver.connect_list_all_networks(1, c.VIR_CONNECT_LIST_NETWORKS_AUTOSTART) == ([network], 1)
    driver.network_undefine(network)
    assert driver.network_is_active(network) == 1
    driver.network_destroy(network)
    text = f"Network not found: no network with matching uuid '{UUID}' (n)"
    refused(c.VIR_ERR_NO_NETWORK, text, driver.network_get_xml_desc, network, 0)
    assert os.listdir(f"{service.root}/var/lib/virtd/networks") == []


def test_events(service: Service) -> None:
    driver = service.driver
    driver.connect_network_event_register_any(c.VIR_NETWORK_EVENT_ID_LIFECYCLE, None)
    metadata = driver.connect_network_event_register_any(1, None)
    other = service.open()
    network = other.network_define_xml(xml())
    other.network_create(network)
    other.network_set_metadata(network, 1, "a title", None, None, c.VIR_NETWORK_UPDATE_AFFECT_LIVE)
    other.network_destroy(network)
    other.network_undefine(network)
    assert driver.event_fd() is not None
    heard = [event.values[:1] + event.values[2:] for event in driver.read_events()]
    defined, undefined = c.VIR_NETWORK_EVENT_DEFINED, c.VIR_NETWORK_EVENT_UNDEFINED
    started, stopped = c.VIR_NETWORK_EVENT_STARTED, c.VIR_NETWORK_EVENT_STOPPED
    assert heard == [(0, defined, 0), (0, started, 0), (metadata, 1, None), (0, stopped, 0), (0, undefined, 0)]
    other.close()


def test_dnsmasq_and_supervisor_are_replaced(service: Service) -> None:
    driver = service.driver
    network = driver.network_create_xml(xml())
    (first,), (dnsmasq,) = service.supervisors(), service.dnsmasq()
    # Whoever looks puts a new supervisor in place of a killed one; dnsmasq goes on.
    os.kill(first, signal.SIGKILL)
    ends(first)
    assert driver.network_is_active(network) == 1
    (second,) = service.supervisors()
    assert second != first
    assert service.dnsmasq() == [dnsmasq]
    # The supervisor replaces dnsmasq, be it its child or not.
    directory = f"{service.root}/run/virtd/networks/{uuids.to_text(network.uuid)}"
    os.kill(dnsmasq, signal.SIGKILL)
    ends(dnsmasq)
    wait_for(lambda: len(service.dnsmasq()) == 1, directory=directory)
    assert service.supervisors() == [second]
    # Both killed: the next look brings both back.
    os.kill(second, signal.SIGKILL)
    (dnsmasq,) = service.dnsmasq()
    os.kill(dnsmasq, signal.SIGKILL)
    ends(second)
    ends(dnsmasq)
    assert driver.connect_num_of_networks() == 1
    wait_for(lambda: len(service.dnsmasq()) == 1, directory=directory)
    assert len(service.supervisors()) == 1
    driver.network_destroy(network)
    assert traces(service) == []


def test_failed_start_is_undone(service: Service) -> None:
    more = "<dnsmasq:options xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>"
    more += "<dnsmasq:option value='no-such-option'/></dnsmasq:options>"
    network = service.driver.network_define_xml(xml(forward="<forward mode='nat'/>", more=more))
    with pytest.raises(VirtError, match=r"unexpected exit status 1: \ndnsmasq: bad option"):
        service.driver.network_create(network)
    assert traces(service) == []
    assert service.driver.network_is_active(network) == 0


@pytest.mark.parametrize(("kind", "port"), [("tcp", 53), ("udp", 53), ("udp", 67)])
def test_port_taken(service: Service, kind: str, port: int) -> None:
    """The error names who has dnsmasq's port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", port))
        if kind == "tcp":
            other.listen()
        with pytest.raises(VirtError, match=rf"already in use\nprocess {os.getpid()} \(.*\) has {kind} port {port}"):
            service.driver.network_create_xml(xml())
    assert traces(service) == []


@pytest.mark.parametrize("where", ["links.add_address", "supervisor.launch", "dnsmasq.write"])
def test_starter_killed(service: Service, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start is cut short; whoever looks next undoes it."""
    network = service.driver.network_define_xml(xml(forward="<forward mode='nat'/>"))
    pid = os.fork()
    if pid == 0:
        module, _, name = where.partition(".")
        monkeypatch.setattr(getattr(life, module), name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        try:
            service.open().network_create(network)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert "vb-n" in run("ip", "link")
    assert service.driver.network_is_active(network) == 0
    assert traces(service) == []
    service.driver.network_create(network)
    service.driver.network_destroy(network)


def test_destroyer_killed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    network = service.driver.network_create_xml(xml())
    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(supervisor, "stop", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        try:
            service.open().network_destroy(network)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    assert service.driver.connect_list_all_networks(1, 0) == ([], 0)
    assert traces(service) == []


def test_starter_killed_after_dnsmasq(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    network = service.driver.network_define_xml(xml())
    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(Running, "prepare_live", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        try:
            service.open().network_create(network)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    assert len(service.dnsmasq()) == 1
    assert service.driver.network_is_active(network) == 0
    assert traces(service) == []


def test_conflicts(service: Service, host: Callable[..., Host]) -> None:
    driver = service.driver
    driver.network_create_xml(xml("a", uuid=UUID))
    text = "operation failed: network 'a' already exists with uuid " + UUID
    refused(c.VIR_ERR_OPERATION_FAILED, text, driver.network_define_xml, xml("a").replace("vb-a", "vb-c"))
    text = "internal error: bridge name 'vb-a' already in use. It is that of network 'a'."
    refused(c.VIR_ERR_INTERNAL_ERROR, text, driver.network_define_xml, xml("b").replace("vb-b", "vb-a"))
    other = driver.network_define_xml(xml("b"))
    text = "internal error: Network is already in use by interface vb-a (10.77.77.0/24, of network 'a')"
    refused(c.VIR_ERR_INTERNAL_ERROR, text, driver.network_create, other)
    assert driver.network_is_active(other) == 0
    host("cable")
    run("ip", "addr", "add", "10.77.9.4/22", "dev", "cable")
    text = "internal error: Network is already in use by interface cable (10.77.8.0/22)"
    refused(c.VIR_ERR_INTERNAL_ERROR, text, driver.network_create_xml, xml("d", 10))
    text = "internal error: bridge name 'cable' already in use. It is that of a link of this host."
    refused(c.VIR_ERR_INTERNAL_ERROR, text, driver.network_create_xml, xml("e", 99).replace("vb-e", "cable"))
    defined = driver.network_define_xml(xml("g", 98))
    host("vb-g")  # somebody takes the name meanwhile
    text = "error creating bridge interface vb-g: File exists"
    refused(c.VIR_ERR_SYSTEM_ERROR, text, driver.network_create, defined)
    # A wider route, to somebody's provider or VPN, is no conflict.
    run("ip", "route", "add", "10.0.0.0/8", "via", "10.77.9.5")
    driver.network_create_xml(xml("f", 66))
    for network in driver.connect_list_all_networks(1, c.VIR_CONNECT_LIST_NETWORKS_ACTIVE)[0]:
        driver.network_destroy(network)


def test_bridge_names_are_chosen(service: Service) -> None:
    driver = service.driver
    run("ip", "link", "add", "virbr1", "type", "bridge")
    names = []
    for name in ("a", "b", "c"):
        network = driver.network_define_xml(f"<network><name>{name}</name></network>")
        names.append(driver.network_get_bridge_name(network))
    network = driver.network_define_xml("<network><name>d</name><bridge name='my%d'/></network>")
    assert [*names, driver.network_get_bridge_name(network)] == ["virbr0", "virbr2", "virbr3", "my0"]


def test_bridge_of_the_xml(service: Service) -> None:
    text = (
        "<network ipv6='yes'><name>n</name><bridge name='vb' stp='off' delay='0'/><mtu size='1400'/>"
        "<mac address='52:54:00:12:34:56'/><ip family='ipv6' address='2001:db8:7::1' prefix='64'/>"
        "<ip address='10.7.0.1' prefix='16'/><route address='10.8.0.0' prefix='16' gateway='10.7.0.9' metric='7'/>"
        "</network>"
    )
    network = service.driver.network_create_xml(text)
    shown = run("ip", "-d", "addr", "show", "vb")
    for part in (
        "mtu 1400",
        "link/ether 52:54:00:12:34:56",
        "stp_state 0",
        "inet6 2001:db8:7::1/64",
        "inet 10.7.0.1/16",
    ):
        assert part in shown
    assert (sysctl("vb", "disable_ipv6"), sysctl("vb", "accept_ra"), sysctl("vb", "autoconf")) == ("0", "0", "0")
    assert "10.8.0.0/16 via 10.7.0.9 dev vb proto static metric 7" in run("ip", "route")
    service.driver.network_destroy(network)
    assert traces(service) == []


def test_session(service: Service) -> None:
    driver = service.open(privileged=False)
    network = driver.network_define_xml(xml())
    with pytest.raises(VirtError, match="need the system's instance") as failure:
        driver.network_create(network)
    assert failure.value.code == c.VIR_ERR_OPERATION_UNSUPPORTED
    assert driver.autostart() == []
    driver.close()


def test_autostart(service: Service) -> None:
    driver = service.driver
    good, bad = driver.network_define_xml(xml("good")), driver.network_define_xml(xml("worse"))
    for network in (good, bad):
        driver.network_set_autostart(network, 1)
    (failure,) = driver.autostart()
    assert "is already in use by interface vb-" in failure.message
    assert driver.connect_num_of_networks() == 1
    active = driver.connect_list_all_networks(1, c.VIR_CONNECT_LIST_NETWORKS_ACTIVE)[0][0]
    driver.network_destroy(active)
    # Once after each boot: what an administrator has stopped stays so.
    assert driver.autostart() == []
    assert driver.connect_num_of_networks() == 0


def test_many_at_once(service: Service) -> None:
    """Networks started by processes of their own at the same moment; of those that conflict, one wins."""
    children = []
    for number in range(6):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                driver = service.open()
                driver.network_create_xml(
                    f"<network><name>m{number}</name><ip address='10.5.{number}.1' prefix='24'/></network>"
                )
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 6
    networks = service.driver.connect_list_all_networks(1, 0)[0]
    bridges = sorted(service.driver.network_get_bridge_name(network) for network in networks)
    assert bridges == [f"virbr{n}" for n in range(6)]
    for network in networks:
        service.driver.network_destroy(network)
    assert traces(service) == []


def test_reapplied_rules(service: Service) -> None:
    network = service.driver.network_create_xml(xml(forward="<forward mode='nat'/>"))
    run("nft", "add", "table", "inet", "others")
    before = run("nft", "list", "ruleset")
    run("nft", "delete", "table", "inet", "virtd_vb_2dn")
    assert service.driver.reapply() == []
    assert service.driver.reapply() == []
    assert sorted(run("nft", "list", "ruleset").splitlines()) == sorted(before.splitlines())
    service.driver.network_destroy(network)
    assert run("nft", "list", "tables") == "table inet others\n"


def test_of_modes_without_a_bridge(service: Service) -> None:
    """They need nothing but books."""
    for mode, inner in (("bridge", ""), ("vepa", "<interface dev='nope0'/>"), ("hostdev", "")):
        network = service.driver.network_define_xml(
            f"<network><name>{mode}</name><forward mode='{mode}'>{inner}</forward></network>"
        )
        service.driver.network_create(network)
        assert service.driver.network_is_active(network) == 1
        service.driver.network_destroy(network)
    assert traces(service) == []


def test_a_card_without_functions(service: Service) -> None:
    """A network that gives away the virtual functions of a card needs one that has some."""
    text = "internal error: No usable Vf's present on SRIOV PF lo"
    mode = "<forward mode='hostdev' managed='yes'><pf dev='lo'/></forward>"
    refused(
        c.VIR_ERR_INTERNAL_ERROR, text, service.driver.network_create_xml, f"<network><name>n</name>{mode}</network>"
    )


def test_unused_names(service: Service) -> None:
    missing = Network("nope", bytes(16))
    text = "Network not found: no network with matching name 'nope'"
    refused(c.VIR_ERR_NO_NETWORK, text, service.driver.network_lookup_by_name, "nope")
    text = f"Network not found: no network with matching uuid '{uuids.to_text(bytes(16))}' (nope)"
    for function in (NetworkDriver.network_create, NetworkDriver.network_undefine, NetworkDriver.network_is_active):
        refused(c.VIR_ERR_NO_NETWORK, text, function, service.driver, missing)


def test_the_predefined_network(namespace: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own instance has 'default' from the beginning, until somebody undefines it; others do not."""
    found = Service()
    assert found.driver.connect_num_of_defined_networks() == 0
    shutil.rmtree(f"{found.root}/etc")
    monkeypatch.setattr(paths, "system", lambda: paths.below(found.root))
    driver = found.open()
    network = driver.network_lookup_by_name("default")
    assert (driver.network_is_active(network), driver.network_get_autostart(network)) == (0, 0)
    driver.network_create(network)
    assert "inet 192.168.122.1/24" in run("ip", "addr", "show", "virbr0")
    driver.network_destroy(network)
    driver.network_undefine(network)
    driver.close()
    driver = found.open()
    assert driver.connect_num_of_defined_networks() == 0
    driver.close()
    found.finish()
