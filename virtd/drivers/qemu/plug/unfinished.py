"""A device that is being plugged into a running guest, written down before QEMU hears of it.

The process that does it can die, or find the disk full, when QEMU has the device and the live XML does not say so.
Whoever changes the guest next asks QEMU: if the device is there, it is written into the live XML then; if not, what
was made for it is taken back. The note goes in the commit that publishes the live XML.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from virtd.conf.domain import Domain as Config
from virtd.drivers.qemu import shape
from virtd.drivers.qemu.guest import Guest
from virtd.drivers.qemu.plug.qmpline import Step
from virtd.drivers.qemu.run import access
from virtd.state import files


class Plugged(NamedTuple):
    """A device that QEMU has, and the live XML does not show.

    Attributes:
        alias: the device's.
        live: the live XML with the device.
        secure: … and with passwords.
        disks: QEMU's names of its images, as Status.disks has them.
    """

    alias: str
    live: str
    secure: str
    disks: dict[str, tuple[str, str]]


def note(guest: Guest, config: Config, alias: str, disks: Mapping[str, tuple[str, str]], steps: Sequence[Step]) -> None:
    """Write down that a device is about to be plugged in; the guest's lock is held.

    Args:
        guest: the guest's directory.
        config: the live configuration with the device.
        alias: the device's.
        disks: QEMU's names of its images.
        steps: the commands that will make it.
    """
    live, secure = guest.live_texts(config)
    back = [step.back for step in reversed(steps)]
    table = {
        "alias": alias,
        "live": live,
        "secure": secure,
        "disks": [{"node": node, "alias": owner, "path": path} for node, (owner, path) in disks.items()],
        "back": [{"command": step.command, "arguments": step.arguments} for step in back if step is not None],
    }
    files.replace(guest.plug_path, json.dumps(table).encode(), durable=False)


def settle(guest: Guest) -> Plugged | None:
    """What became of a device whose plugging was not finished; the guest's lock is held.

    Args:
        guest: the guest's directory.

    Returns:
        The device, if QEMU has it. If not, nothing of it is left.
    """
    content = files.read(guest.plug_path)
    if content is None:
        return None
    table = shape.as_table(json.loads(content), "plug")
    alias = shape.text(table, "alias")
    with guest.monitor() as monitor:
        # QMP qom-list: devices that were given an id are children of /machine/peripheral.
        there = monitor.query_list("qom-list", {"path": "/machine/peripheral"})
        if not any(one.get("name") == alias for one in there):
            back = [(shape.text(one, "command"), shape.table(one, "arguments")) for one in shape.tables(table, "back")]
            monitor.execute_all(back)  # what is not there is no matter
            access.forget(alias, monitor)
            files.remove(guest.plug_path)
            return None
    disks = {
        shape.text(one, "node"): (shape.text(one, "alias"), shape.text(one, "path"))
        for one in shape.tables(table, "disks")
    }
    return Plugged(alias, shape.text(table, "live"), shape.text(table, "secure"), disks)
