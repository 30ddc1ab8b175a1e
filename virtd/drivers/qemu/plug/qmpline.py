"""What the command line would say of a device, as QMP commands for a QEMU that runs.

A QmpLine is a Line: the modules which describe a guest's devices at its start describe them here, too. Each option
becomes a command; a descriptor goes over the monitor's socket, under a name (getfd) or in a set (add-fd).

Knows no QEMU that runs and runs nothing: what comes out is a list of steps, and for each the way back.
"""

import base64
import os
from collections.abc import Mapping
from typing import NamedTuple

from virtd.conf.domain import Domain
from virtd.drivers.qemu.command.line import Line, Properties, Setup, stripped, unsupported
from virtd.drivers.qemu.host.binary import Binary

# Options of the command line, and the commands that do the same.
_COMMANDS = {"blockdev": "blockdev-add", "netdev": "netdev_add", "object": "object-add", "device": "device_add"}
# The commands that take back what those made: command, its argument, and where its value stands.
_BACK = {
    "blockdev-add": ("blockdev-del", "node-name", "node-name"),
    "netdev_add": ("netdev_del", "id", "id"),
    "object-add": ("object-del", "id", "id"),
    "chardev-add": ("chardev-remove", "id", "id"),
    "getfd": ("closefd", "fdname", "fdname"),
    "add-fd": ("remove-fd", "fdset-id", "fdset-id"),
}


class Step(NamedTuple):
    """A QMP command.

    Attributes:
        command: its name.
        arguments: its arguments.
        fd: a descriptor that goes with it.
    """

    command: str
    arguments: Properties
    fd: int | None = None

    @property
    def back(self) -> "Step | None":
        """The command that takes back what this one made; None if nothing does, or nothing has to."""
        known = _BACK.get(self.command)
        return None if known is None else Step(known[0], {known[1]: self.arguments[known[2]]})


class QmpLine(Line):
    """The description of devices that come while QEMU runs.

    Args:
        config: the guest with the devices in it; they have aliases and addresses.
        binary: the QEMU that runs.
        setup: what has been prepared for the devices.
        fdset: the first number for sets of descriptors that QEMU does not have yet.
    """

    def __init__(self, config: Domain, binary: Binary, setup: Setup, fdset: int = 0) -> None:
        super().__init__(config, binary, setup)
        self._steps: list[Step] = []
        self._fdsets = fdset
        self._names = 0

    @property
    def steps(self) -> list[Step]:
        """The commands, in the order in which they are to be run."""
        return [*self._steps, *(Step(name, arguments) for name, arguments in self.command.commands)]

    def add(self, option: str, value: str | None = None) -> None:
        if option == "watchdog-action":
            self._steps.append(Step("watchdog-set-action", {"action": value}))
            return
        raise unsupported(f"what option '-{option}' does cannot be done while the guest runs")

    def json(self, option: str, properties: Mapping[str, object]) -> None:
        table = stripped(properties)
        if option == "device":
            self._override(table)
        self._steps.append(Step(_COMMANDS[option], table))

    def chardev(self, kind: str, name: str, properties: Properties) -> None:
        backend = {"type": kind, "data": stripped(_backend(kind, properties))}
        self._steps.append(Step("chardev-add", {"id": name, "backend": backend}))

    def keep(self, descriptor: int) -> str:
        self.command.opened.append(descriptor)
        return self.lend(descriptor)

    def lend(self, descriptor: int) -> str:
        # The name is free again as soon as it has been used.
        name = f"plug-{os.getpid()}-{self._names}"
        self._names += 1
        self._steps.append(Step("getfd", {"fdname": name}, descriptor))
        return name

    def hidden(self, name: str, value: bytes) -> str:
        self.object("secret", id=name, data=base64.b64encode(value).decode(), format="base64")
        return name

    def add_fd(self, number: int, descriptor: int, what: str | None) -> None:
        self.command.opened.append(descriptor)
        arguments = stripped({"fdset-id": number, "opaque": what})
        self._steps.append(Step("add-fd", arguments, descriptor))


def _backend(kind: str, properties: Properties) -> Properties:
    """A character device's options in the shape of QAPI (qapi/char.json), from those of the command line."""
    data = {name.replace("path", "device") if kind in _DEVICES else name: value for name, value in properties.items()}
    match kind:
        case "file":
            data["out"] = data.pop("path")
        case "socket":
            data |= {"addr": _address(data), "server": bool(data.get("server")), "wait": False}
        case "udp":
            data = {name: value for name, value in data.items() if name.startswith("log")}
            data["remote"] = _inet(properties, "host", "port")
            if properties.get("localaddr") or properties.get("localport") not in (None, "0"):
                data["local"] = _inet(properties, "localaddr", "localport")
        case "spicevmc":
            data["type"] = data.pop("name")
        case "spiceport":
            data["fqdn"] = data.pop("name")
        case "qemu-vdagent":
            data.pop("name")
    return data


_DEVICES = ("serial", "parallel", "pipe")


def _address(data: Properties) -> Properties:
    """Where a socket is; what says so is taken out of its options."""
    path, descriptor = data.pop("path", None), data.pop("fd", None)
    if descriptor is not None:
        return {"type": "fd", "data": {"str": str(descriptor)}}
    if path is not None:
        return {"type": "unix", "data": {"path": path}}
    where = _inet(data, "host", "port")
    del data["host"], data["port"]
    return where


def _inet(data: Properties, host: str, port: str) -> Properties:
    return {"type": "inet", "data": {"host": data.get(host) or "", "port": str(data.get(port) or "")}}
