"""What a guest's displays are given at its start: ports that are free, addresses in networks, a render node.

What is chosen is claimed by the guest's status before anybody else can choose it, and stands in its live XML.
"""

import errno
import os
import socket
from contextlib import ExitStack

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.display import (
    AddressListen,
    DbusGraphics,
    HeadlessGraphics,
    NetworkListen,
    ServerGraphics,
    SpiceGraphics,
    VncGraphics,
)
from virtd.drivers import services
from virtd.drivers.base import Context
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.guests import Guests
from virtd.drivers.qemu.host.settings import Settings
from virtd.drivers.qemu.status import Status
from virtd.errors import VirtError
from virtd.state import files, locks

_TCP = (AddressListen, NetworkListen)
# Where libvirt looks for free ports.
PORTS = range(5900, 65536)
WEBSOCKET_PORTS = range(5700, 65536)
# The ports that libvirt writes into a command line that nobody starts.
_SHOWN_SPICE_PORTS = 5901, 5902
_DRI = "/dev/dri"


def resolve(context: Context, config: Config) -> None:
    """Find out what displays are to be on that are meant by the name of a network, or by none: run-time values.

    Raises:
        VirtError: VIR_ERR_NO_NETWORK; VIR_ERR_INTERNAL_ERROR, the network has no address; VIR_ERR_SYSTEM_ERROR, the
            host has no graphics card.
    """
    for graphics in config.graphics:
        if isinstance(graphics, ServerGraphics):
            # Of several the command line says that they cannot be.
            for listen in graphics.listens if len(graphics.listens) == 1 else ():
                if isinstance(listen, NetworkListen) and listen.network is not None:
                    listen.address = _address(context, listen.network)
        if isinstance(graphics, SpiceGraphics | HeadlessGraphics | DbusGraphics):
            wanted = isinstance(graphics, HeadlessGraphics) or graphics.gl
            if wanted and graphics.rendernode is None:
                graphics.rendernode = _render_node()


def show_addresses(config: Config, said: Settings) -> None:
    """Write where servers listen that are not told: a run-time value.

    Args:
        config: the live configuration.
        said: the settings of all guests.
    """
    for graphics in config.graphics:
        usual = {"vnc": said.vnc_listen, "spice": said.spice_listen}.get(graphics.kind)
        first = graphics.listens[0] if isinstance(graphics, ServerGraphics) and graphics.listens else None
        if usual is not None and isinstance(graphics, VncGraphics | SpiceGraphics):
            if isinstance(first, AddressListen) and first.address is None:
                first.address = usual
            if isinstance(first, _TCP):
                graphics.listen = first.address


def show_ports(config: Config) -> None:
    """Put libvirt's own ports where some would be chosen, for a command line that nobody starts."""
    for graphics in config.graphics:
        if isinstance(graphics, SpiceGraphics) and _chooses(graphics):
            plain, encrypted = _wanted_ports(graphics, tls=True)
            graphics.port = _SHOWN_SPICE_PORTS[0] if plain else None
            only = graphics.default_mode == "secure" or any(one.mode == "secure" for one in graphics.channels)
            graphics.tls_port = _SHOWN_SPICE_PORTS[1] if encrypted and only else None


def choose_ports(guests: Guests, guest: Guest, found: Status, config: Config, said: Settings) -> ExitStack:
    """Choose the ports of displays that are to have any; what was chosen is claimed by the guest's status.

    Args:
        guests: the instance's guests.
        guest: the guest's directory.
        found: its status.
        config: its live configuration, which the ports are written into.
        said: the settings of all guests.

    Returns:
        What other instances of virtd see of the claim; to be closed when QEMU listens.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, nothing is free; VIR_ERR_CONFIG_UNSUPPORTED, one would have to be for TLS.
    """
    vnc = [one for one in config.graphics if isinstance(one, VncGraphics) and _on_network(one)]
    spice = [one for one in config.graphics if isinstance(one, SpiceGraphics) and _chooses(one)]
    claims = ExitStack()
    if not vnc and not spice:
        return claims
    # Two guests that start at the same time must not both take a port that neither uses yet.
    with locks.held(guests.ports_lock, "the choice of a port", what="lock of the ports"):
        taken = guests.taken_ports()
        for display in vnc:
            address = _listens_on(display, display.listen, said.vnc_listen)
            if display.port in (None, -1, 0):
                display.port = _free_port(PORTS, address, taken, claims, "VNC")
                taken.add(display.port)
            if display.websocket == -1:
                display.websocket = _free_port(WEBSOCKET_PORTS, address, taken, claims, "VNC WebSocket")
                taken.add(display.websocket)
            found.ports += [port for port in (display.port, display.websocket) if port]
        for server in spice:
            address = _listens_on(server, server.listen, said.spice_listen)
            for name, wanted in zip(("port", "tls_port"), _wanted_ports(server, tls=said.spice.wanted), strict=True):
                if wanted:
                    port = _free_port(PORTS, address, taken, claims, "SPICE")
                    setattr(server, name, port)
                    taken.add(port)
                    found.ports.append(port)
        files.replace(guest.status_path, found.encode(), durable=False)
    return claims


def _on_network(graphics: ServerGraphics) -> bool:
    """Whether a server is reached over TCP: not by a socket in the file system, nor by none at all."""
    return not graphics.listens or isinstance(graphics.listens[0], _TCP)


def _chooses(spice: SpiceGraphics) -> bool:
    """Whether ports are to be chosen for a server of SPICE, which unlike VNC's can do without."""
    return _on_network(spice) and (bool(spice.autoport) or -1 in (spice.port, spice.tls_port))


def _wanted_ports(spice: SpiceGraphics, *, tls: bool) -> tuple[bool, bool]:
    """Whether a server of SPICE is to have a port without encryption, and one with it.

    Args:
        spice: the server.
        tls: whether there is TLS on this host.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, it needs TLS, and there is none.
    """
    modes = {spice.default_mode or "any", *(one.mode for one in spice.channels)}
    plain = spice.port == -1 or bool(modes & {"any", "insecure"})
    encrypted = spice.tls_port == -1 or "secure" in modes
    if encrypted and not tls:
        text = "Auto allocation of spice TLS port requested but spice TLS is disabled in qemu.conf"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    return plain, encrypted or (tls and "any" in modes)


def _listens_on(graphics: ServerGraphics, address: str | None, usual: str) -> str:
    listen = graphics.listens[0] if graphics.listens else None
    return address or getattr(listen, "address", None) or usual


def _address(context: Context, name: str) -> str:
    """The host's address in a network."""
    from virtd.conf.network import parse_network

    connection = services.connect(context, "network")
    try:
        network = connection.require("network_lookup_by_name", "virNetworkLookupByName")(name)
        definition = parse_network(connection.require("network_get_xml_desc", "virNetworkGetXMLDesc")(network, 0))
    finally:
        connection.close()
    address = next((ip.address for ip in definition.ips if ip.address is not None), None)
    if address is None:
        text = f"network '{name}' doesn't have an IP address"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NETWORK)
    return address


def _render_node() -> str:
    """The host's first graphics card that others can render on."""
    try:
        names = sorted(os.listdir(_DRI))
    except OSError as error:
        raise files.os_error(error, f"cannot open directory '{_DRI}'") from None
    found = next((name for name in names if name.startswith("renderD")), None)
    if found is None:
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, "No DRM render nodes available", domain=c.VIR_FROM_QEMU)
    return f"{_DRI}/{found}"


def _free_port(ports: range, address: str, taken: set[int], claims: ExitStack, what: str) -> int:
    """A TCP port that no guest has claimed, here or elsewhere on this host, and nobody listens on."""
    for port in ports:
        if port in taken:
            continue
        # First the claim: what another one has claimed may only just not be listened on yet.
        claim = _claim(port)
        if claim is None:
            continue
        if _free(address, port):
            claims.enter_context(claim)
            return port
        claim.close()
    raise VirtError(
        c.VIR_ERR_INTERNAL_ERROR,
        f"Unable to find an unused port in range '{what}' ({ports.start}-{ports.stop - 1})",
        domain=c.VIR_FROM_QEMU,
    )


def _claim(port: int) -> socket.socket | None:
    """Claim a port before the other instances of virtd: by a name that is there as long as its holder.

    Like the port, it belongs to the network namespace (unix(7), abstract sockets).
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0virtd/port/{port}")
    except OSError:
        claim.close()
        return None
    return claim


def _free(address: str, port: int) -> bool:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
    except OSError as error:
        # An address that is not this host's is QEMU's to complain of.
        return error.errno != errno.EADDRINUSE
    return True
