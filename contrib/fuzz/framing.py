#!/usr/bin/env python3
"""Any bytes, cut anyhow, become the same messages, then waiting or FramingError; payloads, values or DecodeError.

    contrib/fuzz/framing.py [CASES]

Runs for ever, or CASES cases. An input that breaks the rule is saved in the corpus beside this file, from which all
runs start (the tests run it too), and shown.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
sys.path.insert(0, str(HERE.parents[1]))

from virtd.protocol import codec  # noqa: E402
from virtd.protocol import messages as m  # noqa: E402
from virtd.protocol.framing import Framer, FramingError  # noqa: E402
from virtd.protocol.messages import Message  # noqa: E402
from virtd.protocol.programs import PROGRAMS  # noqa: E402
from virtd.protocol.streams import ClientStream, ServerStream  # noqa: E402

Outcome = tuple[list[Message], str]


def read(data: bytes, sizes: Sequence[int]) -> Outcome:
    """The messages in the data, fed in pieces of these sizes over and over, and how it ended."""
    framer, found, position, turn = Framer(), [], 0, 0
    try:
        while position < len(data):
            size = sizes[turn % len(sizes)]
            framer.receive(data[position : position + size])
            position, turn = position + size, turn + 1
            while (message := framer.next_message()) is not None:
                found.append(message)
            if len(framer._buffer) > position:
                raise AssertionError("the buffer holds more than was received")
        return found, f"waiting, {'cut off' if framer.pending else 'clean'}"
    except FramingError as error:
        return found, str(error)


def understand(message: Message) -> None:
    """Take the payload for whatever its header says it is."""
    program = PROGRAMS.get(message.program)
    procedure = program.procedures.get(message.procedure) if program else None
    if procedure is None:
        return
    try:
        if message.type in (m.STREAM, m.STREAM_HOLE):
            for stream in (ServerStream(message, sparse=True), ClientStream(message, sparse=True)):
                stream.receive(message)
        elif message.status == m.ERROR:
            error = m.decode_error(message.payload)
            m.decode_error(m.encode_error(error))
        elif message.type in (m.REPLY, m.REPLY_WITH_FDS):
            result = codec.decode_result(procedure, message.payload)
            again = codec.decode_result(procedure, codec.encode_result(procedure, result), exact=True)
            assert repr(again) == repr(result)
        else:
            args = codec.decode_args(procedure, message.payload)
            again = codec.decode_args(procedure, codec.encode_args(procedure, args), exact=True)
            assert repr(again) == repr(args)
    except (codec.DecodeError, FramingError):
        pass


def check(data: bytes, sizes: Sequence[int]) -> None:
    """Raise something other than FramingError and DecodeError if the rule is broken."""
    whole = read(data, [max(1, len(data))])
    assert read(data, sizes) == whole, f"pieces of {sizes} make a difference"
    assert read(data, [1]) == whole, "byte by byte makes a difference"
    position = 0
    for message in whole[0]:
        wire = message.to_bytes()
        assert data[position : position + len(wire)] == wire, "a message is not what came"
        position += len(wire)
        understand(message)


def mutate(data: bytes, dice: random.Random) -> bytes:
    """Bytes like these, but not quite."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5))):
        position = dice.randrange(len(changed) + 1)
        match dice.randrange(6):
            case 0:
                changed[position : position + 1] = dice.randbytes(1)
            case 1:
                start = position & ~3
                word = dice.choice((0, 1, 2, 3, 4, 5, 6, 7, 28, 32, 33, 2**16, 2**25, 2**31, 2**32 - 1))
                changed[start : start + 4] = word.to_bytes(4)
            case 2:
                del changed[position:]
            case 3:
                changed[position:position] = dice.randbytes(dice.randrange(8))
            case 4:
                del changed[position : position + dice.choice((1, 4, 8))]
            case _:
                other = dice.randrange(len(changed) + 1)
                changed[position:position] = changed[other : other + 28]
    if len(changed) >= 4 and dice.random() < 0.7:
        # Mostly let the length be right, or nothing behind it is ever looked at.
        changed[:4] = len(changed).to_bytes(4)
    return bytes(changed)


def seeds() -> list[bytes]:
    """The corpus."""
    return [path.read_bytes() for path in sorted(CORPUS.iterdir())]


def cases(dice: random.Random) -> Iterator[tuple[bytes, list[int]]]:
    """Inputs without end: first the corpus as it is, then variations."""
    corpus = seeds()
    for seed in corpus:
        yield seed, [7]
    while True:
        data = mutate(dice.choice(corpus), dice)
        if dice.random() < 0.2:
            data += mutate(dice.choice(corpus), dice)
        yield data, [dice.choice((1, 2, 3, 4, 5, 28, 32, 64)) for _ in range(dice.randrange(1, 5))]


def main(arguments: list[str]) -> int:
    """Run for ever, or so many cases; 1 if one of them broke the rule."""
    limit = int(arguments[0]) if arguments else None
    number = random.randrange(2**32)
    print(f"random seed {number}")
    for count, (data, sizes) in enumerate(cases(random.Random(number))):
        if count == limit:
            break
        if count % 10_000 == 0:
            print(f"{count} cases", flush=True)
        try:
            check(data, sizes)
        except Exception:
            path = CORPUS / f"found-{number}-{count}"
            path.write_bytes(data)
            print(f"broken by {path}, in pieces of {sizes}")
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
