"""Random messages for a moment (contrib/fuzz/messages sends a million), and that it would find something."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

import pytest

from tests.faults.messages import Messages, bombard
from tests.faults.world import BrokenError, World
from tests.helpers.processes import end
from virtd.protocol.framing import Framer, FramingError


@pytest.fixture
def world() -> Iterator[World]:
    if os.geteuid():
        pytest.skip("only root can keep what calls do to networks in a namespace")
    world = World(armed=False)
    yield world
    world.close()


def test_nobody_notices(world: World) -> None:
    outcome = bombard(world, 2000, seed=1)
    assert outcome.messages >= 2000
    assert outcome.answers > 1000


def test_a_process_that_dies_is_noticed(world: World) -> None:
    messages = Messages(1, world.root)
    damaged = messages.damaged

    def kill() -> bytes:
        end([process.pid for process in world.instance.processes() if process.title.startswith("virtd: accepting")])
        return damaged()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Messages, "damaged", lambda _self: kill())
        with pytest.raises((BrokenError, ConnectionError)):
            bombard(world, 2000, seed=1)
    world.instance.start()


def test_messages_are_what_they_are_meant_to_be(world: World) -> None:
    """All calls are whole messages; what is damaged often is, and often is not."""
    messages = Messages(3, world.root)
    for _, data in islice(messages.calls(), 500):
        framer = Framer()
        framer.receive(data)
        assert framer.next_message() is not None
    whole = sum(_is_whole(messages.damaged()) for _ in range(500))
    assert 100 < whole < 450


def _is_whole(data: bytes) -> bool:
    framer = Framer()
    try:
        framer.receive(data)
        return framer.next_message() is not None
    except FramingError:
        return False
