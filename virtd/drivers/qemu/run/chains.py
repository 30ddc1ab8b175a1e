"""What lies below a guest's images, as their headers say: found when a guest starts or gets a disk, as libvirt does.

So the live XML shows the chain, every image in it has a number, and QEMU opens what the guest's definition or the
header one level above names, in the format named there. A chain that the definition ends is left as it is, and so is
the rest of one that goes on where headers cannot be read or do not say which format comes next.
"""

from collections.abc import Iterable

from virtd.conf.domain.disk import FORMATS, BackingStore, BlockSource, Disk, FileSource, SourceBase
from virtd.drivers.qemu.command import storage
from virtd.errors import VirtError

_MOST = 200  # images: a longer chain goes in circles


def detect(disks: Iterable[Disk]) -> None:
    """Add to disks the images below those that are known. Volumes must have been looked up."""
    for disk in disks:
        if disk.source is not None:
            _detect(disk, disk.source)


def _detect(disk: Disk, top: SourceBase) -> None:
    last: Disk | BackingStore = disk
    path, kind = storage.local_path(top), disk.driver.type
    while last.backing is not None:
        last = last.backing
        if last.end:
            return
        path, kind = storage.local_path(last.source), last.format
    known: list[str] = []
    while kind == "qcow2" and path is not None and path not in known and len(known) < _MOST:
        known.append(path)
        found = _below(path)
        if found is None:
            return
        last.backing = found
        last, path, kind = found, storage.local_path(found.source), found.format


def _below(path: str) -> BackingStore | None:
    """The image below one; None if there is none, or nobody can say which and of which format."""
    from virtd.drivers.storage import describe  # most guests have no such image

    try:
        facts = describe.look(path)
    except VirtError:
        return None
    if facts is None or facts.image is None or facts.image.backing is None or facts.image.format != "qcow2":
        return None
    local, kind = describe.backing_path(path, facts.image.backing), facts.image.backing_format
    if local is None or kind not in FORMATS.names:
        return None
    try:
        below = describe.look(local)
    except VirtError:
        below = None
    if below is not None and below.type == "block":
        return BackingStore(type="block", format=kind, source=BlockSource(dev=local))
    return BackingStore(type="file", format=kind, source=FileSource(file=local))
