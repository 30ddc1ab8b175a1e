"""How a guest whose supervisor has died gets a new one, from whoever looks first."""

import os

from virtd import deadlines
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.run.ending import finish, leave
from virtd.drivers.qemu.run.supervisor import KILL_SECONDS, Supervisor
from virtd.errors import VirtError
from virtd.state import locks, undo
from virtd.state.commit import Generation
from virtd.state.faults import point
from virtd.state.process import detach, log


def replace(guest: Guest, generation: Generation, definition: str, log_path: str) -> None:
    """Put a new supervisor beside a guest whose own has died; returns when it supervises or has cleaned up."""
    told, tell = os.pipe()

    def body() -> None:
        try:
            # Those who look whether anybody holds the lock hold it themselves for a moment.
            lock = locks.acquire(guest.supervisor_path, "the supervisor", timeout=0.5)
        except VirtError:
            return  # somebody else was quicker
        try:
            take_over()
        finally:
            lock.release()
        undo.retry(os.path.dirname(guest.directory))

    def take_over() -> None:
        status = guest.status()
        if status is None:
            # It has ended. Of its directory there may be nothing but what the lock has just made again.
            leave(guest)
            return
        if status.process is None or not status.process.alive():
            finish(guest, generation, definition, status, None)
            return
        supervisor = Supervisor(guest, generation, definition, status, child=False)
        supervisor.adopt()
        os.close(tell)
        point("guest.adopted")
        log("a new supervisor has taken over")
        supervisor.run()

    try:
        detach(body, f"virtd: guest {guest.name}", log_path, keep=[tell])
    except VirtError:
        # There is no room for a process: the guest goes on without, until the next one looks.
        os.close(told)
        return
    finally:
        os.close(tell)
    # The end of the pipe comes when the supervisor is at work, or has ended.
    deadlines.readable(told, KILL_SECONDS)
    os.close(told)
