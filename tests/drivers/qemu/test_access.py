"""One image, one writer: whatever names it has, whoever runs the other guest; and who may get at it."""

import os
import random
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.qemu.instance import Instance
from tests.helpers.waiting import ends, wait_for
from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol.records import Domain

PAUSED = c.VIR_DOMAIN_START_PAUSED
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


@pytest.fixture
def image(instance: Instance) -> Path:
    path = Path(instance.root) / "shared.img"
    path.write_bytes(bytes(1 << 20))
    return path


def guest(instance: Instance, name: str, source: object, more: str = "", kind: str = "raw") -> str:
    disk = (
        f"<disk type='file'><driver name='qemu' type='{kind}'/><source file='{source}'/>"
        f"<target dev='vdb' bus='virtio'/>{more}</disk>"
    )
    return instance.xml(name, devices=disk)


def start(instance: Instance, xml: str) -> Domain:
    return instance.driver.domain_create_xml(xml, PAUSED)


def busy(path: object, name: str) -> str:
    return f"image '{path}' is in use by guest '{name}'"


def refused(instance: Instance, xml: str, text: str, code: int = c.VIR_ERR_RESOURCE_BUSY) -> None:
    with pytest.raises(VirtError) as caught:
        start(instance, xml)
    assert (caught.value.code, caught.value.detail) == (code, text)


def test_two_guests_do_not_write_to_one_image(instance: Instance, image: Path) -> None:
    """By whatever path, from whatever instance, as disk or as what lies below one."""
    link, hard = image.with_name("link"), image.with_name("hard")
    link.symlink_to(image)
    os.link(image, hard)
    above = image.with_name("above.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "raw", above], check=True)
    start(instance, guest(instance, "first", image))
    for path in (image, link, hard):
        refused(instance, guest(instance, "second", path), busy(path, "first"))
        refused(instance, guest(instance, "second", path, "<readonly/>"), busy(path, "first"))
    refused(instance, guest(instance, "second", above, kind="qcow2"), busy(image, "first"))
    other = Instance()
    try:
        refused(other, guest(other, "second", hard), busy(hard, "first"))
    finally:
        other.close()
    # It is there for the next one as soon as the first one has ended.
    instance.driver.domain_destroy(instance.driver.domain_lookup_by_name("first"))
    start(instance, guest(instance, "third", above, kind="qcow2"))
    refused(instance, guest(instance, "second", image), busy(image, "third"))
    # What several images stand on is read by all of them.
    again = image.with_name("again.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "raw", again], check=True)
    start(instance, guest(instance, "fourth", again, kind="qcow2"))


def test_what_is_shared_or_read_is_for_many(instance: Instance, image: Path) -> None:
    for name in ("a", "b"):
        start(instance, guest(instance, name, image, "<shareable/>"))
    with pytest.raises(VirtError, match=r"is in use by guest '[ab]'"):
        start(instance, guest(instance, "c", image))
    disc = image.with_name("disc.iso")
    disc.write_bytes(bytes(1 << 20))
    for name in ("d", "e"):
        start(instance, guest(instance, name, disc, "<readonly/>"))


def test_plugging_and_unplugging_locks_and_frees(instance: Instance, image: Path) -> None:
    driver = instance.driver
    target = "<driver name='qemu' type='raw'/><target dev='sdx' bus='usb'/>"
    disk = f"<disk type='file'>{target}<source file='{image}'/></disk>"
    owner = image.stat().st_uid
    first, second = (start(instance, instance.xml(name)) for name in ("first", "second"))
    driver.domain_attach_device(first, disk)
    with pytest.raises(VirtError) as caught:
        driver.domain_attach_device(second, disk)
    assert caught.value.detail == busy(image, "first")
    driver.domain_detach_device(first, disk)
    driver.domain_attach_device(second, disk)
    with pytest.raises(VirtError, match="is in use by guest 'second'"):
        driver.domain_attach_device(first, disk)
    for domain in (first, second):
        driver.domain_destroy(domain)
    assert image.stat().st_uid == owner


def test_media_lock_and_free(instance: Instance, image: Path) -> None:
    driver = instance.driver
    drive = "<disk type='file' device='{}'>{}<target dev='hdc' bus='ide'/><readonly/></disk>"
    medium = f"<source file='{image}'/>"
    reader = start(instance, instance.xml("reader", devices=drive.format("cdrom", "")))
    writer = guest(instance, "writer", image)
    driver.domain_update_device_flags(reader, drive.format("cdrom", medium), 0)
    refused(instance, writer, busy(image, "reader"))
    driver.domain_update_device_flags(reader, drive.format("cdrom", ""), 0)
    start(instance, writer)


@pytest.mark.parametrize("victim", ["supervisor", "qemu", "both"])
def test_whatever_died_the_image_is_free_and_its_owners_again(instance: Instance, image: Path, victim: str) -> None:
    os.chown(image, 4711, 4712) if os.geteuid() == 0 else None
    before = image.stat()
    domain = start(instance, guest(instance, "g", image))
    pids = {"supervisor": instance.supervisor(domain), "qemu": instance.qemu(domain)}
    for name in ("supervisor", "qemu") if victim == "both" else (victim,):
        os.kill(pids[name], signal.SIGKILL)
    if victim == "supervisor":
        # The guest lives, and keeps what it has.
        ends(pids["supervisor"])
        with pytest.raises(VirtError, match="is in use by guest 'g'"):
            start(instance, guest(instance, "other", image))
        instance.driver.domain_destroy(domain)
    else:
        ends(pids["qemu"])
        ends(pids["supervisor"])
    assert [entry for entry in instance.driver.guests.view() if entry.active] == []
    after = image.stat()
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    start(instance, guest(instance, "next", image))


@needs_root
def test_two_guests_with_one_image_give_it_back_together(instance: Instance, image: Path) -> None:
    image.chmod(0o600)
    os.chown(image, 4711, 4712)
    user = instance.driver.capabilities.user
    assert user is not None
    domains = [start(instance, guest(instance, name, image, "<readonly/>")) for name in ("a", "b")]
    assert image.stat().st_uid == user.uid
    instance.driver.domain_destroy(domains[0])
    assert image.stat().st_uid == user.uid
    instance.driver.domain_destroy(domains[1])
    assert (image.stat().st_uid, image.stat().st_gid) == (4711, 4712)


@needs_root
def test_the_directory_that_qemu_may_not_enter_is_named(instance: Instance, image: Path) -> None:
    outer = Path(instance.root) / "outer"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    inside = inner / "disk.img"
    inside.write_bytes(bytes(1 << 20))
    outer.chmod(0o700)
    inner.chmod(0o700)
    user = instance.driver.capabilities.user
    assert user is not None
    text = (
        f"Cannot access storage file '{inside}' (as uid:{user.uid}, gid:{user.gid}): the user may not enter directory "
    )
    refused(instance, guest(instance, "g", inside), f"{text}'{outer}'", c.VIR_ERR_SYSTEM_ERROR)
    outer.chmod(0o711)
    refused(instance, guest(instance, "g", inside), f"{text}'{inner}'", c.VIR_ERR_SYSTEM_ERROR)
    assert inside.stat().st_uid == 0
    inner.chmod(0o711)
    start(instance, guest(instance, "g", inside))


def test_what_is_not_there_is_named(instance: Instance, image: Path) -> None:
    missing = image.with_name("missing")
    text = f"Cannot access storage file '{missing}': No such file or directory"
    refused(instance, guest(instance, "g", missing), text, c.VIR_ERR_SYSTEM_ERROR)
    below = image.with_name("below")
    below.write_bytes(bytes(1 << 20))
    above = image.with_name("above.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "raw", above], check=True)
    below.unlink()
    text = f"Cannot access storage file '{below}': No such file or directory"
    refused(instance, guest(instance, "g", above, kind="qcow2"), text, c.VIR_ERR_SYSTEM_ERROR)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_transient_disk_forgets(instance: Instance, image: Path, kind: str) -> None:
    """What the guest writes goes to an image of its own, which goes with it, however it goes."""
    if kind == "qcow2":
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    before, cover = image.read_bytes(), image.with_name("shared.img.TRANSIENT-g")
    xml = guest(instance, "g", image, "<transient/>", kind)
    for end in ("destroy", "crash"):
        domain = start(instance, xml)
        described = instance.driver.domain_get_xml_desc(domain, 0)
        assert f"<source file='{cover}' index=" in described
        assert f"<source file='{image}'/>" in described
        assert "<transient/>" in described
        # Nobody else changes what it covers.
        refused(instance, guest(instance, "other", image, kind=kind), busy(image, "g"))
        if end == "destroy":
            instance.driver.domain_destroy(domain)
        else:
            pids = instance.qemu(domain), instance.supervisor(domain)
            os.kill(pids[0], signal.SIGKILL)
            ends(pids[1])
        assert not cover.exists()
        assert image.read_bytes() == before
    cover.touch()
    text = f"Overlay file '{cover}' for transient disk 'vdb' already exists"
    refused(instance, xml, text, c.VIR_ERR_OPERATION_UNSUPPORTED)
    assert cover.exists()


def test_transient_disks_above_one_image(instance: Instance, image: Path) -> None:
    for name in ("a", "b"):
        start(instance, guest(instance, name, image, "<transient shareBacking='yes'/>"))
    with pytest.raises(VirtError, match="transient disk 'vdb' must not be read-only"):
        start(instance, guest(instance, "c", image, "<readonly/><transient/>"))


def test_a_data_file_belongs_to_its_image(instance: Instance, image: Path) -> None:
    """It is given to QEMU's user, locked and given back as the image is."""
    above, data = image.with_name("above.qcow2"), image.with_name("data.raw")
    options = ["-f", "qcow2", "-o", f"data_file={data},data_file_raw=on"]
    subprocess.run(["qemu-img", "create", "-q", *options, above, "1M"], check=True)
    domain = start(instance, guest(instance, "g", above, kind="qcow2"))
    user = instance.driver.capabilities.user
    if user is not None:
        assert data.stat().st_uid == user.uid
    refused(instance, guest(instance, "other", data), busy(data, "g"))
    instance.driver.domain_destroy(domain)
    assert data.stat().st_uid == os.geteuid()
    start(instance, guest(instance, "other", data))


@needs_root
@pytest.mark.parametrize("seed", range(4))
def test_a_starter_that_dies_leaves_the_image_as_it_was(instance: Instance, image: Path, seed: int) -> None:
    """At any instant: whoever looks next gives it back, or ends a guest that came to be after all."""
    image.chmod(0o600)
    os.chown(image, 4711, 4712)
    xml = guest(instance, "g", image)
    pid = os.fork()
    if not pid:
        try:
            instance.open().domain_create_xml(xml, PAUSED)
        finally:
            os._exit(0)
    process = os.pidfd_open(pid)
    select.select([process], [], [], random.Random(seed).uniform(0.0, 0.25))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(process)
    for entry in [entry for entry in instance.driver.guests.view() if entry.active]:
        instance.driver.domain_destroy(entry.reference)

    def given_back() -> bool:
        instance._left()
        return (image.stat().st_uid, image.stat().st_gid) == (4711, 4712)

    # A supervisor that had just been forked finds its leash cut when it gets to run, and clears nothing away.
    wait_for(given_back, "the image's being given back")
    start(instance, xml)
