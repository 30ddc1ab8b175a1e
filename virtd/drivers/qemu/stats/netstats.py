"""Counters of network devices of the host, as a guest sees them."""

NAMES = tuple((way, what) for way in ("rx", "tx") for what in ("bytes", "pkts", "errs", "drop"))
"""The counters that read() gives, in their order."""
# The columns of /proc/net/dev: eight of what was received, eight of what was sent, each beginning with these.
_COLUMNS = (0, 1, 2, 3)
_SENT = 8


def read(device: str, *, swapped: bool) -> tuple[int, ...] | None:
    """The counters of a device.

    Args:
        device: its name.
        swapped: whether the host sends what the guest receives, as with tap devices.

    Returns:
        The numbers in the order of NAMES; None if there is no such device.
    """
    try:
        with open("/proc/net/dev", encoding="ascii") as file:
            for line in file:
                name, colon, rest = line.partition(":")
                if colon and name.strip() == device:
                    fields = [int(field) for field in rest.split()]
                    received = [fields[column] for column in _COLUMNS]
                    sent = [fields[_SENT + column] for column in _COLUMNS]
                    return tuple(sent + received if swapped else received + sent)
    except OSError:
        pass
    return None
