"""Ports of an Open vSwitch, by its own command (ovs-vsctl(8)): a tap becomes one, with what identifies the guest there.

What the switch is told is what libvirt tells it: the guest's address and identity, by which controllers know a port.
"""

import shutil
import subprocess
from typing import NamedTuple

from virtd import constants as c
from virtd.errors import VirtError
from virtd.state import undo

_SECONDS = 5
# <vlan>: what a tag of a port's own is called, by the XML's nativeMode.
_NATIVE = {"tagged": "native-tagged", "untagged": "native-untagged"}


class Port(NamedTuple):
    """A port to be.

    Attributes:
        mac: of the guest's card.
        guest: the guest's uuid.
        interface: the interfaceid of the XML.
        profile: the profileid of the XML.
        tags: numbers of its VLANs.
        trunk: whether packets are tagged on the port.
        native: the VLAN of untagged packets of a trunk, and the XML's nativeMode.
    """

    mac: str
    guest: str
    interface: str
    profile: str | None = None
    tags: tuple[int, ...] = ()
    trunk: bool = False
    native: tuple[int, str] | None = None


def add_port(switch: str, tap: str, port: Port, undo_path: str) -> None:
    """Make a tap a port of a switch.

    Args:
        switch: the switch's bridge.
        tap: the tap.
        port: what the switch is told of it.
        undo_path: where it is written down that the port has to be removed.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, there is no such switch, or no ovs-vsctl.
    """
    ids = {"attached-mac": port.mac, "iface-id": port.interface, "vm-id": port.guest, "iface-status": "active"}
    command = ["--", "--if-exists", "del-port", tap, "--", "add-port", switch, tap, *_vlan(port)]
    for name, value in ids.items():
        command += ["--", "set", "Interface", tap, f'external-ids:{name}="{value}"']
    if port.profile:
        command += ["--", "set", "Interface", tap, f'external-ids:port-profile="{port.profile}"']
    undo.note(undo_path, "ovs-port", name=tap)
    if not _run(command):
        text = f"Unable to add port {tap} to OVS bridge {switch}"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NONE)


def _vlan(port: Port) -> list[str]:
    if not port.tags:
        return []
    words = []
    if port.native is not None:
        words += [f"vlan_mode={_NATIVE[port.native[1]]}", f"tag={port.native[0]}"]
    if port.trunk:
        return [*words, f"trunk={','.join(map(str, port.tags))}"]
    return [*words, f"tag={port.tags[0]}"]


def remove_port(tap: str) -> None:
    """Remove a tap from its switch; one that is in none is no matter.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR.
    """
    if not _run(["--", "--if-exists", "del-port", tap]):
        text = f"Unable to delete port {tap} from OVS"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NONE)


def _run(words: list[str]) -> bool:
    program = shutil.which("ovs-vsctl", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        return False
    command = [program, f"--timeout={_SECONDS}", *words]
    try:
        return subprocess.run(command, capture_output=True, timeout=2 * _SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _undo_port(table: dict[str, str]) -> None:
    remove_port(table["name"])


undo.KINDS.update({"ovs-port": _undo_port})
