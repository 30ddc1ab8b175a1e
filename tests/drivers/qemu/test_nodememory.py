"""The host's pages and what KSM does."""

import os
from collections.abc import Iterator

import pytest

from tests.drivers.qemu.instance import Instance
from virtd.errors import VirtError


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


def test_free_pages(instance: Instance) -> None:
    driver = instance.driver
    size = os.sysconf("SC_PAGESIZE") // 1024
    free = driver.node_get_free_memory() // 1024 // size
    (pages,) = driver.node_get_free_pages([size], 0, 1, 0)
    assert 0 < pages <= 2 * free
    assert len(driver.node_get_free_pages([size], -1, 1, 0)) == 1
    for arguments, text in (
        (([5], 0, 1, 0), "page size 5 is not available on node 0"),
        (([size], 99, 1, 0), "start cell 99 out of range"),
        (([size], 0, 1, 1), r"\(0x1\) in function qemuNodeGetFreePages"),
    ):
        with pytest.raises(VirtError, match=text):
            driver.node_get_free_pages(*arguments)


def test_memory_parameters(instance: Instance) -> None:
    params, _ = instance.driver.node_get_memory_parameters(16, 0)
    assert instance.driver.node_get_memory_parameters(0, 0) == ([], len(params))
    if os.path.exists("/sys/kernel/mm/ksm/pages_shared"):
        assert "shm_pages_shared" in {param.field for param in params}
    with pytest.raises(VirtError, match=r"\(0x8\) in function virHostMemGetParameters"):
        instance.driver.node_get_memory_parameters(16, 8)
