"""xdrlib3, without what it imports from typing to annotate its methods.

typing, and re in its train, take longer to import than all of the protocol, and a client of a moment has no other use
for them. While xdrlib3 is imported, a stand-in takes the place of typing (virtd.standins).
"""

from __future__ import annotations

from virtd.standins import standins


class _Annotation:
    """What stands for Callable[[int], str] and TypeVar("T")."""

    def __getitem__(self, _types: object) -> _Annotation:
        return self

    __call__ = __getitem__


with standins({"typing": dict.fromkeys(("Callable", "List", "Sequence", "TypeVar", "Union"), _Annotation())}):
    from xdrlib3 import Error as XdrError
    from xdrlib3 import Packer, Unpacker

__all__ = ["Packer", "Unpacker", "XdrError"]
