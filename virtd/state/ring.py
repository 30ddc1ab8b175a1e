"""Which files were changed last: a ring of paths in a mapped file, so that who kept a view reads only these again.

A path is written before its file is changed, by whoever holds the lock of the commits. Readers take no lock: each slot
says which change it holds, and a reader who was overtaken notices.
"""

import mmap
import os
import struct

SLOTS = 1024
_SLOT = struct.Struct("=QH246s")  # the change's number, counted from 1; length of the path; the path
_LONGEST = 246

SIZE = SLOTS * _SLOT.size


class Ring:
    """The ring in a mapping.

    Args:
        mapping: the mapped file.
        begin: where in it the ring begins.
    """

    def __init__(self, mapping: mmap.mmap, begin: int) -> None:
        self._map = mapping
        self._begin = begin

    def write(self, number: int, path: str) -> None:
        """Write change `number`, counted from 1."""
        name = os.fsencode(path)
        if len(name) > _LONGEST:
            name = b""  # something has changed: readers begin anew
        _SLOT.pack_into(self._map, self._place(number), number, len(name), name)

    def read(self, first: int, last: int) -> list[str] | None:
        """The paths of changes `first` to `last`; None if they are not all there any more."""
        if last - first >= SLOTS:
            return None
        found = []
        for number in range(first, last + 1):
            written, length, name = _SLOT.unpack_from(self._map, self._place(number))
            if written != number or not length:
                return None
            found.append(os.fsdecode(name[:length]))
        return found

    def _place(self, number: int) -> int:
        return self._begin + number % SLOTS * _SLOT.size
