"""Network cards, and what is behind each of them: a user mode network, a tap device, a socket, another process."""

from collections.abc import Callable
from typing import cast

from virtd.conf.domain.interface import Interface, InterfaceDriver, SocketSource, VdpaSource, VhostUserSource
from virtd.drivers.qemu.command import virtio
from virtd.drivers.qemu.command.address import place, rom
from virtd.drivers.qemu.command.line import Line, Properties, alias, internal, unsupported

_QUEUED = ("network", "bridge", "direct", "ethernet", "vhostuser", "vdpa")
# What only who connects an interface to something can see to, and the types that are connected so.
_CONNECTED = ("network", "bridge", "direct", "ethernet")
_NEEDS_TAP = {
    "vlan": "<vlan>",
    "virtualport": "<virtualport>",
    "bandwidth": "<bandwidth>",
    "isolated": "<port isolated='yes'/>",
    "filterref": "<filterref>",
    "coalesce_frames": "<coalesce>",
}
_TX_MODES = {"iothread": "bh", "timer": "timer"}
# What virtio leaves to the other side: field of the model, property.
_HOST_OFFLOADS = (
    ("csum", "csum"),
    ("gso", "gso"),
    ("tso4", "host_tso4"),
    ("tso6", "host_tso6"),
    ("ecn", "host_ecn"),
    ("ufo", "host_ufo"),
    ("mrg_rxbuf", "mrg_rxbuf"),
)
_GUEST_OFFLOADS = tuple((name, f"guest_{name}") for name in ("csum", "tso4", "tso6", "ecn", "ufo"))


def add_interfaces(line: Line) -> None:
    """Add all network cards.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, what one asks for cannot be had.
    """
    for interface in line.config.interfaces:
        if interface.type != "hostdev":  # a device of the host like others
            add_interface(line, interface)


def add_interface(line: Line, interface: Interface) -> None:
    """Add one network card; raises as add_interfaces."""
    if interface.type == "hostdev":
        raise unsupported("interface type 'hostdev' is not supported")
    _check(interface)
    network = _BACKENDS.get(interface.type)
    if network is None:
        raise unsupported(f"interface type '{interface.type}' is not supported")
    line.json("netdev", {**network(line, interface), "id": f"host{alias(interface.info)}"})
    line.json("device", _card(line, interface))
    if interface.link == "down":
        line.command.commands.append(("set_link", {"name": alias(interface.info), "up": False}))


def _check(interface: Interface) -> None:
    if interface.type not in _CONNECTED:
        for field, words in _NEEDS_TAP.items():
            if getattr(interface, field):
                raise unsupported(f"{words} is not supported for network interfaces with type='{interface.type}'")
    options = interface.driver or InterfaceDriver()
    if (options.queues or 1) > 1 and interface.type not in _QUEUED:
        raise unsupported(f"Multiqueue network is not supported for: {interface.type}")
    for name, size in (("rx_queue_size", options.rx_queue_size), ("tx_queue_size", options.tx_queue_size)):
        if size is not None and size & (size - 1):
            raise unsupported(f"{name} has to be a power of two")


def _card(line: Line, interface: Interface) -> Properties:
    model = interface.model or "rtl8139"
    info = interface.info
    properties: Properties = {}
    if model.startswith("virtio"):
        driver = virtio.driver(line, "virtio-net", model)
        properties = _virtio(interface.driver or InterfaceDriver())
        properties["host_mtu"] = interface.mtu
        properties["failover"] = True if interface.teaming and interface.teaming.type == "persistent" else None
    else:
        # QEMU itself says of a card that it does not have what it has.
        driver = model
    return {
        "driver": driver,
        **properties,
        "netdev": f"host{alias(info)}",
        "id": alias(info),
        "mac": interface.mac,
        "bootindex": line.bootindex(info),
        **rom(info),
        **place(line, info),
    }


def _virtio(options: InterfaceDriver) -> Properties:
    properties: Properties = {
        **virtio.options(options.virtio),
        "tx": _TX_MODES.get(options.txmode or ""),
        "ioeventfd": options.ioeventfd,
        "event_idx": options.event_idx,
    }
    if options.host is not None:
        properties |= {name: getattr(options.host, field) for field, name in _HOST_OFFLOADS}
    if options.guest is not None:
        properties |= {name: getattr(options.guest, field) for field, name in _GUEST_OFFLOADS}
    if (options.queues or 1) > 1:
        # A vector for each queue of each direction, one for the configuration, one for the control queue.
        properties |= {"mq": True, "vectors": 2 * (options.queues or 1) + 2}
    return properties | {
        "rx_queue_size": options.rx_queue_size,
        "tx_queue_size": options.tx_queue_size,
        "rss": options.rss,
        "hash": options.rss_hash_report,
    }


def _user(line: Line, interface: Interface) -> Properties:
    if interface.backend == "passt":
        return _passt(line, interface)
    if interface.port_forwards:
        raise unsupported("<portForward> is not supported without <backend type='passt'/>")
    properties: Properties = {"type": "user"}
    for ip in interface.ips:
        if ip.family == "ipv6" or ":" in (ip.address or ""):
            properties |= {"ipv6-prefix": ip.address, "ipv6-prefixlen": ip.prefix}
        else:
            properties["net"] = f"{ip.address}/{ip.prefix}" if ip.prefix else ip.address
    return properties


def _passt(line: Line, interface: Interface) -> Properties:
    name = alias(interface.info)
    address: Properties = {"type": "unix", "path": f"{line.setup.private}/{name}-passt.socket"}
    if line.setup.live:
        address = {"type": "fd", "str": str(line.lend(line.setup.taps[name][0]))}
    return {"type": "stream", "addr": address, "server": False}


def _tap(line: Line, interface: Interface) -> Properties:
    name = alias(interface.info)
    if not line.setup.live:
        return {"type": "tap", "ifname": interface.target, "script": "no", "downscript": "no"}
    taps, vhosts = line.setup.taps.get(name, ()), line.setup.vhosts.get(name, ())
    if not taps:
        raise unsupported(f"interface type '{interface.type}' is not supported: nothing connects it")
    properties: Properties = {"type": "tap"}
    properties["fd" if len(taps) == 1 else "fds"] = ":".join(str(line.lend(fd)) for fd in taps)
    if vhosts:
        properties["vhost"] = True
        properties["vhostfd" if len(vhosts) == 1 else "vhostfds"] = ":".join(str(line.lend(fd)) for fd in vhosts)
    return properties | {"sndbuf": interface.sndbuf}


def _socket(line: Line, interface: Interface) -> Properties:
    source = cast(SocketSource, interface.source)
    address = f"{source.address or ''}:{source.port}"
    role = {"server": "listen", "client": "connect", "mcast": "mcast", "udp": "udp"}[interface.type]
    properties: Properties = {"type": "socket", role: address}
    if interface.type == "udp":
        if source.local is None:
            raise internal("a UDP interface needs a local address")
        properties["localaddr"] = f"{source.local.address}:{source.local.port}"
    return properties


def _vhost_user(line: Line, interface: Interface) -> Properties:
    source = cast(VhostUserSource, interface.source)
    if source.type != "unix" or not source.path:
        raise internal(f"unknown vhostuser source type '{source.type}'")
    name = f"char{alias(interface.info)}"
    again = None
    if source.reconnect is not None:
        again = source.reconnect.timeout if source.reconnect.enabled else 0
    server = True if source.mode == "server" else None
    line.uses(source.path if server is None else None, write=True)
    line.chardev("socket", name, {"path": source.path, "server": server, "reconnect": again})
    queues = interface.driver.queues if interface.driver is not None else None
    return {"type": "vhost-user", "chardev": name, "queues": queues}


def _vdpa(line: Line, interface: Interface) -> Properties:
    source = cast(VdpaSource, interface.source)
    line.uses(source.dev, write=True)
    return {"type": "vhost-vdpa", "vhostdev": source.dev}


_BACKENDS: dict[str, Callable[[Line, Interface], Properties]] = {
    "user": _user,
    "network": _tap,
    "bridge": _tap,
    "ethernet": _tap,
    "direct": _tap,
    "server": _socket,
    "client": _socket,
    "mcast": _socket,
    "udp": _socket,
    "vhostuser": _vhost_user,
    "vdpa": _vdpa,
}
