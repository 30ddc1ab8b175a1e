"""A directory of definitions: NAME.xml for each object, and links to those that start with the machine.

The directory is the truth. What was read of a file is kept for as long as the file is the same.
"""

import os
import re

from virtd import uuids
from virtd.state import files

_UUID = re.compile(rb"<uuid>\s*([0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12})\s*</uuid>")


class DefinitionDirectory:
    """The definitions of one kind of object; made if it is missing.

    Args:
        directory: where they lie.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._links = f"{directory}/autostart"
        self._known: dict[str, tuple[files.Identity, str]] = {}
        files.make_directory(self._links)

    def path(self, name: str) -> str:
        """Where an object's definition lies."""
        return f"{self.directory}/{name}.xml"

    def autostart_path(self, name: str) -> str:
        """Where the link lies that makes an object start with the machine."""
        return f"{self._links}/{name}.xml"

    def read(self) -> dict[str, str]:
        """What is defined: uuid → name."""
        known, self._known = self._known, {}
        for entry in os.scandir(self.directory):
            name, suffix = entry.name[:-4], entry.name[-4:]
            if suffix != ".xml" or not name or name[0] == ".":
                continue
            try:
                identity = files.identity_of(entry.stat())
            except FileNotFoundError:
                continue
            cached = known.get(name)
            if cached is None or cached[0] != identity:
                match = _UUID.search(files.read(entry.path) or b"")
                if match is None:
                    continue  # not a definition of ours
                cached = identity, uuids.to_text(uuids.to_bytes(match[1].decode()))
            self._known[name] = cached
        # A rename that was cut short leaves two files of one uuid, of which the newer counts.
        by_age = sorted(self._known.items(), key=lambda item: item[1][0][1])
        return {uuid: name for name, (_, uuid) in by_age}

    def autostarts(self) -> set[str]:
        """The names of the objects that start with the machine."""
        return {name.removesuffix(".xml") for name in os.listdir(self._links)}

    def prepare(self, name: str, xml: str) -> files.Pending:
        """Write a definition to disk, to be published in a commit; see virtd.state.files.prepare()."""
        return files.prepare(self.path(name), xml.encode(errors="surrogateescape"), durable=True)

    def link_autostart(self, name: str) -> None:
        """Make an object start with the machine.

        Raises:
            VirtError: VIR_ERR_SYSTEM_ERROR.
        """
        path = self.autostart_path(name)
        try:
            os.symlink(self.path(name), path)
            files.sync_directory(self._links)
        except FileExistsError:
            pass
        except OSError as error:
            raise files.os_error(error, f"Failed to create symlink '{path}' to '{self.path(name)}'") from None
