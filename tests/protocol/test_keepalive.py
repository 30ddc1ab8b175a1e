"""The counting of pings, on a clock made of numbers."""

import pytest

from virtd.protocol.keepalive import KeepAlive, PeerLostError, answer, is_keepalive
from virtd.protocol.messages import CALL, PING, PONG, Message
from virtd.protocol.programs import REMOTE


def test_ping_is_answered() -> None:
    assert answer(PING) == PONG
    assert answer(PONG) is None
    assert answer(Message(REMOTE.number, 1, 1, CALL, 1)) is None
    assert answer(PING._replace(procedure=9)) is None


def test_what_is_of_the_program() -> None:
    assert is_keepalive(PING)
    assert is_keepalive(PONG)
    assert not is_keepalive(PING._replace(type=CALL))
    assert not is_keepalive(Message(REMOTE.number, 1, 1, CALL, 1))


def test_on_the_wire() -> None:
    assert PING.to_bytes() == bytes.fromhex("0000001c 6b656570 00000001 00000001 00000002 00000000 00000000")
    assert PONG.to_bytes() == bytes.fromhex("0000001c 6b656570 00000001 00000002 00000002 00000000 00000000")


def test_silent_peer_is_given_up() -> None:
    keepalive = KeepAlive(5, 2, 100)
    keepalive.start(100)
    assert keepalive.due() == 105
    assert keepalive.tick(104.9) is None
    assert keepalive.tick(105) == PING
    assert keepalive.due() == 110
    assert keepalive.tick(105.1) is None
    assert keepalive.tick(110) == PING
    assert keepalive.tick(114) is None
    with pytest.raises(PeerLostError, match="after 2 keepalive messages in 15 seconds"):
        keepalive.tick(115)


def test_any_message_is_a_sign_of_life() -> None:
    keepalive = KeepAlive(5, 1, 0)
    keepalive.start(0)
    for now in range(5, 100, 6):
        assert keepalive.tick(now) == PING
        keepalive.heard(now + 1)
        assert keepalive.due() == now + 6
    assert keepalive.tick(now + 6) == PING
    with pytest.raises(PeerLostError):
        keepalive.tick(now + 11)


def test_late_tick_sends_one_ping() -> None:
    """A process that was stopped for a while does not take its own absence for the peer's."""
    keepalive = KeepAlive(5, 3, 0)
    keepalive.start(0)
    assert keepalive.tick(1000) == PING
    assert keepalive.due() == 1005


def test_not_before_it_is_started() -> None:
    keepalive = KeepAlive(5, 1, 0)
    assert keepalive.due() is None
    assert keepalive.tick(1000) is None


@pytest.mark.parametrize("interval", [0, -1])
def test_switched_off(interval: int) -> None:
    keepalive = KeepAlive(interval, 5, 0)
    keepalive.start(0)
    assert keepalive.due() is None
    assert keepalive.tick(1000) is None


def test_no_ping_may_go_unanswered() -> None:
    keepalive = KeepAlive(5, 0, 0)
    keepalive.start(0)
    with pytest.raises(PeerLostError):
        keepalive.tick(5)
