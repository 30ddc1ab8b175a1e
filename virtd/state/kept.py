"""What was made of files, kept for as long as the files are the same."""

from __future__ import annotations

from virtd.state import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")


def get(
    known: dict[str, tuple[files.Identity, T]], path: str, make: Callable[[bytes], T | None], *, most: int
) -> T | None:
    """What was made of a file; None if there is no such file (any more), or nothing was made of it.

    Args:
        known: what is kept, by path.
        path: the file.
        make: makes it, of the file's content. What it raises is not kept.
        most: of how many files things are kept; when there are more, all are made anew.
    """
    identity = files.identity(path)
    kept = known.get(path)
    if kept is not None and kept[0] == identity:
        return kept[1]
    content = files.read(path)
    found = None if content is None or identity is None else make(content)
    if found is None or identity is None:
        known.pop(path, None)
        return None
    if len(known) >= most:
        known.clear()
    known[path] = identity, found
    return found
