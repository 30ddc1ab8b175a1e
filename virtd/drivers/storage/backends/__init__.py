"""The types of storage pools that virtd can use, each in a module of its own.

To add one: a module with a subclass of `base.Backend`, and a line in the table. A module is loaded when the first pool
of its type is used. Which of them work on a machine depends on the tools that are installed there. The types that every
libvirt has can be defined without them, and a tool that is missing is named by whatever needs it; those that come to
libvirt with packages of their own are there with their tools, and are missing without.
"""

from functools import cache
from importlib import import_module

from virtd import constants as c
from virtd.conf.storage import POOL_TYPES, Pool
from virtd.drivers.storage import programs
from virtd.drivers.storage.backends.base import Backend, Surroundings
from virtd.errors import VirtError

__all__ = ["Backend", "Surroundings", "backend", "backend_class", "check_there", "there"]

BACKENDS = {
    "dir": "directory:DirectoryBackend",
    "fs": "directory:FileSystemBackend",
    "netfs": "directory:ServerBackend",
    "logical": "logical:LogicalBackend",
    "disk": "disk:DiskBackend",
    "iscsi": "iscsi:IscsiBackend",
    "iscsi-direct": "iscsidirect:IscsiDirectBackend",
    "scsi": "scsi:ScsiBackend",
    "mpath": "mpath:MultipathBackend",
    "rbd": "rbd:RbdBackend",
    "gluster": "gluster:GlusterBackend",
    "zfs": "zfs:ZfsBackend",
    "vstorage": "vstorage:VstorageBackend",
}
"""Type → module and class."""

_TOOLS = {
    "iscsi-direct": ("iscsi-ls", "libiscsi-bin"),
    "rbd": ("rbd", "ceph-common"),
    "gluster": ("mount.glusterfs", "glusterfs-client"),
    "zfs": ("zfs", "zfsutils-linux"),
    "vstorage": ("vstorage-mount", ""),
}
"""Type that is missing without a tool → the tool, and the package that has it, if it is one of Debian's."""


def there() -> list[str]:
    """The types of pools that can be used on this machine: what `virsh pool-capabilities` calls supported."""
    return [kind for kind in BACKENDS if _is_there(kind)]


def _is_there(kind: str) -> bool:
    return kind in BACKENDS and (kind not in _TOOLS or programs.installed(_TOOLS[kind][0]) is not None)


def check_there(kind: str) -> None:
    """Refuse a type of pool that cannot be used on this machine.

    Raises:
        VirtError: VIR_ERR_INTERNAL_ERROR naming the tool that is missing.
    """
    if _is_there(kind):
        return
    text = f"missing backend for pool type {POOL_TYPES[kind].number} ({kind})"
    if kind in _TOOLS:
        tool, package = _TOOLS[kind]
        text += f": '{tool}' is not installed" + (f", it is in the package {package}" if package else "")
    raise VirtError(c.VIR_ERR_INTERNAL_ERROR, text, domain=c.VIR_FROM_STORAGE)


@cache
def backend_class(kind: str) -> type[Backend]:
    """The class for a type of pool, which must be one of the table."""
    module, name = BACKENDS[kind].split(":")
    found: type[Backend] = getattr(import_module(f"{__name__}.{module}"), name)
    return found


def backend(pool: Pool, surroundings: Surroundings) -> Backend:
    """What a pool's type does with this pool."""
    return backend_class(pool.type or "")(pool, surroundings)
