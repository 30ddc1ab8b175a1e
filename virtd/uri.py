"""Connection URIs, taken apart (RFC 3986): what there is of it that libvirt's URIs use.

By hand, because urllib.parse imports as much as a whole `virtsh list` may. It knows no drivers and no transports.
"""

from __future__ import annotations

from virtd.tuples import NamedTuple


class Uri(NamedTuple):
    """A URI in its parts: SCHEME://[USER@][HOST][:PORT]/PATH[?QUERY]

    Attributes:
        scheme: what stands before the colon, in lower case; "" if there is none.
        authority: user, host and port, as they stand there.
        path: with its slash.
        query: as it stands there, without the question mark.
    """

    scheme: str
    authority: str
    path: str
    query: str

    @property
    def user(self) -> str:
        """Who to be at the host."""
        return unquote(self.authority.rpartition("@")[0].partition(":")[0])

    @property
    def host(self) -> str:
        """The host's name or address; an IPv6 address without its brackets."""
        place = self.authority.rpartition("@")[2]
        if place.startswith("["):
            return place[1:].partition("]")[0]
        return place.partition(":")[0]

    @property
    def port(self) -> int | None:
        """The port.

        Raises:
            ValueError: it is none.
        """
        text = self.authority.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and int(text) < 65536):
            raise ValueError(f"'{text}' is no port")
        return int(text)

    @property
    def options(self) -> list[tuple[str, str]]:
        """The names and values in the query, in their order."""
        pairs = (part.partition("=") for part in self.query.split("&") if part)
        return [(unquote(name), unquote(text)) for name, _, text in pairs]

    def without(self, names: frozenset[str]) -> str:
        """The query without some of its options, as it stands there otherwise."""
        parts = self.query.split("&")
        return "&".join(part for part in parts if unquote(part.partition("=")[0]) not in names)


def split(text: str) -> Uri:
    """Take a URI apart. One without a scheme is all path.

    Raises:
        ValueError: it has a bracket that is not closed.
    """
    text, _, _ = text.partition("#")
    rest, _, query = text.partition("?")
    scheme, sign, rest = rest.partition(":")
    if not sign:
        return Uri("", "", scheme, query)
    authority, path = "", rest
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        path = slash + path
    if ("[" in authority) != ("]" in authority):
        raise ValueError("a bracket is not closed")
    return Uri(scheme.lower(), authority, path, query)


def unquote(text: str) -> str:
    """A text with what is written as %XX in it."""
    if "%" not in text:
        return text
    from urllib import parse

    return parse.unquote(text, errors="surrogateescape")
