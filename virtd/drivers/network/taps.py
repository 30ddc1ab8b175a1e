"""Taps and macvtaps: the host's end of a guest's network card.

Whoever starts the guest makes them and hands their descriptors to QEMU; a tap goes when its last descriptor is closed.
A macvtap is a link of its own and has to be removed. Knows nothing of networks: what a card is plugged into is said by
a port (<plug>), or by the guest's own XML.
"""

import errno
import fcntl
import os
import struct
from typing import NamedTuple

from virtd import constants as c
from virtd.drivers.network import links
from virtd.errors import VirtError
from virtd.state import undo
from virtd.state.files import os_error

# <linux/if_tun.h>
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_MULTI_QUEUE, _IFF_VNET_HDR = 0x0002, 0x1000, 0x0100, 0x4000
_REQUEST = struct.Struct("=16sH22x")  # struct ifreq: name, flags
_LONGEST_NAME = 15
_TEMPLATE = "vnet%d"


class Tap(NamedTuple):
    """A tap that has been made."""

    name: str
    fds: list[int]  # one for each queue; they belong to the caller


class Manner(NamedTuple):
    """How a tap is to be made."""

    bridge: str | None  # what it becomes a port of; None for a tap that is nowhere
    mac: str  # of the guest's card
    name: str | None = None  # of the link, perhaps with one %d; None for vnet0, vnet1, …
    queues: int = 1
    vnet_header: bool = True  # for virtio cards: unfinished checksums and large segments pass as they are
    mtu: int | None = None  # None for that of the bridge
    isolated: bool = False  # it cannot reach other isolated ports
    learning: bool = True  # the bridge learns who is there (macTableManager='kernel')
    up: bool = True  # <link state='up'/>


def make(manner: Manner) -> Tap:
    """Make a tap.

    Args:
        manner: how.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR; VIR_ERR_OPERATION_INVALID, the bridge is not there. No tap is left then.
    """
    if manner.bridge is not None and not links.exists(manner.bridge):
        text = f"Cannot get interface MTU on '{manner.bridge}': No such device"
        raise VirtError(c.VIR_ERR_SYSTEM_ERROR, text)
    name = manner.name or _TEMPLATE
    descriptors: list[int] = []
    try:
        for _ in range(manner.queues):
            # The kernel finds a free number; further queues are opened under the name that it chose.
            descriptor, name = _open(name, manner)
            descriptors.append(descriptor)
        _set_up(name, manner)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return Tap(name, descriptors)


def _open(name: str, manner: Manner) -> tuple[int, str]:
    flags = _IFF_TAP | _IFF_NO_PI
    flags |= _IFF_VNET_HDR if manner.vnet_header else 0
    flags |= _IFF_MULTI_QUEUE if manner.queues > 1 else 0
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, f"interface name '{name}' is too long")
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise os_error(error, "Unable to open /dev/net/tun, is tun module loaded?") from None
    try:
        answer = fcntl.ioctl(descriptor, _TUNSETIFF, _REQUEST.pack(os.fsencode(name), flags))
    except OSError as error:
        os.close(descriptor)
        raise os_error(error, f"Unable to create tap device {name}") from None
    return descriptor, os.fsdecode(answer[:16].partition(b"\0")[0])


def _set_up(name: str, manner: Manner) -> None:
    # A bridge without an address of its own takes the lowest of its ports: fe:… is never lower than a real one. It must
    # differ from the guest's own address, too, or the host would take the guest's packets for its own.
    mac = "fe" + manner.mac[2:]
    if mac == manner.mac:
        mac = "fa" + manner.mac[2:]
    mtu = manner.mtu
    if mtu is None and manner.bridge is not None:
        mtu = links.mtu(manner.bridge)
    links.change(name, mac=mac, mtu=mtu)
    links.write_sysctl_if_there(f"ipv6/conf/{name}/disable_ipv6", "1")
    if manner.bridge is not None:
        links.change(name, master=manner.bridge)
        if manner.isolated or not manner.learning:
            links.change_port(name, isolated=manner.isolated, learning=manner.learning)
        if not manner.learning:
            links.add_forwarding(name, manner.mac)
    links.change(name, up=manner.up)


def make_macvtap(device: str, mode: str, mac: str, undo_path: str, *, queues: int = 1) -> Tap:
    """Make a macvtap on a device of the host.

    Args:
        device: the device's link.
        mode: "vepa", "private", "bridge", "passthrough".
        mac: of the guest's card, which the link has, too.
        undo_path: where it is written down that the link has to be removed (virtd.state.undo).
        queues: how many descriptors are wanted.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR; nothing is left then.
    """
    name = _add_macvtap(device, mode, mac, undo_path)
    descriptors: list[int] = []
    try:
        links.change(name, up=True)
        path = f"/dev/tap{links.index(name)}"
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if queues > 1 else 0)
        for _ in range(queues):
            try:
                descriptors.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
                fcntl.ioctl(descriptors[-1], _TUNSETIFF, _REQUEST.pack(b"", flags))
            except OSError as error:
                raise os_error(error, f"cannot open macvtap tap device {path}") from None
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        links.remove(name, kind="macvtap")
        raise
    return Tap(name, descriptors)


def _add_macvtap(device: str, mode: str, mac: str, undo_path: str) -> str:
    """Make the link under a free name."""
    number = 0
    while True:
        name = f"macvtap{number}"
        number += 1
        if links.exists(name):
            continue
        undo.note(undo_path, "macvtap", name=name, mac=mac)
        try:
            links.add_macvtap(name, device, mode, mac)
        except VirtError as error:
            if error.int1 == errno.EEXIST:
                continue  # somebody was quicker
            raise
        return name


def vhost(count: int) -> list[int]:
    """Descriptors of the kernel's own virtio back end, one for each queue; none if the host has no vhost-net."""
    descriptors: list[int] = []
    try:
        for _ in range(count):
            descriptors.append(os.open("/dev/vhost-net", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        return []
    return descriptors


def _undo_macvtap(table: dict[str, int | str]) -> None:
    """Remove a macvtap, not another link that got the name."""
    name = str(table["name"])
    if any(link.name == name and link.mac == table["mac"] for link in links.links()):
        links.remove(name, kind="macvtap")


undo.KINDS.update(macvtap=_undo_macvtap)
