"""What a person can do about an error, where that is known. Only shown on a terminal, below the error.

Each function looks at one kind of error and returns a sentence, or nothing.
"""

import grp
import os
import pwd

from virtd import constants as c
from virtd.shell.failure import Failure
from virtd.shell.session import Session


def find(session: Session, failure: Failure) -> str | None:
    """A hint for whoever sees an error; None if there is none."""
    text = "\n".join(failure.messages)
    for look in (_command, _socket, _denied, _locked, _absent, _not_running, _network):
        hint = look(session, failure, text)
        if hint:
            return hint
    return None


def _quoted(text: str, before: str = "'") -> str | None:
    """What stands in quotes in a message."""
    _, sign, rest = text.partition(before)
    return rest.partition("'")[0] if sign else None


def _command(session: Session, failure: Failure, text: str) -> str | None:
    prefix = "unknown command: '"
    if not text.startswith(prefix):
        return None
    from difflib import get_close_matches

    from virtd.shell import index

    near = get_close_matches(_quoted(text) or "", index.names(), 3, 0.6)
    return f"did you mean {' or '.join(near)}?" if near else "`virtsh help` shows all commands"


def _socket(session: Session, failure: Failure, text: str) -> str | None:
    if "Failed to connect socket to '" not in text:
        return None
    path = _quoted(text, "socket to '") or ""
    if text.endswith(("No such file or directory", "Connection refused")):
        own = "" if os.geteuid() == 0 else "; your own guests need no server: qemu:///session"
        return f"no server listens at {path}: start one with `virtd --daemon`{own}"
    if text.endswith("Permission denied"):
        return _let_in(path)
    return None


def _let_in(path: str) -> str | None:
    """How a user is let in to a socket or file."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    try:
        found = os.stat(path)
        group = grp.getgrgid(found.st_gid).gr_name
    except (OSError, KeyError):
        barrier = _barrier(path)
        return f"{user} may not enter {barrier}" if barrier else None
    hint = f"`setfacl -m u:{user}:rw {path}` lets {user} in at once"
    if found.st_mode & 0o020 and found.st_gid != 0:
        hint += f"; so does membership of the group {group}, from the next login on"
    return hint


def _barrier(path: str) -> str | None:
    """The first directory on the way to a path that this user may not enter."""
    place = "/"
    for part in path.split("/")[1:-1]:
        place = os.path.join(place, part)
        if not os.access(place, os.X_OK):
            return place
    return None


def _denied(session: Session, failure: Failure, text: str) -> str | None:
    if "Permission denied" not in text:
        return None
    path = _quoted(text)
    if path is None or not path.startswith("/"):
        return None
    barrier = _barrier(path)
    if barrier is not None:
        return f"{barrier} cannot be entered; see `namei -l {path}`"
    return f"see `namei -l {path}` for who may use it"


def _locked(session: Session, failure: Failure, text: str) -> str | None:
    if "lock" not in text or "held by" not in text:
        return None
    _, _, holder = text.partition("pid ")
    pid = holder.partition(" ")[0].strip(",;)")
    if pid.isdigit():
        return f"`ps -fp {pid}` shows who holds it; it is free again when that has ended"
    return "it is free again when its holder has ended"


def _absent(session: Session, failure: Failure, text: str) -> str | None:
    for noun, command in (
        ("domain", "list --all"),
        ("network", "net-list --all"),
        ("pool", "pool-list --all"),
        ("vol", "vol-list POOL"),
        ("secret", "secret-list"),
    ):
        if text.startswith(f"failed to get {noun} '"):
            other = ""
            if noun == "domain" and session.uri in ("qemu:///session", "qemu:///system"):
                there = "system" if session.uri.endswith("session") else "session"
                other = f"; others may be at qemu:///{there}"
            return f"`{command}` shows what there is at {session.uri}{other}"
    return None


def _not_running(session: Session, failure: Failure, text: str) -> str | None:
    if failure.cause is not None and failure.cause.code == c.VIR_ERR_OPERATION_INVALID:
        if text.endswith("domain is not running"):
            return "`start` starts it"
        if text.endswith("domain is already running") and text.startswith("Failed to start"):
            return "`domstate --reason` says since when it is what it is"
    return None


def _network(session: Session, failure: Failure, text: str) -> str | None:
    if "network '" in text and text.endswith("is not active"):
        name = _quoted(text, "network '")
        return f"`net-start {name}` starts it; `net-autostart {name}` does so with the machine"
    return None
