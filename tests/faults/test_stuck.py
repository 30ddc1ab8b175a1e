"""A guest that hangs, with 25 calls hanging on it: nobody else notices, and all ends well."""

from __future__ import annotations

import re

import pytest

from tests.faults.stuck import Field
from tests.helpers.instance import Instance
from tests.helpers.waiting import wait_ended
from virtd import constants as c

CALLS = 25  # libvirtd has 20 threads
PATIENCE = 4  # seconds, for what has 30 in earnest


@pytest.fixture
def field(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> Field:
    monkeypatch.setenv("VIRTD_PATIENCE", str(PATIENCE))
    instance.start()
    return Field(instance)


def test_nobody_notices(field: Field) -> None:
    known = field.statistics()
    before = field.measure()
    with field.stopped():
        with field.hanging(CALLS) as hanging:
            ratios = field.measure().ratios(before)
            told = field.statistics()
            errors = hanging.errors()
        state = field.client.call("domain_get_state", field.domains["stuck"], 0)
        with field.hanging(CALLS) as hanging:
            pass  # their clients have gone
    # A machine that is busy with 25 more processes, and with other tests, is slower; a call that waited for one that
    # hangs would take a thousand times as long.
    assert max(ratios.call, ratios.lists) < 30
    assert max(ratios.start, ratios.statistics) < 10
    assert {name: set(values) for name, values in told.items()} == {name: set(known[name]) for name in known}
    assert told["stuck"]["block.0.path"] == known["stuck"]["block.0.path"]
    assert tuple(state) == (c.VIR_DOMAIN_RUNNING, c.VIR_DOMAIN_RUNNING_BOOTED)
    assert [error.code if error else 0 for error in errors] == [c.VIR_ERR_OPERATION_TIMEOUT] * CALLS
    texts = [error.message for error in errors if error]
    assert all("stuck" in text for text in texts), texts
    waiting = [text for text in texts if "state change lock" in text]
    assert waiting
    assert all(re.search(r"held by pid \d+ in virDomainSuspend for \d+ s", text) for text in waiting), waiting
    # It is awake again.
    field.client.call("domain_suspend", field.domains["stuck"])
    field.client.call("domain_resume", field.domains["stuck"])


def test_it_can_be_destroyed(field: Field) -> None:
    pid = field.qemu("stuck")
    with field.stopped(), field.hanging(CALLS) as hanging:
        field.client.call("domain_destroy_flags", field.domains["stuck"], 0)
        assert wait_ended(pid, 0)
        assert all(hanging.errors())
    assert field.client.call("domain_get_state", field.domains["stuck"], 0)[0] == c.VIR_DOMAIN_SHUTOFF
    field.client.call("domain_create_with_flags", field.domains["stuck"], 0)
