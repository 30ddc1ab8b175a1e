"""The client of the guest agent, against a program that plays the agent; and what is said where there is none."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.drivers.qemu.instance import Instance
from virtd import constants as c
from virtd import deadlines
from virtd.conf.domain.chardev import UnixSource
from virtd.drivers.qemu.agent import info as guestinfo
from virtd.drivers.qemu.agent.channel import Agent
from virtd.drivers.qemu.agent.client import AgentError
from virtd.drivers.qemu.guest import Control
from virtd.errors import VirtError
from virtd.state import sockets

Answers = Callable[[dict[str, object]], bytes]


@contextmanager
def played(path: Path, answer: Answers) -> Iterator[None]:
    """An agent in a process of its own: what it answers to each message but the first, which synchronises."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        pid = os.fork()
        if pid == 0:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    message = json.loads(line.rpartition(b"\xff")[2])
                    if message["execute"] == "guest-sync-delimited":
                        # Half of an answer to somebody who gave up comes first.
                        reply = json.dumps({"return": message["arguments"]["id"]}).encode()
                        connection.sendall(b'{"return": 1}\n{"retu\xff' + reply + b"\n")
                    else:
                        connection.sendall(answer(message))
            os._exit(0)
    try:
        yield
    finally:
        os.waitpid(pid, 0)


def reaching(path: Path) -> Callable[[bool], socket.socket]:
    return lambda anew: sockets.connect(str(path))


def returning(value: object) -> bytes:
    return json.dumps({"return": value}).encode() + b"\n"


def test_a_conversation(tmp_path: Path) -> None:
    def answer(message: dict[str, object]) -> bytes:
        if message["execute"] == "guest-nope":
            return b'{"error": {"class": "CommandNotFound", "desc": "no such command"}}\n'
        return returning([message["execute"], message.get("arguments")])

    with played(tmp_path / "s", answer), Agent(reaching(tmp_path / "s"), str(tmp_path / "lock")) as agent:
        assert agent.execute("guest-ping") == ["guest-ping", None]
        assert agent.execute("guest-x", {"a": 1}) == ["guest-x", {"a": 1}]
        with pytest.raises(AgentError, match="unable to execute QEMU agent command 'guest-nope': no such command"):
            agent.execute("guest-nope")


def test_an_agent_that_hangs_costs_a_bounded_time(tmp_path: Path) -> None:
    with played(tmp_path / "s", lambda message: b""), Agent(reaching(tmp_path / "s"), str(tmp_path / "lock")) as agent:
        with pytest.raises(VirtError) as caught:
            agent.execute("guest-ping", seconds=0.05)
        assert caught.value.code == c.VIR_ERR_AGENT_UNRESPONSIVE
        agent.tell("guest-suspend-ram", seconds=0.05)  # the guest sleeps: no answer is the answer


def test_an_agent_that_never_synchronises(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(VirtError, match="Guest agent not available for now"):
            Agent(reaching(path), str(tmp_path / "lock"), seconds=0.05)
        with deadlines.limit(0.05), pytest.raises(deadlines.DeadlineExceeded):
            Agent(reaching(path), str(tmp_path / "lock"))  # too little time: the call is to be done again with more


def test_guest_info(tmp_path: Path) -> None:
    said = {
        "guest-get-osinfo": {"id": "debian", "kernel-release": "6.1"},
        "guest-get-timezone": {"zone": "UTC", "offset": 0},
        "guest-get-host-name": {"host-name": "web1"},
        "guest-get-network-interfaces": [],
        "guest-network-get-interfaces": [
            {
                "name": "eth0",
                "hardware-address": "52:54:00:00:00:01",
                "ip-addresses": [{"ip-address-type": "ipv4", "ip-address": "10.0.0.2", "prefix": 24}],
            }
        ],
        "guest-get-fsinfo": [{"name": "vda1", "mountpoint": "/", "type": "ext4", "disk": [], "used-bytes": 5}],
        "guest-get-disks": [{"name": "/dev/vda", "partition": False, "dependencies": []}],
    }

    def answer(message: dict[str, object]) -> bytes:
        name = str(message["execute"])
        if name not in said:
            return b'{"error": {"class": "CommandNotFound", "desc": "no such command"}}\n'
        return returning(said[name])

    with played(tmp_path / "s", answer), Agent(reaching(tmp_path / "s"), str(tmp_path / "lock")) as agent:
        found = {param.field: param.value.value for param in guestinfo.gather(agent, 0, [])}
        assert found == {
            "os.id": "debian",
            "os.kernel-release": "6.1",
            "timezone.name": "UTC",
            "timezone.offset": 0,
            "hostname": "web1",
            "fs.count": 1,
            "fs.0.name": "vda1",
            "fs.0.mountpoint": "/",
            "fs.0.fstype": "ext4",
            "fs.0.used-bytes": 5,
            "fs.0.disk.count": 0,
            "disk.count": 1,
            "disk.0.name": "/dev/vda",
            "disk.0.partition": 0,
            "if.count": 1,
            "if.0.name": "eth0",
            "if.0.hwaddr": "52:54:00:00:00:01",
            "if.0.addr.count": 1,
            "if.0.addr.0.type": "ipv4",
            "if.0.addr.0.addr": "10.0.0.2",
            "if.0.addr.0.prefix": 24,
        }
        with pytest.raises(AgentError):  # what is asked for by name must be there
            guestinfo.gather(agent, c.VIR_DOMAIN_GUEST_INFO_USERS, [])


def test_guests_without_an_agent() -> None:
    instance = Instance()
    try:
        driver = instance.driver
        channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        off = driver.domain_define_xml(instance.xml("off"))
        without = driver.domain_create_xml(instance.xml("without"), 0)
        deaf = driver.domain_create_xml(instance.xml("deaf", devices=channel), 0)
        paused = driver.domain_create_xml(instance.xml("paused", devices=channel), c.VIR_DOMAIN_START_PAUSED)
        for domain, code, text in (
            (off, c.VIR_ERR_OPERATION_INVALID, "domain is not running"),
            (without, c.VIR_ERR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured"),
            (deaf, c.VIR_ERR_AGENT_UNRESPONSIVE, "QEMU guest agent is not connected"),
            (paused, c.VIR_ERR_OPERATION_INVALID, "domain is not running"),
        ):
            for call in (
                lambda domain=domain: driver.domain_get_time(domain, 0),
                lambda domain=domain: driver.domain_get_hostname(domain, 0),
                lambda domain=domain: driver.domain_fsfreeze(domain, [], 0),
                lambda domain=domain: driver.domain_shutdown_flags(domain, c.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT),
                lambda domain=domain: driver.domain_reboot(domain, c.VIR_DOMAIN_REBOOT_GUEST_AGENT),
                lambda domain=domain: driver.domain_fstrim(domain, None, 0, 0),
                lambda domain=domain: driver.domain_get_guest_info(domain, 0, 0),
                lambda domain=domain: driver.domain_set_user_password(domain, "root", "x", 0),
                lambda domain=domain: driver.domain_interface_addresses(domain, 1, 0),
                lambda domain=domain: driver.qemu_domain_agent_command(domain, '{"execute":"guest-ping"}', -2, 0),
            ):
                with pytest.raises(VirtError, match=text) as caught:
                    call()
                assert caught.value.code == code
    finally:
        instance.close()


def test_a_channel_stays_open_between_conversations() -> None:
    """The guest's agent sleeps for a while whenever the host's end is closed."""
    instance = Instance()
    try:
        channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        domain = instance.driver.domain_create_xml(instance.xml(devices=channel), 0)
        guest = instance.driver.guest(instance.driver.guests.find(domain))
        source = instance.driver.live(instance.driver.guests.find(domain)).channels[0].source
        assert isinstance(source, UnixSource)
        assert source.path is not None
        inodes = []
        for anew in (False, False, True, False):
            with Control(guest) as control, control.channel(source.path, anew=anew) as connection:
                inodes.append(os.fstat(connection.fileno()).st_ino)
        assert inodes[0] == inodes[1] != inodes[2] == inodes[3]
        with Control(guest) as control, pytest.raises(VirtError, match="cannot connect to the guest agent's channel"):
            control.channel(f"{instance.root}/none", anew=False)
    finally:
        instance.close()


def test_a_channel_that_was_closed_meanwhile(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with played(tmp_path / "s", lambda message: returning("pong")):
        new = reaching(tmp_path / "s")
        with Agent(lambda anew: new(anew) if anew else ours, str(tmp_path / "lock")) as agent:
            assert agent.execute("guest-ping") == "pong"
