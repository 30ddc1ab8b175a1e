"""A guest behind passt: it has the host's address, reaches out, and is reached on a port of the host."""

from __future__ import annotations

import socket

from tests.drivers.network.conftest import namespace, run  # noqa: F401 - a fixture
from tests.guests.linux import Guest
from tests.guests.xml import linux_domain
from tests.helpers.instance import Instance

CARD = """<interface type='user'><model type='virtio'/><backend type='passt'/>
  <portForward proto='tcp' address='127.0.0.1'><range start='2022' to='22'/></portForward></interface>"""


def test_a_linux_guest_behind_passt(namespace: None, instance: Instance, linux_guest: Guest) -> None:  # noqa: F811
    run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "far")
    for device in ("up0", "far"):
        run("ip", "link", "set", device, "up")
    run("ip", "addr", "add", "10.8.0.1/24", "dev", "up0")
    run("ip", "route", "add", "default", "via", "10.8.0.2")
    instance.start()
    instance.define(linux_domain("web1", linux_guest, "virtd.net=dhcp", devices=CARD))
    with socket.create_server(("127.0.0.1", 7007)) as server:
        server.settimeout(60)
        instance.virsh("start", "web1")
        with instance.console("web1") as console:
            console.until(b"virtd: address 10.8.0.1", seconds=60)
            console.until(b"guest# ", seconds=60)
            # Its router stands for the host itself.
            console.type(b"echo out | nc 10.8.0.2 7007\n")
            connection, _ = server.accept()
            with connection:
                assert connection.recv(10) == b"out\n"
            # passt accepts at once, and gives up if nobody listens in the guest.
            console.type(b"nc -l -p 22 &\n")
            console.type(b"until grep -q ':0016 ' /proc/net/tcp*; do :; done; echo listen''ing\n")
            console.until(b"listening")
            with socket.create_connection(("127.0.0.1", 2022), timeout=60) as client:
                client.sendall(b"come in\n")
                console.until(b"come in")
    instance.virsh("destroy", "web1")
    run("ip", "link", "delete", "up0")
