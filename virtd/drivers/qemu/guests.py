"""All guests of an instance, as the files say: definitions, running guests, and both together.

What was read is kept for as long as the generation stands and all supervisors live; then only what changed is read
again. A guest whose supervisor has died gets a new one here, by whoever looks first.
"""

from __future__ import annotations

import json
import os

from virtd import constants as c
from virtd import uuids
from virtd.drivers import views
from virtd.drivers.qemu.guest import Guest
from virtd.protocol.records import Domain
from virtd.state import files, locks
from virtd.state.commit import Generation
from virtd.state.deaths import Deaths
from virtd.state.definitions import DefinitionDirectory
from virtd.state.paths import Paths
from virtd.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from virtd.drivers.qemu.status import Status


class Entry(NamedTuple):
    """A guest that is defined, or running, or both."""

    name: str
    uuid: str
    persistent: bool
    autostart: bool
    status: Status | None  # of a running guest

    @property
    def active(self) -> bool:
        return self.status is not None

    @property
    def id(self) -> int:
        """libvirt's domain id; -1 if the guest does not run."""
        return -1 if self.status is None else self.status.id

    @property
    def reference(self) -> Domain:
        """The guest as it goes over the wire."""
        return Domain(self.name, uuids.to_bytes(self.uuid), self.id)


class View(views.View[Entry]):
    """All guests at one moment, under their ids, too."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        super().__init__(entries)
        self.by_id: dict[int, Entry] = {}
        for entry in self.by_uuid.values():
            if entry.status is not None:
                self.by_id[entry.status.id] = entry

    def changed(self, entries: dict[str, Entry | None]) -> View:
        """The view that differs in some guests: uuid → what it is now; None if it is no more."""
        made = View(())
        made.by_uuid, made.by_name, made.by_id = self.by_uuid.copy(), self.by_name.copy(), self.by_id.copy()
        for uuid in entries:
            before = made.by_uuid.get(uuid)
            if before is not None:
                made.by_name.pop(before.name, None)
                made.by_id.pop(before.id, None)
        for uuid, entry in entries.items():
            if entry is None:
                made.by_uuid.pop(uuid, None)
                continue
            made.by_uuid[uuid] = made.by_name[entry.name] = entry
            if entry.active:
                made.by_id[entry.id] = entry
        return made


class Guests(views.Collection[Entry]):
    """The guests of one instance.

    Args:
        paths: the instance's directories.
        generation: the instance's generation.
    """

    kind = views.Kind("domain", c.VIR_ERR_NO_DOMAIN, c.VIR_FROM_QEMU)

    def __init__(self, paths: Paths, generation: Generation) -> None:
        self.generation = generation
        self.definitions = DefinitionDirectory(f"{paths.config}/qemu", f"{paths.runtime}/qemu.index")
        self.running = f"{paths.runtime}/qemu"
        self.logs = f"{paths.log}/qemu"
        self.definitions_lock = f"{paths.runtime}/qemu.lock"
        self.owners = f"{paths.state}/qemu/owners"
        self.ports_lock = f"{paths.runtime}/qemu-ports.lock"
        # Lies in the run-time directory, and so is gone after a reboot.
        self.autostarted_mark = f"{paths.runtime}/qemu.autostarted"
        self._ids = f"{paths.runtime}/qemu.id"
        for directory in (self.running, self.logs):
            files.make_directory(directory)
        self._view: View | None = None
        self._generation: int | None = None
        self._position = 0
        self._statuses: dict[str, tuple[files.Identity, Status]] = {}
        self._supervisors = Deaths()

    def view(self) -> View:
        """All guests as they are now."""
        current = self.generation.current()
        if self._view is not None and current is not None and current == self._generation and not self._died():
            return self._view
        # All that is changed from here on is read again next time, even if it is seen already.
        position = self.generation.position
        changed = None if self._view is None or self._died() else self.generation.changed_since(self._position)
        self._generation, self._position = current, position
        if self._view is None or changed is None:
            self._view = View(self._read())
        elif entries := self._read_again(changed):
            self._view = self._view.changed(entries)
        return self._view

    def log_path(self, name: str) -> str:
        """Where QEMU's output and the supervisor's messages go."""
        return f"{self.logs}/{name}.log"

    def last_state_path(self, uuid: str) -> str:
        """Where it is written why a guest ended."""
        return f"{self.running}/{uuid}.last"

    def guest(self, entry: Entry | Status) -> Guest:
        """The directory of a running guest."""
        return Guest(self.running, entry.uuid, entry.name)

    def last_state(self, entry: Entry) -> tuple[int, int]:
        """State and reason of a guest: of one that does not run, why it ended (unknown after a reboot)."""
        if entry.status is not None:
            return entry.status.state, entry.status.reason
        content = files.read(self.last_state_path(entry.uuid))
        try:
            state, reason = json.loads(content or b"")
            return int(state), int(reason)
        except (ValueError, TypeError):
            return c.VIR_DOMAIN_SHUTOFF, c.VIR_DOMAIN_SHUTOFF_UNKNOWN

    def next_id(self) -> int:
        """A domain id that no guest has had since the machine was booted."""
        with locks.held(f"{self._ids}.lock", "the choice of an id", what="lock of the ids"):
            number = int(files.read(self._ids) or b"0") + 1
            files.replace(self._ids, b"%d" % number, durable=False)
        return number

    def starting(self) -> list[Status]:
        """What is known of guests whose start is under way. No view has them: nobody has been told of them yet."""
        from virtd.drivers.qemu import status

        active = self.view().by_uuid
        found = []
        for uuid in os.listdir(self.running):
            if "." not in uuid and not ((entry := active.get(uuid)) and entry.active):
                claim = status.load(f"{self.running}/{uuid}/status")
                if claim is not None and not claim.active and locks.probe(f"{self.running}/{uuid}/lock")[0]:
                    found.append(claim)
        return found

    def taken_ports(self) -> set[int]:
        """The ports of all guests that run or start; the ports' lock is held."""
        from virtd.drivers.qemu import status

        taken: set[int] = set()
        for entry in os.scandir(self.running):
            found = status.load(f"{entry.path}/status") if entry.is_dir() else None
            if found is not None:
                taken.update(found.ports)
        return taken

    def remove_logs(self, name: str) -> None:
        """Remove a guest's log files (VIR_DOMAIN_DESTROY_REMOVE_LOGS)."""
        files.remove(self.log_path(name))

    def _died(self) -> bool:
        """Whether a supervisor has died since the view was made."""
        return self._supervisors.any()

    def _read(self) -> Iterator[Entry]:
        defined, autostarts = self.definitions.read(), self.definitions.autostarts()
        running = self._read_running()
        for uuid, name in defined.items():
            yield Entry(name, uuid, True, name in autostarts, running.pop(uuid, None))
        for uuid, found in running.items():
            yield Entry(found.name, uuid, False, False, found)

    def _read_again(self, changed: list[str]) -> dict[str, Entry | None]:
        """Guests some of whose files have changed, as they are now."""
        definitions = self.definitions.read_again(changed)
        # Nobody tells of the death of who starts a guest.
        running = self._statuses.keys() - self._supervisors.watched()
        for path in changed:
            if path.startswith(f"{self.running}/"):
                uuid = path[len(self.running) + 1 :].partition("/")[0]
                running.add(uuid.partition(".")[0])
        for uuid in running:
            self._read_one(uuid)
        defined, autostarts = self.definitions.names, self.definitions.autostarts() if definitions else set()
        found: dict[str, Entry | None] = {}
        for uuid in definitions | running:
            before = None if self._view is None else self._view.by_uuid.get(uuid)
            autostart = defined.get(uuid) in autostarts if uuid in definitions else bool(before and before.autostart)
            found[uuid] = self._entry(uuid, defined.get(uuid), autostart=autostart)
        return found

    def _entry(self, uuid: str, name: str | None, *, autostart: bool) -> Entry | None:
        known = self._statuses.get(uuid)
        found = known[1] if known is not None and known[1].active else None
        if name is not None:
            return Entry(name, uuid, True, autostart, found)
        return None if found is None else Entry(found.name, uuid, False, False, found)

    def _read_running(self) -> dict[str, Status]:
        """The running guests, each with a live supervisor: uuid → status."""
        for uuid in {*self._statuses, *os.listdir(self.running)}:
            if "." not in uuid:
                self._read_one(uuid)
        running = {}
        for uuid, (_, found) in self._statuses.items():
            if found.active:
                running[uuid] = found
        return running

    def _read_one(self, uuid: str) -> None:
        """Take down what has become of a guest that runs, or ran."""
        directory = f"{self.running}/{uuid}"
        current = self._read_status(directory, self._statuses.pop(uuid, None))
        if current is None:
            self._sweep(uuid)
        if current is not None and not self._supervised(uuid, current[1]):
            current = self._read_status(directory, None)
        if current is None:
            self._supervisors.forget(uuid)
        else:
            self._statuses[uuid] = current

    def _read_status(
        self, directory: str, known: tuple[files.Identity, Status] | None
    ) -> tuple[files.Identity, Status] | None:
        path = f"{directory}/status"
        identity = files.identity(path)
        if identity is None:
            return None
        if known is not None and known[0] == identity:
            return known
        from virtd.drivers.qemu import status

        found = status.load(path)
        return None if found is None else (identity, found)

    def _supervised(self, uuid: str, found: Status) -> bool:
        """Whether the guest's supervisor lives; if not, a new one has been put in its place meanwhile."""
        if self._supervisors.alive(uuid):
            return True
        self._supervisors.forget(uuid)
        guest = self.guest(found)
        if found.active or found.process is not None:
            held, holder = locks.probe(guest.supervisor_path)
            if held:
                if holder is None or not self._supervisors.watch(uuid, holder.pid):
                    self._generation = None  # not watched yet: this view is not to be kept
                return True
            if not found.active and locks.probe(guest.lock_path)[0]:
                return True  # its start is under way
            self._replace_supervisor(guest, found)
            return False
        # Nothing had been started yet. Only if its starter has died does nobody hold the lock.
        lock = locks.attempt(guest.lock_path, "the clean-up after a start that was cut short")
        if lock is None:
            self._generation = None  # should its starter die, nobody would say so: this view is not to be kept
            return True
        # Its supervisor may be at work already. One that comes later finds its leash cut, and does nothing.
        if locks.probe(guest.supervisor_path)[0]:
            guest.unlock(lock)
            self._generation = None  # likewise
            return True
        # What it had noted is undone in a process of its own: that may take time, which who looks has not.
        self._replace_supervisor(guest, found)
        guest.unlock(lock)
        return False

    def _replace_supervisor(self, guest: Guest, found: Status) -> None:
        from virtd.drivers.qemu.run import adoption  # which those who find all alive need not load

        adoption.replace(guest, self.generation, self.definitions.path(found.name), self.log_path(found.name))

    def _sweep(self, uuid: str) -> None:
        """Remove what a guest left behind whose clean-up was cut short."""
        guest = Guest(self.running, uuid, uuid)
        # A supervisor that lives does so itself, and must not find the lock taken by who would leave it to him.
        if not os.path.isdir(guest.directory) or locks.probe(guest.supervisor_path)[0]:
            return
        lock = locks.attempt(guest.lock_path, "the clean-up after a guest")
        if lock is not None:
            guest.unlock(lock)
