"""Sound: where it goes to on the host, and the guest's sound cards."""

from virtd.conf.domain.display import Audio, AudioStream, Sound, SpiceGraphics
from virtd.drivers.qemu.command.address import place
from virtd.drivers.qemu.command.line import Line, Properties, alias, unsupported

_DRIVERS = {
    "none": "none",
    "alsa": "alsa",
    "coreaudio": "coreaudio",
    "jack": "jack",
    "oss": "oss",
    "pulseaudio": "pa",
    "sdl": "sdl",
    "spice": "spice",
    "file": "wav",
    "dbus": "dbus",
}
# What a direction says of itself: field of the model, property.
_STREAM = (
    ("mixing_engine", "mixing-engine"),
    ("fixed_settings", "fixed-settings"),
    ("voices", "voices"),
    ("buffer_length", "buffer-length"),
    ("frequency", "frequency"),
    ("channels", "channels"),
    ("format", "format"),
    ("dev", "dev"),
    ("buffer_count", "buffer-count"),
    ("try_poll", "try-poll"),
    ("name", "name"),
    ("stream_name", "stream-name"),
    ("latency", "latency"),
    ("server_name", "server-name"),
    ("client_name", "client-name"),
    ("connect_ports", "connect-ports"),
    ("exact_name", "exact-name"),
)
_CARDS = {
    "sb16": "sb16",
    "es1370": "ES1370",
    "ac97": "AC97",
    "usb": "usb-audio",
    "ich6": "intel-hda",
    "ich9": "ich9-intel-hda",
}
_HDA = ("ich6", "ich9")
_CODECS = {"duplex": "hda-duplex", "micro": "hda-micro", "output": "hda-output"}


def add_audio(line: Line) -> None:
    """Add where sound goes to."""
    for audio in line.config.audios:
        if audio.type == "spice" and not any(isinstance(one, SpiceGraphics) for one in line.config.graphics):
            raise unsupported("Spice audio is not supported without spice graphics")
        line.json(
            "audiodev",
            {
                "id": f"audio{audio.id}",
                "driver": _DRIVERS[audio.type or "none"],
                "timer-period": audio.timer_period,
                "path": audio.path,
                "server": audio.server_name,
                "try-mmap": audio.try_mmap,
                "exclusive": audio.exclusive,
                "dsp-policy": audio.dsp_policy,
                "in": _stream(audio.input),
                "out": _stream(audio.output),
            },
        )
        if audio.type == "sdl" and audio.driver is not None:
            line.command.environment["SDL_AUDIODRIVER"] = audio.driver


def add_sounds(line: Line) -> None:
    """Add the sound cards."""
    for sound in line.config.sounds:
        model = sound.model or ""
        if model == "pcspk":
            # The machine has it; it only has to be told where its sound goes.
            line.add("machine", f"pcspk-audiodev={_backend(line, sound)}")
            continue
        driver = _CARDS.get(model)
        if driver is None:
            raise unsupported(f"sound card model '{model}' is not supported by qemu")
        line.need(driver, f"sound card model '{model}'")
        name = alias(sound.info)
        if model not in _HDA:
            line.device(driver, id=name, audiodev=_backend(line, sound), **place(line, sound.info))
            continue
        line.device(driver, id=name, **place(line, sound.info))
        codecs = [codec.type or "duplex" for codec in sound.codecs] or ["duplex"]
        for number, codec in enumerate(codecs):
            line.device(
                _CODECS[codec],
                id=f"{name}-codec{number}",
                bus=f"{name}.0",
                cad=number,
                audiodev=_backend(line, sound),
            )


def _stream(stream: AudioStream | None) -> Properties | None:
    if stream is None:
        return None
    return {name: getattr(stream, field) for field, name in _STREAM}


def _backend(line: Line, sound: Sound) -> str:
    """The id of where a card's sound goes to: what it names, or the first."""
    audios: list[Audio] = line.config.audios
    wanted = sound.audio_id if sound.audio_id is not None else (audios[0].id if audios else None)
    if wanted is None or all(audio.id != wanted for audio in audios):
        raise unsupported(f"unable to find audio backend for sound device '{alias(sound.info)}'")
    return f"audio{wanted}"
