"""What the host's firmware says of the machine (SMBIOS), as dmidecode(8) tells of it.

This module knows no QEMU.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator

from virtd import constants as c
from virtd import deadlines
from virtd.conf.domain.os import BaseBoard, Entry, Smbios, Text
from virtd.drivers.qemu.host.xmltext import Document
from virtd.errors import VirtError

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_SECONDS = 10.0
# Structures of these types are asked for.
_TYPES = "0,1,2,3,4,11,17"
_BOARD = (
    ("manufacturer", "Manufacturer"),
    ("product", "Product Name"),
    ("version", "Version"),
    ("serial", "Serial Number"),
)
# dmidecode's heading of a structure, libvirt's element, and of each entry libvirt's name and dmidecode's.
_SECTIONS = (
    (
        "BIOS Information",
        "bios",
        (("vendor", "Vendor"), ("version", "Version"), ("date", "Release Date"), ("release", "BIOS Revision")),
    ),
    ("System Information", "system", (*_BOARD, ("uuid", "UUID"), ("sku", "SKU Number"), ("family", "Family"))),
    ("Base Board Information", "baseBoard", (*_BOARD, ("asset", "Asset Tag"), ("location", "Location In Chassis"))),
    (
        "Chassis Information",
        "chassis",
        (_BOARD[0], _BOARD[2], _BOARD[3], ("asset", "Asset Tag"), ("sku", "SKU Number")),
    ),
    (
        "Processor Information",
        "processor",
        (
            ("socket_destination", "Socket Designation"),
            ("type", "Type"),
            ("family", "Family"),
            ("manufacturer", "Manufacturer"),
            ("signature", "Signature"),
            ("version", "Version"),
            ("external_clock", "External Clock"),
            ("max_speed", "Max Speed"),
            ("status", "Status"),
            ("serial_number", "Serial Number"),
            ("part_number", "Part Number"),
        ),
    ),
    (
        "Memory Device",
        "memory_device",
        (
            ("size", "Size"),
            ("form_factor", "Form Factor"),
            ("locator", "Locator"),
            ("bank_locator", "Bank Locator"),
            ("type", "Type"),
            ("type_detail", "Type Detail"),
            ("speed", "Speed"),
            ("manufacturer", "Manufacturer"),
            ("serial_number", "Serial Number"),
            ("part_number", "Part Number"),
        ),
    ),
)
_STRINGS = "OEM Strings"

Structure = tuple[str, dict[str, str]]
"""The heading of a structure, and its entries."""

Names = tuple[tuple[str, str], ...]
"""Names of entries: libvirt's, and dmidecode's."""


def write() -> str:
    """virConnectGetSysinfo: the document.

    Raises:
        VirtError: VIR_ERR_CONFIG_UNSUPPORTED, there is no such information, or no dmidecode.
        DeadlineExceeded: dmidecode does not end.
    """
    found = _read()
    doc = Document()
    with doc.element("sysinfo", type="smbios"):
        for heading, element, names in _SECTIONS:
            for entries in _of(found, heading, names):
                _section(doc, element, entries)
        strings = _strings(found)
        if strings:
            with doc.element("oemStrings"):
                for value in strings:
                    doc.add("entry", value)
    return doc.text()


def tables() -> Smbios:
    """What a guest is told that is to be taken for this host (<smbios mode='host'>): all but the host's own UUID.

    Raises:
        VirtError, DeadlineExceeded: as write().
    """
    found = _read()
    told = {element: list(_of(found, heading, names)) for heading, element, names in _SECTIONS}

    def first(element: str) -> list[Entry]:
        listed = next(iter(told[element]), [])
        return [Entry(name=name, text=value) for name, value in listed if name != "uuid"]

    boards = [BaseBoard(entries=[Entry(name=name, text=value) for name, value in one]) for one in told["baseBoard"]]
    return Smbios(
        bios=first("bios"),
        system=first("system"),
        base_boards=boards,
        chassis=first("chassis"),
        oem_strings=[Text(text=value) for value in _strings(found)],
    )


def _of(found: list[Structure], heading: str, names: Names) -> Iterator[list[tuple[str, str]]]:
    """The entries of the structures of a kind that have any, under libvirt's names."""
    for title, entries in found:
        listed = [(name, entries[key]) for name, key in names if entries.get(key)]
        if title == heading and listed and entries.get("Size") != "No Module Installed":
            yield listed


def _strings(found: list[Structure]) -> list[str]:
    return [value for title, entries in found if title == _STRINGS for value in entries.values()]


def _section(doc: Document, element: str, entries: list[tuple[str, str]]) -> None:
    with doc.element(element):
        for name, value in entries:
            doc.add("entry", value, name=name)


def _read() -> list[Structure]:
    program = shutil.which("dmidecode", path=_PATH)
    found = [] if program is None else _ask(program)
    if not found:
        text = "Host SMBIOS information is not available"
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, text, domain=c.VIR_FROM_QEMU)
    return found


def _ask(program: str) -> list[Structure]:
    command, seconds = [program, "-q", "-t", _TYPES], deadlines.remaining(_SECONDS)
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False, env={"LC_ALL": "C"})
    except OSError:
        return []
    except subprocess.TimeoutExpired:
        text = f"dmidecode did not end within {seconds:.3g} s"
        raise deadlines.DeadlineExceeded(text, domain=c.VIR_FROM_QEMU) from None
    return parse(done.stdout.decode(errors="replace")) if done.returncode == 0 else []


def parse(text: str) -> list[Structure]:
    """The structures in dmidecode's output: a heading, then entries one tabulator deep; what is deeper is a list."""
    found: list[Structure] = []
    for line in text.splitlines():
        entry = re.match(r"\t(\S[^:]*): *(.*)", line)
        if entry is not None and found:
            found[-1][1].setdefault(entry[1], entry[2].strip())
        elif line and not line.startswith(("\t", "#")):
            found.append((line.strip(), {}))
    return [one for one in found if one[1]]
