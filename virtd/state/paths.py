"""Where things lie: the directories of one instance.

An instance is the system's (root), a user's session, or whatever lies below a --root directory. Two
instances share nothing, so that they can run side by side.
"""

import os

from virtd.tuples import NamedTuple


class Paths(NamedTuple):
    """The directories of one instance; they need not exist yet."""

    privileged: bool  # system mode: guests run as a user of their own, URIs say /system
    config: str  # persistent definitions and virtd.conf
    state: str  # what must outlive a reboot beside the definitions
    runtime: str  # what ends with the boot: running guests, locks, the journal
    log: str
    cache: str  # can be deleted at any time
    sockets: str  # where libvirt's clients look for the server's sockets

    @property
    def mode(self) -> str:
        """The path of the instance's URIs: 'system' or 'session'."""
        return "system" if self.privileged else "session"


def below(root: str, *, privileged: bool | None = None) -> Paths:
    """The directories of an instance that lies wholly below one directory (--root)."""
    root = os.path.abspath(root)
    return Paths(
        privileged=os.geteuid() == 0 if privileged is None else privileged,
        config=f"{root}/etc/virtd",
        state=f"{root}/var/lib/virtd",
        runtime=f"{root}/run/virtd",
        log=f"{root}/var/log/virtd",
        cache=f"{root}/var/cache/virtd",
        sockets=f"{root}/run/libvirt",
    )


def system() -> Paths:
    """The directories of the machine's own instance."""
    return Paths(
        privileged=True,
        config="/etc/virtd",
        state="/var/lib/virtd",
        runtime="/run/virtd",
        log="/var/log/virtd",
        cache="/var/cache/virtd",
        sockets="/run/libvirt",
    )


def session() -> Paths:
    """The directories of the calling user's instance (XDG Base Directory Specification).

    Without XDG_RUNTIME_DIR the run-time directories lie in the cache, as libvirt's do.
    """
    home = os.path.expanduser("~")
    cache = os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
    run = os.environ.get("XDG_RUNTIME_DIR") or cache
    return Paths(
        privileged=False,
        config=(os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config") + "/virtd",
        state=(os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share") + "/virtd",
        runtime=f"{run}/virtd",
        log=(os.environ.get("XDG_STATE_HOME") or f"{home}/.local/state") + "/virtd/log",
        cache=f"{cache}/virtd",
        sockets=f"{run}/libvirt",
    )


def find(root: str | None = None) -> Paths:
    """The directories a process of this user works with.

    Args:
        root: the value of --root; without it VIRTD_ROOT from the environment counts, and without that the
            instance is the system's for root and the session's for everybody else.
    """
    root = root or os.environ.get("VIRTD_ROOT")
    if root:
        return below(root)
    return system() if os.geteuid() == 0 else session()
