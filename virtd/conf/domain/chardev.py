"""Character devices: <serial>, <parallel>, <console>, <channel>, and what stands behind them on the host.

The kinds of CharSource are libvirt's character device types.
"""

from virtd import constants as c
from virtd.conf.domain.base import Device, DeviceSeclabel, Reconnect
from virtd.conf.xml.model import Element, Model, View, attr, inline, sub, subs
from virtd.conf.xml.types import INT, ON_OFF, YES_NO, Choice
from virtd.errors import VirtError

MODES = Choice("connect bind")


class SocketSource(Model):
    """One <source> of a network back end."""

    mode = attr("@mode", MODES)
    host = attr("@host")
    service = attr("@service")
    tls = attr("@tls", YES_NO)


def check_sources(el: Element, most: int) -> None:
    """Refuse more <source> elements than a back end has ends.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    if len(el.findall("source")) > most:
        number = "one source element is" if most == 1 else "two source elements are"
        raise VirtError(c.VIR_ERR_XML_ERROR, f"only {number} allowed for character device", domain=c.VIR_FROM_DOMAIN)


def check_reconnect(reconnect: Reconnect | None, mode: str | None) -> None:
    """Who waits for others cannot connect again.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR.
    """
    if reconnect is not None and mode != "connect":
        raise VirtError(
            c.VIR_ERR_INTERNAL_ERROR, "chardev reconnect is possible only for connect mode", domain=c.VIR_FROM_DOMAIN
        )


class CharSource(
    Model,
    by="@type",
    default="pty",
    bad=(c.VIR_ERR_CONFIG_UNSUPPORTED, "unknown type presented to host for character device: %s"),
):
    """What is behind a character device."""

    log_file = attr("log/@file")
    log_append = attr("log/@append", ON_OFF)


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


class PathSource(CharSource, kind="dev"):
    """A device of the host."""

    path = attr("source/@path")
    seclabels = subs("source/seclabel", DeviceSeclabel)


class PipeSource(PathSource, kind="pipe"):
    """A pair of named pipes."""


class UnixSource(CharSource, kind="unix"):
    """A UNIX socket."""

    mode = attr("source/@mode", MODES)
    path = attr("source/@path")
    seclabels = subs("source/seclabel", DeviceSeclabel)
    reconnect = sub("source/reconnect", Reconnect)

    def loaded(self, el: Element, view: View) -> None:
        """A connection is made, unless it is said to be waited for."""
        check_sources(el, 1)
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
    protocol = attr("protocol/@type", Choice("raw telnet telnets tls"), default="raw")

    def loaded(self, el: Element, view: View) -> None:
        """A connection is made, unless it is said to be waited for."""
        self.mode = self.mode or "connect"
        check_sources(el, 1)
        check_reconnect(self.reconnect, self.mode)


class UdpSource(CharSource, kind="udp"):
    """UDP datagrams: where they are bound, where they go."""

    sources = subs("source", SocketSource)

    def loaded(self, el: Element, view: View) -> None:
        """Where to send to is said first, where to receive is written first."""
        check_sources(el, 2)
        for source in self.sources:
            source.mode = source.mode or "connect"
        self.sources.sort(key=lambda source: source.mode != "bind")


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

    mouse = attr("source/mouse/@mode", Choice("server client"))
    clipboard = attr("source/clipboard/@copypaste", YES_NO)


class DbusSource(CharSource, kind="dbus"):
    """A channel on D-Bus."""

    channel = attr("source/@channel")


class Chardev(Model):
    """What all character devices have."""

    tty = attr("@tty", live=True)
    source = inline(CharSource)


SERIAL_TYPES = Choice("isa-serial usb-serial pci-serial spapr-vio-serial system-serial sclp-serial isa-debug")


class Serial(Device):
    """A serial port."""

    source = inline(CharSource)
    target_type = attr(
        "target/@type",
        SERIAL_TYPES,
        bad=(c.VIR_ERR_XML_ERROR, "unknown target type '%s' specified for character device"),
    )
    port = attr("target/@port", INT, bad=(c.VIR_ERR_XML_ERROR, "Invalid port number: %s"))
    model = attr("target/model/@name")


class Parallel(Device):
    """A parallel port."""

    source = inline(CharSource)
    target_type = attr("target/@type")
    port = attr("target/@port", INT, bad=(c.VIR_ERR_XML_ERROR, "Invalid port number: %s"))


class Console(Device):
    """A console: the first may stand for the first serial port, the others are virtio or such."""

    source = inline(CharSource)
    tty = attr("@tty", live=True)
    target_type = attr("target/@type", Choice("serial xen uml virtio lxc openvz sclp sclplm"))
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
    target_type = attr("target/@type", Choice("guestfwd virtio xen"))
    address = attr("target/@address")
    port = attr("target/@port")
    name = attr("target/@name")
    state = attr("target/@state", Choice("connected disconnected"), live=True)
