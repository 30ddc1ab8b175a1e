"""Who listens on a port of the host: for the error that dnsmasq could not (proc(5), /proc/net/tcp and its siblings)."""

import os
from collections.abc import Iterator

_LISTENING = b"0A"  # TCP_LISTEN
# The ports of dnsmasq: DNS, DHCP and DHCPv6 of a server.
_PORTS = (("tcp", 53), ("udp", 53), ("udp", 67), ("udp", 547))


def describe() -> str:
    """Who has the ports that dnsmasq needs, on all addresses; empty if nobody."""
    inodes = {inode: f"{protocol} port {port}" for protocol, port in _PORTS for inode in _sockets(protocol, port)}
    owners: dict[str, set[str]] = {}
    for inode, pid, name in _owners(set(inodes)):
        # Other networks' dnsmasqs have the ports of DHCP too, each on its own bridge.
        if name != "dnsmasq" or inodes[inode].endswith(" 53"):
            owners.setdefault(f"process {pid} ({name})", set()).add(inodes[inode])
    return "; ".join(f"{who} has {', '.join(sorted(ports))}" for who, ports in owners.items())


def _sockets(protocol: str, port: int) -> Iterator[str]:
    """The inodes of the sockets that wait for anybody at a port, on all addresses."""
    for family in ("", "6"):
        try:
            with open(f"/proc/net/{protocol}{family}", "rb") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _, number = fields[1].rpartition(b":")
            anybody = int(address, 16) == 0 and int(number, 16) == port
            if anybody and (protocol == "udp" or fields[3] == _LISTENING):
                yield fields[9].decode()


def _owners(inodes: set[str]) -> Iterator[tuple[str, str, str]]:
    """The processes that hold sockets, as far as they can be seen: inode, process id, name."""
    for pid in os.listdir("/proc") if inodes else []:
        if not pid.isdigit():
            continue
        try:
            targets = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                name = file.read().strip()
        except OSError:
            continue
        for inode in inodes:
            if f"socket:[{inode}]" in targets:
                yield inode, pid, name
