"""The architectures that guests of this driver can have."""

import os
from typing import NamedTuple


class Arch(NamedTuple):
    """An architecture."""

    name: str  # libvirt's
    bits: int
    target: str  # QEMU's
    hosts: tuple[str, ...]  # on which KVM runs it, by libvirt's names


ARCHES = (
    Arch("i686", 32, "i386", ("i686", "x86_64")),
    Arch("x86_64", 64, "x86_64", ("x86_64",)),
)
# A QEMU for one of these (by its own name of it) runs guests of these architectures, its own first.
RUNS = {"i386": ("i686",), "x86_64": ("x86_64", "i686")}


def find(name: str) -> Arch | None:
    """The architecture of a name; None if guests cannot have it."""
    return next((arch for arch in ARCHES if arch.name == name), None)


def host_arch() -> str:
    """The host's architecture by libvirt's name."""
    machine = os.uname().machine
    return "i686" if machine in ("i386", "i486", "i586", "i686") else machine
