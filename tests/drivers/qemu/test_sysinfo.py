"""What the host's firmware says, by a dmidecode that a test wrote."""

import os
from pathlib import Path

import pytest

from virtd import constants as c
from virtd.drivers.qemu.host import sysinfo
from virtd.errors import VirtError

SAID = """BIOS Information
\tVendor: American <Megatrends>
\tVersion: 1.2
\tRelease Date: 04/01/2020
\tROM Size: 16 MB
\tCharacteristics:
\t\tPCI is supported
\t\tVersion: no entry of its own
\tBIOS Revision: 5.13

System Information
\tManufacturer: Maker
\tProduct Name: Box 1
\tUUID: 11111111-2222-3333-4444-555555555555
\tFamily:

Base Board Information
\tManufacturer: Maker
\tAsset Tag: Not Specified

Base Board Information
\tProduct Name: Second

Processor Information
\tSocket Designation: CPU0
\tType: Central Processor
\tMax Speed: 3900 MHz

Memory Device
\tSize: No Module Installed
\tLocator: DIMM_A1

Memory Device
\tSize: 16 GB
\tLocator: DIMM_A2

OEM Strings
\tString 1: first
\tString 2: second
"""
DOCUMENT = """<sysinfo type='smbios'>
  <bios>
    <entry name='vendor'>American &lt;Megatrends&gt;</entry>
    <entry name='version'>1.2</entry>
    <entry name='date'>04/01/2020</entry>
    <entry name='release'>5.13</entry>
  </bios>
  <system>
    <entry name='manufacturer'>Maker</entry>
    <entry name='product'>Box 1</entry>
    <entry name='uuid'>11111111-2222-3333-4444-555555555555</entry>
  </system>
  <baseBoard>
    <entry name='manufacturer'>Maker</entry>
    <entry name='asset'>Not Specified</entry>
  </baseBoard>
  <baseBoard>
    <entry name='product'>Second</entry>
  </baseBoard>
  <processor>
    <entry name='socket_destination'>CPU0</entry>
    <entry name='type'>Central Processor</entry>
    <entry name='max_speed'>3900 MHz</entry>
  </processor>
  <memory_device>
    <entry name='size'>16 GB</entry>
    <entry name='locator'>DIMM_A2</entry>
  </memory_device>
  <oemStrings>
    <entry>first</entry>
    <entry>second</entry>
  </oemStrings>
</sysinfo>
"""


def dmidecode(directory: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int = 0) -> None:
    (directory / "said").write_text(said)
    program = directory / "dmidecode"
    program.write_text(f"#!/bin/sh\n/bin/cat {directory}/said\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sysinfo, "_PATH", f"{directory}{os.pathsep}")


def test_what_the_firmware_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dmidecode(tmp_path, monkeypatch, SAID)
    assert sysinfo.write() == DOCUMENT


@pytest.mark.parametrize(("said", "status"), [("# No SMBIOS nor DMI entry point found, sorry.\n", 0), (SAID, 1)])
def test_a_host_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, status: int) -> None:
    dmidecode(tmp_path, monkeypatch, said, status)
    with pytest.raises(VirtError, match="Host SMBIOS information is not available") as caught:
        sysinfo.write()
    assert caught.value.code == c.VIR_ERR_CONFIG_UNSUPPORTED


def test_a_host_without_dmidecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysinfo, "_PATH", str(tmp_path))
    with pytest.raises(VirtError, match="not available"):
        sysinfo.write()


def test_what_a_guest_is_told_that_is_to_be_taken_for_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dmidecode(tmp_path, monkeypatch, SAID)
    found = sysinfo.tables()
    assert [(one.name, one.text) for one in found.system] == [("manufacturer", "Maker"), ("product", "Box 1")]
    assert [len(board.entries) for board in found.base_boards] == [2, 1]
    assert [one.text for one in found.oem_strings] == ["first", "second"]
    assert (len(found.bios), found.chassis) == (4, [])
