"""How a call changes a guest that may be running, defined, or both (VIR_DOMAIN_AFFECT_*).

What is changed in the configuration is one function of it, so that it is done to the live and to the persistent one
alike, and can be done again to a definition that somebody else has changed meanwhile. QEMU is talked to under the
guest's own lock only: the lock of all definitions is never held while somebody waits for QEMU.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from virtd import deadlines
from virtd.conf.domain import Domain as Config
from virtd.conf.domain.interface import Interface
from virtd.drivers.qemu.driverbase import without
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.guests import Entry
from virtd.drivers.qemu.lifecycle import Lifecycle
from virtd.drivers.qemu.plug import live as plugging
from virtd.drivers.qemu.plug import unfinished
from virtd.drivers.qemu.plug.kinds import all_devices
from virtd.drivers.qemu.run import interfaces
from virtd.protocol.records import Domain
from virtd.state import files

Edit = Callable[[Config, bool], None]
"""Changes a configuration in place, or raises why not; told whether it is the live one."""

Told = tuple[str, tuple[object, ...]]
"""An event: its name as subscriptions.KINDS has it, and its arguments after the guest."""


class Changes(Lifecycle):
    """Changes of guests' configurations."""

    def change(
        self,
        domain: Domain,
        call: str,
        flags: int,
        edit: Edit,
        apply: Callable[[Guest, Config], None] | None = None,
        *,
        events: list[Told] | None = None,
    ) -> None:
        """Change the live configuration, the persistent one, or both.

        Args:
            domain: the guest.
            call: libvirt's name of the call.
            flags: the call's flags, of which VIR_DOMAIN_AFFECT_* count.
            edit: changes a configuration; may be called more than once.
            apply: makes QEMU do what the changed live configuration says, which it may complete.
            events: told with the change; apply may add to them.

        Raises:
            VirtError: what edit or apply raised, and nothing has been written then; VIR_ERR_OPERATION_INVALID,
                VIR_ERR_NO_DOMAIN, VIR_ERR_OPERATION_TIMEOUT.
        """
        with self.held(domain, call) as entry:
            live, persistent = self.affects(entry, flags)
            guest = self.guest(entry)
            if persistent:
                edit(self.config(entry).copy(), False)
            pending: list[files.Pending] = []
            if live:
                config = self.live(entry).copy()
                edit(config, True)
                if apply is not None:
                    apply(guest, config)
                pending += guest.prepare_live(config)
            if not persistent:
                self._commit(entry, pending, events)
                return
            with self.definitions_locked(call):
                config = self.config(entry).copy()
                edit(config, False)
                pending.append(self.save_definition(config))
                self._commit(entry, pending, events)

    @contextmanager
    def held(self, domain: Domain, call: str) -> Iterator[Entry]:
        """A guest whose state does not change by others' calls: if it runs, its lock is held.

        What is done inside has the same bound as the wait for the lock.
        """
        with deadlines.limit(deadlines.PATIENCE), self._held(domain, call) as entry:
            yield entry

    @contextmanager
    def _held(self, domain: Domain, call: str) -> Iterator[Entry]:
        while True:
            entry = self.guests.find(domain)
            guest = self.guest(entry)
            lock = guest.lock(call) if entry.active else None
            try:
                found = self.guests.find(domain)
                if found.active == entry.active:
                    if lock is not None and os.path.exists(guest.plug_path):
                        self._finish_plug(found)
                    if found.status is not None and found.status.gone:
                        self.settle(found)
                        found = self.guests.find(domain)
                    yield found
                    return
            finally:
                if lock is not None:
                    guest.unlock(lock)

    def _finish_plug(self, entry: Entry) -> None:
        """Write down a device that QEMU has, and whose plugger died or failed; the guest's lock is held."""
        guest = self.guest(entry)
        plugged = unfinished.settle(guest)
        if plugged is None:
            return
        with guest.control() as control:
            control.facts(disks=plugged.disks)
        self._commit(entry, guest.prepare_texts(plugged.live, plugged.secure), [("device-added", (plugged.alias,))])

    def settle(self, entry: Entry) -> None:
        """Write down what a guest has let go of, and remove what QEMU had for it; the guest's lock is held."""
        assert entry.status is not None
        gone = entry.status.gone
        before = self.whole(entry)
        self._forget(entry, before, self.live(entry), [one for one in all_devices(before) if one[1].info.alias in gone])
        with self.guest(entry).control() as control:
            control.facts(forget=gone)

    def drop(self, entry: Entry, kind: str, device: Any) -> None:
        """Take away what the guest need not let go of: QEMU alone has it; the guest's lock is held."""
        before = self.live(entry)
        after = without(before, [device.info.alias])
        self._forget(entry, before, after, [(kind, device)])
        with self.generation.commit() as change:
            self.domain_event(change, entry.reference, "device-removed", device.info.alias)

    def _forget(self, entry: Entry, before: Config, after: Config, gone: list[tuple[str, Any]]) -> None:
        guest = self.guest(entry)
        plugging.clean_up(before, self.capabilities.binary_for(before), guest, gone)
        for _, device in gone:
            if isinstance(device, Interface):
                interfaces.release(guest, device)
        pending = guest.prepare_live(after)
        with self.generation.commit() as change:
            for file in pending:
                change.publish(file)

    def _commit(self, entry: Entry, pending: list[files.Pending], events: list[Told] | None) -> None:
        with self.generation.commit() as change:
            for file in pending:
                change.publish(file)
            plug_path = self.guest(entry).plug_path
            if os.path.exists(plug_path):
                change.remove(plug_path)
            for name, arguments in events or []:
                self.domain_event(change, entry.reference, name, *arguments)
