"""Calls about a guest's disks: counters, sizes, limits, contents, errors."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.drivers.qemu.instance import Instance
from virtd import constants as c
from virtd.drivers import typed
from virtd.errors import VirtError
from virtd.protocol.records import Domain, TypedParam

LIVE, CONFIG = c.VIR_DOMAIN_AFFECT_LIVE, c.VIR_DOMAIN_AFFECT_CONFIG


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


@pytest.fixture
def domain(instance: Instance) -> Domain:
    """A guest that is off: a raw disk, a qcow2 one, an empty drive."""
    image = f"{instance.root}/data.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "8M"], check=True)
    devices = (
        f"<disk type='file'><driver name='qemu' type='qcow2'/><source file='{image}'/><target dev='vdb' bus='virtio'/>"
        "</disk><disk type='file' device='cdrom'><target dev='hdc' bus='ide'/></disk>"
    )
    return instance.driver.domain_define_xml(instance.xml(devices=devices))


def values(params: list[TypedParam]) -> dict[str, object]:
    return {param.field: param.value.value for param in params}


def test_counters(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    driver.domain_create(domain)
    instance.wait_for_boot("g")
    reads, read, writes, written, errors = driver.domain_block_stats(domain, "hda")
    assert reads > 0
    assert read >= 512 * reads
    assert (writes, written, errors) == (0, 0, -1)
    assert driver.domain_block_stats(domain, f"{instance.root}/data.qcow2")[:2] == (0, 0)
    assert driver.domain_block_stats(domain, "hdc") == (0, 0, 0, 0, -1)
    assert driver.domain_block_stats(domain, "") == (reads, read, 0, 0, -1)  # all together
    params, count = driver.domain_block_stats_flags(domain, "hda", 16, 0)
    assert (values(params)["rd_bytes"], len(params), count) == (read, 8, 0)
    assert driver.domain_block_stats_flags(domain, "hda", 0, 0) == ([], 8)
    with pytest.raises(VirtError, match="invalid path: nope"):
        driver.domain_block_stats(domain, "nope")
    assert driver.domain_get_disk_errors(domain, 0, 0) == ([], 3)
    assert driver.domain_get_disk_errors(domain, 3, 0) == ([], 0)


def test_sizes_are_the_same_on_and_off(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    raw, qcow2 = f"{instance.root}/g.img", f"{instance.root}/data.qcow2"
    for start in (False, True):
        if start:
            driver.domain_create(domain)
        _, capacity, physical = driver.domain_get_block_info(domain, "hda", 0)
        assert capacity == physical == os.path.getsize(raw)
        allocation, capacity, physical = driver.domain_get_block_info(domain, qcow2, 0)
        assert (capacity, physical) == (8 << 20, os.path.getsize(qcow2))
        assert 0 < allocation <= os.stat(qcow2).st_blocks * 512
        with pytest.raises(VirtError, match="disk 'hdc' does not currently have a source assigned"):
            driver.domain_get_block_info(domain, "hdc", 0)
        with pytest.raises(VirtError, match="invalid path nope not assigned to domain"):
            driver.domain_get_block_info(domain, "nope", 0)


def test_resize(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    with pytest.raises(VirtError, match="domain is not running"):
        driver.domain_block_resize(domain, "vdb", 16 * 1024, 0)
    driver.domain_create(domain)
    driver.domain_block_resize(domain, "vdb", 16 * 1024, 0)
    assert driver.domain_get_block_info(domain, "vdb", 0)[1] == 16 << 20
    driver.domain_block_resize(domain, "vdb", (20 << 20) - 1, c.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    assert driver.domain_get_block_info(domain, "vdb", 0)[1] == 20 << 20
    with pytest.raises(VirtError, match="can't resize empty or readonly disk 'hdc'"):
        driver.domain_block_resize(domain, "hdc", 1024, 0)
    with pytest.raises(VirtError, match="size must be less than 18014398509481983"):
        driver.domain_block_resize(domain, "vdb", 1 << 62, 0)


def test_limits(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    driver.domain_create(domain)

    def change(flags: int, **wanted: int) -> None:
        params = [typed.unsigned_long(name, value) for name, value in wanted.items()]
        driver.domain_set_block_io_tune(domain, "vdb", params, flags)

    def found(flags: int = LIVE) -> dict[str, object]:
        return {
            name: value
            for name, value in values(driver.domain_get_block_io_tune(domain, "vdb", 32, flags)[0]).items()
            if value
        }

    change(LIVE | CONFIG, total_bytes_sec=1000000, read_iops_sec=500)
    assert found() == found(CONFIG) == {"total_bytes_sec": 1000000, "read_iops_sec": 500}
    change(0, read_bytes_sec=4096)  # one of a kind takes the place of the others
    assert found() == {"read_bytes_sec": 4096, "read_iops_sec": 500}
    answer = driver.qemu_domain_monitor_command(domain, '{"execute":"query-block"}', 0)
    assert '"bps_rd":4096' in answer.replace(" ", "")
    assert driver.domain_get_block_io_tune(domain, "vdb", 0, 0) == ([], 20)
    with pytest.raises(VirtError, match="total and read/write of bytes_sec cannot be set at the same time"):
        change(0, total_bytes_sec=5, write_bytes_sec=5)
    with pytest.raises(VirtError, match="cannot reset 'total_iops_sec' when 'total_iops_sec_max' is set"):
        change(0, total_iops_sec_max=5)
    with pytest.raises(VirtError, match="must be no more than 1000000000000000"):
        change(0, total_bytes_sec=1 << 60)
    change(LIVE, read_bytes_sec=0, read_iops_sec=0)
    assert found() == {}


def test_contents(instance: Instance, domain: Domain) -> None:
    driver = instance.driver
    assert driver.domain_block_peek(domain, "hda", 510, 2, 0) == b"\x55\xaa"
    with pytest.raises(VirtError, match="'hda' starting from 1073741824 has only 0 bytes available"):
        driver.domain_block_peek(domain, "hda", 1 << 30, 16, 0)
    with pytest.raises(VirtError, match="only supported for disk with 'raw' format not 'qcow2'"):
        driver.domain_block_peek(domain, "vdb", 0, 16, 0)
    with pytest.raises(VirtError, match="disk 'nope' not found in domain"):
        driver.domain_block_peek(domain, "nope", 0, 16, 0)
