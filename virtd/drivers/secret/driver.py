"""The procedures of secrets."""

from collections.abc import Iterator
from contextlib import AbstractContextManager

from virtd import constants as c
from virtd import uuids
from virtd.conf.secret import Secret, format_secret, parse_secret
from virtd.conf.xml import schema
from virtd.conf.xml.document import parse_document
from virtd.drivers.base import Context, Event
from virtd.drivers.secret import values
from virtd.drivers.secret.store import Entry, Secrets
from virtd.drivers.service import Service
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol import records
from virtd.state import files, journal
from virtd.state.commit import Change
from virtd.state.definitions import mending

# virConnectListAllSecrets: pairs of flags, of which a secret must meet one in each pair that is asked for at all.
_LIST_FLAGS = (
    (c.VIR_CONNECT_LIST_SECRETS_EPHEMERAL, c.VIR_CONNECT_LIST_SECRETS_NO_EPHEMERAL, "ephemeral"),
    (c.VIR_CONNECT_LIST_SECRETS_PRIVATE, c.VIR_CONNECT_LIST_SECRETS_NO_PRIVATE, "private"),
)
# In the order of VIR_SECRET_EVENT_ID_*: the index is the event's id.
_EVENTS = (("lifecycle", "SECRET_EVENT_LIFECYCLE"), ("value-changed", "SECRET_EVENT_VALUE_CHANGED"))
_EVENT_IDS = {name: number for number, (name, _) in enumerate(_EVENTS)}


class SecretDriver(Service):
    """Secrets of one instance."""

    error_domain = c.VIR_FROM_SECRET
    scheme = "secret"
    noun = "secret"
    # Not those that see a value: it goes with the process.
    REPEATED = frozenset({"secret_define_xml", "secret_undefine"})

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.secrets = Secrets(context.paths, self.generation)

    # Lists and look-ups

    def connect_num_of_secrets(self) -> int:
        """virConnectNumOfSecrets."""
        return len(self.secrets.view())

    def connect_list_secrets(self, most: int) -> list[str]:
        """virConnectListSecrets: UUIDs."""
        return list(self.secrets.view())[: max(0, most)]

    def connect_list_all_secrets(self, need_results: int, flags: int) -> tuple[list[records.Secret], int]:
        """virConnectListAllSecrets."""
        known = sum(yes | no for yes, no, _ in _LIST_FLAGS)
        unsupported_flags(flags, known, "secretConnectListAllSecrets")
        found = [entry.reference for entry in self.secrets.view().values() if _listed(entry.config, flags)]
        return found if need_results else [], len(found)

    def secret_lookup_by_uuid(self, uuid: bytes) -> records.Secret:
        """virSecretLookupByUUID."""
        return self.secrets.find(uuids.to_text(uuid)).reference

    def secret_lookup_by_usage(self, usage_type: int, usage_id: str) -> records.Secret:
        """virSecretLookupByUsage."""
        return self.secrets.find_usage(usage_type, usage_id).reference

    def secret_get_xml_desc(self, secret: records.Secret, flags: int) -> str:
        """virSecretGetXMLDesc."""
        unsupported_flags(flags, 0, "secretGetXMLDesc")
        return format_secret(self._find(secret).config)

    # Definitions

    def secret_define_xml(self, xml: str, flags: int) -> records.Secret:
        """virSecretDefineXML."""
        unsupported_flags(flags, c.VIR_SECRET_DEFINE_VALIDATE, "secretDefineXML")
        if flags & c.VIR_SECRET_DEFINE_VALIDATE:
            schema.validate(parse_document(xml, "definition_of_secret", domain=c.VIR_FROM_SECRET), "secret.rng")
        entry = self.secrets.entry(parse_secret(xml))
        with self._locked("virSecretDefineXML"):
            before = self._check(entry)
            pending = files.prepare(
                entry.path, format_secret(entry.config).encode(), durable=not entry.config.ephemeral
            )
            moved = self._moved_value(before, entry)
            with self.generation.commit() as change:
                if moved is not None:
                    change.publish(moved)
                change.publish(pending)
                if before is not None and before.path != entry.path:
                    change.remove(before.path, durable=True)
                    change.remove(before.value_path, durable=True)
                _tell(change, entry, "lifecycle", c.VIR_SECRET_EVENT_DEFINED, 0)
        return entry.reference

    def secret_undefine(self, secret: records.Secret) -> None:
        """virSecretUndefine."""
        with self._locked("virSecretUndefine"):
            entry = self._find(secret)
            with self.generation.commit() as change:
                # The definition last: what is left of a clean-up that was cut short can be undefined again.
                change.remove(entry.value_path, durable=True)
                change.remove(entry.path, durable=True)
                _tell(change, entry, "lifecycle", c.VIR_SECRET_EVENT_UNDEFINED, 0)

    # Values

    def secret_set_value(self, secret: records.Secret, value: bytes, flags: int) -> None:
        """virSecretSetValue."""
        unsupported_flags(flags, 0, "secretSetValue")
        if not value:
            text = "value in virSecretSetValue must not be NULL"
            raise VirtError.invalid_argument("virSecretSetValue", "value", text, domain=c.VIR_FROM_SECRET)
        with self._locked("virSecretSetValue"):
            entry = self._find(secret)
            content = values.encrypt(self.paths, entry.uuid, value)
            pending = files.prepare(entry.value_path, content, durable=not entry.config.ephemeral)
            with self.generation.commit() as change:
                change.publish(pending)
                _tell(change, entry, "value-changed")

    def secret_get_value(self, secret: records.Secret, flags: int) -> bytes:
        """virSecretGetValue."""
        unsupported_flags(flags, 0, "secretGetValue")
        entry = self._find(secret)
        if entry.config.private:
            raise VirtError(c.VIR_ERR_INVALID_SECRET, "secret is private", domain=c.VIR_FROM_SECRET)
        return self.secrets.value(entry)

    # Events

    def connect_secret_event_register_any(self, event_id: int, secret: records.Secret | None) -> int:
        """virConnectSecretEventRegisterAny."""
        return self.callbacks.register(event_id, len(_EVENTS), None if secret is None else secret.uuid)

    def connect_secret_event_deregister_any(self, callback: int) -> None:
        """virConnectSecretEventDeregisterAny."""
        self.callbacks.deregister(callback)

    def messages(self, record: journal.Record) -> Iterator[Event]:
        """The messages for this client that a record leads to."""
        event_id = _EVENT_IDS.get(str(record.get("name")))
        match record.get("secret"), record.get("args"):
            case [str(uuid), int(usage_type), str(usage_id)], [*arguments] if event_id is not None:
                secret = records.Secret(uuids.to_bytes(uuid), usage_type, usage_id)
            case _:
                return
        for callback in self.callbacks.wanted(event_id, secret.uuid):
            yield Event("remote", _EVENTS[event_id][1], (callback, secret, *arguments))

    # Helpers

    def _locked(self, call: str) -> AbstractContextManager[None]:
        return mending(self.secrets.lock_path, call, self.secrets.mend, what="lock of the secrets")

    def _find(self, secret: records.Secret) -> Entry:
        return self.secrets.find(uuids.to_text(secret.uuid))

    def _check(self, entry: Entry) -> Entry | None:
        """The secret that is redefined, if one is; libvirt lets neither change its usage nor lose its privacy.

        Raises:
            VirtError: VIR_ERR_INTERNAL_ERROR.
        """
        config = entry.config
        before = self.secrets.view().get(entry.uuid)
        text = None
        if before is not None:
            known = before.config
            if (known.usage_type, known.usage_id) != (config.usage_type, config.usage_id):
                usage = known.usage_id or "(null)"
                text = f"a secret with UUID {entry.uuid} is already defined for use with {usage}"
            elif known.private and not config.private:
                text = "cannot change private flag on existing secret"
        else:
            other = self.secrets.with_usage(config.usage_type, config.usage_id)
            if other is not None:
                text = f"a secret with UUID {other.uuid} already defined for use with {config.usage_id}"
        if text is not None:
            raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_SECRET)
        return before

    def _moved_value(self, before: Entry | None, entry: Entry) -> files.Pending | None:
        """The value, prepared for another directory if the secret changes between lasting and ephemeral."""
        if before is None or before.directory == entry.directory:
            return None
        content = files.read(before.value_path)
        return None if content is None else files.prepare(entry.value_path, content, durable=not entry.config.ephemeral)


def _listed(config: Secret, flags: int) -> bool:
    return all(
        not flags & (yes | no) or flags & (yes if getattr(config, name) else no) for yes, no, name in _LIST_FLAGS
    )


def _tell(change: Change, entry: Entry, name: str, *arguments: int) -> None:
    secret = [entry.uuid, entry.config.usage_type, entry.config.usage_id]
    change.event("secret", name, secret=secret, args=list(arguments))
