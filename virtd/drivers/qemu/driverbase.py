"""What all parts of the QEMU driver stand on: the instance's guests, and what QEMU and the host can do.

Whoever only asks which guests there are reads no XML and needs no capabilities: what does is imported where it is used.
"""

from __future__ import annotations

import os

from virtd import constants as c
from virtd.drivers.base import Context, Driver
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.guests import Entry, Guests
from virtd.errors import VirtError
from virtd.protocol.records import Domain
from virtd.state import files, kept
from virtd.state.commit import Generation
from virtd.state.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtd.conf.domain import Domain as Config
    from virtd.drivers.qemu.host.capabilities import Capabilities
    from virtd.drivers.qemu.status import Status

# How many parsed definitions a process keeps: as many as a busy management client asks for again and again.
PARSED_KEPT = 256


class Instance:
    """What a process knows of one instance, whoever its clients are: nothing that is not on disk.

    It outlives connections, so that a process which serves one client after another need not read everything anew.
    """

    def __init__(self, paths: Paths) -> None:
        self.generation = Generation(paths.runtime)
        self.guests = Guests(paths, self.generation)
        self._paths = paths
        self._capabilities: Capabilities | None = None
        self.parsed: dict[str, tuple[files.Identity, Config]] = {}

    @property
    def capabilities(self) -> Capabilities:
        """What QEMU and the host can do."""
        if self._capabilities is None:
            from virtd.drivers.qemu.host.capabilities import Capabilities

            self._capabilities = Capabilities(self._paths)
        return self._capabilities


_instances: dict[Paths, Instance] = {}


def instance(paths: Paths) -> Instance:
    """What this process knows of an instance."""
    found = _instances.get(paths)
    if found is None:
        found = _instances[paths] = Instance(paths)
    return found


def without(config: Config, aliases: Sequence[str]) -> Config:
    """A copy of a live configuration, less the devices of some aliases."""
    from virtd.drivers.qemu.plug.config import take_out
    from virtd.drivers.qemu.plug.kinds import all_devices

    config = config.copy()
    for kind, device in list(all_devices(config)):
        if device.info.alias in aliases:
            take_out(config, kind, device)
    return config


def brought_up_to_date(config: Config, status: Status) -> Config:
    """A copy of a live configuration with what QEMU has reported since: devices that have gone, channels in use."""
    config = without(config, status.gone)
    for channel in config.channels:
        _, channel.state = status.channels.get(channel.info.alias or "", ("", channel.state))
    return config


class DriverBase(Driver):
    """Base of the driver's parts, each of which adds the procedures of one subject."""

    error_domain = c.VIR_FROM_QEMU

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.paths = context.paths
        self.instance = instance(context.paths)
        self.generation = self.instance.generation
        self.guests = self.instance.guests
        # What the client has associated with guests (descriptors.py): uuid → group → descriptors.
        self.descriptors: dict[str, dict[str, list[int]]] = {}
        self._prepare()

    def _prepare(self) -> None:
        """For the parts: set up what they keep for the connection."""

    @property
    def capabilities(self) -> Capabilities:
        """What QEMU and the host can do."""
        return self.instance.capabilities

    def clean(self) -> bool:
        # A guest that is bound to this process must not outlive its client because the process serves another one.
        owner = self.context.owner
        bound = any(
            entry.status and entry.status.owner and entry.status.owner.pid == owner for entry in self.guests.view()
        )
        return super().clean() and not bound

    @classmethod
    def share(cls, paths: Paths) -> None:
        instance(paths)

    @classmethod
    def unshare(cls, paths: Paths) -> None:
        _instances.pop(paths, None)

    def refresh(self) -> None:
        self.guests.view()
        self.capabilities.recall()

    def running(self, domain: Domain) -> tuple[Entry, Status]:
        """A guest that runs.

        Raises:
            VirtError: VIR_ERR_NO_DOMAIN, or VIR_ERR_OPERATION_INVALID if it does not run.
        """
        entry = self.guests.find(domain)
        if entry.status is None:
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is not running", domain=c.VIR_FROM_DOMAIN)
        return entry, entry.status

    def guest(self, entry: Entry) -> Guest:
        """The directory of a guest that runs."""
        return self.guests.guest(entry)

    def config(self, entry: Entry) -> Config:
        """The persistent definition of a guest. It is shared by all who ask: copy it to change it.

        Raises:
            VirtError: VIR_ERR_NO_DOMAIN, the definition has gone meanwhile; or what is wrong with it.
        """
        return self._parse(self.guests.definitions.path(entry.name), entry, live=False)

    def live(self, entry: Entry) -> Config:
        """What a running guest is at the moment. It is shared by all who ask: copy it to change it.

        Raises:
            VirtError: VIR_ERR_OPERATION_INVALID, the guest has ended meanwhile.
        """
        config, status = self.whole(entry), entry.status
        return config if status is None or status.as_written else brought_up_to_date(config, status)

    def whole(self, entry: Entry) -> Config:
        """As live(), with what the guest has let go of since the live XML was written."""
        guest = self.guest(entry)
        secure = os.path.exists(guest.secure_path) and os.path.getsize(guest.secure_path) > 0
        return self._parse(guest.secure_path if secure else guest.live_path, entry, live=True)

    def current(self, entry: Entry) -> Config:
        """The live configuration of a guest that runs, else the persistent one."""
        return self.live(entry) if entry.active else self.config(entry)

    def read_config(self, xml: str, *, validate: bool) -> Config:
        """A configuration that a client hands in.

        Args:
            xml: the document.
            validate: hold it against libvirt's schema first.

        Raises:
            VirtError: what is wrong with it.
        """
        from virtd.conf.domain import parse_domain
        from virtd.conf.xml import schema
        from virtd.conf.xml.document import parse_document

        if validate:
            schema.validate(parse_document(xml, "domain_definition", domain=c.VIR_FROM_DOMAIN), "domain.rng")
        return parse_domain(xml, self.capabilities.host())

    def exclusive_flags(self, flags: int, function: str, argument: str = "ctl") -> None:
        """Refuse a question about the live and the persistent configuration at once.

        Raises:
            VirtError: VIR_ERR_INVALID_ARG.
        """
        self.one_of(flags, ("VIR_DOMAIN_AFFECT_LIVE", "VIR_DOMAIN_AFFECT_CONFIG"), function, argument)

    def one_of(self, flags: int, names: Sequence[str], function: str, argument: str = "ctl") -> None:
        """Refuse flags of which only one can be meant.

        Args:
            flags: the call's.
            names: the constants' names, each but the first excluded by those before it.
            function: libvirt's name of the function, for the message.
            argument: what the message is about, for programs.

        Raises:
            VirtError: VIR_ERR_INVALID_ARG, naming two of them.
        """
        given = [name for name in names if flags & getattr(c, name)]
        if len(given) > 1:
            text = f"Flags '{given[0]}' and '{given[1]}' are mutually exclusive"
            raise VirtError.invalid_argument(function, argument, text, domain=c.VIR_FROM_DOMAIN)

    def affected(self, entry: Entry, flags: int) -> Config:
        """The configuration that VIR_DOMAIN_AFFECT_* flags of a call mean: live, persistent, or the current one.

        Raises:
            VirtError: VIR_ERR_OPERATION_INVALID, there is none: the guest does not run, or is transient.
        """
        live, _ = self.affects(entry, flags)
        return self.live(entry) if live else self.config(entry)

    def affects(self, entry: Entry, flags: int) -> tuple[bool, bool]:
        """Whether VIR_DOMAIN_AFFECT_* flags mean the live and the persistent configuration of a guest.

        Raises:
            VirtError: VIR_ERR_OPERATION_INVALID, it does not have what they mean.
        """
        live = bool(flags & c.VIR_DOMAIN_AFFECT_LIVE)
        config = bool(flags & c.VIR_DOMAIN_AFFECT_CONFIG)
        if not (live or config):
            live, config = entry.active, not entry.active
        if live and not entry.active:
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is not running", domain=c.VIR_FROM_DOMAIN)
        if config and not entry.persistent:
            text = "transient domains do not have any persistent config"
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_DOMAIN)
        return live, config

    def _parse(self, path: str, entry: Entry, *, live: bool) -> Config:
        from virtd.drivers.qemu import stored

        def make(content: bytes) -> Config:
            config = stored.read(content, self.capabilities.host(), live=live)
            config.name = entry.name  # that of the file counts: a rename may have been cut short
            return config

        config = kept.get(self.instance.parsed, path, make, most=PARSED_KEPT)
        if config is not None:
            return config
        if live:
            raise VirtError(c.VIR_ERR_OPERATION_INVALID, "domain is not running", domain=c.VIR_FROM_QEMU)
        raise self.guests.kind.error(f"name '{entry.name}'")
