"""One guest that hangs, with ever more calls hanging on it: what the others notice.

Everything is measured within one run, and told as a ratio to what it takes while nothing hangs.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from tests.guests import bootsector
from tests.guests.xml import boot_domain
from tests.helpers.instance import Instance, make_root
from tests.server.harness import Client
from virtd import constants as c
from virtd.errors import VirtError
from virtd.protocol.messages import Message
from virtd.protocol.records import Domain

_EACH = 20  # calls that hang on one connection
_NAMES = ("stuck", "well", "other")


class Times(NamedTuple):
    """How long things take, in seconds; medians."""

    call: float  # a small call
    start: float  # start and destroy another guest
    lists: float  # list all guests, and the state of each
    statistics: float  # all statistics of all guests

    def ratios(self, before: Times) -> Times:
        """Divided by what it was before."""
        return Times(*(now / then for now, then in zip(self, before, strict=True)))


class Hanging:
    """Calls that hang on a guest, each of which gets its answer some time."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Client, Message]] = []

    def errors(self) -> list[VirtError | None]:
        """How they all end."""
        return [_outcome(client, call) for client, call in self.waiting]


def _outcome(client: Client, call: Message) -> VirtError | None:
    try:
        client.reply(call)
    except VirtError as error:
        return error
    return None


class Field:
    """A server with a guest that can be stopped, one that is well, and one that is off.

    Args:
        instance: runs; an instance of its own.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.client = self.connect()
        self.domains: dict[str, Domain] = {}
        for name in _NAMES:
            disk = bootsector.write_boot_disk(instance.root / f"{name}.img", then="serve")
            self.domains[name] = self.client.call("domain_define_xml_flags", boot_domain(name, disk), 0)
        for name in _NAMES[:2]:
            self.client.call("domain_create_with_flags", self.domains[name], 0)
        self.statistics()  # what is known last

    def connect(self) -> Client:
        """Another client."""
        return Client(str(self.instance.socket), timeout=120, uri=f"qemu:///{self.instance.mode}")

    def qemu(self, name: str) -> int:
        """The pid of a guest's QEMU."""
        return next(p.pid for p in self.instance.processes() if f"-name guest={name}," in p.title)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The guest does not answer."""
        pid = self.qemu("stuck")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass

    @contextmanager
    def hanging(self, calls: int) -> Iterator[Hanging]:
        """So many calls that hang on the guest, all of which have begun."""
        hanging = Hanging()
        with ExitStack() as stack:
            while len(hanging.waiting) < calls:
                client = stack.enter_context(self.connect())
                for _ in range(min(_EACH, calls - len(hanging.waiting))):
                    hanging.waiting.append((client, client.send("domain_suspend", self.domains["stuck"])))
            self._await(calls)
            yield hanging

    def _await(self, calls: int) -> None:
        """Wait until so many processes do so many calls."""
        end = time.monotonic() + 60
        while True:
            processes = self.instance.processes()
            workers = {p.pid for p in processes if p.title.startswith("virtd: worker for")}
            busy = [p for p in processes if "DomainSuspend stuck" in p.title and p.ppid in workers]
            if len(busy) >= calls:
                return
            assert time.monotonic() < end, f"only {len(busy)} calls hang"

    def measure(self, rounds: int = 3) -> Times:
        """How long things take another client now."""
        return Times(
            statistics.median(_timed(lambda: self.client.call("connect_list_all_domains", 1, 0)) for _ in range(200)),
            statistics.median(_timed(self._start) for _ in range(rounds)),
            statistics.median(_timed(self._lists) for _ in range(20)),
            statistics.median(_timed(self.statistics) for _ in range(rounds)),
        )

    def _start(self) -> None:
        self.client.call("domain_create_with_flags", self.domains["other"], 0)
        self.client.call("domain_destroy_flags", self.domains["other"], 0)

    def _lists(self) -> None:
        for domain in self.client.call("connect_list_all_domains", 1, 0)[0]:
            self.client.call("domain_get_state", domain, 0)

    def statistics(self) -> dict[str, dict[str, object]]:
        """All statistics of all running guests."""
        flags = c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING
        records = self.client.call("connect_get_all_domain_stats", [], 0, flags)
        return {record.dom.name: {p.field: p.value.value for p in record.params} for record in records}


def _timed(call: Callable[[], object]) -> float:
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


def main(arguments: list[str]) -> int:
    """Measure with so many hanging calls each, by hand."""
    instance = Instance(make_root())
    instance.start()
    try:
        field = Field(instance)
        before = field.measure(10)
        print("| calls that hang | small call | start and destroy | list and states | all statistics | its end |")
        print("|---|---|---|---|---|---|")
        print(f"| none | {' | '.join(f'{one * 1000:.2f} ms' for one in before)} | |")
        for number in map(int, arguments or ("25", "200")):
            with field.stopped(), field.hanging(number) as hanging:
                ratios = field.measure(10).ratios(before)
                destroyed = _timed(lambda: field.client.call("domain_destroy_flags", field.domains["stuck"], 0))
                errors = hanging.errors()
            assert all(errors)
            shown = " | ".join(f"{one:.2f} times" for one in ratios)
            print(f"| {number} | {shown} | {destroyed * 1000:.0f} ms |", flush=True)
            field.client.call("domain_create_with_flags", field.domains["stuck"], 0)
    finally:
        left = instance.finish()
    return len(left)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
