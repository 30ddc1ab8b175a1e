"""Secrets: what libvirt's clients may do with them, and what lies on disk."""

import os
from pathlib import Path

import pytest

from virtd import constants as c
from virtd.conf.secret import SecretReference
from virtd.drivers.base import Context, Event, Identity
from virtd.drivers.secret.driver import SecretDriver
from virtd.drivers.secret.store import Secrets
from virtd.errors import VirtError
from virtd.state import files, paths

UUID = "f52a81b2-424e-490c-823d-6bd4235bc572"
XML = f"<secret><uuid>{UUID}</uuid><usage type='ceph'><name>n</name></usage></secret>"


def connect(root: Path) -> SecretDriver:
    """A connection of its own: what it knows, it knows from disk."""
    return SecretDriver(Context(paths.below(str(root)), Identity(0, 0, 0, "local"), os.getpid()))


@pytest.fixture
def driver(tmp_path: Path) -> SecretDriver:
    return connect(tmp_path)


def refused(code: int, text: str, function: object, *arguments: object) -> None:
    with pytest.raises(VirtError) as failure:
        function(*arguments)  # type: ignore[operator]
    assert (failure.value.code, failure.value.message) == (code, text)


def test_life(driver: SecretDriver, tmp_path: Path) -> None:
    secret = driver.secret_define_xml(XML, 0)
    assert (secret.usageType, secret.usageID) == (c.VIR_SECRET_USAGE_TYPE_CEPH, "n")
    text = f"Secret not found: secret '{UUID}' does not have a value"
    refused(c.VIR_ERR_NO_SECRET, text, driver.secret_get_value, secret, 0)
    driver.secret_set_value(secret, b"abc\0d", 0)
    other = connect(tmp_path)
    assert other.secret_get_value(secret, 0) == b"abc\0d"
    assert other.secret_lookup_by_usage(c.VIR_SECRET_USAGE_TYPE_CEPH, "n") == secret
    assert other.secret_get_xml_desc(secret, 0) == (
        f"<secret ephemeral='no' private='no'>\n  <uuid>{UUID}</uuid>\n  <usage type='ceph'>\n"
        "    <name>n</name>\n  </usage>\n</secret>\n"
    )
    driver.secret_undefine(secret)
    text = f"Secret not found: no secret with matching uuid '{UUID}'"
    refused(c.VIR_ERR_NO_SECRET, text, other.secret_lookup_by_uuid, secret.uuid)
    assert other.connect_num_of_secrets() == 0
    assert list(os.listdir(tmp_path / "etc/virtd/secrets")) == []


def test_a_value_lies_encrypted_and_closed(driver: SecretDriver, tmp_path: Path) -> None:
    secret = driver.secret_define_xml(XML, 0)
    driver.secret_set_value(secret, b"open sesame", 0)
    value = tmp_path / f"etc/virtd/secrets/{UUID}.value"
    key = tmp_path / "var/lib/virtd/secrets.key"
    assert b"sesame" not in value.read_bytes()
    assert value.stat().st_mode & 0o777 == key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "etc/virtd/secrets").stat().st_mode & 0o777 == 0o700
    good = value.read_bytes()
    for bad in (b"", b"x" * 50, good[:-1], good[:-1] + bytes([good[-1] ^ 1])):
        value.write_bytes(bad)
        with pytest.raises(VirtError, match="is damaged, or was not encrypted with the key"):
            driver.secret_get_value(secret, 0)
    # Another secret's file is no value of this one.
    other = driver.secret_define_xml("<secret/>", 0)
    driver.secret_set_value(other, b"other", 0)
    [foreign] = [path for path in value.parent.glob("*.value") if path != value]
    value.write_bytes(foreign.read_bytes())
    with pytest.raises(VirtError, match="is damaged"):
        driver.secret_get_value(secret, 0)


def test_ephemeral_ones_end_with_the_boot(driver: SecretDriver, tmp_path: Path) -> None:
    xml = XML.replace("<secret>", "<secret ephemeral='yes'>")
    secret = driver.secret_define_xml(xml, 0)
    driver.secret_set_value(secret, b"v", 0)
    assert not list((tmp_path / "etc/virtd/secrets").iterdir())
    assert len(list((tmp_path / "run/virtd/secrets").iterdir())) == 2
    # Made a lasting one it keeps its value.
    driver.secret_define_xml(XML, 0)
    assert driver.secret_get_value(secret, 0) == b"v"
    assert not list((tmp_path / "run/virtd/secrets").iterdir())


def test_private_ones_are_for_drivers_only(driver: SecretDriver, tmp_path: Path) -> None:
    secret = driver.secret_define_xml(XML.replace("<secret>", "<secret private='yes'>"), 0)
    driver.secret_set_value(secret, b"v", 0)
    refused(c.VIR_ERR_INVALID_SECRET, "Invalid secret: secret is private", driver.secret_get_value, secret, 0)
    text = "internal error: cannot change private flag on existing secret"
    refused(c.VIR_ERR_INTERNAL_ERROR, text, driver.secret_define_xml, XML, 0)
    store = Secrets(paths.below(str(tmp_path)), driver.generation)
    assert store.value(store.find(UUID)) == b"v"


def test_a_secret_is_for_one_kind_of_thing(driver: SecretDriver, tmp_path: Path) -> None:
    """One of no kind is for all."""
    driver.secret_set_value(driver.secret_define_xml(XML, 0), b"x", 0)
    store = Secrets(driver.paths, driver.generation)
    meant = SecretReference(uuid=UUID)
    assert store.resolve(meant, c.VIR_SECRET_USAGE_TYPE_CEPH) == b"x"
    text = f"invalid argument: secret with uuid {UUID} is of type 'ceph' not expected 'volume' type"
    refused(c.VIR_ERR_INVALID_ARG, text, store.resolve, meant, c.VIR_SECRET_USAGE_TYPE_VOLUME)
    other = UUID.replace("f5", "a5")
    driver.secret_set_value(driver.secret_define_xml(f"<secret><uuid>{other}</uuid></secret>", 0), b"y", 0)
    assert store.resolve(SecretReference(uuid=other), c.VIR_SECRET_USAGE_TYPE_VOLUME) == b"y"


def test_a_usage_belongs_to_one_secret(driver: SecretDriver) -> None:
    driver.secret_define_xml(XML, 0)
    driver.secret_define_xml(XML, 0)
    text = f"internal error: a secret with UUID {UUID} is already defined for use with n"
    refused(c.VIR_ERR_INTERNAL_ERROR, text, driver.secret_define_xml, XML.replace(">n<", ">m<"), 0)
    text = f"internal error: a secret with UUID {UUID} already defined for use with n"
    refused(c.VIR_ERR_INTERNAL_ERROR, text, driver.secret_define_xml, XML.replace("f52a", "f52b"), 0)
    text = "Secret not found: no secret with matching usage 'x'"
    refused(c.VIR_ERR_NO_SECRET, text, driver.secret_lookup_by_usage, c.VIR_SECRET_USAGE_TYPE_CEPH, "x")
    # Two secrets without usage do not get in each other's way.
    driver.secret_define_xml("<secret/>", 0)
    driver.secret_define_xml("<secret/>", 0)
    assert driver.connect_num_of_secrets() == 3


@pytest.mark.parametrize(
    ("flags", "count"), [(0, 4), (1, 2), (2, 2), (4, 2), (8, 2), (1 | 4, 1), (1 | 2, 4), (1 | 2 | 4, 2), (15, 4)]
)
def test_lists(driver: SecretDriver, flags: int, count: int) -> None:
    for ephemeral in ("yes", "no"):
        for private in ("yes", "no"):
            driver.secret_define_xml(f"<secret ephemeral='{ephemeral}' private='{private}'/>", 0)
    found, number = driver.connect_list_all_secrets(1, flags)
    assert len(found) == number == count
    assert driver.connect_list_all_secrets(0, flags) == ([], count)
    assert len(driver.connect_list_secrets(3)) == 3


def test_events_reach_other_connections(driver: SecretDriver, tmp_path: Path) -> None:
    other = connect(tmp_path)
    assert other.event_fd() is None
    lifecycle = other.connect_secret_event_register_any(c.VIR_SECRET_EVENT_ID_LIFECYCLE, None)
    value = other.connect_secret_event_register_any(c.VIR_SECRET_EVENT_ID_VALUE_CHANGED, None)
    secret = driver.secret_define_xml(XML, 0)
    driver.secret_set_value(secret, b"v", 0)
    driver.secret_undefine(secret)
    assert other.read_events() == [
        Event("remote", "SECRET_EVENT_LIFECYCLE", (lifecycle, secret, c.VIR_SECRET_EVENT_DEFINED, 0)),
        Event("remote", "SECRET_EVENT_VALUE_CHANGED", (value, secret)),
        Event("remote", "SECRET_EVENT_LIFECYCLE", (lifecycle, secret, c.VIR_SECRET_EVENT_UNDEFINED, 0)),
    ]
    other.connect_secret_event_deregister_any(lifecycle)
    other.connect_secret_event_deregister_any(value)
    assert other.event_fd() is None
    other.close()


def test_what_a_killed_writer_leaves_is_no_secret(driver: SecretDriver, tmp_path: Path) -> None:
    secret = driver.secret_define_xml(XML, 0)
    directory = tmp_path / "etc/virtd/secrets"
    # Killed between the removal of the value and that of the definition, and in the middle of a redefinition.
    driver.secret_set_value(secret, b"v", 0)
    (directory / f"{UUID}.value").unlink()
    files.prepare(str(directory / f"{UUID}.xml"), b"half", durable=False)
    (directory / "stray.xml").write_text("<secret/>")
    fresh = connect(tmp_path)
    assert fresh.connect_num_of_secrets() == 1
    fresh.secret_undefine(secret)
    assert fresh.connect_num_of_secrets() == 0


def test_virsh(virtd: "object") -> None:
    """The real client's commands, over the wire."""
    run = virtd.virsh  # type: ignore[attr-defined]
    path = virtd.root / "secret.xml"  # type: ignore[attr-defined]
    path.write_text(XML)
    run("secret-define", str(path))
    run("secret-set-value", UUID, "YWJj")
    assert run("secret-get-value", UUID).strip() == "YWJj"
    assert UUID in run("secret-list")
    run("secret-undefine", UUID)
