"""Whom files belong to while guests use them: given to QEMU's user, and back when the last guest has ended.

For each file that was given there is a record, which outlives a boot: who owned it before, whom it was given to, and
the guests that use it. Who lends it to a guest writes the guest's undo file first, then the record, then changes the
owner; so whatever dies in between, whoever cleans up after the guest knows what to do. Guests that a record names and
that do not run any more (a host that went down took their undo files along) are left out by whoever looks next.
"""

import json
import os
from typing import Any

from virtd.drivers.qemu.run.confine import User, may_use
from virtd.errors import VirtError
from virtd.state import files, locks, undo
from virtd.state.process import log

_CALL = "a change of the owner of an image"


def lend(directory: str, path: str, user: User, guest: str, *, write: bool, always: bool = False) -> None:
    """Make QEMU's user own a file for as long as a guest uses it, unless he can use it anyway.

    Args:
        directory: where the records lie.
        path: a file or block device.
        user: who is to own it.
        guest: the guest's directory in the run-time directory.
        write: whether he writes to it, too.
        always: make him its owner even if he can use it anyway.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise files.os_error(error, f"cannot access '{path}'") from None
    try:
        found = os.fstat(descriptor)
        record_path = f"{directory}/{found.st_dev:x}-{found.st_ino:x}.json"
        if not os.path.exists(record_path) and _usable(found, user, write, always):
            return
        files.make_directory(directory)
        with locks.held(f"{directory}/lock", _CALL, what="lock of the images' owners"):
            _lend(record_path, path, descriptor, user, guest, write=write, always=always)
    finally:
        os.close(descriptor)


def _usable(found: os.stat_result, user: User, write: bool, always: bool) -> bool:
    if always:
        return (found.st_uid, found.st_gid) == (user.uid, user.gid)
    return found.st_uid == user.uid or may_use(found, user, os.R_OK | (os.W_OK if write else 0))


def _lend(record_path: str, path: str, descriptor: int, user: User, guest: str, *, write: bool, always: bool) -> None:
    found = os.fstat(descriptor)
    record = _read(record_path)
    if record is not None:
        record["guests"] = [one for one in record["guests"] if os.path.exists(f"{one}/status")]
        if [found.st_uid, found.st_gid] != record["given"]:
            record = None if not record["guests"] else record  # somebody else has given it away meanwhile
        elif not record["guests"]:
            # What nobody has given back: it is as it was before. Unless that cannot be: then it goes on.
            try:
                _give_back(record)
                found = os.fstat(descriptor)
                record = None
            except VirtError as error:
                log(str(error))
    if record is None:
        files.remove(record_path)
        if _usable(found, user, write, always):
            return
        # The file itself, whatever links lead to it: the link may point elsewhere when the guest ends.
        record = {"path": os.path.realpath(path), "inode": found.st_ino, "guests": []}
        record |= {"owner": [found.st_uid, found.st_gid], "given": [user.uid, user.gid]}
    # Even if it is in the record already, from a former life that has left it there.
    undo.note(f"{guest}/undo", "owner", record=record_path, guest=guest)
    if guest not in record["guests"]:
        record["guests"].append(guest)
    files.replace(record_path, json.dumps(record).encode(), durable=False)
    if found.st_uid != user.uid or always:
        try:
            os.chown(f"/proc/self/fd/{descriptor}", user.uid, user.gid)
        except OSError as error:
            what = f"unable to set user and group to '{user.uid}:{user.gid}' on '{path}'"
            raise files.os_error(error, what) from None


def sweep(directory: str) -> None:
    """Give back what guests had that do not run any more: after a boot nobody else does."""
    if not os.path.isdir(directory):
        return
    with locks.held(f"{directory}/lock", _CALL, what="lock of the images' owners"):
        for name in os.listdir(directory):
            if name.endswith(".json"):
                try:
                    _leave(f"{directory}/{name}", None)
                except VirtError as error:
                    log(str(error))  # it stays on record, and the next one who looks tries again


def _read(path: str) -> dict[str, Any] | None:
    content = files.read(path)
    if content is None:
        return None
    try:
        record = json.loads(content)
        return record if isinstance(record["guests"], list) and record["given"] and record["owner"] else None
    except (ValueError, KeyError, TypeError):
        return None


def _leave(path: str, guest: str | None) -> None:
    """Take a guest out of a record, and those that do not run; if nobody is left the file goes back."""
    record = _read(path)
    if record is None:
        return
    left = [one for one in record["guests"] if one != guest and os.path.exists(f"{one}/status")]
    if left:
        record["guests"] = left
        files.replace(path, json.dumps(record).encode(), durable=False)
        return
    _give_back(record)
    files.remove(path)


def _give_back(record: dict[str, Any]) -> None:
    """Make a file its owner's again.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR; it stays as it is.
    """
    try:
        descriptor = os.open(record["path"], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # Only the file that was meant, if nobody has given it away since.
            found = os.fstat(descriptor)
            if found.st_ino == record["inode"] and [found.st_uid, found.st_gid] == record["given"]:
                os.chown(f"/proc/self/fd/{descriptor}", *record["owner"])
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise files.os_error(error, f"cannot give '{record['path']}' back to its owner") from None


def _undo(table: dict[str, Any]) -> None:
    path = table["record"]
    with locks.held(f"{os.path.dirname(path)}/lock", _CALL, what="lock of the images' owners"):
        _leave(path, table["guest"])


undo.KINDS["owner"] = _undo
