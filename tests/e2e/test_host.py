"""The connection and the host through virsh, and what each kind of connection may do."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.e2e.guests import Guest
from tests.helpers.instance import Instance

EMULATOR = "/usr/bin/qemu-system-x86_64"


def qemu_version() -> str:
    """The version that QEMU says of itself."""
    said = subprocess.run([EMULATOR, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+\.\d+\.\d+)", said)
    assert found
    return found[1]


def table(text: str) -> dict[str, str]:
    """Lines of 'Name: value'."""
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def test_versions_and_names(virtd: Instance, connection: Any) -> None:
    said = virtd.virsh("version", "--daemon")
    assert "Using API: QEMU 9.0.0" in said
    assert f"Running hypervisor: QEMU {qemu_version()}" in said
    assert "Running against daemon: 9.0.0" in said
    assert virtd.virsh("hostname") in (socket.gethostname(), socket.getfqdn())
    assert connection.getType() == "QEMU"
    assert (connection.isAlive(), connection.isSecure(), connection.isEncrypted()) == (1, 1, 0)
    assert connection.getLibVersion() == 9000000
    assert connection.getMaxVcpus("qemu") == 16
    # A URI without a name is completed by the server.
    assert virtd.virsh("uri") == virtd.uri


def test_nodeinfo(virtd: Instance) -> None:
    node = table(virtd.virsh("nodeinfo"))
    assert node["CPU model"] == os.uname().machine
    assert int(node["CPU(s)"]) == os.sysconf("SC_NPROCESSORS_ONLN")
    # What its NUMA cells have; that need not be all that the kernel counts.
    assert 0 < int(node["Memory size"].split()[0]) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    sockets, cores, threads, cells = (
        int(node[name]) for name in ("CPU socket(s)", "Core(s) per socket", "Thread(s) per core", "NUMA cell(s)")
    )
    assert sockets * cores * threads * cells >= int(node["CPU(s)"])


def test_statistics_of_the_node(virtd: Instance) -> None:
    first, second = (table(virtd.virsh("nodecpustats")) for _ in range(2))
    assert set(first) == {"user", "system", "idle", "iowait"}
    assert all(int(second[name]) >= int(first[name]) for name in ("user", "system", "idle"))
    assert set(table(virtd.virsh("nodecpustats", "--percent"))) == {"usage", "user", "system", "idle", "iowait"}
    memory = table(virtd.virsh("nodememstats"))
    assert set(memory) == {"total", "free", "buffers", "cached"}
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    assert int(memory["total"].split()[0]) == pages
    assert int(virtd.virsh("freecell").split()[1]) <= pages
    cpus = table(virtd.virsh("nodecpumap"))
    assert int(cpus["CPUs online"]) == os.sysconf("SC_NPROCESSORS_ONLN")


def test_capabilities_of_the_host_and_of_guests(virtd: Instance) -> None:
    tree = ElementTree.fromstring(virtd.virsh("capabilities"))
    assert tree.findtext("host/cpu/arch") == os.uname().machine
    assert re.fullmatch(r"[0-9a-f-]{36}", tree.findtext("host/uuid") or "")
    (guest,) = [guest for guest in tree.findall("guest") if guest.find("arch[@name='x86_64']") is not None]
    (arch,) = guest.findall("arch")
    assert guest.findtext("os_type") == "hvm"
    assert arch.findtext("emulator") == EMULATOR
    assert {"pc", "q35"} <= {machine.text for machine in arch.findall("machine")}
    assert arch.find("domain[@type='qemu']") is not None

    for machine, name in (("pc", "pc-i440fx-"), ("q35", "pc-q35-")):
        tree = ElementTree.fromstring(virtd.virsh("domcapabilities", "--virttype", "qemu", "--machine", machine))
        assert tree.findtext("path") == EMULATOR
        assert tree.findtext("domain") == "qemu"
        assert (tree.findtext("machine") or "").startswith(name)
        vcpu = tree.find("vcpu")
        assert vcpu is not None
        assert int(vcpu.attrib["max"]) >= 255
        buses = {value.text for value in tree.findall("devices/disk/enum[@name='bus']/value")}
        assert {"virtio", "scsi", "usb", "sata"} <= buses
        assert ("ide" in buses) == (machine == "pc")

    for options, text in (
        (["--emulatorbin", "/nope"], "Cannot check QEMU binary /nope: No such file or directory"),
        (["--arch", "zz"], "invalid argument: unknown architecture: zz"),
        (["--machine", "nope"], f"invalid argument: the machine 'nope' is not supported by emulator '{EMULATOR}'"),
        (["--virttype", "zz"], "invalid argument: unknown virttype: zz"),
    ):
        assert virtd.virsh_error("domcapabilities", *options).endswith(text)


# What a read-only client may call, and what it may not.
ALLOWED: list[tuple[str, ...]] = [
    ("list", "--all"),
    ("dominfo", "web1"),
    ("domstate", "web1"),
    ("dumpxml", "web1"),
    ("capabilities",),
    ("nodeinfo",),
    ("version", "--daemon"),
    ("desc", "web1", "--title"),
    ("vcpucount", "web1"),
]
REFUSED: list[tuple[str, tuple[str, ...]]] = [
    ("virDomainCreate", ("start", "web2")),
    ("virDomainCreateWithFlags", ("start", "web2", "--paused")),
    ("virDomainSuspend", ("suspend", "web1")),
    ("virDomainResume", ("resume", "web1")),
    ("virDomainReset", ("reset", "web1")),
    ("virDomainReboot", ("reboot", "web1")),
    ("virDomainShutdown", ("shutdown", "web1")),
    ("virDomainDestroy", ("destroy", "web1")),
    ("virDomainUndefineFlags", ("undefine", "web1")),
    ("virDomainRename", ("domrename", "web2", "web3")),
    ("virDomainSetAutostart", ("autostart", "web1")),
    ("virDomainSetMetadata", ("desc", "web1", "--new-desc", "x")),
    ("virDomainSendKey", ("send-key", "web1", "KEY_A")),
    ("virDomainInjectNMI", ("inject-nmi", "web1")),
    ("virDomainScreenshot", ("screenshot", "web1", "/dev/null")),
]


def test_read_only_clients(virtd: Instance, running: Callable[..., Guest], defined: Callable[..., Guest]) -> None:
    running("web1")
    guest = defined("web2")
    for command in ALLOWED:
        virtd.virsh(*command, read_only=True)
    for function, command in (*REFUSED, ("virDomainDefineXML", ("define", str(guest.file)))):
        assert virtd.virsh_error(*command, read_only=True).endswith(
            f"operation forbidden: read only access prevents {function}"
        )
    for option in ("--security-info", "--migratable"):
        assert virtd.virsh_error("dumpxml", "web1", option, read_only=True).endswith(
            "operation forbidden: virDomainGetXMLDesc with secure flag"
        )
    assert virtd.virsh("domstate", "web1") == "running"
    assert virtd.virsh("domstate", "web2") == "shut off"


def test_a_read_only_connection_to_the_other_socket_is_as_limited(
    virtd: Instance, libvirt: ModuleType, defined: Callable[..., Guest]
) -> None:
    defined("web1")
    connection = libvirt.openReadOnly(virtd.uri)
    with pytest.raises(libvirt.libvirtError, match="read only access prevents virDomainCreate"):
        connection.lookupByName("web1").create()
    connection.close()


def test_uris_that_lead_nowhere(virtd: Instance, libvirt: ModuleType) -> None:
    for uri, code, text in (
        (virtd.uri.replace(f":///{virtd.mode}", ":///nope"), 1, "internal error: unexpected qemu URI path '/nope'"),
        (virtd.uri.replace("qemu+", "xen+"), 5, "no connection driver available for xen:///"),
    ):
        with pytest.raises(libvirt.libvirtError) as caught:
            libvirt.open(uri)
        assert caught.value.get_error_code() == code
        assert caught.value.get_error_message().startswith(text)


def test_what_is_not_there_yet_is_said_in_libvirts_words(connection: Any, libvirt: ModuleType) -> None:
    with pytest.raises(libvirt.libvirtError) as caught:
        connection.domainXMLFromNative("qemu-argv", "/bin/true", 0)
    assert caught.value.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT
    assert caught.value.get_error_message() == (
        "this function is not supported by the connection driver: virConnectDomainXMLFromNative"
    )
