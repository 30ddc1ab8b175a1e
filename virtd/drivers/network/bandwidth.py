"""The limits of traffic at a device of the host: of a whole network at its bridge, of one guest at its tap.

What goes to the guests is shaped: a token bucket of the kernel's (tc-htb(8)), with the average as its rate and the peak
as its ceiling. What comes from them cannot be held back there, and is dropped above the average, by a rule of nftables
at the device's entrance (libvirt does the same by tc's policing).
"""

import shutil
import subprocess

from virtd import constants as c
from virtd.conf.netdev import Bandwidth, Rate
from virtd.drivers.network import firewall
from virtd.errors import VirtError
from virtd.state import undo

_SECONDS = 20.0


def apply(device: str, bandwidth: Bandwidth, undo_path: str) -> None:
    """Put limits in force, at a device that has none.

    Args:
        device: the bridge or tap.
        bandwidth: the limits.
        undo_path: where it is written down what does not go with the device (virtd.state.undo).

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, tc or nft is missing or refuses.
    """
    if bandwidth.inbound is not None and bandwidth.inbound.average:
        _shape(device, bandwidth.inbound)
    if bandwidth.outbound is not None and bandwidth.outbound.average:
        undo.note(undo_path, "limits", device=device)
        apply_rules(device, bandwidth)


def replace(device: str, old: Bandwidth | None, new: Bandwidth | None, undo_path: str) -> None:
    """Put other limits in force, in place of those that a device has; None for none. Raises as apply()."""
    if old is not None and old.inbound is not None and old.inbound.average:
        _tc("qdisc", "del", "dev", device, "root")
    if old is not None and old.outbound is not None and old.outbound.average:
        undo.undo_some(undo_path, lambda entry: is_of(entry, device))
    if new is not None:
        apply(device, new, undo_path)


def is_of(entry: dict[str, object], device: str) -> bool:
    """Whether an entry of an undo file stands for the limits of a device."""
    return entry.get("kind") == "limits" and entry.get("device") == device


def apply_rules(device: str, bandwidth: Bandwidth) -> None:
    """Put the part of the limits in force which consists of rules of nftables, in place of what is there.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, nft is missing or refuses.
    """
    if bandwidth.outbound is not None and bandwidth.outbound.average:
        firewall.run(_rules(device, bandwidth.outbound))


def remove(device: str) -> None:
    """Remove what does not go with the device."""
    table = firewall.table_name(device)
    firewall.run(f"table netdev {table}\ndelete table netdev {table}\n")


def _shape(device: str, rate: Rate) -> None:
    _tc("qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "1")
    command = ["class", "add", "dev", device, "parent", "1:", "classid", "1:1", "htb"]
    command += ["rate", f"{rate.average}kbps", "ceil", f"{rate.peak or rate.average}kbps"]
    if rate.burst:
        command += ["burst", f"{rate.burst}kb"]
    _tc(*command)


def _rules(device: str, rate: Rate) -> str:
    table = firewall.table_name(device)
    limit = f"limit rate over {rate.average} kbytes/second burst {rate.burst or rate.average} kbytes drop"
    return (
        f"table netdev {table}\ndelete table netdev {table}\ntable netdev {table} {{\n  chain outbound {{\n"
        f'    type filter hook ingress device "{device}" priority filter; policy accept;\n    {limit}\n  }}\n}}\n'
    )


def _tc(*arguments: str) -> None:
    program = shutil.which("tc", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        text = "cannot find 'tc', which a <bandwidth> needs; install iproute2"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, f"tc: {error}", domain=c.VIR_FROM_NETWORK) from None
    if done.returncode:
        text = f"'tc {' '.join(arguments)}' failed: {done.stderr.strip()}"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)


def _undo_limits(table: dict[str, str]) -> None:
    remove(table["device"])


undo.KINDS.update(limits=_undo_limits)
