"""What the guest shows and hears: graphics cards, display servers, sound, audio, input devices."""

from typing import Any

from virtd import constants as c
from virtd.conf.domain.check.rules import INTERNAL, XML, Context, Rule, Rules
from virtd.conf.domain.display import (
    DbusGraphics,
    Graphics,
    SpiceGraphics,
    Video,
    VncGraphics,
)
from virtd.conf.domain.errors import conf_error, qemu_error, xml_error
from virtd.errors import VirtError

MAX_VRAM = 4194303
"""The most KiB whose bytes are a 32 bit number."""
MIN_VRAM = 1024
MAX_PASSWORD = 8

VIDEO_DEVICES: dict[str, str | None] = {
    "vga": "VGA",
    "cirrus": "cirrus-vga",
    "vmvga": "vmware-svga",
    "qxl": "qxl",
    "virtio": "virtio-gpu-pci",
    "bochs": "bochs-display",
    "ramfb": "ramfb",
    "none": None,
}
SOUNDS = ("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb")


def known_video(x: Context, model: str | None) -> bool:
    """Whether the emulator has a graphics card."""
    device = VIDEO_DEVICES.get(model or "", "")
    return device is None or (device != "" and x.emulator.has(device))


def check_memory(x: Context, video: Video) -> None:
    """How much memory a graphics card can have."""
    if video.model == "qxl":
        for name in ("vram", "ram"):
            if (getattr(video, name) or 0) > MAX_VRAM:
                text = f"value for '{name}' must be less than '{MAX_VRAM}'"
                raise VirtError(c.VIR_ERR_OVERFLOW, text, domain=c.VIR_FROM_QEMU)
        if video.vgamem is not None:
            if video.vgamem < MIN_VRAM:
                raise qemu_error("value for 'vgamem' must be at least 1 MiB (1024 KiB)")
            if video.vgamem & (video.vgamem - 1):
                raise qemu_error("value for 'vgamem' must be power of two")


VIDEO: Rules = (
    Rule(
        lambda x, d: len(x.domain.videos) > 1 and any(one.model == "none" for one in x.domain.videos),
        "a 'none' video type must be the only video device defined for the domain",
    ),
    Rule(
        lambda x, d: d.backend == "vhostuser" and d.model != "virtio",
        "'vhostuser' driver is only supported with 'virtio' device",
    ),
    Rule(
        lambda x, d: d.acceleration is not None and d.acceleration.rendernode is not None and d.backend != "vhostuser",
        "unsupported rendernode accel attribute without 'vhostuser'",
    ),
    Rule(
        lambda x, d: d.width is not None and (not d.width or not d.height),
        "video resolution values must be greater than 0",
    ),
    Rule(lambda x, d: d.model != "qxl" and d.ram, "ram attribute only supported for video type qxl"),
    Rule(lambda x, d: d.model != "qxl" and d.vram64, "vram64 attribute only supported for video type qxl"),
    Rule(lambda x, d: d.model != "qxl" and d.vgamem, "vgamem attribute only supported for video type qxl"),
    Rule(
        lambda x, d: d.model not in ("virtio",) and d.driver is not None and d.driver.virtio.given(),
        "{v} driver option is only supported for virtio devices",
    ),
    Rule(
        lambda x, d: d.model == "ramfb" and d.info.address is not None,
        "address not supported for video type ramfb",
    ),
)
QEMU_VIDEO: Rules = (
    Rule(lambda x, d: not known_video(x, d.model), "domain configuration does not support video model '{d.model}'"),
    Rule(
        lambda x, d: not d.primary and d.model not in ("qxl", "virtio", "none"),
        "video type '{d.model}' is only valid as primary video device",
    ),
    Rule(
        lambda x, d: d.heads not in (None, 1) and d.model not in ("qxl", "virtio", "none"),
        "video type '{d.model}' doesn't support multiple 'heads'",
    ),
    Rule(
        lambda x, d: d.acceleration is not None and d.acceleration.accel2d,
        "qemu does not support the accel2d setting",
    ),
    check_memory,
    Rule(
        lambda x, d: d.model in ("vga", "vmvga") and d.vram and d.vram < MIN_VRAM,
        "value for 'vram' must be at least 1 MiB (1024 KiB)",
    ),
    Rule(
        lambda x, d: d.width and d.model not in ("vga", "qxl", "virtio", "bochs", "none"),
        "model resolution is not supported",
        XML,
    ),
    Rule(
        lambda x, d: d.acceleration is not None and d.acceleration.accel3d and d.model != "virtio",
        "3d acceleration is supported only with 'virtio' video device",
    ),
)

# Which listens each display server can have.
LISTENS = {"vnc": ("address", "network", "socket", "none"), "spice": ("address", "network", "socket", "none")}


def check_listens(x: Context, graphics: Graphics) -> None:
    """A display server listens where it can."""
    if isinstance(graphics, DbusGraphics) and graphics.p2p and graphics.address is not None:
        raise xml_error("D-Bus p2p with an address is not supported")


def check_password(x: Context, graphics: Any) -> None:
    """VNC's own way of passwords is short."""
    if isinstance(graphics, VncGraphics) and graphics.passwd is not None and len(graphics.passwd) > MAX_PASSWORD:
        raise qemu_error(f"VNC password is {len(graphics.passwd)} characters long, only {MAX_PASSWORD} permitted")


def check_audio_id(x: Context, device: Any) -> None:
    """Who names a back end of sound names one that exists."""
    number = getattr(device, "audio_id", None)
    if number is not None and number not in [audio.id for audio in x.domain.audios]:
        raise xml_error(f"no audio device with ID {number}")


def check_audio_of_vnc(x: Context, graphics: Graphics) -> None:
    """The same, for the display that sends sound."""
    if isinstance(graphics, VncGraphics):
        check_audio_id(x, graphics)


def opengl(graphics: Graphics) -> bool:
    """Whether a display draws with OpenGL."""
    return bool(graphics.kind == "egl-headless" or getattr(graphics, "gl", None))


def check_gl(x: Context, graphics: Graphics) -> None:
    """QEMU draws with OpenGL on displays of one kind; what draws without a window needs a server to show it."""
    displays = x.domain.graphics
    kinds = {one.kind for one in displays if opengl(one)}
    served = any(one.kind in ("vnc", "spice") for one in displays)
    if "egl-headless" in kinds and len({one.kind for one in displays}) > 1 and not served:
        raise qemu_error("graphics type 'egl-headless' is only supported with one of: 'vnc', 'spice' graphics types")
    if {"egl-headless", "spice"} <= kinds:
        raise qemu_error("multiple OpenGL displays are not supported by QEMU")


GRAPHICS: Rules = (check_audio_of_vnc, check_listens)
QEMU_GRAPHICS: Rules = (
    Rule(lambda x, d: d.kind in ("rdp", "desktop"), "{d.kind} graphics are not supported with this QEMU"),
    check_gl,
    Rule(
        lambda x, d: isinstance(d, SpiceGraphics) and (d.tls_port or 0) > 0 and "spice_tls" not in x.host.settings,
        "spice TLS port set in XML configuration, but TLS is disabled in qemu.conf",
    ),
    check_password,
)

SOUND: Rules = (check_audio_id,)
QEMU_SOUND: Rules = (
    Rule(lambda x, d: d.model not in SOUNDS, "sound card model '{d.model}' is not supported by qemu", INTERNAL),
)


def check_stream(x: Context, audio: Any) -> None:
    """What is fixed is mixed, and only what is fixed is set."""
    for stream in (audio.input, audio.output):
        if stream is None:
            continue
        if stream.fixed_settings and stream.mixing_engine is False:
            raise conf_error("fixed audio settings requires mixing engine")
        if not stream.fixed_settings and stream.has_settings:
            raise conf_error("audio settings specified without fixed settings flag")


AUDIO: Rules = (
    check_stream,
    Rule(
        lambda x, d: sum(one.id == d.id for one in x.domain.audios) > 1,
        "audio ID {d.id} is used multiple times",
        XML,
    ),
)
QEMU_AUDIO: Rules = (
    Rule(lambda x, d: d.type == "spice" and not x.spice, "Spice audio is not supported without spice graphics"),
)

INPUT: Rules = (
    Rule(
        lambda x, d: d.bus == "ps2" and d.type not in ("mouse", "keyboard"),
        "ps2 bus does not support {d.type} input device",
        INTERNAL,
    ),
    Rule(lambda x, d: d.bus == "xen", "unsupported input bus {d.bus}", INTERNAL),
    Rule(
        lambda x, d: d.type == "passthrough" and d.bus != "virtio",
        "only bus 'virtio' is supported for 'passthrough' input devices",
    ),
    Rule(lambda x, d: d.type == "evdev" and d.bus != "none", "input evdev doesn't support bus element"),
    Rule(
        lambda x, d: d.model not in (None, "default") and d.bus != "virtio",
        "only bus 'virtio' is supported for input model '{d.model}'",
    ),
)
QEMU_INPUT: Rules = (
    Rule(
        lambda x, d: d.model is not None and d.model.endswith("transitional") and d.type != "evdev",
        "virtio (non-)transitional models are not supported for input type={d.type}",
    ),
)
