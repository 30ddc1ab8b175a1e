"""What could stand at the end of a line: commands, options, and the names of what there is.

For the interactive shell, and for shells which ask by `virtsh complete`.
"""

from __future__ import annotations

import os

from virtd import constants as c
from virtd import uuids
from virtd.errors import VirtError
from virtd.shell import eventnames, index, words
from virtd.shell.command import FLAG, JSON, REST, Command, Option
from virtd.shell.failure import Failure
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

# Values that are known without asking anybody, by kind.
_FIXED: dict[str, Iterable[str]] = {
    "address-source": ("agent", "arp", "lease"),
    "codeset": ("atset1", "atset2", "atset3", "linux", "os_x", "qnum", "usb", "win32", "xt", "xt_kbd"),
    "device-event": ("lifecycle", "update"),
    "dirty-rate-mode": ("dirty-bitmap", "dirty-ring", "page-sampling"),
    "disk-device": ("cdrom", "disk", "floppy", "lun"),
    "display-type": ("dbus", "rdp", "spice", "vnc"),
    "domain-event": eventnames.DOMAIN,
    "dump-format": ("elf", "kdump-lzo", "kdump-snappy", "kdump-zlib", "win-dmp"),
    "hostname-source": ("agent", "lease"),
    "interface-type": ("bridge", "direct", "hostdev", "network", "vhostuser"),
    "lifecycle": ("crash", "poweroff", "reboot"),
    "lifecycle-action": ("coredump-destroy", "coredump-restart", "destroy", "preserve", "rename-restart", "restart"),
    "link-state": ("down", "up"),
    "mode": ("acpi", "agent", "initctl", "paravirt", "signal"),
    "network-event": ("lifecycle",),
    "numa-mode": ("interleave", "preferred", "restrictive", "strict"),
    "pool-event": ("lifecycle", "refresh"),
    "secret-event": ("lifecycle", "value-changed"),
    "suspend-target": ("disk", "hybrid", "mem"),
    "update-command": ("add", "add-first", "add-last", "delete", "modify"),
    "volume-format": ("qcow2", "raw", "vmdk"),
}
# Which guests a command is for, where it is not for all.
_ACTIVE, _INACTIVE = c.VIR_CONNECT_LIST_DOMAINS_ACTIVE, c.VIR_CONNECT_LIST_DOMAINS_INACTIVE
_FOR = {
    "start": _INACTIVE,
    "domrename": _INACTIVE,
    "resume": c.VIR_CONNECT_LIST_DOMAINS_PAUSED,
    "suspend": c.VIR_CONNECT_LIST_DOMAINS_RUNNING,
    **dict.fromkeys(
        ("console", "destroy", "domdisplay", "inject-nmi", "reboot", "reset", "save", "screenshot"), _ACTIVE
    ),
    **dict.fromkeys(("send-key", "shutdown", "vncdisplay", "managedsave", "dompmsuspend", "ttyconsole"), _ACTIVE),
}
# What the name of an option says of its value, where the command does not say otherwise.
_SAME = {
    **dict.fromkeys(("base", "dest", "dir", "file", "top", "xml", "xmlfile"), "path"),
    "backing-vol": "vol",
}


class Completer:
    """Completes lines of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._found: list[str] = []

    def complete(self, text: str, state: int) -> str | None:
        """What readline calls: the state-th way to complete a word."""
        if state == 0:
            import readline

            line = readline.get_line_buffer()[: readline.get_endidx()]
            try:
                self._found = [f"{one} " for one in self.candidates(_last(line, text), text)]
            except (VirtError, Failure, OSError, words.WordsError):
                self._found = []  # a line that is not finished may be anything
        return self._found[state] if state < len(self._found) else None

    def candidates(self, before: list[str], text: str) -> list[str]:
        """Ways to complete a word.

        Args:
            before: the words of its command that stand before it.
            text: what there is of it.
        """
        if not before:
            return [name for name in index.names() if name.startswith(text)]
        command = index.find(before[0])
        if command is None:
            return []
        given, open_option = _given(command, before[1:])
        if open_option is None and text.startswith("--") and "=" not in text:
            names = [option.name for option in command.options if option.name not in given or option.kind == REST]
            return [f"--{name}" for name in (*names, JSON) if f"--{name}".startswith(text)]
        option = open_option or _next(command, given)
        if option is None:
            return []
        return sorted(one for one in set(self._values(command, option, given, text)) if one.startswith(text))

    def _values(self, command: Command, option: Option, given: dict[str, str], text: str) -> Iterable[str]:
        kind = command.kinds.get(option.name) or _SAME.get(option.name, option.name)
        if command.name == "help":
            return [*index.names(), *(group.keyword for group in index.GROUPS)]
        if kind == "path":
            return _paths(text)
        if kind in _FIXED:
            return _FIXED[kind]
        look: Callable[..., Iterable[str]] | None = getattr(self, f"_{kind.replace('-', '_')}", None)
        return [] if look is None else look(command, given)

    # Live data, by kind. Each takes the command and the options given so far.

    def _domain(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        flags = _FOR.get(command.name, _ACTIVE | _INACTIVE)
        return [one.name for one in self._session.call("connect_list_all_domains", 1, flags)[0]]

    def _network(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        return [one.name for one in self._session.call("connect_list_all_networks", 1, 0)[0]]

    def _pool(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        return [one.name for one in self._session.call("connect_list_all_storage_pools", 1, 0)[0]]

    def _vol(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        pool = given.get("pool") or given.get("inputpool")
        if pool is not None:
            found = self._session.call("storage_pool_list_all_volumes", self._session.pool(pool), 1, 0)[0]
            return [one.name for one in found]
        active = c.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE
        pools = self._session.call("connect_list_all_storage_pools", 1, active)[0]
        return [
            one.key for place in pools for one in self._session.call("storage_pool_list_all_volumes", place, 1, 0)[0]
        ]

    def _secret(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        return [uuids.to_text(one.uuid) for one in self._session.call("connect_list_all_secrets", 1, 0)[0]]

    def _nwfilter(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        return [one.name for one in self._session.call("connect_list_all_nwfilters", 1, 0)[0]]

    def _binding(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        return [one.portdev for one in self._session.call("connect_list_all_nwfilter_bindings", 1, 0)[0]]

    def _device(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        return [one.name for one in self._session.call("connect_list_all_node_devices", 1, 0)[0]]

    def _interface(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        return [one.name for one in self._session.call("connect_list_all_interfaces", 1, 0)[0]]

    def _snapshotname(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        domain = self._session.domain(given["domain"])
        return [one.name for one in self._session.call("domain_list_all_snapshots", domain, 1, 0)[0]]

    def _checkpointname(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        domain = self._session.domain(given["domain"])
        return [one.name for one in self._session.call("domain_list_all_checkpoints", domain, 1, 0)[0]]

    def _document(self, given: dict[str, str]) -> Any:
        from virtd.shell import xmltext

        domain = self._session.domain(given["domain"])
        return xmltext.parse(self._session.call("domain_get_xml_desc", domain, 0))

    def _disk(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        return [one.get("dev", "") for one in self._document(given).iterfind("devices/disk/target")]

    def _guest_interface(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        return [one.get("address", "") for one in self._document(given).iterfind("devices/interface/mac")]

    def _device_alias(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        return [one.get("name", "") for one in self._document(given).iterfind("devices//alias")]

    def _devname(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        root = self._document(given)
        return [one.get("name", "") for tag in ("console", "serial") for one in root.iterfind(f"devices/{tag}/alias")]

    def _iothread(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        domain = self._session.domain(given["domain"])
        return [str(one.iothread_id) for one in self._session.call("domain_get_iothread_info", domain, 0)[0]]

    def _keycode(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        from virtd.shell import keynames

        return keynames.names(given.get("codeset", "linux"))

    def _pool_type(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        from virtd.shell.commands import pool

        return pool.TYPES

    def _device_capability(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        from virtd.shell.commands import nodedev

        return nodedev.CAPABILITIES

    def _update_section(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        from virtd.shell.commands import network

        return network.SECTIONS

    def _wipe_algorithm(self, command: Command, given: dict[str, str]) -> Iterable[str]:
        from virtd.shell.commands import volume

        return volume.ALGORITHMS


def _last(line: str, text: str) -> list[str]:
    """The words of a line's last command that stand before the word at its end."""
    commands = words.split(line[: len(line) - len(text)].rstrip("=") + " \0")
    return commands[-1][:-1] if commands else []


def _given(command: Command, before: list[str]) -> tuple[dict[str, str], Option | None]:
    """What the words behind a command say so far, and the option that still wants its value."""
    named = {option.name: option for option in command.options}
    given: dict[str, str] = {}
    waiting: Option | None = None
    for word in before:
        if waiting is not None:
            given[waiting.name], waiting = word, None
        elif word.startswith("--"):
            name, sign, value = word[2:].partition("=")
            option = named.get(name)
            if option is None:
                continue
            if option.kind == FLAG or sign:
                given[name] = value
            else:
                waiting = option
        else:
            place = _next(command, given)
            if place is not None:
                given[place.name] = word
    return given, waiting


def _next(command: Command, given: dict[str, str]) -> Option | None:
    """The option that a word without a name would be the value of."""
    for option in command.options:
        if option.positional and (option.kind == REST or option.name not in given):
            return option
    return None


def _paths(text: str) -> Iterable[str]:
    """The files whose names begin with a text."""
    directory, _, beginning = text.rpartition("/")
    place = f"{directory}/" if directory or text.startswith("/") else ""
    try:
        entries = os.scandir(os.path.expanduser(place) or ".")
    except OSError:
        return []
    with entries:
        return [f"{place}{one.name}{'/' if one.is_dir() else ''}" for one in entries if one.name.startswith(beginning)]
