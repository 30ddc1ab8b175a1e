"""virtd.conf: what the file says, checked, and the defaults of the table for the rest.

A setting that would make the server less open than it is without it is never dropped, but refused. A name that
nobody knows is an error. Nothing in here opens sockets or knows who asks.
"""

import os
import re
from collections.abc import Callable
from typing import Any

from virtd import constants as c
from virtd.conffile import Setting, parse, syntax_error
from virtd.errors import VirtError
from virtd.server import log
from virtd.server.options import BY_NAME, UNUSED

LARGEST = 0xFFFFFFFF  # of an unsigned number


class Config:
    """The settings in force: those of a file, and the defaults of the table for the rest.

    Attributes:
        path: the file; None if there is none.
        unused: names in the file that have no effect, each with the reason.
        per_client: the settings that each worker needs: max_client_requests, keepalive_interval, keepalive_count.
    """

    def __init__(self, path: str | None = None, text: str = "") -> None:
        """Read settings.

        Args:
            path: the file's name, for messages.
            text: its content.

        Raises:
            VirtError: VIR_ERR_CONF_SYNTAX, VIR_ERR_INTERNAL_ERROR or VIR_ERR_CONFIG_UNSUPPORTED, as libvirt
                words them, naming file and line.
        """
        self.path = path
        self.unused: dict[str, str] = {}
        self._values: dict[str, Any] = {option.name: option.default for option in BY_NAME.values()}
        name = path or "virtd.conf"
        lines: dict[str, int] = {}
        for setting in parse(text, name):
            where = f"{name}:{setting.line}"
            if setting.name in lines:
                raise syntax_error(where, f"'{setting.name}' was set in line {lines[setting.name]} already")
            lines[setting.name] = setting.line
            if setting.name in UNUSED:
                self.unused[setting.name] = UNUSED[setting.name]
                continue
            option = BY_NAME.get(setting.name)
            if option is None:
                raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, f"{where}: unknown setting '{setting.name}'")
            self._values[setting.name] = CHECKS[option.type](setting, where)
        self.per_client = (
            self.number("max_client_requests"),
            self.number("keepalive_interval"),
            self.number("keepalive_count"),
        )

    def number(self, name: str) -> int:
        """The value of a numeric setting."""
        value = self._values[name]
        assert isinstance(value, int), name
        return value

    def text(self, name: str) -> str | None:
        """The value of a setting that is a string; None if it has none."""
        value = self._values[name]
        assert value is None or isinstance(value, str), name
        return value

    def mode(self, name: str) -> int | None:
        """The value of a setting that is a file's permissions."""
        value = self.text(name)
        return None if value is None else int(value, 8)

    def outputs(self) -> list[log.Output] | None:
        """Where to log; None if the file does not say."""
        value: list[log.Output] | None = self._values["log_outputs"]
        return value


def load(path: str | None, default: str) -> Config:
    """Read the configuration file.

    Args:
        path: the file that was asked for; it must exist.
        default: the file to read otherwise, if it exists.

    Raises:
        VirtError: the file cannot be read, or is wrong.
    """
    name = path or default
    try:
        with open(name, encoding="utf-8", errors="surrogateescape") as file:
            return Config(name, file.read())
    except FileNotFoundError:
        if path is None:
            return Config()
        raise VirtError(c.VIR_ERR_SYSTEM_ERROR, f"Failed to open file '{name}': {os.strerror(2)}") from None
    except OSError as error:
        raise VirtError(c.VIR_ERR_SYSTEM_ERROR, f"Failed to open file '{name}': {error.strerror}") from None


# What the values of each type may be.


def _wrong(setting: Setting, where: str, wanted: str) -> VirtError:
    return VirtError(
        c.VIR_ERR_INTERNAL_ERROR, f"{where}: expected {wanted} for '{setting.name}' parameter", domain=c.VIR_FROM_CONF
    )


def _unsupported(setting: Setting, where: str, why: str) -> VirtError:
    return VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, f"{where}: {setting.name}: {why}", domain=c.VIR_FROM_CONF)


def _string(setting: Setting, where: str) -> str:
    if not isinstance(setting.value, str) or not setting.value:
        raise _wrong(setting, where, "a string")
    return setting.value


def _number(setting: Setting, where: str) -> int:
    if not isinstance(setting.value, int) or setting.value < 0:
        raise _wrong(setting, where, "an unsigned integer")
    if setting.value > LARGEST:
        raise VirtError(
            c.VIR_ERR_INTERNAL_ERROR,
            f"{where}: value for '{setting.name}' parameter must be in range 0:{LARGEST}",
            domain=c.VIR_FROM_CONF,
        )
    return setting.value


def _signed(setting: Setting, where: str) -> int:
    if not isinstance(setting.value, int) or abs(setting.value) > 0x7FFFFFFF:
        raise _wrong(setting, where, "a signed integer")
    return setting.value


def _flag(setting: Setting, where: str) -> int:
    if setting.value not in (0, 1):
        raise _wrong(setting, where, "0 or 1")
    return _number(setting, where)


def _notyet(setting: Setting, where: str) -> int:
    if _flag(setting, where):
        raise _unsupported(setting, where, "not supported yet")
    return 0


def _port(setting: Setting, where: str) -> str:
    return str(setting.value) if isinstance(setting.value, int) else _string(setting, where)


def _mode(setting: Setting, where: str) -> str:
    text = _string(setting, where)
    if not re.fullmatch("[0-7]{3,4}", text):
        raise _wrong(setting, where, "permissions in octal")
    return text


def _auth(setting: Setting, where: str) -> str:
    text = _string(setting, where)
    if text in ("sasl", "polkit"):
        raise _unsupported(setting, where, f"auth {text} is not supported yet, only none")
    if text != "none":
        raise _unsupported(setting, where, f"unsupported auth {text}")
    return text


def _access(setting: Setting, where: str) -> tuple[str, ...]:
    values = setting.value if isinstance(setting.value, list) else [setting.value]
    if not all(isinstance(value, str) for value in values):
        raise _wrong(setting, where, "a string list")
    for value in values:
        if value not in ("nop", "none"):
            raise _unsupported(setting, where, f"access driver {value} is not supported yet, only nop")
    return tuple(values)


def _level(setting: Setting, where: str) -> int:
    if _number(setting, where) not in log.NAMES:
        raise _wrong(setting, where, "a level from 1 to 4")
    return int(setting.value)


def _outputs(setting: Setting, where: str) -> list[log.Output]:
    outputs = []
    for text in _string(setting, where).split():
        level, _, rest = text.partition(":")
        kind, _, target = rest.partition(":")
        known = {"stderr": target == "", "file": target.startswith("/"), "syslog": target != ""}
        if not level.isdecimal() or int(level) not in log.NAMES or not known.get(kind):
            raise _unsupported(setting, where, f"cannot log to '{text}'")
        outputs.append(log.Output(int(level), kind, target))
    return outputs


CHECKS: dict[str, Callable[[Setting, str], Any]] = {
    "string": _string,
    "number": _number,
    "signed": _signed,
    "flag": _flag,
    "notyet": _notyet,
    "port": _port,
    "mode": _mode,
    "auth": _auth,
    "access": _access,
    "level": _level,
    "outputs": _outputs,
}
