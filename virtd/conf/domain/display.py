"""What the guest shows and hears: <graphics>, <video>, <sound>, <audio>, <input>.

The kinds of Graphics, Listen and Audio are libvirt's types of these.
"""

import re

from virtd import constants as c
from virtd.conf.domain.base import Device, VirtioOptions
from virtd.conf.xml.model import Element, Model, View, attr, inline, missing_attribute, sub, subs
from virtd.conf.xml.types import INT, ON_OFF, POSITIVE, UINT, YES_NO, Choice
from virtd.errors import VirtError

UNSUPPORTED = c.VIR_ERR_CONFIG_UNSUPPORTED


class Listen(Model, by="@type"):
    """Where a display server listens."""


class AddressListen(Listen, kind="address"):
    """On a TCP address."""

    address = attr("@address")


class NetworkListen(Listen, kind="network"):
    """On the address the host has in a virtual network."""

    address = attr("@address", live=True)
    network = attr("@network")


class SocketListen(Listen, kind="socket"):
    """On a UNIX socket."""

    socket = attr("@socket")


class NoListen(Listen, kind="none"):
    """Nowhere: clients get a descriptor."""


class Graphics(Model, by="@type"):
    """How the guest's screen is seen from outside."""


TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}", re.ASCII)


def check_password_time(graphics: "VncGraphics | SpiceGraphics") -> None:
    """A password expires at a date and a time, of Greenwich; what is said of a password is nothing without one.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR.
    """
    if graphics.passwd is None:
        graphics.passwd_valid_to = graphics.connected = None
    text = graphics.passwd_valid_to
    if text is not None and not TIME.fullmatch(text):
        words = f"cannot parse password validity time '{text}', expect YYYY-MM-DDTHH:MM:SS"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, words, domain=c.VIR_FROM_DOMAIN)


class ServerGraphics(Graphics):
    """What VNC and SPICE have in common. The port is None until there is one, autoport says who chooses it."""

    listens = subs("listen", Listen)


class VncGraphics(ServerGraphics, kind="vnc"):
    """A VNC server."""

    port = attr("@port", INT, omit=0, bad=(c.VIR_ERR_INTERNAL_ERROR, "cannot parse vnc port %s"))
    autoport = attr("@autoport", YES_NO)
    websocket = attr("@websocket", INT, bad=(c.VIR_ERR_INTERNAL_ERROR, "cannot parse vnc WebSocket port %s"))
    listen = attr("@listen")
    socket = attr("@socket")
    keymap = attr("@keymap")
    share_policy = attr("@sharePolicy", Choice("allow-exclusive force-shared ignore"))
    power_control = attr("@powerControl", YES_NO)
    passwd = attr("@passwd", secure=True)
    passwd_valid_to = attr("@passwdValidTo")
    connected = attr("@connected", Choice("fail disconnect keep"), bad=(UNSUPPORTED, "unknown connected value %s"))
    listens = subs("listen", Listen)
    audio_id = attr("audio/@id", POSITIVE)

    def loaded(self, el: Element, view: View) -> None:
        """What is said of a password is nothing without one."""
        check_password_time(self)
        if self.connected not in (None, "keep"):
            raise VirtError(UNSUPPORTED, "VNC supports connected='keep' only", domain=c.VIR_FROM_DOMAIN)

    def shown(self, view: View) -> "VncGraphics":
        """A port that was chosen at start is not part of the definition."""
        if self.autoport and not (view.live and self.port):
            twin = self.copy()
            twin.port = -1
            return twin
        return self


CHANNELS = Choice("main display inputs cursor playback record smartcard usbredir")


class SpiceChannel(Model):
    """Whether one of SPICE's channels must be encrypted."""

    name = attr(
        "@name",
        CHANNELS,
        required=True,
    )
    mode = attr("@mode", Choice("any secure insecure"), required=True)


SPICE_OPTIONS = {
    "image": "compression",
    "jpeg": "compression",
    "zlib": "compression",
    "playback": "compression",
    "streaming": "mode",
    "mouse": "mode",
    "clipboard": "copypaste",
    "filetransfer": "enable",
    "gl": "enable",
}
"""What each option of a display server must say."""


def check_options(el: Element) -> None:
    """Who names an option says what it is.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    for child in el.iterchildren("*"):
        name = SPICE_OPTIONS.get(str(child.tag))
        if name is not None and child.get(name) is None:
            raise missing_attribute(name, child)


class SpiceGraphics(ServerGraphics, kind="spice"):
    """A SPICE server."""

    port = attr("@port", INT, omit=0)
    tls_port = attr("@tlsPort", INT, omit=0)
    autoport = attr("@autoport", YES_NO)
    listen = attr("@listen")
    keymap = attr("@keymap")
    default_mode = attr("@defaultMode", Choice("any secure insecure"), omit="any")
    passwd = attr("@passwd", secure=True)
    passwd_valid_to = attr("@passwdValidTo")
    connected = attr("@connected", Choice("fail disconnect keep"), bad=(UNSUPPORTED, "unknown connected value %s"))
    listens = subs("listen", Listen)
    channels = subs("channel", SpiceChannel)
    image = attr("image/@compression", Choice("auto_glz auto_lz quic glz lz off"))
    jpeg = attr("jpeg/@compression", Choice("auto never always"))
    zlib = attr("zlib/@compression", Choice("auto never always"))
    playback = attr("playback/@compression", ON_OFF)
    streaming = attr("streaming/@mode", Choice("filter all off"))
    mouse = attr("mouse/@mode", Choice("server client"))
    clipboard = attr("clipboard/@copypaste", YES_NO)
    filetransfer = attr("filetransfer/@enable", YES_NO)
    gl = attr("gl/@enable", YES_NO)
    rendernode = attr("gl/@rendernode")

    def loaded(self, el: Element, view: View) -> None:
        """What is said of a password is nothing without one; the last word on a channel counts."""
        check_password_time(self)
        check_options(el)
        by_name = {channel.name: channel for channel in self.channels if channel.mode != "any"}
        self.channels = [by_name[name] for name in CHANNELS.names if name in by_name]

    def shown(self, view: View) -> "SpiceGraphics":
        """A port that was chosen at start is not part of the definition."""
        if self.autoport and not view.live and (self.port or self.tls_port):
            twin = self.copy()
            twin.port = twin.tls_port = None
            return twin
        return self


def check_gl(el: Element) -> None:
    """Who speaks of OpenGL says whether it is used.

    Raises:
        VirtError: VIR_ERR_XML_ERROR.
    """
    gl = el.find("gl")
    if gl is not None and gl.get("enable") is None:
        raise missing_attribute("enable", gl)


class SdlGraphics(Graphics, kind="sdl"):
    """A window on the host."""

    display = attr("@display")
    xauth = attr("@xauth")
    fullscreen = attr("@fullscreen", YES_NO, omit=False)
    gl = attr("gl/@enable", YES_NO)

    def loaded(self, el: Element, view: View) -> None:
        """OpenGL is used or not."""
        check_gl(el)


class HeadlessGraphics(Graphics, kind="egl-headless"):
    """OpenGL without a window."""

    rendernode = attr("gl/@rendernode")


class DbusGraphics(Graphics, kind="dbus"):
    """A display on D-Bus."""

    p2p = attr("@p2p", YES_NO, omit=False)
    address = attr("@address")
    gl = attr("gl/@enable", YES_NO)
    rendernode = attr("gl/@rendernode")
    audio_id = attr("audio/@id", POSITIVE)

    def loaded(self, el: Element, view: View) -> None:
        """OpenGL is used or not."""
        check_gl(el)


class RdpGraphics(ServerGraphics, kind="rdp"):
    """A server for Windows' remote desktops; not for QEMU."""

    port = attr("@port", INT, bad=(c.VIR_ERR_INTERNAL_ERROR, "cannot parse rdp port %s"))
    autoport = attr("@autoport", YES_NO)
    multi_user = attr("@multiUser", YES_NO)
    replace_user = attr("@replaceUser", YES_NO)
    listen = attr("@listen")

    def loaded(self, el: Element, view: View) -> None:
        """It listens on the network."""
        for listen in self.listens:
            if listen.kind in ("socket", "none"):
                text = f"listen type '{listen.kind}' is not available for graphics type 'rdp'"
                raise VirtError(UNSUPPORTED, text, domain=c.VIR_FROM_DOMAIN)


class DesktopGraphics(Graphics, kind="desktop"):
    """VirtualBox's own window; not for QEMU."""

    display = attr("@display")
    fullscreen = attr("@fullscreen", YES_NO)


class Acceleration(Model):
    """What of the drawing the host's GPU does."""

    accel2d = attr("@accel2d", YES_NO)
    accel3d = attr("@accel3d", YES_NO)
    rendernode = attr("@rendernode")

    def loaded(self, el: Element, view: View) -> None:
        """It says something."""
        if self.accel2d is None and self.accel3d is None and self.rendernode is None:
            raise VirtError(UNSUPPORTED, "missing values for acceleration", domain=c.VIR_FROM_DOMAIN)


class VideoDriver(Model):
    """How the card works inside."""

    vgaconf = attr("@vgaconf", Choice("io on off"), omit="io")
    name = attr("@name", Choice("default qemu vhostuser"), omit="default")
    virtio = inline(VirtioOptions)


class Video(Device):
    """A graphics card; its memory in KiB."""

    driver = sub("driver", VideoDriver)
    model = attr(
        "model/@type",
        Choice("default vga cirrus vmvga xen vbox qxl parallels virtio gop none bochs ramfb"),
        bad=(UNSUPPORTED, "unknown video model '%s'"),
    )
    ram = attr("model/@ram", UINT, omit=0, bad=(c.VIR_ERR_XML_ERROR, "cannot parse video ram '%s'"))
    vram = attr("model/@vram", UINT, omit=0, bad=(c.VIR_ERR_XML_ERROR, "cannot parse video vram '%s'"))
    vram64 = attr("model/@vram64", UINT, omit=0, bad=(c.VIR_ERR_XML_ERROR, "cannot parse video vram64 '%s'"))
    vgamem = attr("model/@vgamem", UINT, omit=0, bad=(c.VIR_ERR_XML_ERROR, "cannot parse video vgamem '%s'"))
    heads = attr("model/@heads", UINT, omit=0, bad=(c.VIR_ERR_INTERNAL_ERROR, "cannot parse video heads '%s'"))
    primary = attr("model/@primary", YES_NO, omit=False)
    acceleration = sub("model/acceleration", Acceleration)
    width = attr("model/resolution/@x", UINT)
    height = attr("model/resolution/@y", UINT)

    def loaded(self, el: Element, view: View) -> None:
        """A resolution has a width and a height."""
        resolution = el.find("model/resolution")
        for name in ("x", "y") if resolution is not None else ():
            assert resolution is not None
            if resolution.get(name) is None:
                raise missing_attribute(name, resolution)

    @property
    def backend(self) -> str | None:
        """Who draws, if it is said."""
        return self.driver.name if self.driver is not None else None


CODECS = ("duplex", "micro", "output")


class Codec(Model):
    """What is soldered to an HDA controller."""

    type = attr("@type")


class Sound(Device):
    """A sound card."""

    model = attr("@model", Choice("sb16 es1370 pcspk ac97 ich6 ich9 usb ich7"), required=True)
    codecs = subs("codec", Codec)
    audio_id = attr("audio/@id", POSITIVE)

    def loaded(self, el: Element, view: View) -> None:
        """Only HDA controllers have codecs."""
        if self.model not in ("ich6", "ich9"):
            self.codecs = []
        for codec in self.codecs:
            if codec.type not in CODECS:
                text = f"unknown codec type '{codec.type or '(null)'}'"
                raise VirtError(UNSUPPORTED, text, domain=c.VIR_FROM_DOMAIN)


class AudioStream(Model):
    """Sound in one direction."""

    mixing_engine = attr("@mixingEngine", YES_NO)
    fixed_settings = attr("@fixedSettings", YES_NO)
    voices = attr("@voices", POSITIVE)
    buffer_length = attr("@bufferLength", POSITIVE)
    name = attr("@name")
    dev = attr("@dev")
    server_name = attr("@serverName")
    client_name = attr("@clientName")
    connect_ports = attr("@connectPorts")
    exact_name = attr("@exactName", YES_NO)
    stream_name = attr("@streamName")
    latency = attr("@latency", POSITIVE)
    buffer_count = attr("@bufferCount", POSITIVE)
    try_poll = attr("@tryPoll", YES_NO)
    frequency = attr("settings/@frequency", POSITIVE)
    channels = attr("settings/@channels", POSITIVE)
    format = attr("settings/@format", Choice("s8 u8 s16 u16 s32 u32 f32"))
    has_settings = False

    def loaded(self, el: Element, view: View) -> None:
        """Settings may be empty."""
        self.has_settings = el.find("settings") is not None


# What only some back ends can be told, of themselves and of a stream.
AUDIO_FIELDS = {
    "jack": (),
    "oss": ("try_mmap", "exclusive", "dsp_policy"),
    "pulseaudio": ("server_name",),
    "sdl": ("driver",),
    "file": ("path",),
}
STREAM_FIELDS = {
    "alsa": ("dev",),
    "coreaudio": ("buffer_count",),
    "jack": ("server_name", "client_name", "connect_ports", "exact_name"),
    "oss": ("dev", "buffer_count", "try_poll"),
    "pulseaudio": ("name", "stream_name", "latency"),
    "sdl": ("buffer_count",),
}
ALL_AUDIO = frozenset(name for names in AUDIO_FIELDS.values() for name in names)
ALL_STREAM = frozenset(name for names in STREAM_FIELDS.values() for name in names)


class Audio(Model):
    """Where sound goes to and comes from on the host."""

    id = attr("@id", POSITIVE, required=True)
    type = attr("@type", Choice("none alsa coreaudio jack oss pulseaudio sdl spice file dbus"), required=True)
    timer_period = attr("@timerPeriod", POSITIVE)
    driver = attr("@driver", Choice("esd alsa arts pulseaudio"))
    path = attr("@path")
    server_name = attr("@serverName")
    try_mmap = attr("@tryMMap", YES_NO)
    exclusive = attr("@exclusive", YES_NO)
    dsp_policy = attr("@dspPolicy", INT)
    input = sub("input", AudioStream)
    output = sub("output", AudioStream)

    def loaded(self, el: Element, view: View) -> None:
        """What another back end could be told is nothing here."""
        kind = self.type or ""
        for name in ALL_AUDIO.difference(AUDIO_FIELDS.get(kind, ())):
            self.__dict__.pop(name, None)
        for stream in (self.input, self.output):
            for name in ALL_STREAM.difference(STREAM_FIELDS.get(kind, ())) if stream is not None else ():
                assert stream is not None
                stream.__dict__.pop(name, None)


class InputSource(Model):
    """A device of the host whose events go to the guest."""

    dev = attr("@dev")
    evdev = attr("@evdev")
    grab = attr("@grab", Choice("all"))
    grab_toggle = attr("@grabToggle", Choice("ctrl-ctrl alt-alt shift-shift meta-meta scrolllock ctrl-scrolllock"))
    repeat = attr("@repeat", ON_OFF)


class InputDriver(Model):
    """How a virtio input device works inside."""

    virtio = inline(VirtioOptions)


# Where an input device is plugged in if nothing is said.
INPUT_BUSES = {"mouse": "ps2", "keyboard": "ps2", "tablet": "usb", "passthrough": "virtio", "evdev": "none"}


# Where the events of those come from that have them from the host.
INPUT_SOURCES = {"passthrough": "evdev", "evdev": "dev"}


class Input(Device):
    """A mouse, keyboard, tablet, or events handed through from the host."""

    type = attr(
        "@type",
        Choice("mouse tablet keyboard passthrough evdev"),
        required=(c.VIR_ERR_INTERNAL_ERROR, "missing input device type"),
        bad=(UNSUPPORTED, "unknown input device type '%s'"),
    )
    bus = attr(
        "@bus",
        Choice("default ps2 usb xen parallels virtio none"),
        omit="none",
        bad=(UNSUPPORTED, "unknown input bus type '%s'"),
    )
    model = attr(
        "@model",
        Choice("default virtio virtio-transitional virtio-non-transitional"),
        omit="default",
        bad=(UNSUPPORTED, "unknown input model '%s'"),
    )
    driver = sub("driver", InputDriver)
    source = sub("source", InputSource)

    def loaded(self, el: Element, view: View) -> None:
        """Each type has a bus it is usually on."""
        if self.bus in (None, "default"):
            self.bus = INPUT_BUSES[self.type or ""]
        wanted = INPUT_SOURCES.get(self.type or "")
        if wanted is None:
            self.source = None
        elif self.source is not None and getattr(self.source, wanted) is None:
            raise VirtError(c.VIR_ERR_XML_ERROR, "Missing evdev path for input device", domain=c.VIR_FROM_DOMAIN)
