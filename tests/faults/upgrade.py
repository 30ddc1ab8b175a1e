"""Upgrade under load: virtd is replaced again and again while clients call, come and go, and guests run.

Some clients stay connected and call without a pause; others connect, call once and leave, over and over. All are in
one process, which waits for all of them at once.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import NamedTuple

from tests.guests import bootsector
from tests.guests.xml import boot_domain
from tests.helpers.instance import Instance
from tests.server.harness import Client
from virtd.protocol.messages import ERROR, Message, decode_error


class Outcome(NamedTuple):
    """What came of it.

    Attributes:
        calls: how many were answered.
        connections: how many were opened.
        failures: what went wrong with a call or a connection.
        lost: guests that do not run any more, or not as the same process.
        longest: the longest that a call took, in seconds.
        servers: how many servers there have been.
    """

    calls: int
    connections: int
    failures: list[str]
    lost: list[str]
    longest: float
    servers: int


class _Caller:
    """A client that always waits for an answer."""

    def __init__(self, load: Load, *, stays: bool) -> None:
        self.load = load
        self.stays = stays
        self.connect()

    def connect(self) -> None:
        """Connect and open, and make the first call."""
        self.begun = time.monotonic()
        self.client = Client(str(self.load.instance.socket), uri=f"qemu:///{self.load.instance.mode}")
        self.client.sock.setblocking(False)
        self.load.connections += 1
        self.call()

    def call(self) -> None:
        """Make a call, and wait for nothing."""
        self.begun = time.monotonic()
        self.client.send("connect_list_all_domains", 1, 0)
        self.load.poll.register(self.client.sock, select.POLLIN)
        self.load.callers[self.client.sock.fileno()] = self

    def answered(self) -> None:
        """Something has come: an answer, or the end of the connection."""
        try:
            message: Message | None = self.client.receive()
        except BlockingIOError:
            return
        self.load.poll.unregister(self.client.sock)
        del self.load.callers[self.client.sock.fileno()]
        if message is None:
            raise EOFError("the connection was closed")
        if message.status == ERROR:
            raise decode_error(message.payload)
        self.load.calls += 1
        self.load.longest = max(self.load.longest, time.monotonic() - self.begun)
        if not self.stays:
            self.client.close()
            self.connect()
        else:
            self.call()


class Load:
    """Clients that call.

    Args:
        instance: whose server they call.
        staying: how many stay connected.
        passing: how many come and go.
    """

    def __init__(self, instance: Instance, staying: int, passing: int) -> None:
        self.instance = instance
        self.poll = select.poll()
        self.callers: dict[int, _Caller] = {}
        self.calls = 0
        self.connections = 0
        self.longest = 0.0
        self.failures: list[str] = []
        for number in range(staying + passing):
            _Caller(self, stays=number < staying)

    def go_on(self, until: int, more: int) -> None:
        """Call until a descriptor can be read, and so many calls more have been answered."""
        self.poll.register(until, select.POLLIN)
        end, left = time.monotonic() + 120, -1
        while time.monotonic() < end and self.callers and (left < 0 or self.calls < left):
            for descriptor, _ in self.poll.poll(1000):
                if descriptor == until:
                    self.poll.unregister(until)
                    left = self.calls + more
                    continue
                try:
                    self.callers[descriptor].answered()
                except Exception as problem:
                    self.failures.append(repr(problem))

    def close(self) -> None:
        """Let all clients go."""
        for caller in self.callers.values():
            caller.client.close()


def upgrade(instance: Instance, *, clients: int, guests: int, replacements: int) -> Outcome:
    """Replace a running server so many times; a fifth of the clients come and go."""
    with Client(str(instance.socket), uri=f"qemu:///{instance.mode}") as client:
        for number in range(guests):
            disk = bootsector.write_boot_disk(instance.root / f"g{number}.img", then="serve")
            client.call("domain_create_xml", boot_domain(f"g{number}", disk), 0)
    before = _qemus(instance)
    servers = {instance.pid}
    load = Load(instance, clients - clients // 5, clients // 5)
    try:
        for _ in range(replacements):
            done, tell = os.pipe()
            thread = threading.Thread(target=_replace, args=(instance, load, tell))
            thread.start()
            load.go_on(done, 2 * clients)
            thread.join()
            os.close(done)
            servers.add(instance.pid)
    finally:
        load.close()
    after = _qemus(instance)
    lost = [name for name, pid in before.items() if after.get(name) != pid]
    with Client(str(instance.socket), uri=f"qemu:///{instance.mode}") as client:
        listed = {domain.name for domain in client.call("connect_list_all_domains", 1, 0)[0]}
    lost += sorted({*before} - listed)
    return Outcome(load.calls, load.connections, load.failures, lost, load.longest, len(servers))


def _replace(instance: Instance, load: Load, tell: int) -> None:
    try:
        instance.start("--replace")
    except AssertionError as error:
        load.failures.append(str(error))
    finally:
        os.close(tell)


def _qemus(instance: Instance) -> dict[str, int]:
    found = {}
    for process in instance.processes():
        _, _, rest = process.title.partition("-name guest=")
        if rest:
            found[rest.partition(",")[0]] = process.pid
    return found
