"""What starter and supervisor say to each other."""

import json
import socket

import pytest

from virtd.drivers.qemu.monitor.client import MonitorClosed
from virtd.drivers.qemu.run import spawning
from virtd.errors import VirtError
from virtd.state.process import Process


def said(*messages: object, cut: bytes = b"") -> socket.socket:
    """A leash at whose other end all this was said at once, and then nothing any more."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages) + cut)
    return ours


def test_each_message_is_read_by_itself() -> None:
    """A QEMU that ends as soon as it was started is spoken of twice, perhaps at the same time."""
    with said({"process": {"pid": 5, "start": 6}}, {"exited": 1}) as leash:
        assert spawning.process(leash) == Process(5, 6)
        with pytest.raises(MonitorClosed):
            spawning.process(leash)


def test_what_could_not_be_done() -> None:
    with said({"error": "no", "code": 38}) as leash, pytest.raises(VirtError, match="no") as caught:
        spawning.process(leash)
    assert caught.value.code == 38


def test_a_supervisor_that_dies_in_the_middle_of_a_word() -> None:
    with said(cut=b'{"proc') as leash, pytest.raises(VirtError, match="the supervisor ended during the start"):
        spawning.process(leash)
