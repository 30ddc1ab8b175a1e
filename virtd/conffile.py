"""The syntax of libvirt's configuration files: names, strings, numbers, lists, comments.

    name = "string"   # or 'string', or \"\"\"a string of several lines\"\"\"
    name = 5
    name = [ "a", "b" ]

It knows no setting and says nothing of what a value may be.
"""

import re
from typing import Any, NamedTuple

from virtd import constants as c
from virtd.errors import VirtError


class Setting(NamedTuple):
    """What the file says of one name, before anybody looked whether it may."""

    name: str
    value: Any  # str, int, or a list of them
    line: int


# The syntax. Blank space and comments may stand between any two tokens; a setting ends with its line or with ';'.

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_NUMBER = re.compile(r"[+-]?[0-9]+")
_BLANK = re.compile(r"[ \t]*")
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")


def parse(text: str, name: str) -> list[Setting]:
    """Read the syntax of a configuration file, without knowing any setting.

    Args:
        text: the content.
        name: the file's name, for messages.

    Raises:
        VirtError: VIR_ERR_CONF_SYNTAX naming file and line, in libvirt's words.
    """
    return _Parser(text, name).settings()


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.at = 0

    def settings(self) -> list[Setting]:
        found = []
        while self._skip(_SPACE):
            if self._take(";"):
                continue
            line = self._line()
            name = self._match(_NAME)
            if not name:
                raise self._error("expecting a name")
            self._skip(_BLANK)
            if not self._take("="):
                raise self._error("expecting an assignment")
            self._skip(_BLANK)
            found.append(Setting(name, self._value(), line))
            self._skip(_BLANK)
            if self.at < len(self.text) and self.text[self.at] not in "\r\n;#":
                raise self._error("expecting a separator")
        return found

    def _value(self) -> Any:
        if self._take("["):
            return self._list()
        for quote in ('"""', '"', "'"):
            if self._take(quote):
                return self._string(quote)
        number = self._match(_NUMBER)
        if not number:
            raise self._error("expecting a value")
        return int(number)

    def _list(self) -> list[Any]:
        values: list[Any] = []
        while self._skip(_SPACE) and not self._take("]"):
            if values:
                if not self._take(","):
                    raise self._error("expecting a separator in list")
                self._skip(_SPACE)
                if self._take("]"):
                    return values
            values.append(self._value())
        if self.text[self.at - 1] != "]":
            raise self._error("list is not closed with ]")
        return values

    def _string(self, quote: str) -> str:
        end = self.text.find(quote, self.at)
        if end < 0 or (len(quote) == 1 and "\n" in self.text[self.at : end]):
            raise self._error("unterminated string")
        start, self.at = self.at, end + len(quote)
        return self.text[start:end]

    def _take(self, token: str) -> bool:
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found[0]

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Skip blank space; whether there is anything behind it."""
        self._match(pattern)
        return self.at < len(self.text)

    def _line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1

    def _error(self, what: str) -> VirtError:
        return syntax_error(f"{self.name}:{self._line()}", what)


def syntax_error(where: str, what: str) -> VirtError:
    """A file that cannot be understood: where, and what was expected, in libvirt's words."""
    return VirtError(c.VIR_ERR_CONF_SYNTAX, f"{where}: {what}", domain=c.VIR_FROM_CONF)
