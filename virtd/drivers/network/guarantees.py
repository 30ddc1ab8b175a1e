"""What some guests of a network are guaranteed of its inbound traffic: <inbound floor=…> of their ports.

The network's bridge has a class of traffic for each such port, which packets to its MAC address are counted to, and
one for all other guests, which has the rest (tc-htb(8), tc-u32(8)). All of it follows from the ports' files: which
classes there are, and what is left.
"""

from virtd import constants as c
from virtd.conf.netdev import Rate
from virtd.conf.network import Network, NetworkPort
from virtd.drivers.network import bandwidth
from virtd.errors import VirtError

_OTHERS = 2  # the class of all other guests
_FIRST = 3
_FILTER = "parent 1: protocol all prio 2"


def floor(port: NetworkPort) -> int:
    """What a port is guaranteed, in KiB/s; 0 for nothing."""
    limits = port.bandwidth
    return (limits.inbound.floor or 0) if limits is not None and limits.inbound is not None else 0


def check(network: Network, port: NetworkPort, others: list[NetworkPort]) -> None:
    """Refuse a guarantee that the network cannot give.

    Args:
        network: its live configuration.
        port: the port that asks.
        others: all other ports.

    Raises:
        VirtError: VIR_ERR_OPERATION_UNSUPPORTED, the network has no limits; VIR_ERR_OPERATION_INVALID, not as much.
    """
    if not floor(port):
        return
    limit = _limit(network)
    if limit is None:
        text = f"Invalid use of 'floor' on interface with MAC address {port.mac}"
        text += f" - network '{network.name}' has no inbound QoS set"
        raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text)
    wanted = floor(port) + sum(map(floor, others))
    kind, most = ("peak", limit.peak) if limit.peak else ("average", limit.average or 0)
    if wanted > most:
        text = f"Cannot plug '{port.mac}' interface into '{network.bridge}' because new combined inbound"
        text += f" floor={wanted} would overcommit {kind}={most} on network '{network.name}'"
        raise VirtError(c.VIR_ERR_OPERATION_INVALID, text)


def choose_class(port: NetworkPort, class_id: int | None, others: list[NetworkPort]) -> None:
    """Choose the class of traffic of a port that is guaranteed something; it keeps the one that it had."""
    used = {other.class_id for other in others}
    if port.bandwidth is None:
        return
    port.bandwidth.class_id = class_id if floor(port) else None
    if floor(port) and class_id is None:
        numbers = range(_FIRST, len(used) + _FIRST + 1)
        port.bandwidth.class_id = next(number for number in numbers if number not in used)


def settle(network: Network, before: NetworkPort | None, after: NetworkPort | None, others: list[NetworkPort]) -> None:
    """Let the kernel guarantee a port what it is guaranteed now.

    Args:
        network: its live configuration.
        before: the port as it was; None if it is new.
        after: as it is; None if it is gone.
        others: all other ports.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, the kernel refuses; nothing is guaranteed to the port then.
    """
    limit = _limit(network)
    old, new = (floor(port) if port is not None else 0 for port in (before, after))
    if limit is None or network.bridge is None or old == new:
        return
    bridge = network.bridge
    left = (limit.peak or limit.average or 0) - new - sum(map(floor, others))
    # The kernel knows no class without a rate.
    rest = bandwidth.share(bridge, "change", _OTHERS, max(left, 1), limit, burst=limit.burst)
    # Before it is made, too: a process may have died over it.
    for port in (before, after):
        if port is not None and port.class_id is not None:
            bandwidth.tc(_removed(bridge, port.class_id), force=True)
    if after is None or after.class_id is None:
        bandwidth.tc([rest], force=True)
        return
    number = after.class_id
    try:
        bandwidth.tc([bandwidth.share(bridge, "add", number, new, limit), _filter(bridge, number, after), rest])
    except VirtError:
        bandwidth.tc(_removed(bridge, number), force=True)
        raise
    bandwidth.fair(bridge, number)


def _limit(network: Network) -> Rate | None:
    limits = network.bandwidth
    return limits.inbound if network.own_bridge and limits is not None else None


def _handle(number: int) -> str:
    return f"800::{0x800 + number:x}"


def _filter(bridge: str, number: int, port: NetworkPort) -> str:
    """Packets to the port's MAC address, which stands in the 14 bytes before their network header."""
    mac = (port.mac or "").replace(":", "")
    match = f"match u16 0x{mac[:4]} 0xffff at -14 match u32 0x{mac[4:]} 0xffffffff at -12"
    return f"filter add dev {bridge} {_FILTER} handle {_handle(number)} u32 {match} flowid 1:{number:x}"


def _removed(bridge: str, number: int) -> list[str]:
    return [
        f"filter del dev {bridge} {_FILTER} handle {_handle(number)} u32",
        f"class del dev {bridge} classid 1:{number:x}",
    ]
