"""Choosing a firmware by what it can do, from the descriptions that distributions ship with it (QEMU, firmware.json).

The first in the order of descriptions (described.py) that a guest can have is taken.
"""

import fnmatch
from collections.abc import Mapping
from typing import NamedTuple

from virtd.drivers.qemu import shape
from virtd.drivers.qemu.run import described

DIRECTORIES = ("/etc/qemu/firmware", "/usr/share/qemu/firmware")


class Firmware(NamedTuple):
    """A firmware that is installed."""

    interfaces: frozenset[str]  # 'uefi', 'bios'
    device: str  # 'flash', 'memory', 'kernel'
    path: str
    format: str
    template: str | None  # what its variables are at first
    mode: str  # of flash: 'split', 'combined', 'stateless'
    targets: tuple[tuple[str, tuple[str, ...]], ...]  # QEMU's architecture, patterns of machine types
    features: frozenset[str]

    def fits(self, target: str, machine: str) -> bool:
        """Whether it runs on a machine type of an architecture."""
        return any(
            target == architecture and any(fnmatch.fnmatchcase(machine, pattern) for pattern in patterns)
            for architecture, patterns in self.targets
        )

    @property
    def secure(self) -> bool:
        """Whether it keeps the guest's kernel from its variables."""
        return "requires-smm" in self.features


def installed(directories: tuple[str, ...] = DIRECTORIES) -> list[Firmware]:
    """The firmwares of this host, the preferred ones first. Descriptions that cannot be read are left out."""
    return [one for one in map(_decoded, described.read(directories)) if one is not None]


def choose(
    found: list[Firmware],
    *,
    interface: str,
    target: str,
    machine: str,
    smm: bool | None,
    secure: bool | None,
    stateless: bool = False,
    features: Mapping[str, bool],
) -> Firmware | None:
    """The first firmware that a guest can have.

    Args:
        found: what is installed.
        interface: 'uefi' or 'bios'.
        target: QEMU's name of the architecture.
        machine: the canonical machine type.
        smm: whether the guest has system management mode; None: it may have it.
        secure: whether the loader is to be protected; None: no matter.
        stateless: whether it is one that keeps no variables.
        features: what it must have ("secure-boot", "enrolled-keys"), or must not.
    """
    for firmware in found:
        if interface not in firmware.interfaces or not firmware.fits(target, machine):
            continue
        if (smm is False and firmware.secure) or (secure is not None and firmware.secure != secure):
            continue
        if stateless != (firmware.mode == "stateless"):
            continue
        if any((name in firmware.features) != wanted for name, wanted in features.items()):
            continue
        return firmware
    return None


def _decoded(table: shape.Table) -> Firmware | None:
    try:
        return _decode(table)
    except shape.ShapeError:
        return None


def _decode(table: shape.Table) -> Firmware:
    mapping = shape.table(table, "mapping")
    device = shape.text(mapping, "device")
    image = shape.table(mapping, "executable") if device == "flash" else mapping
    template = shape.table(mapping, "nvram-template", {}) if device == "flash" else {}
    return Firmware(
        interfaces=frozenset(shape.texts(table, "interface-types")),
        device=device,
        path=shape.text(image, "filename"),
        format=shape.text(image, "format", "raw"),
        template=shape.text(template, "filename", "") or None,
        mode=shape.text(mapping, "mode", "split"),
        targets=tuple(
            (shape.text(one, "architecture"), tuple(shape.texts(one, "machines")))
            for one in shape.tables(table, "targets")
        ),
        features=frozenset(shape.texts(table, "features")),
    )
