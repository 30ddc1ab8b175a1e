"""For the tests of the command line: a guest's XML in pieces, its options as a table, a QEMU that runs it."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from virtd.conf.domain import Domain, assign_aliases, parse_domain
from virtd.conf.host import GOLDEN_HOST
from virtd.drivers.qemu.command import Command, Setup, build
from virtd.drivers.qemu.host import probe
from virtd.drivers.qemu.host.binary import Binary
from virtd.drivers.qemu.monitor.client import Monitor
from virtd.drivers.qemu.run import confine
from virtd.state import sockets

QEMU = "/usr/bin/qemu-system-x86_64"
FILE = "<source file='/a.img'/>"
XHCI = "<controller type='usb' model='qemu-xhci'/>"
UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"


def domain_xml(
    devices: str = "",
    top: str = "",
    *,
    machine: str = "pc",
    os_xml: str = "",
    os_attributes: str = "",
    kind: str = "qemu",
) -> str:
    """The XML of a guest that has nothing but what is asked for and what every machine has."""
    vcpu = "" if "<vcpu" in top else "<vcpu>2</vcpu>"
    balloon = "" if "<memballoon" in devices else "<memballoon model='none'/>"
    usb = "" if "type='usb'" in devices else "<controller type='usb' model='none'/>"
    return (
        f"<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>a</name>"
        f"<uuid>{UUID}</uuid><memory>65536</memory>{vcpu}<os{os_attributes}><type machine='{machine}'>hvm</type>"
        f"{os_xml}</os>{top}<devices>{balloon}{usb}{devices}</devices></domain>"
    )


def disk(target: str, *inner: str, device: str = "disk", kind: str = "file", attributes: str = "") -> str:
    """The XML of a disk."""
    bus = {"vd": "virtio", "hd": "ide", "fd": "fdc"}.get(target[:2], "scsi")
    given = "".join(inner)
    parts = given if "<target" in given else f"{given}<target dev='{target}' bus='{bus}'/>"
    return f"<disk type='{kind}' device='{device}' {attributes}>{parts}</disk>"


def interface(*inner: str, kind: str = "user", model: str = "virtio") -> str:
    """The XML of a network card."""
    given = "".join(inner)
    mac = "<mac address='52:54:00:00:00:01'/>"
    return f"<interface type='{kind}'>{mac}<model type='{model}'/>{given}</interface>"


def parse(xml: str) -> Domain:
    """A guest that is ready for its command line."""
    config = parse_domain(xml, GOLDEN_HOST)
    assign_aliases(config)
    return config


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Binary:
    """The QEMU of this machine."""
    if not os.path.exists(QEMU):
        pytest.skip("needs QEMU")
    return probe.probe(QEMU, str(tmp_path_factory.mktemp("cache")))


def options(command: Command) -> list[tuple[str, object]]:
    """The options of a command line with their values, those in JSON decoded."""
    words, found = command.argv[1:], []
    for number, word in enumerate(words):
        if word.startswith("-"):
            value = words[number + 1] if number + 1 < len(words) and not words[number + 1].startswith("-") else None
            decoded: object = json.loads(value) if value is not None and value.startswith("{") else value
            found.append((word.removeprefix("-"), decoded))
    return found


def native(xml: str, binary: Binary) -> list[tuple[str, object]]:
    """The options of a guest that will not be started."""
    setup = Setup(private="/private", memory="/memory", nvram="/nvram", channels="/channels")
    return options(build(parse(xml), binary, setup))


def objects(found: list[tuple[str, object]], kind: str) -> list[dict[str, object]]:
    """The objects whose type begins so."""
    tables = (value for name, value in found if name == "object" and isinstance(value, dict))
    return [table for table in tables if table["qom-type"].startswith(kind)]


def devices_of(found: list[tuple[str, object]], *drivers: str) -> list[dict[str, object]]:
    """The devices, of some kinds or all."""
    tables = (value for name, value in found if name == "device" and isinstance(value, dict))
    return [table for table in tables if not drivers or table["driver"] in drivers]


@contextmanager
def running(xml: str, binary: Binary, folder: Path) -> Iterator[tuple[Monitor, Domain, Command]]:
    """A real QEMU for a guest, before its first instruction; it gets no further.

    Gives its monitor, the guest's configuration, and the command it was started with.
    """
    config = parse(xml)
    listening = {name: sockets.listen(str(folder / f"{name}.sock")) for name in ("monitor", "events")}
    setup = Setup(
        monitors=[(name, one.fileno()) for name, one in listening.items()],
        private=str(folder),
        memory=str(folder),
        nvram=str(folder),
        undo=str(folder / "undo"),
    )
    command = build(config, binary, setup)
    with open(folder / "output", "w+") as output:
        pid = confine.spawn(
            command.argv,
            environment=confine.environment(str(folder), privileged=True) | command.environment,
            output=output.fileno(),
            fds=command.fds,
            cpus=command.cpus,
        )
    command.close()
    for one in listening.values():
        one.close()
    try:
        with Monitor(folder / "monitor.sock", "a", 20) as monitor:
            yield monitor, config, command
    except BaseException:
        print((folder / "output").read_text())
        raise
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
