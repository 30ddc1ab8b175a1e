"""virt-ssh-helper: what libvirt's clients run at the far end of qemu+ssh://.

If the instance that the URI means has a server, bytes go to its socket and back, and this program knows nothing of
what they say. If it has none, the program serves the client itself, as virtd --inetd does: no daemon is needed.

What sshd gives as standard input and output may be pipes or a socket, but descriptors never travel by it. Standard
error goes to the user's terminal, or into the error message of the client: one line, and only if there is no
connection.
"""

import errno
import os
import select
import socket
import sys
from typing import NoReturn

from virtd import uri as uris
from virtd.drivers.remote.address import default_socket, instance
from virtd.server.commandline import StartError, Status, execute, say_version
from virtd.server.lean import click
from virtd.server.process import title
from virtd.state import paths, sockets

_CONNECTING = 30.0  # seconds for a server to take the connection
_CHUNK = 262144  # bytes read at one time
NAME = "virt-ssh-helper"


@click.command(NAME, context_settings={"help_option_names": ["-h", "--help"]}, epilog="See virt-ssh-helper(1).")
@click.option("-r", "--readonly", "read_only", is_flag=True, help="The client may only look.")
@click.option("--root", metavar="DIR", help="Everything, sockets included, lies below DIR [VIRTD_ROOT].")
@click.option(
    "-V", "--version", is_flag=True, expose_value=False, is_eager=True, callback=say_version, help="Say which."
)
@click.argument("uri")
def command(uri: str, read_only: bool, root: str | None) -> None:
    """Connect standard input and output to the server which owns URI; without a server, serve them."""
    parts = uris.split(uri)
    if "+" in parts.scheme or parts.authority or parts.scheme == "remote":
        raise StartError(Status.USAGE, f"{uri} is not a URI of this machine; ask for it from the client")
    where = instance(parts.path, paths.find(root))
    path = default_socket(where, read_only)
    try:
        sock = sockets.connect(path, timeout=_CONNECTING)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED):
            raise StartError(Status.LISTEN, f"Failed to connect socket to '{path}': {error.strerror}") from None
        if where.privileged and os.geteuid():
            text = f"Failed to connect socket to '{path}': {error.strerror}; without a server, {uri} is for root only"
            raise StartError(Status.LISTEN, text) from None
        _serve(where, read_only)
    else:
        _relay(sock, path)


def _serve(where: paths.Paths, read_only: bool) -> None:
    from virtd.server import auth
    from virtd.server.channel import PipeChannel
    from virtd.server.daemon import quiet
    from virtd.server.inetd import serve_client
    from virtd.server.main import configure

    config = configure(None, where, to_file=True)
    channel = PipeChannel(os.dup(0), os.dup(1))
    # Programs that drivers start inherit these: sshd waits for all who hold them.
    quiet(2)
    serve_client(channel, auth.own_peer("ssh", read_only), config, where)


class _Way:
    """One direction: from a descriptor to another, with no more than one reading in between."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.sink = sink
        self.data = memoryview(b"")
        self.ended = False

    def wanted(self) -> tuple[int, int]:
        """The descriptor to wait for, and for what."""
        return (self.sink, select.POLLOUT) if self.data else (self.source, select.POLLIN)

    def move(self) -> None:
        """Move what can be moved. Raises OSError: nobody takes it any more."""
        try:
            if not self.data:
                self.data = memoryview(_read(self.source))
                self.ended = not self.data
            if self.data:
                self.data = self.data[os.write(self.sink, self.data) :]
        except BlockingIOError:
            return


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except ConnectionResetError:
        return b""


def _relay(sock: socket.socket, path: str) -> None:
    """Move bytes both ways until the server has no more to say, or nobody takes what it says.

    When standard input ends, the server is told so, and may still finish what it has to say.
    """
    forward, back = _Way(0, sock.fileno()), _Way(sock.fileno(), 1)
    title(f"ssh helper, client of {path}")
    for descriptor in (0, 1, sock.fileno()):
        os.set_blocking(descriptor, False)
    while not back.ended:
        poll = select.poll()
        waiting: dict[int, int] = {1: 0}  # that nobody reads any more is always told
        for way in (back,) if forward.ended else (forward, back):
            descriptor, events = way.wanted()
            waiting[descriptor] = waiting.get(descriptor, 0) | events
        for descriptor, events in waiting.items():
            poll.register(descriptor, events)
        ready = dict(poll.poll())
        if ready.get(1, 0) & select.POLLERR:
            return
        if not forward.ended and ready.get(forward.wanted()[0]):
            try:
                forward.move()
            except OSError:
                forward.ended = True  # the server is gone: what it said last is still to be read
            if forward.ended:
                _shut(sock)
        if ready.get(back.wanted()[0]):
            try:
                back.move()
            except OSError:
                return


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point of the program."""
    execute(command, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
