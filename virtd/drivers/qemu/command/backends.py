"""Character device back ends: what is behind a serial port, a channel, a smartcard, a random number generator.

Sockets that QEMU is to listen on, and files that it is to write, are opened here and handed over: QEMU's user needs
no right to make them, and a socket is there as soon as the guest is.
"""

import os
from collections.abc import Callable
from typing import cast

from virtd.conf.domain.chardev import (
    CharSource,
    DbusSource,
    FileSource,
    PathSource,
    QemuVdagentSource,
    SpicePortSource,
    TcpSource,
    UdpSource,
    UnixSource,
)
from virtd.conf.domain.display import SpiceGraphics
from virtd.drivers.qemu.command.line import Line, Properties, unsupported
from virtd.state import sockets

# What SPICE calls the channel of a smartcard, a redirected USB device, the agent.
_SPICE_NAMES = {"charsmartcard": "smartcard", "charredir": "usbredir"}
# Who may connect to a socket that stands in for a guest's port: the user it belongs to, and his group.
_SOCKET_MODE = 0o660


def add_backend(line: Line, source: CharSource, alias: str, target: str | None = None) -> str:
    """Add the back end of a device; returns its id.

    Args:
        line: the command line.
        source: what is behind the device.
        alias: the device's name.
        target: what the file of a socket without a path is to be called.
    """
    name = f"char{alias}"
    if isinstance(source, UnixSource):
        unix_path(line, source, target or alias)
    maker = _MAKERS.get(type(source).kind)
    if maker is None:
        raise unsupported(f"unsupported chardev '{type(source).kind}'")
    kind, properties = maker(line, source, name)
    if kind not in line.binary.choices["chardev"] and kind != "tty":
        raise unsupported(f"chardev '{kind}' is not supported in this QEMU binary")
    line.chardev(kind, name, {**properties, **_log(line, source)})
    return name


def unix_path(line: Line, source: UnixSource, name: str) -> str:
    """The path of a socket; one that has none gets it now, and keeps it as a run-time value.

    Args:
        line: the command line.
        source: the socket.
        name: what its file is to be called.
    """
    if source.path is None:
        source.mode = "bind"
        source.path = f"{line.setup.channels or line.setup.private}/{name}"
    return source.path


def _log(line: Line, source: CharSource) -> Properties:
    if source.log_file is None:
        return {}
    if not line.setup.live:
        return {"logfile": source.log_file, "logappend": source.log_append}
    truncate = os.O_TRUNC if source.log_append is False else 0
    path = line.fdset(source.log_file, os.O_WRONLY | os.O_APPEND | truncate)
    # It has been truncated where that was wanted; QEMU itself must not do it again after a reset.
    return {"logfile": path, "logappend": True}


def _plain(kind: str) -> Callable[[Line, CharSource, str], tuple[str, Properties]]:
    return lambda line, source, name: (kind, {})


def _file(line: Line, source: CharSource, name: str) -> tuple[str, Properties]:
    file = cast(FileSource, source)
    if file.path is None:
        raise unsupported("Missing source path attribute for char device")
    if not line.setup.live:
        return "file", {"path": file.path, "append": file.append}
    truncate = os.O_TRUNC if file.append is not True else 0
    path = line.fdset(file.path, os.O_WRONLY | os.O_APPEND | truncate)
    return "file", {"path": path, "append": True}


def _device(line: Line, source: CharSource, name: str) -> tuple[str, Properties]:
    device = cast(PathSource, source)
    line.uses(device.path, write=True)
    return "parallel" if name.startswith("charparallel") else "serial", {"path": device.path}


def _pipe(line: Line, source: CharSource, name: str) -> tuple[str, Properties]:
    pipe = cast(PathSource, source)
    for suffix in ("", ".in", ".out"):
        if pipe.path is not None and os.path.exists(f"{pipe.path}{suffix}"):
            line.uses(f"{pipe.path}{suffix}", write=True)
    return "pipe", {"path": pipe.path}


def _unix(line: Line, source: CharSource, name: str) -> tuple[str, Properties]:
    unix = cast(UnixSource, source)
    path = unix.path or ""
    if unix.mode != "bind":
        line.uses(path, write=True)
        return "socket", {"path": path, "reconnect": _reconnect(unix)}
    _refuse_reconnect(unix)
    if not line.setup.live:
        return "socket", {"path": path, "server": True, "wait": False}
    line.makes(path)
    listening = sockets.listen(path, mode=_SOCKET_MODE, backlog=1)
    line.uses(path, write=True)
    return "socket", {"fd": line.keep(listening.detach()), "server": True, "wait": False}


def _tcp(line: Line, source: CharSource, name: str) -> tuple[str, Properties]:
    tcp = cast(TcpSource, source)
    credentials = None
    given = line.setup.settings.chardev
    if tcp.tls or (tcp.tls is None and given.wanted):
        credentials = line.tls(name, given, endpoint="server" if tcp.mode == "bind" else "client")
    properties: Properties = {
        "tls-creds": credentials,
        "host": tcp.host,
        "port": tcp.service,
        "telnet": True if tcp.protocol == "telnet" else None,
    }
    if tcp.mode == "bind":
        _refuse_reconnect(tcp)
        return "socket", properties | {"server": True, "wait": False}
    return "socket", properties | {"reconnect": _reconnect(tcp)}


def _udp(line: Line, source: CharSource, name: str) -> tuple[str, Properties]:
    ends = {end.mode or "connect": end for end in cast(UdpSource, source).sources}
    far, near = ends.get("connect"), ends.get("bind")
    properties: Properties = {
        "host": (far.host if far else None) or "",
        "port": (far.service if far else None) or "",
    }
    if near is not None or "bind" in ends:
        properties |= {
            "localaddr": (near.host if near else None) or "",
            "localport": (near.service if near else None) or "0",
        }
    else:
        properties |= {"localaddr": "", "localport": "0"}
    return "udp", properties


def _spicevmc(line: Line, source: CharSource, name: str) -> tuple[str, Properties]:
    _need_spice(line, "spicevmc")
    stem = name.rstrip("0123456789")
    return "spicevmc", {"name": _SPICE_NAMES.get(stem, "vdagent")}


def _spiceport(line: Line, source: CharSource, name: str) -> tuple[str, Properties]:
    _need_spice(line, "spiceport")
    return "spiceport", {"name": cast(SpicePortSource, source).channel}


def _vdagent(line: Line, source: CharSource, name: str) -> tuple[str, Properties]:
    agent = cast(QemuVdagentSource, source)
    properties: Properties = {"name": "vdagent", "clipboard": agent.clipboard}
    if agent.mouse is not None:
        properties["mouse"] = agent.mouse == "client"
    return "qemu-vdagent", properties


def _dbus(line: Line, source: CharSource, name: str) -> tuple[str, Properties]:
    return "dbus", {"name": cast(DbusSource, source).channel}


_MAKERS: dict[str, Callable[[Line, CharSource, str], tuple[str, Properties]]] = {
    "null": _plain("null"),
    "vc": _plain("vc"),
    "pty": _plain("pty"),
    "stdio": _plain("stdio"),
    "file": _file,
    "dev": _device,
    "pipe": _pipe,
    "unix": _unix,
    "tcp": _tcp,
    "udp": _udp,
    "spicevmc": _spicevmc,
    "spiceport": _spiceport,
    "qemu-vdagent": _vdagent,
    "dbus": _dbus,
}


def _reconnect(source: UnixSource | TcpSource) -> int | None:
    if source.reconnect is None:
        return None
    return source.reconnect.timeout if source.reconnect.enabled else 0


def _refuse_reconnect(source: UnixSource | TcpSource) -> None:
    if source.reconnect is not None and source.reconnect.enabled:
        raise unsupported("chardev reconnect is possible only for connect mode")


def _need_spice(line: Line, kind: str) -> None:
    if not any(isinstance(graphics, SpiceGraphics) for graphics in line.config.graphics):
        raise unsupported(f"chardev '{kind}' not supported without spice graphics")
