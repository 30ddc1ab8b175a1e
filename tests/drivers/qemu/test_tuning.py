"""Calls that read and set what a guest has of CPUs, memory and I/O: live, persistent, both, and refused."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drivers.qemu.instance import Instance
from virtd import constants as c
from virtd import deadlines
from virtd.drivers import typed
from virtd.drivers.qemu.run import cgroup
from virtd.drivers.qemu.tune import limits as tuning
from virtd.errors import VirtError
from virtd.protocol.records import Domain, TypedParam
from virtd.state import undo

LIVE, CONFIG = c.VIR_DOMAIN_AFFECT_LIVE, c.VIR_DOMAIN_AFFECT_CONFIG
STRINGS = c.VIR_TYPED_PARAM_STRING_OKAY


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


@pytest.fixture
def running(instance: Instance) -> Domain:
    more = "<vcpu current='2'>3</vcpu><iothreads>2</iothreads>"
    domain = instance.driver.domain_define_xml(instance.xml(more=more))
    instance.driver.domain_create(domain)
    return domain


def values(params: list[TypedParam]) -> dict[str, object]:
    return {param.field: param.value.value for param in params}


def refused(code: int, text: str, call: Callable[..., object], *arguments: object) -> VirtError:
    with pytest.raises(VirtError) as caught:
        call(*arguments)
    assert (caught.value.code, text) == (code, caught.value.message)
    return caught.value


# CPUs


def test_vcpus_and_pinning(instance: Instance, running: Domain) -> None:
    driver = instance.driver
    count = os.cpu_count() or 1
    everything, first = (1 << count) - 1, b"\1"
    infos, maps = driver.domain_get_vcpus(running, 4, 1)
    assert [(info.number, info.state) for info in infos] == [(0, c.VIR_VCPU_RUNNING), (1, c.VIR_VCPU_RUNNING)]
    assert maps == bytes([everything & 255]) * 2
    driver.domain_pin_vcpu(running, 1, first)
    assert driver.domain_get_vcpus(running, 4, 1)[1] == bytes([everything & 255, 1])
    assert driver.domain_get_vcpu_pin_info(running, 4, 1, 0) == (bytes([everything & 255, 1, everything & 255]), 3)
    assert driver.domain_get_vcpu_pin_info(running, 1, 1, CONFIG) == (bytes([everything & 255]), 1)
    driver.domain_pin_emulator(running, first, LIVE | CONFIG)
    assert os.sched_getaffinity(instance.qemu(running)) == {0}
    assert driver.domain_get_emulator_pin_info(running, 2, CONFIG) == (b"\1\0", 1)
    driver.domain_pin_iothread(running, 2, first, 0)
    threads = {one.iothread_id: one.cpumap for one in driver.domain_get_iothread_info(running, 0)[0]}
    assert threads == {2: first, 1: bytes([everything & 255])}
    assert "<vcpupin vcpu='1' cpuset='0'/>" in driver.domain_get_xml_desc(running, 0)
    assert "<vcpupin" not in driver.domain_get_xml_desc(running, c.VIR_DOMAIN_XML_INACTIVE)


def test_wrong_pins(instance: Instance, running: Domain) -> None:
    driver = instance.driver
    invalid = c.VIR_ERR_INVALID_ARG
    text = "invalid argument: vcpu 9 is out of range of live cpu count 3"
    refused(invalid, text, driver.domain_pin_vcpu, running, 9, b"\1")
    text = "invalid argument: vcpu 2 is out of range of persistent cpu count 2"
    refused(invalid, text, driver.domain_pin_vcpu_flags, running, 2, b"\1", CONFIG)
    refused(invalid, "invalid argument: Empty cpu list for pinning", driver.domain_pin_emulator, running, b"\0", 0)
    refused(invalid, "invalid argument: iothread 9 not found", driver.domain_pin_iothread, running, 9, b"\1", 0)
    text = "unsupported flags (0x4) in function qemuDomainPinVcpuFlags"
    refused(invalid, text, driver.domain_pin_vcpu_flags, running, 0, b"\1", 4)


def test_the_number_of_vcpus(instance: Instance, running: Domain) -> None:
    driver = instance.driver
    driver.domain_set_vcpus_flags(running, 3, LIVE)
    assert driver.domain_get_vcpus_flags(running, LIVE) == 3
    assert driver.domain_get_vcpus_flags(running, CONFIG) == 2
    assert driver.domain_get_info(running)[3] == 3
    assert len(driver.domain_get_vcpus(running, 9, 1)[0]) == 3
    assert "<vcpu id='2' enabled='yes' hotpluggable='yes' order='3'/>" in driver.domain_get_xml_desc(running, 0)
    text = "invalid argument: requested vcpus is greater than max allowable vcpus for the live domain: 9 > 3"
    refused(c.VIR_ERR_INVALID_ARG, text, driver.domain_set_vcpus, running, 9)
    text = "unsupported configuration: failed to find appropriate hotpluggable vcpus "
    text += "to reach the desired target vcpu count"
    refused(c.VIR_ERR_CONFIG_UNSUPPORTED, text, driver.domain_set_vcpus, running, 1)
    with pytest.raises(VirtError, match="device_del"):  # without KVM QEMU cannot take one away
        driver.domain_set_vcpu(running, "2", 0, LIVE)
    assert driver.domain_get_vcpus_flags(running, LIVE) == 3
    driver.domain_set_vcpus_flags(running, 1, CONFIG)
    driver.domain_set_vcpus_flags(running, 8, CONFIG | c.VIR_DOMAIN_VCPU_MAXIMUM)
    assert driver.domain_get_vcpus_flags(running, CONFIG) == 1
    assert driver.domain_get_vcpus_flags(running, CONFIG | c.VIR_DOMAIN_VCPU_MAXIMUM) == 8
    driver.domain_set_vcpu(running, "1", 1, CONFIG)
    assert driver.domain_get_vcpus_flags(running, CONFIG) == 2
    text = "invalid argument: vCPU '0' can't be modified"
    refused(c.VIR_ERR_INVALID_ARG, text, driver.domain_set_vcpu, running, "0", 0, CONFIG)
    # Everything that has been written can be started.
    driver.domain_destroy(running)
    driver.domain_create(running)
    assert len(driver.domain_get_vcpus(running, 9, 1)[0]) == 2


# Memory


def test_memory(instance: Instance, running: Domain) -> None:
    driver = instance.driver
    driver.domain_set_memory_flags(running, 12 * 1024, LIVE | CONFIG)
    assert "<currentMemory unit='KiB'>12288<" in driver.domain_get_xml_desc(running, c.VIR_DOMAIN_XML_INACTIVE)
    text = "invalid argument: cannot set memory higher than max memory"
    refused(c.VIR_ERR_INVALID_ARG, text, driver.domain_set_memory, running, 17 * 1024)
    text = "Requested operation is not valid: cannot resize the maximum memory on an active domain"
    refused(c.VIR_ERR_OPERATION_INVALID, text, driver.domain_set_max_memory, running, 8 * 1024)
    driver.domain_set_memory_flags(running, 8 * 1024, c.VIR_DOMAIN_MEM_MAXIMUM | CONFIG)
    xml = driver.domain_get_xml_desc(running, c.VIR_DOMAIN_XML_INACTIVE)
    assert "<memory unit='KiB'>8192<" in xml
    assert "<currentMemory unit='KiB'>8192<" in xml
    stats = {stat.tag: stat.val for stat in driver.domain_memory_stats(running, 20, 0)}
    assert stats[c.VIR_DOMAIN_MEMORY_STAT_ACTUAL_BALLOON] == 16 * 1024  # nothing in this guest takes part
    assert stats[c.VIR_DOMAIN_MEMORY_STAT_RSS] > 1024
    assert len(driver.domain_memory_stats(running, 1, 0)) == 1
    driver.domain_set_memory_stats_period(running, 5, LIVE | CONFIG)
    for flags in (0, c.VIR_DOMAIN_XML_INACTIVE):
        assert "<stats period='5'/>" in driver.domain_get_xml_desc(running, flags)


def test_a_look_into_memory(instance: Instance, running: Domain) -> None:
    driver = instance.driver
    instance.wait_for_boot("g")
    assert driver.domain_memory_peek(running, 0x7DFE, 2, c.VIR_MEMORY_PHYSICAL) == b"\x55\xaa"  # the boot sector's end
    refused(
        c.VIR_ERR_INVALID_ARG,
        "invalid argument: flags parameter must be VIR_MEMORY_VIRTUAL or VIR_MEMORY_PHYSICAL",
        driver.domain_memory_peek,
        running,
        0,
        1,
        0,
    )


# Parameters


def test_parameters_of_a_definition(instance: Instance) -> None:
    driver = instance.driver
    off = driver.domain_define_xml(instance.xml())
    driver.domain_set_scheduler_parameters(off, [typed.unsigned_long("cpu_shares", 512)])
    driver.domain_set_scheduler_parameters_flags(off, [typed.long("vcpu_quota", -1)], CONFIG)
    found = values(driver.domain_get_scheduler_parameters(off, 16))
    assert (found["cpu_shares"], found["vcpu_quota"], len(found)) == (512, -1, 9)
    limit = tuning.UNLIMITED
    driver.domain_set_memory_parameters(off, [typed.unsigned_long("hard_limit", 100000)], 0)
    found = values(driver.domain_get_memory_parameters(off, 16, 0)[0])
    assert found == {"hard_limit": 100000, "soft_limit": limit, "swap_hard_limit": limit}
    wrong = [typed.unsigned_long("swap_hard_limit", 100)]
    text = "invalid argument: memory hard_limit tunable value must be lower than or equal to swap_hard_limit"
    refused(c.VIR_ERR_INVALID_ARG, text, driver.domain_set_memory_parameters, off, wrong, 0)
    driver.domain_set_memory_parameters(off, [typed.unsigned_long("hard_limit", limit)], 0)
    driver.domain_set_blkio_parameters(
        off, [typed.unsigned("weight", 300), typed.string("device_read_iops_sec", "/dev/null,7")], 0
    )
    found = values(driver.domain_get_blkio_parameters(off, 16, STRINGS)[0])
    assert (found["weight"], found["device_read_iops_sec"], found["device_weight"]) == (300, "/dev/null,7", "")
    assert values(driver.domain_get_blkio_parameters(off, 16, 0)[0]) == {"weight": 300}
    driver.domain_set_numa_parameters(
        off, [typed.integer("numa_mode", c.VIR_DOMAIN_NUMATUNE_MEM_INTERLEAVE), typed.string("numa_nodeset", "0")], 0
    )
    found = values(driver.domain_get_numa_parameters(off, 2, STRINGS)[0])
    assert found == {"numa_mode": c.VIR_DOMAIN_NUMATUNE_MEM_INTERLEAVE, "numa_nodeset": "0"}
    driver.domain_set_perf_events(off, [typed.boolean("page_faults", True)], 0)
    perf = values(driver.domain_get_perf_events(off, 0))
    assert [name for name, value in perf.items() if value] == ["page_faults"]
    assert driver.domain_get_memory_parameters(off, 0, 0) == ([], 3)
    # The definition is one that can be read back.
    assert driver.domain_get_info(driver.domain_define_xml(driver.domain_get_xml_desc(off, 0)))[0]


def test_wrong_parameters(instance: Instance) -> None:
    driver = instance.driver
    off = driver.domain_define_xml(instance.xml())
    set_scheduler = driver.domain_set_scheduler_parameters
    text = "invalid argument: value of 'vcpu_period' is out of range [1000, 1000000]"
    refused(c.VIR_ERR_INVALID_ARG, text, set_scheduler, off, [typed.unsigned_long("vcpu_period", 5)])
    text = "argument unsupported: parameter 'nope' not supported"
    refused(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text, set_scheduler, off, [typed.unsigned_long("nope", 5)])
    text = "invalid argument: invalid type 'int' for parameter 'cpu_shares', expected 'ullong'"
    refused(c.VIR_ERR_INVALID_ARG, text, set_scheduler, off, [typed.integer("cpu_shares", 5)])
    refused(
        c.VIR_ERR_INVALID_ARG,
        "invalid argument: unable to parse blkio device 'device_weight' 'x'",
        driver.domain_set_blkio_parameters,
        off,
        [typed.string("device_weight", "x")],
        0,
    )
    refused(
        c.VIR_ERR_INVALID_ARG,
        "Flags 'VIR_DOMAIN_AFFECT_LIVE' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive",
        driver.domain_get_memory_parameters,
        off,
        0,
        LIVE | CONFIG,
    )


def test_control_groups(tmp_path: Path) -> None:
    for name, text in (("cpu.weight", "100"), ("cpu.max", "max 100000"), ("memory.max", "max"), ("memory.high", "max")):
        (tmp_path / name).write_text(text + "\n")
    group = str(tmp_path)
    tuning._set_group_scheduler(group, {"cpu_shares": 500, "global_quota": 20000})
    assert (tmp_path / "cpu.max").read_text() == "20000 100000"
    found = tuning._group_scheduler(group)
    assert (found["cpu_shares"], found["global_period"], found["global_quota"]) == (500, 100000, 20000)
    tuning._set_group_scheduler(group, {"global_quota": -1, "global_period": 50000})
    assert (tmp_path / "cpu.max").read_text() == "max 50000"
    tuning._set_group_memory(group, {"hard_limit": 1024}, None)
    assert tuning._group_memory(group)["hard_limit"] == 1024


def test_limits_of_a_running_guests_threads_and_devices(
    instance: Instance, running: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory that stands for the guest's control group."""
    for name, text in (("cpu.weight", "100"), ("cpu.max", "max 100000"), ("cgroup.controllers", "cpu io")):
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(cgroup, "directory", lambda uuid: str(tmp_path))
    monkeypatch.setattr(undo, "note", lambda *words, **values: None)
    driver = instance.driver
    quotas = [typed.long("vcpu_quota", 20000), typed.long("emulator_quota", 30000), typed.long("iothread_quota", -1)]
    driver.domain_set_scheduler_parameters_flags(running, [*quotas, typed.unsigned_long("vcpu_period", 50000)], LIVE)
    found = values(driver.domain_get_scheduler_parameters_flags(running, 9, LIVE))
    assert (found["vcpu_quota"], found["vcpu_period"]) == (20000, 50000)
    assert (found["emulator_quota"], found["iothread_quota"], found["global_quota"]) == (30000, -1, -1)
    threads = {int(name) for name in os.listdir(f"/proc/{instance.qemu(running)}/task")}
    groups = ("vcpu0", "vcpu1", "iothread1", "iothread2")
    alone = {int((tmp_path / group / "cgroup.threads").read_text()) for group in groups}
    assert len(alone) == len(groups)
    assert alone < threads
    assert int((tmp_path / "emulator/cgroup.threads").read_text()) in threads - alone
    assert "<quota>20000</quota>" in driver.domain_get_xml_desc(running, 0)

    def limited(text: str) -> str:
        driver.domain_set_blkio_parameters(running, [typed.string("device_read_iops_sec", text)], LIVE)
        return (tmp_path / "io.max").read_text()

    device = os.stat("/dev/null").st_rdev
    number = f"{os.major(device)}:{os.minor(device)}"
    assert limited("/dev/null,500") == f"{number} riops=500"
    found = values(driver.domain_get_blkio_parameters(running, 16, STRINGS)[0])
    assert found["device_read_iops_sec"] == "/dev/null,500"
    assert limited("/dev/null,0") == f"{number} riops=max"


def test_life_cycle_actions(instance: Instance, running: Domain) -> None:
    driver = instance.driver
    restart = c.VIR_DOMAIN_LIFECYCLE_ACTION_RESTART
    driver.domain_set_lifecycle_action(running, c.VIR_DOMAIN_LIFECYCLE_POWEROFF, restart, 0)
    assert "<on_poweroff>restart</on_poweroff>" in driver.domain_get_xml_desc(running, 0)
    instance.wait_for_boot("g")
    driver.domain_shutdown(running)
    instance.wait_for_boot("g")  # it comes back
    assert driver.domain_get_state(running, 0)[0] == c.VIR_DOMAIN_RUNNING
    refused(
        c.VIR_ERR_CONFIG_UNSUPPORTED,
        "unsupported configuration: qemu driver doesn't support the 'preserve' action for 'on_reboot'/'on_poweroff'",
        driver.domain_set_lifecycle_action,
        running,
        c.VIR_DOMAIN_LIFECYCLE_REBOOT,
        c.VIR_DOMAIN_LIFECYCLE_ACTION_PRESERVE,
        0,
    )


# All of them


def test_calls_about_a_running_guest_are_refused_of_one_that_is_off(instance: Instance) -> None:
    driver = instance.driver
    off = driver.domain_define_xml(instance.xml())
    for call, arguments in (
        (driver.domain_memory_stats, (10, 0)),
        (driver.domain_set_memory, (1024,)),
        (driver.domain_memory_peek, (0, 1, 1)),
        (driver.domain_get_job_info, ()),
        (driver.domain_get_job_stats, (0,)),
        (driver.domain_abort_job, ()),
        (driver.domain_pin_vcpu, (0, b"\1")),
        (driver.domain_interface_stats, ("vnet0",)),
        (driver.domain_open_graphics_fd, (0, 0)),
        (driver.domain_pm_wakeup, (0,)),
        (driver.domain_start_dirty_rate_calc, (1, 0)),
        (driver.qemu_domain_monitor_command, ("{}", 0)),
    ):
        error = refused(
            c.VIR_ERR_OPERATION_INVALID,
            "Requested operation is not valid: domain is not running",
            call,
            off,
            *arguments,
        )
        assert error.domain == c.VIR_FROM_DOMAIN


def test_stuck_guests_are_told_of_as_far_as_the_host_knows(instance: Instance, running: Domain) -> None:
    driver = instance.driver
    os.kill(instance.qemu(running), signal.SIGSTOP)
    assert len(driver.domain_get_vcpus(running, 4, 1)[0]) == 2
    assert driver.domain_get_vcpu_pin_info(running, 4, 1, 0)[1] == 3
    with deadlines.limit(0.05), pytest.raises(deadlines.DeadlineExceeded, match="vm='g'"):
        driver.domain_memory_stats(running, 10, 0)


def test_monitor_commands(instance: Instance, running: Domain) -> None:
    driver = instance.driver
    answer = driver.qemu_domain_monitor_command(running, '{"execute":"query-name"}', 0)
    assert answer.startswith('{"return":{"name":"g"},"id":"libvirt-')
    assert "CommandNotFound" in driver.qemu_domain_monitor_command(running, '{"execute":"nope"}', 0)
    hmp = c.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
    assert driver.qemu_domain_monitor_command(running, "info name", hmp) == "g\r\n"
    refused(
        c.VIR_ERR_INTERNAL_ERROR,
        "internal error: Unable to append command 'id' string",
        driver.qemu_domain_monitor_command,
        running,
        '{"execute":"query-name","id":1}',
        0,
    )


def test_a_screen_over_a_descriptor(instance: Instance) -> None:
    driver = instance.driver
    domain = driver.domain_create_xml(instance.xml(devices="<graphics type='vnc' port='-1'/>"), 0)
    reply = driver.domain_open_graphics_fd(domain, 0, c.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
    (descriptor,) = reply.fds
    try:
        assert deadlines.readable(descriptor, 30)
        assert os.read(descriptor, 4) == b"RFB "
    finally:
        os.close(descriptor)
    text = "internal error: No graphics backend with index 5"
    refused(c.VIR_ERR_INTERNAL_ERROR, text, driver.domain_open_graphics_fd, domain, 5, 0)
