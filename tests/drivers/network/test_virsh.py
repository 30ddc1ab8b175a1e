"""Networks as unmodified virsh sees them, through a server."""

import os
from pathlib import Path

import pytest

from tests.drivers.network.conftest import run
from tests.helpers.instance import Instance as Server

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
