"""What is done when a QEMU has ended: everything is put back, the end is told, the guest's directory goes.

Done by the guest's supervisor, or by the one that finds it dead. A step that fails does not keep the others from being
done: what is left then, the next one who looks sees to.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from virtd import constants as c
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.run import helpers as _helpers  # noqa: F401 - how its notes are undone
from virtd.drivers.qemu.run import hostdevices as _hostdevices  # noqa: F401 - likewise
from virtd.drivers.qemu.run import interfaces as _interfaces  # noqa: F401 - likewise
from virtd.drivers.qemu.run import owners as _owners  # noqa: F401 - likewise
from virtd.drivers.qemu.run import reactions
from virtd.drivers.qemu.status import Status
from virtd.errors import VirtError
from virtd.state import files, locks
from virtd.state.commit import Generation
from virtd.state.faults import point
from virtd.state.process import log
from virtd.state.undo import undo

# Ends which the guest brought about itself.
_BY_GUEST = (None, c.VIR_DOMAIN_SHUTOFF_SHUTDOWN)


def finish(guest: Guest, generation: Generation, definition: str, status: Status, ordered: int | None) -> None:
    """Clean up after a QEMU that has ended, and record the end if the guest had been published.

    Can be interrupted at any point and done again by the next one who looks.

    Args:
        guest: the guest's directory.
        generation: where the end is committed.
        definition: path of the persistent definition, which exists or not.
        status: the last that is known of the guest.
        ordered: the VIR_DOMAIN_SHUTOFF_* reason that QEMU was ended for; None if it ended by itself.
    """
    with _tolerance(f"what guest '{guest.name}' had been given cannot be taken back"):
        undo(guest.undo_path, f"guest '{guest.name}'")
    point("end.undone")
    with _tolerance(f"the end of guest '{guest.name}' cannot be written down"):
        _record_end(guest, generation, definition, status, ordered)
    if os.path.exists(guest.status_path):
        with _tolerance(f"guest '{guest.name}' has ended, and stays in the lists"), generation.commit() as change:
            change.remove(guest.status_path)
    point("end.recorded")
    leave(guest)


def leave(guest: Guest) -> None:
    """Remove the directory of a guest that has ended, unless somebody is at work in it: then that one does."""
    with _tolerance(f"the directory of guest '{guest.name}' cannot be removed"):
        lock = locks.attempt(guest.lock_path, "the clean-up after the guest")
        if lock is not None:
            guest.unlock(lock)


@contextmanager
def _tolerance(what: str) -> Iterator[None]:
    """Let a full or broken disk keep a step of the clean-up from being done, but not the steps after it."""
    try:
        yield
    except VirtError as error:
        log(f"{what}: {error}")


def _record_end(guest: Guest, generation: Generation, definition: str, status: Status, ordered: int | None) -> None:
    reason, detail = _shutoff(status, ordered)
    with generation.commit() as change:
        if status.active:
            change.event(
                "qemu",
                "lifecycle",
                # libvirt takes the id from a guest that it ends itself before it tells of the end.
                domain=[status.name, status.uuid, status.id if ordered in _BY_GUEST else -1],
                args=[c.VIR_DOMAIN_EVENT_STOPPED, detail],
            )
            if os.path.exists(definition):
                last = json.dumps([c.VIR_DOMAIN_SHUTOFF, reason]).encode()
                change.publish(files.prepare(f"{guest.directory}.last", last, durable=False))
        change.remove(guest.status_path)


def _shutoff(status: Status, ordered: int | None) -> tuple[int, int]:
    """Why a guest is off now, as reason of the state and as detail of the event."""
    if ordered is not None:
        return ordered, reactions.STOPPED_DETAILS.get(ordered, c.VIR_DOMAIN_EVENT_STOPPED_FAILED)
    if status.state == c.VIR_DOMAIN_SHUTDOWN:
        return c.VIR_DOMAIN_SHUTOFF_SHUTDOWN, c.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN
    # A QEMU that went without a word failed.
    return c.VIR_DOMAIN_SHUTOFF_CRASHED, c.VIR_DOMAIN_EVENT_STOPPED_FAILED
