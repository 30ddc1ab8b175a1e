"""Calls and connections: one client, many at once, and one after another."""

import os
import subprocess
import time
from collections.abc import Callable

import libvirt
from servers import Server
from work import BYTES, COUNT, Bench, Work, each, together


def small_call(bench: Bench, server: Server) -> float:
    return each(server.connect().getLibVersion, 2000)


def _of_many(clients: int, calls: int) -> Callable[[Bench, Server], float]:
    def do(bench: Bench, server: Server) -> float:
        def connect(number: int) -> Callable[[], object]:
            connection = server.connect()
            connection.getLibVersion()
            return lambda: each(connection.getLibVersion, calls)

        return together(clients, connect) / (clients * calls)

    return do


def open_close(bench: Bench, server: Server) -> float:
    return each(lambda: server.connect().close(), 2000)


def storm(bench: Bench, server: Server) -> float:
    """500 connections opened by 10 clients as fast as they can, and kept: the time until the last one is answered."""

    def connect(number: int) -> Callable[[], object]:
        kept: list[libvirt.virConnect] = []
        return lambda: kept.extend(server.connect() for _ in range(50))

    return together(10, connect)


def capabilities(bench: Bench, server: Server) -> float:
    return each(server.connect().getCapabilities, 50)


def domain_capabilities(bench: Bench, server: Server) -> float:
    connection = server.connect()
    return each(lambda: connection.getDomainCapabilities(None, "x86_64", "pc", "qemu"), 50)


def command_line(bench: Bench, server: Server) -> float:
    # As once installed: compiled.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{bench.directory}/compiled"}
    command = [server.client, "-c", bench.common.uri, "list", "--all"]

    def run() -> None:
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

    run()
    return each(run, 10)


IDLE_CLIENTS = 200


def _memory(pids: list[int]) -> dict[str, int]:
    """PSS and private memory of all of them together, in bytes."""
    total = {"Pss": 0, "Private": 0}
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
            for line in lines:
                words = line.replace(":", "").split()
                for name in total:
                    if words[0] == name or words[0] in (f"{name}_Clean", f"{name}_Dirty"):
                        total[name] += int(words[1]) * 1024
    return total


def _idle(figure: str) -> Callable[[Bench, Server], float]:
    def do(bench: Bench, server: Server) -> float:
        before = _memory(server.pids())
        connections = [server.connect() for _ in range(IDLE_CLIENTS)]
        for connection in connections:
            connection.listAllDomains()
        more = _memory(server.pids())[figure] - before[figure]
        for connection in connections:
            connection.close()
        return more / IDLE_CLIENTS

    return do


def _switches(pid: int) -> int:
    """How often all threads of a process have been put on a processor."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="utf-8") as lines:
            total += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return total


def wake_ups(bench: Bench, server: Server) -> float:
    """How often the process that accepts connections wakes up in ten seconds at rest, with 200 idle clients."""
    connections = [server.connect() for _ in range(IDLE_CLIENTS)]
    time.sleep(2)  # the last of them have been served
    pid = server.pids()[0]
    before = _switches(pid)
    time.sleep(10)
    woken = _switches(pid) - before
    for connection in connections:
        connection.close()
    return woken


WORKS = (
    Work("small_call", "one small call, one client", small_call, 0.4),
    Work("clients_16", "a small call, of 16 clients at once", _of_many(16, 500), 0.5),
    Work("clients_64", "a small call, of 64 clients at once", _of_many(64, 200), 0.5),
    Work("open_close", "open and close a connection, 2,000 one after another", open_close, 1.0),
    Work("storm", "500 connections opened at once", storm, None),
    Work("capabilities", "the host's capabilities", capabilities, 1.0),
    Work("domain_capabilities", "an emulator's domain capabilities", domain_capabilities, 1.0),
    Work("command_line", "virtsh list beside virsh list, both at libvirtd", command_line, 2.0),
    Work("idle_private", "private memory for each of 200 idle clients", _idle("Private"), None, BYTES, 1, 2 * 2**20),
    Work("idle_pss", "memory (PSS) for each of 200 idle clients", _idle("Pss"), None, BYTES, 1),
    Work("wake_ups", "wake-ups of the accepting process in 10 s, 200 idle clients", wake_ups, None, COUNT, 1),
)
