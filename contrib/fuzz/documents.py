#!/usr/bin/env python3
"""Whatever a document says: what it stands for, or a VirtError; never another exception, and never for ever.

    contrib/fuzz/documents.py [TARGET [CASES]]

Documents are what comes from outside: each kind of XML, the configuration file, status files, what QEMU and guests'
agents say. Runs for ever, or CASES cases, of one target or of all in turn. A document that breaks the rule is saved
beside this file, in found/, and shown; with the fix it goes into SEEDS, from which all runs start.
"""

import dataclasses
import itertools
import json
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
sys.path.insert(0, str(TOP))

from virtd.conf.domain import format_domain, parse_domain  # noqa: E402
from virtd.conf.host import GOLDEN_HOST  # noqa: E402
from virtd.conf.network import format_network, format_port, parse_network, parse_port  # noqa: E402
from virtd.conf.secret import format_secret, parse_secret  # noqa: E402
from virtd.conf.storage import format_pool, parse_pool, parse_volume  # noqa: E402
from virtd.drivers.network.running import load_status  # noqa: E402
from virtd.drivers.qemu import shape, status  # noqa: E402
from virtd.drivers.qemu.agent import info  # noqa: E402
from virtd.drivers.qemu.agent.channel import Agent  # noqa: E402
from virtd.drivers.qemu.monitor import qmp  # noqa: E402
from virtd.drivers.qemu.run import reactions  # noqa: E402
from virtd.errors import VirtError  # noqa: E402
from virtd.protocol import codec  # noqa: E402
from virtd.protocol.programs import METHODS  # noqa: E402
from virtd.server.config import Config  # noqa: E402
from virtd.state.process import Process  # noqa: E402

_STATUS = status.Status(
    "web1", "10000000-0000-0000-0000-000000000001", 1, Process(1, 2), policy={"reboot": "restart"},
    expected={"STOP": 1}, ports=[5900], disks={"libvirt-1-storage": ["virtio-disk0", "/disk"]}, gone=["net0"],
)  # fmt: skip
_WHEN = {"seconds": 1, "microseconds": 2}
_EVENTS = [
    {"event": "STOP"},
    {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}},
    {"event": "RTC_CHANGE", "data": {"offset": 78, "qom-path": "/rtc"}},
    {"event": "DEVICE_DELETED", "data": {"device": "net0", "path": "/machine"}},
    {"event": "BLOCK_IO_ERROR", "data": {"device": "", "node-name": "libvirt-1-storage", "operation": "write",
     "action": "stop", "nospace": True, "reason": "No space"}},
    {"event": "GUEST_PANICKED", "data": {"action": "pause", "info": {"type": "hyper-v", "arg1": 1}}},
    {"event": "BALLOON_CHANGE", "data": {"actual": 1 << 30}},
    {"event": "VSERPORT_CHANGE", "data": {"open": True, "id": "channel0"}},
    {"QMP": {"version": {"qemu": {"micro": 2, "minor": 2, "major": 7}, "package": "x"}, "capabilities": ["oob"]}},
    {"return": {"running": True, "status": "running"}, "id": "query-status"},
    {"error": {"class": "GenericError", "desc": "no"}, "id": 3},
]  # fmt: skip
_AGENT = {
    "guest-get-users": [{"user": "root", "login-time": 1.5e9, "domain": "d"}],
    "guest-get-osinfo": {"id": "debian", "name": "Debian", "kernel-release": "6.1", "version-id": "12"},
    "guest-get-timezone": {"zone": "UTC", "offset": 0},
    "guest-get-host-name": {"host-name": "web1"},
    "guest-get-fsinfo": [{"name": "vda1", "mountpoint": "/", "type": "ext4", "total-bytes": 5, "used-bytes": 3,
        "disk": [{"bus-type": "virtio", "bus": 0, "unit": 0, "target": 0, "dev": "/dev/vda1", "serial": "s",
         "pci-controller": {"bus": 0, "slot": 2, "domain": 0, "function": 0}}]}],
    "guest-get-disks": [{"name": "/dev/vda", "partition": False, "alias": "a", "address": {"bus-type": "virtio",
        "bus": 0, "unit": 0, "target": 0, "serial": "s",
        "pci-controller": {"bus": 0, "slot": 2, "domain": 0, "function": 0}}}],
    "guest-network-get-interfaces": [{"name": "eth0", "hardware-address": "52:54:00:00:00:01", "ip-addresses": [
        {"ip-address-type": "ipv4", "ip-address": "10.0.0.1", "prefix": 24}]}],
}  # fmt: skip
_NETWORK = """<network connections='1'><name>net1</name><uuid>20000000-0000-0000-0000-000000000001</uuid>
<forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward><bridge name='virbr0' stp='on' delay='0'/>
<mac address='52:54:00:11:22:33'/><domain name='example.org'/><dns><host ip='10.0.0.1'><hostname>a</hostname></host>
<txt name='t' value='v'/><srv service='s' protocol='tcp'/></dns><ip address='10.0.0.1' netmask='255.255.255.0'><dhcp>
<range start='10.0.0.2' end='10.0.0.9'/><host mac='52:54:00:11:22:34' name='h' ip='10.0.0.3'/></dhcp></ip>
<bandwidth><inbound average='10' peak='20' burst='30'/></bandwidth><vlan><tag id='42'/></vlan>
<portgroup name='p' default='yes'><virtualport type='openvswitch'/></portgroup></network>"""
_PORT = """<networkport><uuid>20000000-0000-0000-0000-000000000002</uuid><owner><name>web1</name>
<uuid>10000000-0000-0000-0000-000000000001</uuid></owner><mac address='52:54:00:11:22:33'/>
<plug type='bridge' bridge='virbr0'/><port isolated='yes'/></networkport>"""
_VOLUME = """<volume type='file'><name>a</name><key>/a</key><capacity unit='GiB'>1</capacity><allocation>0</allocation>
<target><path>/a</path><format type='qcow2'/><permissions><mode>0600</mode><owner>0</owner></permissions>
<compat>1.1</compat><features><lazy_refcounts/></features>
<encryption format='luks'><secret type='passphrase' usage='u'/></encryption></target>
<backingStore><path>/b</path><format type='raw'/></backingStore></volume>"""
_SECRET = """<secret ephemeral='no' private='yes'><description>d</description>
<uuid>40000000-0000-0000-0000-000000000001</uuid><usage type='volume'><volume>/a</volume></usage></secret>"""
_CONFIG = """# comment
max_clients = 20
unix_sock_dir = "/run/libvirt"
unix_sock_rw_perms = "0770"
log_outputs = "1:file:/dev/null 3:stderr"
access_drivers = [ "nop" ]
keepalive_interval = -1
"""

_NETWORK_STATUS = b'{"name": "a", "uuid": "b", "bridge": "c", "networks": ["d"], "dnsmasq": true, "started": 1.5}'

_VALUES = re.compile(rb"='[^']*'|>[^<>]+<|\b\d+\b")
_JUNK = [
    b"", b"0", b"-1", b"1", b"99999999999999999999999", b"0x", b"yes", b"\xff\xfe", b"\0", b"<", b"&amp;",
    b"&x;", b"%s", b"'", b"\n",
    b"a" * 300, b"1.5e400", b"null", b"[]", b"{}", b"true", "ä€😀".encode(), b"\\ud800",
    b"..", b"/", b"1,,2", b"::", b"255.255.255.255",
]  # fmt: skip
_ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    2**70,
    1.5,
    float("inf"),
    "",
    "x",
    "\ud800",
    [],
    {},
    [[]],
    {"a": None},
    ["x"],
    "9" * 400,
]


class Target(NamedTuple):
    """A kind of document.

    Attributes:
        seeds: documents from which others are made.
        read: reads one; raises VirtError if it is wrong.
        json: whether its values can be exchanged as JSON's.
    """

    seeds: list[bytes]
    read: Callable[[bytes], object]
    json: bool = False


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _domain(data: bytes) -> None:
    # libvirt sorts controllers and numbers consoles when it reads them: from the second reading on nothing changes.
    once = format_domain(parse_domain(_text(data), GOLDEN_HOST))
    twice = format_domain(parse_domain(once, GOLDEN_HOST))
    assert format_domain(parse_domain(twice, GOLDEN_HOST)) == twice


def _volume(data: bytes) -> None:
    parse_volume(
        _text(data), parse_pool("<pool type='dir'><name>a</name><target><path>/</path></target></pool>").traits
    )


def _stored(data: bytes) -> None:
    found = status.decode(data)
    assert status.decode(found.encode()) == found


def _network_status(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        load_status(file.name)


def _qmp(data: bytes) -> None:
    reader = qmp.Reader("web1")
    found = dataclasses.replace(_STATUS)
    # In pieces, as a socket gives them.
    for start in range(0, len(data), 100):
        for message in reader.feed(data[start : start + 100]):
            if isinstance(message, qmp.Event):
                reactions.react(found, message)
                status.decode(found.encode())


class _Agent(Agent):
    """An agent whose answers are a document."""

    def __init__(self, answers: object) -> None:
        self._answers = answers

    def execute(self, command: str, *_: object, **__: object) -> object:
        return self._answers.get(command) if isinstance(self._answers, dict) else self._answers


def _agent(data: bytes) -> None:
    try:
        answers = shape.loads(data)
    except (ValueError, RecursionError):
        return  # which the client has dealt with before
    agent = _Agent(answers)
    for bit in info.TYPES:
        try:
            # What the agent said can be told to the client, too.
            codec.encode_result(METHODS["domain_get_guest_info"], info.gather(agent, bit, []))
        except VirtError:
            continue
    codec.encode_result(METHODS["domain_interface_addresses"], agent.interfaces())


def _corpus(name: str) -> list[bytes]:
    """The documents in a table of the tests."""
    table = json.loads((TOP / "tests/conf" / name).read_text())
    entries = table.values() if isinstance(table, dict) else table
    return [entry["in"].encode() for entry in entries]


TARGETS = {
    "domain": Target([path.read_bytes() for path in sorted((TOP / "tests/conf/golden").glob("*.xml"))], _domain),
    "network": Target(
        [_NETWORK.encode(), *_corpus("network/measured.json")], lambda data: format_network(parse_network(_text(data)))
    ),
    "port": Target([_PORT.encode()], lambda data: format_port(parse_port(_text(data)))),
    "pool": Target(_corpus("storage/pools.json"), lambda data: format_pool(parse_pool(_text(data)))),
    "volume": Target([_VOLUME.encode()], _volume),
    "secret": Target([_SECRET.encode()], lambda data: format_secret(parse_secret(_text(data)))),
    "configuration": Target([_CONFIG.encode()], lambda data: Config("virtd.conf", data.decode(errors="replace"))),
    "status": Target([_STATUS.encode()], _stored, json=True),
    "network status": Target([_NETWORK_STATUS], _network_status, json=True),
    "qmp": Target([json.dumps({**one, "timestamp": _WHEN}).encode() + b"\n" for one in _EVENTS], _qmp, json=True),
    "agent": Target([json.dumps(_AGENT).encode()], _agent, json=True),
}  # fmt: skip


def mutate(target: Target, dice: random.Random) -> bytes:
    """A document like one of the target's seeds, but not quite."""
    data = dice.choice(target.seeds)
    if target.json and dice.random() < 0.7:
        table = json.loads(data)
        for _ in range(dice.choice((1, 1, 2, 4))):
            table = _exchange(table, dice)
        return json.dumps(table).encode(errors="surrogatepass") + b"\n"
    for _ in range(dice.choice((1, 1, 2, 5))):
        roll, place = dice.random(), dice.randrange(len(data) + 1)
        found = list(_VALUES.finditer(data))
        if roll < 0.5 and found:
            one = dice.choice(found)
            edge = b"'" if one[0][:1] == b"=" else b""
            value = dice.choice((*_JUNK, dice.choice(found)[0].strip(b"='<>")))
            text = (
                one[0][:1] + edge + value + edge
                if edge
                else one[0][:1] + value + one[0][-1:]
                if b">" in one[0]
                else value
            )
            data = data[: one.start()] + text + data[one.end() :]
        elif roll < 0.7:
            data = data[:place] + dice.choice(_JUNK) + data[place + dice.randrange(4) :]
        elif roll < 0.85:
            data = data[:place] + data[place + dice.randrange(60) :]
        else:
            other = dice.randrange(len(data) + 1)
            data = data[:place] + data[other : other + 80] + data[place:]
    return data


def _exchange(value: Any, dice: random.Random) -> Any:
    """The same with one value in it exchanged, taken away or added."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(sorted(value))
        if dice.random() < 0.15:
            return {name: one for name, one in value.items() if name != key}
        return {**value, key: _exchange(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.8:
        place = dice.randrange(len(value))
        return [*value[:place], _exchange(value[place], dice), *value[place + 1 :]]
    return dice.choice(_ODD)


def cases(name: str, dice: random.Random) -> Iterator[bytes]:
    """Documents without end: first the seeds as they are, then what is made of them."""
    target = TARGETS[name]
    yield from target.seeds
    while True:
        yield mutate(target, dice)


def check(name: str, data: bytes) -> bool:
    """Read a document; whether it was right. Raises what breaks the rule."""
    try:
        TARGETS[name].read(data)
    except VirtError:
        return False
    return True


def main(arguments: list[str]) -> int:
    """Run for ever, or so many cases; 1 if one of them broke the rule."""
    names = arguments[:1] or list(TARGETS)
    limit = int(arguments[1]) if len(arguments) > 1 else None
    number = random.randrange(2**32)
    print(f"random seed {number}")
    dice = random.Random(number)
    sources = {name: cases(name, dice) for name in names}
    for count in itertools.count():
        if count == limit:
            break
        if count % 10_000 == 0:
            print(f"{count} cases of each", flush=True)
        for name, source in sources.items():
            data = next(source)
            try:
                check(name, data)
            except Exception:
                (HERE / "found").mkdir(exist_ok=True)
                path = HERE / "found" / f"{name}-{number}-{count}"
                path.write_bytes(data)
                print(f"{name} broken by {path}")
                raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
