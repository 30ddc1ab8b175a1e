"""A user's first hour: virt-install, virt-clone and virt-xml, unmodified. Each ends with a right, running guest."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drivers.network.conftest import namespace  # noqa: F401 - a fixture
from tests.e2e.guests import wait_off
from tests.e2e.test_guests_on_networks import on_network  # noqa: F401 - a fixture
from tests.e2e.virtinst import Tools
from tests.guests.linux import READY
from tests.guests.linux import Guest as Linux
from tests.helpers.console import ESCAPE
from tests.helpers.instance import Instance
from tests.linkage.conftest import nobody  # noqa: F401 - a fixture
from tests.linkage.test_session import User, user  # noqa: F401 - a fixture


@pytest.fixture
def tools(virtd: Instance, need_program: Callable[[str], str]) -> Tools:
    """The tools on a running virtd."""
    need_program("virt-install")
    return Tools(virtd, virtd.uri)


@pytest.mark.parametrize("osinfo", ["generic", "linux2022"])
def test_import(tools: Tools, osinfo: str) -> None:
    guest = tools.install(
        "web1", "--import", "--disk", tools.disk("web1"), "--network", "user", "--tpm", "none", osinfo=osinfo
    )
    guest.wait()
    assert tools.running() == tools.defined() == ["web1"]
    config = tools.xml("web1")
    assert [one.get("type") for one in config.iter("interface")] == ["user"]
    known = config.find("metadata/{*}libosinfo/{*}os")
    assert (known is not None and "linux/2022" in known.attrib["id"]) == (osinfo == "linux2022")
    # linux2022 is a guest with virtio, on the modern machine.
    machine = config.find("os/type").get("machine")  # type: ignore[union-attr]
    assert ("q35" in str(machine)) == (osinfo == "linux2022")


def test_cdrom_and_a_new_disk(tools: Tools, need_program: Callable[[str], str]) -> None:
    need_program("xorriso")
    disc = tools.disc("cd")
    guest = tools.install("cd1", "--cdrom", str(disc), "--disk", "size=0.01", osinfo="linux2022")
    guest.wait()
    assert tools.virsh("vol-list", "default").split()[0] == "cd1.qcow2"
    assert "Capacity:       10.24 MiB" in tools.virsh("vol-info", "cd1.qcow2", "default")
    assert str(disc) in tools.virsh("domblklist", "cd1")
    # What is defined boots from the disk, and the disc is out.
    after = tools.xml("cd1", "--inactive")
    assert [one.get("dev") for one in after.iter("boot")] == ["hd"]
    assert after.find("devices/disk[@device='cdrom']/source") is None
    tools.virsh("destroy", "cd1")
    tools.virsh("start", "cd1")
    tools.virsh("destroy", "cd1")
    tools.virsh("undefine", "cd1", "--remove-all-storage")
    assert os.listdir(tools.pool) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_location_on_the_default_network(
    on_network: Instance,  # noqa: F811
    linux_guest: Linux,
    need_program: Callable[[str], str],
) -> None:
    need_program("virt-install")
    tools = Tools(on_network, on_network.uri)
    tree = tools.tree(linux_guest.kernel, linux_guest.initrd)
    arguments = linux_guest.command_line("virtd.net=dhcp", "virtd.quiet")
    options = ["--location", str(tree), "--extra-args", arguments, "--disk", "size=0.01", "--memory", "256"]
    guest = tools.install("net1", *options, "--network", "network=default", osinfo="linux2022")
    guest.wait(READY.encode())
    assert b"virtd: address 192.168.122." in guest.said()
    # The kernel was for the installation only.
    assert tools.xml("net1").find("os/kernel") is not None
    assert tools.xml("net1", "--inactive").find("os/kernel") is None


def test_cloud_init(tools: Tools) -> None:
    data = tools.files / "user-data"
    data.write_text("#cloud-config\nhostname: cloud1\n")
    disk = tools.disk("cloud1")
    guest = tools.install("cloud1", "--import", "--disk", disk, "--cloud-init", f"user-data={data}", osinfo="linux2022")
    guest.wait()
    drives = tools.xml("cloud1").findall("devices/disk[@device='cdrom']/source")
    assert [Path(one.attrib["file"]).name.endswith("cloudinit.iso") for one in drives] == [True]
    # It was for the first boot only.
    assert tools.xml("cloud1", "--inactive").find("devices/disk[@device='cdrom']/source") is None


def test_uefi_with_a_tpm(tools: Tools, need_program: Callable[[str], str]) -> None:
    """Variables and TPM state are made, kept, reset, and removed only when that is said."""
    need_program("swtpm")
    options = ["--memory", "128", "--import", "--disk", tools.disk("uefi1"), "--boot", "uefi", "--tpm", "default"]
    tools.install("uefi1", *options, osinfo="linux2022")
    config = tools.xml("uefi1")
    variables = Path(config.findtext("os/nvram") or "")
    uuid = config.findtext("uuid") or ""
    assert variables.stat().st_size > 100_000
    [state] = tools.instance.root.rglob(f"swtpm/{uuid}")
    assert [one.title.split()[0].endswith("swtpm") for one in tools.instance.processes() if str(state) in one.title]
    tools.virsh("destroy", "uefi1")
    assert not [one for one in tools.instance.processes() if "swtpm" in one.title]
    manufactured = sorted(state.rglob("*"))
    assert len(manufactured) > 1
    # The variables are the guest's, until they are reset.
    template = variables.read_bytes()
    variables.write_bytes(template + b"changed")
    tools.virsh("start", "uefi1", "--paused", "--reset-nvram")
    assert b"changed" not in variables.read_bytes()[-7:]
    tools.virsh("destroy", "uefi1")
    error = tools.instance.virsh_error("undefine", "uefi1")
    assert "cannot undefine domain with nvram" in error
    xml = tools.files / "uefi1.xml"
    xml.write_text(tools.virsh("dumpxml", "uefi1", "--inactive"))
    tools.virsh("undefine", "uefi1", "--keep-nvram", "--keep-tpm")
    assert variables.exists()
    assert sorted(state.rglob("*")) == manufactured
    tools.virsh("define", str(xml))
    tools.virsh("undefine", "uefi1", "--nvram", "--tpm")
    assert not variables.exists()
    assert not state.exists()


def test_transient(tools: Tools) -> None:
    guest = tools.install("brief", "--import", "--disk", tools.disk("brief"), "--transient")
    guest.wait()
    assert (tools.running(), tools.defined()) == (["brief"], [])
    tools.virsh("destroy", "brief")
    wait_off(tools.instance, "brief")
    assert tools.virsh("list", "--all", "--name") == ""


def test_print_xml(tools: Tools) -> None:
    """Dry, it changes nothing, and what it prints virtd takes."""
    options = tools.options("print1", "--import", "--disk", "size=1", "--noautoconsole", osinfo="linux2022")
    text = tools("virt-install", *options, "--print-xml", "--dry-run")
    assert tools.virsh("list", "--all", "--name") == ""
    assert os.listdir(tools.pool) == []
    (tools.files / "print1.xml").write_text(text)
    tools.virsh("define", "--validate", str(tools.files / "print1.xml"))
    assert tools.defined() == ["print1"]


def test_with_the_console(tools: Tools) -> None:
    with tools.console("shown", "--import", "--disk", tools.disk("shown")) as console:
        console.until(b"Connected to domain 'shown'", 60)
        tools.virsh("reset", "shown")
        console.until(b"virtd: booted")
        console.type(ESCAPE)
        console.until_end()
    assert tools.running() == ["shown"]


def test_destroyed_on_exit(tools: Tools) -> None:
    with tools.console("bound", "--import", "--disk", tools.disk("bound"), "--destroy-on-exit") as console:
        console.until(b"Connected to domain 'bound'", 60)
        assert tools.running() == ["bound"]
        console.type(ESCAPE)
        console.until_end()
    wait_off(tools.instance, "bound")
    assert (tools.running(), tools.defined()) == ([], ["bound"])


def test_clone_and_edit(tools: Tools) -> None:
    tools.install("first", "--import", "--disk", tools.disk("first"), "--disk", "size=0.01").wait()
    tools.virsh("destroy", "first")
    tools("virt-clone", "--original", "first", "--auto-clone")
    assert tools.defined() == ["first", "first-clone"]
    old, new = tools.xml("first"), tools.xml("first-clone")
    assert old.findtext("uuid") != new.findtext("uuid")
    [disks, others] = [[one.attrib["file"] for one in config.iterfind("devices/disk/source")] for config in (old, new)]
    assert len(set(disks) | set(others)) == 4
    for mine, other in zip(disks, others, strict=True):
        subprocess.run(["qemu-img", "compare", "-q", mine, other], check=True)
    # Both run side by side: nothing of the one is the other's.
    output = tools.files / "clone.serial"
    tools("virt-xml", "first-clone", "--edit", "--serial", f"path={output}")
    tools("virt-xml", "first-clone", "--edit", "--memory", "96")
    tools("virt-xml", "first-clone", "--edit", "--metadata", "title=a clone")
    tools("virt-xml", "first-clone", "--add-device", "--watchdog", "i6300esb,action=reset")
    edited = tools.xml("first-clone")
    assert (edited.findtext("memory"), edited.findtext("title")) == (str(96 << 10), "a clone")
    assert [one.get("action") for one in edited.iter("watchdog")][:1] == ["reset"]
    tools("virt-xml", "first-clone", "--remove-device", "--watchdog", "all")
    assert list(tools.xml("first-clone").iter("watchdog")) == []
    for name in ("first", "first-clone"):
        tools.virsh("start", name)
    assert sorted(tools.running()) == ["first", "first-clone"]


@pytest.fixture
def session(user: User, need_program: Callable[[str], str]) -> Iterator[Tools]:  # noqa: F811
    """The tools as a user without privileges has them, on the server that libvirt's library starts for him."""
    need_program("virt-install")

    def run(*command: str) -> str:
        return user.instance.run(*user.become, *command, env=user.environment, seconds=120).stdout

    environment = {**user.environment, "HOME": str(user.home)}
    made = Tools(user.instance, "qemu:///session", run, environment=environment, become=user.become, default=False)
    yield made
    for name in made.running():
        made.virsh("destroy", name)


def test_session(session: Tools, need_program: Callable[[str], str]) -> None:
    """A new user: virt-install makes the default pool, where distributions have it."""
    data = session.files / "user-data"
    data.write_text("#cloud-config\nhostname: mine\n")
    disks = ["--import", "--disk", session.disk("mine"), "--disk", "size=0.01", "--cloud-init", f"user-data={data}"]
    guest = session.install("mine", *disks, "--network", "user", osinfo="linux2022")
    guest.wait()
    assert session.running() == session.defined() == ["mine"]
    images = session.home / ".local/share/libvirt/images"
    assert f"<path>{images}</path>" in session.virsh("pool-dumpxml", "default")
    assert "default" in session.virsh("pool-list", "--autostart", "--name").split()
    assert "mine.qcow2" in os.listdir(images)
    drives = session.xml("mine").findall("devices/disk[@device='cdrom']/source")
    assert [Path(one.attrib["file"]).name.endswith("cloudinit.iso") for one in drives] == [True]
    assert session.xml("mine", "--inactive").find("devices/disk[@device='cdrom']/source") is None
    session.virsh("destroy", "mine")
    session("virt-clone", "--original", "mine", "--name", "yours", "--auto-clone")
    session("virt-xml", "yours", "--edit", "--serial", f"path={session.files}/yours.serial")
    session.virsh("start", "yours")
    assert session.running() == ["yours"]


def test_session_from_a_disc_and_a_tree(session: Tools, linux_guest: Linux, need_program: Callable[[str], str]) -> None:
    need_program("xorriso")
    disc = session.disc("cd")
    session.install("cd1", "--cdrom", str(disc), "--disk", "size=0.01").wait()
    assert str(disc) in session.virsh("domblklist", "cd1")
    tree = session.tree(linux_guest.kernel, linux_guest.initrd)
    # Whatever the guest does when it is left, it is not started again.
    arguments = ["--extra-args", "console=ttyS0", "--memory", "256", "--destroy-on-exit", "--noreboot"]
    with session.console("tree1", "--location", str(tree), "--disk", "none", *arguments) as console:
        console.until(b"Linux version", 120)
        assert sorted(session.running()) == ["cd1", "tree1"]
        console.type(ESCAPE)
        console.until_end()
    wait_off(session.instance, "tree1")
    assert session.running() == ["cd1"]
