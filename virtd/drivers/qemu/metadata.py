"""Title, description and the users' own elements, in the definition and in the live XML."""

from virtd import constants as c
from virtd.conf.domain import Domain as Config
from virtd.conf.xml.metadata import extract, replaced
from virtd.drivers.qemu.definitions import Definitions
from virtd.errors import VirtError, unsupported_flags
from virtd.protocol.records import Domain

_AFFECT = c.VIR_DOMAIN_AFFECT_LIVE | c.VIR_DOMAIN_AFFECT_CONFIG


class Metadata(Definitions):
    """virDomainGetMetadata and virDomainSetMetadata."""

    def domain_get_metadata(self, domain: Domain, kind: int, uri: str | None, flags: int) -> str:
        """virDomainGetMetadata."""
        self.exclusive_flags(flags, "virDomainGetMetadata")
        unsupported_flags(flags, _AFFECT, "virDomainObjGetMetadata", domain=c.VIR_FROM_DOMAIN)
        config = self.affected(self.guests.find(domain), flags)
        match kind:
            case c.VIR_DOMAIN_METADATA_DESCRIPTION:
                found = config.description
            case c.VIR_DOMAIN_METADATA_TITLE:
                found = config.title
            case c.VIR_DOMAIN_METADATA_ELEMENT:
                found = extract(config.metadata, _required(uri, "uri", "virDomainGetMetadata"))
            case _:
                raise _unknown(kind)
        if not found:
            text = "Requested metadata element is not present"
            raise VirtError(c.VIR_ERR_NO_DOMAIN_METADATA, text, domain=c.VIR_FROM_DOMAIN)
        return found

    def domain_set_metadata(
        self, domain: Domain, kind: int, metadata: str | None, key: str | None, uri: str | None, flags: int
    ) -> None:
        """virDomainSetMetadata; without metadata what is there is removed."""
        unsupported_flags(flags, _AFFECT, "qemuDomainSetMetadata")
        if kind in (c.VIR_DOMAIN_METADATA_TITLE, c.VIR_DOMAIN_METADATA_DESCRIPTION):
            for name, value in (("key", key), ("uri", uri)):
                if value is not None:
                    text = f"{name} in virDomainSetMetadata must be NULL"
                    raise VirtError.invalid_argument("virDomainSetMetadata", name, text, domain=c.VIR_FROM_DOMAIN)
            if kind == c.VIR_DOMAIN_METADATA_TITLE and metadata and "\n" in metadata:
                text = "metadata title can't contain newlines"
                raise VirtError.invalid_argument("virDomainSetMetadata", "metadata", text, domain=c.VIR_FROM_DOMAIN)
        elif kind == c.VIR_DOMAIN_METADATA_ELEMENT:
            _required(uri, "uri", "virDomainSetMetadata")
            if metadata:
                _required(key, "key", "virDomainSetMetadata")
        else:
            raise _unknown(kind)
        entry = self.guests.find(domain)
        if entry.active:
            guest = self.guest(entry)
            lock = guest.lock("virDomainSetMetadata")
            try:
                self._set_metadata(domain, kind, metadata, key, uri, flags)
            finally:
                guest.unlock(lock)
        else:
            self._set_metadata(domain, kind, metadata, key, uri, flags)

    def _set_metadata(
        self, domain: Domain, kind: int, metadata: str | None, key: str | None, uri: str | None, flags: int
    ) -> None:
        with self.definitions_locked("virDomainSetMetadata"):
            entry = self.guests.find(domain)
            live, persistent = self.affects(entry, flags)
            pending = []
            if live:
                config = _changed(self.live(entry), kind, metadata, key, uri)
                pending += self.guest(entry).prepare_live(config)
            if persistent:
                pending.append(self.save_definition(_changed(self.config(entry), kind, metadata, key, uri)))
            with self.generation.commit() as change:
                for file in pending:
                    change.publish(file)
                self.domain_event(change, entry.reference, "metadata-change", kind, uri)


def _changed(config: Config, kind: int, metadata: str | None, key: str | None, uri: str | None) -> Config:
    """A copy of a configuration with other metadata."""
    config = config.copy()
    if kind == c.VIR_DOMAIN_METADATA_TITLE:
        config.title = metadata or None
    elif kind == c.VIR_DOMAIN_METADATA_DESCRIPTION:
        config.description = metadata or None
    else:
        config.metadata = replaced(config.metadata, metadata, key or "", uri or "", c.VIR_FROM_DOMAIN)
    return config


def _required(value: str | None, name: str, function: str) -> str:
    if value is None:
        text = f"{name} in {function} must not be NULL"
        raise VirtError.invalid_argument(function, name, text, domain=c.VIR_FROM_DOMAIN)
    return value


def _unknown(kind: int) -> VirtError:
    return VirtError(c.VIR_ERR_INVALID_ARG, f"unknown metadata type '{kind}'", domain=c.VIR_FROM_DOMAIN)
