"""The declarations of the XML models: what a class body says of an element's attributes and children.

Each function returns, to type checkers, the value that an instance will have; at run time it is a Field, which the
class takes away (see model.py) and keeps in `fields`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from virtd import constants as c
from virtd.conf.xml.text import Element, local_name
from virtd.conf.xml.types import TEXT, Type
from virtd.errors import VirtError

if TYPE_CHECKING:
    from virtd.conf.xml.model import Model

T = TypeVar("T")
M = TypeVar("M", bound="Model")
Error = tuple[int, str]
"""A code and a text (%s stands for the wrong value), where libvirt does not use its general words."""


class View:
    """What of a model is read or written.

    Args:
        live: also run-time values (ids, aliases, ports that were chosen).
        secure: also passwords.

    Attributes:
        secrets: whether there are any passwords, known once something has been written.
    """

    __slots__ = ("live", "secrets", "secure")

    def __init__(self, *, live: bool = False, secure: bool = False) -> None:
        self.live = live
        self.secure = secure
        self.secrets = False


When = Callable[[Any, View], bool]


class Field:
    """One declaration. What it is in detail is told by its subclass."""

    default: Any = None
    name = ""

    def __init__(self, path: str, *, live: bool = False, secure: bool = False, when: When | None = None) -> None:
        self.path = path
        self.live = live
        self.secure = secure
        self.when = when
        self.guarded = live or secure or when is not None

    def hidden(self, obj: "Model", view: View) -> bool:
        """Whether the value is left out in this view."""
        if (self.live and not view.live) or (self.when is not None and not self.when(obj, view)):
            return True
        if self.secure:
            view.secrets = True
        return self.secure and not view.secure


class Scalar(Field):
    """A value in an attribute ("…/@name") or in an element's text."""

    def __init__(
        self,
        path: str,
        of: Type[Any],
        *,
        default: Any,
        omit: Any,
        required: bool | Error,
        bad: Error | None,
        **rest: Any,
    ) -> None:
        super().__init__(path, **rest)
        self.of = of
        self.default = default
        self.omit = omit
        self.required = required
        self.bad = bad

    def load(self, values: dict[str, Any], text: str, el: Element) -> None:
        """Read a text into a model's values; the first one counts."""
        if self.name in values:
            return
        of = self.of
        try:
            values[self.name] = of.parse_with_unit(text, el.get("unit")) if of.unit else of.parse(text)
        except ValueError as err:
            raise self.error(text, el, str(err)) from None

    def error(self, text: str, el: Element, expected: str) -> VirtError:
        """libvirt's error for a wrong text."""
        if self.bad is not None:
            code, words = self.bad
            return VirtError(code, words.replace("%s", text), domain=c.VIR_FROM_DOMAIN)
        attribute = self.path.rpartition("@")[2]
        if "@" in self.path and not self.of.unit:
            words = f"Invalid value for attribute '{attribute}' in element '{local_name(el)}': "
            words += "" if expected.startswith("Zero") else f"'{text}'."
            return VirtError(
                c.VIR_ERR_XML_ERROR,
                f"{words} {expected}".replace(":  ", ": ") if expected else words,
                domain=c.VIR_FROM_XML,
            )
        return VirtError(
            c.VIR_ERR_XML_ERROR,
            f"Invalid value '{text}' for element or attribute './{self.path}'",
            domain=c.VIR_FROM_XML,
        )


class Flag(Field):
    """True if an (empty) element is there."""

    default = False


class Raw(Field):
    """The children of an element, kept as they are."""


class Nested(Field):
    """Another model: in an element of its own, or (path ".") inlined into this element."""

    def __init__(
        self,
        path: str,
        model: "type[Model]",
        *,
        by: str | None,
        always: bool,
        keep: bool,
        only: Error | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(path, **rest)
        self.only = only
        self.model = model
        self.by = by
        self.always = always
        self.keep = keep

    def variant(self, obj: "Model", el: Element) -> "type[Model] | None":
        """Which class the element is: the model, or the one of its kinds that is meant here."""
        if self.by is not None:
            return self.model.kinds.get(getattr(obj, self.by))
        return self.model.variant(el) if self.model.by else self.model


class Listed(Nested):
    """A list of models, each in an element of the same name."""


class Texts(Field):
    """A list of values, each the text of an element (or its attribute: "env/@name")."""

    def __init__(self, path: str, of: Type[Any], **rest: Any) -> None:
        super().__init__(path, **rest)
        self.of = of


@overload
def attr(
    path: str,
    of: Type[T],
    *,
    default: T,
    omit: T | None = ...,
    required: bool | Error = ...,
    bad: Error | None = ...,
    live: bool = ...,
    secure: bool = ...,
    when: When | None = ...,
) -> T: ...
@overload
def attr(
    path: str,
    of: Type[T],
    *,
    omit: T | None = ...,
    required: bool | Error = ...,
    bad: Error | None = ...,
    live: bool = ...,
    secure: bool = ...,
    when: When | None = ...,
) -> T | None: ...
@overload
def attr(
    path: str,
    *,
    omit: str | None = ...,
    required: bool | Error = ...,
    bad: Error | None = ...,
    live: bool = ...,
    secure: bool = ...,
    when: When | None = ...,
) -> str | None: ...
def attr(
    path: str,
    of: Type[Any] = TEXT,
    *,
    default: Any = None,
    omit: Any = None,
    required: bool | Error = False,
    bad: Error | None = None,
    **rest: Any,
) -> Any:
    """Declare a value in an attribute or an element's text.

    Args:
        path: "@name", "element/@name", or "element" for its text; "." for this element's own text.
        of: the type, text if not given.
        default: the value if there is none; None stays "not there".
        omit: a value that is not written.
        required: refuse an element without it: with this error, or (True) "Missing required attribute …".
        bad: the error for a wrong value, if it is not libvirt's general one.
        live, secure, when: in which views it is read and written.
    """
    return Scalar(path, of, default=default, omit=omit, required=required, bad=bad, **rest)


def flag(path: str, *, when: When | None = None) -> bool:
    """Declare an element whose presence says yes."""
    return cast("bool", Flag(path, when=when))


def raw(path: str) -> str | None:
    """Declare an element whose content is kept as it is, whatever it is."""
    return cast("str | None", Raw(path))


def sub(
    path: str,
    model: type[M],
    *,
    by: str | None = None,
    keep: bool = False,
    only: Error | None = None,
    live: bool = False,
    when: When | None = None,
) -> M | None:
    """Declare an element that is a model of its own, or absent.

    Args:
        by: the field of this model whose value says which of the model's kinds it is.
        keep: whether it is written even without attributes and content.
        only: the error for a second one; otherwise the first counts.
    """
    return cast("M | None", Nested(path, model, by=by, always=False, keep=keep, only=only, live=live, when=when))


def part(path: str, model: type[M], *, keep: bool = False, when: When | None = None) -> M:
    """Declare an element that is a model of its own and exists in every instance, be it empty."""
    return cast("M", Nested(path, model, by=None, always=True, keep=keep, when=when))


def inline(model: type[M], *, by: str | None = None) -> M:
    """Declare values and elements of another model as standing in this element, at this place.

    Args:
        by: the field of this model whose value says which of the model's kinds it is.
    """
    return cast("M", Nested(".", model, by=by, always=True, keep=False))


def subs(path: str, model: type[M], *, keep: bool = False, secure: bool = False, when: When | None = None) -> list[M]:
    """Declare a list of elements, each a model."""
    return cast("list[M]", Listed(path, model, by=None, always=False, keep=keep, secure=secure, when=when))


def texts(path: str, of: Type[T]) -> list[T]:
    """Declare a list of elements of which only the text counts."""
    return cast("list[T]", Texts(path, of))
