"""Writing the XML of capabilities: attributes in single quotes, elements indented by two, as libvirt does."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from virtd.conf.xml.text import escape


class Document:
    """An XML document while it is written."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0

    def add(self, tag: str, text: object = None, **attributes: object) -> None:
        """Add an element without elements in it; attributes that are None are left out."""
        opening = _opening(tag, attributes)
        self._put(f"<{opening}/>" if text is None else f"<{opening}>{escape(str(text))}</{tag}>")

    @contextmanager
    def element(self, tag: str, **attributes: object) -> Iterator[None]:
        """An element that contains what is added inside the block; an empty one is closed at once."""
        opening, start = _opening(tag, attributes), len(self._lines)
        self._put(f"<{opening}>")
        self._depth += 1
        yield
        self._depth -= 1
        if len(self._lines) == start + 1:
            self._lines[start] = f"{'  ' * self._depth}<{opening}/>"
        else:
            self._put(f"</{tag}>")

    def enum(self, name: str, values: Iterable[str]) -> None:
        """Add a list of values that something can have."""
        with self.element("enum", name=name):
            for value in values:
                self.add("value", value)

    def blank(self) -> None:
        """Add an empty line."""
        self._lines.append("")

    def text(self) -> str:
        """The document so far."""
        return "\n".join(self._lines) + "\n"

    def _put(self, line: str) -> None:
        self._lines.append("  " * self._depth + line)


def yes_no(value: object) -> str:
    """libvirt's words for a truth value."""
    return "yes" if value else "no"


def _opening(tag: str, attributes: dict[str, object]) -> str:
    written = [f"{name}='{escape(str(value))}'" for name, value in attributes.items() if value is not None]
    return " ".join([tag, *written])
