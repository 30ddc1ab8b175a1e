"""What is made before a server forks: it leaves nothing, and processes that start guests need not make it again."""

import os
from pathlib import Path

import pytest

from virtd.conf.cpu import x86map
from virtd.drivers.qemu import warm
from virtd.drivers.qemu.host import probe
from virtd.state import paths


def test_nothing_is_written_or_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(probe, "_known", {})
    monkeypatch.setattr(probe, "_ask", never)
    monkeypatch.setattr(os, "fork", never)
    x86map.models.cache_clear()
    warm.warm(paths.below(str(tmp_path)))
    assert not list(tmp_path.iterdir())
    assert x86map.models.cache_info().currsize == 1
