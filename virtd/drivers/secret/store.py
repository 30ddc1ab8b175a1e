"""All secrets of an instance, as the files say.

config/secrets/UUID.xml and UUID.value of those that last, the same below the run-time directory of ephemeral ones.
Other drivers take the values they need from here (`Secrets.value`), private ones too: the rule that those are
unreadable is one for clients.
"""

import os
from typing import NamedTuple, Protocol

from virtd import constants as c
from virtd import uuids
from virtd.conf.secret import Secret, parse_secret
from virtd.conf.secret.secret import USAGES
from virtd.drivers.secret import values
from virtd.drivers.views import Kind
from virtd.errors import VirtError
from virtd.protocol import records
from virtd.state import files
from virtd.state.commit import Generation
from virtd.state.paths import Paths

_KIND = Kind("secret", c.VIR_ERR_NO_SECRET, c.VIR_FROM_SECRET)


class Entry(NamedTuple):
    """A secret."""

    uuid: str
    directory: str
    config: Secret

    @property
    def path(self) -> str:
        """Where its definition lies."""
        return f"{self.directory}/{self.uuid}.xml"

    @property
    def value_path(self) -> str:
        """Where its value lies, if it has one."""
        return f"{self.directory}/{self.uuid}.value"

    @property
    def reference(self) -> records.Secret:
        """The secret as it goes over the wire."""
        return records.Secret(uuids.to_bytes(self.uuid), self.config.usage_type, self.config.usage_id)


class Named(Protocol):
    """How other documents name a secret: by one of the two."""

    uuid: str | None
    usage: str | None


class Secrets:
    """The secrets of one instance.

    Args:
        paths: the instance's directories.
        generation: the instance's generation.
    """

    def __init__(self, paths: Paths, generation: Generation) -> None:
        self.paths = paths
        self.generation = generation
        self.lock_path = f"{paths.runtime}/secret.lock"
        self.lasting = f"{paths.config}/secrets"
        self.ephemeral = f"{paths.runtime}/secrets"
        for directory in (self.lasting, self.ephemeral):
            files.make_directory(directory, 0o700)
        self._view: dict[str, Entry] = {}
        self._generation: int | None = None
        self._known: dict[str, tuple[files.Identity, Entry]] = {}

    def view(self) -> dict[str, Entry]:
        """All secrets as they are now: uuid → entry."""
        current = self.generation.current()
        if current is None or current != self._generation:
            self._view = self._read()
            self._generation = current
        return self._view

    def entry(self, config: Secret) -> Entry:
        """Where a secret lies, or will lie."""
        assert config.uuid is not None
        return Entry(config.uuid, self.ephemeral if config.ephemeral else self.lasting, config)

    def find(self, uuid: str) -> Entry:
        """A secret by its UUID.

        Raises:
            VirtError: VIR_ERR_NO_SECRET.
        """
        entry = self.view().get(uuid)
        if entry is None:
            raise _KIND.error(f"uuid '{uuid}'")
        return entry

    def find_usage(self, usage_type: int, usage_id: str) -> Entry:
        """A secret by what it is for; one without usage cannot be found so.

        Raises:
            VirtError: VIR_ERR_NO_SECRET.
        """
        entry = self.with_usage(usage_type, usage_id)
        if entry is None:
            raise _KIND.error(f"usage '{usage_id}'")
        return entry

    def with_usage(self, usage_type: int, usage_id: str) -> Entry | None:
        """The secret for something; None if there is none."""
        for entry in self.view().values():
            if usage_type and (entry.config.usage_type, entry.config.usage_id) == (usage_type, usage_id):
                return entry
        return None

    def has_value(self, entry: Entry) -> bool:
        """Whether a secret has a value."""
        return os.path.exists(entry.value_path)

    def value(self, entry: Entry) -> bytes:
        """The value of a secret, even of a private one.

        Raises:
            VirtError: VIR_ERR_NO_SECRET, it has none.
        """
        content = files.read(entry.value_path)
        if content is None:
            text = f"secret '{entry.uuid}' does not have a value"
            raise VirtError(c.VIR_ERR_NO_SECRET, text, domain=c.VIR_FROM_SECRET)
        return values.decrypt(self.paths, entry.uuid, content)

    def resolve(self, reference: Named, usage_type: int) -> bytes:
        """The value of the secret that another document means.

        Args:
            reference: how it is named.
            usage_type: what it is needed for, VIR_SECRET_USAGE_TYPE_*.

        Raises:
            VirtError: VIR_ERR_NO_SECRET, there is no such secret, or it has no value; VIR_ERR_INVALID_ARG, it is for
                something else.
        """
        if reference.uuid is not None:
            entry = self.find(reference.uuid)
            if entry.config.usage_type not in (c.VIR_SECRET_USAGE_TYPE_NONE, usage_type):
                names = {kind.number: name for name, kind in USAGES.items()}
                found, wanted = (names.get(one, "none") for one in (entry.config.usage_type, usage_type))
                text = f"secret with uuid {entry.uuid} is of type '{found}' not expected '{wanted}' type"
                raise VirtError(c.VIR_ERR_INVALID_ARG, text, domain=c.VIR_FROM_SECRET)
            return self.value(entry)
        return self.value(self.find_usage(usage_type, reference.usage or ""))

    def mend(self) -> None:
        """Remove what was cut short: new content that was not published; the lock of the secrets is held."""
        for directory in (self.lasting, self.ephemeral):
            files.forget_pending(directory)

    def _read(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        known, self._known = self._known, {}
        # A change between lasting and ephemeral that was cut short leaves both, of which the newer file counts.
        for directory in (self.lasting, self.ephemeral):
            for item in os.scandir(directory):
                uuid, suffix = item.name[:-4], item.name[-4:]
                if suffix != ".xml" or item.name[0] == ".":
                    continue
                try:
                    identity = files.identity_of(item.stat())
                except FileNotFoundError:
                    continue
                cached = known.get(item.path)
                if cached is None or cached[0] != identity:
                    config = self._parse(item.path)
                    if config is None or config.uuid != uuid:
                        continue  # not a definition of ours
                    cached = identity, Entry(uuid, directory, config)
                self._known[item.path] = cached
                other = found.get(uuid)
                if other is None or self._known[other.path][0][1] < identity[1]:
                    found[uuid] = cached[1]
        return found

    @staticmethod
    def _parse(path: str) -> Secret | None:
        content = files.read(path)
        try:
            return None if content is None else parse_secret(content.decode(errors="surrogateescape"))
        except VirtError:
            return None
