"""What the children of the accept loop tell it: one socket for all of them, one packet for each report.

The accept loop learns by it which waiting process took a client (and forks another one), which is waiting again, and
gets clients that the finder may not serve: the descriptor travels with the report. That a child has ended it learns
from the kernel.
"""

import os
import socket
import struct
from typing import NamedTuple

TOOK = b"T"  # serves a client now
KNOWN = b"K"  # knows who its client is
WAITING = b"W"  # its client has left, it waits for the next
PASSED = b"P"  # found a client that somebody else has to serve

_PACKET = struct.Struct("=ic?")
_BATCH = 64  # reports read at one time, so that signals and other sockets get their turn


class Report(NamedTuple):
    """One report.

    Attributes:
        pid: the child.
        kind: TOOK, KNOWN, WAITING or PASSED.
        read_only: whether the passed client came in by a read-only socket.
        client: the passed client.
    """

    pid: int
    kind: bytes
    read_only: bool
    client: socket.socket | None


class Reports:
    """Both ends: children keep the one that writes, the accept loop the one that reads."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reader.setblocking(False)

    def descriptors(self) -> set[int]:
        """What a process has to close that has nothing to report."""
        return {fd for fd in (self.reader.fileno(), self._writer.fileno()) if fd >= 0}

    def close(self) -> None:
        """Close both ends."""
        self.reader.close()
        self._writer.close()

    def send(self, kind: bytes) -> bool:
        """Report to the accept loop; False if it is gone."""
        try:
            self._writer.send(_PACKET.pack(os.getpid(), kind, False))
        except OSError:
            return False
        return True

    def pass_on(self, client: socket.socket, read_only: bool) -> bool:
        """Give a client to the accept loop; False if it is gone, and the client still ours."""
        packet = _PACKET.pack(os.getpid(), PASSED, read_only)
        try:
            socket.send_fds(self._writer, [packet], [client.fileno()])
        except OSError:
            return False
        return True

    def read(self) -> list[Report]:
        """The reports that have come, oldest first; a bounded number of them."""
        found = []
        for _ in range(_BATCH):
            try:
                data, descriptors, _flags, _address = socket.recv_fds(
                    self.reader, _PACKET.size, 1, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                break
            pid, kind, read_only = _PACKET.unpack(data)
            client = socket.socket(fileno=descriptors[0]) if descriptors else None
            found.append(Report(pid, kind, read_only, client))
        return found
