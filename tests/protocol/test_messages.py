"""Calls, replies, errors and events; and the two ends of a conversation, joined back to back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol import codec
from virtd.protocol import messages as m
from virtd.protocol.framing import Framer
from virtd.protocol.messages import Message
from virtd.protocol.programs import METHODS, PROGRAMS, QEMU, REMOTE
from virtd.protocol.records import Domain

GUEST = Domain("web1", bytes(16), 7)


def test_call() -> None:
    message = m.make_call(METHODS["domain_lookup_by_id"], 5, (7,))
    assert message == Message(REMOTE.number, 1, 22, m.CALL, 5, m.OK, b"\0\0\0\7")
    assert message.to_bytes() == bytes.fromhex(
        "00000020 20008086 00000001 00000016 00000000 00000005 00000000 00000007"
    )


def test_call_with_descriptors() -> None:
    message = m.make_call(METHODS["domain_create_with_files"], 5, (GUEST, 0), [8, 9])
    assert (message.type, message.fds) == (m.CALL_WITH_FDS, (8, 9))
    assert message.to_bytes()[28:32] == b"\0\0\0\2"
    none = m.make_call(METHODS["domain_create_with_files"], 5, (GUEST, 0))
    assert (none.type, none.to_bytes()[28:32]) == (m.CALL_WITH_FDS, b"\0\0\0\0")


def test_reply_repeats_the_call() -> None:
    call = m.make_call(METHODS["qemu_domain_monitor_command"], 77, (GUEST, "info", 0))
    reply = m.make_reply(call, METHODS["qemu_domain_monitor_command"], "done")
    assert reply[:6] == (QEMU.number, 1, 1, m.REPLY, 77, m.OK)
    error = m.make_error(call, VirtError(c.VIR_ERR_NO_DOMAIN, "web1"))
    assert error[:6] == (QEMU.number, 1, 1, m.REPLY, 77, m.ERROR)


def test_reply_with_descriptors() -> None:
    procedure = METHODS["domain_open_graphics_fd"]
    call = m.make_call(procedure, 3, (GUEST, 0, 0))
    reply = m.make_reply(call, procedure, None, [4])
    assert (call.type, reply.type, reply.fds) == (m.CALL, m.REPLY_WITH_FDS, (4,))
    assert m.make_error(call, VirtError(c.VIR_ERR_NO_DOMAIN)).type == m.REPLY


def test_event() -> None:
    event = m.make_event(METHODS["domain_event_callback_lifecycle"], (1, (GUEST, 2, 0)))
    assert event[:6] == (REMOTE.number, 1, 318, m.MESSAGE, 1, m.OK)


def test_error_of_a_stream_is_a_stream_packet() -> None:
    packet = Message(REMOTE.number, 1, 209, m.STREAM_HOLE, 4, m.CONTINUE)
    assert m.make_error(packet, VirtError(c.VIR_ERR_RPC, "x")).type == m.STREAM


def test_error_comes_back_as_it_was() -> None:
    error = VirtError(c.VIR_ERR_NO_DOMAIN, "no domain with matching name 'é'", domain=c.VIR_FROM_QEMU)
    back = m.decode_error(m.encode_error(error))
    assert vars(back) == vars(error)
    assert str(back) == str(error) == "Domain not found: no domain with matching name 'é'"


def test_error_as_the_peer_worded_it() -> None:
    """A newer server may know codes and texts that virtd does not."""
    wire = (999, 98, "something new", 1, GUEST, "%s", "new", "third", 5, 6, None)
    error = m.decode_error(codec.encode_type("error", wire))
    assert (error.code, error.domain, error.level, str(error)) == (999, 98, 1, "something new")
    assert (error.str1, error.str2, error.str3, error.int1, error.int2) == ("%s", "new", "third", 5, 6)


def test_error_without_message() -> None:
    wire = (c.VIR_ERR_NO_DOMAIN, 0, None, 2, None, None, None, None, 0, 0, None)
    assert str(m.decode_error(codec.encode_type("error", wire))) == "Domain not found"


@given(st.text(), st.integers(0, 120))
def test_every_error_can_be_sent(text: str, code: int) -> None:
    """An error may quote anything, such as what QEMU printed; the way out must not fail on it."""
    back = m.decode_error(m.encode_error(VirtError(code, text.encode("utf-8", "replace").decode())))
    assert back.code == code
    assert "\0" not in str(back)


def test_long_error_is_cut() -> None:
    back = m.decode_error(m.encode_error(VirtError(c.VIR_ERR_INTERNAL_ERROR, "é" * 10_000_000)))
    assert 1_000_000 < len(str(back)) < 2_000_000


def test_rpc_error() -> None:
    error = m.rpc_error("unknown procedure: 9999")
    assert (error.code, error.domain, str(error)) == (39, 7, "unknown procedure: 9999")
    assert (error.str1, error.str2, error.int1) == ("%s", "unknown procedure: 9999", -1)


class Pair:
    """A client and a server, joined without sockets: what one sends the other is handed at once."""

    def __init__(self) -> None:
        self.client, self.server = Framer(), Framer()
        self.serial = 0
        self.calls: dict[int, str] = {}

    def call(self, method: str, *args: object) -> Message:
        """The client sends a call; returns it as it arrives."""
        self.serial += 1
        self.calls[self.serial] = method
        self.server.receive(m.make_call(METHODS[method], self.serial, args).to_bytes())
        call = self.server.next_message()
        assert call is not None
        return call

    def arguments(self, call: Message) -> tuple[object, ...]:
        """The server looks a call up and takes its arguments out."""
        procedure = PROGRAMS[call.program].procedures[call.procedure]
        return codec.decode_args(procedure, call.payload, exact=True)

    def answer(self, reply: Message) -> object:
        """The server sends an answer; returns what the client makes of it."""
        self.client.receive(reply.to_bytes())
        got = self.client.next_message()
        assert got is not None
        method = self.calls.pop(got.serial)
        if got.status == m.ERROR:
            raise m.decode_error(got.payload)
        return codec.decode_result(METHODS[method], got.payload, exact=True)


def test_conversation() -> None:
    pair = Pair()
    call = pair.call("domain_lookup_by_name", "web1")
    assert pair.arguments(call) == ("web1",)
    assert pair.answer(m.make_reply(call, METHODS["domain_lookup_by_name"], GUEST)) == GUEST


def test_replies_may_overtake_each_other() -> None:
    pair = Pair()
    slow = pair.call("domain_create", GUEST)
    quick = pair.call("domain_get_state", GUEST, 0)
    assert pair.answer(m.make_reply(quick, METHODS["domain_get_state"], (5, 0))) == (5, 0)
    with pytest.raises(VirtError, match="Timed out during operation: monitor of web1"):
        pair.answer(m.make_error(slow, VirtError(c.VIR_ERR_OPERATION_TIMEOUT, "monitor of web1")))
    assert not pair.calls
