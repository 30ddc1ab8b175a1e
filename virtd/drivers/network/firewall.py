"""A network's packet filter and address translation: one nftables table of its own.

The table is replaced and removed as a whole, in one transaction; no other table is touched. What is let through here
can still be dropped by others' tables: nftables asks all of them.
"""

import shutil
import subprocess

from virtd import constants as c
from virtd.conf.network import Network
from virtd.conf.network.ip import Ip
from virtd.errors import VirtError

# The modes in which guests' packets are filtered at all.
FILTERED = ("none", "nat", "route")
_SECONDS = 20.0
_PORTS = ("1024", "65535")  # libvirt's range of translated ports, if the XML has none
_NEVER_TRANSLATED = {4: "{ 224.0.0.0/24, 255.255.255.255 }", 6: "ff02::/16"}


def table_name(bridge: str) -> str:
    """The name of the table of the network which has this bridge."""
    return "virtd_" + "".join(ch if ch.isascii() and ch.isalnum() else f"_{ord(ch):x}" for ch in bridge)


def apply(network: Network) -> None:
    """Put a network's rules in force, in place of those it had.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, nft is missing or refused.
    """
    assert network.bridge is not None
    if network.mode in FILTERED:
        run(_replacing(table_name(network.bridge), "\n".join(rules(network))))


def remove(bridge: str) -> None:
    """Remove the rules of a network, if there are any."""
    table = table_name(bridge)
    # "Declared" first, since what is not there cannot be deleted.
    run(f"table inet {table}\ndelete table inet {table}\n")


def _replacing(table: str, body: str) -> str:
    return f"table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n{body}\n}}\n"


def rules(network: Network) -> list[str]:
    """The chains of a network, in nft's language."""
    bridge = _quoted(network.bridge or "")
    device = network.forward.dev if network.forward is not None else None
    out = f" oifname {_quoted(device)}" if device else ""
    back = f" iifname {_quoted(device)}" if device else ""
    inward, outward, translated = [], [], []
    for ip in network.ips if network.mode != "none" else []:
        net, family = ip.network, _family(ip)
        nat = network.mode == "nat" and (ip.version == 4 or _nat6(network))
        state = " ct state related,established" if nat else ""
        inward.append(f"oifname {bridge}{back} {family} daddr {net}{state} accept")
        outward.append(f"iifname {bridge}{out} {family} saddr {net} accept")
        if nat:
            translated += _translation(network, ip, out)
    forward = [
        f"iifname {bridge} oifname {bridge} accept",
        *inward,
        f"oifname {bridge} reject",
        *outward,
        f"iifname {bridge} reject",
    ]
    lines = _chain("forward", "type filter hook forward priority filter; policy accept;", forward)
    if translated:
        lines += _chain("postrouting", "type nat hook postrouting priority srcnat; policy accept;", translated)
    return lines


def _translation(network: Network, ip: Ip, out: str) -> list[str]:
    net, family = ip.network, _family(ip)
    nat = network.forward.nat if network.forward is not None else None
    address = nat.addresses[0] if nat is not None and nat.addresses and ip.version == 4 else None
    port = nat.ports[0] if nat is not None and nat.ports else None
    first, last = (port.start or "", port.end or "") if port is not None else _PORTS
    ports = f":{first}-{last}" if first != last else f":{first}"
    if address is not None:
        target = address.start if address.start == address.end else f"{address.start}-{address.end}"
        with_ports, without = f"snat ip to {target}{ports}", f"snat ip to {target}"
    else:
        with_ports, without = f"masquerade to {ports}", "masquerade"
    leaving = f"{family} saddr {net} {family} daddr != {net}{out}"
    return [
        f"{family} saddr {net} {family} daddr {_NEVER_TRANSLATED[ip.version]}{out} return",
        f"meta l4proto {{ tcp, udp }} {leaving} {with_ports}",
        f"{leaving} {without}",
    ]


def _nat6(network: Network) -> bool:
    nat = network.forward.nat if network.forward is not None else None
    return nat is not None and bool(nat.ipv6)


def _family(ip: Ip) -> str:
    return "ip" if ip.version == 4 else "ip6"


def _chain(name: str, head: str, body: list[str]) -> list[str]:
    return [f"  chain {name} {{", *(f"    {line}" for line in [head, *body]), "  }"]


def _quoted(name: str) -> str:
    if '"' in name or "\n" in name:
        raise VirtError(c.VIR_ERR_CONFIG_UNSUPPORTED, f"device name '{name}' cannot be used in firewall rules")
    return f'"{name}"'


def run(script: str) -> None:
    """Let nft carry out a script, wholly or not at all.

    Raises:
        VirtError: VIR_ERR_OPERATION_FAILED, nft is missing or refused.
    """
    program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        text = (
            "cannot find 'nft', which isolated networks and those of forward mode nat and route need; install nftables"
        )
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)
    try:
        done = subprocess.run(
            [program, "-f", "-"], input=script, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, f"nft: {error}", domain=c.VIR_FROM_NETWORK) from None
    if done.returncode:
        text = f"nft refused the rules: {done.stderr.strip()}"
        raise VirtError(c.VIR_ERR_OPERATION_FAILED, text, domain=c.VIR_FROM_NETWORK)
