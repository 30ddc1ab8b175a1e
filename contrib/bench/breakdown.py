"""Where the time of a guest's start goes: one guest, started many times by a process that serves nobody.

    .venv/bin/python contrib/bench/breakdown.py DISK

The functions that do the parts are wrapped; each is told its own time, without that of the wrapped ones which it
calls. Prints a line for each part: its name, and the median in seconds.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from virtd.drivers import open_connection
from virtd.drivers.base import Context, Identity
from virtd.protocol.records import Domain
from virtd.state import paths

# What is told as what.
PARTS = {
    "virtd.drivers.qemu.driverbase:DriverBase._parse": "XML",
    "virtd.drivers.qemu.guest:Guest.prepare_live": "XML",
    "virtd.drivers.qemu.run.launch:assign_aliases": "XML",
    "virtd.drivers.qemu.host.capabilities:Capabilities.binary_for": "probing (cached)",
    "virtd.drivers.qemu.run.launch:build": "command line",
    "virtd.drivers.qemu.run.access:lock": "images' locks and owners",
    "virtd.drivers.qemu.run.access:open_way": "images' locks and owners",
    "virtd.drivers.qemu.run.access:hand_over": "images' locks and owners",
    "virtd.drivers.qemu.run.spawning:detach": "supervisor's fork",
    "virtd.drivers.qemu.run.spawning:process": "QEMU's spawn",
    "virtd.drivers.qemu.run.spawning:publish": "publication",
    "virtd.drivers.qemu.monitor.client:Monitor.__init__": "QEMU's first answer",
    "virtd.drivers.qemu.monitor.client:Monitor.__enter__": "QEMU's first answer",
    "virtd.drivers.qemu.monitor.client:Monitor.execute": "QMP",
    "virtd.drivers.qemu.run.prepare:after_start": "QMP",
    "virtd.state.locks:acquire": "locks",
    "os:fsync": "fsync",
}


class Timer:
    """Time by part, each without what it calls."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}
        self._inner = [0.0]

    def wrap(self, place: str, part: str) -> None:
        """Put a function that tells its time in the place of one, given as module:name."""
        owner, name = find(place)
        setattr(owner, name, self.timed(getattr(owner, name), part))

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            begin = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                whole = time.perf_counter() - begin
                self.taken[part] = self.taken.get(part, 0) + whole - self._inner.pop()
                self._inner[-1] += whole

        return call


def find(place: str) -> tuple[Any, str]:
    """What has a function that is given as module:name, and its name there."""
    module, _, dotted = place.partition(":")
    owner: Any = import_module(module)
    *holders, name = dotted.split(".")
    for holder in holders:
        owner = getattr(owner, holder)
    return owner, name


def main(disk: str, times: int = 15) -> None:
    xml = f"""<domain type='qemu'><name>breakdown</name><memory unit='MiB'>16</memory>
        <os><type arch='x86_64' machine='pc'>hvm</type></os>
        <devices><disk type='file'><driver name='qemu' type='raw'/><source file='{disk}'/>
          <target dev='vda' bus='virtio'/><readonly/></disk><serial type='pty'/></devices></domain>"""
    timer = Timer()
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="v-breakdown-") as root:
        Path(root).chmod(0o711)
        me = Identity(os.getuid(), os.getgid(), os.getpid(), "local")
        connection = open_connection("qemu:///system", Context(paths.below(root), me, os.getpid()))
        define, create, destroy = (
            connection.method(f"domain_{name}") for name in ("define_xml_flags", "create_with_flags", "destroy")
        )
        assert define is not None
        assert create is not None
        assert destroy is not None
        domain: Domain = define(xml, 0)
        create(domain, 0)  # the first one probes
        destroy(domain)
        for place, part in PARTS.items():
            timer.wrap(place, part)
        for _ in range(times):
            timer.taken = {}
            begin = time.perf_counter()
            create(domain, 0)
            whole = time.perf_counter() - begin
            rounds.append(timer.taken | {"all": whole, "the rest": whole - sum(timer.taken.values())})
            destroy(domain)
        connection.close()
    for part in dict.fromkeys([*PARTS.values(), "the rest", "all"]):
        print(part, f"{statistics.median(taken.get(part, 0.0) for taken in rounds):.6f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
