"""Recorded sessions of real clients with libvirtd 9.0.0: the very bytes of either side, and what they say.

    NAME.client, NAME.server    all that the client sent, and all that the server sent
    NAME.txt                    a line for each message, in the order they were seen

Clients were virsh, virt-admin and python3-libvirt as Debian 12 has them.
"""

from pathlib import Path
from typing import NamedTuple

from virtd.protocol import codec
from virtd.protocol import messages as m
from virtd.protocol.framing import Framer
from virtd.protocol.messages import Message
from virtd.protocol.programs import PROGRAMS
from virtd.protocol.tables.net import MESSAGE_MAX

FOLDER = Path(__file__).with_suffix("")
NAMES = sorted(path.stem for path in FOLDER.glob("*.txt"))

TYPES = ("CALL", "REPLY", "MESSAGE", "STREAM", "CALL_WITH_FDS", "REPLY_WITH_FDS", "STREAM_HOLE")
STATUSES = ("OK", "ERROR", "CONTINUE")


class Recording(NamedTuple):
    """A session: what each side sent, and the lines that tell of it, each beginning with C or S."""

    client: bytes
    server: bytes
    lines: list[str]

    def messages(self) -> list[tuple[str, Message]]:
        """All messages with the letter of their sender, in the order of the lines."""
        queues = {"C": _parse(self.client), "S": _parse(self.server)}
        found = [(line[0], queues[line[0]].pop(0)) for line in self.lines]
        assert not queues["C"]
        assert not queues["S"]
        return found


def load(name: str) -> Recording:
    """Read a recording."""
    path = FOLDER / name
    return Recording(
        path.with_suffix(".client").read_bytes(),
        path.with_suffix(".server").read_bytes(),
        path.with_suffix(".txt").read_text("utf-8", "surrogateescape").splitlines(),
    )


def _parse(data: bytes) -> list[Message]:
    """The messages in a stream of bytes; descriptors, which no file can hold, are numbered from 100."""
    framer = Framer(MESSAGE_MAX)
    found: list[Message] = []
    position, descriptor = 0, 100
    while position < len(data):
        length = int.from_bytes(data[position : position + 4])
        framer.receive(data[position : position + length])
        position += length
        while (message := framer.next_message()) is None:
            framer.receive(data[position : position + 1], [descriptor])
            position, descriptor = position + 1, descriptor + 1
        found.append(message)
    return found


def describe(sender: str, message: Message) -> str:
    """What a message says, in one line."""
    program = PROGRAMS[message.program]
    procedure = program.procedures[message.procedure]
    parts = [
        sender,
        TYPES[message.type],
        f"{program.name}.{procedure.name}",
        f"#{message.serial}",
        STATUSES[message.status],
    ]
    if message.type == m.STREAM_HOLE:
        parts.append(repr(tuple(codec.decode_type("stream_hole", message.payload, exact=True))))
    elif message.status == m.ERROR and message.payload:
        parts.append(repr(tuple(codec.decode_type("error", message.payload, exact=True))))
    elif message.type == m.STREAM:
        parts.append(f"{len(message.payload)} bytes")
    elif message.type in (m.REPLY, m.REPLY_WITH_FDS):
        parts.append(repr(codec.decode_result(procedure, message.payload, exact=True)))
    else:
        parts.append(repr(codec.decode_args(procedure, message.payload, exact=True)))
    if message.type in m.WITH_FDS:
        parts.append(f"and {len(message.fds)} descriptors")
    return " ".join(parts)
