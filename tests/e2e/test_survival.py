"""Guests outlive everything but themselves: kill -9, stop, restart and replacement of every virtd process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

from tests.e2e import guests
from tests.e2e.events import Events, lifecycle, stopped
from tests.e2e.guests import Guest, console, process, processes, qemu, wait_off
from tests.helpers.instance import Instance
from tests.helpers.processes import end
from tests.helpers.waiting import SECONDS, wait_ended, wait_for


def facts(virtd: Instance, name: str) -> tuple[str, str, str]:
    """What must not change of a running guest: id, uuid, QEMU's pid."""
    return virtd.virsh("domid", name), virtd.virsh("domuuid", name), str(qemu(virtd, name))


def is_in_control(virtd: Instance, guest: Guest) -> None:
    """Check that a running guest does what it is told, and its end is seen."""
    virtd.virsh("suspend", guest.name)
    assert virtd.virsh("domstate", guest.name) == "paused"
    virtd.virsh("resume", guest.name)
    virtd.virsh("shutdown", guest.name)
    wait_off(virtd, guest.name)
    assert virtd.virsh("domstate", "--reason", guest.name) == "shut off (shutdown)"


@pytest.mark.parametrize("title", ["virtd: ", "virtd: accepting", "virtd: guest"])
def test_kill_9(virtd: Instance, connection: Any, running: Callable[..., Guest], title: str) -> None:
    guest = running("web1")
    before = facts(virtd, "web1")
    assert connection.lookupByName("web1").isActive()  # a worker is busy with a client, too
    assert virtd.kill(title)
    assert not wait_ended(int(before[2]), 0)
    if title != "virtd: guest":
        virtd.start()
    assert facts(virtd, "web1") == before
    assert virtd.virsh("domstate", "--reason", "web1") == "running (booted)"
    virtd.virsh("define", str(guests.make(virtd.root, "web2").file))
    virtd.virsh("start", "web2")
    assert int(virtd.virsh("domid", "web2")) > int(before[0])
    is_in_control(virtd, guest)


def test_kill_9_in_the_middle_of_everything(
    virtd: Instance, libvirt: ModuleType, connection: Any, defined: Callable[..., Guest], running: Callable[..., Guest]
) -> None:
    guest = running("web1")
    defined("web2", console=True)
    virtd.virsh("start", "web2")

    def hang() -> None:
        with pytest.raises(libvirt.libvirtError):
            connection.lookupByName("web1").suspend()

    hanging = threading.Thread(target=hang)
    before = facts(virtd, "web1"), facts(virtd, "web2")
    with console(virtd, "web2"):
        os.kill(qemu(virtd, "web1"), signal.SIGSTOP)
        hanging.start()
        wait_for(lambda: processes(virtd, "DomainSuspend web1"), "a call in flight")
        virtd.kill("virtd: ")
        hanging.join(10)
        os.kill(int(before[0][2]), signal.SIGCONT)
    virtd.start()
    assert (facts(virtd, "web1"), facts(virtd, "web2")) == before
    if virtd.virsh("domstate", "web1") == "paused":  # QEMU may have had the command already
        virtd.virsh("resume", "web1")
    is_in_control(virtd, guest)
    with console(virtd, "web2") as terminal:
        terminal.type(b"hello")
        terminal.until(b"hello")


def test_a_new_supervisor_tells_of_what_happens(virtd: Instance, events: Events, running: Callable[..., Guest]) -> None:
    running("web1")
    number = int(virtd.virsh("domid", "web1"))
    first = process(virtd, "virtd: guest web1")
    end([first])
    assert virtd.virsh("domstate", "web1") == "running"
    assert process(virtd, "virtd: guest web1") != first
    events.take()
    virtd.virsh("shutdown", "web1")
    assert events.take(stopped) == [lifecycle("web1", number, 6, 1), lifecycle("web1", number, 5, 0)]


def test_everything_is_killed_while_ten_guests_run(
    virtd: Instance, libvirt: ModuleType, connect: Callable[..., Any], new_guest: Callable[..., Guest]
) -> None:
    made = {name: new_guest(name) for name in (f"web{number}" for number in range(10))}
    connection = connect()
    for guest in made.values():
        connection.createXML(guest.xml)
    for guest in made.values():
        guest.wait()
    before = {name: (virtd.virsh("domid", name), qemu(virtd, name)) for name in made}

    def virtsh(*command: str) -> str:
        uri = f"qemu:///embed?root={virtd.root}"
        return virtd.run(guests.PYTHON, "-m", "virtd.shell.main", "--quiet", "-c", uri, *command).stdout.strip()

    assert virtd.kill("virtd: ")
    # Without any server: all are found, by whoever looks, and watched over again.
    assert sorted(virtsh("list", "--name").split()) == sorted(made)
    assert len(processes(virtd, "virtd: guest web")) == len(made)
    virtsh("inject-nmi", "web3")
    made["web3"].wait(b"[nmi]")  # its console is written down as before
    assert virtd.kill("virtd: ")
    virtd.start()
    assert {name: (virtd.virsh("domid", name), qemu(virtd, name)) for name in made} == before
    events = Events(libvirt, connect(), virtd)
    os.kill(before["web4"][1], signal.SIGTERM)
    assert lifecycle("web4", int(before["web4"][0]), 5, 0) in events.take(stopped)
    assert sorted(virtd.virsh("list", "--name").split()) == sorted(made.keys() - {"web4"})


@pytest.mark.parametrize("server", ["running", "down"])
def test_qemu_and_supervisor_both_gone(
    virtd: Instance, running: Callable[..., Guest], new_guest: Callable[..., Guest], server: str
) -> None:
    guest = running("web1")
    virtd.virsh("create", str(new_guest("transient").file))
    if server == "down":
        virtd.stop()
    for name in ("web1", "transient"):
        end([process(virtd, f"virtd: guest {name}"), qemu(virtd, name)])
    if server == "down":
        virtd.start()
    assert virtd.virsh("domstate", "--reason", "web1") == "shut off (crashed)"
    assert virtd.virsh("list", "--all", "--name").split() == ["web1"]
    virtd.virsh("start", "web1")
    guest.wait(times=2)


def test_what_the_guest_did_while_no_virtd_ran_is_found_out(
    virtd: Instance, running: Callable[..., Guest], defined: Callable[..., Guest]
) -> None:
    running("web1")
    running("web2")
    virtd.stop()
    # The supervisor is there without any server …
    os.kill(qemu(virtd, "web1"), signal.SIGTERM)
    wait_off(virtd, "web1")
    # … and if not even that is, the next one who looks makes up for it.
    virtd.kill("virtd: ")
    pid = qemu(virtd, "web2")
    os.kill(pid, signal.SIGTERM)
    assert wait_ended(pid, 10)
    virtd.start()
    assert virtd.virsh("list", "--name") == ""
    assert virtd.virsh("domstate", "--reason", "web1") == "shut off (shutdown)"
    assert virtd.virsh("domstate", "--reason", "web2").startswith("shut off")


def test_restart(virtd: Instance, running: Callable[..., Guest], defined: Callable[..., Guest]) -> None:
    guest = running("web1")
    defined("web2")
    for name in ("web1", "web2"):
        virtd.virsh("autostart", name)
    virtd.virsh("desc", "web2", "--title", "--new-desc", "a title")
    before = facts(virtd, "web1"), virtd.virsh("dumpxml", "web1"), virtd.virsh("dumpxml", "web2")
    virtd.stop()
    assert processes(virtd, "virtd: accepting") == processes(virtd, "virtd: worker") == []
    virtd.start()
    assert (facts(virtd, "web1"), virtd.virsh("dumpxml", "web1"), virtd.virsh("dumpxml", "web2")) == before
    assert virtd.virsh("list", "--all", "--autostart", "--name").split() == ["web1", "web2"]
    assert virtd.virsh("domstate", "web2") == "shut off"  # the machine has not been booted
    is_in_control(virtd, guest)


def test_a_stop_lets_calls_in_flight_finish(
    virtd: Instance, connection: Any, libvirt: ModuleType, running: Callable[..., Guest]
) -> None:
    running("web1")
    pid, server = qemu(virtd, "web1"), virtd.pid
    assert server is not None
    results: list[Any] = []
    os.kill(pid, signal.SIGSTOP)
    call = threading.Thread(target=lambda: results.append(connection.lookupByName("web1").suspend()))
    call.start()
    wait_for(lambda: processes(virtd, "DomainSuspend web1"), "a call in flight")
    os.kill(server, signal.SIGTERM)
    wait_for(lambda: processes(virtd, "stopping"), "a worker that knows of the stop")
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        sock.connect(str(virtd.socket))
    os.kill(pid, signal.SIGCONT)
    call.join(20)
    assert results == [0]
    assert wait_ended(server, 15)
    virtd.start()
    assert virtd.virsh("domstate", "--reason", "web1") == "paused (user)"


def boot(virtd: Instance) -> None:
    """What a boot of the machine does to a virtd without running guests: the run-time directory is new."""
    virtd.stop()
    shutil.rmtree(virtd.root / "run")
    virtd.start()


def test_autostart_is_once_after_a_boot(virtd: Instance, defined: Callable[..., Guest]) -> None:
    guest = defined("web1")
    defined("web2")
    virtd.virsh("autostart", "web1")
    assert virtd.virsh("list", "--name") == ""  # from the next boot on
    boot(virtd)
    guest.wait()
    assert virtd.virsh("list", "--name").split() == ["web1"]
    virtd.virsh("destroy", "web1")
    # The server has begun with autostart when it heeds SIGTERM, and waits for it.
    for _ in range(2):
        virtd.stop()
        assert processes(virtd, "virtd:") == []
        virtd.start()
    assert virtd.virsh("list", "--name") == ""
    boot(virtd)
    guest.wait(times=2)


def test_one_guest_that_cannot_start_does_not_keep_the_others_from_it(
    virtd: Instance, defined: Callable[..., Guest]
) -> None:
    broken, guest = defined("a-broken"), defined("web1")
    for name in ("a-broken", "web1"):
        virtd.virsh("autostart", name)
    broken.disk.unlink()
    boot(virtd)
    guest.wait()
    assert virtd.virsh("list", "--name").split() == ["web1"]
    assert "a-broken" in virtd.log_tail()


def test_replacement_refuses_no_client(
    virtd: Instance, connect: Callable[..., Any], running: Callable[..., Guest]
) -> None:
    guest = running("web1")
    before = facts(virtd, "web1")
    kept = connect()
    done, knocks, failures = threading.Event(), threading.Semaphore(0), list[object]()

    def knock() -> None:
        while not done.is_set():
            result = virtd.virsh_result("domstate", "web1")
            if result.stdout.strip() != "running":
                failures.append(result)
            knocks.release()

    def rap() -> None:
        # More often than virsh could, and without a good-bye.
        while not done.is_set():
            with socket.socket(socket.AF_UNIX) as sock:
                try:
                    sock.connect(str(virtd.socket))
                except OSError as error:
                    failures.append(error)

    threads = [threading.Thread(target=target) for target in (knock, rap)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            old = virtd.pid
            virtd.start("--replace")
            assert virtd.pid not in (None, old)
            # What was asked before has been answered, and something after it, too.
            assert all(knocks.acquire(timeout=SECONDS) for _ in range(3))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []
    # The worker of the first virtd serves its client to the end.
    assert kept.lookupByName("web1").state() == [1, 1]
    kept.lookupByName("web1").suspend()
    kept.lookupByName("web1").resume()
    assert facts(virtd, "web1") == before
    assert len(processes(virtd, "virtd: accepting")) == 1
    is_in_control(virtd, guest)


def test_a_second_virtd_is_told_who_holds_the_root(virtd: Instance) -> None:
    result = virtd.start(check=False)
    assert result.returncode != 0
    assert result.stdout == ""
    assert "another virtd serves this root" in result.stderr
    assert f"{virtd.pid}" in result.stderr
    assert virtd.virsh("list", "--all", "--name") == ""


def test_timeout_ends_an_idle_server_and_no_guest(instance: Instance) -> None:
    instance.start("--timeout", "1")
    guest = guests.make(instance.root, "web1")
    instance.virsh("define", str(guest.file))
    instance.virsh("start", "web1")
    pid = instance.pid
    assert pid is not None
    assert wait_ended(pid, 10)
    assert not wait_ended(qemu(instance, "web1"), 0)
    instance.start()
    assert instance.virsh("list", "--name") == "web1"


def test_guests_of_the_same_name_in_two_roots(instances: Callable[[], Instance]) -> None:
    both = [instances(), instances()]
    made = []
    for instance in both:
        instance.start()
        made.append(guests.make(instance.root, "web1", uuid="5d8d4e0d-6e4b-4a3f-9a0e-2b7f0a1c0001"))
        instance.virsh("define", str(made[-1].file))
    for instance, guest in zip(both, made, strict=True):
        instance.virsh("start", "web1")
        guest.wait()
    assert qemu(both[0], "web1") != qemu(both[1], "web1")
    both[0].virsh("suspend", "web1")
    assert both[1].virsh("domstate", "web1") == "running"
    both[0].virsh("destroy", "web1")
    both[0].virsh("undefine", "web1")
    both[0].stop()
    is_in_control(both[1], made[1])


def test_two_roots_choose_different_ports(instances: Callable[[], Instance]) -> None:
    both = [instances(), instances()]
    vnc = "<graphics type='vnc' autoport='yes'/>"
    starts: list[tuple[Instance, Guest]] = []
    for instance in both:
        instance.start()
        starts += [(instance, guests.make(instance.root, f"web{number}", devices=vnc)) for number in range(3)]

    def start(instance: Instance, guest: Guest) -> str:
        instance.virsh("create", str(guest.file))
        return instance.virsh("domdisplay", guest.name)

    with ThreadPoolExecutor(len(starts)) as pool:
        displays = list(pool.map(start, *zip(*starts, strict=True)))
    assert len(set(displays)) == len(displays)


def test_sockets_from_systemd(instance: Instance) -> None:
    # As systemd.socket(5) passes them: they listen before virtd is there, and after it has gone.
    code = """
import os, socket, sys
path, *command = sys.argv[1:]
os.makedirs(os.path.dirname(path))
sock = socket.socket(socket.AF_UNIX)
sock.bind(path)
sock.listen()
assert sock.fileno() == 3
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execvp(command[0], command)
"""
    python = guests.PYTHON
    with subprocess.Popen(
        [python, "-c", code, str(instance.socket), python, "-m", "virtd.server.main", "--root", str(instance.root)],
        env=instance.environment,
        stderr=subprocess.PIPE,
    ) as server:
        try:
            wait_for(instance.socket.exists, "the socket")
            assert instance.virsh("list", "--all", "--name") == ""
            assert not instance.socket_ro.exists()
        finally:
            server.terminate()
        assert server.wait(15) == 0
    assert instance.socket.exists()
