"""Definitions and live XML as they lie on disk.

What virtd wrote itself is complete: every default stands in it, every address is chosen. It is read as it is, since
filling in defaults a second time need not give the same guest again (libvirt numbers some devices anew at each
definition). Whether a definition is still what was written, a check sum at its end tells; one that was edited by
hand is treated like one that a client hands in. The same line says whether the text is public, free of passwords: then
it is, as it stands, what clients get to see.
"""

import zlib

from virtd.conf.domain import Domain as Config
from virtd.conf.domain import format_both, parse_domain
from virtd.conf.domain.parse import read_domain
from virtd.conf.host import Host
from virtd.conf.xml.text import escape

_MARK = b"<!-- virtd "


def write(config: Config) -> str:
    """The text of a definition, with its check sum."""
    shown, text = format_both(config)
    public = " public" if shown == text else ""
    return f"{text}{_MARK.decode()}{_sum(text.encode(errors='surrogateescape'))}{public} -->\n"


def read(content: bytes, host: Host, *, live: bool) -> Config:
    """A definition, or a live XML, read back.

    Args:
        content: the file.
        host: what can be run here, for a definition that was edited.
        live: whether it is a live XML, which nobody edits.

    Raises:
        VirtError: what is wrong with it.
    """
    if live or untouched(content) is not None:
        return read_domain(content.decode(errors="surrogateescape"), inactive=not live)
    return parse_domain(content.decode(errors="surrogateescape"), host)


def is_called(text: bytes, name: str) -> bool:
    """Whether a definition says that the guest has this name: not if it is being renamed, or was until its end."""
    return f"<name>{escape(name)}</name>".encode(errors="surrogateescape") in text


def untouched(content: bytes) -> tuple[bytes, bool] | None:
    """The text of a definition as it was written, without the check sum, and whether it is public; None if edited."""
    text, mark, rest = content.rpartition(_MARK)
    said = rest.split(b" ")
    if not mark or said[0].decode("ascii", "replace") != _sum(text):
        return None
    return text, said[1] == b"public"


def _sum(text: bytes) -> str:
    return f"{zlib.crc32(text):08x}"
