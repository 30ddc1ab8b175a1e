"""Random messages to a running server: bytes, damaged calls, and calls of every procedure with any values.

Invariant: whatever a client sends, the accept loop and the workers of others do not notice: they answer as before,
their memory does not grow, nobody dies, and no log has a traceback. What would reach beyond the instance (sleep, memory
and devices of the host) is never called.
"""

from __future__ import annotations

import importlib.util
import itertools
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from tests.faults import operations
from tests.faults.world import BrokenError, World
from tests.server.harness import Client, private
from virtd.protocol import codec, notation
from virtd.protocol.framing import FramingError
from virtd.protocol.messages import make_call
from virtd.protocol.procedure import INSTANT
from virtd.protocol.programs import BY_NAME, METHODS

_FUZZ = Path(__file__).parents[2] / "contrib/fuzz/framing.py"
_NEVER = re.compile(r"node_(suspend|set|alloc)|node_device_(?!list|num|get|lookup)|(interface|nwfilter)_")
_GROWTH = 1 << 20  # bytes that a process may come to need which has seen everything once
_AT_ONCE = 40  # calls that are made before answers are read
_DAMAGED = 10  # messages that follow them, and need not be answered
_QUICK = 0.85  # the part of all calls that needs no process of its own: the others take a hundred times as long
_PATIENCE = 40.0  # seconds until a call must have been answered
_WARM = 0.2  # the part of all messages after which memory may not grow any more

_TEXTS = [
    "", "a", "vda", "web1", "net1", "pool1", "vol1", "serial0", "/", "/dev/null", "../../etc/passwd", "%s%n", "ü\udcff",
    "x" * 5000, "\n", "<", "qemu:///system", "10000000-0000-0000-0000-000000000001", '{"execute":"query-status"}',
    operations.NETWORK_XML, operations.POOL_XML, operations.SECRET_XML, operations.CARD_XML, operations.DISK_XML,
    operations.VOLUME_XML.format("vol1", "raw"), operations.guest_xml(),
]  # fmt: skip
_NUMBERS = [0, 1, 2, 3, 4, 7, 8, 16, 255, 4096, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, -1, -(2**31)]
_BITS = {"int": 32, "uint": 32, "hyper": 64, "uhyper": 64, "ushort": 16, "uchar": 8, "char": 8}
_OBJECTS = {
    "nonnull_domain": operations.GUEST,
    "nonnull_network": operations.NETWORK,
    "nonnull_storage_pool": operations.POOL,
    "nonnull_storage_vol": operations.VOLUME,
    "nonnull_secret": operations.SECRET,
}


class Bombardment(NamedTuple):
    """What came of it.

    Attributes:
        messages: how many were sent.
        answers: how many messages came back.
        connections: how many connections they took.
        grown: bytes by which the accept loop and the other's worker have grown since they were warm.
        longest: the longest that the other client waited for an answer, in seconds.
    """

    messages: int
    answers: int
    connections: int
    grown: dict[str, int]
    longest: float


class Messages:
    """Random messages without end.

    Args:
        seed: of the dice.
        root: what stands for ROOT in documents.
    """

    def __init__(self, seed: int, root: Path) -> None:
        self._dice = random.Random(seed)
        self._root = str(root)
        self._fuzz = _load()
        self._corpus = self._fuzz.seeds()
        self._procedures = [p for name, p in METHODS.items() if not _NEVER.match(name)]
        self._instant = [p for p in self._procedures if p.kind == INSTANT]

    def calls(self) -> Iterator[tuple[int, bytes]]:
        """Calls of every procedure with values of the right types, and the serial of each."""
        for serial in itertools.count(1):
            yield serial, self._call(serial)

    def damaged(self) -> bytes:
        """Bytes that are hardly a message."""
        roll = self._dice.random()
        if roll < 0.3:
            return self._noise()
        data = bytes(self._fuzz.mutate(self._dice.choice(self._corpus) if roll < 0.6 else self._call(0), self._dice))
        return self._noise() if _forbidden(data) else data

    def _noise(self) -> bytes:
        data = self._dice.randbytes(self._dice.randrange(4, 200))
        return (len(data) + 4).to_bytes(4) + data if self._dice.random() < 0.8 else data

    def _call(self, serial: int) -> bytes:
        while True:
            quick = self._dice.random() < _QUICK
            procedure = self._dice.choice(self._instant if quick else self._procedures)
            fields = codec.signature(procedure)[0]
            try:
                values = tuple(self._value(field.type, procedure.program) for field in fields)
                return make_call(procedure, serial, values).to_bytes()
            except (codec.EncodeError, FramingError):
                continue

    def _value(self, ref: notation.TypeRef, program: str) -> Any:
        if ref.base in _OBJECTS and not ref.array and self._dice.random() < 0.7:
            return _OBJECTS[ref.base]
        if ref.array and ref.base in ("opaque", "char"):
            size = ref.bound if ref.array == "[" else self._dice.randrange(min(ref.bound, 64) + 1)
            return self._dice.randbytes(size)
        if ref.array == "<":
            return [self._one(ref, program) for _ in range(self._dice.choice((0, 1, 1, 2, 5)))][: ref.bound]
        if ref.array == "?" and self._dice.random() < 0.3:
            return None
        return self._one(ref, program)

    def _one(self, ref: notation.TypeRef, program: str) -> Any:
        if ref.base in _BITS:
            bits = _BITS[ref.base]
            number = self._dice.choice(_NUMBERS) % (1 << bits)
            return number if ref.base.startswith("u") or number < 1 << (bits - 1) else number - (1 << bits)
        if ref.base == "double":
            return self._dice.choice((0.0, -1.5, float("inf"), float("nan")))
        if ref.base == "string":
            return self._text()
        definition, home = codec.definition(ref.base, program)
        if isinstance(definition, notation.TypeRef):
            return self._value(definition, home)
        if isinstance(definition, notation.Enum):
            return self._dice.choice(sorted(definition.values.values()))
        if isinstance(definition, notation.Union):
            case, field = self._dice.choice(sorted(definition.arms.items()))
            return case, self._value(field.type, home)
        return tuple(self._value(field.type, home) for field in definition)

    def _text(self) -> str:
        text = self._dice.choice(_TEXTS).replace("ROOT", self._root)
        if self._dice.random() < 0.3 and text:
            place = self._dice.randrange(len(text))
            text = text[:place] + self._dice.choice(("", "<", "'", "\x01", "9999999999999999999")) + text[place + 3 :]
        return text


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_framing", _FUZZ)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _forbidden(data: bytes) -> bool:
    """Whether damage has made a call of what is never to be called."""
    return (data[4:8], data[12:16]) in _FORBIDDEN


# Program and procedure, as they stand in a header.
_FORBIDDEN = {
    (BY_NAME[p.program].number.to_bytes(4), p.number.to_bytes(4)) for name, p in METHODS.items() if _NEVER.match(name)
}


def bombard(world: World, messages: int, seed: int, *, told: int = 0) -> Bombardment:
    """Send so many messages, while another client calls.

    Args:
        world: the server.
        messages: how many.
        seed: of what they are.
        told: how many there are between two lines of progress; 0 for none.

    Raises:
        BrokenError: the invariant does not hold.
    """
    source = Messages(seed, world.root)
    sent = answers = connections = 0
    longest = 0.0
    server = world.instance.pid
    assert server is not None
    with world.client() as other:
        mine = _worker(world)
        before: dict[str, int] = {}
        while sent < messages:
            connections += 1
            done, received = _one_connection(world, source)
            sent, answers = sent + done, answers + received
            begun = time.monotonic()
            if other.call("domain_lookup_by_name", "bystander").name != "bystander":
                raise BrokenError("the other client was told nonsense")
            longest = max(longest, time.monotonic() - begun)
            if not before and sent >= messages * _WARM:
                before = {"accept loop": private(server), "other worker": private(mine)}
            if told and connections % told == 0:
                print(f"{sent} messages, {answers} answers, {connections} connections", flush=True)
        if world.instance.pid != server:
            raise BrokenError("the accept loop has died")
        grown = {who: private(pid) - before[who] for who, pid in (("accept loop", server), ("other worker", mine))}
    world.check_log()
    world.check_bystanders()
    for who, growth in grown.items():
        if growth > _GROWTH:
            raise BrokenError(f"the {who} has grown by {growth} bytes")
    return Bombardment(sent, answers, connections, grown, longest)


def _worker(world: World) -> int:
    """The worker of the one client that there is."""
    found = [p.pid for p in world.instance.processes() if p.title.startswith("virtd: worker for")]
    if len(found) != 1:
        raise BrokenError(f"there are {len(found)} workers")
    return found[0]


def _one_connection(world: World, source: Messages) -> tuple[int, int]:
    """Make calls and read the answers, then send what is damaged; how much was sent, and how much came back."""
    calls = dict(itertools.islice(source.calls(), _AT_ONCE))
    damaged = [source.damaged() for _ in range(_DAMAGED)]
    received, data = 0, b"".join(calls.values())
    client = Client(str(world.instance.socket), timeout=_PATIENCE, uri=world.uri)
    try:
        client.raw(data)
        while calls and (message := client.receive()) is not None:
            received += 1
            calls.pop(message.serial, None)
        # One may be taken for the beginning of a long message, to which the others belong then.
        client.raw(b"".join(damaged))
    except (ConnectionError, FramingError):
        pass
    except TimeoutError:
        names = sorted({_called(data) for data in calls.values()})
        doing = [process.title for process in world.instance.processes() if "worker for" in process.title]
        raise BrokenError(f"there is no answer to one of {names}; {doing}") from None
    finally:
        client.close()
    return _AT_ONCE + _DAMAGED, received


def _called(data: bytes) -> str:
    header = data[4:8], data[12:16]
    return next(
        name for name, p in METHODS.items() if (BY_NAME[p.program].number.to_bytes(4), p.number.to_bytes(4)) == header
    )


def main(arguments: list[str]) -> int:
    """Run by hand: so many messages, of a seed."""
    messages = int(arguments[0]) if arguments else 1_000_000
    seed = int(arguments[1]) if len(arguments) > 1 else 1
    world = World(armed=False)
    begun = time.monotonic()
    try:
        outcome = bombard(world, messages, seed, told=100)
    finally:
        world.close()
    print(f"{outcome} in {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
