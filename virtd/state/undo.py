"""What has to be put back when a guest or a network has ended: written down before it is done, undone by whoever cleans
up.

A line of JSON for each thing: its kind, and what that kind needs to be undone. All of them can be undone twice. The
file lies in the directory of what runs, which goes with it:

    BASE/UUID/undo     what is to be undone at the end of what runs there
    BASE.undo/UUID     what could not be undone then, because a device was busy or a disk broken, say
    BASE.undo/lock     held while that is tried again

What could not be undone is logged, and tried again whenever the same one starts, another one has ended, one is
undefined, or a server starts. It keeps nobody from any of that. What somebody has noted anew since is his, and left
alone.
"""

from __future__ import annotations

import errno
import json
import os

from virtd import constants as c
from virtd import deadlines
from virtd.errors import VirtError
from virtd.state import files, locks
from virtd.state.faults import point
from virtd.state.process import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Table = dict[str, Any]

# What is not there any more needs no undoing: so say the system, and libvirt's error codes.
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESRCH, errno.ENODEV, errno.ENXIO})
_GONE_CODES = frozenset(
    {
        c.VIR_ERR_NO_DOMAIN,
        c.VIR_ERR_NO_NETWORK,
        c.VIR_ERR_NO_NETWORK_PORT,
        c.VIR_ERR_NO_INTERFACE,
        c.VIR_ERR_NO_NODE_DEVICE,
        c.VIR_ERR_NO_STORAGE_POOL,
        c.VIR_ERR_NO_STORAGE_VOL,
        c.VIR_ERR_DEVICE_MISSING,
    }
)
# How long another try may take that is begun beside something else; whoever notes something waits for it.
_RETRY_SECONDS = 10.0
# In an entry that could not be undone: of whom it is, and why; which is logged when it is another reason than before.
_OF, _WHY = "of", "why"


def note(path: str, kind: str, /, **values: object) -> None:
    """Write down, before it is done, what will have to be undone.

    Args:
        path: the undo file of what runs.
        kind: a name in KINDS.
        values: what the kind needs; `claim`, if there is one, is the path of another entry, which whoever has the thing
            notes in any case.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, it cannot be written down.
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
    # Who tries again looks first for what has been noted. One who had looked before this was may still be undoing it.
    lock_path = f"{_aside(path)[0]}/lock"
    if locks.probe(lock_path)[0]:
        _locked(lock_path, "waiting for what is undone").release()


def undo(path: str, whose: str = "") -> None:
    """Undo everything that was written down, the last first; what cannot be undone does not keep the rest from it.

    Args:
        path: the undo file of what has ended.
        whose: what that is, for the log: "guest 'web1'".

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, the file cannot be read; or what is left cannot be kept, and stays where it is.
    """
    content = files.read(path)
    if content is None:
        return
    left = _undo(content.splitlines(), whose or os.path.basename(os.path.dirname(path)))
    if not left:
        files.remove(path)
        return
    try:
        files.replace(path, _joined(left), durable=False)
    except VirtError:
        pass  # a full disk: all of it is kept, and what has been undone will be so twice
    keep(path)


def undo_some(path: str, meant: Callable[[Table], bool], whose: str = "") -> None:
    """Undo what is written down of one part, which goes before the whole.

    The rest stays written down, and so does what cannot be undone now: it is tried again with the whole.

    Args:
        path: the undo file; the lock of what runs is held.
        meant: tells of an entry whether it belongs to the part.
        whose: as for undo().
    """
    lines = (files.read(path) or b"").splitlines()
    kept = _undo(lines, whose or os.path.basename(os.path.dirname(path)), meant)
    if kept != lines:
        files.replace(path, _joined(kept), durable=False)


def keep(path: str) -> None:
    """Put aside what is written down and has not been undone, as the directory that it lies in goes.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR; it is still there.
    """
    if not os.path.exists(path):
        return
    aside, name = _aside(path)
    lock = _locked(f"{aside}/lock", "keeping what cannot be undone")
    try:
        before = files.read(f"{aside}/{name}")
        if before is None:
            files.rename(path, f"{aside}/{name}", durable=False)  # which needs no room on a full disk
            return
        files.replace(f"{aside}/{name}", before + (files.read(path) or b""), durable=False)
        files.remove(path)
    finally:
        lock.release()


def retry(base: str, uuid: str | None = None) -> None:
    """Try again what could not be undone of those who have ended.

    Args:
        base: the directory in which those who run have theirs.
        uuid: whose; of all of them, if not given.
    """
    aside = f"{base}.undo"
    try:
        # With those whose file was being written when its writer died.
        names = {name.removeprefix(".").removesuffix(".new") for name in os.listdir(aside)} - {"lock"}
    except FileNotFoundError:
        return
    with deadlines.limit(_RETRY_SECONDS):
        for name in sorted(names if uuid is None else names & {uuid}):
            try:
                _retry(base, f"{aside}/{name}", name)
            except VirtError as error:
                log(f"what is left of '{name}' cannot be undone now: {error}")


def _retry(base: str, path: str, name: str) -> None:
    lock = _locked(f"{os.path.dirname(path)}/lock", "trying again what could not be undone")
    try:
        lines = (files.read(path) or b"").splitlines()
        entries, paths = _noted(base)

        def is_left(table: Table) -> bool:
            return _identity(table) not in entries and table.get("claim") not in paths

        left = [line for line in lines if (table := _parse(line)) is None or is_left(table)]
        kept = _undo(left, name)
        if not kept:
            files.forget(path)
            log(f"all that was left of '{name}' has been undone")
        elif kept != lines:
            files.replace(path, _joined(kept), durable=False)
    finally:
        lock.release()


def _noted(base: str) -> tuple[set[str], set[object]]:
    """What those who run have noted: the entries, and their paths."""
    entries, paths = set[str](), set[object]()
    for name in os.listdir(base):
        for line in (files.read(f"{base}/{name}/undo") or b"").splitlines() if "." not in name else ():
            table = _parse(line)
            if table is not None:
                entries.add(_identity(table))
                paths.add(table.get("path"))
    return entries, paths - {None}


def _undo(lines: list[bytes], whose: str, meant: Callable[[Table], bool] | None = None) -> list[bytes]:
    """Undo entries, the last first; returns those which stay written down: not meant, or not to be undone now."""
    kept = []
    for line in reversed(lines):
        table = _parse(line)
        if table is None:
            continue  # cut short by a crash, and so not acted upon either
        if meant is not None and not meant(table):
            kept.append(line)
            continue
        reason = _try(table)
        if reason is not None:
            table.setdefault(_OF, whose)
            if table.get(_WHY) != reason:
                what = ", ".join(f"{key} {value}" for key, value in _thing(table).items())
                log(f"what was made for {table[_OF]} cannot be undone now ({what}): {reason}")
            table[_WHY] = reason
            kept.append(json.dumps(table).encode())
    return kept[::-1]


def _try(table: Table) -> str | None:
    """Undo an entry; returns why that cannot be done now."""
    try:
        point("undo.undo", fails=True)
        KINDS[table["kind"]](table)
        point("undo.undone")
    except OSError as error:
        return None if error.errno in _GONE else error.strerror or str(error)
    except VirtError as error:
        gone = error.code in _GONE_CODES or (error.code == c.VIR_ERR_SYSTEM_ERROR and error.int1 in _GONE)
        return None if gone else error.message
    except (KeyError, TypeError, ValueError) as error:
        return f"it is of another version of virtd ({error!r})"
    return None


def _parse(line: bytes) -> Table | None:
    try:
        table = json.loads(line)
    except ValueError:
        return None
    return table if isinstance(table, dict) and "kind" in table else None


def _identity(table: Table) -> str:
    """What two entries for the same thing have in common."""
    return json.dumps(_thing(table), sort_keys=True)


def _thing(table: Table) -> Table:
    """An entry without what has been added to it."""
    return {key: value for key, value in table.items() if key not in (_OF, _WHY)}


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _aside(path: str) -> tuple[str, str]:
    """Where what cannot be undone is kept: the directory, and the name of the file."""
    directory, name = os.path.split(os.path.dirname(path))
    return f"{directory}.undo", name


def _locked(path: str, call: str) -> locks.Lock:
    return locks.acquire(path, call, what="lock of what is left to be undone")


def _group(table: Table) -> None:
    """Remove a control group, which is empty by now."""
    os.rmdir(table["path"])


def _file(table: Table) -> None:
    """Remove a file that was made for the guest."""
    os.unlink(table["path"])


# How each kind is undone. Drivers add kinds of their own when they are imported.
KINDS: dict[str, Callable[[Table], None]] = {"group": _group, "file": _file}
