"""What goes to and from a guest's terminal and screen: consoles, screenshots, keys."""

import os
import select
import signal
import socket
import termios
import tty

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.domain import chardev
from virtd.drivers.base import Reply, Stream
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.lifecycle import Lifecycle
from virtd.drivers.qemu.screen import keys
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain
from virtd.state import files, locks, sockets
from virtd.state.locks import Lock

Terminal = chardev.Console | chardev.Serial | chardev.Parallel


class Console(Lifecycle):
    """Consoles, channels, screenshots and keys."""

    def domain_open_console(self, domain: Domain, device: str | None, flags: int) -> Reply:
        """virDomainOpenConsole: one client at a time; with FORCE the one before is cut off."""
        unsupported_flags(flags, c.VIR_DOMAIN_CONSOLE_SAFE | c.VIR_DOMAIN_CONSOLE_FORCE, "qemuDomainOpenConsole")
        entry, _ = self.running(domain)
        guest, config = self.guest(entry), self.live(entry)
        found = _find_terminal(config, device)
        if found is None:
            text = f"cannot find character device {'<null>' if device is None else device}"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
        name, terminal = found
        alias, source = terminal.info.alias or name, terminal.source
        if not isinstance(source, chardev.PtySource) or source.path is None:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"character device {name} is not using a PTY")
        return _session(guest, alias, "pty", source.path, force=bool(flags & c.VIR_DOMAIN_CONSOLE_FORCE))

    def domain_open_channel(self, domain: Domain, name: str | None, flags: int) -> Reply:
        """virDomainOpenChannel: a virtio channel that is a UNIX socket of the host."""
        unsupported_flags(flags, c.VIR_DOMAIN_CHANNEL_FORCE, "qemuDomainOpenChannel")
        entry, _ = self.running(domain)
        channels = self.live(entry).channels
        found = next((one for one in channels if name in (None, one.info.alias, one.name)), None)
        if found is None:
            text = f"cannot find channel {'<null>' if name is None else name}"
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text)
        alias, source = found.info.alias or "channel", found.source
        if not isinstance(source, chardev.UnixSource) or source.path is None:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"channel {name or alias} is not using a UNIX socket")
        return _session(self.guest(entry), alias, "unix", source.path, force=bool(flags & c.VIR_DOMAIN_CHANNEL_FORCE))

    def domain_screenshot(self, domain: Domain, screen: int, flags: int) -> Reply:
        """virDomainScreenshot: the picture goes over the stream, its MIME type is the result."""
        unsupported_flags(flags, 0, "qemuDomainScreenshot")
        with self._changing(domain, "virDomainScreenshot") as (entry, guest):
            videos = self.live(entry).videos
            if not videos:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, "no screens to take screenshot from")
            video, head = _find_screen([max(1, video.heads or 1) for video in videos], screen)
            path = f"{guest.private}/screenshot"
            arguments: dict[str, object] = {"filename": path, "format": "png"}
            if screen:
                arguments |= {"device": videos[video].info.alias, "head": head}
            try:
                with guest.monitor() as monitor:
                    monitor.execute("screendump", arguments)
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                raise files.os_error(error, f"unable to open '{path}'") from None
            finally:
                files.remove(path)
        return Reply("image/png", stream=Stream(descriptor))

    def domain_send_key(self, domain: Domain, codeset: int, holdtime: int, codes: list[int], flags: int) -> None:
        """virDomainSendKey: keys pressed together, for holdtime milliseconds (0: as long as QEMU likes)."""
        unsupported_flags(flags, 0, "qemuDomainSendKey")
        numbers = [keys.to_qnum(codeset, code) for code in codes]
        with self._changing(domain, "virDomainSendKey") as (_, guest), guest.monitor() as monitor:
            arguments: dict[str, object] = {"keys": [{"type": "number", "data": number} for number in numbers]}
            if holdtime:
                arguments["hold-time"] = holdtime
            monitor.execute("send-key", arguments)


def _find_terminal(config: Config, device: str | None) -> tuple[str, Terminal] | None:
    """The name and the device that a console's name means; None stands for the first there is.

    The console that only shows the first serial port has a name of its own, but is that port.
    """
    named: list[tuple[str, Terminal]] = []
    for number, console in enumerate(config.consoles):
        shown = console.target_type == "serial" and config.serials
        named.append((f"console{number}", config.serials[0] if shown else console))
    ports: list[Terminal] = [*config.serials, *config.parallels]
    named += [(one.info.alias or "", one) for one in ports]
    return next((found for found in named if device in (None, found[0])), None)


def _find_screen(heads: list[int], screen: int) -> tuple[int, int]:
    """The video device, and the head on it, that a screen's number means."""
    left = screen
    for index, count in enumerate(heads):
        if left < count:
            return index, left
        left -= count
    raise VirtError(c.VIR_ERR_OPERATION_INVALID, "no such screen ID")


def _session(guest: Guest, alias: str, kind: str, path: str, *, force: bool) -> Reply:
    """A console's data as a stream; the process that copies it holds the console's lock as long as it does."""
    lock = _claim(guest, alias, force=force)
    try:
        descriptor = _open_terminal(path) if kind == "pty" else sockets.connect(path, timeout=5).detach()
    except OSError as error:
        lock.release()
        raise files.os_error(error, f"unable to open console path '{path}'") from None
    ours, theirs = socket.socketpair()

    def copy() -> None:
        try:
            with ours:
                _copy(descriptor, ours.fileno())
        finally:
            os.close(descriptor)
            lock.release()

    return Reply(None, stream=Stream(theirs.detach(), copy))


def _claim(guest: Guest, alias: str, *, force: bool) -> Lock:
    """The lock of a console, taken from its holder by force if need be."""
    path, call = f"{guest.directory}/{alias}.console", "virDomainOpenConsole"
    lock = locks.attempt(path, call, make=False)
    if lock is not None:
        return lock
    held, holder = locks.probe(path)
    if held and (not force or holder is None):
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, "Active console session exists for this domain")
    try:
        if holder is not None:
            os.kill(holder.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    return locks.acquire(path, call, timeout=5, what="console", make=False)


def _open_terminal(path: str) -> int:
    """A pseudo terminal, set to pass every byte as it is."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
    except termios.error as error:
        os.close(descriptor)
        raise OSError(*error.args) from None
    return descriptor


def _copy(device: int, client: int) -> None:
    """Copy both ways until either side has ended. Nothing is read that the other side does not take."""
    os.set_blocking(device, False)
    os.set_blocking(client, False)
    waiting = {device: b"", client: b""}  # bytes to be written there
    other = {device: client, client: device}
    while True:
        poll = select.poll()
        for descriptor, bytes_left in waiting.items():
            events = (select.POLLOUT if bytes_left else 0) | (0 if waiting[other[descriptor]] else select.POLLIN)
            poll.register(descriptor, events)
        for descriptor, events in poll.poll():
            try:
                if events & select.POLLOUT:
                    written = os.write(descriptor, waiting[descriptor])
                    waiting[descriptor] = waiting[descriptor][written:]
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    if waiting[other[descriptor]]:
                        if events & select.POLLIN:
                            continue
                        return
                    data = os.read(descriptor, 65536)
                    if not data:
                        return
                    waiting[other[descriptor]] = data
            except BlockingIOError:
                continue
            except OSError:
                return  # EIO: the other end of the terminal was closed
