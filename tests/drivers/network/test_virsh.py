"""Networks as unmodified virsh sees them, through a server."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drivers.network.conftest import run
from tests.drivers.network.netupdates import COMMANDS, ELEMENTS, FLAGS
from tests.helpers.instance import Instance as Server
from tests.helpers.waiting import wait_for

NETWORK = """<network>
  <name>web</name>
  <uuid>81ff0d90-c91e-6742-64da-4a736edb9a9b</uuid>
  <forward mode='nat'/>
  <bridge name='vb-web' stp='on' delay='0'/>
  <mac address='52:54:00:00:00:01'/>
  <ip address='10.9.8.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='10.9.8.2' end='10.9.8.99'/>
    </dhcp>
  </ip>
</network>
"""
PORT = """<networkport><uuid>%s</uuid><owner><name>g</name><uuid>22222222-c91e-6742-64da-4a736edb9a00</uuid></owner>
<mac address='52:54:00:aa:bb:%02x'/></networkport>"""
_FAILED = "error: Failed to update network web\nerror: "
HOST = "<host mac='52:54:00:00:00:05' ip='10.9.8.5'/>"


@pytest.fixture
def document(virtd: Server) -> str:
    path = virtd.root / "web.xml"
    path.write_text(NETWORK)
    return str(path)


def test_the_commands(namespace: None, virtd: Server, document: str) -> None:
    virsh = virtd.virsh
    virsh("net-define", document)
    virsh("net-autostart", "web")
    virsh("net-start", "web")
    assert virsh("net-dumpxml", "web", "--inactive").strip() == NETWORK.strip()
    assert virsh("net-list", "--all").split() == ["web", "active", "yes", "yes"]
    shown = dict(line.split(":", 1) for line in virsh("net-info", "web").splitlines() if ":" in line)
    assert [shown[key].strip() for key in ("Active", "Persistent", "Autostart", "Bridge")] == [
        "yes",
        "yes",
        "yes",
        "vb-web",
    ]
    assert virsh("net-name", virsh("net-uuid", "web").strip()).strip() == "web"
    virsh("net-update", "web", "add", "ip-dhcp-host", HOST, "--live", "--config")
    assert virsh("net-dumpxml", "web").count(HOST) == virsh("net-dumpxml", "web", "--inactive").count(HOST) == 1
    virsh("net-update", "web", "delete", "ip-dhcp-host", HOST, "--live", "--config")
    assert virsh("net-dhcp-leases", "web").split() == []
    virsh("net-destroy", "web")
    assert "network 'web' is not active" in virtd.virsh_error("net-destroy", "web")
    virsh("net-undefine", "web")
    assert "no network with matching name 'web'" in virtd.virsh_error("net-info", "web")
    virsh("net-create", document)
    assert virsh("net-list").split() == ["web", "active", "no", "no"]
    virsh("net-destroy", "web")
    assert "vb-web" not in run("ip", "link")
    assert run("nft", "list", "tables") == ""


def test_every_other_command(namespace: None, virtd: Server, document: str) -> None:
    """Those of virsh's commands for networks that the test above has not used; and the list of all has no more."""
    virsh = virtd.virsh
    events = subprocess.Popen(
        ["virsh", "-q", "-c", virtd.uri, "net-event", "--event", "lifecycle", "--loop", "--timestamp"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        path = virtd.root / "port.xml"
        path.write_text(PORT % ("11111111-c91e-6742-64da-4a736edb9a00", 1))
        virsh("net-define", document)
        virtd.run("env", "EDITOR=sed -i s/10.9.8.99/10.9.8.77/", "virsh", "-c", virtd.uri, "net-edit", "web")
        assert "end='10.9.8.77'" in virsh("net-dumpxml", "web")
        virsh("net-start", "web")
        virsh("net-port-create", "web", str(path))
        (port,) = virsh("net-port-list", "web").split()
        assert "<mac address='52:54:00:aa:bb:01'/>" in virsh("net-port-dumpxml", "web", port)
        virsh("net-port-delete", "web", port)
        assert virsh("net-port-list", "web").split() == []
        virsh("net-destroy", "web")
        virsh("net-autostart", "web")
        virsh("net-autostart", "web", "--disable")
        virsh("net-undefine", "web")
        assert events.stdout is not None
        heard = [events.stdout.readline().split("for network web: ")[-1].strip() for _ in range(5)]
        # The first definition, that of the editor, and the rest of its life.
        assert heard in (
            ["Defined", "Defined", "Started", "Stopped", "Undefined"],
            ["Defined", "Started", "Stopped", "Undefined", ""],
        )
    finally:
        events.kill()
        events.communicate()
    listed = set(re.findall(r"^    (net-[a-z-]+)", virtd.run("virsh", "help", "network").stdout, re.MULTILINE))
    used = set(re.findall(r'"(net-[a-z-]+)"', Path(__file__).read_text()))
    assert listed <= used


@pytest.mark.parametrize("flags", FLAGS)
def test_updates(namespace: None, virtd: Server, document: str, flags: str) -> None:
    """Every section and command of net-update, of a running network, its definition, and both: what libvirtd says."""
    virtd.virsh("net-define", document)
    virtd.virsh("net-start", "web")
    expected = json.loads(Path(__file__).with_name("netupdates.json").read_text())[flags]
    asked = [(section, command) for section in ELEMENTS for command in COMMANDS]
    for (section, command), said in zip(asked, expected["said"], strict=True):
        done = virtd.virsh_result("net-update", "web", command, section, ELEMENTS[section], *flags.split())
        assert (section, command, done.stderr) == (section, command, f"{_FAILED}{said}\n" if said else "")
    assert virtd.virsh("net-dumpxml", "web").strip() == expected["live"].strip()
    assert virtd.virsh("net-dumpxml", "web", "--inactive").strip() == expected["definition"].strip()
    virtd.virsh("net-destroy", "web")


def test_twenty_networks(namespace: None, virtd: Server) -> None:
    """They start, and are destroyed leaving nothing: no link, rule, process, file."""
    for number in range(20):
        path = virtd.root / "many.xml"
        path.write_text(
            f"<network><name>m{number}</name><forward mode='nat'/><ip address='10.7.{number}.1' prefix='24'><dhcp>"
            f"<range start='10.7.{number}.2' end='10.7.{number}.9'/></dhcp></ip></network>"
        )
        virtd.virsh("net-create", str(path))
        path.unlink()
    assert len(virtd.virsh("net-list", "--name").split()) == 20
    assert len([one for one in virtd.processes() if "dnsmasq" in one.title]) == 20
    assert run("nft", "list", "tables").count("virtd_virbr") == 20
    for number in range(20):
        virtd.virsh("net-destroy", f"m{number}")
    assert re.findall(r"^\d+: (\S+):", run("ip", "link"), re.MULTILINE) == ["lo"]
    assert run("nft", "list", "ruleset") == ""
    assert not [one.title for one in virtd.processes() if "dnsmasq" in one.title or "network" in one.title]
    assert files(virtd) == set()


def files(virtd: Server) -> set[str]:
    """The files below the instance's directory that tell of a network, other than logs."""
    found = {
        str(path) for path in virtd.root.rglob("*") if path.is_file() and not path.name.endswith((".log", ".lock"))
    }
    return {path for path in found if re.search("/networks/|dnsmasq", path)}


def test_what_drops_the_guests_packets_is_named(namespace: None, virtd: Server, document: str) -> None:
    """net-doctor, which virsh has not."""
    virtsh = [sys.executable, "-m", "virtd.shell.main", "-q", "-c", virtd.uri, "net-doctor", "web"]
    virtd.virsh("net-define", document)
    assert "network 'web' is not active" in virtd.run(*virtsh, check=False).stderr
    virtd.virsh("net-start", "web")
    assert virtd.run(*virtsh).stdout == "nothing on this host drops what network 'web' lets through\n"
    run("nft", "add", "table", "inet", "fw")
    run("nft", "add", "chain", "inet", "fw", "outer", "{ type filter hook forward priority 0; policy drop; }")
    assert "chain 'inet fw outer' drops" in virtd.run(*virtsh).stdout
    run("nft", "delete", "table", "inet", "fw")
    # Whoever has flushed all tables puts the networks' rules back by SIGHUP.
    rules = run("nft", "list", "ruleset")
    run("nft", "flush", "ruleset")
    assert virtd.pid is not None
    os.kill(virtd.pid, signal.SIGHUP)
    wait_for(lambda: run("nft", "list", "ruleset") == rules, "the rules are in force again")
    virtd.virsh("net-destroy", "web")


def test_own_uri(namespace: None, virtd: Server, document: str) -> None:
    uri = virtd.uri.replace("qemu+unix", "network+unix")
    virtd.run("virsh", "-c", uri, "net-define", document)
    assert "web    inactive" in virtd.run("virsh", "-c", uri, "net-list", "--all").stdout
    assert "is not supported by the connection driver: virConnectNumOfDomains" in (
        virtd.run("virsh", "-c", uri, "list", check=False).stderr
    )
    # What the service's own connection defined, the hypervisor's sees.
    assert virtd.virsh("net-list", "--all").split() == ["web", "inactive", "no", "yes"]


def test_networks_outlive_the_server(namespace: None, virtd: Server, document: str) -> None:
    virtd.virsh("net-create", document)
    pid = (virtd.root / "run/virtd/networks/81ff0d90-c91e-6742-64da-4a736edb9a9b/dnsmasq.pid").read_text()
    virtd.kill("virtd: ")
    assert Path(f"/proc/{pid.strip()}").exists()
    assert "inet 10.9.8.1/24" in run("ip", "addr", "show", "vb-web")
    virtd.start()
    assert virtd.virsh("net-list").split() == ["web", "active", "no", "no"]
    virtd.virsh("net-destroy", "web")
    assert "vb-web" not in run("ip", "link")


def test_many_clients_at_once(namespace: None, virtd: Server, document: str) -> None:
    """Fifty guests that start at the same moment each get their port, from a server that serves them all."""
    virtd.virsh("net-create", document)
    children = []
    for number in range(50):
        path = virtd.root / f"port{number}.xml"
        path.write_text(PORT % (f"11111111-c91e-6742-64da-4a736edb9a{number:02x}", number))
        pid = os.fork()
        if pid == 0:
            os.execvp("virsh", ["virsh", "-q", "-c", virtd.uri, "net-port-create", "web", str(path)])
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 50
    assert len(virtd.virsh("net-port-list", "web").split()) == 50
    virtd.virsh("net-destroy", "web")
