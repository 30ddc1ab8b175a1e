"""The host's links, addresses and routes: what there is, and the changes that networks need.

All of it concerns the network namespace of the calling process. Errors are VirtErrors that name the link.
"""

import errno
import ipaddress
import os
import socket
import struct
from typing import NamedTuple

from virtd import constants as c
from virtd.drivers.network import netlink
from virtd.drivers.network.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, attribute, byte, nested, number, text
from virtd.errors import VirtError
from virtd.state.files import os_error

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Net = ipaddress.IPv4Network | ipaddress.IPv6Network

# <linux/rtnetlink.h>
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_RTM_NEWNEIGH, _RTM_GETNEIGH = 28, 30
# <linux/if_link.h>
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_PROTINFO, _IFLA_LINKINFO = (
    1,
    3,
    4,
    5,
    10,
    12,
    18,
)
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_BR_FORWARD_DELAY, _IFLA_BR_STP_STATE, _IFLA_BR_VLAN_FILTERING = 1, 5, 7
_IFLA_MACVLAN_MODE = 1
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthrough": 8}
_IFLA_BRPORT_LEARNING, _IFLA_BRPORT_UNICAST_FLOOD, _IFLA_BRPORT_ISOLATED = 8, 9, 33
# <linux/if_addr.h>, <linux/rtnetlink.h>, <linux/neighbour.h>
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 4, 5, 6
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE, _RTN_UNICAST = 254, 4, 0, 1
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_REACHABLE, _NUD_NOARP, _NTF_MASTER = 0x02, 0x40, 0x04
_IFF_UP = 1

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, mask of flags
_ADDRESS = struct.Struct("=BBBBi")  # family, prefix, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, prefix, source prefix, tos, table, protocol, scope, type, flags
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type

# The kernel's own bound of a forward delay while the spanning tree protocol is on, in seconds (IEEE 802.1D).
_LEAST_DELAY, _LARGEST_DELAY = 2, 30


class Link(NamedTuple):
    """A link of the host."""

    number: int
    name: str
    kind: str  # "bridge", "tun", "veth", …; empty for a real card
    mac: str
    mtu: int
    master: int  # number of the bridge it is a port of; 0 for none


class Route(NamedTuple):
    """A route of the host, or the network of an address of its."""

    network: Net
    device: str


def links() -> list[Link]:
    """All links of the host."""
    with Netlink() as kernel:
        answers = kernel.dump(_RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
    return [_link(answer) for answer in answers]


def _link(answer: netlink.Answer) -> Link:
    _, _, place, _, _ = _LINK.unpack(answer.fixed)
    found = answer.attributes
    info = netlink.parse(found.get(_IFLA_LINKINFO, b""))
    return Link(
        number=place,
        name=_string(found.get(_IFLA_IFNAME, b"")),
        kind=_string(info.get(_IFLA_INFO_KIND, b"")),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=struct.unpack("=I", found[_IFLA_MTU])[0] if _IFLA_MTU in found else 0,
        master=struct.unpack("=I", found[_IFLA_MASTER])[0] if _IFLA_MASTER in found else 0,
    )


def exists(name: str) -> bool:
    """Whether there is a link of this name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def index(name: str) -> int:
    """The number of a link.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, there is none.
    """
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise os_error(error, f"Cannot get interface index on '{name}'") from None


def mtu(name: str) -> int:
    """The MTU of a link.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, there is no such link.
    """
    for link in links():
        if link.name == name:
            return link.mtu
    raise os_error(OSError(errno.ENODEV, os.strerror(errno.ENODEV)), f"Cannot get interface MTU on '{name}'")


def add_macvtap(name: str, device: str, mode: str, mac: str) -> None:
    """Make a macvtap.

    Args:
        name: its name; no link may have it.
        device: the link that it lies on.
        mode: "private", "vepa", "bridge", "passthrough".
        mac: its address.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    options = nested(_IFLA_INFO_DATA, number(_IFLA_MACVLAN_MODE, _MACVLAN_MODES[mode]))
    attributes = text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, _raw(mac)) + number(_IFLA_LINK, index(device))
    attributes += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "macvtap"), options)
    what = f"error creating macvtap interface {name}@{device} ({mac})"
    _ask(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0), attributes, what)


def add_bridge(name: str, *, mac: str | None, mtu: int | None, stp: bool, delay: int, vlan_filtering: bool) -> None:
    """Make a bridge.

    Args:
        name: its name; no link may have it.
        mac: its address, which it keeps whatever its ports' are.
        mtu: its MTU; None for the kernel's default.
        stp: whether it takes part in the spanning tree protocol.
        delay: how long a new port listens before it forwards, in seconds.
        vlan_filtering: whether it filters by VLAN, which is what its forwarding table can be fed by hand for.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    # The kernel takes a delay out of bounds only while the protocol is off, and corrects it when that is switched on.
    bounded = min(max(delay, _LEAST_DELAY), _LARGEST_DELAY) if stp else delay
    options = [number(_IFLA_BR_FORWARD_DELAY, bounded * 100), number(_IFLA_BR_STP_STATE, int(stp))]
    if vlan_filtering:
        options.append(byte(_IFLA_BR_VLAN_FILTERING, 1))
    attributes = text(_IFLA_IFNAME, name)
    if mac is not None:
        attributes += attribute(_IFLA_ADDRESS, _raw(mac))
    attributes += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"), nested(_IFLA_INFO_DATA, *options))
    fixed = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    _ask(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, fixed, attributes, f"error creating bridge interface {name}")
    if mtu is not None:
        # Said at its birth it would be forgotten with the first port that goes.
        change(name, mtu=mtu)


def remove(name: str, *, kind: str) -> None:
    """Remove a link, if there is one of this name and kind.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    found = next((link for link in links() if link.name == name), None)
    if found is not None and found.kind == kind:
        fixed = _LINK.pack(socket.AF_UNSPEC, 0, found.number, 0, 0)
        _ask(_RTM_DELLINK, 0, fixed, b"", f"Unable to delete {kind} {name}")


def change(
    name: str, *, up: bool | None = None, mac: str | None = None, mtu: int | None = None, master: str | None = None
) -> None:
    """Change a link.

    Args:
        name: the link.
        up: switch it on or off.
        mac, mtu: new values.
        master: the bridge it becomes a port of; "" for none.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    attributes = b""
    if mac is not None:
        attributes += attribute(_IFLA_ADDRESS, _raw(mac))
    if mtu is not None:
        attributes += number(_IFLA_MTU, mtu)
    if master is not None:
        attributes += number(_IFLA_MASTER, index(master) if master else 0)
    flags, mask = (int(up), _IFF_UP) if up is not None else (0, 0)
    fixed = _LINK.pack(socket.AF_UNSPEC, 0, index(name), flags, mask)
    what = f"add '{name}' to bridge '{master}'" if master else f"change interface '{name}'"
    _ask(_RTM_NEWLINK, 0, fixed, attributes, f"Unable to {what}")


def change_port(name: str, *, isolated: bool, learning: bool = True) -> None:
    """Set how a bridge treats one of its ports.

    Args:
        name: the port's link.
        isolated: whether it cannot reach other isolated ports.
        learning: whether the bridge learns addresses at it, and floods to it what it does not know.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    options = [
        byte(_IFLA_BRPORT_ISOLATED, int(isolated)),
        byte(_IFLA_BRPORT_LEARNING, int(learning)),
        byte(_IFLA_BRPORT_UNICAST_FLOOD, int(learning)),
    ]
    fixed = _LINK.pack(socket.AF_BRIDGE, 0, index(name), 0, 0)
    _ask(_RTM_SETLINK, 0, fixed, nested(_IFLA_PROTINFO, *options), f"Unable to set bridge port options of '{name}'")


def add_forwarding(name: str, mac: str) -> None:
    """Tell a bridge who is behind one of its ports, which does not learn that by itself; forgotten with the port.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    fixed = _NEIGHBOUR.pack(socket.AF_BRIDGE, index(name), _NUD_REACHABLE | _NUD_NOARP, _NTF_MASTER, 0)
    what = f"Unable to add fdb entry of '{mac}' to '{name}'"
    _ask(_RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, fixed, attribute(_NDA_LLADDR, _raw(mac)), what)


def add_address(name: str, interface: Interface) -> None:
    """Give a link an address.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    address, prefix = interface.ip, interface.network.prefixlen
    attributes = attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    if address.version == 4 and prefix < 31:
        attributes += attribute(_IFA_BROADCAST, interface.network.broadcast_address.packed)
    # The network is the host's own: nobody else can have the address, and without a port it could not be found out.
    flags = _IFA_F_NODAD if address.version == 6 else 0
    fixed = _ADDRESS.pack(_family(address), prefix, flags, _RT_SCOPE_UNIVERSE, index(name))
    _ask(_RTM_NEWADDR, NLM_F_CREATE, fixed, attributes, f"Unable to set IP address {interface} on {name}")


def add_route(name: str, network: Net, gateway: Address, metric: int) -> None:
    """Add a route by way of a gateway that the link reaches.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    attributes = attribute(_RTA_GATEWAY, gateway.packed) + number(_RTA_OIF, index(name))
    attributes += number(_RTA_PRIORITY, metric)
    if network.prefixlen:
        attributes += attribute(_RTA_DST, network.network_address.packed)
    fixed = _ROUTE.pack(
        _family(gateway), network.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0
    )
    what = f"Unable to add route {network} by way of {gateway} on {name}"
    _ask(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, fixed, attributes, what)


def addresses() -> list[tuple[str, Interface]]:
    """All addresses of the host, each with the name of its link."""
    found: list[tuple[str, Interface]] = []
    with Netlink() as kernel:
        answers = kernel.dump(_RTM_GETADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
    for answer in answers:
        _, prefix, _, _, number_ = _ADDRESS.unpack(answer.fixed)
        raw = answer.attributes.get(_IFA_LOCAL) or answer.attributes.get(_IFA_ADDRESS)
        name = _name(number_)
        if raw and name:
            found.append((name, ipaddress.ip_interface((raw, prefix))))
    return found


def routes() -> list[Route]:
    """All routes of the host to networks that are not everything."""
    found: list[Route] = []
    with Netlink() as kernel:
        answers = kernel.dump(_RTM_GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))
    for answer in answers:
        _, prefix, _, _, table, _, _, kind, _ = _ROUTE.unpack(answer.fixed)
        destination, out = answer.attributes.get(_RTA_DST), answer.attributes.get(_RTA_OIF)
        if table != _RT_TABLE_MAIN or kind != _RTN_UNICAST or not prefix or destination is None or out is None:
            continue
        name = _name(struct.unpack("=I", out)[0])
        if name:
            found.append(Route(ipaddress.ip_network((destination, prefix), strict=False), name))
    return found


def neighbours() -> list[tuple[str, Address, str]]:
    """Whom the host knows on its links: link, address, MAC address (arp(7))."""
    found: list[tuple[str, Address, str]] = []
    with Netlink() as kernel:
        answers = kernel.dump(_RTM_GETNEIGH, _NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
    for answer in answers:
        _, number_, _, _, _ = _NEIGHBOUR.unpack(answer.fixed)
        raw, mac = answer.attributes.get(_NDA_DST), answer.attributes.get(_NDA_LLADDR)
        name = _name(number_)
        if raw and mac and name:
            found.append((name, ipaddress.ip_address(raw), mac.hex(":")))
    return found


def write_sysctl(name: str, value: str) -> None:
    """Set a value below /proc/sys/net, which is that of this process's network namespace.

    Args:
        name: its path, such as "ipv4/ip_forward".
        value: its text.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    path = f"/proc/sys/net/{name}"
    try:
        with open(path, encoding="ascii") as file:
            before = file.read().strip()
        # The file is opened anew: the kernel takes no notice of what is not written at its beginning.
        if before != value:
            with open(path, "w", encoding="ascii") as file:
                file.write(value)
    except OSError as error:
        raise os_error(error, f"cannot write to {path}") from None


def write_sysctl_if_there(name: str, value: str) -> None:
    """Set a value below /proc/sys/net where the kernel has it; see write_sysctl()."""
    if os.path.exists(f"/proc/sys/net/{name}"):
        write_sysctl(name, value)


def _ask(kind: int, flags: int, fixed: bytes, attributes: bytes, what: str) -> None:
    try:
        with Netlink() as kernel:
            kernel.request(kind, flags, fixed, attributes)
    except OSError as error:
        raise os_error(error, what) from None


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _raw(mac: str) -> bytes:
    try:
        return bytes.fromhex(mac.replace(":", ""))
    except ValueError:
        raise VirtError(c.VIR_ERR_INVALID_MAC, mac) from None


def _name(number_: int) -> str | None:
    try:
        return socket.if_indextoname(number_)
    except OSError:
        return None


def _string(raw: bytes) -> str:
    return os.fsdecode(raw.partition(b"\0")[0])
