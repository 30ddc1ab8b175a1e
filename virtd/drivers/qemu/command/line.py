"""The command line in the making: what all modules of this package add to, and what it has become at the end.

Properties stand in JSON where QEMU takes it, so that no value needs escaping; elsewhere a comma in a value is
doubled. A property whose value is None is left out.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from virtd import constants as c
from virtd.conf.domain import Domain
from virtd.conf.domain.base import Info
from virtd.conf.domain.controller import Controller
from virtd.conf.secret.reference import SecretReference
from virtd.drivers.qemu.host.binary import Binary
from virtd.drivers.qemu.host.settings import Settings, Tls
from virtd.drivers.qemu.run import confine
from virtd.drivers.qemu.run.access import Use
from virtd.errors import VirtError
from virtd.state import files, undo

Properties = dict[str, object]
NULL = object()
"""JSON's null, as None stands for a property that is left out."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What has been prepared for the guest.

    Args:
        monitors: names of monitors and the listening sockets they are served on; without any, as for
            virConnectDomainXMLToNative, one is left to QEMU to make in its private directory.
        private: QEMU's own directory.
        memory: directory for files that are the guest's memory.
        nvram: directory where the variables of UEFI firmwares are kept.
        reset_nvram: whether they become what they were at first.
        channels: directory for the sockets of channels that have no path; by default the private one.
        taps: descriptors of tap devices, by the alias of the interface.
        vhosts: descriptors of /dev/vhost-net, likewise.
        descriptors: those that a client has associated with the guest, by the name of their group.
        running: whether QEMU runs already, and what is described is to be plugged into it.
        ends: sockets at whose other end a program is that serves a device, by its alias; "tpm": an emulated TPM.
        secret: tells the value of a secret that the XML means, needed for a VIR_SECRET_USAGE_TYPE_*.
        settings: what holds for all guests.
        undo: the guest's undo file, where files that are made are noted; None if nothing is to be made.
    """

    monitors: Sequence[tuple[str, int]] = ()
    private: str = ""
    memory: str = ""
    nvram: str = ""
    reset_nvram: bool = False
    channels: str = ""
    taps: Mapping[str, Sequence[int]] = field(default_factory=dict)
    vhosts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    descriptors: Mapping[str, Sequence[int]] = field(default_factory=dict)
    running: bool = False
    ends: Mapping[str, int] = field(default_factory=dict)
    secret: Callable[[SecretReference, int], bytes] | None = None
    settings: Settings = field(default_factory=Settings)
    undo: str | None = None

    @property
    def live(self) -> bool:
        """Whether there will really be a QEMU; if not, nothing is opened, and paths stand where descriptors would."""
        return bool(self.monitors) or self.running


@dataclass(slots=True)
class Command:
    """A QEMU to be started.

    Attributes:
        argv: the program and its arguments.
        fds: descriptors that it takes along, under these numbers.
        files: files it opens itself, and whether it writes to them.
        images: those of them that are images of disks.
        disks: the names by which its events call a disk, with the disk's alias and source.
        environment: variables beyond the usual ones.
        commands: QMP commands to be run before the guest's first instruction.
        cpus: the host's CPUs that it may run on; None: all.
        locked: how many bytes of memory it must be able to lock; RLIM_INFINITY: all; None: as many as others.
    """

    argv: list[str]
    fds: list[int] = field(default_factory=list)
    files: list[tuple[str, bool]] = field(default_factory=list)
    images: list[Use] = field(default_factory=list)
    disks: dict[str, tuple[str, str]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    commands: list[tuple[str, Properties]] = field(default_factory=list)
    cpus: frozenset[int] | None = None
    locked: int | None = None
    opened: list[int] = field(default_factory=list)

    def close(self) -> None:
        """Close the descriptors that were opened for it, in this process; may be called again."""
        while self.opened:
            os.close(self.opened.pop())


class Line:
    """The command line of one guest, while it is put together.

    Args:
        config: the guest; all devices have aliases.
        binary: the QEMU it is for.
        setup: what has been prepared.
    """

    def __init__(self, config: Domain, binary: Binary, setup: Setup) -> None:
        self.config = config
        self.binary = binary
        self.setup = setup
        self.command = Command([binary.path])
        self.boot_order: dict[int, int] = {}
        self._fdsets = 0

    def add(self, option: str, value: str | None = None) -> None:
        """Add an option as it stands."""
        self.command.argv += [f"-{option}"] if value is None else [f"-{option}", value]

    def json(self, option: str, properties: Mapping[str, object]) -> None:
        """Add an option whose value is JSON; None values are left out."""
        table = stripped(properties)
        if option == "device":
            self._override(table)
        self.add(option, json.dumps(table, separators=(",", ":"), ensure_ascii=False))

    def list(self, option: str, *words: str | None, **properties: object) -> None:
        """Add an option of words and name=value pairs with commas between."""
        self.add(option, join(*words, **properties))

    def device(self, driver: str, **properties: object) -> None:
        """Add a device. Names that are not Python's are passed as **{"name": value}."""
        self.json("device", {"driver": driver, **properties})

    def object(self, kind: str, **properties: object) -> None:
        """Add an object."""
        self.json("object", {"qom-type": kind, **properties})

    def need(self, kind: str, what: str) -> None:
        """Refuse what this QEMU does not have.

        Args:
            kind: the device's or object's type.
            what: what the guest's XML calls it, for the message.
        """
        if not self.binary.has(kind):
            raise unsupported(f"{what} is not supported with this QEMU binary")

    def chardev(self, kind: str, name: str, properties: Properties) -> None:
        """Add a character device back end.

        Args:
            kind: the back end's type.
            name: its id.
            properties: its options, as the command line calls them.
        """
        self.add("chardev", join(kind, id=name, **properties))

    def keep(self, descriptor: int) -> int | str:
        """Let QEMU have a descriptor that was opened for it; returns what it is called there."""
        number = confine.raised(descriptor)
        self.command.opened.append(number)
        self.command.fds.append(number)
        return number

    def lend(self, descriptor: int) -> int | str:
        """Let QEMU have a descriptor that belongs to the caller; returns what it is called there."""
        self.command.fds.append(descriptor)
        return descriptor

    def secret(self, name: str, meant: SecretReference, usage: int) -> str:
        """Hand QEMU a secret's value, in memory that only it can reach; returns the object's id.

        Args:
            name: the object's id.
            meant: which secret.
            usage: what it is needed for, VIR_SECRET_USAGE_TYPE_*.

        Raises:
            VirtError: VIR_ERR_NO_SECRET.
        """
        if self.setup.secret is None:
            return self.hidden(name, b"")
        return self.hidden(name, self.setup.secret(meant, usage))

    def hidden(self, name: str, value: bytes) -> str:
        """Hand QEMU something in memory that only it can reach; returns the object's id."""
        if not self.setup.live:
            self.object("secret", id=name, file=f"{name}.value", format="raw")
            return name
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        files.write_all(descriptor, value)
        self.object("secret", id=name, file=f"/proc/self/fd/{self.keep(descriptor)}", format="raw")
        return name

    def uses(self, path: str | None, *, write: bool = False) -> None:
        """Note a file that QEMU opens itself."""
        if path:
            self.command.files.append((path, write))

    def tls(self, name: str, given: Tls, *, endpoint: str) -> str:
        """Let QEMU have the host's certificates; returns the object's id.

        Args:
            name: of what is to be encrypted.
            given: which certificates.
            endpoint: 'client' or 'server'.
        """
        found = f"obj{name}_tls0"
        where = {"dir": given.directory, "endpoint": endpoint, "verify-peer": given.verify}
        self.object("tls-creds-x509", id=found, **where)
        return found

    def makes(self, path: str) -> None:
        """Note, before it is made, a file that has to go with the guest."""
        if self.setup.undo is not None:
            undo.note(self.setup.undo, "file", path=path)

    def fdset(self, path: str, flags: int, mode: int = 0o600) -> str:
        """Open a file for QEMU; returns the path by which QEMU finds it."""
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, mode)
        except OSError as error:
            raise files.os_error(error, f"Unable to open file '{path}'") from None
        return self.lent_set(descriptor, path)

    def lent_set(self, descriptor: int, what: str) -> str:
        """Hand QEMU an open file, which it finds by the path that is returned; `what` is for who looks at the list."""
        number, self._fdsets = self._fdsets, self._fdsets + 1
        self.add_fd(number, descriptor, what)
        return f"/dev/fdset/{number}"

    def passed(self, group: str) -> str:
        """Hand QEMU the descriptors of a group that a client has associated; returns the path QEMU finds them by.

        Raises:
            VirtError: VIR_ERR_INVALID_ARG, no client has.
        """
        descriptors = self.setup.descriptors.get(group, ())
        if not descriptors:
            text = f"file descriptor group '{group}' was not associated with the domain"
            raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_QEMU)
        number, self._fdsets = self._fdsets, self._fdsets + 1
        for descriptor in descriptors:
            self.add_fd(number, os.dup(descriptor), None)
        return f"/dev/fdset/{number}"

    def add_fd(self, number: int, descriptor: int, what: str | None) -> None:
        """Put a descriptor, which becomes QEMU's, into a set."""
        self.add("add-fd", join(set=number, fd=self.keep(descriptor), opaque=what))

    def _override(self, table: Properties) -> None:
        """Change a device's properties as the guest's own <qemu:override> says."""
        for override in self.config.qemu_overrides:
            if override.alias != table.get("id"):
                continue
            for one in override.properties:
                name, value = one.name or "", one.value or ""
                if one.type == "remove":
                    table.pop(name, None)
                elif one.type == "bool":
                    table[name] = value == "true"
                else:
                    table[name] = value if one.type == "string" else int(value)

    def controller(self, kind: str, index: int) -> Controller:
        """The controller of a type with an index.

        Raises:
            VirtError: VIR_ERR_INTERNAL_ERROR if there is none.
        """
        for one in self.config.controllers:
            if one.type == kind and one.index == index and one.info.master_port is None:
                return one
        raise VirtError(
            c.VIR_ERR_INTERNAL_ERROR, f"Could not find a {kind} controller with index {index}", domain=c.VIR_FROM_QEMU
        )

    def bootindex(self, info: Info) -> int | None:
        """A device's place in the boot order."""
        return self.boot_order.get(id(info))


def alias(info: Info) -> str:
    """A device's name in QEMU."""
    assert info.alias is not None, "aliases have not been assigned"
    return info.alias


def unsupported(text: str) -> VirtError:
    """What the guest's configuration asks for cannot be had (VIR_ERR_CONFIG_UNSUPPORTED)."""
    return VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)


def internal(text: str) -> VirtError:
    """VIR_ERR_INTERNAL_ERROR, which libvirt uses for many a wrong value."""
    return VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_QEMU)


def stripped(properties: Mapping[str, object]) -> Properties:
    """The properties without those that are None, at every level."""
    return {
        name: stripped(value) if isinstance(value, Mapping) else None if value is NULL else value
        for name, value in properties.items()
        if value is not None
    }


def escape(value: str) -> str:
    """A value as it stands in a list with commas between."""
    return value.replace(",", ",,")


def on_off(value: bool | None) -> str | None:
    """A switch by QEMU's words for it."""
    return None if value is None else ("on" if value else "off")


def join(*words: str | None, **properties: object) -> str:
    """Words and name=value pairs with commas between."""
    parts = [word for word in words if word is not None]
    for name, value in properties.items():
        if isinstance(value, bool):
            parts.append(f"{name}={on_off(value)}")
        elif value is not None:
            parts.append(f"{name}={escape(str(value))}")
    return ",".join(parts)


def devices_with_boot_order(config: Domain) -> Iterator[Info]:
    """What may have a place in the boot order of its own."""
    for disk in config.disks:
        yield disk.info
    for interface in config.interfaces:
        yield interface.info
    for hostdev in config.hostdevs:
        yield hostdev.info
    for redirdev in config.redirdevs:
        yield redirdev.info
    for filesystem in config.filesystems:
        yield filesystem.info
