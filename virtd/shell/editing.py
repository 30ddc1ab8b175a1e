"""Changing a document in the user's editor.

The document must be the same before and after the editor was open, or somebody else's change would be lost. What is
not accepted can be edited again, if there is a person to ask.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from virtd.errors import VirtError
from virtd.shell.failure import Failure
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def edit(
    session: Session,
    fetch: Callable[[], str],
    store: Callable[[str], None],
    unchanged: str,
    done: str,
    *,
    suffix: str = ".xml",
) -> None:
    """Have a document edited.

    Args:
        session: to say what became of it.
        fetch: gets the document.
        store: takes the edited one.
        unchanged: what to say if nothing was changed.
        done: what to say when it has been stored.
        suffix: of the file, so that editors know what it is.

    Raises:
        Failure: the editor failed, somebody else changed the document meanwhile, or it was not accepted.
    """
    before = fetch()
    path = _write(before, suffix)
    try:
        while True:
            after = _edited(path)
            if after == before:
                session.say(f"{unchanged}\n")
                return
            try:
                if fetch() != before:
                    raise Failure("ERROR: The XML configuration was changed by another user.")
                store(after)
                break
            except (VirtError, Failure) as error:
                _again(session, error)
    finally:
        os.unlink(path)
    session.say(f"{done}\n")


def edit_text(before: str, suffix: str = ".txt") -> str:
    """Have a text edited; returns it as it is then.

    Raises:
        Failure: the editor failed.
    """
    path = _write(before, suffix)
    try:
        return _edited(path)
    finally:
        os.unlink(path)


def _write(text: str, suffix: str) -> str:
    descriptor, path = tempfile.mkstemp(prefix="virtsh", suffix=suffix)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    return path


def _edited(path: str) -> str:
    """Run the editor on a file; returns its content after that."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    sys.stdout.flush()
    # The variable may hold options, and quotes around a path with blanks, as for every program that uses it.
    status = subprocess.call(["/bin/sh", "-c", f'{editor} "$1"', "sh", path])
    if status:
        what = f"fatal signal {-status}" if status < 0 else f"exit status {status}"
        raise Failure(f"internal error: Child process ({editor} {path}) unexpected {what}")
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _again(session: Session, error: VirtError | Failure) -> None:
    """Ask whether to edit once more what was not accepted.

    Raises:
        VirtError, Failure: the error, if not.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise error
    for message in error.messages if isinstance(error, Failure) else [error.message]:
        session.complain(message)
    answer = ""
    while answer not in ("y", "n"):
        try:
            answer = input("Failed. Try again? [y,n]: ").strip().lower()[:1]
        except EOFError:
            answer = "n"
    if answer == "n":
        raise Failure
