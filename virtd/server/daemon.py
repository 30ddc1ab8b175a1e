"""Becoming a daemon, telling who started it when it is ready, and the pid file.

The process that was started stays until the daemon's sockets accept, and ends with the daemon's own status if that
fails before. systemd is told too, if it asked (sd_notify(3)).
"""

import contextlib
import os
import resource
import socket
import sys
from typing import NoReturn

from virtd.server.log import complain
from virtd.state import files


class Launch:
    """How the process was started, and whom to tell that it is ready."""

    def __init__(self) -> None:
        self._writer = -1
        # Nobody that the server starts has anything to tell there.
        self._notify = os.environ.pop("NOTIFY_SOCKET", "")

    def detach(self) -> None:
        """Go into the background. Only the daemon returns from this; the process that was started waits."""
        reader, self._writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(self._writer)
            _wait(pid, reader)
        os.close(reader)
        os.setsid()
        os.chdir("/")
        # Before anything is forked: whoever waits for the output of the command must not wait for the daemon.
        quiet(2)

    def ready(self, status: str) -> None:
        """Say that clients are served now.

        Args:
            status: for systemctl status.
        """
        notify(self._notify, f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")
        self._tell(b"R")

    def failed(self, text: str) -> bool:
        """Let the process that was started say why there is no daemon; False if there is no such process."""
        return self._tell(text.encode(errors="surrogateescape"))

    def _tell(self, data: bytes) -> bool:
        writer, self._writer = self._writer, -1
        if writer < 0:
            return False
        os.write(writer, data)
        os.close(writer)
        return True

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the daemon's children have to close: whoever waits for the daemon does not wait for them."""
        return (self._writer,) if self._writer >= 0 else ()


def _wait(pid: int, reader: int) -> NoReturn:
    answer = os.read(reader, 4096)
    if answer == b"R":
        os._exit(0)
    if answer:
        complain(answer.decode(errors="surrogateescape"))
    _pid, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code > 0 else 1)


def quiet(last: int) -> None:
    """Point the standard descriptors up to this one at /dev/null: what programs print there must reach nobody."""
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in range(last + 1):
        os.dup2(null, descriptor)
    os.close(null)


def notify(address: str, state: str) -> None:
    """Tell systemd something.

    Args:
        address: the value of NOTIFY_SOCKET.
        state: assignments, as sd_notify(3) lists them.
    """
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock, contextlib.suppress(OSError):
        sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)


def write_pid_file(path: str) -> None:
    """Write this process's id into a file, whole.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    files.replace(path, f"{os.getpid()}\n".encode(), durable=False, mode=0o644)


def raise_limits() -> None:
    """Allow as many descriptors as the system lets us have: a worker may hold one for each stream and call."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
