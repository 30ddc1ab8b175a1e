"""Display servers, graphics cards, and input devices."""

from collections.abc import Callable
from typing import cast

from virtd.conf.domain.display import (
    AddressListen,
    DbusGraphics,
    Graphics,
    Input,
    NetworkListen,
    NoListen,
    ServerGraphics,
    SocketListen,
    SpiceGraphics,
    Video,
    VncGraphics,
)
from virtd.drivers.qemu.command import virtio
from virtd.drivers.qemu.command.address import place
from virtd.drivers.qemu.command.line import Line, Properties, alias, escape, join, unsupported
from virtd.drivers.qemu.run.helpers import device_program

_FIRST_VNC_PORT = 5900
# Graphics cards: model → (device as the first one, device as another one; None: only the first can be it).
_CARDS: dict[str, tuple[str, str | None]] = {
    "vga": ("VGA", None),
    "cirrus": ("cirrus-vga", None),
    "vmvga": ("vmware-svga", None),
    "qxl": ("qxl-vga", "qxl"),
    "virtio": ("virtio-vga", "virtio-gpu-pci"),
    "bochs": ("bochs-display", "bochs-display"),
    "ramfb": ("ramfb", None),
}
_SPICE_CHANNEL_MODES = {"secure": "tls-channel", "insecure": "plaintext-channel"}
_INPUTS = {"mouse": "usb-mouse", "tablet": "usb-tablet", "keyboard": "usb-kbd"}
_GRAB_TOGGLES = frozenset(
    "ctrl-ctrl alt-alt shift-shift meta-meta scrolllock ctrl-scrolllock".split()  # noqa: SIM905
)


def add_display_none(line: Line) -> None:
    """Say that there is no display where there is none, lest QEMU opens a window."""
    if not line.config.graphics:
        line.add("display", "none")


def add_inputs(line: Line) -> None:
    """Add mice, keyboards and tablets; those on PS/2 the machine has by itself."""
    for device in line.config.inputs:
        if device.bus not in ("ps2", "none"):
            add_input(line, device)


def add_input(line: Line, device: Input) -> None:
    """Add one input device."""
    if device.type == "evdev":
        _evdev(line, device)
    elif device.bus == "virtio":
        _virtio_input(line, device)
    elif device.bus == "usb" and device.type in _INPUTS:
        line.device(_INPUTS[device.type], id=alias(device.info), **place(line, device.info))
    else:
        raise unsupported(f"input device bus '{device.bus}' is not supported")


def add_graphics(line: Line) -> None:
    """Add the display servers."""
    kinds = [type(graphics).kind for graphics in line.config.graphics]
    if len(kinds) != len(set(kinds)):
        raise unsupported("only 1 graphics device of each type (sdl, vnc, spice, headless, dbus) is supported")
    for graphics in line.config.graphics:
        maker = _SERVERS.get(type(graphics).kind)
        if maker is None:
            raise unsupported(f"{type(graphics).kind} graphics are not supported with this QEMU")
        if isinstance(graphics, ServerGraphics) and len(graphics.listens) > 1:
            raise unsupported("QEMU does not support multiple listens for one graphics device.")
        maker(line, graphics)


def add_videos(line: Line) -> None:
    """Add the graphics cards."""
    for number, video in enumerate(line.config.videos):
        if video.model == "none":
            if len(line.config.videos) > 1:
                raise unsupported("a 'none' video type must be the only video device defined for the domain")
            return
        _video(line, video, first=number == 0)


def _vnc(line: Line, graphics: Graphics) -> None:
    vnc = cast(VncGraphics, graphics)
    listen = vnc.listens[0] if vnc.listens else None
    words: Properties = {"websocket": vnc.websocket if vnc.websocket != -1 else None}
    if isinstance(listen, SocketListen):
        path = listen.socket or f"{line.setup.private}/vnc.sock"
        listen.socket = vnc.socket = path
        where = f"vnc=unix:{escape(path)}"
    elif isinstance(listen, NoListen):
        where = "none"
    else:
        port = vnc.port or _FIRST_VNC_PORT
        if port < _FIRST_VNC_PORT:
            raise unsupported(f"vnc port must be in range [{_FIRST_VNC_PORT},65535]")
        where = f"{_bracketed(_address(listen, vnc.listen, line.setup.settings.vnc_listen))}:{port - _FIRST_VNC_PORT}"
    words["share"] = vnc.share_policy
    if vnc.passwd is not None:
        words["password"] = True
        line.command.commands += password("vnc", vnc.passwd, vnc.connected, vnc.passwd_valid_to)
    words["power-control"] = vnc.power_control
    given = line.setup.settings.vnc
    if given.wanted:
        words["tls-creds"] = line.tls("vnc", given, endpoint="server")
    audio = vnc.audio_id or (line.config.audios[0].id if line.config.audios else None)
    words["audiodev"] = None if audio is None else f"audio{audio}"
    line.list("vnc", where, **words)
    if vnc.keymap is not None:
        line.add("k", vnc.keymap)


def _spice(line: Line, graphics: Graphics) -> None:
    spice = cast(SpiceGraphics, graphics)
    listen = spice.listens[0] if spice.listens else None
    head: list[str | None] = []
    words: Properties = {}
    given = line.setup.settings.spice
    encrypted = bool(spice.tls_port and spice.tls_port > 0)
    if encrypted and not given.wanted and line.setup.live:
        raise unsupported("spice TLS port set in XML configuration, but TLS is disabled in qemu.conf")
    if isinstance(listen, SocketListen):
        path = listen.socket or f"{line.setup.private}/spice.sock"
        listen.socket = path
        head.append("unix")
        words["addr"] = path
    elif isinstance(listen, NoListen):
        words["port"] = 0
    else:
        plain = None if encrypted and not spice.port else spice.port or 0
        address = _address(listen, spice.listen, line.setup.settings.spice_listen)
        words |= {"port": plain, "tls-port": spice.tls_port if encrypted else None, "addr": address}
        words["x509-dir"] = given.directory if encrypted else None
    words["agent-mouse"] = {"server": False, "client": True}.get(spice.mouse or "")
    if spice.passwd is not None:
        line.command.commands += password("spice", spice.passwd, spice.connected, spice.passwd_valid_to)
    else:
        words["disable-ticketing"] = True
    default = _SPICE_CHANNEL_MODES.get(spice.default_mode or "")
    channels = [] if default is None else [f"{default}=default"]
    for channel in spice.channels:
        name = _SPICE_CHANNEL_MODES.get(channel.mode or "")
        if (name or default) == "tls-channel" and not encrypted:
            raise unsupported("spice secure channels set in XML configuration, but TLS connection is not available")
        if name is not None:
            channels.append(f"{name}={channel.name}")
    words |= {
        "image-compression": spice.image,
        "jpeg-wan-compression": spice.jpeg,
        "zlib-glz-wan-compression": spice.zlib,
        "playback-compression": spice.playback,
        "streaming-video": spice.streaming,
        "disable-copy-paste": True if spice.clipboard is False else None,
        "disable-agent-file-xfer": True if spice.filetransfer is False else None,
    }
    if spice.gl:
        words |= {"gl": True, "rendernode": spice.rendernode}
        line.uses(spice.rendernode, write=True)
    words["seamless-migration"] = True
    line.add("spice", ",".join([join(*head, **words), *channels]))
    if spice.keymap is not None:
        line.add("k", spice.keymap)


def _sdl(line: Line, graphics: Graphics) -> None:
    for variable, value in (
        ("XAUTHORITY", getattr(graphics, "xauth", None)),
        ("DISPLAY", getattr(graphics, "display", None)),
    ):
        if value is not None:
            line.command.environment[variable] = value
    if getattr(graphics, "fullscreen", None):
        line.add("full-screen")
    line.list("display", "sdl", gl=getattr(graphics, "gl", None))


def _dbus(line: Line, graphics: Graphics) -> None:
    dbus = cast(DbusGraphics, graphics)
    if "dbus" not in line.binary.choices["display"]:
        raise unsupported("dbus graphics are not supported with this QEMU")
    line.uses(dbus.rendernode, write=True)
    address = dbus.address
    if not dbus.p2p and address is None:
        # Where the guest's own bus is, if nobody says where another one is.
        address = f"unix:path={line.setup.private}/dbus.sock"
    audio = None if dbus.audio_id is None else f"audio{dbus.audio_id}"
    words = {"p2p": True if dbus.p2p else None, "addr": None if dbus.p2p else address}
    line.list("display", "dbus", **words, gl=dbus.gl, rendernode=dbus.rendernode, audiodev=audio)


def _egl(line: Line, graphics: Graphics) -> None:
    node = getattr(graphics, "rendernode", None)
    line.uses(node, write=True)
    line.list("display", "egl-headless", rendernode=node)


_SERVERS: dict[str, Callable[[Line, Graphics], None]] = {
    "vnc": _vnc,
    "spice": _spice,
    "sdl": _sdl,
    "egl-headless": _egl,
    "dbus": _dbus,
}


def _address(listen: object, otherwise: str | None, usual: str) -> str:
    address = listen.address if isinstance(listen, AddressListen | NetworkListen) else None
    return address or otherwise or usual


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def password(protocol: str, password: str, connected: str | None, valid_to: str | None) -> list[tuple[str, Properties]]:
    """The commands that set a display's password, and when it expires."""
    expires = "never"
    if valid_to is not None:
        from datetime import datetime  # hardly anybody needs it

        # libvirt's time is UTC; QEMU takes seconds since the epoch.
        expires = str(int(datetime.fromisoformat(f"{valid_to}+00:00").timestamp()))
    arguments: Properties = {"protocol": protocol, "password": password, "connected": connected}
    return [
        ("set_password", {name: value for name, value in arguments.items() if value is not None}),
        ("expire_password", {"protocol": protocol, "time": expires}),
    ]


def _video(line: Line, video: Video, *, first: bool) -> None:
    model = video.model or ""
    if model not in _CARDS:
        raise unsupported(f"domain configuration does not support video model '{model}'")
    if video.driver is not None and video.driver.name == "vhostuser":
        _served_video(line, video, first=first)
        return
    driver = _CARDS[model][0 if first else 1]
    if driver is None:
        raise unsupported(f"video type '{model}' is only valid as primary video device")
    acceleration = video.acceleration
    if model == "virtio" and acceleration is not None and acceleration.accel3d:
        driver = "virtio-vga-gl" if first else "virtio-gpu-gl-pci"
    line.need(driver, f"video model '{model}'")
    options = virtio.options(video.driver.virtio) if video.driver is not None and model == "virtio" else {}
    line.device(
        driver,
        **options,
        id=alias(video.info),
        **_video_memory(video, model),
        xres=video.width,
        yres=video.height,
        **place(line, video.info),
    )


def _served_video(line: Line, video: Video, *, first: bool) -> None:
    """A card that another process draws."""
    name, options = alias(video.info), virtio.options(video.driver.virtio if video.driver is not None else None)
    end = line.setup.ends.get(name)
    if end is None:
        device_program("gpu")  # nothing has been started: say so if nothing could be
    line.chardev("socket", f"chr-vu-{name}", {"fd": None if end is None else line.lend(end)})
    driver = "vhost-user-vga" if first else "vhost-user-gpu-pci"
    line.need(driver, f"video model '{video.model}'")
    where = place(line, video.info)
    line.device(driver, **options, id=name, max_outputs=video.heads, chardev=f"chr-vu-{name}", **where)


def _video_memory(video: Video, model: str) -> Properties:
    """The memory of a card; QEMU wants bytes here and MiB there, libvirt has KiB."""
    vgamem = (video.vgamem or video.vram or 0) // 1024 or None
    if model == "qxl":
        return {
            "max_outputs": video.heads,
            "ram_size": (video.ram or 65536) * 1024,
            "vram_size": (video.vram or 65536) * 1024,
            "vram64_size_mb": (video.vram64 or 0) // 1024,
            "vgamem_mb": (video.vgamem or 16384) // 1024,
        }
    if model == "virtio":
        return {"max_outputs": video.heads}
    if model in ("vga", "vmvga"):
        return {"vgamem_mb": vgamem}
    if model == "bochs":
        return {"vgamem": (video.vram or 16384) * 1024}
    return {}


def _evdev(line: Line, device: Input) -> None:
    source = device.source
    path = source.dev if source is not None else None
    if source is None or path is None:
        raise unsupported("Missing evdev source")
    if source.grab_toggle is not None and source.grab_toggle not in _GRAB_TOGGLES:
        raise unsupported(f"grab toggle '{source.grab_toggle}' is not supported")
    line.uses(path, write=True)
    line.object(
        "input-linux",
        id=alias(device.info),
        evdev=path,
        repeat=source.repeat,
        **{"grab_all": True if source.grab == "all" else None, "grab-toggle": source.grab_toggle},
    )


def _virtio_input(line: Line, device: Input) -> None:
    kinds = {"mouse": "virtio-mouse", "tablet": "virtio-tablet", "keyboard": "virtio-keyboard"}
    passthrough = device.type == "passthrough"
    name = "virtio-input-host" if passthrough else kinds[device.type or ""]
    if not passthrough and device.model not in (None, "virtio", "default"):
        raise unsupported(f"virtio (non-)transitional models are not supported for input type={device.type}")
    evdev = device.source.evdev if passthrough and device.source is not None else None
    line.uses(evdev, write=True)
    line.device(
        virtio.driver(line, name, device.model),
        **virtio.options(device.driver.virtio if device.driver is not None else None),
        id=alias(device.info),
        evdev=evdev,
        **place(line, device.info),
    )
