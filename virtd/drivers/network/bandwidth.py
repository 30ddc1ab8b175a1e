"""The limits of traffic at a device of the host: of a whole network at its bridge, of one guest at its tap.

What goes to the guests is shaped: a token bucket of the kernel's (tc-htb(8)), with the average as its rate and the peak
as its ceiling. What comes from them cannot be held back there, and is dropped above the average, by a rule of nftables
at the device's entrance (libvirt does the same by tc's policing). A network's bucket is divided: what some guests are
guaranteed is taken from the share of all others (guarantees.py).
"""

import shutil
import subprocess

from virtd import constants as c
from virtd.conf.netdev import Bandwidth, Rate
from virtd.drivers.network import firewall
from virtd.errors import VirtError
from virtd.state import undo

_SECONDS = 20.0
# The bytes that a class may send at once: a packet at least, in proportion to what it may send in a second.
_LEAST_QUANTUM, _MOST_QUANTUM, _QUANTUM_PER_KIB = 1600, 60000, 100


def apply(device: str, bandwidth: Bandwidth, undo_path: str, *, shared: bool = False) -> None:
    """Put limits in force, at a device that has none.

    Args:
        device: the bridge or tap.
        bandwidth: the limits.
        undo_path: where it is written down what does not go with the device (virtd.state.undo).
        shared: whether it is the bridge of several guests, one of which may be guaranteed a part.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, tc or nft is missing or refuses.
    """
    if bandwidth.inbound is not None and bandwidth.inbound.average:
        _shape(device, bandwidth.inbound, shared=shared)
    if bandwidth.outbound is not None and bandwidth.outbound.average:
        undo.note(undo_path, "limits", device=device)
        apply_rules(device, bandwidth)


def replace(device: str, old: Bandwidth | None, new: Bandwidth | None, undo_path: str) -> None:
    """Put other limits in force, in place of those that a device has; None for none. Raises as apply()."""
    if old is not None and old.inbound is not None and old.inbound.average:
        tc([f"qdisc del dev {device} root"])
    if old is not None and old.outbound is not None and old.outbound.average:
        undo.undo_some(undo_path, lambda entry: is_of(entry, device), f"'{device}'")
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


def share(device: str, verb: str, number: int, rate: int, whole: Rate, *, burst: int | None = None) -> str:
    """The command of tc that gives those who share a device a part of it.

    Args:
        device: the bridge.
        verb: "add" or "change".
        number: of the class.
        rate: what it gets in any case, KiB/s.
        whole: what all of them have; whoever finds it unused may use it.
        burst: KiB.
    """
    quantum = min(max(rate * _QUANTUM_PER_KIB, _LEAST_QUANTUM), _MOST_QUANTUM)
    command = f"class {verb} dev {device} parent 1:1 classid 1:{number:x} htb"
    command += f" rate {rate}kbps ceil {whole.peak or whole.average}kbps quantum {quantum}"
    return f"{command} burst {burst}kb" if burst else command


def fair(device: str, number: int) -> None:
    """Let the connections within a class take turns, where the kernel has what that needs (tc-sfq(8))."""
    tc([f"qdisc add dev {device} parent 1:{number:x} handle {number:x}: sfq perturb 10"], force=True)


def _shape(device: str, rate: Rate, *, shared: bool) -> None:
    last = 2 if shared else 1
    commands = [f"qdisc add dev {device} root handle 1: htb default {last}"]
    whole = f"class add dev {device} parent 1: classid 1:1 htb"
    whole += f" rate {rate.average}kbps ceil {rate.peak or rate.average}kbps"
    if shared:
        commands += [whole, share(device, "add", last, rate.average or 1, rate, burst=rate.burst)]
    else:
        commands.append(f"{whole} burst {rate.burst}kb" if rate.burst else whole)
    tc(commands)
    fair(device, last)


def _rules(device: str, rate: Rate) -> str:
    table = firewall.table_name(device)
    limit = f"limit rate over {rate.average} kbytes/second burst {rate.burst or rate.average} kbytes drop"
    return (
        f"table netdev {table}\ndelete table netdev {table}\ntable netdev {table} {{\n  chain outbound {{\n"
        f'    type filter hook ingress device "{device}" priority filter; policy accept;\n    {limit}\n  }}\n}}\n'
    )


def tc(commands: list[str], *, force: bool = False) -> None:
    """Let the kernel's traffic control run commands (tc(8)); one that fails ends it, unless it is forced on.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, tc is missing or, unless forced, refuses one.
    """
    program = shutil.which("tc", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        text = "cannot find 'tc', which a <bandwidth> needs; install iproute2"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)
    argv, lines = [program, *(["-force"] if force else []), "-batch", "-"], "".join(f"{one}\n" for one in commands)
    try:
        done = subprocess.run(argv, input=lines, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, f"tc: {error}", domain=c.VIR_FROM_NETWORK) from None
    if done.returncode and not force:
        text = f"'tc' failed: {' '.join(done.stderr.split())}: {'; '.join(commands)}"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)


def _undo_limits(table: dict[str, str]) -> None:
    remove(table["device"])


undo.KINDS.update(limits=_undo_limits)
