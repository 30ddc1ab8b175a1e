"""A driver that asks another one, by the server's own socket, asks for its client."""

from __future__ import annotations

import os

import pytest

from tests.helpers.instance import Instance
from tests.linkage.conftest import NOBODY
from virtd.drivers import services
from virtd.drivers.base import Context, Identity
from virtd.state import paths


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    ("uid", "name"), [(NOBODY, f"uid {NOBODY} by root@unix"), (0, "root@unix"), (-1, "somebody by root@")]
)
def test_a_service_knows_for_whom_it_works(virtd: Instance, uid: int, name: str) -> None:
    context = Context(paths.below(str(virtd.root)), Identity(uid, uid, os.getpid()), os.getpid())
    connection = services.connect(context, "storage")
    try:
        assert connection.require("connect_num_of_storage_pools", "virConnectNumOfStoragePools")() == 0
        titles = [one.title for one in virtd.processes() if "storage:///system" in one.title]
        assert [f"worker for {name}" in title for title in titles] == [True], titles
    finally:
        connection.close()
