"""Taps on bridges of the host for who may not make any: QEMU's own helper makes them, within the bounds of its list.

qemu-bridge-helper has the right that a user's session lacks; /etc/qemu/bridge.conf says who may use which bridge. It
hands the tap's descriptor over a socket (SCM_RIGHTS).
"""

import fcntl
import os
import shutil
import socket
import subprocess

from virtd import constants as c
from virtd.errors import VirtError

_PLACES = "/usr/lib/qemu:/usr/libexec:/usr/libexec/qemu:/usr/local/libexec"
_SECONDS = 20.0
_TUNGETIFF = 0x800454D2  # <linux/if_tun.h>
_IFREQ_SIZE, _NAME_SIZE = 40, 16


def make_tap(bridge: str, *, vnet_header: bool) -> tuple[str, int]:
    """Let the helper make a tap on a bridge.

    Args:
        bridge: the bridge.
        vnet_header: whether it is for a virtio card.

    Returns:
        The tap's name and its descriptor, which is the caller's.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR with what the helper says; VIR_ERR_OPERATION_FAILED, it is not installed.
    """
    program = shutil.which("qemu-bridge-helper", path=_PLACES)
    if program is None:
        text = "cannot find 'qemu-bridge-helper', which a session's interfaces on bridges need"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_QEMU)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            command = [program, *(["--use-vnet"] if vnet_header else []), f"--br={bridge}", f"--fd={theirs.fileno()}"]
            try:
                done = subprocess.run(
                    command, pass_fds=[theirs.fileno()], capture_output=True, text=True, timeout=_SECONDS, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise _failed(program, str(error)) from None
        if done.returncode:
            raise _failed(program, done.stderr.strip())
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        raise _failed(program, "it has handed over nothing")
    os.set_inheritable(descriptors[0], False)
    request = fcntl.ioctl(descriptors[0], _TUNGETIFF, bytes(_IFREQ_SIZE))
    return os.fsdecode(request[:_NAME_SIZE].partition(b"\0")[0]), descriptors[0]


def _failed(program: str, text: str) -> VirtError:
    text = f"{program}: failed to communicate with bridge helper: {text}"
    return VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_QEMU)
