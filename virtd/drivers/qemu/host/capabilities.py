"""What this instance can run: emulators found and probed, KVM if it works, the user guests run as, the host itself.

Everything is found out when it is first asked for, and kept by the modules it comes from. The XML documents made of
it are capsxml.py's and domaincaps.py's.
"""

import os
import uuid
from contextlib import suppress

from virtd import constants as c
from virtd.conf import host as model
from virtd.conf.domain import Domain, basics
from virtd.drivers.qemu.host import arches, hostfacts, kvm, probe, settings, written
from virtd.drivers.qemu.host.arches import host_arch
from virtd.drivers.qemu.host.binary import Binary
from virtd.drivers.qemu.run import confine
from virtd.errors import VirtError
from virtd.state import files
from virtd.state.paths import Paths

# What distributions call the emulator of the host's own architecture, beside QEMU's name.
_OWN_NAMES = ("qemu-kvm", "kvm")


class Capabilities:
    """What one instance can run.

    Args:
        paths: the instance's directories.
        user: the configured user of guests in system mode, if any.
        group: his configured group.
    """

    def __init__(self, paths: Paths, *, user: str | None = None, group: str | None = None) -> None:
        self.paths = paths
        self._configured = user, group
        self._user: tuple[confine.User | None] | None = None
        self._host: Host | None = None
        self._uuid: str | None = None
        self._written = written.Written(paths.cache)
        self._found: tuple[object, list[str]] | None = None
        self._recalled = False

    @property
    def user(self) -> confine.User | None:
        """Who guests run as; None for who runs this."""
        if self._user is None:
            said = self.settings()
            user, group = self._configured[0] or said.user, self._configured[1] or said.group
            self._user = (confine.find_user(privileged=self.paths.privileged, user=user, group=group),)
        return self._user[0]

    def settings(self) -> settings.Settings:
        """What qemu.conf says.

        Raises:
            VirtError: VIR_ERR_CONF_SYNTAX.
        """
        return settings.load(self.paths.config)

    def kvm(self) -> kvm.Kvm:
        """Whether KVM works here."""
        return kvm.check(self.paths.cache)

    def binary(self, path: str, *, accelerator: str = "tcg") -> Binary:
        """What an emulator can do.

        Raises:
            VirtError: there is no such emulator, or it is none.
        """
        return probe.probe(path, self.paths.cache, accelerator=accelerator, user=self.user)

    def recall(self) -> None:
        """Take from the disk what is known of the host's own emulator, for processes that are forked later."""
        if not self._recalled:
            path = self.find_emulator(host_arch())
            with suppress(VirtError):  # whoever needs it is told
                self._recalled = path is not None and probe.recall(path, self.paths.cache)

    def binary_for(self, config: Domain) -> Binary:
        """The emulator that a guest is started with, with its accelerator.

        Raises:
            VirtError: VIR_ERR_CONFIG_UNSUPPORTED: the guest needs KVM, with the reason why there is none.
        """
        path = config.emulator or self.emulator(config.os.arch or self.host().arch)
        if config.type != "kvm":
            return self.binary(path)
        usable, reason = self.kvm()
        if not usable:
            raise VirtError(
                c.VIR_ERR_CONFIG_UNSUPPORTED,
                f"Emulator '{path}' does not support virt type 'kvm': {reason}",
                domain=c.VIR_FROM_QEMU,
            )
        return self.binary(path, accelerator="kvm")

    def emulator(self, arch: str) -> str:
        """The path of the emulator for an architecture.

        Raises:
            VirtError: VIR_ERR_CONFIG_UNSUPPORTED if there is none.
        """
        found = self.find_emulator(arch)
        if found is None:
            raise VirtError(
                c.VIR_ERR_CONFIG_UNSUPPORTED, f"No emulator found for arch '{arch}'", domain=c.VIR_FROM_QEMU
            )
        return found

    def find_emulator(self, arch: str) -> str | None:
        """The path of the emulator for an architecture; None if there is none."""
        entry = arches.find(arch)
        if entry is None:
            return None
        own = host_arch() == arch
        # A binary for a wider architecture runs the narrower one's guests as well.
        targets = [entry.target, *(target for target, runs in arches.RUNS.items() if arch in runs[1:])]
        names = [f"qemu-system-{target}" for target in targets] + list(_OWN_NAMES if own else ())
        for name in names:
            for place in written.PLACES:
                if os.access(f"{place}/{name}", os.X_OK):
                    return f"{place}/{name}"
        return None

    def host(self) -> "Host":
        """The host as the XML models want to know it."""
        if self._host is None:
            self._host = Host(self)
        return self._host

    def version(self) -> int:
        """virConnectGetVersion: of the emulator for the host's own architecture."""
        major, minor, micro = self.binary(self.emulator(host_arch())).version
        return major * 1_000_000 + minor * 1000 + micro

    def node_info(self) -> tuple[bytes, int, int, int, int, int, int, int]:
        """virNodeGetInfo: CPU model, memory in KiB, CPUs, MHz, NUMA nodes, sockets, cores, threads."""
        place = hostfacts.topology()
        return (
            host_arch().encode(),
            hostfacts.memory_kib(),
            len(place.cpus),
            hostfacts.processor().mhz,
            place.nodes,
            place.sockets,
            place.cores * place.dies,
            place.threads,
        )

    def host_uuid(self) -> str:
        """The host's own UUID: its firmware's, or one that is made once and kept."""
        if self._uuid is None:
            self._uuid = self._find_uuid()
        return self._uuid

    def _find_uuid(self) -> str:
        for path in ("/sys/class/dmi/id/product_uuid", "/sys/devices/virtual/dmi/id/product_uuid"):
            try:
                with open(path, encoding="ascii", errors="replace") as file:
                    found = uuid.UUID(file.read().strip())
            except (OSError, ValueError):
                continue
            # Some firmware has nothing but one digit in it.
            if len(set(found.hex)) > 1:
                return str(found)
        path = f"{self.paths.state}/host-uuid"
        content = files.read(path)
        try:
            return str(uuid.UUID((content or b"").decode("ascii", "replace").strip()))
        except ValueError:
            made = str(uuid.uuid4())
            files.make_directory(self.paths.state)
            files.replace(path, f"{made}\n".encode(), durable=True, mode=0o644)
            return made

    def xml(self) -> str:
        """virConnectGetCapabilities."""
        from virtd.drivers.qemu.host import capsxml  # asked for once in a connection's life, if at all

        own = self._identity(), self.host_uuid(), *map(written.emulator, self._emulators())
        return self._written.get(("capabilities",), own, lambda: capsxml.write(self))

    def domain_xml(self, emulator: str | None, arch: str | None, machine: str | None, virt_type: str | None) -> str:
        """virConnectGetDomainCapabilities."""
        from virtd.drivers.qemu.host import domaincaps  # as above

        asked = emulator, arch, machine, virt_type
        path = emulator or self.find_emulator(arch or host_arch())
        own = self._identity(), written.emulator(path)
        return self._written.get(("domain", *asked), own, lambda: domaincaps.write(self, *asked))

    def _emulators(self) -> list[str]:
        """The emulators there are; they are looked for again only if something has come or gone where they may be."""
        where = written.places()
        if self._found is None or self._found[0] != where:
            paths = [self.find_emulator(arch.name) for arch in arches.ARCHES]
            self._found = where, [path for path in dict.fromkeys(paths) if path is not None]
        return self._found[1]

    def _identity(self) -> str | None:
        """Who guests run as, as documents depend on it."""
        return None if self.user is None else self.user.label

    def cpu_model_names(self, arch: str) -> list[str]:
        """virConnectGetCPUModelNames: all that libvirt knows for an architecture, whatever the emulator has."""
        if arch not in basics.ARCHES:
            raise VirtError(c.VIR_ERR_INVALID_ARG, f"cannot find architecture {arch}", domain=c.VIR_FROM_QEMU)
        from virtd.conf.cpu import generic, x86, x86map  # as above

        return list(x86map.models()) if arch in x86.ARCHES else generic.models(arch)


class _VirtTypes(frozenset[str]):
    """The domain types that work. Whether KVM does is found out only when somebody asks for it."""

    _capabilities: Capabilities

    @classmethod
    def of(cls, capabilities: Capabilities) -> "_VirtTypes":
        """The types that work with an instance's emulators."""
        types = cls(("qemu",))
        types._capabilities = capabilities
        return types

    def __contains__(self, kind: object) -> bool:
        return kind == "qemu" or (kind == "kvm" and self._capabilities.kvm().usable)


class Host(model.Host):
    """The models' view of the host, filled in from probing whatever emulator they ask for."""

    __slots__ = ("_capabilities",)

    def __init__(self, capabilities: Capabilities) -> None:
        super().__init__(
            arch=host_arch(),
            emulators={},
            default_emulators={},
            nvram_dir=f"{capabilities.paths.state}/qemu/nvram",
            channel_dir=f"{capabilities.paths.runtime}/channel",
            settings=_settings(capabilities.settings()),
        )
        self._capabilities = capabilities

    def emulator(self, path: str) -> model.Emulator:
        """The emulator at a path."""
        binary = self._capabilities.binary(path)
        known = self.emulators.get(path)
        if known is None or known.devices is not binary.types:
            known = self.emulators[path] = _emulator(binary, self._capabilities)
        return known

    def why_not(self, kind: str) -> str:
        """Why a domain type does not work here, for people; '' if it is just not one of the emulator's."""
        return self._capabilities.kvm().reason if kind == "kvm" else ""

    def emulator_for(self, arch: str) -> str:
        """The path of the emulator for an architecture."""
        return self._capabilities.emulator(arch)


def _settings(said: settings.Settings) -> frozenset[str]:
    """What of qemu.conf the models' rules depend on."""
    return frozenset(name for name, on in (("vnc_tls", said.vnc.wanted), ("spice_tls", said.spice.wanted)) if on)


def _emulator(binary: Binary, capabilities: Capabilities) -> model.Emulator:
    suffix = f"-{binary.target}-cpu"
    machines: dict[str, model.Machine] = {}
    for machine in binary.machines:
        if machine.name == "none":
            continue
        cpu = (machine.cpu or "").removesuffix(suffix)
        machines[machine.name] = model.Machine(machine.name, machine.max_cpus, cpu)
        if machine.alias:
            machines[machine.alias] = machines[machine.name]
    default = binary.default_machine
    return model.Emulator(
        path=binary.path,
        arches=arches.RUNS.get(binary.target, ()),
        virt_types=_VirtTypes.of(capabilities),
        machines=machines,
        default_machine=(default.alias or default.name) if default else "",
        devices=binary.types,
        cpu_models=frozenset(cpu.name for cpu in binary.cpu_models),
    )
