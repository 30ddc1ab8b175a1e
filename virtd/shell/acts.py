"""Commands that are no more than: look an object up, call a procedure, say so.

The functions here make such commands' functions, so that a line of a table says all there is to them.
"""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell.command import Args
from virtd.shell.failure import failing
from virtd.shell.output import Cell, Output, Plain, Single, yes
from virtd.shell.session import Session, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Function = Callable[[Session, Args], Any]

# Where a change takes effect; without one of these, where the guest is: running or not.
AFFECT = {"config": c.VIR_DOMAIN_AFFECT_CONFIG, "live": c.VIR_DOMAIN_AFFECT_LIVE}
AFFECT_OPTIONS = "[--config] [--live] [--current]"


def find(session: Session, args: Args, kind: str, ways: str | None = None) -> Any:
    """The object that a command is about, named by the option of its kind's name.

    Args:
        session, args: as the command got them.
        kind: "domain", "network", "pool", "secret", "nwfilter" or "interface".
        ways: which of id, uuid, name, mac it may be given by, if not all.
    """
    look_up: Callable[..., Any] = getattr(session, kind)
    text = args.required(kind)
    return look_up(text) if ways is None else look_up(text, ways)


def act(
    kind: str,
    procedure: str,
    done: str,
    failed: str = "",
    *arguments: Any,
    ways: str | None = None,
    proper: bool = False,
) -> Function:
    """A command that calls a procedure on an object.

    Args:
        kind: what kind of object.
        procedure: the procedure; its first argument is the object.
        done: what is said when it is done; {name} stands for the object's name.
        failed: what is said if it is not.
        arguments: the procedure's other arguments.
        ways: see find().
        proper: whether {name} is the object's own name rather than what the user called it.
    """

    def function(session: Session, args: Args) -> None:
        found = find(session, args, kind, ways)
        name = found.name if proper else args.required(kind)
        with said(failed.format(name=name)):
            session.call(procedure, found, *arguments)
        if done:
            session.say(done.format(name=name) + "\n")

    return function


def said(failure: str) -> Any:
    """failing(), or nothing if there is nothing to say beside the error itself."""
    return failing(failure) if failure else _Nothing()


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def make(procedure: str, done: str, failed: str, *, flags: dict[str, int] | None = None, plain: str = "") -> Function:
    """A command that makes an object from a file.

    Args:
        procedure: takes the document and flags, returns the object.
        done: what is said when it is done; {name} and {file}.
        failed: what is said if it is not; {file}.
        flags: options that are flags of the call.
        plain: a procedure that takes the document alone, for a call without flags.
    """

    def function(session: Session, args: Args) -> None:
        path = args.required("file")
        document = read_text(path)
        bits = args.flags(flags or {})
        with failing(failed.format(file=path)):
            made = session.call(plain, document) if plain and not bits else session.call(procedure, document, bits)
        session.say(done.format(name=made.name, file=path) + "\n")

    return function


def autostart(kind: str, procedure: str, label: str, *, failed: str = "failed to") -> Function:
    """A command that marks or unmarks an object to be started with the machine.

    Args:
        kind: what kind of object.
        procedure: takes the object, and 1 or 0.
        label: what it is called in what is said; {name}.
        failed: how the failure is said.
    """

    def function(session: Session, args: Args) -> None:
        found = find(session, args, kind)
        on = not args.flag("disable")
        what = label.format(name=args.required(kind))
        verb = "mark" if on else "unmark"
        with failing(f"{failed} {verb} {what} as autostarted"):
            session.call(procedure, found, int(on))
        session.say(f"{what[0].upper()}{what[1:]} {verb}ed as autostarted\n")

    return function


def dump_xml(kind: str, procedure: str, flags: dict[str, int] | None = None) -> Function:
    """A command that prints an object's document, or what an XPath expression finds in it.

    Args:
        kind: what kind of object.
        procedure: takes the object and flags, returns the document.
        flags: options that are flags of the call.
    """

    def function(session: Session, args: Args) -> Output:
        found = find(session, args, kind)
        return document(args, session.call(procedure, found, args.flags(flags or {})))

    return function


def document(args: Args, text: str) -> Output:
    """A document as a command hands it back, by its options --xpath and --wrap."""
    expression = args.text("xpath")
    if expression is not None:
        from virtd.shell import xmltext

        text = xmltext.extract(text, expression, wrap=args.flag("wrap"))
    return Plain("xml", text)


def edit(kind: str, read: str, write: str, label: str, *arguments: Any, flags: int) -> Function:
    """A command that has an object's definition changed in an editor.

    Args:
        kind: what kind of object.
        read: the procedure that takes the object and flags, and returns the document.
        write: the procedure that takes the document.
        label: what kind of object, in what is said.
        arguments: the other arguments of `write`.
        flags: of `read`.
    """

    def function(session: Session, args: Args) -> None:
        from virtd.shell import editing

        found = find(session, args, kind)
        editing.edit(
            session,
            lambda: str(session.call(read, found, flags)),
            lambda text: session.call(write, text, *arguments),
            f"{label} {found.name} XML configuration not changed.",
            f"{label} {found.name} XML configuration edited.",
        )

    return function


def which(args: Args, active: int, inactive: int) -> int:
    """The flags of a list by its options: those that are active, with --inactive the others, with --all both."""
    return active | inactive if args.flag("all") else inactive if args.flag("inactive") else active


def starts_itself(session: Session, procedure: str, found: Any) -> Cell:
    """Whether an object is started with the machine; of one without a definition nobody can say."""
    try:
        return yes(session.call(procedure, found))
    except VirtError:
        return Cell("no autostart", None)


def identify(kind: str, key: str, ways: str) -> Function:
    """A command that turns one name of an object into another.

    Args:
        kind: what kind of object.
        key: "name", "uuid" or "id".
        ways: by which of these it may be given.
    """

    def function(session: Session, args: Args) -> Output:
        from virtd import uuids

        found = find(session, args, kind, ways)
        match key:
            case "uuid":
                return Single(key, uuids.to_text(found.uuid))
            case "id":
                return Single(key, None if found.id < 0 else found.id)
        return Single(key, found.name)

    return function


def affect(args: Args) -> int:
    """The flags that --config, --live and --current mean.

    Raises:
        Failure: they contradict each other.
    """
    args.exclusive("current", "live")
    args.exclusive("current", "config")
    return args.flags(AFFECT)
