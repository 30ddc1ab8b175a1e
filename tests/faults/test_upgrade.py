"""A server that is replaced under load: no call fails, no connection is refused, no guest is lost."""

from __future__ import annotations

import pytest

from tests.faults.upgrade import upgrade
from tests.helpers.instance import Instance


def test_no_call_fails(virtd: Instance) -> None:
    outcome = upgrade(virtd, clients=10, guests=3, replacements=5)
    assert outcome.failures == []
    assert outcome.lost == []
    assert outcome.servers == 6
    assert outcome.calls >= 5 * 20
    assert outcome.connections > 10


def test_it_would_notice_a_failure(virtd: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    start = virtd.start

    def restart(*_: str) -> None:
        virtd.kill("virtd: ")
        start()

    monkeypatch.setattr(virtd, "start", restart)
    assert upgrade(virtd, clients=5, guests=0, replacements=1).failures
