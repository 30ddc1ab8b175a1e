"""The fuzz target of contrib/fuzz, for a moment: its corpus, and some thousand variations of it."""

import importlib.util
import random
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from virtd.protocol.framing import Framer

TARGET = Path(__file__).parents[2] / "contrib" / "fuzz" / "framing.py"


@pytest.fixture(scope="module")
def target() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_framing", TARGET)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(TARGET.with_name("corpus").iterdir()), ids=lambda path: path.name)
def test_corpus(target: ModuleType, path: Path) -> None:
    for sizes in ([2], [5, 1], [28, 3]):
        target.check(path.read_bytes(), sizes)


def test_variations(target: ModuleType) -> None:
    for data, sizes in islice(target.cases(random.Random(1)), 5000):
        target.check(data, sizes)


def test_variations_reach_the_codecs(target: ModuleType) -> None:
    """Many inputs get past the framing, and many do not."""
    outcomes = [target.read(data, sizes) for data, sizes in islice(target.cases(random.Random(2)), 1000)]
    assert 300 < sum(bool(messages) for messages, _ in outcomes) < 950
    assert len({end for _, end in outcomes}) > 10


def test_it_would_find_something(target: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A framer that loses bytes between readings does not get away with it."""
    receive = Framer.receive

    def forgetful(self: Framer, data: bytes, fds: tuple[int, ...] = ()) -> None:
        receive(self, data.rstrip(b"\7") if len(data) < 3 else data, fds)

    def run() -> None:
        for data, sizes in islice(target.cases(random.Random(3)), 1000):
            target.check(data, sizes)

    monkeypatch.setattr(Framer, "receive", forgetful)
    with pytest.raises(AssertionError, match="make"):
        run()
