"""Pools of iSCSI targets for QEMU's own initiator: a real target (tgtd), asked by the real tools of libiscsi."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from virtd import constants as c
from virtd.conf.domain.disk import NetworkSource, SourceBase, VolumeSource
from virtd.conf.domain.parse import read_domain
from virtd.drivers.qemu.run import volumes
from virtd.drivers.secret.driver import SecretDriver
from virtd.drivers.storage.driver import StorageDriver
from virtd.errors import VirtError
from virtd.protocol.records import StorageVol

MIB = 1 << 20
TARGET = "iqn.2020-01.org.virtd:a"


class Target:
    """An iSCSI server with the target TARGET, which has units 1 and 2 of 20 and 5 MiB."""

    def __init__(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._environment = {**os.environ, "TGT_IPC_SOCKET": str(directory / "ipc")}
        for number, size in ((1, 20), (2, 5)):
            with (directory / f"unit{number}").open("wb") as file:
                file.truncate(size * MIB)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(directory / "ready"))
            ready.settimeout(30)
            environment = {**self._environment, "NOTIFY_SOCKET": str(directory / "ready")}
            command = ["tgtd", "--foreground", "--iscsi", f"portal=127.0.0.1:{self.port}"]
            self._process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            while b"READY=1" not in ready.recv(4096):
                pass
        self.administer("--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET)
        for number in (1, 2):
            unit = ("--lun", str(number), "-b", str(directory / f"unit{number}"))
            self.administer("--op", "new", "--mode", "logicalunit", "--tid", "1", *unit)
        self.administer("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")

    def administer(self, *command: str) -> None:
        subprocess.run(["tgtadm", "--lld", "iscsi", *command], env=self._environment, check=True)

    def stop(self) -> None:
        self._process.kill()  # it ends at no other signal while it has targets
        self._process.wait()


@pytest.fixture
def target(tmp_path: Path, need_program: Callable[[str], str]) -> Iterator[Target]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for program in ("tgtd", "iscsi-ls"):
        need_program(program)
    server = Target(tmp_path)
    yield server
    server.stop()


def definition(port: int, auth: str = "", name: str = TARGET) -> str:
    source = f"<host name='127.0.0.1' port='{port}'/><device path='{name}'/><initiator><iqn name='iqn.me'/></initiator>"
    return f"<pool type='iscsi-direct'><name>p</name><source>{source}{auth}</source></pool>"


def test_units(driver: StorageDriver, target: Target) -> None:
    spec = f"<source><host name='127.0.0.1' port='{target.port}'/><initiator><iqn name='iqn.me'/></initiator></source>"
    found = driver.connect_find_storage_pool_sources("iscsi-direct", spec, 0)
    assert f"<host name='127.0.0.1' port='{target.port}'/>\n    <device path='{TARGET}'/>" in found
    pool = driver.storage_pool_create_xml(definition(target.port), 0)
    path = f"ip-127.0.0.1:{target.port}-iscsi-{TARGET}-lun-"
    volumes, _ = driver.storage_pool_list_all_volumes(pool, 1, 0)
    assert volumes == [StorageVol("p", f"unit:0:0:{number}", f"{path}{number}") for number in (1, 2)]
    assert driver.storage_vol_get_info(volumes[0]) == (c.VIR_STORAGE_VOL_NETWORK, 20 * MIB, 20 * MIB)
    assert driver.storage_pool_get_info(pool) == (c.VIR_STORAGE_POOL_RUNNING, 25 * MIB, 25 * MIB, 0)
    assert driver.storage_vol_lookup_by_path(f"{path}2") == volumes[1]
    with pytest.raises(VirtError, match="storage pool doesn't support volume download"):
        driver.storage_vol_download(volumes[0], 0, 0, 0)
    driver.storage_pool_destroy(pool)
    with pytest.raises(VirtError, match="unexpected exit status") as failure:
        driver.storage_pool_create_xml(definition(1), 0)
    assert failure.value.code == c.VIR_ERR_INTERNAL_ERROR


def test_passphrases(driver: StorageDriver, target: Target) -> None:
    target.administer("--op", "new", "--mode", "account", "--user", "me", "--password", "let me in now")
    target.administer("--op", "bind", "--mode", "account", "--tid", "1", "--user", "me")
    with pytest.raises(VirtError, match="Authentication failure"):
        driver.storage_pool_create_xml(definition(target.port), 0)
    secrets = SecretDriver(driver.context)
    secret = secrets.secret_define_xml("<secret><usage type='iscsi'><target>t</target></usage></secret>", 0)
    secrets.secret_set_value(secret, b"let me in now", 0)
    auth = "<auth type='chap' username='me'><secret usage='t'/></auth>"
    pool = driver.storage_pool_create_xml(definition(target.port, auth), 0)
    assert driver.storage_pool_num_of_volumes(pool) == 2
    secrets.secret_set_value(secret, b"another one", 0)
    with pytest.raises(VirtError, match="Authentication failure") as failure:
        driver.storage_pool_refresh(pool, 0)
    assert "another" not in failure.value.message


def test_disks_of_guests(driver: StorageDriver, target: Target) -> None:
    """A guest's disk that is a volume is a unit that QEMU reaches as the pool does; so far nobody is asked for it."""
    target.administer("--op", "new", "--mode", "account", "--user", "me", "--password", "let me in now")
    target.administer("--op", "bind", "--mode", "account", "--tid", "1", "--user", "me")
    secrets = SecretDriver(driver.context)
    secret = secrets.secret_define_xml("<secret><usage type='iscsi'><target>t</target></usage></secret>", 0)
    secrets.secret_set_value(secret, b"let me in now", 0)
    auth = "<auth type='chap' username='me'><secret usage='t'/></auth>"
    driver.storage_pool_create_xml(definition(target.port, auth), 0)
    found = source(driver, "unit:0:0:2")
    assert isinstance(found, NetworkSource)
    assert (found.protocol, found.name, found.initiator) == ("iscsi", f"{TARGET}/2", "iqn.me")
    assert [(host.name, host.port) for host in found.hosts] == [("127.0.0.1", str(target.port))]
    assert found.auth is not None
    assert found.auth.secret is not None
    assert (found.auth.username, found.auth.secret.usage) == ("me", "t")
    with pytest.raises(VirtError, match="no storage vol with matching name 'unit:0:0:3'"):
        source(driver, "unit:0:0:3")
    with pytest.raises(VirtError, match="'startupPolicy' is only valid for 'file' type volume"):
        source(driver, "unit:0:0:2", " startupPolicy='optional'")


def source(driver: StorageDriver, name: str, more: str = "") -> SourceBase | None:
    """What a guest's disk is that is a volume of the pool."""
    disk = f"<disk type='volume'><source pool='p' volume='{name}'{more}/><target dev='hda'/></disk>"
    xml = "<domain type='qemu'><name>g</name><memory>1</memory><os><type>hvm</type></os>"
    guest = read_domain(f"{xml}<devices>{disk}</devices></domain>")
    volumes.look_up(driver.context, guest)
    [one] = guest.disks
    assert isinstance(one.source, VolumeSource)
    return one.source.found
