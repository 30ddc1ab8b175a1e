"""What commands find, and how it is printed: as virsh prints it, the same with some colour for people, or as JSON.

A command hands back one of these objects. Cells of tables are texts or numbers; a cell whose value is not what is
printed is a Cell. Values in JSON are in the units that their keys name, or bytes.
"""

from __future__ import annotations

import os
import sys

from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


class Cell(NamedTuple):
    """A cell of a table, or the value of a field, whose printed form is another than its value."""

    text: str
    value: Any


class Style:
    """How to mark text on a terminal: not at all, unless colours are wanted there."""

    BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def mark(self, text: str, code: str | None) -> str:
        """A text in a colour."""
        return f"\033[{code}m{text}\033[0m" if self.enabled and code and text else text


# States of guests, networks and pools, and the colour which says at a glance whether all is well.
_COLOURS = {
    "running": Style.GREEN,
    "active": Style.GREEN,
    "paused": Style.YELLOW,
    "pmsuspended": Style.YELLOW,
    "in shutdown": Style.YELLOW,
    "crashed": Style.RED,
    "shut off": Style.DIM,
    "inactive": Style.DIM,
}


def style() -> Style:
    """Colours, if standard output is a terminal that is to have them (https://no-color.org)."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return Style(wanted)


class Output:
    """Base of what a command can hand back.

    Attributes:
        failed: what was found is bad news, and the command has not succeeded.
    """

    failed = False

    def text(self, marks: Style, *, quiet: bool) -> str:
        """As virsh prints it.

        Args:
            marks: the colours to use.
            quiet: without headings (virsh -q).
        """
        raise NotImplementedError

    def data(self) -> Any:
        """What json.dumps takes."""
        raise NotImplementedError


class Table(Output):
    """Rows under headings.

    Args:
        columns: key in JSON and heading of each.
        rows: the cells.
        ruler: whether a line stands below the headings.
    """

    def __init__(self, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]] = ()) -> None:
        self.columns = list(columns)
        self.rows = [list(row) for row in rows]

    def add(self, *cells: Any) -> None:
        """Add a row."""
        self.rows.append(list(cells))

    def text(self, marks: Style, *, quiet: bool) -> str:
        lines = [[visible(printed(cell)) for cell in row] for row in self.rows]
        headings = [title for _, title in self.columns]
        if not quiet:
            lines.insert(0, headings)
        if not lines:
            return ""
        widths = [max(width(line[i]) for line in lines) for i in range(len(headings))]
        texts = []
        for number, line in enumerate(lines):
            heading = number == 0 and not quiet
            cells = []
            for cell, space in zip(line, widths, strict=True):
                padding = " " * (space - width(cell))
                cells.append(marks.mark(cell, Style.BOLD if heading else _COLOURS.get(cell)) + padding)
            # The last cell of a row is not padded; but an empty one leaves the blanks before it.
            cells[-1] = cells[-1].rstrip(" ") if line[-1] else ""
            texts.append(" " + "   ".join(cells))
            if heading:
                texts.append("-" * (1 + sum(widths) + 3 * (len(widths) - 1) + 2))
        return "\n".join(texts) + "\n"

    def data(self) -> Any:
        keys = [key for key, _ in self.columns]
        return [dict(zip(keys, map(value, row), strict=True)) for row in self.rows]


class Fields(Output):
    """Names and values, one a line.

    Args:
        space: how wide the names are printed.
    """

    def __init__(self, space: int = 15) -> None:
        self.space = space
        self.fields: list[tuple[str, str, Any]] = []

    def add(self, label: str, content: Any, key: str | None = None) -> None:
        """Add a field.

        Args:
            label: what is printed before it, with its colon.
            content: a text, a number or a Cell.
            key: its key in JSON, if that is not the label in lower case.
        """
        self.fields.append((label, key or label.rstrip(":").lower().replace(" ", "_"), content))

    def text(self, marks: Style, *, quiet: bool) -> str:
        lines = []
        for label, _, content in self.fields:
            shown = printed(content)
            padding = " " * (self.space - width(label))
            lines.append(f"{marks.mark(label, Style.BOLD)}{padding} {marks.mark(shown, _COLOURS.get(shown))}\n")
        return "".join(lines)

    def data(self) -> Any:
        return {key: value(content) for _, key, content in self.fields}


class Lines(Output):
    """Values, one a line.

    Args:
        values: the values.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        self.values = list(values)

    def text(self, marks: Style, *, quiet: bool) -> str:
        return "".join(f"{printed(one)}\n" for one in self.values)

    def data(self) -> Any:
        return [value(one) for one in self.values]


class Single(Output):
    """A single value.

    Args:
        key: what it is, in JSON.
        content: a text, a number or a Cell.
        end: what virsh prints behind it; there are commands where the blank line after them has to do.
    """

    def __init__(self, key: str, content: Any, *, end: str = "\n") -> None:
        self.key = key
        self.content = content
        self.end = end

    def text(self, marks: Style, *, quiet: bool) -> str:
        shown = printed(self.content)
        return f"{marks.mark(shown, _COLOURS.get(shown))}{self.end}"

    def data(self) -> Any:
        return {self.key: value(self.content)}


class Tree(Output):
    """Names below names.

    Args:
        parents: the parent of each; None, or one that is not there, of those at the top.
    """

    def __init__(self, parents: dict[str, str | None]) -> None:
        self.children: dict[str, list[str]] = {name: [] for name in parents}
        self.roots: list[str] = []
        for name, parent in parents.items():
            self.children.get(parent or "", self.roots).append(name)

    def text(self, marks: Style, *, quiet: bool) -> str:
        return "".join(f"{root}\n{self._below(root, '  ')}" for root in self.roots)

    def _below(self, name: str, indent: str) -> str:
        children = self.children[name]
        text = f"{indent}|\n" if children else ""
        for child in children:
            last = child == children[-1]
            text += f"{indent}+- {child}\n{self._below(child, indent + ('    ' if last else '|   '))}"
            if last and not self.children[child]:
                text += f"{indent}  \n"  # the end of a branch
        return text

    def data(self) -> Any:
        return [self._node(root) for root in self.roots]

    def _node(self, name: str) -> dict[str, Any]:
        return {"name": name, "children": [self._node(child) for child in self.children[name]]}


class Plain(Output):
    """A text that is printed as it is, such as a document.

    Args:
        key: what it is, in JSON.
        content: the text, with its line ends.
        value: what stands for it in JSON; the text itself if there is nothing better.
    """

    def __init__(self, key: str, content: str, value: Any = None) -> None:
        self.key = key
        self.content = content
        self.value = content if value is None else value

    def text(self, marks: Style, *, quiet: bool) -> str:
        return self.content

    def data(self) -> Any:
        return {self.key: self.value}


def printed(content: Any) -> str:
    """How a cell or field is printed."""
    if isinstance(content, Cell):
        return content.text
    return "-" if content is None else str(content)


def value(content: Any) -> Any:
    """The value of a cell or field."""
    return content.value if isinstance(content, Cell) else content


def yes(truth: int) -> Cell:
    """A truth value as yes or no."""
    return Cell("yes" if truth else "no", bool(truth))


def visible(text: str) -> str:
    """A text without what would do something to a terminal: names come from others."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else "".join(f"\\x{byte:02x}" for byte in one.encode("utf-8", "surrogateescape"))
        for one in text
    )


def width(text: str) -> int:
    """How many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(one) else 2 if east_asian_width(one) in "WF" else 1 for one in text)
