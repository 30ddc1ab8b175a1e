"""The declarations of one class, sorted into a tree of elements: what reads and writes them.

The tree knows paths and order; what a value is, is known by its declaration, and what an element means, by its model.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from virtd import constants as c
from virtd.conf.xml.declare import Field, Flag, Listed, Nested, Scalar, Texts, View
from virtd.conf.xml.text import (
    Element,
    escape,
    expanded,
    foreign_xml,
    indented,
    local_name,
    missing_attribute,
    text_of,
    unsupported,
)
from virtd.errors import VirtError

if TYPE_CHECKING:
    from virtd.conf.xml.model import Model


class Node:
    """The declarations of one element, sorted for reading and writing."""

    __slots__ = (
        "attributes",
        "by_attribute",
        "by_tag",
        "content",
        "flag",
        "inlined",
        "rank",
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
        self.rank: dict[str, int] = {}

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

    def order(self, paths: Iterable[str]) -> None:
        """Have children read in this order, those that are not named last, and not as they stand in the document."""
        for path in paths:
            way, _, last = path.rpartition("/")
            node = self
            for tag in way.split("/") if way else ():
                node = node.child(tag)
            node.rank[expanded(last)] = len(node.rank)

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

    def read(self, el: Element, obj: "Model", view: View) -> None:
        """Read an element into a model."""
        self.read_attributes(el, obj, view)
        if self.by_tag or self.refused:
            self.read_children(el, obj, view)
        if self.inlined:
            self.read_inlined(el, obj, view)

    def read_attributes(self, el: Element, obj: "Model", view: View) -> None:
        """Read what stands in the element itself."""
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

    def read_inlined(self, el: Element, obj: "Model", view: View) -> None:
        """Read the models that share the element with this one. What devices have in common comes last in libvirt."""
        for nested in self.inlined:
            model = nested.variant(obj, el)
            if model is not None:
                obj.__dict__[nested.name] = model.read(el, view)

    def read_children(self, el: Element, obj: "Model", view: View) -> None:
        """Read the element's children. A model may contain itself, so this takes as few frames as it can."""
        values = obj.__dict__
        seen: set[str] = set()
        children: Iterable[Element] = el.iterchildren("*")
        if self.rank:
            rank, last = self.rank, len(self.rank)
            children = sorted(children, key=lambda child: rank.get(child.tag, last))
        for child in children:
            tag = child.tag
            item = self.by_tag.get(tag)
            if item is None:
                if tag in self.refused:
                    raise unsupported(local_name(child))
            elif isinstance(item, Node):
                if tag in seen and (item.by_attribute or item.text is not None):
                    continue
                seen.add(tag)
                item.read(child, obj, view)
            elif item.live and not view.live:
                continue
            elif isinstance(item, Listed):
                model = item.variant(obj, child)
                if model is not None:
                    values[item.name].append(model.read(child, view))
            elif isinstance(item, Nested):
                if tag not in seen:
                    model = item.variant(obj, child)
                    if model is not None:
                        values[item.name] = model.read(child, view)
                elif item.only is not None:
                    raise VirtError(*item.only, domain=c.VIR_FROM_DOMAIN)
                seen.add(tag)
            elif isinstance(item, Texts):
                values[item.name].append(item.of.parse(text_of(child)))
            else:
                values.setdefault(item.name, foreign_xml(child))

    def head(self, obj: "Model", view: View) -> str:
        """The attributes of the element, as they are written."""
        out = ""
        for name, field in self.attributes:
            value = getattr(obj, field.name)
            if value is None or (field.guarded and field.hidden(obj, view)):
                continue
            if isinstance(field, Scalar):
                of = field.of
                if value != field.omit or field.omit is None:
                    text, unit = of.split(value)
                    out += f" {name}='{escape(text)}'"
                    if unit:
                        out += f" unit='{unit}'"
            else:
                shown = value.shown(view)
                out += shown.plan().head(shown, view)
        return out

    def write(self, obj: "Model", out: list[str], pad: str, view: View, *, tag: str = "", keep: bool = False) -> None:
        """Append the element's lines to `out`, nothing if there is nothing to say and it is not to be kept."""
        tag = tag or self.tag
        head = self.head(obj, view)
        if self.text is not None:
            value = getattr(obj, self.text.name)
            omitted = value is None or (self.text.omit is not None and value == self.text.omit)
            if not omitted and not (self.text.guarded and self.text.hidden(obj, view)):
                text, unit = self.text.of.split(value)
                if unit:
                    head += f" unit='{unit}'"
                out.append(f"{pad}<{tag}{head}>{escape(text)}</{tag}>\n")
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

    def write_content(self, obj: "Model", out: list[str], pad: str, view: View) -> None:
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
