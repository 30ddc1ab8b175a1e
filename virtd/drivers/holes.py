"""Streams with holes between a process that does a stream's work and the one that serves the client.

On a socket of type SOCK_SEQPACKET each packet is data (one byte 'd', then the bytes) or a hole (one byte 'h', then its
length, 8 bytes in network order). Nothing else tells the two kinds of streams apart than the socket's type.
"""

import os
import socket
import stat
import struct

DATA_MAX = 65536  # bytes in a packet: what every system's socket buffers take
PACKET_MAX = 1 + DATA_MAX
_DATA, _HOLE = b"d", b"h"
_LENGTH = struct.Struct("!cQ")


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a stream with holes."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def carried_by(descriptor: int) -> bool:
    """Whether a stream's descriptor is one for holes."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return sock.type == socket.SOCK_SEQPACKET


def write(descriptor: int, what: memoryview | int) -> int:
    """Write data, or (an int) a hole of so many bytes, as one packet.

    Returns:
        How much of it was written.

    Raises:
        OSError: as os.write().
    """
    if isinstance(what, int):
        os.write(descriptor, _LENGTH.pack(_HOLE, what))
        return what
    return os.writev(descriptor, [_DATA, what[:DATA_MAX]]) - 1


def parse(packet: bytes) -> bytes | int:
    """A packet's data, or the length of the hole that it is.

    Raises:
        ValueError: it is neither.
    """
    kind = packet[:1]
    if kind == _DATA:
        return packet[1:]
    if kind == _HOLE and len(packet) == _LENGTH.size:
        return int(_LENGTH.unpack(packet)[1])
    raise ValueError(kind)
