"""Addresses and networks as libvirt reads them: getaddrinfo(3) with numeric hosts only, and its checks of ranges.

Knows no XML. Errors are those of libvirt's socket address helpers.
"""

import ipaddress
import socket

from virtd import constants as c
from virtd.errors import VirtError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Net = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse(text: str) -> Address | None:
    """The address that a text is in any of the forms that getaddrinfo(3) takes ("10.1" is 10.0.0.1); None if none."""
    try:
        found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    return ipaddress.ip_address(found[0][4][0]) if text else None


def normal(text: str) -> str:
    """The usual form of an address.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, it is none.
    """
    address = parse(text)
    if address is None:
        # The words of getaddrinfo(3) for a numeric host that is none (EAI_NONAME).
        raise VirtError(c.VIR_ERR_SYSTEM_ERROR, f"Cannot parse socket address '{text}': Name or service not known")
    return str(address)


def default_prefix(address: Address) -> int:
    """The prefix of an address which comes without one: that of its class, 64 for IPv6; -1 if it has no class."""
    if isinstance(address, ipaddress.IPv6Address):
        return 64
    first = address.packed[0]
    return 8 if first < 128 else 16 if first < 192 else 24 if first < 224 else -1


def netmask_prefix(netmask: str) -> int:
    """The prefix that a netmask stands for; -1 if its bits are not in one row."""
    bits = f"{int(ipaddress.IPv4Address(netmask)):032b}".rstrip("0")
    return -1 if "0" in bits else len(bits)


def network_of(address: Address, prefix: int) -> Net:
    """The network that an address with a prefix lies in."""
    return ipaddress.ip_network(f"{address}/{prefix}", strict=False)


def check_range(first: Address, last: Address, network: Address | None = None, prefix: int = 0) -> int:
    """How many addresses a range has.

    Args:
        first, last: its ends, both inside.
        network, prefix: the host's own address in the network that the range must lie in, if any.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR saying what is wrong with it.
    """
    what = f"range {first} - {last}"
    if first.version != last.version:
        raise _wrong(f"mismatch of address family in {what}")
    if network is not None and network.version != first.version:
        raise _wrong(f"mismatch of address family in {what} for network {network}")
    if network is not None:
        if prefix < 0:
            raise _wrong(f"bad prefix {prefix} for network {network} when  checking {what}")
        net = network_of(network, prefix)
        if first not in net or last not in net:
            raise _wrong(f"{what} is not entirely within network {network}/{prefix}")
    if first.version == 4 and int(first) > int(last):
        raise _wrong(f"{what} is reversed ")
    if network is not None:
        if first.version == 4 and first == net.network_address:
            raise _wrong(f"start of {what} in network {network}/{prefix} is the network address")
        if first.version == 4 and last == net.broadcast_address:
            raise _wrong(f"end of {what} in network {network}/{prefix} is the broadcast address")
    # libvirt compares the upper bits: a range may not reach beyond the last 16, however small it is.
    if int(first) >> 16 != int(last) >> 16:
        raise _wrong(f"{what} is too large (> 65535)")
    if int(first) > int(last):
        raise _wrong(f"{what} start larger than end")
    return int(last) - int(first) + 1


def _wrong(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
