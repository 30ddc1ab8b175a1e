"""rtnetlink(7): requests to the kernel about links, addresses, routes, and its answers.

Sans state: a `Netlink` is a socket. What the requests mean is for links.py to know; numbers are from <linux/netlink.h>
and <linux/rtnetlink.h>. About two hundred lines instead of a library whose import takes 140 ms and 25 MiB in the
process that starts a network.
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_RECEIVE = 1 << 18

Attributes = dict[int, bytes]


class Answer(NamedTuple):
    """One message of the kernel's: its fixed part and its attributes."""

    type: int
    fixed: bytes
    attributes: Attributes


class Netlink:
    """A socket to the kernel's routing part, in the network namespace of this process."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC,
            0,  # NETLINK_ROUTE
        )
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, kind: int, flags: int, fixed: bytes, attributes: bytes = b"") -> None:
        """Ask for a change.

        Args:
            kind: RTM_*.
            flags: NLM_F_CREATE and others that the kind takes.
            fixed: the struct that every message of the kind begins with.
            attributes: made by attribute() and nested().

        Raises:
            OSError: the kernel refused; as a system call would have said it.
        """
        self._send(kind, flags | NLM_F_ACK, fixed, attributes)
        for _ in self._answers(len(fixed)):
            pass

    def dump(self, kind: int, fixed: bytes) -> list[Answer]:
        """Ask for all objects of a kind.

        Args:
            kind: RTM_GET*.
            fixed: the struct that every message of the kind begins with, answers included.
        """
        self._send(kind, NLM_F_DUMP, fixed, b"")
        return list(self._answers(len(fixed)))

    def _send(self, kind: int, flags: int, fixed: bytes, attributes: bytes) -> None:
        self._sequence += 1
        body = fixed + attributes
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)

    def _answers(self, fixed: int) -> Iterator[Answer]:
        """The messages that belong to the last request; the kernel answers at once, there is nothing to wait for."""
        while True:
            data = self._socket.recv(_RECEIVE)
            position = 0
            while position + _HEADER.size <= len(data):
                length, kind, _, sequence, _ = _HEADER.unpack_from(data, position)
                body = data[position + _HEADER.size : position + length]
                position += (length + 3) & ~3
                if sequence != self._sequence:
                    continue  # of an earlier request that was given up
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return
                yield Answer(kind, body[:fixed], parse(body[(fixed + 3) & ~3 :]))


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute with its padding."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """An attribute that is a string of C's."""
    return attribute(kind, os.fsencode(value) + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute that is an unsigned number of 32 bits."""
    return attribute(kind, struct.pack("=I", value))


def byte(kind: int, value: int) -> bytes:
    """An attribute that is one byte."""
    return attribute(kind, bytes([value]))


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute that consists of attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(inner))


def parse(data: bytes) -> Attributes:
    """The attributes in a message; of several of one type the last."""
    found: Attributes = {}
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _NLA_TYPE_MASK] = data[position + _ATTRIBUTE.size : position + length]
        position += (length + 3) & ~3
    return found
