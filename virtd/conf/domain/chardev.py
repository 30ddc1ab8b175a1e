"""Character devices: <serial>, <parallel>, <console>, <channel>, and what stands behind them on the host.

The kinds of CharSource are libvirt's character device types.
"""

from socket import AF_INET6, inet_aton, inet_ntoa, inet_ntop, inet_pton
from typing import ClassVar

from virtd import constants as c
from virtd.conf.domain.base import Device, DeviceSeclabel, Reconnect, real_labels
from virtd.conf.domain.errors import internal_error, xml_error
from virtd.conf.xml.model import Element, Model, View, attr, inline, missing_attribute, sub, subs
from virtd.conf.xml.types import INT, ON_OFF, UINT, YES_NO, Choice
from virtd.errors import VirtError

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED
BAD_TARGET = (UNSUPPORTED, "unknown target type '%s' specified for character device")
MODES = Choice("connect bind")


class SocketSource(Model):
    """One <source> of a network back end."""

    mode = attr("@mode", MODES)
    host = attr("@host")
    service = attr("@service")


def check_sources(el: Element, most: int) -> None:
    """Refuse more <source> elements than a back end has ends, and more than one way to speak or to log.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    if len(el.findall("source")) > most:
        number = "one source element is" if most == 1 else "two source elements are"
        raise xml_error(f"only {number} allowed for character device")
    for name in ("log", "protocol"):
        if len(el.findall(name)) > 1:
            raise xml_error(f"only one {name} element is allowed for character device")


def check_reconnect(reconnect: Reconnect | None, mode: str | None) -> None:
    """Who waits for others cannot connect again.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR.
    """
    if reconnect is not None and reconnect.enabled is not None and mode != "connect":
        raise internal_error("chardev reconnect is possible only for connect mode")


def socket_address(text: str) -> str:
    """An IP address in its usual form; IPv4 may have fewer than four numbers, as inet_aton() takes it.

    Raises:
        ValueError: if it is none.
    """
    try:
        if ":" in text:
            return inet_ntop(AF_INET6, inet_pton(AF_INET6, text))
        return inet_ntoa(inet_aton(text))
    except (OSError, UnicodeError):
        raise ValueError from None


class CharSource(
    Model,
    by="@type",
    default="pty",
    bad=(c.VIR_ERR_CONFIG_UNSUPPORTED, "unknown type presented to host for character device: %s"),
):
    """What is behind a character device."""

    log_file = attr("log/@file")
    log_append = attr("log/@append", ON_OFF)
    ends: ClassVar[int] = 1
    """How many <source> elements there can be."""

    @classmethod
    def entered(cls, el: Element) -> None:
        """Nothing is said more often than there are ends."""
        check_sources(el, cls.ends)


class NullSource(CharSource, kind="null"):
    """Nothing."""


class VcSource(CharSource, kind="vc"):
    """A console in QEMU's own display."""


class StdioSource(CharSource, kind="stdio"):
    """Standard input and output."""


class PtySource(CharSource, kind="pty"):
    """A pseudo terminal; its path is known when the guest runs."""

    path = attr("source/@path", live=True)


class FileSource(CharSource, kind="file"):
    """A file that is written."""

    path = attr("source/@path")
    append = attr("source/@append", ON_OFF)
    seclabels = subs("source/seclabel", DeviceSeclabel)

    def loaded(self, el: Element, view: View) -> None:
        """One file, and labels that say something."""
        self.seclabels = real_labels(self.seclabels, view)


class PathSource(CharSource, kind="dev"):
    """A device of the host."""

    path = attr("source/@path")
    seclabels = subs("source/seclabel", DeviceSeclabel)

    def loaded(self, el: Element, view: View) -> None:
        """One device, and labels that say something."""
        self.seclabels = real_labels(self.seclabels, view)


class PipeSource(PathSource, kind="pipe"):
    """A pair of named pipes."""


class UnixSource(CharSource, kind="unix"):
    """A UNIX socket."""

    mode = attr("source/@mode", MODES, when=lambda source, view: source.path is not None)
    path = attr("source/@path")
    seclabels = subs("source/seclabel", DeviceSeclabel)
    reconnect = sub("source/reconnect", Reconnect)

    def loaded(self, el: Element, view: View) -> None:
        """A connection is made, unless it is said to be waited for."""
        self.seclabels = real_labels(self.seclabels, view)
        if self.path is not None:
            self.mode = self.mode or "connect"
        check_reconnect(self.reconnect, self.mode)


class TcpSource(CharSource, kind="tcp"):
    """A TCP connection, or a server."""

    mode = attr("source/@mode", MODES)
    host = attr("source/@host")
    service = attr("source/@service")
    tls = attr("source/@tls", YES_NO)
    reconnect = sub("source/reconnect", Reconnect)
    protocol = attr(
        "protocol/@type", Choice("raw telnet telnets tls"), default="raw", bad=(UNSUPPORTED, "Unknown protocol '%s'")
    )

    def loaded(self, el: Element, view: View) -> None:
        """A connection is made, unless it is said to be waited for."""
        self.mode = self.mode or "connect"
        check_reconnect(self.reconnect, self.mode)


class UdpSource(CharSource, kind="udp"):
    """UDP datagrams: where they are bound, where they go."""

    sources = subs("source", SocketSource)
    ends = 2

    def loaded(self, el: Element, view: View) -> None:
        """Where to send to is said first, where to receive is written first."""
        for source in self.sources:
            source.mode = source.mode or "connect"
        self.sources.sort(key=lambda source: source.mode != "bind")

    @property
    def sends(self) -> bool:
        """Whether it is said where to send to."""
        return any(source.mode == "connect" and source.service is not None for source in self.sources)


class SpiceVmcSource(CharSource, kind="spicevmc"):
    """A channel of a SPICE client."""


class SpicePortSource(CharSource, kind="spiceport"):
    """A named port of SPICE."""

    channel = attr("source/@channel")


class NmdmSource(CharSource, kind="nmdm"):
    """A pair of null modem devices."""

    master = attr("source/@master")
    slave = attr("source/@slave")


class QemuVdagentSource(CharSource, kind="qemu-vdagent"):
    """QEMU's own counterpart of the SPICE agent."""

    clipboard = attr("source/clipboard/@copypaste", YES_NO)
    mouse = attr("source/mouse/@mode", Choice("server client"))


class DbusSource(CharSource, kind="dbus"):
    """A channel on D-Bus."""

    channel = attr("source/@channel")


class Chardev(Model):
    """What all character devices have."""

    tty = attr("@tty", live=True)
    source = inline(CharSource)


SERIAL_TYPES = Choice("isa-serial usb-serial pci-serial spapr-vio-serial system-serial sclp-serial isa-debug")


SERIAL_MODELS = Choice("isa-serial usb-serial pci-serial spapr-vty pl011 sclpconsole sclplmconsole 16550a isa-debugcon")


class Serial(Device):
    """A serial port."""

    source = inline(CharSource)
    target_type = attr("target/@type", SERIAL_TYPES, bad=BAD_TARGET)
    port = attr("target/@port", INT, bad=(c.VIR_ERR_XML_ERROR, "Invalid port number: %s"))
    model = attr(
        "target/model/@name",
        SERIAL_MODELS,
        bad=(UNSUPPORTED, "unknown target model '%s' specified for character device"),
    )


class Parallel(Device):
    """A parallel port."""

    source = inline(CharSource)
    port = attr("target/@port", INT, bad=(c.VIR_ERR_XML_ERROR, "Invalid port number: %s"))


class Console(Device):
    """A console: the first may stand for the first serial port, the others are virtio or such."""

    source = inline(CharSource)
    tty = attr("@tty", live=True)
    target_type = attr("target/@type", Choice("serial xen uml virtio lxc openvz sclp sclplm"), bad=BAD_TARGET)
    port = attr("target/@port", INT, bad=(c.VIR_ERR_XML_ERROR, "Invalid port number: %s"))

    def shown(self, view: View) -> "Console":
        """A running guest's console says where its terminal is."""
        if view.live and isinstance(self.source, PtySource) and self.source.path != self.tty:
            twin = self.copy()
            twin.tty = self.source.path
            return twin
        return self


class Channel(Device):
    """A channel between the host and a program in the guest."""

    source = inline(CharSource)
    target_type = attr("target/@type", Choice("guestfwd virtio xen"), bad=BAD_TARGET)
    address = attr("target/@address")
    port = attr("target/@port", UINT)
    name = attr("target/@name")
    state = attr("target/@state", Choice("connected disconnected"), live=True)
    reading = ("target",)

    @classmethod
    def entered(cls, el: Element) -> None:
        """A forwarded port is at an address."""
        target = el.find("target")
        if target is None or target.get("type") != "guestfwd":
            return
        address = target.get("address")
        if address is None:
            raise xml_error("guestfwd channel does not define a target address")
        try:
            socket_address(address)
        except ValueError:
            text = f"Cannot parse socket address '{address}': Name or service not known"
            raise VirtError(c.VIR_ERR_SYSTEM_ERROR, text) from None

    def loaded(self, el: Element, view: View) -> None:
        """A forwarded port is somewhere."""
        if self.target_type != "guestfwd":
            self.address = self.port = None
            return
        target = el.find("target")
        if self.port is None and target is not None:
            raise missing_attribute("port", target)
        self.address = socket_address(self.address or "")
