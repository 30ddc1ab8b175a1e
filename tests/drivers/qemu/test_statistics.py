"""Statistics of many guests in one call: every group, stuck guests, flags."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.drivers.qemu.instance import Instance
from virtd import constants as c
from virtd import deadlines
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.monitor import ask
from virtd.drivers.qemu.stats import facts, groups
from virtd.drivers.qemu.stats.known import Known
from virtd.errors import VirtError
from virtd.protocol.records import Domain, DomainStatsRecord
from virtd.state import locks

MORE = "<vcpu current='2'>3</vcpu><iothreads>1</iothreads>"
BLOCK = c.VIR_DOMAIN_STATS_BLOCK


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


def table(record: DomainStatsRecord) -> dict[str, object]:
    return {param.field: param.value.value for param in record.params}


def stats(instance: Instance, domains: list[Domain], groups: int = 0, flags: int = 0) -> list[dict[str, object]]:
    return [table(record) for record in instance.driver.connect_get_all_domain_stats(domains, groups, flags)]


def test_every_group_of_a_running_guest(instance: Instance) -> None:
    domain = instance.driver.domain_create_xml(
        instance.xml(
            more=MORE,
            devices="<interface type='user'/><disk type='file' device='cdrom'><target dev='hdc' bus='ide'/></disk>",
        ),
        0,
    )
    instance.wait_for_boot("g")
    (found,) = stats(instance, [domain])
    assert (found["state.state"], found["state.reason"]) == (c.VIR_DOMAIN_RUNNING, c.VIR_DOMAIN_RUNNING_BOOTED)
    assert found["cpu.time"] == found["cpu.user"] + found["cpu.system"] > 0  # type: ignore[operator]
    assert found["balloon.current"] == found["balloon.maximum"] == 16 * 1024
    assert found["balloon.rss"] > 1024  # type: ignore[operator]
    assert (found["vcpu.current"], found["vcpu.maximum"]) == (2, 3)
    assert {"vcpu.0.time", "vcpu.1.delay"} <= found.keys()
    assert "vcpu.2.time" not in found
    assert found["net.count"] == 1
    assert found["block.count"] == 2
    assert (found["block.0.name"], found["block.0.path"]) == ("hda", f"{instance.root}/g.img")
    assert found["block.0.rd.bytes"] > 0  # type: ignore[operator]
    assert found["block.0.capacity"] == os.path.getsize(f"{instance.root}/g.img")
    assert found["block.1.name"] == "hdc"
    assert found["block.1.rd.reqs"] == 0
    assert "block.1.capacity" not in found
    assert (found["iothread.count"], found["iothread.1.poll-max-ns"]) == (1, 32768)
    assert found["dirtyrate.calc_mode"] == "page-sampling"


def test_a_guest_that_is_off(instance: Instance) -> None:
    domain = instance.driver.domain_define_xml(instance.xml(more=MORE))
    (found,) = stats(instance, [domain])
    size = os.path.getsize(f"{instance.root}/g.img")
    assert found["state.state"] == c.VIR_DOMAIN_SHUTOFF
    assert found["block.0.capacity"] == found["block.0.physical"] == size
    assert not {"cpu.time", "net.count", "balloon.rss", "vcpu.0.state", "iothread.count"} & found.keys()


def test_groups_are_given_as_asked_for(instance: Instance) -> None:
    domain = instance.driver.domain_create_xml(instance.xml(), c.VIR_DOMAIN_START_PAUSED)
    prefixes = {1: "state", 2: "cpu", 4: "balloon", 8: "vcpu", 16: "net", 32: "block", 512: "dirtyrate"}
    for bit, prefix in prefixes.items():
        (found,) = stats(instance, [domain], bit)
        assert {name.partition(".")[0] for name in found} == {prefix}


def test_backing_images_are_told_of_on_request(instance: Instance) -> None:
    xml = instance.xml()
    backing = "<backingStore type='file'><format type='raw'/><source file='{}'/><backingStore/></backingStore>"
    overlay = f"{instance.root}/top.qcow2"
    base = f"{instance.root}/g.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay], check=True)
    xml = xml.replace("type='raw'/>", "type='qcow2'/>", 1).replace(
        f"<source file='{base}'/>", f"<source file='{overlay}'/>"
    )
    xml = xml.replace("<target dev='hda'", backing.format(base) + "<target dev='hda'")
    domain = instance.driver.domain_create_xml(xml, 0)
    instance.wait_for_boot("g")
    (found,) = stats(instance, [domain], BLOCK, c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING)
    assert found["block.count"] == 2
    assert (found["block.1.name"], found["block.1.path"], found["block.1.backingIndex"]) == ("hda", base, 2)
    assert found["block.1.capacity"] == os.path.getsize(base)
    assert found["block.1.rd.reqs"] == 0  # QEMU counts what a device asks for, not what its images do
    (found,) = stats(instance, [domain], BLOCK)
    assert found["block.count"] == 1


def test_filters(instance: Instance) -> None:
    driver = instance.driver
    driver.domain_define_xml(instance.xml("off"))
    driver.domain_create_xml(instance.xml("on"), c.VIR_DOMAIN_START_PAUSED)

    def names(flags: int) -> list[str]:
        return sorted(record.dom.name for record in driver.connect_get_all_domain_stats([], 1, flags))

    assert names(0) == ["off", "on"]
    assert names(c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE) == ["on"]
    assert names(c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_INACTIVE) == ["off"]
    assert names(c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_PAUSED) == ["on"]
    assert names(c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING) == []
    assert names(c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_PERSISTENT) == ["off"]


def test_flags_and_groups_that_are_not_known(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_define_xml(instance.xml())
    with pytest.raises(VirtError, match=r"unsupported flags \(0x400\) in function qemuConnectGetAllDomainStats"):
        driver.connect_get_all_domain_stats([], 0, 1 << 10)
    enforce = c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS
    with pytest.raises(VirtError, match="Stats types bits 0x800 are not supported by this daemon or QEMU"):
        driver.connect_get_all_domain_stats([domain], 1 | 1 << 11, enforce)
    with pytest.raises(VirtError, match="bits 0x80 are"):
        driver.connect_get_all_domain_stats([domain], c.VIR_DOMAIN_STATS_IOTHREAD, enforce)
    assert len(driver.connect_get_all_domain_stats([domain], 1 << 11, 0)) == 1


def test_a_guest_that_has_gone_is_left_out(instance: Instance) -> None:
    gone = Domain("gone", b"\1" * 16, -1)
    domain = instance.driver.domain_define_xml(instance.xml())
    assert [one["state.state"] for one in stats(instance, [gone, domain], 1)] == [c.VIR_DOMAIN_SHUTOFF]


def test_a_stuck_guest_yields_its_last_values_and_holds_up_nobody(instance: Instance) -> None:
    driver = instance.driver
    stuck = driver.domain_create_xml(instance.xml("stuck"), 0)
    healthy = driver.domain_create_xml(instance.xml("healthy"), 0)
    instance.wait_for_boot("stuck")
    before = stats(instance, [stuck, healthy])
    os.kill(instance.qemu(stuck), signal.SIGSTOP)
    after = stats(instance, [stuck, healthy])
    assert after[0].keys() == before[0].keys()
    assert after[0]["block.0.rd.bytes"] == before[0]["block.0.rd.bytes"]
    assert after[1].keys() == before[1].keys()
    with deadlines.limit(0.05):
        stats(instance, [stuck])  # that it is stopped is seen by now, and nobody waits for it


def test_a_guest_that_does_not_answer_costs_its_patience_only(instance: Instance) -> None:
    driver = instance.driver
    domains = [driver.domain_create_xml(instance.xml(name), 0) for name in ("busy", "healthy")]
    stats(instance, domains)
    guest = driver.guest(driver.guests.find(domains[0]))
    lock = locks.acquire(f"{guest.directory}/query.lock", "a long query")
    try:
        with deadlines.limit(0.05), pytest.raises(deadlines.DeadlineExceeded):
            stats(instance, domains)  # as in a worker, which gives the call to a child then
        began = time.monotonic()
        found = stats(instance, domains)
        assert 0.2 < time.monotonic() - began < 2
        assert found[0].keys() == found[1].keys()
        with deadlines.limit(0.05):
            assert len(stats(instance, domains, 0, c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)) == 2
    finally:
        lock.release()


def test_many_at_once_need_one_turn(instance: Instance) -> None:
    driver = instance.driver
    guests = [
        driver.guest(driver.guests.find(driver.domain_create_xml(instance.xml(f"g{n}"), c.VIR_DOMAIN_START_PAUSED)))
        for n in range(3)
    ]
    questions = [
        ask.Question(guest, [("query-status", None), ("query-name", None), ("nope", None)]) for guest in guests
    ]
    for number, answers in enumerate(ask.ask_all(questions, 5)):
        assert isinstance(answers, list)
        assert answers[1] == {"name": f"g{number}"}
        assert "nope" in str(answers[2])


def test_what_is_kept_of_a_guest_is_read_anew_when_its_xml_changes(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_define_xml(instance.xml())
    path = driver.guests.definitions.path("g")
    first = facts.read(path)
    assert first is not None
    assert first is facts.read(path)
    driver.domain_undefine(domain)
    assert facts.read(path) is None


def test_cpu_statistics(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_create_xml(instance.xml(), 0)
    params, count = driver.domain_get_cpu_stats(domain, 3, -1, 1, 0)
    assert [param.field for param in params] == ["cpu_time", "user_time", "system_time"]
    assert count == 3
    assert driver.domain_get_cpu_stats(domain, 0, -1, 1, 0) == ([], 3)
    assert driver.domain_get_cpu_stats(domain, 0, 0, 0, 0) == ([], os.cpu_count())
    with pytest.raises(VirtError, match="getCpuacctPercpuUsage"):
        driver.domain_get_cpu_stats(domain, 1, 0, 2, 0)


def test_what_is_asked_for_only_when_there_is_something_to_ask(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_create_xml(instance.xml(), 0)
    (found,) = stats(instance, [domain])
    assert (found["balloon.last-update"], found["dirtyrate.calc_status"]) == (0, c.VIR_DOMAIN_DIRTYRATE_UNSTARTED)
    driver.domain_start_dirty_rate_calc(domain, 1, 0)
    driver.domain_set_memory(domain, 12 * 1024)
    driver.domain_set_memory_stats_period(domain, 1, 0)
    (found,) = stats(instance, [domain])
    assert found["dirtyrate.calc_status"] != c.VIR_DOMAIN_DIRTYRATE_UNSTARTED
    assert found["dirtyrate.calc_period"] == 1
    assert found["balloon.current"] == 16 * 1024  # the guest does not take part
    assert "balloon.last-update" in found


def test_counters_of_kvm() -> None:
    """As QEMU 7.2 tells of them, which no test can have run under KVM."""
    schemas = [
        {"provider": "kvm", "target": "vm", "stats": [{"name": "mmu_flooded", "type": "cumulative"}]},
        {
            "provider": "kvm",
            "target": "vcpu",
            "stats": [
                {"name": "exits", "type": "cumulative"},
                {"name": "guest_mode", "type": "instant"},
                {"name": "halt_wait_hist", "type": "log2-histogram"},
            ],
        },
    ]
    paths = ["/machine/unattached/device[0]", "/machine/unattached/device[1]"]

    def told(exits: int) -> list[dict[str, object]]:
        return [
            {"name": "exits", "value": exits},
            {"name": "guest_mode", "value": False},
            {"name": "halt_wait_hist", "value": [1, 2]},
            {"name": "of another QEMU", "value": 1},
        ]

    known = Known(
        (1, 1),
        None,
        facts.Facts(0, 0, 2, 2, 0, None, 0, [], [], kvm=True, counted=False),
        None,
        {
            "query-stats-schemas": schemas,
            "query-stats vm": [{"provider": "kvm", "stats": [{"name": "mmu_flooded", "value": 3}]}],
            # In no order that could be relied on.
            "query-stats vcpu": [
                {"provider": "kvm", "qom-path": paths[1], "stats": told(20)},
                {"provider": "kvm", "qom-path": paths[0], "stats": told(10)},
            ],
            "query-cpus-fast": [{"cpu-index": number, "qom-path": path} for number, path in enumerate(paths)],
        },
        backing=False,
    )
    assert [(one.field, one.value.value) for one in groups._vm(known)] == [("vm.mmu_flooded.sum", 3)]
    found = [(one.field, one.value.value) for number in (0, 1) for one in groups._vcpu_counters(known, number)]
    assert found == [
        ("vcpu.0.exits.sum", 10),
        ("vcpu.0.guest_mode.cur", 0),
        ("vcpu.1.exits.sum", 20),
        ("vcpu.1.guest_mode.cur", 0),
    ]
    kvm = {ask.key(command) for command in groups.commands(known.facts, Guest("", "", ""), groups.ALL)}
    assert {"query-stats vm", "query-stats vcpu", "query-stats-schemas", "query-cpus-fast"} <= kvm
