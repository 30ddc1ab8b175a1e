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

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar, cast, overload

from lxml import etree

from virtd import constants as c
from virtd.conf.xml.types import TEXT, Type
from virtd.errors import VirtError

T = TypeVar("T")
M = TypeVar("M", bound="Model")
Element = etree._Element
NAMESPACES = {"qemu": "http://libvirt.org/schemas/domain/qemu/1.0"}
"""The namespaces that libvirt's documents know, by the prefix they are written with."""
Error = tuple[int, str]
"""A code and a text (%s stands for the wrong value), where libvirt does not use its general words."""

_SPECIAL = re.compile("[<>&'\"\x00-\x08\x0b\x0c\x0e-\x1f]")
_ESCAPES = {ord(k): v for k, v in {"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;", "'": "&apos;"}.items()}
_ESCAPES.update({n: "" for n in range(32) if chr(n) not in "\t\n\r"})


class View:
    """What of a model is read or written.

    Args:
        live: also run-time values (ids, aliases, ports that were chosen).
        secure: also passwords.
        migratable: only what older libvirts understand.
    """

    __slots__ = ("live", "migratable", "secure")

    def __init__(self, *, live: bool = False, secure: bool = False, migratable: bool = False) -> None:
        self.live = live
        self.secure = secure
        self.migratable = migratable


When = Callable[[Any, View], bool]


def escape(text: str) -> str:
    """A text as libvirt writes it in attributes and elements; control characters are left out."""
    return text.translate(_ESCAPES) if _SPECIAL.search(text) else text


def text_of(el: Element) -> str:
    """All the text in an element, as XPath's string() gives it."""
    return (el.text or "") if len(el) == 0 else "".join(cast("Iterator[str]", el.itertext()))


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
        return (
            (self.live and not view.live)
            or (self.secure and not view.secure)
            or (self.when is not None and not self.when(obj, view))
        )


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
        if "@" in self.path:
            words = f"Invalid value for attribute '{attribute}' in element '{local_name(el)}': '{text}'."
            return VirtError(c.VIR_ERR_XML_ERROR, f"{words} {expected}" if expected else words, domain=c.VIR_FROM_XML)
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


def subs(path: str, model: type[M], *, keep: bool = False, when: When | None = None) -> list[M]:
    """Declare a list of elements, each a model."""
    return cast("list[M]", Listed(path, model, by=None, always=False, keep=keep, when=when))


def texts(path: str, of: Type[T]) -> list[T]:
    """Declare a list of elements of which only the text counts."""
    return cast("list[T]", Texts(path, of))


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
    _default_kind: ClassVar[str | None] = None
    _bad_kind: ClassVar[Error | None] = None
    _no_kind: ClassVar[Error | None] = None
    _refused: ClassVar[frozenset[str]] = frozenset()
    _made: ClassVar[tuple[tuple[str, Any], ...]] = ()
    _plan: ClassVar["Node | None"] = None

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
        return all(getattr(self, name) == getattr(other, name) for name in self.fields)

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
        if cls.by == "@type" or (cls.by is not None and cls.by.startswith("@")):
            obj.__dict__["kind"] = el.get(cls.by[1:], cls.kind or cls._default_kind)
        cls.plan().read(el, obj, view)
        obj.loaded(el, view)
        return obj

    def loaded(self, el: Element, view: View) -> None:
        """Called after an element was read: for what a declaration cannot say."""

    def shown(self: M, view: View) -> M:
        """What is written instead of this model: itself, or a copy in which what a view hides is changed."""
        return self

    @classmethod
    def plan(cls) -> "Node":
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
        return cast("Node", plan)


class Node:
    """The declarations of one element, sorted for reading and writing."""

    __slots__ = (
        "attributes",
        "by_attribute",
        "by_tag",
        "content",
        "flag",
        "inlined",
        "refused",
        "required",
        "tag",
        "text",
    )

    def __init__(self, tag: str, refused: frozenset[str]) -> None:
        self.tag = tag
        self.refused = refused
        self.text: Scalar | None = None
        self.flag: Flag | None = None
        self.attributes: list[tuple[str, Field]] = []
        self.by_attribute: dict[str, Scalar] = {}
        self.by_tag: dict[str, Field | Node] = {}
        self.content: list[Field | Node] = []
        self.inlined: list[Nested] = []
        self.required: list[Scalar] = []

    def place(self, field: Field) -> None:
        """Put a declaration where its path says."""
        *way, last = field.path.split("/")
        if isinstance(field, Flag) or (isinstance(field, Scalar) and last[0] not in "@."):
            way.append(last)
            last = "."
        node = self
        for tag in way:
            node = node.child(tag)
        if isinstance(field, Nested) and last == ".":
            node.inlined.append(field)
            node.attributes.append(("", field))
            node.content.append(field)
        elif isinstance(field, Flag):
            node.flag = field
        elif isinstance(field, Scalar):
            if field.required:
                node.required.append(field)
            if last == ".":
                node.text = field
            else:
                node.add_attribute(last[1:], field)
        else:
            node.by_tag[expanded(last)] = field
            node.content.append(field)

    def add_attribute(self, name: str, field: Scalar, *, read: bool = True) -> None:
        """Put a value into an attribute of this element."""
        self.attributes.append((name, field))
        if read:
            self.by_attribute[name] = field

    def child(self, tag: str) -> "Node":
        """The node of a child element, made if it is not there yet."""
        key = expanded(tag)
        node = self.by_tag.get(key)
        if node is None:
            prefix = tag + "/"
            refused = frozenset(name[len(prefix) :] for name in self.refused if name.startswith(prefix))
            node = self.by_tag[key] = Node(tag, refused)
            self.content.append(node)
        if not isinstance(node, Node):
            raise TypeError(f"<{tag}> is a model already")
        return node

    def read(self, el: Element, obj: Model, view: View) -> None:
        """Read an element into a model."""
        values = obj.__dict__
        for key, text in el.items():
            scalar = self.by_attribute.get(key)  # type: ignore[arg-type]
            if scalar is not None:
                if not scalar.live or view.live:
                    scalar.load(values, text, el)  # type: ignore[arg-type]
            elif self.refused and "@" + key in self.refused:  # type: ignore[operator]
                raise unsupported(f"{local_name(el)}/@{key}")  # type: ignore[str-bytes-safe]
        if self.flag is not None:
            values[self.flag.name] = True
        if self.text is not None:
            content = text_of(el)
            if content:
                self.text.load(values, content, el)
        for scalar in self.required:
            if scalar.name not in values:
                if isinstance(scalar.required, tuple):
                    raise VirtError(*scalar.required, domain=c.VIR_FROM_DOMAIN)
                raise missing_attribute(scalar.path.rpartition("@")[2], el)
        for nested in self.inlined:
            model = nested.variant(obj, el)
            if model is not None:
                values[nested.name] = model.read(el, view)
        if not self.by_tag and not self.refused:
            return
        seen: set[str] = set()
        for child in el.iterchildren("*"):
            tag = child.tag
            item = self.by_tag.get(tag)
            if item is None:
                if tag in self.refused:
                    raise unsupported(local_name(child))
            elif isinstance(item, Node):
                item.read(child, obj, view)
            elif isinstance(item, Nested) and tag in seen and not isinstance(item, Listed):
                if item.only is not None:
                    raise VirtError(*item.only, domain=c.VIR_FROM_DOMAIN)
            elif not item.live or view.live:
                seen.add(tag)
                self.read_child(item, child, obj, view)

    @staticmethod
    def read_child(field: Field, child: Element, obj: Model, view: View) -> None:
        """Read a child element into the field that is declared for it."""
        values = obj.__dict__
        if isinstance(field, Listed):
            model = field.variant(obj, child)
            if model is not None:
                values[field.name].append(model.read(child, view))
        elif isinstance(field, Nested):
            model = field.variant(obj, child)
            if model is not None:
                values[field.name] = model.read(child, view)
        elif isinstance(field, Texts):
            values[field.name].append(field.of.parse(text_of(child)))
        else:
            values.setdefault(field.name, foreign_xml(child))

    def head(self, obj: Model, view: View) -> str:
        """The attributes of the element, as they are written."""
        out = ""
        for name, field in self.attributes:
            value = getattr(obj, field.name)
            if value is None or (field.guarded and field.hidden(obj, view)):
                continue
            if isinstance(field, Scalar):
                of = field.of
                if value != field.omit or field.omit is None:
                    out += f" {name}='{escape(of.format(value))}'"
                    if of.unit:
                        out += f" unit='{of.unit}'"
            else:
                shown = value.shown(view)
                out += shown.plan().head(shown, view)
        return out

    def write(self, obj: Model, out: list[str], pad: str, view: View, *, tag: str = "", keep: bool = False) -> None:
        """Append the element's lines to `out`, nothing if there is nothing to say and it is not to be kept."""
        tag = tag or self.tag
        head = self.head(obj, view)
        if self.text is not None:
            value = getattr(obj, self.text.name)
            if value is not None and not (self.text.guarded and self.text.hidden(obj, view)):
                of = self.text.of
                if of.unit:
                    head += f" unit='{of.unit}'"
                out.append(f"{pad}<{tag}{head}>{escape(of.format(value))}</{tag}>\n")
                return
        place = len(out)
        out.append("")
        self.write_content(obj, out, pad + "  ", view)
        if len(out) == place + 1:
            if head or keep or (self.flag is not None and getattr(obj, self.flag.name)):
                out[place] = f"{pad}<{tag}{head}/>\n"
            else:
                out.pop()
        else:
            out[place] = f"{pad}<{tag}{head}>\n"
            out.append(f"{pad}</{tag}>\n")

    def write_content(self, obj: Model, out: list[str], pad: str, view: View) -> None:
        """Append the lines of all children to `out`."""
        for item in self.content:
            if isinstance(item, Node):
                item.write(obj, out, pad, view)
                continue
            value = getattr(obj, item.name)
            if not value or (item.guarded and item.hidden(obj, view)):
                continue
            if isinstance(item, Listed):
                for one in value:
                    shown = one.shown(view)
                    shown.plan().write(shown, out, pad, view, tag=item.path.rpartition("/")[2], keep=item.keep)
            elif isinstance(item, Nested):
                shown = value.shown(view)
                if item.path == ".":
                    shown.plan().write_content(shown, out, pad, view)
                else:
                    shown.plan().write(shown, out, pad, view, tag=item.path.rpartition("/")[2], keep=item.keep)
            elif isinstance(item, Texts):
                tag = item.path.rpartition("/")[2]
                out.extend(f"{pad}<{tag}>{escape(item.of.format(one))}</{tag}>\n" for one in value)
            else:
                out.append(indented(value, len(pad) // 2))


def write_document(model: Model, tag: str, view: View) -> str:
    """A model as a whole document, as libvirt writes it."""
    out: list[str] = []
    shown = model.shown(view)
    shown.plan().write(shown, out, "", view, tag=tag, keep=True)
    return "".join(out)


def expanded(tag: str) -> str:
    """A name with libvirt's prefix, as lxml has it: {namespace}name."""
    prefix, colon, name = tag.rpartition(":")
    return f"{{{NAMESPACES[prefix]}}}{name}" if colon else tag


def local_name(el: Element) -> str:
    """An element's name without its namespace."""
    return el.tag.rpartition("}")[2]


def foreign_xml(el: Element) -> str:
    """An element whose children belong to others, without white space between elements.

    As in libvirt, each child must have a namespace, and only the first of a namespace counts.
    """
    twin = copy.deepcopy(el)
    twin.text = twin.tail = None
    seen: set[str] = set()
    for child in list(twin):
        child.tail = None
        name = child.tag if isinstance(child.tag, str) else ""
        namespace = name[1:].partition("}")[0] if name.startswith("{") else ""
        if not namespace or namespace in seen:
            twin.remove(child)
        seen.add(namespace)
    for one in twin.iter():
        blank = [(one.text or "").strip(), *((child.tail or "").strip() for child in one)]
        if len(one) and not any(blank):
            one.text = None
            for child in one:
                child.tail = None
    return etree.tostring(twin, encoding="unicode")


def indented(xml: str, level: int) -> str:
    """An element's lines, two spaces for each level, as libxml2 breaks them; mixed content stays as it is."""
    wrapped = etree.fromstring("<x>" * level + xml + "</x>" * level)
    lines = etree.tostring(wrapped, encoding="unicode", pretty_print=True).split("\n")
    return "\n".join(lines[level : -level - 1]) + "\n"


def unsupported(name: str) -> VirtError:
    """The error for something that libvirt knows and virtd does not."""
    return VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, f"'{name}' is not supported by virtd", domain=c.VIR_FROM_DOMAIN)


def missing_attribute(name: str, el: Element) -> VirtError:
    """The error for an attribute that must be there."""
    return VirtError(
        c.VIR_ERR_XML_ERROR,
        f"Missing required attribute '{name}' in element '{local_name(el)}'",
        domain=c.VIR_FROM_XML,
    )
