"""Network cards: what the connection asks of the card, and what QEMU's cards can do."""

from virtd import constants as c
from virtd.conf.domain.check.rules import INTERNAL, Context, Rule, Rules
from virtd.conf.domain.errors import conf_error, qemu_error, xml_error
from virtd.conf.domain.interface import Interface, VhostUserSource

MTU_TYPES = ("network", "bridge", "ethernet", "vhostuser")
COALESCE_TYPES = ("network", "bridge")
USER_PREFIXES = (4, 27)
V6_PREFIX = 64
ISOLATED_TYPES = ("network", "bridge")


def power_of_two(number: int | None) -> bool:
    """Whether it is one, or nothing."""
    return not (number and number & (number - 1))


def virtio(interface: Interface) -> bool:
    """Whether a card is one of virtio's."""
    return (interface.model or "").startswith("virtio")


def check_isolated(x: Context, one: Interface) -> None:
    """Ports of the same bridge can be kept apart, if it is the kernel's."""
    if not one.isolated:
        return
    text = None
    if one.type not in ISOLATED_TYPES:
        text = f"type='{one.type}'"
    elif one.virtualport is not None and one.virtualport.type not in (None, "none"):
        text = f"virtualport type='{one.virtualport.type}'"
    if text is not None:
        raise conf_error(
            f"interface {one.mac} - <port isolated='yes'/> is not supported for network interfaces with {text}"
        )


def check_forwards(x: Context, one: Interface) -> None:
    """What is said of a range of ports is said of one that starts somewhere."""
    for forward in one.port_forwards:
        for ports in forward.ranges:
            if ports.start is None and (ports.end or ports.to or ports.exclude is not None):
                raise conf_error(
                    "The 'range' of a 'portForward' requires 'start' attribute if 'end', 'to', or 'exclude' is "
                    "specified"
                )


COMMON: Rules = (
    Rule(
        lambda x, d: d.target_managed is False and d.type != "ethernet",
        "unmanaged target dev is not supported on interfaces of type '{d.type}'",
    ),
    Rule(
        lambda x, d: d.teaming is not None and d.teaming.type == "transient" and d.teaming.persistent is None,
        "teaming persistent attribute must be set if teaming type is 'transient'",
    ),
    Rule(
        lambda x, d: d.teaming is not None and d.teaming.type != "transient" and d.teaming.persistent is not None,
        "teaming persistent attribute not allowed if teaming type is '{d.teaming.type}'",
    ),
    Rule(
        lambda x, d: isinstance(d.source, VhostUserSource) and not virtio(d),
        "Wrong or no <model> 'type' attribute specified with <interface type='vhostuser'/>. vhostuser requires the "
        "virtio-net* frontend",
        INTERNAL,
    ),
    Rule(
        lambda x, d: (
            isinstance(d.source, VhostUserSource) and d.source.reconnect is not None and d.source.mode == "server"
        ),
        "'reconnect' attribute unsupported 'server' mode for <interface type='vhostuser'>",
    ),
    Rule(
        lambda x, d: d.driver_virtio is not None and not virtio(d) and d.driver_virtio.given(),
        "{v} driver option is only supported for virtio devices",
    ),
    check_forwards,
    check_isolated,
)
"""What libvirt asks of every card."""


def check_guest_ips(x: Context, one: Interface) -> None:
    """QEMU's own network can be told one address of each family; the others none."""
    if one.type == "vdpa":
        return
    if one.type != "user":
        if one.ips or one.routes:
            raise qemu_error(
                "Invalid attempt to set network interface guest-side IP route and/or address info, not supported by "
                "QEMU"
            )
        return
    if one.routes:
        raise qemu_error("Invalid attempt to set network interface guest-side IP route, not supported by QEMU")
    seen: set[str | None] = set()
    for ip in one.ips:
        text = None
        if ip.peer is not None:
            text = "Invalid attempt to set peer IP for guest"
        elif ip.family in seen:
            text = f"Only one {'IPv4' if ip.family == 'ipv4' else 'IPv6'} address per interface is allowed"
        elif ip.family == "ipv4" and ip.prefix and not USER_PREFIXES[0] <= ip.prefix <= USER_PREFIXES[1]:
            raise xml_error("invalid prefix, must be in range of 4-27", domain=c.VIR_FROM_QEMU)
        elif ip.family == "ipv6" and ip.prefix and ip.prefix != V6_PREFIX:
            text = f"unsupported IPv6 address prefix='{ip.prefix}' - must be {V6_PREFIX}"
        if text is not None:
            raise qemu_error(text)
        seen.add(ip.family)


QEMU: Rules = (
    check_guest_ips,
    Rule(
        lambda x, d: d.type == "vdpa" and not virtio(d),
        "invalid model for interface of type '{d.type}': '{d.model}'",
    ),
    Rule(
        lambda x, d: d.driver is not None and not power_of_two(d.driver.rx_queue_size),
        "rx_queue_size has to be a power of two",
    ),
    Rule(
        lambda x, d: d.driver is not None and not power_of_two(d.driver.tx_queue_size),
        "tx_queue_size has to be a power of two",
    ),
    Rule(
        lambda x, d: d.mtu and d.type not in MTU_TYPES,
        "setting MTU on interface type {d.type} is not supported yet",
    ),
    Rule(
        lambda x, d: d.teaming is not None and d.teaming.type == "persistent" and not virtio(d),
        "virtio-net teaming persistent interface must be <model type='virtio'/>, not '{d.model}'",
    ),
    Rule(
        lambda x, d: d.teaming is not None and d.teaming.type == "transient" and d.type not in ("hostdev", "network"),
        "virtio-net teaming transient interface must be type='hostdev', not '{d.type}'",
    ),
    Rule(
        lambda x, d: d.coalesce_frames and d.type not in COALESCE_TYPES,
        "coalesce settings on interface type {d.type} are not supported",
    ),
)
"""What the QEMU driver asks of every card."""
