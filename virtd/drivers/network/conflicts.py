"""What a network must not share with others: its name, its bridge, its addresses. Errors name the other side.

Everything here is asked while the networks' lock is held, so that two networks which start at once see each other.
"""

import ipaddress
import os

from virtd import constants as c
from virtd.conf.network import Network
from virtd.drivers.network import links
from virtd.drivers.network.networks import Entry, Networks
from virtd.errors import VirtError

_TEMPLATE = "virbr%d"
_MOST_BRIDGES = 256  # libvirt's own bound


def check_unique(networks: Networks, network: Network) -> Entry | None:
    """The network of the same name and uuid, None if there is none.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED: there is a network that has only the name, or only the uuid.
    """
    view = networks.view()
    same_uuid, same_name = view.by_uuid.get(network.uuid or ""), view.by_name.get(network.name or "")
    if same_uuid is not None and same_uuid.name != network.name:
        text = f"network '{same_uuid.name}' is already defined with uuid {network.uuid}"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)
    if same_name is not None and same_name.uuid != network.uuid:
        text = f"network '{network.name}' already exists with uuid {same_name.uuid}"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)
    return same_uuid


def settle_bridge(networks: Networks, network: Network, *, new: bool) -> None:
    """Give a network's own bridge a name and a MAC address, if it has none; the network is changed.

    Args:
        networks: all networks.
        network: the network.
        new: whether a client has just handed it in; then a link of the host may not have the name, either.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, the name is another network's, or a link's.
    """
    if not network.own_bridge:
        return
    taken = networks.bridges(but=network.name or "")
    if network.bridge is not None and "%d" not in network.bridge:
        owner = taken.get(network.bridge)
        if owner is not None:
            text = f"bridge name '{network.bridge}' already in use. It is that of network '{owner}'."
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NETWORK)
        own = any(status.bridge == network.bridge for status in networks.claims())
        if new and not own and links.exists(network.bridge):
            text = f"bridge name '{network.bridge}' already in use. It is that of a link of this host."
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NETWORK)
    else:
        network.bridge = _free_name(network.bridge, taken)
    if network.mac is None:
        network.mac = "52:54:00:" + os.urandom(3).hex(":")


def _free_name(template: str | None, taken: dict[str, str]) -> str:
    if template is None or template.count("%") != 1:
        template = _TEMPLATE
    for number in range(_MOST_BRIDGES + 1):
        name = template.replace("%d", str(number))
        if name not in taken and not links.exists(name):
            return name
    text = f"Bridge generation exceeded max id {_MOST_BRIDGES}"
    raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NETWORK)


def check_start(networks: Networks, network: Network) -> None:
    """Make sure that a network's bridge and addresses are nobody else's.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR naming interface, addresses and network.
    """
    if not network.own_bridge:
        return
    assert network.bridge is not None
    mine = [ip.network for ip in network.ips]
    owners = {}
    for status in networks.claims():
        owners[status.bridge] = status.name
        for text in status.networks:
            _check(mine, ipaddress.ip_network(text), status.bridge, status.name)
    for device, interface in links.addresses():
        # Link-local addresses are the same on every link.
        if not interface.ip.is_link_local:
            _check(mine, interface.network, device, owners.get(device))
    # Of routes only one to the very same network: a host that reaches all of 10.0.0.0/8 through its
    # provider can have a part of it to itself.
    for route in links.routes():
        if route.network in mine:
            _check(mine, route.network, route.device, owners.get(route.device))
    if links.exists(network.bridge):
        text = f"error creating bridge interface {network.bridge}: File exists"
        raise VirtError(c.VIR_ERR_SYSTEM_ERROR, text, domain=c.VIR_FROM_NETWORK)


def _check(mine: list[links.Net], other: links.Net, device: str, owner: str | None) -> None:
    for net in mine:
        if net.version == other.version and net.overlaps(other):
            whose = f", of network '{owner}'" if owner is not None else ""
            text = f"Network is already in use by interface {device} ({other}{whose})"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NETWORK)
