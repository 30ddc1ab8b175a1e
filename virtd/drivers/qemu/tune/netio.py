"""A guest's network cards: counters, limits, and the addresses that the guest has on them."""

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.interface import Interface, NetworkSource
from virtd.conf.netdev import PARAMETERS, Bandwidth, Rate
from virtd.drivers import services, typed
from virtd.drivers.qemu.agent.channel import ADDRESS_TYPES, AgentUser
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.run import interfaces
from virtd.drivers.qemu.stats import netstats
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain, DomainInterface, DomainIpAddr, Network, TypedParam

_AFFECT = c.VIR_DOMAIN_AFFECT_LIVE | c.VIR_DOMAIN_AFFECT_CONFIG
_LIMITED = ("network", "bridge", "ethernet", "direct")


class NetIo(AgentUser):
    """virDomainInterfaceStats, virDomainInterfaceAddresses, virDomain*InterfaceParameters."""

    def reapply(self) -> list[VirtError]:
        """Put the limits of running guests' cards in force again, after somebody has flushed all tables; for SIGHUP."""
        failures = super().reapply()
        for entry in self.guests.view():
            try:
                for card in self.live(entry).interfaces if entry.active else []:
                    interfaces.renew_limits(card)
            except VirtError as error:
                failures.append(error)
        return failures

    def domain_interface_stats(self, domain: Domain, device: str) -> tuple[int, ...]:
        """virDomainInterfaceStats: bytes, packets, errors and drops received, then sent, as the guest sees it."""
        entry, _ = self.running(domain)
        card = _require(self.live(entry), device)
        if card.target is None:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "Interface name not provided", domain=c.VIR_FROM_NONE)
        counters = netstats.read(card.target, swapped=card.type != "direct")
        if counters is None:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "/proc/net/dev: Interface not found", domain=c.VIR_FROM_NONE)
        return counters

    def domain_get_interface_parameters(
        self, domain: Domain, device: str, wanted: int, flags: int
    ) -> tuple[list[TypedParam], int]:
        """virDomainGetInterfaceParameters: limits of traffic in KiB/s, bursts in KiB."""
        unsupported_flags(flags, _AFFECT | c.VIR_TYPED_PARAM_STRING_OKAY, "qemuDomainGetInterfaceParameters")
        self.exclusive_flags(flags, "virDomainObjGetOneDefState", "flags")
        config = self.affected(self.guests.find(domain), flags)
        if wanted == 0:
            return [], len(PARAMETERS)
        limits = _require(config, device).bandwidth or Bandwidth()
        params = [
            typed.unsigned(name, getattr(getattr(limits, direction), field, None) or 0)
            for name, direction, field in PARAMETERS
        ]
        return typed.portion(params, wanted, flags)

    def domain_set_interface_parameters(
        self, domain: Domain, device: str, params: list[TypedParam], flags: int
    ) -> None:
        """virDomainSetInterfaceParameters: of the definition, and of the device that the host has for the card."""
        unsupported_flags(flags, _AFFECT, "qemuDomainSetInterfaceParameters")
        values = typed.take(params, {name: c.VIR_TYPED_PARAM_UINT for name, _, _ in PARAMETERS})
        changed: list[tuple[Interface, Bandwidth | None]] = []

        def edit(config: Config, live: bool) -> None:
            card = _require(config, device)
            if card.type not in _LIMITED:
                text = f"setting bandwidth on interfaces of type '{card.type}' is not implemented yet"
                raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
            if live:
                changed[:] = [(card, card.bandwidth)]
            _limit(card, values)

        def apply(guest: Guest, config: Config) -> None:
            card, before = changed[0]
            interfaces.change_limits(self.context, guest, card, before)

        self.change(domain, "virDomainSetInterfaceParameters", flags, edit, apply)

    def domain_interface_addresses(self, domain: Domain, source: int, flags: int) -> list[DomainInterface]:
        """virDomainInterfaceAddresses: from the leases of networks, from the guest's agent, or from the ARP table."""
        unsupported_flags(flags, 0, "qemuDomainInterfaceAddresses")
        entry, _ = self.running(domain)
        cards = self.live(entry).interfaces
        match source:
            case c.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE:
                return [found for card in cards if (found := self._leased(card)) is not None]
            case c.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT:
                with self.agent(domain, "virDomainInterfaceAddresses") as agent:
                    return agent.interfaces()
            case c.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP:
                return _in_arp_table(cards)
        text = f"Unknown IP address data source {source}"
        raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text)

    def _leased(self, card: Interface) -> DomainInterface | None:
        """The addresses that a network has leased to a card; None if it has none there."""
        if not isinstance(card.source, NetworkSource) or not card.source.network or card.mac is None:
            return None
        network = services.connect(self.context, "network")
        try:
            lookup = network.require("network_lookup_by_name", "virNetworkLookupByName")
            leases = network.require("network_get_dhcp_leases", "virNetworkGetDHCPLeases")
            found: Network = lookup(card.source.network)
            listed, _ = leases(found, card.mac, 1, 0)
        finally:
            network.close()
        addresses = [DomainIpAddr(lease.type, lease.ipaddr, lease.prefix) for lease in listed]
        return DomainInterface(card.target or "", card.mac, addresses) if addresses else None


def _require(config: Config, device: str) -> Interface:
    """The card with a device on the host, or with a MAC address."""
    for card in config.interfaces:
        if device and device in (card.target, card.mac, (card.mac or "").upper()):
            return card
    raise VirtError(c.VIR_ERR_INVALID_ARG, f"'{device}' is not a known interface", domain=c.VIR_FROM_DOMAIN)


def _limit(card: Interface, values: dict[str, int]) -> None:
    limits = Bandwidth() if card.bandwidth is None else card.bandwidth.copy()
    for direction in ("inbound", "outbound"):
        given = {field: values[name] for name, way, field in PARAMETERS if way == direction and name in values}
        if given:
            # An average of 0 takes the limit away.
            rate = Rate(**{field: value or None for field, value in given.items()})
            setattr(limits, direction, rate if rate.average or rate.floor else None)
    card.bandwidth = None if limits.empty else limits


def _in_arp_table(cards: list[Interface]) -> list[DomainInterface]:
    """The addresses that the host has talked to lately (/proc/net/arp), of the cards that it can see."""
    with open("/proc/net/arp", encoding="ascii") as file:
        rows = [line.split() for line in file][1:]
    found = []
    for card in cards:
        if card.type not in _LIMITED or card.mac is None:
            continue
        addresses = [
            DomainIpAddr(ADDRESS_TYPES["ipv4"], row[0], 0)
            for row in rows
            if len(row) > 3 and row[3] == card.mac.lower()
        ]
        if addresses:
            found.append(DomainInterface(card.target or "", card.mac, addresses))
    return found
