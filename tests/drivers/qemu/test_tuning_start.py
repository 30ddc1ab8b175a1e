"""Limits, pins and schedulers that a guest has from its first instruction on."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.qemu.commandline import domain_xml, parse
from tests.drivers.qemu.instance import Instance
from tests.helpers.waiting import ends
from virtd import constants as c
from virtd.conf.domain.memory import CpuTune
from virtd.conf.domain.resctrl import BandwidthPart, CachePart, CacheTune, MemTune
from virtd.drivers import typed
from virtd.drivers.qemu.run import cgroup, tuning
from virtd.errors import VirtError
from virtd.state import undo


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


def test_threads_are_pinned_and_scheduled(instance: Instance) -> None:
    """Where there are fewer CPUs to choose from than two, the pins at least do no harm."""
    first, last = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    tune = (
        "<iothreads>1</iothreads><cputune>"
        f"<vcpupin vcpu='0' cpuset='{first}'/><emulatorpin cpuset='{last}'/>"
        f"<iothreadpin iothread='1' cpuset='{first}'/>"
        "<vcpusched vcpus='0' scheduler='batch'/><iothreadsched iothreads='1' scheduler='idle'/></cputune>"
    )
    domain = instance.driver.domain_create_xml(instance.xml(more=tune), c.VIR_DOMAIN_START_PAUSED)
    pid = instance.qemu(domain)
    threads = {(task / "comm").read_text().strip(): int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()}
    vcpu = next(number for name, number in threads.items() if name.startswith("CPU 0"))
    iothread = next(number for name, number in threads.items() if name.startswith("IO iothread1"))
    assert os.sched_getaffinity(vcpu) == os.sched_getaffinity(iothread) == {first}
    assert os.sched_getaffinity(pid) == {last}
    assert os.sched_getscheduler(vcpu) == os.SCHED_BATCH
    assert os.sched_getscheduler(iothread) == os.SCHED_IDLE
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER


def test_what_is_said_of_a_vcpu_counts_when_it_is_plugged_in(instance: Instance) -> None:
    first = min(os.sched_getaffinity(0))
    tune = f"<cputune><vcpupin vcpu='1' cpuset='{first}'/><vcpusched vcpus='1' scheduler='batch'/></cputune>"
    xml = instance.xml(more=f"<vcpu current='1'>2</vcpu>{tune}")
    domain = instance.driver.domain_create_xml(xml, c.VIR_DOMAIN_START_PAUSED)
    instance.driver.domain_set_vcpus(domain, 2)
    tasks = Path(f"/proc/{instance.qemu(domain)}/task").iterdir()
    threads = {(task / "comm").read_text().strip(): int(task.name) for task in tasks}
    plugged = next(number for name, number in threads.items() if name.startswith("CPU 1"))
    before = next(number for name, number in threads.items() if name.startswith("CPU 0"))
    assert os.sched_getaffinity(plugged) == {first}
    assert [os.sched_getscheduler(one) for one in (before, plugged)] == [os.SCHED_OTHER, os.SCHED_BATCH]


REFUSED = [
    ("<blkiotune><weight>500</weight></blkiotune>", "Block I/O tuning is not available"),
    ("<memtune><hard_limit>100000</hard_limit></memtune>", "Memory cgroup is not available on this host"),
    ("<cputune><shares>2048</shares></cputune>", "CPU tuning is not available"),
    ("<cputune><quota>20000</quota></cputune>", "cgroup cpu is required for scheduler tuning"),
    ("<cputune><iothreadpin iothread='7' cpuset='0'/></cputune>", "Cannot find 'iothread' : 7"),
]


@pytest.mark.parametrize(("top", "text"), REFUSED)
def test_what_this_host_cannot_do(top: str, text: str) -> None:
    with pytest.raises(VirtError, match=re.escape(text)) as caught:
        tuning.check(parse(domain_xml(top=top)), None, privileged=True)
    assert caught.value.code == c.VIR_ERR_CONFIG_UNSUPPORTED


@pytest.mark.parametrize(
    "tune",
    [
        CpuTune(cachetunes=[CacheTune(caches=[CachePart(id=0, level=3, type="both", size=3072)])]),
        CpuTune(memorytunes=[MemTune(nodes=[BandwidthPart(id=0, bandwidth=50)])]),
    ],
)
def test_parts_of_the_hosts_caches(tune: CpuTune) -> None:
    """Only for guests with KVM: what has none is refused when it is defined."""
    config = parse(domain_xml())
    config.cputune = tune
    with pytest.raises(VirtError, match="Resource control is not supported on this host") as caught:
        tuning.check(config, None, privileged=True)
    assert caught.value.code == c.VIR_ERR_CONFIG_UNSUPPORTED


def test_counters_of_the_host(instance: Instance) -> None:
    """Of the kernel's own, which every machine has; they go on, from 0, with another supervisor."""
    driver = instance.driver
    counted = "<perf><event name='task_clock' enabled='yes'/></perf>"
    domain = driver.domain_create_xml(instance.xml(more=counted), 0)
    instance.wait_for_boot("g")

    def told() -> dict[str, int]:
        (record,) = driver.connect_get_all_domain_stats([domain], c.VIR_DOMAIN_STATS_PERF, 0)
        return {param.field: param.value.value for param in record.params}

    assert told()["perf.task_clock"] > 0
    live = c.VIR_DOMAIN_AFFECT_LIVE
    driver.domain_set_perf_events(domain, [typed.boolean("context_switches", True)], live)
    assert told().keys() == {"perf.task_clock", "perf.context_switches"}
    driver.domain_set_perf_events(domain, [typed.boolean("task_clock", False)], live)
    assert told().keys() == {"perf.context_switches"}
    assert [one.field for one in driver.domain_get_perf_events(domain, live) if one.value.value] == ["context_switches"]
    with pytest.raises(VirtError, match="unable to enable host cpu perf event for cmt") as caught:
        driver.domain_set_perf_events(domain, [typed.boolean("cmt", True)], live)
    assert (caught.value.code, caught.value.domain) == (c.VIR_ERR_ARGUMENT_UNSUPPORTED, c.VIR_FROM_PERF)
    supervisor = instance.supervisor(domain)
    os.kill(supervisor, signal.SIGKILL)
    ends(supervisor)
    driver.domain_get_info(domain)  # whoever looks first puts another one in its place
    assert told().keys() == {"perf.context_switches"}


def test_a_counter_that_nobody_keeps() -> None:
    config = parse(domain_xml(top="<perf><event name='cmt' enabled='yes'/></perf>"))
    with pytest.raises(VirtError, match="unable to enable host cpu perf event for cmt") as caught:
        tuning.check(config, None, privileged=True)
    assert caught.value.code == c.VIR_ERR_ARGUMENT_UNSUPPORTED


def test_files_of_the_group(tmp_path: Path) -> None:
    """A directory stands in for the group: no container lets tests have a real one."""
    (tmp_path / "cgroup.controllers").write_text("cpu cpuset io memory")
    top = (
        "<blkiotune><weight>500</weight><device><path>/dev/null</path><read_bytes_sec>5</read_bytes_sec>"
        "<write_iops_sec>7</write_iops_sec></device></blkiotune>"
        "<memtune><hard_limit>1000</hard_limit><soft_limit>800</soft_limit><swap_hard_limit>1500</swap_hard_limit>"
        "</memtune><cputune><shares>2048</shares><global_quota>5000</global_quota></cputune>"
        "<numatune><memory mode='restrictive' nodeset='0'/></numatune>"
    )
    config = parse(domain_xml(top=top))
    tuning.check(config, str(tmp_path), privileged=True)
    tuning.set_group(config, str(tmp_path))
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.name != "cgroup.controllers"} == {
        "io.weight": "default 500",
        "io.max": "1:3 rbps=5 wiops=7",
        "memory.max": "1024000",
        "memory.high": "819200",
        "memory.swap.max": "512000",
        "cpu.weight": "2048",
        "cpu.max": "5000 100000",
        "cpuset.mems": "0",
    }


def test_groups_of_threads(tmp_path: Path) -> None:
    """Each limited thread is in a threaded group, and the groups go with the guest."""
    group = tmp_path / "group"
    group.mkdir()
    tune = CpuTune(quota=3000, period=50000, emulator_quota=-1)
    threads = tuning.Threads({0: 11, 1: 12}, {1: 13}, [14, 15])
    tuning.limit_threads(str(group), tune, threads, str(tmp_path / "undo"))
    assert sorted(path.name for path in group.iterdir() if path.is_dir()) == ["emulator", "vcpu0", "vcpu1"]
    assert (group / "vcpu1" / "cpu.max").read_text() == "3000 50000"
    assert (group / "vcpu1" / "cgroup.threads").read_text() == "12"
    assert (group / "vcpu1" / "cgroup.type").read_text() == "threaded"
    assert (group / "emulator" / "cpu.max").read_text() == "max 100000"
    assert (group / "cgroup.subtree_control").read_text() == "+cpu"
    for path in group.iterdir():
        for file in path.iterdir() if path.is_dir() else ():
            file.unlink()  # the kernel's files do not keep a group from being removed
    undo.undo(str(tmp_path / "undo"))
    assert [path.name for path in group.iterdir()] == ["cgroup.subtree_control"]


def test_a_file_the_kernel_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(VirtError, match="Unable to write '1' to"):
        cgroup.write(str(tmp_path / "nonesuch"), "cpu.weight", "1")
