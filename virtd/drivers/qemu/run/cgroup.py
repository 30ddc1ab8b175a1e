"""Control groups of guests (cgroup v2): each guest in one of its own, where the host lets us make them.

Below the root of the hierarchy that this process sees there is one group for all guests, and in it one for each, by
its uuid. They are nobody else's: a service manager which stops our service leaves them alone. Where there is no
cgroup v2, or it may not be written to (containers, session mode), guests stay where their starter is.

This module knows no QEMU.
"""

import os

from virtd import constants as c
from virtd.state import files, undo

ROOT = "/sys/fs/cgroup"
GROUP = "virtd"
CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")


def make(uuid: str, undo_path: str, *, root: str = ROOT) -> str | None:
    """Make a guest's control group, and note in its undo file that it has to go.

    Args:
        uuid: the guest's.
        undo_path: the guest's undo file.
        root: where the hierarchy is mounted.

    Returns:
        The group's directory; None where there are no control groups for us.
    """
    available = _controllers(root)
    if available is None:
        return None
    parent = f"{root}/{GROUP}"
    path = f"{parent}/{uuid}"
    try:
        os.makedirs(parent, exist_ok=True)
        for level in (root, parent):
            for name in available:
                _enable(level, name)
        undo.note(undo_path, "group", path=path)
        os.makedirs(path, exist_ok=True)
    except OSError:
        return None
    return path


def make_threaded(group: str, name: str, undo_path: str) -> str:
    """Make a group for some threads of a guest below the guest's own.

    Args:
        group: the guest's.
        name: the new one's.
        undo_path: the guest's undo file.

    Returns:
        Its directory.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, the kernel refuses.
    """
    path = f"{group}/{name}"
    undo.note(undo_path, "group", path=path)
    try:
        os.makedirs(path, exist_ok=True)
        with open(f"{path}/cgroup.type", "w", encoding="ascii") as file:
            file.write("threaded")
        with open(f"{group}/cgroup.subtree_control", "w", encoding="ascii") as file:
            file.write("+cpu")
    except OSError as error:
        raise files.os_error(error, f"Unable to make control group '{path}'") from None
    return path


def write(group: str, name: str, text: str) -> None:
    """Write into a file of a control group.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR, the kernel does not take it.
    """
    try:
        with open(f"{group}/{name}", "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        failure = files.os_error(error, f"Unable to write '{text}' to '{group}/{name}'")
        failure.domain = c.VIR_FROM_CGROUP
        raise failure from None


def directory(uuid: str, *, root: str = ROOT) -> str | None:
    """The control group of a guest that runs; None if it has none of its own."""
    path = f"{root}/{GROUP}/{uuid}"
    return path if os.path.isdir(path) else None


def controllers(path: str) -> frozenset[str]:
    """The controllers that work in a group."""
    return frozenset((files.read(f"{path}/cgroup.controllers") or b"").decode().split())


def _controllers(root: str) -> list[str] | None:
    """The controllers of the hierarchy that we use; None if there is no hierarchy, or it may not be written to."""
    if not os.path.exists(f"{root}/cgroup.controllers") or not os.access(root, os.W_OK):
        return None
    return [name for name in CONTROLLERS if name in controllers(root)]


def _enable(level: str, controller: str) -> None:
    """Let the groups below have a controller. One that cannot be had is done without.

    In a container, where the root is not the real one, the kernel refuses as long as there are processes in it.
    """
    try:
        with open(f"{level}/cgroup.subtree_control", "w", encoding="ascii") as file:
            file.write(f"+{controller}")
    except OSError:
        pass
