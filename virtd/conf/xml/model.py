"""The engine of the typed XML models: an element or attribute is one declaration.

    class Watchdog(Model):
        model = attr("@model", Choice("i6300esb ib700 diag288"), required=True)
        action = attr("@action", Choice("reset shutdown poweroff"))
        info = inline(Info)

Rules:
- A declaration says where a value stands ("@type", "target/@dev", "title", "devices/disk"), what it is and what
  it is if it is absent. The order of the declarations is the order in which libvirt writes them.
- At run time a declaration is gone: the class attribute is the default, the instance attribute the value, so
  reading costs nothing, and type checkers see the value's type. `Model.fields` keeps the declarations.
- None is "not there". Nothing is written for it, and an element with neither attributes nor content is not
  written either.
- What libvirt does not know is ignored, as libvirt does. What it knows and the model does not is `refuse`d by name.
- The engine knows nothing of domains; errors are those of libvirt's XML helpers.
"""

from typing import Any, ClassVar, TypeVar, cast

from virtd import constants as c
from virtd.conf.xml.declare import (
    Error,
    Field,
    Listed,
    Nested,
    Scalar,
    Texts,
    View,
    attr,
    flag,
    inline,
    part,
    raw,
    sub,
    subs,
    texts,
)
from virtd.conf.xml.plan import Node
from virtd.conf.xml.text import NAMESPACES, Element, local_name, missing_attribute, unsupported
from virtd.conf.xml.types import TEXT
from virtd.errors import VirtError

__all__ = [
    "NAMESPACES",
    "Element",
    "Error",
    "Field",
    "Listed",
    "Model",
    "Nested",
    "Node",
    "Scalar",
    "Texts",
    "View",
    "attr",
    "flag",
    "inline",
    "local_name",
    "missing_attribute",
    "part",
    "raw",
    "sub",
    "subs",
    "texts",
    "unsupported",
    "write_document",
]

M = TypeVar("M", bound="Model")


class Model:
    """An element with its attributes and children, as declared by the class body.

    Class keywords:
        by: this is the base of several kinds, told apart by this attribute ("@type"), or (".") by a field of
            whoever uses it.
        kind: which of its base's kinds this is. Its own declarations come before those of the base.
        default: the kind if the attribute is absent.
        bad, missing: the errors for an unknown kind, and for none.
        refuse: names of elements and @attributes that libvirt knows and virtd does not.
    """

    fields: ClassVar[dict[str, Field]] = {}
    by: ClassVar[str | None] = None
    kind: ClassVar[str] = ""
    kinds: ClassVar[dict[str, type[Any]]] = {}
    reading: ClassVar[tuple[str, ...]] = ()
    """Children in the order in which libvirt reads them: of several faults the first that is read is told."""
    _default_kind: ClassVar[str | None] = None
    _bad_kind: ClassVar[Error | None] = None
    _no_kind: ClassVar[Error | None] = None
    _refused: ClassVar[frozenset[str]] = frozenset()
    _made: ClassVar[tuple[tuple[str, Any], ...]] = ()
    _plan: ClassVar[Node | None] = None

    def __init_subclass__(
        cls,
        *,
        by: str | None = None,
        kind: str | None = None,
        default: str | None = None,
        bad: Error | None = None,
        missing: Error | None = None,
        refuse: str = "",
    ) -> None:
        inherited, cls.fields = cls.fields, {}
        for name, field in list(vars(cls).items()):
            if isinstance(field, Field):
                cls.declare(name, field)
        cls.fields.update((n, f) for n, f in inherited.items() if n not in cls.fields)
        cls._refused = cls._refused | frozenset(refuse.split())
        if by is not None:
            cls.by, cls.kinds, cls._default_kind, cls._bad_kind, cls._no_kind = by, {}, default, bad, missing
        if kind is not None:
            for one in kind.split():
                cls.kinds[one] = cls
            cls.kind = kind.split()[0]

    @classmethod
    def declare(cls, name: str, field: Any) -> None:
        """Add a declaration behind the others; for a model that contains itself."""
        assert isinstance(field, Field)
        field.name = name
        cls.fields[name] = field
        setattr(cls, name, field.default)
        cls._plan = None
        if isinstance(field, Listed | Texts):
            cls._made = (*cls._made, (name, list))
        elif isinstance(field, Nested) and field.always:
            cls._made = (*cls._made, (name, field.model))

    def __init__(self, **values: Any) -> None:
        for name, make in self._made:
            self.__dict__[name] = make()
        for name, value in values.items():
            if name not in self.fields:
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
            self.__dict__[name] = value

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        for name in self.fields:  # noqa: SIM110 (a model may contain itself, and frames are few)
            if getattr(self, name) != getattr(other, name):
                return False
        return True

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.__dict__.items() if v is not None and v != [])
        return f"{type(self).__name__}({shown})"

    def copy(self: M) -> M:
        """A deep copy."""
        twin = self.__class__.__new__(self.__class__)
        target = twin.__dict__
        for name, value in self.__dict__.items():
            if isinstance(value, Model):
                value = value.copy()
            elif isinstance(value, list):
                value = [item.copy() if isinstance(item, Model) else item for item in value]
            target[name] = value
        return twin

    @classmethod
    def variant(cls, el: Element) -> "type[Model] | None":
        """Which kind an element is by its own attribute.

        Raises:
            VirtError: if it is none that libvirt knows.
        """
        assert cls.by is not None
        name = el.get(cls.by[1:])
        if name is None:
            name = cls._default_kind
            if name is None:
                if cls._no_kind is not None:
                    raise VirtError(*cls._no_kind, domain=c.VIR_FROM_DOMAIN)
                raise missing_attribute(cls.by[1:], el)
        found = cls.kinds.get(name)
        if found is None:
            probe = Scalar(cls.by, TEXT, default=None, omit=None, required=False, bad=cls._bad_kind)
            raise probe.error(name, el, "")
        return cast("type[Model]", found)

    @classmethod
    def read(cls: type[M], el: Element, view: View) -> M:
        """The model of an element.

        Raises:
            VirtError: for a value that is wrong, missing, or not supported.
        """
        obj = cls()
        if cls.by is not None and cls.by.startswith("@"):
            obj.__dict__["kind"] = el.get(cls.by[1:], cls.kind or cls._default_kind)
        cls.entered(el)
        plan = cls.plan()
        plan.read_attributes(el, obj, view)
        if plan.by_tag or plan.refused:
            plan.read_children(el, obj, view)
        if plan.inlined:
            plan.read_inlined(el, obj, view)
        obj.loaded(el, view)
        return obj

    @classmethod
    def entered(cls, el: Element) -> None:
        """Called before an element is read: for what libvirt looks at first."""

    def loaded(self, el: Element, view: View) -> None:
        """Called after an element was read: for what a declaration cannot say."""

    def shown(self: M, view: View) -> M:
        """What is written instead of this model: itself, or a copy in which what a view hides is changed."""
        return self

    @classmethod
    def plan(cls) -> Node:
        """The class's declarations as a tree of elements, made at first use."""
        plan = cls.__dict__.get("_plan")
        if plan is None:
            plan = cls._plan = Node("", cls._refused)
            if cls.by is not None and cls.by.startswith("@"):
                kind = Scalar(cls.by, TEXT, default=None, omit=None, required=False, bad=None)
                kind.name = "kind"
                plan.add_attribute(cls.by[1:], kind, read=False)
            for field in cls.fields.values():
                plan.place(field)
            plan.order(cls.reading)
        return cast("Node", plan)


def write_document(model: Model, tag: str, view: View) -> str:
    """A model as a whole document, as libvirt writes it."""
    out: list[str] = []
    shown = model.shown(view)
    shown.plan().write(shown, out, "", view, tag=tag, keep=True)
    return "".join(out)
