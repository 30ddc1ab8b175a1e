"""The types of storage pools that virtd can use, each in a module of its own.

To add one: a module with a subclass of `base.Backend`, and a line in the table. A module is loaded when the first pool
of its type is used. Which of them work on a machine depends on the tools that are installed there; a tool that is
missing is named by whatever needs it.
"""

from functools import cache
from importlib import import_module

from virtd.conf.storage import Pool
from virtd.drivers.storage.backends.base import Backend, Surroundings

__all__ = ["BACKENDS", "Backend", "Surroundings", "backend", "backend_class"]

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
"""Type → module and class. The keys are what `virsh pool-capabilities` calls supported."""


@cache
def backend_class(kind: str) -> type[Backend]:
    """The class for a type of pool, which must be one of the table."""
    module, name = BACKENDS[kind].split(":")
    found: type[Backend] = getattr(import_module(f"{__name__}.{module}"), name)
    return found


def backend(pool: Pool, surroundings: Surroundings) -> Backend:
    """What a pool's type does with this pool."""
    return backend_class(pool.type or "")(pool, surroundings)
