"""Guests' ports: created before a guest's interface is plugged in, deleted after it has gone.

A port says what the guest is plugged into: the network's bridge, a bridge of the host, a device for a macvtap, a card.
Whoever starts the guest makes the tap or macvtap; the network only keeps the books.
"""

import os

from virtd import constants as c
from virtd import uuids
from virtd.conf.netdev import Rate, VirtualPort
from virtd.conf.network import Network as Config
from virtd.conf.network import NetworkPort as Port
from virtd.conf.network import format_port, parse_port
from virtd.conf.network.forward import ForwardInterface
from virtd.conf.network.port import Plug, PlugAddress, PortBandwidth
from virtd.conf.xml import schema
from virtd.conf.xml.document import parse_document
from virtd.drivers.network import guarantees, portfiles
from virtd.drivers.network.driverbase import NetworkBase
from virtd.drivers.network.running import Running
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Network, NetworkPort, TypedParam, TypedValue
from virtd.state import files

_PLUGS_EXCLUSIVELY = ("passthrough", "hostdev")
_CREATE_FLAGS = c.VIR_NETWORK_PORT_CREATE_RECLAIM | c.VIR_NETWORK_PORT_CREATE_VALIDATE
# Which virtual ports each way of plugging in takes, and what libvirt calls the way.
_SWITCHES = {
    "network": ((), "uses IP forwarding"),
    "bridge": (("openvswitch",), "uses a bridge device"),
    "direct": (("802.1Qbg", "802.1Qbh"), "uses a macvtap device"),
    "hostdev-pci": (("802.1Qbh",), "uses an SR-IOV Virtual Function via PCI passthrough"),
}
_INBOUND = ("average", "peak", "floor", "burst")
_OUTBOUND = ("average", "peak", "burst")


class Ports(NetworkBase):
    """virNetworkPort*."""

    def network_list_all_ports(self, network: Network, need_results: int, flags: int) -> tuple[list[NetworkPort], int]:
        """virNetworkListAllPorts."""
        unsupported_flags(flags, 0, "networkListAllPorts")
        entry = self.active(network)
        files_ = self.networks.running(entry).port_files()
        found = [NetworkPort(entry.reference, uuids.to_bytes(os.path.basename(path)[:-4])) for path in files_]
        return found if need_results else [], len(found)

    def network_port_lookup_by_uuid(self, network: Network, uuid: bytes) -> NetworkPort:
        """virNetworkPortLookupByUUID."""
        entry = self.active(network)
        self._load(self.networks.running(entry), uuid)
        return NetworkPort(entry.reference, uuid)

    def network_port_get_xml_desc(self, port: NetworkPort, flags: int) -> str:
        """virNetworkPortGetXMLDesc."""
        unsupported_flags(flags, 0, "networkPortGetXMLDesc")
        return format_port(self._load(self.networks.running(self.active(port.net)), port.uuid))

    def network_port_create_xml(self, network: Network, xml: str, flags: int) -> NetworkPort:
        """virNetworkPortCreateXML."""
        unsupported_flags(flags, _CREATE_FLAGS, "networkPortCreateXML")
        entry = self.active(network)
        if flags & c.VIR_NETWORK_PORT_CREATE_VALIDATE:
            schema.validate(parse_document(xml, "networkport", domain=c.VIR_FROM_NETWORK), "networkport.rng")
        port = parse_port(xml)
        assert port.uuid is not None
        reclaim = bool(flags & c.VIR_NETWORK_PORT_CREATE_RECLAIM)
        with self.changing(entry.uuid, entry.name, "virNetworkPortCreateXML") as running:
            entry = self.active(network)
            if portfiles.load(running, port.uuid) is not None:
                text = f"Network port with UUID {port.uuid} already exists"
                raise VirtError(c.VIR_ERR_NETWORK_PORT_EXIST, text)
            if reclaim != (port.plug_type != "none"):
                state = "requested but plug type is none" if reclaim else "not requested but plug type is not none"
                raise VirtError(c.VIR_ERR_INVALID_ARG, f"Port reclaim {state}")
            config = running.live()
            others = portfiles.load_all(running)
            _inherit(config, port)
            if not reclaim:
                _plug(config, port, others)
            _check(config, port)
            self._save(running, config, None, port, others)
        return NetworkPort(entry.reference, uuids.to_bytes(port.uuid))

    def network_port_delete(self, port: NetworkPort, flags: int) -> None:
        """virNetworkPortDelete."""
        unsupported_flags(flags, 0, "networkPortDelete")
        entry = self.active(port.net)
        with self.changing(entry.uuid, entry.name, "virNetworkPortDelete") as running:
            self.active(port.net)
            found = self._load(running, port.uuid)
            config = running.live()
            with self.generation.commit() as change:
                change.remove(running.port_path(found.uuid or ""))
            others = portfiles.load_all(running)
            guarantees.settle(config, found, None, others)
            if config.own_bridge and config.bridge is not None:
                portfiles.write_mac_map(running, config.bridge, others)

    def network_port_get_parameters(self, port: NetworkPort, most: int, flags: int) -> tuple[list[TypedParam], int]:
        """virNetworkPortGetParameters: the limits of bandwidth."""
        unsupported_flags(flags, 0, "networkPortGetParameters")
        bandwidth = self._load(self.networks.running(self.active(port.net)), port.uuid).bandwidth
        found: list[TypedParam] = []
        if bandwidth is not None:
            for prefix, rate, names in (
                ("inbound", bandwidth.inbound, _INBOUND),
                ("outbound", bandwidth.outbound, _OUTBOUND),
            ):
                if rate is not None:
                    found += [_parameter(f"{prefix}.{name}", getattr(rate, name) or 0) for name in names]
        return found, len(found)

    def network_port_set_parameters(self, port: NetworkPort, params: list[TypedParam], flags: int) -> None:
        """virNetworkPortSetParameters: limits that are not given are lifted."""
        unsupported_flags(flags, 0, "networkPortSetParameters")
        values = {param.field: param.value.value for param in params}
        known = {f"inbound.{name}" for name in _INBOUND} | {f"outbound.{name}" for name in _OUTBOUND}
        for name in values:
            if name not in known:
                text = f"parameter '{name}' not supported"
                raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text)
        entry = self.active(port.net)
        with self.changing(entry.uuid, entry.name, "virNetworkPortSetParameters") as running:
            self.active(port.net)
            found = self._load(running, port.uuid)
            bandwidth = PortBandwidth()
            for prefix in ("inbound", "outbound"):
                given = {name.partition(".")[2]: int(v) for name, v in values.items() if name.startswith(prefix)}
                setattr(bandwidth, prefix, Rate(**given) if given.get("average") or given.get("floor") else None)
            before = found.copy()
            found.bandwidth = bandwidth
            others = [other for other in portfiles.load_all(running) if other.uuid != found.uuid]
            self._save(running, running.live(), before, found, others)

    def _load(self, running: Running, uuid: bytes) -> Port:
        text = uuids.to_text(uuid)
        port = portfiles.load(running, text)
        if port is None:
            raise VirtError(c.VIR_ERR_NO_NETWORK_PORT, f"Network port with UUID {text} does not exist")
        return port

    def _save(self, running: Running, config: Config, before: Port | None, port: Port, others: list[Port]) -> None:
        """Write a port down, and let it have what it is guaranteed; before is None for a new one."""
        guarantees.check(config, port, others)
        guarantees.choose_class(port, None if before is None else before.class_id, others)
        self._write(running, port)
        try:
            # After that: whoever cleans up after a process that has died here finds the port.
            guarantees.settle(config, before, port, others)
        except VirtError:
            if before is not None:
                self._write(running, before)
            else:
                with self.generation.commit() as change:
                    change.remove(running.port_path(port.uuid or ""))
            raise
        if before is None and config.own_bridge and config.bridge is not None:
            portfiles.write_mac_map(running, config.bridge, [*others, port])

    def _write(self, running: Running, port: Port) -> None:
        content = format_port(port).encode()
        pending = files.prepare(running.port_path(port.uuid or ""), content, durable=False)
        with self.generation.commit() as change:
            change.publish(pending)


def _inherit(config: Config, port: Port) -> None:
    """Take over what a port does not say itself from its port group, or else from the network."""
    group = config.portgroup(port.group)
    if port.bandwidth is None and group is not None:
        port.bandwidth = PortBandwidth.of(group.bandwidth)
    for source in (group, config):
        if source is None:
            continue
        if port.vlan is None and source.vlan is not None:
            port.vlan = source.vlan.copy()
        if port.trust_guest_rx_filters is None:
            port.trust_guest_rx_filters = source.trust_guest_rx_filters
        if source.virtualport is not None:
            port.virtualport = _merged(port.virtualport, source.virtualport)
    if port.isolated is None:
        port.isolated = config.isolated


def _merged(own: VirtualPort | None, other: VirtualPort) -> VirtualPort:
    if own is None:
        return other.copy()
    if own.type is not None and other.type is not None and own.type != other.type:
        text = f"attempt to merge virtualports with mismatched types ({own.type} and {other.type})"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text)
    for name in VirtualPort.fields:
        if getattr(own, name) is None:
            setattr(own, name, getattr(other, name))
    return own


def _plug(config: Config, port: Port, others: list[Port]) -> None:
    """Choose what a port is plugged into."""
    if config.own_bridge or (config.mode == "bridge" and config.bridge is not None):
        kind = "network" if config.own_bridge else "bridge"
        port.plug = Plug(type=kind, bridge=config.bridge, mac_table_manager=config.mac_table_manager)
        return
    devices = portfiles.pool(config)
    if not devices:
        text = f"network '{config.name}' uses a direct mode, but has no forward dev and no interface pool"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
    used = [portfiles.device_key(other) for other in others]
    # The one with the fewest ports; of those the first.
    device = min(devices, key=lambda one: used.count(portfiles.key_of(one)))
    # 802.1Qbh in private mode wants a device of its own, too.
    switch = port.virtualport.type if port.virtualport is not None else None
    exclusively = config.mode in _PLUGS_EXCLUSIVELY or (config.mode == "private" and switch == "802.1Qbh")
    if exclusively and portfiles.key_of(device) in used:
        text = f"network '{config.name}' requires exclusive access to interfaces, but none are available"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
    if isinstance(device, ForwardInterface):
        port.plug = Plug(type="direct", dev=device.dev, mode=config.mode)
        return
    forward = config.forward
    port.plug = Plug(
        type="hostdev-pci",
        managed=forward is not None and forward.managed == "yes",
        driver=forward.driver if forward is not None else None,
        address=PlugAddress(domain=device.domain, bus=device.bus, slot=device.slot, function=device.function),
    )


def _check(config: Config, port: Port) -> None:
    allowed, way = _SWITCHES.get(port.plug_type, ((), ""))
    switch = port.virtualport.type if port.virtualport is not None else None
    if switch is not None and switch not in allowed:
        text = f"<virtualport type='{switch}'> not supported for network '{config.name}' which {way}"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text)
    if port.vlan is not None and switch != "openvswitch" and port.plug_type != "hostdev-pci":
        text = f"an interface connecting to network '{config.name}' is requesting a vlan tag"
        text += ", but that is not supported for this type of network"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text)


def _parameter(field: str, value: int) -> TypedParam:
    return TypedParam(field, TypedValue(c.VIR_TYPED_PARAM_UINT, value))
