"""passt beside QEMU: a user's network without a network of the host's, as <backend type='passt'/> asks for it.

passt(1) speaks for the guest with the host's own sockets. It gets one end of a pair of sockets, QEMU the other; when
QEMU lets go of it, passt ends.
"""

import os
import socket

from virtd.conf.domain.interface import Interface, PortForward, PortRange, UserSource
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.run import confine
from virtd.drivers.qemu.run.helpers import Helper, program
from virtd.state import files

_ANY = "0.0.0.0"


def prepare(interface: Interface, guest: Guest, user: confine.User | None) -> tuple[int, Helper]:
    """The program for a card, and QEMU's end of what connects them.

    Args:
        interface: the card.
        guest: the guest's directory.
        user: who it runs as; None for who runs this.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, it is not installed; VIR_ERR_SYSTEM_ERROR, it cannot have its log.
    """
    binary = program("passt", "passt")
    ours, theirs = (confine.raised(end.detach()) for end in socket.socketpair())
    # Written when its ports are bound: what it cannot have ends the start.
    ready = f"{guest.private}/{interface.info.alias}-passt.pid"
    argv = [binary, "--foreground", "--fd", str(theirs), "--pid", ready]
    # Left to itself it would be nobody, who could not write that.
    root = user is None and os.geteuid() == 0
    argv += ["--runas", "0:0"] if root else []
    helper = Helper(argv, [theirs], user=user, privileged=root, ready=ready)
    try:
        helper.argv.extend(_options(interface, user))
    except BaseException:
        os.close(ours)
        helper.close()
        raise
    return ours, helper


def _options(interface: Interface, user: confine.User | None) -> list[str]:
    found = ["--quiet", "--stderr"]
    if interface.log_file is not None:
        _make_log(interface.log_file, user)
        found = ["--log-file", interface.log_file]
    source = interface.source
    if isinstance(source, UserSource) and source.dev is not None:
        found += ["--interface", source.dev]
    for ip in interface.ips:
        found += ["--address", ip.address or ""]
        if ip.prefix and ip.family != "ipv6":
            found += ["--netmask", str(ip.prefix)]
    for forward in interface.port_forwards:
        found += [f"--{forward.proto}-ports", _ports(forward)]
    return found


def _ports(forward: PortForward) -> str:
    """Ports that are forwarded, in passt's words: [ADDRESS[%DEVICE]/][~]FIRST[-LAST][:FIRST-LAST],…"""
    place = forward.address or ""
    if forward.dev is not None:
        place = f"{place or _ANY}%{forward.dev}"
    ranges = ",".join(map(_range, forward.ranges)) or "all"
    return f"{place}/{ranges}" if place else ranges


def _range(ports: PortRange) -> str:
    start, last = ports.start or 0, ports.end or ports.start or 0
    found = f"{start}-{last}" if last != start else str(start)
    if ports.exclude:
        return f"~{found}"
    if ports.to is None:
        return found
    return f"{found}:{ports.to}-{ports.to + last - start}" if last != start else f"{found}:{ports.to}"


def _make_log(path: str, user: confine.User | None) -> None:
    """Make the log, which the program could not make where its user may not write."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if user is not None:
                os.fchown(descriptor, user.uid, user.gid)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise files.os_error(error, f"cannot write '{path}'") from None
