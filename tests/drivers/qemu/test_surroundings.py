"""What guests need beside QEMU: volumes of pools, emulated TPMs, the variables of UEFI firmware."""

import os
import subprocess
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from tests.conftest import lacking
from tests.drivers.qemu.instance import Instance
from tests.helpers import images
from tests.helpers.waiting import ends
from virtd import constants as c
from virtd.conf.domain.disk import FileSource
from virtd.conf.domain.parse import read_domain
from virtd.drivers import services
from virtd.drivers.qemu.command.storage import real
from virtd.drivers.qemu.run import volumes
from virtd.errors import VirtError
from virtd.state.process import stat_fields


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


def swtpm_of(directory: str) -> int | None:
    """The pid of the swtpm whose state lies below a directory; None if there is none."""
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            continue
        if words[0].endswith(b"swtpm") and any(directory.encode() in word for word in words):
            return int(name)
    return None


def test_a_disk_that_is_a_volume(instance: Instance) -> None:
    driver = instance.driver
    storage = services.connect(driver.context, "storage")
    os.mkdir(f"{instance.root}/pool")
    pool_xml = f"<pool type='dir'><name>p</name><target><path>{instance.root}/pool</path></target></pool>"
    pool = storage.require("storage_pool_create_xml", "")(pool_xml, 0)
    volume = "<volume><name>v</name><capacity unit='MiB'>1</capacity></volume>"
    storage.require("storage_vol_create_xml", "")(pool, volume, 0)
    owner = os.stat(f"{instance.root}/pool/v").st_uid

    disk = "<disk type='volume'><source pool='p' volume='v'/><target dev='hdb' bus='ide'/></disk>"
    domain = driver.domain_create_xml(instance.xml(devices=disk), c.VIR_DOMAIN_START_PAUSED)
    assert "<source pool='p' volume='v' index='1'/>" in driver.domain_get_xml_desc(domain, 0)
    driver.domain_destroy(domain)
    assert os.stat(f"{instance.root}/pool/v").st_uid == owner

    for more, text in (
        (" mode='host'", "disk source mode is only valid when storage pool is of iscsi type"),
        (" index='1' startupPolicy='optional'", ""),
    ):
        other = disk.replace(" volume", f"{more} volume")
        if text:
            with pytest.raises(VirtError, match=text):
                driver.domain_create_xml(instance.xml(devices=other), 0)
        else:
            driver.domain_destroy(driver.domain_create_xml(instance.xml(devices=other), c.VIR_DOMAIN_START_PAUSED))

    storage.require("storage_pool_destroy", "")(pool)
    with pytest.raises(VirtError, match="no storage pool with matching name 'p'"):
        driver.domain_create_xml(instance.xml(devices=disk), 0)
    storage.close()


def test_what_is_said_of_a_volume_besides_where_it_is_counts(instance: Instance) -> None:
    storage = services.connect(instance.driver.context, "storage")
    os.mkdir(f"{instance.root}/pool")
    pool_xml = f"<pool type='dir'><name>p</name><target><path>{instance.root}/pool</path></target></pool>"
    pool = storage.require("storage_pool_create_xml", "")(pool_xml, 0)
    storage.require("storage_vol_create_xml", "")(pool, "<volume><name>v</name><capacity>1</capacity></volume>", 0)
    storage.close()
    encryption = "<encryption format='luks'><secret type='passphrase' usage='v'/></encryption>"
    source = f"<source pool='p' volume='v' startupPolicy='optional'>{encryption}</source>"
    disk = f"<disk type='volume' device='cdrom'>{source}<target dev='hdb' bus='ide'/></disk>"
    guest = read_domain(instance.xml(devices=disk))
    volumes.look_up(instance.driver.context, guest)
    found = real(guest.disks[-1].source)  # type: ignore[arg-type]
    assert isinstance(found, FileSource)
    assert (found.file, found.startup_policy) == (f"{instance.root}/pool/v", "optional")
    assert found.encryption is not None
    assert found.encryption.secrets[0].usage == "v"


def test_what_lies_below_an_image_is_found_and_shown(instance: Instance) -> None:
    """At a start, when a disk is plugged in, and under a transient disk."""
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    root, driver = instance.root, instance.driver
    subprocess.run([*create[:3], "-f", "raw", f"{root}/bottom", "1M"], check=True)
    for path, below, kind in (("base", "bottom", "raw"), ("top", "base", "qcow2"), ("plugged", "base", "qcow2")):
        subprocess.run([*create, "-b", below, "-F", kind, f"{root}/{path}"], check=True)
    disk = "<driver name='qemu' type='qcow2'/><source file='{}'/><target dev='{}' bus='virtio'/>{}"
    disk = f"<disk type='file'>{disk}</disk>"
    xml = instance.xml(devices=disk.format(f"{root}/top", "vdx", ""))
    domain = driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    plugged = disk.format(f"{root}/plugged", "vdy", "")
    driver.domain_attach_device_flags(domain, plugged, c.VIR_DOMAIN_AFFECT_LIVE)
    for target, top in (("vdx", "top"), ("vdy", "plugged")):
        assert chain(driver.domain_get_xml_desc(domain, 0), target) == [
            ("qcow2", f"{root}/{top}"),
            ("qcow2", f"{root}/base"),
            ("raw", f"{root}/bottom"),
        ]
    driver.domain_destroy(domain)
    # What is written goes to an image above all of them.
    xml = instance.xml(devices=disk.format(f"{root}/top", "vdx", "<transient/>"))
    domain = driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    shown = chain(driver.domain_get_xml_desc(domain, 0), "vdx")
    assert [path for _, path in shown[1:]] == [f"{root}/top", f"{root}/base", f"{root}/bottom"]
    driver.domain_destroy(domain)


def chain(xml: str, target: str) -> list[tuple[str, str]]:
    """The images of a running guest's disk, from the top, as its XML has them: format and path."""
    root = ElementTree.fromstring(xml)
    level = root.find(f"devices/disk/target[@dev='{target}']/..")
    found, numbers = [], []
    while level is not None and level.find("source") is not None:
        form = level.find("driver" if level.tag == "disk" else "format")
        source = level.find("source")
        assert form is not None
        assert source is not None
        found.append((form.attrib["type"], source.attrib["file"]))
        numbers.append(int((source if level.tag == "disk" else level).attrib["index"]))
        level = level.find("backingStore")
    assert level is not None
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return found


def test_a_volume_of_a_pool_that_is_not_active(instance: Instance) -> None:
    storage = services.connect(instance.driver.context, "storage")
    storage.require("storage_pool_define_xml", "")(
        f"<pool type='dir'><name>p</name><target><path>{instance.root}/pool</path></target></pool>", 0
    )
    storage.close()
    disk = "<disk type='volume'><source pool='p' volume='v'/><target dev='hdb' bus='ide'/></disk>"
    with pytest.raises(VirtError, match="storage pool 'p' containing volume 'v' is not active") as caught:
        instance.driver.domain_create_xml(instance.xml(devices=disk), 0)
    assert caught.value.code == c.VIR_ERR_CONFIG_UNSUPPORTED


def test_an_emulated_tpm_lives_and_ends_with_its_guest_and_keeps_its_state(instance: Instance) -> None:
    for program in ("swtpm", "swtpm_setup"):
        if not any(os.access(f"{place}/{program}", os.X_OK) for place in ("/usr/bin", "/usr/local/bin")):
            lacking(f"program {program}")
    driver = instance.driver
    tpm = "<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>"
    domain = driver.domain_define_xml(instance.xml(devices=tpm))
    driver.domain_create(domain)
    emulator = swtpm_of(instance.root)
    assert emulator is not None
    driver.domain_destroy(domain)
    if (fields := stat_fields(emulator)) is not None and fields[0] != b"Z":
        ends(emulator)
    (entry,) = driver.guests.view()
    state = f"{driver.paths.state}/swtpm/{entry.uuid}/tpm2"
    made = os.stat(f"{state}/tpm2-00.permall").st_ctime_ns
    driver.domain_create(domain)
    assert os.stat(f"{state}/tpm2-00.permall").st_ctime_ns >= made  # not manufactured anew, but the same one
    driver.domain_destroy(domain)
    driver.domain_undefine_flags(domain, c.VIR_DOMAIN_UNDEFINE_KEEP_TPM)
    assert os.path.isdir(state)
    driver.domain_define_xml(instance.xml(more=f"<uuid>{entry.uuid}</uuid>", devices=tpm))
    driver.domain_undefine_flags(domain, 0)
    assert not os.path.exists(state)


def test_uefi_variables_are_not_forgotten_by_accident(instance: Instance) -> None:
    driver = instance.driver
    variables = f"{instance.root}/vars.fd"
    with open(variables, "wb"):
        pass
    loader = f"<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader><nvram>{variables}</nvram>"
    xml = instance.xml().replace("hvm</type>", f"hvm</type>{loader}")
    domain = driver.domain_define_xml(xml)
    with pytest.raises(VirtError, match="cannot undefine domain with nvram"):
        driver.domain_undefine(domain)
    driver.domain_undefine_flags(domain, c.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
    assert os.path.exists(variables)
    domain = driver.domain_define_xml(xml)
    driver.domain_undefine_flags(domain, c.VIR_DOMAIN_UNDEFINE_NVRAM)
    assert not os.path.exists(variables)


def test_an_encrypted_disk_gets_its_passphrase_in_memory_only(instance: Instance) -> None:
    driver = instance.driver
    uuid = "55ee2ba4-0b3e-4f2f-9d2c-1d4c3a7a1b11"
    secrets = services.connect(driver.context, "secret")
    described = f"<secret ephemeral='no' private='yes'><uuid>{uuid}</uuid></secret>"
    secret = secrets.require("secret_define_xml", "")(described, 0)
    image = f"{instance.root}/luks.img"
    key = f"{instance.root}/key"
    with open(key, "w", encoding="ascii") as file:
        file.write("open sesame")
    options = ["-o", "key-secret=s,iter-time=10"]
    images.create(["--object", f"secret,id=s,file={key}", "-f", "luks", *options, image, "1M"]).check_returncode()
    disk = f"""<disk type='file'><driver name='qemu' type='raw'/><source file='{image}'><encryption format='luks'>
        <secret type='passphrase' uuid='{uuid}'/></encryption></source><target dev='hdb' bus='ide'/></disk>"""
    xml = instance.xml(devices=disk)
    with pytest.raises(VirtError, match="does not have a value"):
        driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    secrets.require("secret_set_value", "")(secret, b"wrong", 0)
    with pytest.raises(VirtError, match="Invalid password"):
        driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    secrets.require("secret_set_value", "")(secret, b"open sesame", 0)
    domain = driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    with open(f"/proc/{instance.qemu(domain)}/cmdline", "rb") as file:
        assert b"sesame" not in file.read()
    secrets.close()
