"""I/O threads, marks on disks, QEMU's own events, descriptors of clients, huge pages, the host's sleep."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drivers.qemu.instance import Instance
from virtd import constants as c
from virtd.drivers import typed
from virtd.drivers.base import Event
from virtd.drivers.qemu.host import nodememory, suspend
from virtd.errors import VirtError
from virtd.protocol.records import Domain

LIVE, CONFIG = c.VIR_DOMAIN_AFFECT_LIVE, c.VIR_DOMAIN_AFFECT_CONFIG
AGENT = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
WRITE = 'qemu-io -d ide0-0-0 "write 2048 512"'


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


@pytest.fixture
def running(instance: Instance) -> Domain:
    domain = instance.driver.domain_define_xml(instance.xml(more="<iothreads>2</iothreads>", devices=AGENT))
    instance.driver.domain_create(domain)
    return domain


def refused(code: int, text: str, call: Callable[..., object], *arguments: object, **named: object) -> None:
    with pytest.raises(VirtError) as caught:
        call(*arguments, **named)
    assert (caught.value.code, caught.value.message) == (code, text)


def pool(least: int, most: int) -> list[object]:
    return [typed.integer("thread_pool_min", least), typed.integer("thread_pool_max", most)]


def test_io_threads(instance: Instance, running: Domain) -> None:
    driver = instance.driver

    def listed(flags: int) -> list[str]:
        return re.findall(r"<iothreads?\b.*", driver.domain_get_xml_desc(running, flags))

    def in_qemu() -> list[str]:
        return sorted(re.findall(r'"id":"(iothread\d+)"', driver.qemu_domain_monitor_command(running, query, 0)))

    query = '{"execute":"query-iothreads"}'
    driver.domain_add_iothread(running, 5, LIVE | CONFIG)
    named = ["<iothreads>3</iothreads>", "<iothread id='1'/>", "<iothread id='2'/>", "<iothread id='5'/>"]
    assert (listed(0), listed(c.VIR_DOMAIN_XML_INACTIVE)) == (named, named)
    assert in_qemu() == ["iothread1", "iothread2", "iothread5"]
    # Up and down again: neither bound may pass the other on the way.
    for least, most in ((9, 18), (100, 118), (1, 2)):
        driver.domain_set_iothread_params(running, 2, pool(least, most), LIVE)
    driver.domain_set_iothread_params(running, 2, [typed.unsigned_long("poll_max_ns", 77)], LIVE)
    (stats,) = driver.connect_get_all_domain_stats([running], c.VIR_DOMAIN_STATS_IOTHREAD, 0)
    assert {one.field: one.value.value for one in stats.params}["iothread.2.poll-max-ns"] == 77
    driver.domain_del_iothread(running, 5, LIVE | CONFIG)
    assert listed(c.VIR_DOMAIN_XML_INACTIVE) == ["<iothreads>2</iothreads>"]
    assert listed(0)[2] == "<iothread id='2' thread_pool_min='1' thread_pool_max='2'/>"
    assert in_qemu() == ["iothread1", "iothread2"]


def test_io_threads_that_cannot_be(instance: Instance, running: Domain) -> None:
    driver, invalid = instance.driver, c.VIR_ERR_INVALID_ARG
    add, remove, tune = driver.domain_add_iothread, driver.domain_del_iothread, driver.domain_set_iothread_params
    refused(invalid, "invalid argument: an IOThread is already using iothread_id '2'", add, running, 2, LIVE)
    refused(invalid, "invalid argument: invalid value of 0 for iothread_id", add, running, 0, LIVE)
    refused(invalid, "invalid argument: cannot find IOThread '9' in iothreadids list", remove, running, 9, CONFIG)
    refused(invalid, "iothread_id in virDomainDelIOThread must not be zero", remove, running, 0, LIVE)
    refused(invalid, "invalid argument: cannot find IOThread '9' in iothreadids", tune, running, 9, pool(1, 2), LIVE)
    poll = [typed.unsigned("poll_grow", 3_000_000_000)]
    text = "unsupported configuration: poll-grow (3000000000) must be less than or equal to 2147483647"
    refused(c.VIR_ERR_CONFIG_UNSUPPORTED, text, tune, running, 1, poll, LIVE)
    text = "Operation not supported: configuring persistent polling values is not supported"
    refused(c.VIR_ERR_OPERATION_UNSUPPORTED, text, tune, running, 1, [typed.unsigned("poll_grow", 3)], LIVE | CONFIG)
    text = "Requested operation is not valid: thread_pool_min (9) can't be greater than thread_pool_max (8)"
    refused(c.VIR_ERR_OPERATION_INVALID, text, tune, running, 1, pool(9, 8), LIVE)
    text = "unsupported configuration: thread_pool_max (0) must be a positive number or -1"
    refused(c.VIR_ERR_CONFIG_UNSUPPORTED, text, tune, running, 1, pool(0, 0), LIVE)
    used = instance.xml("used", more="<iothreads>1</iothreads>")
    used = used.replace("<target dev='hda' bus='ide'/>", "<target dev='vda' bus='virtio'/>")
    used = used.replace("type='raw'/>", "type='raw' iothread='1'/>", 1)
    text = "invalid argument: cannot remove IOThread 1 since it is being used by disk 'vda'"
    refused(invalid, text, remove, driver.domain_define_xml(used), 1, 0)


def _events(instance: Instance, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """The events of the driver, until there are enough."""
    found: list[Event] = []
    while not enough(found):
        assert instance.wait_for_event(), f"only {found} came"
        found += instance.driver.read_events()
    return found


def test_a_mark_on_a_disk_is_told_of_once_passed(instance: Instance, running: Domain) -> None:
    driver, mark = instance.driver, instance.driver.domain_set_block_threshold
    callback = driver.connect_domain_event_callback_register_any(c.VIR_DOMAIN_EVENT_ID_BLOCK_THRESHOLD, None)

    def passed(names: list[str]) -> None:
        driver.qemu_domain_monitor_command(running, WRITE, c.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
        found = _events(instance, lambda found: sum(_is(one) for one in found) >= len(names))
        path = f"{instance.root}/g.img"
        assert [one.values for one in found if _is(one)] == [
            (callback, running._replace(id=driver.domain_lookup_by_name("g").id), name, path, 1000, 1560)
            for name in names
        ]

    def _is(event: Event) -> bool:
        return event.procedure == "DOMAIN_EVENT_BLOCK_THRESHOLD"

    mark(running, "hda", 1000, 0)
    (stats,) = driver.connect_get_all_domain_stats([running], c.VIR_DOMAIN_STATS_BLOCK, 0)
    assert {one.field: one.value.value for one in stats.params}["block.0.threshold"] == 1000
    passed(["hda", "hda[1]"])
    mark(running, "hda[1]", 1000, 0)
    passed(["hda[1]"])
    for name, text in (
        ("hdx", "failed to find disk 'hdx'"),
        ("hda[9]", "failed to find disk 'hda[9]'"),
        ("hda[x]", "failed to parse block device 'hda[x]'"),
    ):
        refused(c.VIR_ERR_INVALID_ARG, f"invalid argument: {text}", mark, running, name, 1000, 0)


def test_events_of_qemu(instance: Instance, running: Domain) -> None:
    driver, register = instance.driver, instance.driver.qemu_connect_domain_monitor_event_register
    regex = c.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX
    nocase = c.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_NOCASE
    wanted = [register(None, *what) for what in ((None, 0), ("STOP", 0), ("st.p", regex | nocase), ("stop", nocase))]
    others = [register(running, "stop", 0), register(Domain("x", b"\1" * 16, -1), None, 0)]
    driver.domain_suspend(running)
    found = _events(instance, lambda found: sum(one.program == "qemu" for one in found) >= len(wanted))
    heard = [one for one in found if one.program == "qemu"]
    assert [one.procedure for one in heard] == ["DOMAIN_MONITOR_EVENT"] * len(wanted)
    assert [one.values[0] for one in heard] == wanted
    assert {one.values[2] for one in heard} == {"STOP"}
    assert all(one.values[3] > 1_600_000_000 and one.values[4] < 1_000_000 for one in heard)
    for callback in wanted + others:
        driver.qemu_connect_domain_monitor_event_deregister(callback)
    driver.domain_resume(running)
    instance.events(lambda found: any(one[0] == "lifecycle" and one[3] == 4 for one in found))
    text = f"internal error: qemu monitor event callback {wanted[0]} not registered"
    refused(c.VIR_ERR_INTERNAL_ERROR, text, driver.qemu_connect_domain_monitor_event_deregister, wanted[0])
    with pytest.raises(VirtError, match=r"failed to compile regex '\('"):
        register(None, "(", regex)


def test_a_disk_whose_file_the_client_has_opened(instance: Instance) -> None:
    driver = instance.driver
    path = str(instance.disk())
    xml = instance.xml().replace(f"<source file='{path}'/>", f"<source file='{path}' fdgroup='mine'/>")
    domain = driver.domain_define_xml(xml)
    text = "invalid argument: file descriptor group 'mine' was not associated with the domain"
    refused(c.VIR_ERR_INVALID_ARG, text, driver.domain_create, domain)
    descriptor = os.open(path, os.O_RDWR)
    os.chmod(path, 0)  # nobody could open it any more
    driver.domain_fd_associate(domain, "mine", 0, fds=[descriptor])
    assert not driver.clean()
    driver.domain_create(domain)
    instance.wait_for_boot("g")
    assert os.stat(path).st_mode & 0o777 == 0
    driver.domain_destroy(domain)
    driver.domain_create(domain)  # as often as it likes
    text = "nfds in virDomainFDAssociate must not be zero"
    refused(c.VIR_ERR_INVALID_ARG, text, driver.domain_fd_associate, domain, "mine", 0, fds=[])


def test_the_patience_with_an_agent(instance: Instance, running: Domain) -> None:
    driver, let = instance.driver, instance.driver.domain_agent_set_response_timeout
    text = "invalid argument: guest agent timeout '-3' is less than the minimum '-2'"
    refused(c.VIR_ERR_INVALID_ARG, text, let, running, -3, 0)
    entry = driver.guests.find(running)
    for timeout, seconds in ((-2, None), (-1, 5.0), (0, 0.0), (7, 7.0)):
        assert let(running, timeout, 0) == 0
        assert driver._patience(entry) == seconds
    off = driver.domain_define_xml(instance.xml("off", devices=AGENT))
    let(off, 3, 0)
    driver.domain_create(off)
    assert driver._patience(driver.guests.find(off)) == 3.0


def test_how_many_cpus_the_guest_itself_uses(instance: Instance, running: Domain) -> None:
    driver, ask = instance.driver, instance.driver.domain_get_vcpus_flags
    text = "Guest agent is not responding: QEMU guest agent is not connected"
    refused(c.VIR_ERR_AGENT_UNRESPONSIVE, text, ask, running, c.VIR_DOMAIN_VCPU_GUEST)
    off = driver.domain_define_xml(instance.xml("off"))
    text = "invalid argument: vCPU count provided by the guest agent can only be requested for live domains"
    refused(c.VIR_ERR_INVALID_ARG, text, ask, off, c.VIR_DOMAIN_VCPU_GUEST)


# The host


def test_huge_pages(instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = tmp_path / "hugepages-2048kB"
    pools.mkdir()
    (pools / "nr_hugepages").write_text("3\n")
    monkeypatch.setattr(nodememory, "_HOST_POOLS", str(tmp_path))
    monkeypatch.setattr(nodememory, "_NODES", str(tmp_path / "none"))
    allocate = instance.driver.node_alloc_pages
    assert allocate([2048], [4], -1, 1, 0) == 1
    assert (pools / "nr_hugepages").read_text() == "7"
    assert allocate([2048], [2], 0, 1, c.VIR_NODE_ALLOC_PAGES_SET) == 1
    assert (pools / "nr_hugepages").read_text() == "2"
    (pools / "nr_hugepages").unlink()
    (pools / "nr_hugepages").symlink_to("/dev/null")  # takes the number, and has it not
    text = "operation failed: Unable to allocate 2 pages. Allocated only 0"
    refused(c.VIR_ERR_OPERATION_FAILED, text, allocate, [2048], [2], 0, 1, c.VIR_NODE_ALLOC_PAGES_SET)
    failed, internal = c.VIR_ERR_OPERATION_FAILED, c.VIR_ERR_INTERNAL_ERROR
    refused(failed, "operation failed: page size 3 is not available on node 0", allocate, [3], [1], 0, 1, 0)
    refused(internal, "internal error: start cell 9 out of range (0-0)", allocate, [2048], [1], 9, 1, 0)
    size, text = os.sysconf("SC_PAGESIZE") // 1024, "Operation not supported: system pages pool can't be modified"
    refused(c.VIR_ERR_OPERATION_UNSUPPORTED, text, allocate, [size], [1], 0, 1, 0)


def test_merging_of_equal_pages(instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodememory, "_KSM_DIRECTORY", str(tmp_path))
    (tmp_path / "pages_to_scan").write_text("100\n")
    tune = instance.driver.node_set_memory_parameters
    tune([typed.unsigned("shm_pages_to_scan", 200)], 0)
    assert (tmp_path / "pages_to_scan").read_text() == "200"
    text = "argument unsupported: parameter 'shm_pages_shared' not supported"
    refused(c.VIR_ERR_ARGUMENT_UNSUPPORTED, text, tune, [typed.unsigned("shm_pages_shared", 1)], 0)
    text = "Operation not supported: Parameter 'shm_sleep_millisecs' is not supported by this kernel"
    refused(c.VIR_ERR_OPERATION_UNSUPPORTED, text, tune, [typed.unsigned("shm_sleep_millisecs", 1)], 0)


def test_a_host_that_cannot_sleep(instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspend, "MANAGED", str(tmp_path / "none"))
    sleep = instance.driver.node_suspend_for_duration
    for target, name in ((0, "Suspend-to-RAM"), (1, "Suspend-to-Disk"), (2, "Hybrid-Suspend")):
        refused(c.VIR_ERR_ARGUMENT_UNSUPPORTED, f"argument unsupported: {name}", sleep, target, 60, 0)
    refused(c.VIR_ERR_INVALID_ARG, "invalid argument: Invalid suspend target", sleep, 5, 60, 0)


def test_a_host_that_sleeps(instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tmp_path / "said"
    os.mkfifo(said)
    for name, answer in (("busctl", 's "yes"'), ("rtcwake", "")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho '{answer}'\ncase $* in *Can*) ;; *) echo \"$*\" >>{said} ;; esac\n")
        program.chmod(0o755)
    monkeypatch.setattr(suspend, "MANAGED", str(tmp_path))
    monkeypatch.setattr(suspend, "_PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(suspend, "DELAY_SECONDS", 0.0)
    refused(c.VIR_ERR_INVALID_ARG, "invalid argument: Suspend duration is too short",
            instance.driver.node_suspend_for_duration, 0, 59, 0)  # fmt: skip
    listener = os.open(said, os.O_RDWR)
    try:
        instance.driver.node_suspend_for_duration(0, 61, 0)
        words = b""
        while words.count(b"\n") < 2:
            words += os.read(listener, 4096)
    finally:
        os.close(listener)
    assert words.splitlines()[0] == b"-m no -s 61"
    assert words.splitlines()[1].endswith(b"org.freedesktop.login1.Manager Suspend b false")
    assert "<suspend_mem/>" in instance.driver.connect_get_capabilities()


def test_encrypted_memory_is_refused_where_there_is_none(instance: Instance, running: Domain) -> None:
    driver, unsupported = instance.driver, c.VIR_ERR_OPERATION_UNSUPPORTED
    refused(unsupported, "Operation not supported: QEMU does not support SEV guest", driver.node_get_sev_info, 0, 0)
    text = "Operation not supported: setting a launch secret is only supported in SEV-enabled domains"
    refused(unsupported, text, driver.domain_set_launch_security_state, running, [typed.string("sev-secret", "x")], 0)
    assert driver.domain_get_launch_security_info(running, 0) == []


def test_what_makes_a_guest_no_standard_one(instance: Instance) -> None:
    driver = instance.driver
    xml = instance.xml().replace("<os><type>", "<os><type machine='pc-i440fx-1.4'>")
    schema = "http://libvirt.org/schemas/domain/qemu/1.0"
    xml = xml.replace("<domain type='qemu'>", f"<domain type='qemu' xmlns:qemu='{schema}'>")
    xml = xml.replace("</domain>", "<qemu:commandline><qemu:arg value='-nodefaults'/></qemu:commandline></domain>")
    domain = driver.domain_define_xml(xml)
    assert driver.domain_get_messages(domain, 0) == []
    driver.domain_create(domain)
    driver.qemu_domain_monitor_command(domain, "info status", c.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
    taints = [
        "tainted: custom configuration parameters specified",
        "tainted: custom monitor control commands issued",
        "tainted: use of deprecated configuration settings",
    ]
    deprecated = ["deprecated configuration: machine type 'pc-i440fx-1.4'"]
    assert driver.domain_get_messages(domain, c.VIR_DOMAIN_MESSAGE_TAINTING) == taints
    assert driver.domain_get_messages(domain, c.VIR_DOMAIN_MESSAGE_DEPRECATION) == deprecated
    assert driver.domain_get_messages(domain, 0) == taints + deprecated
