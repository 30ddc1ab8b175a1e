"""What distributions describe for whoever runs QEMU: firmware, and programs that serve it (QEMU, docs/interop).

A description is a JSON file. One of a name in a later directory is hidden by one in an earlier directory, an empty file
hides it altogether. They are tried in the order of their names; one that cannot be read counts as absent.
"""

import json
import os
from collections.abc import Iterator

from virtd.drivers.qemu import shape
from virtd.errors import VirtError
from virtd.state import files


def read(directories: tuple[str, ...]) -> Iterator[shape.Table]:
    """The descriptions, in the order in which they are to be tried.

    Args:
        directories: where they lie, the one that counts most first.
    """
    places: dict[str, str] = {}
    for directory in reversed(directories):
        if os.path.isdir(directory):
            places |= {name: directory for name in os.listdir(directory) if name.endswith(".json")}
    for name in sorted(places):
        try:
            content = files.read(f"{places[name]}/{name}")
            if content:
                yield shape.as_table(json.loads(content), name)
        except (ValueError, VirtError):
            continue
