"""Serial and parallel ports, consoles, channels, smartcards, redirected USB devices: what has a character device."""

from virtd.conf.domain.base import IsaAddress, VirtioSerialAddress
from virtd.conf.domain.chardev import Channel, Console, Parallel, Serial, SpiceVmcSource
from virtd.conf.domain.redirect import (
    CertificateSmartcard,
    HostSmartcard,
    PassthroughSmartcard,
    RedirDevice,
    RedirRule,
    Smartcard,
)
from virtd.drivers.qemu.command.address import place
from virtd.drivers.qemu.command.backends import add_backend
from virtd.drivers.qemu.command.line import Line, Properties, alias, internal, unsupported

_SERIAL = {
    "isa-serial": "isa-serial",
    "pci-serial": "pci-serial",
    "usb-serial": "usb-serial",
    "isa-debugcon": "isa-debugcon",
}
# The name by which SPICE's agent finds its channel in the guest.
_AGENT = "com.redhat.spice.0"
_CERTIFICATES = 3
_DEFAULT_DATABASE = "/etc/pki/nssdb"


def add_ports(line: Line) -> None:
    """Add smartcards, serial and parallel ports, channels and consoles, in libvirt's order."""
    for card in line.config.smartcards:
        _smartcard(line, card)
    for serial in line.config.serials:
        add_serial(line, serial)
    for parallel in line.config.parallels:
        add_parallel(line, parallel)
    for channel in line.config.channels:
        add_channel(line, channel)
    for console in line.config.consoles:
        add_console(line, console)


def add_redirected(line: Line) -> None:
    """Add USB devices of clients."""
    for device in line.config.redirdevs:
        add_redirdev(line, device)


def add_serial(line: Line, serial: Serial) -> None:
    """Add one serial port."""
    driver = _SERIAL.get(serial.model or "")
    if driver is None:
        raise unsupported(
            f"Serial device with target type '{serial.target_type}' and target model '{serial.model}' not "
            "compatible with guest architecture or machine type"
        )
    line.need(driver, f"serial model '{serial.model}'")
    name = alias(serial.info)
    backend = add_backend(line, serial.source, name)
    where = place(line, serial.info)
    if driver == "isa-serial" and not isinstance(serial.info.address, IsaAddress):
        where = {}
    index = serial.port if driver == "isa-serial" else None
    line.device(driver, chardev=backend, id=name, index=index, **where)


def add_parallel(line: Line, parallel: Parallel) -> None:
    """Add one parallel port."""
    name = alias(parallel.info)
    backend = add_backend(line, parallel.source, name)
    line.device("isa-parallel", chardev=backend, id=name, **place(line, parallel.info))


def add_channel(line: Line, channel: Channel) -> None:
    """Add one channel."""
    name = alias(channel.info)
    backend = add_backend(line, channel.source, name, _socket_name(channel))
    if channel.target_type == "guestfwd":
        forward = f"tcp:{channel.address}:{channel.port}-chardev:{backend}"
        line.json("netdev", {"type": "user", "guestfwd": [{"str": forward}], "id": name})
        return
    if channel.target_type != "virtio":
        raise unsupported(f"channel target type '{channel.target_type}' is not supported")
    target = channel.name
    if isinstance(channel.source, SpiceVmcSource):
        target = target or _AGENT
        if target != _AGENT:
            raise unsupported(f"Unsupported spicevmc target name '{target}'")
    line.device("virtserialport", **place(line, channel.info), chardev=backend, id=name, name=target)


def _socket_name(channel: Channel) -> str | None:
    """What the socket of a channel is called that has no path: like the channel, or after its port."""
    address = channel.info.address
    if channel.name is None and isinstance(address, VirtioSerialAddress):
        return f"vioser-{address.controller:02d}-{address.bus:02d}-{address.port or 0:02d}.sock"
    return channel.name


def add_console(line: Line, console: Console) -> None:
    """Add one console, unless it is the first serial port by another name."""
    if console.target_type == "serial":
        if console is not line.config.consoles[0]:
            raise unsupported("Only the first console can be a serial port")
        return  # the first serial port by another name
    if console.target_type != "virtio":
        raise unsupported(f"unsupported console target type {console.target_type}")
    name = alias(console.info)
    backend = add_backend(line, console.source, name)
    line.device("virtconsole", **place(line, console.info), chardev=backend, id=name)


def _smartcard(line: Line, card: Smartcard) -> None:
    name = alias(card.info)
    properties: Properties
    if isinstance(card, PassthroughSmartcard):
        properties = {"driver": "ccid-card-passthru", "chardev": add_backend(line, card.source, name)}
    elif isinstance(card, CertificateSmartcard):
        if len(card.certificates) != _CERTIFICATES:
            raise internal(f"host-certificates mode needs exactly {_CERTIFICATES} certificates")
        certificates = {f"cert{number}": one for number, one in enumerate(card.certificates, 1)}
        database = card.database or _DEFAULT_DATABASE
        properties = {"driver": "ccid-card-emulated", "backend": "certificates", **certificates, "db": database}
    elif isinstance(card, HostSmartcard):
        properties = {"driver": "ccid-card-emulated", "backend": "nss-emulated"}
    else:
        raise unsupported(f"smartcard mode '{type(card).kind}' is not supported")
    line.need(str(properties["driver"]), "smartcard")
    line.json("device", {**properties, "id": name, **place(line, card.info)})


def add_redirdev(line: Line, device: RedirDevice) -> None:
    """Add one USB device of a client."""
    rules = line.config.redirfilter.rules if line.config.redirfilter is not None else []
    line.need("usb-redir", "USB redirection")
    name = alias(device.info)
    backend = add_backend(line, device.source, name)
    line.device(
        "usb-redir",
        chardev=backend,
        id=name,
        filter="|".join(map(_rule, rules)) or None,
        bootindex=line.bootindex(device.info),
        **place(line, device.info),
    )


def _rule(rule: RedirRule) -> str:
    """A rule as usbredir writes it: class, vendor, product, version (BCD), whether it is allowed; -1 for any."""
    version = "-1"
    if rule.version is not None:
        major, _, minor = rule.version.partition(".")
        version = f"0x{int(major):02d}{int(minor or 0):02d}"
    numbers = [
        "-1" if number is None else f"0x{number:0{width}X}"
        for number, width in ((rule.device_class, 2), (rule.vendor, 4), (rule.product, 4))
    ]
    return ":".join([*numbers, version, str(int(rule.allow is True))])
