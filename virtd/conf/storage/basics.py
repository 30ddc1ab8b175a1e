"""What pools and volumes have in common: octal modes, owners, permissions."""

import re

from virtd import constants as c
from virtd.conf.xml.model import Element, Model, View, attr
from virtd.conf.xml.types import Size, Type
from virtd.errors import VirtError

_OCTAL = re.compile(r"[ \t\n]*\+?([0-7]+)", re.ASCII)
_NUMBER = re.compile(r"\s*(-?[0-9]+)\s*", re.ASCII)
_NOBODY = (1 << 32) - 1

INVALID = c.VIR_ERR_XML_ERROR
BYTES = Size("bytes", "bytes")


class Found(Size):
    """A size that is measured: what a client says of it does not count."""

    def parse_with_unit(self, text: str, unit: str | None) -> int:
        return 0


FOUND = Found("bytes", "bytes")


class Position(Type[int]):
    """A place on a device, in bytes; measured, too."""

    def parse(self, text: str) -> int:
        return 0


POSITION = Position()


class Mode(Type[int]):
    """Permission bits, octal."""

    def parse(self, text: str) -> int:
        match = _OCTAL.fullmatch(text)
        value = int(match[1], 8) if match is not None else -1
        if not 0 <= value <= 0o7777:
            raise ValueError
        return value

    def format(self, value: int) -> str:
        return f"0{value:o}"


class Id(Type[int]):
    """A user's or group's number; -1 is nobody in particular.

    libvirt writes the largest ones as negative numbers, which it then does not read; they are written as they are.
    """

    def parse(self, text: str) -> int:
        match = _NUMBER.fullmatch(text)
        value = int(match[1]) if match is not None else -2
        if not -1 <= value <= _NOBODY:
            raise ValueError
        return -1 if value == _NOBODY else value


class Permissions(Model):
    """Whose a file is and who may use it; -1 and None: as it comes."""

    mode = attr("mode", Mode(), bad=(INVALID, "malformed octal mode"))
    owner = attr("owner", Id(), bad=(INVALID, "malformed owner element"))
    group = attr("group", Id(), bad=(INVALID, "malformed group element"))
    label = attr("label")

    def loaded(self, el: Element, view: View) -> None:
        """An owner that is nobody is none, and an empty one is wrong."""
        for name in ("owner", "group"):
            child = el.find(name)
            if child is not None and not (child.text or "").strip():
                raise VirtError(INVALID, f"malformed {name} element", domain=c.VIR_FROM_STORAGE)
            if getattr(self, name) == -1:
                setattr(self, name, None)


def clean_path(path: str) -> str:
    """A path without doubled and trailing slashes; two at its very beginning stay, as POSIX has it."""
    start = "//" if path.startswith("//") and not path.startswith("///") else path[: path.startswith("/")]
    return start + "/".join(part for part in path.split("/") if part)


def merge_repeated(root: Element, tag: str) -> None:
    """Take all children of some name for one: libvirt looks for what is in them by path, in whichever it finds it."""
    found = root.findall(tag)
    for other in found[1:]:
        found[0].extend(other)
        root.remove(other)
