"""Choosing a firmware by the descriptions that come with it."""

import json
from pathlib import Path

import pytest

from virtd.drivers.qemu.run import firmware


def describe(folder: Path, name: str, *features: str, machines: str = "pc-q35-*", code: str = "") -> None:
    """Write a description."""
    folder.mkdir(exist_ok=True)
    table = {
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": code or f"/{name}.fd", "format": "raw"},
            "nvram-template": {"filename": f"/{name}.vars", "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": [machines]}],
        "features": list(features),
    }
    (folder / f"{name}.json").write_text(json.dumps(table))


@pytest.fixture
def found(tmp_path: Path) -> list[firmware.Firmware]:
    """A host with three firmwares."""
    describe(tmp_path / "usr", "40-enrolled", "requires-smm", "secure-boot", "enrolled-keys")
    describe(tmp_path / "usr", "50-secure", "requires-smm", "secure-boot")
    describe(tmp_path / "usr", "60-plain", machines="pc-*")
    return firmware.installed((str(tmp_path / "etc"), str(tmp_path / "usr")))


@pytest.mark.parametrize(
    ("machine", "smm", "secure", "features", "expected"),
    [
        ("pc-q35-7.2", None, None, {}, "/40-enrolled.fd"),
        ("pc-q35-7.2", False, None, {}, "/60-plain.fd"),
        ("pc-q35-7.2", None, False, {}, "/60-plain.fd"),
        ("pc-q35-7.2", None, True, {"enrolled-keys": False}, "/50-secure.fd"),
        ("pc-q35-7.2", None, None, {"secure-boot": False}, "/60-plain.fd"),
        ("pc-i440fx-7.2", None, None, {}, "/60-plain.fd"),
        ("pc-i440fx-7.2", None, True, {}, None),
        ("isapc", None, None, {}, None),
    ],
)
def test_choice(
    found: list[firmware.Firmware],
    machine: str,
    smm: bool | None,
    secure: bool | None,
    features: dict[str, bool],
    expected: str | None,
) -> None:
    chosen = firmware.choose(
        found, interface="uefi", target="x86_64", machine=machine, smm=smm, secure=secure, features=features
    )
    assert (chosen.path if chosen else None) == expected


def test_other_kinds_are_not_chosen(found: list[firmware.Firmware]) -> None:
    for interface, target in (("bios", "x86_64"), ("uefi", "aarch64")):
        assert (
            firmware.choose(
                found, interface=interface, target=target, machine="pc-q35-7.2", smm=None, secure=None, features={}
            )
            is None
        )


def test_an_administrators_description_hides_the_packaged_one(tmp_path: Path) -> None:
    directories = (str(tmp_path / "etc"), str(tmp_path / "usr"))
    describe(tmp_path / "usr", "50-a")
    describe(tmp_path / "usr", "60-b")
    describe(tmp_path / "etc", "60-b", code="/mine.fd")
    assert [one.path for one in firmware.installed(directories)] == ["/50-a.fd", "/mine.fd"]
    (tmp_path / "etc" / "50-a.json").write_text("")
    assert [one.path for one in firmware.installed(directories)] == ["/mine.fd"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"mapping": {"device": "flash"}}', "\udcff"])
def test_descriptions_that_cannot_be_read_are_left_out(tmp_path: Path, content: str) -> None:
    describe(tmp_path / "usr", "50-a")
    (tmp_path / "usr" / "40-x.json").write_bytes(content.encode(errors="surrogateescape"))
    assert [one.path for one in firmware.installed((str(tmp_path / "usr"),))] == ["/50-a.fd"]


def test_no_directory_at_all(tmp_path: Path) -> None:
    assert firmware.installed((str(tmp_path / "none"),)) == []
