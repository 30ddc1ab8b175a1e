"""The limits of a whole network's traffic, at its bridge.

What goes to the guests is shaped: a token bucket of the kernel's (tc-htb(8)), with the average as its rate and the peak
as its ceiling. What comes from them cannot be held back there, and is dropped above the average, by a rule of nftables
at the bridge's entrance (libvirt does the same by tc's policing).
"""

import shutil
import subprocess

from virtd import constants as c
from virtd.conf.netdev import Bandwidth, Rate
from virtd.drivers.network import firewall
from virtd.errors import VirtError

_SECONDS = 20.0


def apply(bridge: str, bandwidth: Bandwidth) -> None:
    """Put a network's limits in force, at a bridge that has none.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, tc or nft is missing or refuses.
    """
    if bandwidth.inbound is not None and bandwidth.inbound.average:
        _shape(bridge, bandwidth.inbound)
    apply_rules(bridge, bandwidth)


def apply_rules(bridge: str, bandwidth: Bandwidth) -> None:
    """Put the part of the limits in force which consists of rules of nftables, in place of what is there.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, nft is missing or refuses.
    """
    if bandwidth.outbound is not None and bandwidth.outbound.average:
        firewall.run(_rules(bridge, bandwidth.outbound))


def remove(bridge: str) -> None:
    """Remove what does not go with the bridge."""
    table = firewall.table_name(bridge)
    firewall.run(f"table netdev {table}\ndelete table netdev {table}\n")


def _shape(bridge: str, rate: Rate) -> None:
    _tc("qdisc", "add", "dev", bridge, "root", "handle", "1:", "htb", "default", "1")
    command = ["class", "add", "dev", bridge, "parent", "1:", "classid", "1:1", "htb"]
    command += ["rate", f"{rate.average}kbps", "ceil", f"{rate.peak or rate.average}kbps"]
    if rate.burst:
        command += ["burst", f"{rate.burst}kb"]
    _tc(*command)


def _rules(bridge: str, rate: Rate) -> str:
    table = firewall.table_name(bridge)
    limit = f"limit rate over {rate.average} kbytes/second burst {rate.burst or rate.average} kbytes drop"
    return (
        f"table netdev {table}\ndelete table netdev {table}\ntable netdev {table} {{\n  chain outbound {{\n"
        f'    type filter hook ingress device "{bridge}" priority filter; policy accept;\n    {limit}\n  }}\n}}\n'
    )


def _tc(*arguments: str) -> None:
    program = shutil.which("tc", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        text = "cannot find 'tc', which networks with a <bandwidth> need; install iproute2"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, f"tc: {error}", domain=c.VIR_FROM_NETWORK) from None
    if done.returncode:
        text = f"'tc {' '.join(arguments)}' failed: {done.stderr.strip()}"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)
