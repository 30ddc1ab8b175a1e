"""Servers at the other end of a program: ssh, or any that carries the bytes by its standard input and output.

ssh is the real one, with the user's own configuration, agent and keys. What is run at the far end is virt-ssh-helper,
or netcat where that is not installed; the options of the URI that say how are those of libvirt's documentation.

What the program prints to standard error goes into a file in memory, bounded, which is read when the connection has
ended: there stands why. Passwords are asked for on the terminal, with which the program itself deals.
"""

import fcntl
import os
import select
import shlex
import signal
import socket

from virtd import constants as c
from virtd.drivers.remote.address import Address
from virtd.errors import VirtError

_WORDS = 16384  # bytes of standard error that are kept
_GRACE = 2.0  # seconds for the program to end when its connection has, and again after SIGTERM

HELPER = "virt-ssh-helper"


class Tunnel:
    """The program behind a socket.

    Args:
        name: what to call it.
        pid: its process.
        errors: the file of its standard error.
    """

    def __init__(self, name: str, pid: int, errors: int) -> None:
        self._name = name
        self._pid = pid
        self._owner = os.getpid()
        self._pidfd = os.pidfd_open(pid)
        self._errors = errors
        self._status: int | None = None

    def last_words(self) -> str:
        """Why the connection has ended, as the program says, or as its exit status does. Waits a moment for that."""
        ended = self._ended(_GRACE)
        text = os.pread(self._errors, _WORDS, 0).strip(b"\0\r\n ").decode(errors="replace").replace("\r\n", "\n")
        if text or not ended or self._status is None:
            return text
        code = os.waitstatus_to_exitcode(self._status)
        return f"{self._name} was killed by signal {-code}" if code < 0 else f"{self._name} ended with status {code}"

    def close(self) -> None:
        """End the program, whose socket is closed already: it ends by itself, unless something is wrong."""
        if self._owner == os.getpid():
            for number in (signal.SIGTERM, signal.SIGKILL):
                if self._ended(_GRACE):
                    break
                signal.pidfd_send_signal(self._pidfd, number)
            self._ended(_GRACE)
        os.close(self._pidfd)
        os.close(self._errors)

    def _ended(self, seconds: float) -> bool:
        """Whether the program ends in so many seconds; it is reaped then."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if self._status is None and not poll.poll(seconds * 1000):
            return False
        if self._status is None and self._owner == os.getpid():
            try:
                self._status = os.waitpid(self._pid, 0)[1]
            except ChildProcessError:
                self._status = 0  # somebody else has reaped it
        return True


def start(address: Address) -> tuple[socket.socket, Tunnel]:
    """Start the program that leads to an address.

    Returns:
        The socket which is its standard input and output, and the program.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR if it cannot be run, VIR_ERR_INVALID_ARG for a wrong option in the URI.
    """
    command = _ssh(address) if address.transport == "ssh" else _external(address)
    ours, theirs = socket.socketpair()
    errors = os.memfd_create("stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(errors, _WORDS)
    fcntl.fcntl(errors, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    try:
        pid = _spawn(command, theirs.fileno(), errors)
    except OSError as error:
        ours.close()
        os.close(errors)
        text = f"cannot execute binary {command[0]}: {error.strerror}"
        raise VirtError(c.VIR_ERR_SYSTEM_ERROR, text, domain=c.VIR_FROM_RPC) from None
    finally:
        theirs.close()
    return ours, Tunnel(os.path.basename(command[0]), pid, errors)


def _spawn(command: list[str], sock: int, errors: int) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, sock, 0), (os.POSIX_SPAWN_DUP2, sock, 1), (os.POSIX_SPAWN_DUP2, errors, 2)]
    # Ctrl-C and Ctrl-\ reach all processes of a terminal. They are meant for a call, not for the connection.
    ours = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGQUIT)]
    try:
        return os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsigdef=[signal.SIGPIPE])
    finally:
        for number, handler in ours:
            signal.signal(number, handler)


def _external(address: Address) -> list[str]:
    command = address.options.get("command")
    if not command:
        raise _invalid("remote_open: for 'ext' transport, command is required")
    return [command]


def _ssh(address: Address) -> list[str]:
    """The command line of ssh. What the URI does not say is left to the user's configuration, the port included."""
    command = [address.options.get("command") or "ssh"]
    if address.port:
        command += ["-p", str(address.port)]
    if address.user:
        command += ["-l", address.user]
    if keyfile := address.options.get("keyfile"):
        command += ["-i", keyfile]
    command += ["-T", "-e", "none"]
    if _switch(address, "no_tty"):
        command += ["-o", "BatchMode=yes"]
    if _switch(address, "no_verify"):
        command += ["-o", "StrictHostKeyChecking=no"]
    return [*command, "--", address.host, f"sh -c {shlex.quote(_far_end(address))}"]


def _far_end(address: Address) -> str:
    """What a shell at the far end is to do."""
    mode = address.options.get("mode") or "auto"
    if mode == "direct":
        text = "Cannot use direct socket mode for ssh transport"
        raise VirtError(c.VIR_ERR_OPERATION_UNSUPPORTED, text, domain=c.VIR_FROM_REMOTE)
    if mode not in ("auto", "legacy"):
        raise _invalid(f"Unknown remote mode '{mode}'")
    native = f"{HELPER} {'-r ' if address.read_only else ''}{shlex.quote(address.name)}"
    proxy = address.options.get("proxy") or "auto"
    if proxy == "native":
        return native
    if proxy == "netcat" or (proxy == "auto" and address.socket):
        return _netcat(address)
    if proxy != "auto":
        raise _invalid(f"Unknown proxy type '{proxy}'")
    return f"if command -v {HELPER} >/dev/null 2>&1; then {native}; else {_netcat(address)}; fi"


def _netcat(address: Address) -> str:
    """netcat, told to end with its standard input if it is one that has to be told."""
    program = shlex.quote(address.options.get("netcat") or "nc")
    name = f"libvirt-sock{'-ro' if address.read_only else ''}"
    path = shlex.quote(address.socket or f"/run/libvirt/{name}")
    if not address.socket and address.name.partition("?")[0].endswith(":///session"):
        path = '"${XDG_RUNTIME_DIR:-$HOME/.cache}/libvirt/libvirt-sock"'
    asks = f'if {program} -q 2>&1 | grep "requires an argument" >/dev/null 2>&1; then q=-q0; else q=; fi'
    return f"{asks}; {program} $q -U {path}"


def _switch(address: Address, name: str) -> bool:
    text = address.options.get(name, "0")
    try:
        return bool(int(text))
    except ValueError:
        raise _invalid(f"Failed to parse value of URI component {name}") from None


def _invalid(text: str) -> VirtError:
    return VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_REMOTE)
