"""Becoming a daemon, telling who started it when it is ready, and the pid file.

The process that was started stays until the daemon's sockets accept, and ends with the daemon's own status if that
fails before. systemd is told too, if it asked (sd_notify(3)).
"""

import os
import resource
import socket
import sys
from typing import NoReturn

from virtd.state import files


class Launch:
    """How the process was started, and whom to tell that it is ready."""

    def __init__(self) -> None:
        self._writer = -1

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

    @property
    def detached(self) -> bool:
        """Whether there is somebody waiting for the daemon to be ready."""
        return self._writer >= 0

    def ready(self, status: str) -> None:
        """Say that clients are served now.

        Args:
            status: for systemctl status.
        """
        notify(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={status}")
        if self.detached:
            quiet(2)
            os.write(self._writer, b"R")
            os.close(self._writer)
            self._writer = -1


def _wait(pid: int, reader: int) -> NoReturn:
    if os.read(reader, 1):
        os._exit(0)
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


def notify(state: str) -> None:
    """Tell systemd, if it listens (NOTIFY_SOCKET)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
        except OSError:
            return


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
