"""All networks of an instance, as the files say: definitions, running networks, and both together.

What was read is kept for as long as the generation stands and all supervisors live. A network whose supervisor has
died gets a new one here, by whoever looks first; one whose start or end was cut short is cleaned up.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from virtd import constants as c
from virtd import deadlines, uuids
from virtd.conf.network import Network as Config
from virtd.conf.network import parse_network
from virtd.drivers.network import life, predefined, supervisor
from virtd.drivers.network.running import Running, Status, load_status
from virtd.drivers.views import Collection, Kind, View
from virtd.errors import VirtError
from virtd.protocol.records import Network
from virtd.state import files, kept, locks
from virtd.state.commit import Generation
from virtd.state.deaths import Deaths
from virtd.state.paths import Paths

# How long the clean-up after somebody else may keep one who only looks.
_CLEAN_SECONDS = 5.0
# How many parsed definitions a process keeps.
_PARSED_KEPT = 256


class Entry(NamedTuple):
    """A network that is defined, or running, or both."""

    name: str
    uuid: str
    persistent: bool
    autostart: bool
    status: Status | None  # of a running network

    @property
    def active(self) -> bool:
        return self.status is not None

    @property
    def reference(self) -> Network:
        """The network as it goes over the wire."""
        return Network(self.name, uuids.to_bytes(self.uuid))


class Networks(Collection[Entry]):
    """The networks of one instance.

    Args:
        paths: the instance's directories.
        generation: the instance's generation.
    """

    kind = Kind("network", c.VIR_ERR_NO_NETWORK, c.VIR_FROM_NETWORK)

    def __init__(self, paths: Paths, generation: Generation) -> None:
        self.paths = paths
        self.generation = generation
        self.definitions = predefined.definitions(paths)
        self.directory = f"{paths.runtime}/networks"
        # Held for definitions, and for the claims of names, bridges and addresses by networks that start.
        self.lock_path = f"{paths.runtime}/networks.lock"
        # Lies in the run-time directory, and so is gone after a reboot.
        self.autostarted_mark = f"{paths.runtime}/networks.autostarted"
        files.make_directory(self.directory)
        self._view: View[Entry] | None = None
        self._generation: int | None = None
        self._deaths = Deaths()
        self._parsed: dict[str, tuple[files.Identity, Config]] = {}

    def view(self) -> View[Entry]:
        """All networks as they are now."""
        current = self.generation.current()
        if self._view is not None and current is not None and current == self._generation and not self._deaths.any():
            return self._view
        self._generation = current
        self._view = View(self._read())
        return self._view

    def running(self, entry: Entry | Status) -> Running:
        """The directory of a running network."""
        return Running(self.paths, entry.uuid, entry.name)

    def config(self, entry: Entry) -> Config:
        """The persistent definition of a network. It is shared by all who ask: copy it to change it.

        Raises:
            VirtError: VIR_ERR_NO_NETWORK, the definition has gone meanwhile.
        """
        path = self.definitions.path(entry.name)

        def make(content: bytes) -> Config:
            return parse_network(content.decode(errors="surrogateescape"))

        config = kept.get(self._parsed, path, make, most=_PARSED_KEPT)
        if config is None:
            raise self.kind.error(f"name '{entry.name}'")
        return config

    def bridges(self, *, but: str) -> dict[str, str]:
        """The bridges which networks have or would have, each with the network's name.

        Args:
            but: name of the network that does not count.
        """
        found: dict[str, str] = {}
        for entry in self.view():
            bridge = self.config(entry).bridge if entry.persistent else None
            if bridge is not None:
                found[bridge] = entry.name
        found.update((status.bridge, status.name) for status in self.claims() if status.bridge)
        return {bridge: name for bridge, name in found.items() if name != but}

    def claims(self) -> list[Status]:
        """The networks that run, start or end."""
        found = []
        for uuid in os.listdir(self.directory):
            status = load_status(f"{self.directory}/{uuid}/status")
            if status is not None:
                found.append(status)
        return found

    def _read(self) -> Iterator[Entry]:
        defined = self.definitions.read()
        autostarts = self.definitions.autostarts()
        running = self._read_running()
        for uuid, name in defined.items():
            yield Entry(name, uuid, True, name in autostarts, running.pop(uuid, None))
        for uuid, status in running.items():
            yield Entry(status.name, uuid, False, False, status)

    def _read_running(self) -> dict[str, Status]:
        """The running networks: uuid → status."""
        found: dict[str, Status] = {}
        for uuid in os.listdir(self.directory):
            status = load_status(f"{self.directory}/{uuid}/status")
            if status is None:
                self._clean(Running(self.paths, uuid, uuid))
            elif not status.active:
                self._clean(self.running(status))
            else:
                found[uuid] = status
                if status.dnsmasq:
                    self._supervise(status)
        for uuid in self._deaths.watched():
            if uuid not in found:
                self._deaths.forget(uuid)
        return found

    def _supervise(self, status: Status) -> None:
        """Put a new supervisor in place of one that has died."""
        if self._deaths.alive(status.uuid):
            return
        self._deaths.forget(status.uuid)
        running = self.running(status)
        held, holder = locks.probe(running.supervisor_path)
        if not held and not locks.probe(running.lock_path)[0]:
            supervisor.replace(running, status.bridge)
            held, holder = locks.probe(running.supervisor_path)
        if holder is None or not held or not self._deaths.watch(status.uuid, holder.pid):
            self._generation = None  # not watched yet: this view is not to be kept

    def _clean(self, running: Running) -> None:
        """Undo a start or an end that was cut short: whoever is still at it holds the lock."""
        lock = locks.attempt(running.lock_path, "the clean-up after a network")
        if lock is None:
            self._generation = None  # nobody tells of its end if it is killed: this view is not to be kept
            return
        try:
            status = running.status()
            if status is None or not status.active:
                with deadlines.limit(_CLEAN_SECONDS):
                    life.tear_down(running, status)
                files.remove(running.status_path)
        except VirtError:
            self._generation = None  # who looks next tries again
        finally:
            running.unlock(lock)

    def close(self) -> None:
        """Let go of the descriptors of the supervisors."""
        self._deaths.close()
        self._view = None
