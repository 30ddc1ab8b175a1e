"""The host put to sleep for a while (virNodeSuspendForDuration), by whoever manages its sessions.

systemd-logind is asked over the system bus what the host can do, and told to do it; the real-time clock wakes the host
up again. Where there is no logind, as in containers, the host can do nothing of that.

This module knows no QEMU.
"""

import os
import select
import shutil
import subprocess

from virtd import constants as c
from virtd.errors import VirtError
from virtd.state.process import detach, log

# Each target: libvirt's name in messages, in the capabilities, and logind's.
TARGETS = {
    c.VIR_NODE_SUSPEND_TARGET_MEM: ("Suspend-to-RAM", "suspend_mem", "Suspend"),
    c.VIR_NODE_SUSPEND_TARGET_DISK: ("Suspend-to-Disk", "suspend_disk", "Hibernate"),
    c.VIR_NODE_SUSPEND_TARGET_HYBRID: ("Hybrid-Suspend", "suspend_hybrid", "HybridSleep"),
}
SHORTEST = 60  # s: what falls asleep for less may miss its own awakening
# The caller hears that the host will sleep before it does.
DELAY_SECONDS = 10.0
MANAGED = "/run/systemd/seats"  # there where logind is
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_LOGIND = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")


def can(target: int) -> bool:
    """Whether the host can be put to sleep in a way (VIR_NODE_SUSPEND_TARGET_*)."""
    if not os.path.isdir(MANAGED):
        return False
    try:
        return _logind(f"Can{TARGETS[target][2]}").split() == ["s", '"yes"']
    except VirtError:
        return False


def suspend(target: int, seconds: int, log_path: str) -> None:
    """Put the host to sleep in a moment, and let it wake up again.

    Args:
        target: VIR_NODE_SUSPEND_TARGET_*.
        seconds: for how long.
        log_path: where a failure after the return of this is written to.

    Raises:
        VirtError: VIR_ERR_INVALID_ARG; VIR_ERR_ARGUMENT_UNSUPPORTED, the host cannot; VIR_ERR_INTERNAL_ERROR, its
            clock cannot be set to wake it.
    """
    if target not in TARGETS:
        raise VirtError(c.VIR_ERR_INVALID_ARG, "Invalid suspend target", domain=c.VIR_FROM_NONE)
    name, _, method = TARGETS[target]
    if not can(target):
        raise VirtError(c.VIR_ERR_ARGUMENT_UNSUPPORTED, name, domain=c.VIR_FROM_NONE)
    if seconds < SHORTEST:
        raise VirtError(c.VIR_ERR_INVALID_ARG, "Suspend duration is too short", domain=c.VIR_FROM_NONE)
    _run("rtcwake", "-m", "no", "-s", str(seconds))

    def body() -> None:
        select.select([], [], [], DELAY_SECONDS)
        try:
            _logind(method, "b", "false")
        except VirtError as error:
            log(f"the host was not put to sleep: {error.message}")

    detach(body, "virtd: suspending the host", log_path, keep=[])


def _logind(method: str, *arguments: str) -> str:
    return _run("busctl", "--system", "--timeout=2", "call", *_LOGIND, method, *arguments)


def _run(program: str, *arguments: str) -> str:
    found = shutil.which(program, path=_PATH)
    if found is None:
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"Cannot find '{program}' in path", domain=c.VIR_FROM_NONE)
    try:
        done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=5.0, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, f"{program}: {error}", domain=c.VIR_FROM_NONE) from None
    if done.returncode:
        text = f"'{program} {' '.join(arguments)}' failed: {done.stderr.strip()}"
        raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_NONE)
    return done.stdout
