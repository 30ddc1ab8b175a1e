"""The types of storage pools: what describes their source, which formats there are, what their volumes are.

The tables hold libvirt's names and numbers, in its order. Which of the types work here, the driver knows.
"""

from typing import NamedTuple

_FILE_FORMATS = (
    "none",
    "raw",
    "dir",
    "bochs",
    "cloop",
    "dmg",
    "iso",
    "vpc",
    "vdi",
    "fat",
    "vhd",
    "ploop",
    "cow",
    "qcow",
    "qcow2",
    "qed",
    "vmdk",
)
_DISK_VOLUMES = ("none", "linux", "fat16", "fat32", "linux-swap", "linux-lvm", "linux-raid", "extended")


class PoolType(NamedTuple):
    """One type of pool.

    Attributes:
        name: as in XML.
        number: libvirt's number of the type (virStoragePoolType).
        flag: VIR_CONNECT_LIST_STORAGE_POOLS_* bit that asks for it.
        source: which parts of <source> say what it is ('host', 'device', 'dir', 'adapter', 'name', 'initiator').
        demanded: which of them must be there.
        formats: the formats of the source; the first is what an absent one means, but for logical pools.
        default_format: what an absent format means; None if the type has no formats.
        volumes: the formats of its volumes; empty if they have none.
        default_volume: what an absent format of a volume means.
        target: whether it has a target path.
        served: whether there are pools of this type; of one that libvirt had once, only the name is left.
    """

    name: str
    number: int
    flag: int
    source: frozenset[str]
    demanded: frozenset[str]
    formats: tuple[str, ...] = ()
    default_format: str | None = None
    volumes: tuple[str, ...] = ()
    default_volume: str | None = None
    target: bool = True
    served: bool = True


def _type(
    name: str,
    number: int,
    flag: int,
    source: str = "",
    demanded: str | None = None,
    formats: str = "",
    default_format: str | None = None,
    volumes: tuple[str, ...] = (),
    default_volume: str | None = None,
    *,
    target: bool = True,
    served: bool = True,
) -> PoolType:
    return PoolType(
        name,
        number,
        1 << flag,
        frozenset(source.split()),
        frozenset((source if demanded is None else demanded).split()),
        tuple(formats.split()),
        default_format,
        volumes,
        default_volume,
        target,
        served,
    )


_FILE_SYSTEMS = "auto ext2 ext3 ext4 ufs iso9660 udf gfs gfs2 vfat hfs+ xfs ocfs2 vmfs"
_LABELS = "unknown dos dvh gpt mac bsd pc98 sun lvm2"

POOL_TYPES = {
    kind.name: kind
    for kind in (
        _type("dir", 0, 6, volumes=_FILE_FORMATS, default_volume="raw"),
        _type("fs", 1, 7, "device", None, _FILE_SYSTEMS, "auto", _FILE_FORMATS, "raw"),
        _type("netfs", 2, 8, "host dir", None, "auto nfs glusterfs cifs", "auto", _FILE_FORMATS, "raw"),
        _type("logical", 3, 9, "name device", "name", "unknown lvm2", "lvm2"),
        _type("disk", 4, 10, "device", None, _LABELS, "unknown", _DISK_VOLUMES, "none"),
        _type("iscsi", 5, 11, "host device initiator", "host"),
        _type("iscsi-direct", 6, 19, "host device initiator", target=False),
        _type("scsi", 7, 12, "adapter"),
        _type("mpath", 8, 13),
        _type("rbd", 9, 14, "host name", None, default_volume="raw", target=False),
        _type("sheepdog", 10, 15, "host name", None, target=False, served=False),
        _type("gluster", 11, 16, "host dir name", "host name", "", None, _FILE_FORMATS, "raw", target=False),
        _type("zfs", 12, 17, "name device", "name"),
        _type("vstorage", 13, 18, "name", None, "", None, _FILE_FORMATS, "raw"),
    )
}

VOLUME_TYPES = ("file", "block", "dir", "network", "netdir", "ploop")
"""The kinds of volumes, by their number (VIR_STORAGE_VOL_*)."""

BACKING_FORMATS = _FILE_FORMATS
"""What a backing file may be."""
