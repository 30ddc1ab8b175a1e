"""What a start decides and finds out, and what then stands in the live XML: image numbers, labels, terminals."""

import re
from collections.abc import Mapping

from virtd.conf.domain import Domain as Config
from virtd.conf.domain.base import DimmAddress
from virtd.conf.domain.chardev import Channel, Console, Parallel, PtySource, Serial
from virtd.conf.domain.cpu import Cpu
from virtd.conf.domain.disk import BackingStore, Disk
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.monitor.client import Monitor
from virtd.drivers.qemu.run import confine, guestcpu, labels

# QEMU's node names, as the command line gives them.
_IMAGE = re.compile(r"libvirt-([0-9]+)-format")


def describe(config: Config, disks: Mapping[str, tuple[str, str]], user: confine.User | None) -> None:
    """Write into the live configuration what the command line decided: image numbers, and who QEMU runs as.

    Args:
        config: the live configuration.
        disks: QEMU's names of the images, with their disks' aliases (Command.disks).
        user: who QEMU runs as, if that was chosen.
    """
    numbers: dict[str, int] = {}
    for node, (alias, _) in disks.items():
        match = _IMAGE.fullmatch(node)
        if match is not None:
            # The images of a chain are numbered from the top.
            numbers[alias] = min(int(match[1]), numbers.get(alias, int(match[1])))
    for disk in config.disks:
        number = numbers.get(disk.info.alias or "")
        if disk.source is not None and number is not None:
            number_images(disk, number)
    labels.describe(config, user)


def number_images(disk: Disk, number: int) -> None:
    """Write into a disk which numbers its images have, from the top, and where they end.

    Args:
        disk: the disk, which has a source.
        number: the number of its first image.
    """
    assert disk.source is not None
    disk.source.index = number
    disk.backing = below = disk.backing or BackingStore()  # the end of the chain
    while not below.end:
        number += 1
        below.index = number
        below.backing = below = below.backing or BackingStore()


def connectable(config: Config) -> dict[str, list[str]]:
    """The virtio channels, which no program in the guest has opened yet, as Status.channels has them."""
    found = {}
    for channel in config.channels:
        if channel.target_type == "virtio":
            channel.state = "disconnected"
            found[channel.info.alias or ""] = [channel.name or "", channel.state]
    return found


def after_start(config: Config, monitor: Monitor) -> Cpu | None:
    """Tell QEMU what is told before the guest runs, and ask what it chose itself.

    QMP commands: set-action, so that it does not begin to boot a guest which must not come back from a reset;
    query-chardev, for the pseudo terminals; those of guestcpu.observe().

    Returns:
        The CPU that was asked for, if QEMU made another one of it.
    """
    asked = None if config.cpu is None else guestcpu.observe(config.cpu, monitor)
    if config.on_reboot == "destroy":
        monitor.execute("set-action", {"reboot": "shutdown"})
    find_terminals(config, monitor)
    find_memory(config, monitor)
    return asked


def find_terminals(config: Config, monitor: Monitor) -> None:
    """Write into the live configuration which pseudo terminals QEMU has made (query-chardev)."""
    devices: list[Serial | Parallel | Console | Channel] = [
        *config.serials,
        *config.parallels,
        *config.consoles,
        *config.channels,
    ]
    terminals = [(device.info.alias, device.source) for device in devices if isinstance(device.source, PtySource)]
    if not terminals:
        return
    found = {shape.text(one, "label"): shape.text(one, "filename") for one in monitor.query_list("query-chardev")}
    for alias, source in terminals:
        name = found.get(f"char{alias}", "")
        if name.startswith("pty:"):
            source.path = name.removeprefix("pty:")


def find_memory(config: Config, monitor: Monitor) -> None:
    """Write into the live configuration where QEMU has put memory devices, and how much of them the guest uses.

    QMP: query-memory-devices.
    """
    if not config.memory_devices:
        return
    found = {}
    for one in monitor.query_list("query-memory-devices"):
        data = shape.table(one, "data")
        found[shape.text(data, "id", "")] = data
    for device in config.memory_devices:
        data = found.get(device.info.alias or "", {})
        if isinstance(device.info.address, DimmAddress) and "addr" in data:
            device.info.address.base = shape.number(data, "addr")
        if device.model == "virtio-mem" and "size" in data:
            device.current = shape.number(data, "size") // 1024
