"""The block group of virConnectGetAllDomainStats: counters and sizes of each disk, and of its backing images."""

from collections.abc import Mapping

from virtd.drivers import typed
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.monitor.client import Command
from virtd.drivers.qemu.run import images
from virtd.drivers.qemu.stats.facts import DiskFacts, Facts, ImageFacts
from virtd.drivers.qemu.stats.known import Known
from virtd.drivers.qemu.status import Status
from virtd.errors import VirtError
from virtd.protocol.records import TypedParam

_BLOCK_COUNTERS = (
    ("rd.reqs", "rd_operations"),
    ("rd.bytes", "rd_bytes"),
    ("rd.times", "rd_total_time_ns"),
    ("wr.reqs", "wr_operations"),
    ("wr.bytes", "wr_bytes"),
    ("wr.times", "wr_total_time_ns"),
    ("fl.reqs", "flush_operations"),
    ("fl.times", "flush_total_time_ns"),
)


def make(known: Known) -> list[TypedParam]:
    """The group's parameters."""
    nodes = {shape.text(node, "node-name", ""): node for node in known.list("query-named-block-nodes")}
    by_device = _by_device(known)
    params: list[TypedParam] = []
    count = 0
    for disk in known.facts.disks:
        top = disk.images[0] if disk.images else None
        counted = by_device.get(disk.alias)
        params += _image(count, disk, top, counted, nodes, known.status)
        count += 1
        for image in disk.images[1:] if known.backing and known.status is not None else ():
            counted = shape.table(counted or {}, "backing", {}) or None
            params += _image(count, disk, image, counted, nodes, known.status)
            count += 1
    return [typed.unsigned("block.count", count), *params]


def _by_device(known: Known) -> dict[str, shape.Table]:
    """The counters of disks by their aliases."""
    if known.status is None:
        return {}
    found = {}
    for one in known.list("query-blockstats"):
        names = known.status.disks.get(shape.text(one, "qdev", ""))
        if names is not None:
            found[names[0]] = one
    return found


def _image(
    number: int,
    disk: DiskFacts,
    image: ImageFacts | None,
    counted: shape.Table | None,
    nodes: Mapping[str, shape.Table],
    status: Status | None,
) -> list[TypedParam]:
    prefix = f"block.{number}"
    params = [typed.string(f"{prefix}.name", disk.target)]
    if image is not None and image.path is not None:
        params.append(typed.string(f"{prefix}.path", image.path))
    if image is not None and image.number:
        params.append(typed.unsigned(f"{prefix}.backingIndex", image.number))
    if counted is not None:
        stats = shape.table(counted, "stats")
        params += [
            typed.unsigned_long(f"{prefix}.{name}", shape.number(stats, key, 0)) for name, key in _BLOCK_COUNTERS
        ]
    if image is None:
        return params
    node = nodes.get(f"libvirt-{image.number}-format")
    if node is not None:
        below = shape.table(shape.table(counted or {}, "parent", {}), "stats", {})
        about = shape.table(node, "image", {})
        found: images.Sizes | None = images.Sizes(
            shape.number(below, "wr_highest_offset", 0),
            shape.number(about, "virtual-size", 0),
            shape.number(about, "actual-size", 0),
        )
    elif status is not None and image.plain and (host := _host_sizes(image)) is not None:
        below = shape.table(shape.table(counted or {}, "parent", {}), "stats", {})
        found = images.Sizes(shape.number(below, "wr_highest_offset", 0), host.capacity, host.allocation)
    else:
        found = _host_sizes(image)
    if found is not None:
        params += [typed.unsigned_long(f"{prefix}.{name}", value) for name, value in found._asdict().items()]
    name = f"libvirt-{image.number}-storage"
    known = status.thresholds.get(name, ["0"]) if status is not None else ["0"]
    threshold = shape.number(nodes.get(name, {}), "write_threshold", int(known[0]))
    if threshold:
        params.append(typed.unsigned_long(f"{prefix}.threshold", threshold))
    return params


def _host_sizes(image: ImageFacts) -> images.Sizes | None:
    """The sizes of an image that QEMU tells nothing of; None if the host cannot tell either."""
    if image.path is None or not image.local:
        return None
    try:
        return images.sizes(image.path, image.format)
    except VirtError:
        return None


def commands(facts: Facts) -> list[Command]:
    """What QEMU has to be asked for them: of the images themselves only what the host does not know."""
    if not facts.disks:
        return []
    counters: Command = ("query-blockstats", None)
    if all(image.plain for disk in facts.disks for image in disk.images):
        return [counters]
    return [counters, ("query-named-block-nodes", {"flat": True})]
