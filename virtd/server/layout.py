"""Where in memory things lie that every worker uses: close together, so that few pages have to be copied for it.

A process that was forked shares its memory with its parent page by page, until it writes. CPython writes wherever it
looks: each function that is called, and all it names, has a count of its users. What belongs to one client would be
strewn over the pages of all that was ever loaded.

This follows Objects/obmalloc.c of CPython 3.11. Where another version does otherwise, more pages are copied, no more.
"""

import gc
import sys
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType
from typing import Any

# Blocks of at most SMALL bytes come from Python's own allocator, each from a pool of blocks of its size, a multiple of
# STEP, behind a head.
SMALL, STEP, POOL, HEAD = 512, 16, 1 << 14, 48
MOST = 4096  # blocks of one size that are taken at the most

_taken: list[object] = []  # blocks, to keep them from being used


def fill_holes() -> None:
    """Take the free blocks that lie between others, of each small size up to the first whose neighbour is free, too.

    What a process makes after its fork would else be put there, each piece on another page. Measured: a tenth of an
    idle worker's private memory.
    """
    for size in range(STEP, SMALL + 1, STEP):
        before = 0
        for _ in range(MOST):
            block = _block(size)
            _taken.append(block)
            if id(block) == before + size and before % POOL == HEAD:
                break  # in a pool that nobody has used yet
            before = id(block)


def _block(size: int) -> object:
    """A new object of exactly so many bytes, with its allocator's rounding."""
    if size == STEP:
        return object()
    if size == 2 * STEP:
        return len(_taken) + POOL  # an integer beyond those which exist already
    return bytes(size - b"".__sizeof__())


def gather(play: Callable[[], None]) -> None:
    """Put the code of all functions that something calls into new memory, one behind the other.

    It was loaded between a hundred times as much that a client does not need. Measured: a fourteenth of an idle
    worker's private memory. What the interpreter has noted in the code by running it is lost.

    Args:
        play: calls the functions.
    """
    called: dict[int, CodeType] = {}

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            called[id(frame.f_code)] = frame.f_code

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        play()
    finally:
        sys.setprofile(before)
    gc.collect()
    fill_holes()
    moved: dict[int, CodeType] = {}
    for function in gc.get_objects():
        if type(function) is FunctionType and id(function.__code__) in called:
            function.__code__ = _moved(function.__code__, called, moved)


def _moved(code: CodeType, called: dict[int, CodeType], moved: dict[int, CodeType]) -> CodeType:
    """A copy of a function's code, and of that of the functions in it; always the same one."""

    def part(constant: Any) -> Any:
        return _moved(constant, called, moved) if id(constant) in called else constant

    if id(code) not in moved:
        moved[id(code)] = code.replace(co_consts=tuple(map(part, code.co_consts)))
    return moved[id(code)]
