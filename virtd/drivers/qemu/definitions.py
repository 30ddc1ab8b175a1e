"""The persistent side of guests: define, undefine, rename, autostart, and the metadata in definition and live XML.

All changes of definitions, and all claims of a name or uuid by a starting guest, happen under one lock, so that no
two guests ever share either.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from virtd import constants as c
from virtd import uuids
from virtd.conf.domain import Domain as Config
from virtd.drivers.qemu import stored
from virtd.drivers.qemu.descriptors import Descriptors
from virtd.drivers.qemu.guest import identity
from virtd.drivers.qemu.guests import Entry
from virtd.drivers.qemu.run import tpm
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain
from virtd.state import files, undo
from virtd.state.commit import Change

_UNDEFINE_FLAGS = (
    c.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | c.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | c.VIR_DOMAIN_UNDEFINE_NVRAM
    | c.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
    | c.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | c.VIR_DOMAIN_UNDEFINE_TPM
    | c.VIR_DOMAIN_UNDEFINE_KEEP_TPM
)

_NVRAM = c.VIR_DOMAIN_UNDEFINE_NVRAM


class Definitions(Descriptors):
    """Defining and undefining guests."""

    REPEATED = frozenset({"domain_define_xml", "domain_define_xml_flags", "domain_undefine", "domain_undefine_flags"})

    @contextmanager
    def definitions_locked(self, call: str) -> Iterator[None]:
        """Keep all others from changing definitions, and from starting guests that are not defined.

        Args:
            call: libvirt's name of the call, for the messages of those who wait.
        """
        with self.guests.definitions.locked(self.guests.definitions_lock, call, what="lock of the definitions"):
            yield

    def check_unique(self, config: Config) -> Entry | None:
        """The guest of the same name and uuid, None if there is none.

        Raises:
            VirtError: VIR_ERR_OPERATION_FAILED: there is a guest that has only the name, or only the uuid.
        """
        view = self.guests.view()
        uuid, name = identity(config)
        same_uuid, same_name = view.by_uuid.get(uuid), view.by_name.get(name)
        if same_uuid is not None and same_uuid.name != name:
            text = f"domain '{same_uuid.name}' is already defined with uuid {uuid}"
            raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_DOMAIN)
        if same_name is not None and same_name.uuid != uuid:
            raise _taken(name, same_name.uuid)
        for claim in self.guests.starting():
            if claim.name == name and claim.uuid != uuid:
                raise _taken(name, claim.uuid)
        return same_uuid

    def save_definition(self, config: Config) -> files.Pending:
        """Write a definition to disk; the definitions' lock is held, and the caller publishes it in a commit."""
        _, name = identity(config)
        return self.guests.definitions.prepare(name, stored.write(config))

    def domain_define_xml(self, xml: str) -> Domain:
        """virDomainDefineXML."""
        return self.domain_define_xml_flags(xml, 0)

    def domain_define_xml_flags(self, xml: str, flags: int) -> Domain:
        """virDomainDefineXMLFlags."""
        unsupported_flags(flags, c.VIR_DOMAIN_DEFINE_VALIDATE, "qemuDomainDefineXMLFlags")
        config = self.read_config(xml, validate=bool(flags & c.VIR_DOMAIN_DEFINE_VALIDATE))
        with self.definitions_locked("virDomainDefineXML"):
            before = self.check_unique(config)
            pending = self.save_definition(config)
            detail = c.VIR_DOMAIN_EVENT_DEFINED_ADDED if before is None else c.VIR_DOMAIN_EVENT_DEFINED_UPDATED
            with self.generation.commit() as change:
                change.publish(pending)
                uuid, name = identity(config)
                reference = Domain(name, uuids.to_bytes(uuid), -1 if before is None else before.id)
                self.lifecycle_event(change, reference, c.VIR_DOMAIN_EVENT_DEFINED, detail)
        return reference

    def domain_undefine(self, domain: Domain) -> None:
        """virDomainUndefine."""
        self.domain_undefine_flags(domain, 0)

    def domain_undefine_flags(self, domain: Domain, flags: int) -> None:
        """virDomainUndefineFlags."""
        unsupported_flags(flags, _UNDEFINE_FLAGS, "qemuDomainUndefineFlags")
        for first, second, what in (
            (c.VIR_DOMAIN_UNDEFINE_NVRAM, c.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM, "nvram"),
            (c.VIR_DOMAIN_UNDEFINE_TPM, c.VIR_DOMAIN_UNDEFINE_KEEP_TPM, "TPM"),
        ):
            if flags & first and flags & second:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, f"cannot both keep and delete {what}")
        with self.definitions_locked("virDomainUndefineFlags"):
            entry = self.guests.find(domain)
            if not entry.persistent:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, "cannot undefine transient domain")
            variables = self._variables(entry)
            if variables is not None and not flags & (_NVRAM | c.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM):
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, "cannot undefine domain with nvram")
            keep_tpm = self._keeps_tpm(entry, flags)
            with self.generation.commit() as change:
                # The link goes last: the next who changes a definition removes one that leads nowhere.
                change.remove(self.guests.definitions.path(entry.name), durable=True)
                change.remove(self.guests.definitions.autostart_path(entry.name))
                if not entry.active:
                    change.remove(self.guests.last_state_path(entry.uuid))
                if variables is not None and flags & _NVRAM:
                    change.remove(variables)
                self.lifecycle_event(
                    change, entry.reference, c.VIR_DOMAIN_EVENT_UNDEFINED, c.VIR_DOMAIN_EVENT_UNDEFINED_REMOVED
                )

            if not keep_tpm:
                tpm.remove_state(tpm.state_directory(self.paths.state, entry.uuid))
        undo.retry(self.guests.running)

    def _variables(self, entry: Entry) -> str | None:
        """The file of a guest's UEFI variables; None if it has none."""
        nvram = self.config(entry).os.nvram
        # Where the firmware is chosen at the start, the place of its variables follows from the guest's name.
        path = nvram.path if nvram is not None else f"{self.paths.state}/qemu/nvram/{entry.name}_VARS.fd"
        return path if path is not None and os.path.exists(path) else None

    def _keeps_tpm(self, entry: Entry, flags: int) -> bool:
        """Whether the state of a guest's emulated TPM stays when the guest is undefined."""
        backend = tpm.emulator(self.config(entry))
        if backend is None or flags & c.VIR_DOMAIN_UNDEFINE_TPM:
            return False
        return bool(flags & c.VIR_DOMAIN_UNDEFINE_KEEP_TPM) or bool(backend.persistent_state)

    def domain_rename(self, domain: Domain, new_name: str | None, flags: int) -> int:
        """virDomainRename."""
        unsupported_flags(flags, 0, "qemuDomainRename")
        if not new_name:
            text = "string new_name in virDomainRename must not be empty"
            raise VirtError.invalid_argument("virDomainRename", "new_name", text, domain=c.VIR_FROM_DOMAIN)
        if "/" in new_name:
            raise VirtError(c.VIR_ERR_XML_ERROR, f"name {new_name} cannot contain '/'")
        with self.definitions_locked("virDomainRename"):
            entry = self.guests.find(domain)
            if entry.active:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, "cannot rename active domain")
            if new_name == entry.name:
                text = "Can't rename domain to itself"
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_DOMAIN)
            if new_name in self.guests.view().by_name:
                text = f"domain with name '{new_name}' already exists"
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, text, domain=c.VIR_FROM_DOMAIN)
            config = self.config(entry).copy()
            config.name = new_name
            pending = self.save_definition(config)
            renamed = entry.reference._replace(name=new_name)
            with self.generation.commit() as change:
                # Whoever dies here leaves a guest that has the old name, or the new one: what counts is the name of its
                # file, not that in it. A link that leads nowhere is removed by the next who changes a definition.
                definitions = self.guests.definitions
                if entry.autostart:
                    definitions.link_autostart(new_name, change)
                change.rename(definitions.path(entry.name), definitions.path(new_name))
                change.publish(pending)
                change.remove(definitions.autostart_path(entry.name))
                self.lifecycle_event(
                    change, entry.reference, c.VIR_DOMAIN_EVENT_UNDEFINED, c.VIR_DOMAIN_EVENT_UNDEFINED_RENAMED
                )
                self.lifecycle_event(change, renamed, c.VIR_DOMAIN_EVENT_DEFINED, c.VIR_DOMAIN_EVENT_DEFINED_RENAMED)
        return 0

    def domain_set_autostart(self, domain: Domain, autostart: int) -> None:
        """virDomainSetAutostart."""
        with self.definitions_locked("virDomainSetAutostart"):
            entry = self.guests.find(domain)
            if not entry.persistent:
                raise VirtError(c.VIR_ERR_OPERATION_INVALID, "cannot set autostart for transient domain")
            if bool(autostart) == entry.autostart:
                return
            with self.generation.commit() as change:
                if autostart:
                    self.guests.definitions.link_autostart(entry.name, change)
                else:
                    change.remove(self.guests.definitions.autostart_path(entry.name), durable=True)

    def lifecycle_event(self, change: Change, domain: Domain, event: int, detail: int) -> None:
        """Tell of a life cycle event which the caller causes by the commit that it is in."""
        self.domain_event(change, domain, "lifecycle", event, detail)

    def domain_event(self, change: Change, domain: Domain, name: str, *arguments: object) -> None:
        """Tell of an event of a guest, as subscriptions.KINDS names it."""
        change.event("qemu", name, domain=[domain.name, uuids.to_text(domain.uuid), domain.id], args=list(arguments))


def _taken(name: str, uuid: str) -> VirtError:
    """The error for a name that another guest has."""
    text = f"domain '{name}' already exists with uuid {uuid}"
    return VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_DOMAIN)
