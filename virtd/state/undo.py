"""What has to be put back when a guest has ended: written down before it is done, undone by whoever cleans up.

A line of JSON for each thing: its kind, and what that kind needs to be undone. All of them can be undone twice.
"""

import json
import os
from collections.abc import Callable
from typing import Any

from virtd.errors import VirtError
from virtd.state import files
from virtd.state.faults import point


def note(path: str, kind: str, /, **values: object) -> None:
    """Write down, before it is done, what will have to be undone.

    Args:
        path: the guest's undo file.
        kind: a name in KINDS.
        values: what the kind needs.
    """
    assert kind in KINDS
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            try:
                files.write_all(descriptor, json.dumps({"kind": kind, **values}).encode() + b"\n")
            except OSError:
                os.ftruncate(descriptor, size)  # half a line would spoil the next one
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise files.os_error(error, f"cannot write '{path}'") from None
    point("undo.noted")


def undo(path: str) -> None:
    """Undo everything that was written down, the last first; what cannot be undone does not keep the rest from it."""
    content = files.read(path)
    if content is None:
        return
    for line in reversed(content.splitlines()):
        try:
            table = json.loads(line)
            KINDS[table["kind"]](table)
            point("undo.undone")
        except (ValueError, KeyError, OSError, VirtError):
            continue  # a line cut short by a crash was not acted upon either; what is gone needs no undoing
    files.remove(path)


def undo_some(path: str, meant: Callable[[dict[str, Any]], bool]) -> None:
    """Undo what is written down of one part, which goes before the whole; the rest stays written down.

    Args:
        path: the undo file; its lock is held.
        meant: tells of an entry whether it belongs to the part.
    """
    lines = (files.read(path) or b"").splitlines()
    kept = []
    for line in reversed(lines):
        try:
            table = json.loads(line)
            if not meant(table):
                kept.append(line)
                continue
            KINDS[table["kind"]](table)
        except (ValueError, KeyError, OSError, VirtError):
            continue  # as above
    if len(kept) < len(lines):
        files.replace(path, b"".join(line + b"\n" for line in reversed(kept)), durable=False)


def _group(table: dict[str, Any]) -> None:
    """Remove a control group, which is empty by now."""
    os.rmdir(table["path"])


def _file(table: dict[str, Any]) -> None:
    """Remove a file that was made for the guest."""
    os.unlink(table["path"])


# How each kind is undone. Drivers add kinds of their own when they are imported.
KINDS: dict[str, Callable[[dict[str, Any]], None]] = {"group": _group, "file": _file}
