"""Finding networks, and what is known of them without asking anybody: lists, look-ups, XML, leases."""

import time

from virtd import constants as c
from virtd.conf.network import format_network
from virtd.conf.xml.types import MAC
from virtd.drivers.network import leases, portfiles
from virtd.drivers.network.driverbase import NetworkBase
from virtd.drivers.network.networks import Entry
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import DhcpLease, Network

# virConnectListAllNetworks: groups of flags, of which a network must meet one in each group that is asked for at all.
_FILTERS = (
    (c.VIR_CONNECT_LIST_NETWORKS_ACTIVE, c.VIR_CONNECT_LIST_NETWORKS_INACTIVE, "active"),
    (c.VIR_CONNECT_LIST_NETWORKS_PERSISTENT, c.VIR_CONNECT_LIST_NETWORKS_TRANSIENT, "persistent"),
    (c.VIR_CONNECT_LIST_NETWORKS_AUTOSTART, c.VIR_CONNECT_LIST_NETWORKS_NO_AUTOSTART, "autostart"),
)


class Lookup(NetworkBase):
    """Lists and look-ups of networks, and their plain properties."""

    LISTS = frozenset({"connect_list_networks", "connect_list_defined_networks", "connect_list_all_networks"})

    def basis(self) -> object:
        return self.networks.view()

    def connect_num_of_networks(self) -> int:
        """virConnectNumOfNetworks: those that run."""
        return sum(entry.active for entry in self.networks.view())

    def connect_list_networks(self, most: int) -> list[str]:
        """virConnectListNetworks."""
        return self.networks.active_names(most, active=True)

    def connect_num_of_defined_networks(self) -> int:
        """virConnectNumOfDefinedNetworks: those that are defined and do not run."""
        return sum(not entry.active for entry in self.networks.view())

    def connect_list_defined_networks(self, most: int) -> list[str]:
        """virConnectListDefinedNetworks."""
        return self.networks.active_names(most, active=False)

    def connect_list_all_networks(self, need_results: int, flags: int) -> tuple[list[Network], int]:
        """virConnectListAllNetworks."""
        unsupported_flags(flags, sum(yes | no for yes, no, _ in _FILTERS), "networkConnectListAllNetworks")
        found = [entry.reference for entry in self.networks.view() if _listed(entry, flags)]
        return found if need_results else [], len(found)

    def network_lookup_by_uuid(self, uuid: bytes) -> Network:
        """virNetworkLookupByUUID."""
        return self.networks.find_uuid(uuid).reference

    def network_lookup_by_name(self, name: str) -> Network:
        """virNetworkLookupByName."""
        return self.networks.find_name(name).reference

    def network_is_active(self, network: Network) -> int:
        """virNetworkIsActive."""
        return int(self.networks.find(network).active)

    def network_is_persistent(self, network: Network) -> int:
        """virNetworkIsPersistent."""
        return int(self.networks.find(network).persistent)

    def network_get_autostart(self, network: Network) -> int:
        """virNetworkGetAutostart."""
        return int(self.networks.find(network).autostart)

    def network_get_bridge_name(self, network: Network) -> str:
        """virNetworkGetBridgeName."""
        entry = self.networks.find(network)
        bridge = self.current(entry).bridge
        if bridge is None:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"network '{entry.name}' does not have a bridge name.")
        return bridge

    def network_get_xml_desc(self, network: Network, flags: int) -> str:
        """virNetworkGetXMLDesc."""
        unsupported_flags(flags, c.VIR_NETWORK_XML_INACTIVE, "networkGetXMLDesc")
        entry = self.networks.find(network)
        if not entry.active:
            return format_network(self.networks.config(entry))
        if flags & c.VIR_NETWORK_XML_INACTIVE:
            return format_network(self.networks.config(entry) if entry.persistent else self.current(entry))
        running = self.networks.running(entry)
        live = running.live()
        portfiles.count_connections(live, portfiles.load_all(running))
        return format_network(live, live=True)

    def network_get_dhcp_leases(
        self, network: Network, mac: str | None, need_results: int, flags: int
    ) -> tuple[list[DhcpLease], int]:
        """virNetworkGetDHCPLeases."""
        unsupported_flags(flags, 0, "networkGetDHCPLeases")
        if mac is not None:
            try:
                mac = MAC.parse(mac)
            except ValueError:
                raise VirtError(c.VIR_ERR_INVALID_MAC, mac) from None
        entry = self.networks.find(network)
        config = self.current(entry)
        found: list[DhcpLease] = []
        if entry.active and config.own_bridge and config.bridge:
            prefixes = {ip.version: ip.prefix_length for ip in reversed(config.ips)}
            status_file = self.networks.running(entry).lease_status(config.bridge)
            found = leases.records(status_file, config.bridge, prefixes, mac, time.time())
        return found if need_results else [], len(found)


def _listed(entry: Entry, flags: int) -> bool:
    return all(not flags & (yes | no) or flags & (yes if getattr(entry, name) else no) for yes, no, name in _FILTERS)
