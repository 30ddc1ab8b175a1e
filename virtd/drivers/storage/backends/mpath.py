"""The pool of the machine's multipath devices; its volumes are those that the device mapper has at the moment."""

import re

from virtd.conf.storage import Volume
from virtd.drivers.storage import programs
from virtd.drivers.storage.backends.base import Backend
from virtd.drivers.storage.backends.blocks import BlockBackend, serial, size_of

_DEVICE = re.compile(r"(.+)\s+\((\d+)[:,] *(\d+)\)")

# What udev and libdevmapper write otherwise in the names of nodes.
_UNUSUAL = re.compile(r"[^0-9A-Za-z#+\-.:=@_]")


class MultipathBackend(BlockBackend):
    """Multipath devices."""

    def copy(self, volume: Volume, original: Volume | None, flags: int) -> bool:
        return Backend.copy(self, volume, original, flags)

    def sizes(self) -> tuple[int, int, int]:
        whole = sum(volume.capacity or 0 for volume in self.volumes())
        return whole, whole, 0

    def volumes(self) -> list[Volume]:
        if not _there():
            return []
        found = []
        for line in programs.run("dmsetup", ["ls", "--target", "multipath"]).splitlines():
            match = _DEVICE.fullmatch(line.strip())
            if match is None:
                continue  # "No devices found"
            path = f"/dev/mapper/{_UNUSUAL.sub(_escaped, match[1].strip())}"
            size = size_of(path) or 0
            volume = Volume(type="block", name=f"dm-{match[3]}", capacity=size, allocation=size)
            volume.target.path, volume.key = path, serial(path)
            found.append(volume)
        return found


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in match[0].encode(errors="surrogateescape"))


def _there() -> bool:
    """Whether the kernel has a device mapper; where it has none, there are no devices of it."""
    with open("/proc/devices", encoding="ascii") as devices:
        return any(line.split()[1:] == ["device-mapper"] for line in devices)
