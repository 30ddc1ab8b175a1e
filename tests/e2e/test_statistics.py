"""What virsh reads of guests and sets of them: statistics, CPUs, memory, disks, devices."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from tests.e2e.guests import Guest
from tests.helpers.instance import Instance


def table(text: str, sign: str = ":") -> dict[str, str]:
    """Lines of 'name: value' or the like."""
    pairs = (line.partition(sign) for line in text.splitlines())
    return {name.strip(): value.strip() for name, found, value in pairs if found}


def qemu(virtd: Instance, name: str) -> int:
    """The pid of a guest's QEMU."""
    return next(one.pid for one in virtd.processes() if f"guest={name}" in one.title)


def test_domstats(virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1")
    running("web2")
    text = virtd.virsh("domstats")
    assert text.count("Domain: ") == 2
    found = table(virtd.virsh("domstats", "web1", "--state", "--balloon", "--vcpu", "--block"), "=")
    assert (found["state.state"], found["balloon.maximum"], found["vcpu.current"]) == ("1", "32768", "1")
    assert int(found["block.0.rd.bytes"]) > 0
    assert "Domain: 'web1'" in virtd.virsh("domstats", "--raw", "--nowait", "--backing", "web1")


def test_a_stuck_guest_does_not_hold_up_domstats(virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1")
    running("stuck")
    before = virtd.virsh("domstats", "stuck")
    os.kill(qemu(virtd, "stuck"), signal.SIGSTOP)
    text = virtd.virsh("domstats")
    assert text.count("Domain: ") == 2
    after = virtd.virsh("domstats", "stuck")
    assert table(after, "=").keys() == table(before, "=").keys()


def test_disks(virtd: Instance, running: Callable[..., Guest], tmp_path: Path) -> None:
    running("web1")
    target = virtd.virsh("domblklist", "web1").split()[0]
    counters = virtd.virsh("domblkstat", "web1", target)
    assert re.search(rf"^{target} rd_bytes +[1-9]\d*$", counters, re.MULTILINE)
    sizes = table(virtd.virsh("domblkinfo", "web1", target))
    assert sizes["Capacity"] == sizes["Physical"]
    assert virtd.virsh("domblkerror", "web1").strip() == "No errors found"
    virtd.virsh("blkdeviotune", "web1", target, "--total-bytes-sec", "1000000", "--live", "--config")
    assert table(virtd.virsh("blkdeviotune", "web1", target))["total_bytes_sec"] == "1000000"
    assert table(virtd.virsh("blkdeviotune", "web1", target, "--config"))["total_bytes_sec"] == "1000000"
    virtd.virsh("blockresize", "web1", target, "4M")
    assert table(virtd.virsh("domblkinfo", "web1", target))["Capacity"] == str(4 << 20)


def test_memory_and_cpus(virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1")
    assert int(table(virtd.virsh("dommemstat", "web1"), " ")["rss"]) > 1000
    virtd.virsh("setmem", "web1", "16M", "--config")
    assert "<currentMemory unit='KiB'>16384<" in virtd.virsh("dumpxml", "web1", "--inactive")
    assert "cannot set memory higher than max memory" in virtd.virsh_error("setmem", "web1", "1G", "--live")
    info = table(virtd.virsh("vcpuinfo", "web1"))
    assert (info["VCPU"], info["State"]) == ("0", "running")
    virtd.virsh("vcpupin", "web1", "0", "0", "--live", "--config")
    assert re.search(r"^ 0 +0$", virtd.virsh("vcpupin", "web1"), re.MULTILINE)
    virtd.virsh("emulatorpin", "web1", "0")
    assert virtd.virsh("emulatorpin", "web1").split()[-1] == "0"
    virtd.virsh("setvcpus", "web1", "2", "--config", "--maximum")
    virtd.virsh("setvcpus", "web1", "2", "--config")
    assert virtd.virsh("vcpucount", "web1", "--config", "--current").strip() == "2"
    assert table(virtd.virsh("cpu-stats", "web1", "--total"), " ")["cpu_time"]


def test_parameters_of_a_definition(virtd: Instance, defined: Callable[..., Guest]) -> None:
    defined("web1")
    virtd.virsh("schedinfo", "web1", "--set", "cpu_shares=500", "--config")
    assert table(virtd.virsh("schedinfo", "web1"))["cpu_shares"] == "500"
    virtd.virsh("memtune", "web1", "--hard-limit", "1G", "--config")
    assert table(virtd.virsh("memtune", "web1"))["hard_limit"] == str(1 << 20)
    virtd.virsh("blkiotune", "web1", "--weight", "300", "--config")
    assert table(virtd.virsh("blkiotune", "web1"))["weight"] == "300"
    virtd.virsh("numatune", "web1", "--mode", "strict", "--nodeset", "0", "--config")
    assert table(virtd.virsh("numatune", "web1"))["numa_nodeset"] == "0"
    virtd.virsh("perf", "web1", "--enable", "page_faults", "--config")
    assert "<event name='page_faults' enabled='yes'/>" in virtd.virsh("dumpxml", "web1")


def test_jobs_and_the_monitor(virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1")
    assert table(virtd.virsh("domjobinfo", "web1"))["Job type"] == "None"
    assert "no job is active on the domain" in virtd.virsh_error("domjobabort", "web1")
    assert virtd.virsh("qemu-monitor-command", "web1", "--hmp", "info name").strip() == "web1"
    assert '"running":true' in virtd.virsh("qemu-monitor-command", "web1", '{"execute":"query-status"}')
    assert "QEMU guest agent is not configured" in virtd.virsh_error("domtime", "web1")
    assert virtd.virsh("domifaddr", "web1").strip() == ""


def test_devices_come_and_change(virtd: Instance, running: Callable[..., Guest]) -> None:
    running("web1")
    data = Path(virtd.root) / "data.img"
    data.write_bytes(bytes(1 << 20))
    virtd.virsh("attach-disk", "web1", str(data), "vdx", "--live", "--config")
    assert re.search(rf"vdx +{re.escape(str(data))}", virtd.virsh("domblklist", "web1"))
    assert "target vdx already exists" in virtd.virsh_error("attach-disk", "web1", str(data), "vdx", "--config")
    virtd.virsh("detach-disk", "web1", "vdx", "--config")
    assert "vdx" not in virtd.virsh("domblklist", "web1", "--inactive")
