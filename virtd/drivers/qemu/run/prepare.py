"""What is chosen at a guest's start, and stands in its live XML: ports, terminals."""

import errno
import re
import socket
from collections.abc import Mapping
from contextlib import ExitStack

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.chardev import Channel, Console, Parallel, PtySource, Serial
from virtd.conf.domain.cpu import Cpu
from virtd.conf.domain.disk import BackingStore
from virtd.conf.domain.display import VncGraphics
from virtd.conf.domain.os import Seclabel
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.guests import Guests
from virtd.drivers.qemu.monitor.client import Monitor
from virtd.drivers.qemu.run import confine, guestcpu
from virtd.drivers.qemu.status import Status
from virtd.errors import VirtError
from virtd.state import files, locks

# QEMU's node names, as the command line gives them.
_IMAGE = re.compile(r"libvirt-([0-9]+)-format")
# Where libvirt looks for free ports.
VNC_PORTS = range(5900, 65536)
VNC_WEBSOCKET_PORTS = range(5700, 65536)


def before_start(guests: Guests, guest: Guest, found: Status, config: Config) -> ExitStack:
    """Choose what QEMU is told at its start; what was chosen is claimed by the guest's status.

    Returns:
        What other instances of virtd see of the claim; to be closed when QEMU listens.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR, nothing is free.
    """
    displays = [one for one in config.graphics if isinstance(one, VncGraphics) and one.socket is None]
    claims = ExitStack()
    if not displays:
        return claims
    # Two guests that start at the same time must not both take a port that neither uses yet.
    with locks.held(guests.ports_lock, "the choice of a port", what="lock of the ports"):
        taken = guests.taken_ports()
        for display in displays:
            address = display.listen or "127.0.0.1"
            if display.port in (None, -1, 0):
                display.port = _free_port(VNC_PORTS, address, taken, claims, "VNC")
                taken.add(display.port)
            if display.websocket == -1:
                display.websocket = _free_port(VNC_WEBSOCKET_PORTS, address, taken, claims, "VNC WebSocket")
                taken.add(display.websocket)
            found.ports += [port for port in (display.port, display.websocket) if port]
        files.replace(guest.status_path, found.encode(), durable=False)
    return claims


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


def describe(config: Config, disks: Mapping[str, tuple[str, str]], user: confine.User | None) -> None:
    """Write into the live configuration what the command line decided: image numbers, and who QEMU runs as.

    Args:
        config: the live configuration.
        disks: QEMU's names of the images, with their disks' aliases (Command.disks).
        user: who QEMU runs as, if that was chosen.
    """
    numbers: dict[str, int] = {}
    for node, (alias, _) in disks.items():
        match = _IMAGE.fullmatch(node)
        if match is not None:
            # The images of a chain are numbered from the top.
            numbers[alias] = min(int(match[1]), numbers.get(alias, int(match[1])))
    for disk in config.disks:
        number = numbers.get(disk.info.alias or "")
        if disk.source is not None and number is not None:
            disk.source.index = number
            disk.backing = below = disk.backing or BackingStore()  # the end of the chain
            while not below.end:
                number += 1
                below.index = number
                below.backing = below = below.backing or BackingStore()
    if user is not None and not any(label.model == "dac" for label in config.seclabels):
        label = Seclabel(type="dynamic", model="dac", relabel=True, label=user.label, imagelabel=user.label)
        config.seclabels.append(label)


def after_start(config: Config, monitor: Monitor) -> Cpu | None:
    """Tell QEMU what is told before the guest runs, and ask what it chose itself.

    QMP commands: set-action, so that it does not begin to boot a guest which must not come back from a reset;
    query-chardev, for the pseudo terminals; those of guestcpu.observe().

    Returns:
        The CPU that was asked for, if QEMU made another one of it.
    """
    asked = None if config.cpu is None else guestcpu.observe(config.cpu, monitor)
    if config.on_reboot == "destroy":
        monitor.execute("set-action", {"reboot": "shutdown"})
    devices: list[Serial | Parallel | Console | Channel] = [
        *config.serials,
        *config.parallels,
        *config.consoles,
        *config.channels,
    ]
    terminals = [(device.info.alias, device.source) for device in devices if isinstance(device.source, PtySource)]
    if not terminals:
        return asked
    found = {shape.text(one, "label"): shape.text(one, "filename") for one in monitor.query_list("query-chardev")}
    for alias, source in terminals:
        name = found.get(f"char{alias}", "")
        if name.startswith("pty:"):
            source.path = name.removeprefix("pty:")
    return asked
