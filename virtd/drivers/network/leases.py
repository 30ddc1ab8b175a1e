"""DHCP leases: dnsmasq's lease file, and libvirt's status file, which is made of it.

dnsmasq rewrites its file in place at each change; the status file is JSON and replaced whole, for libvirt's NSS module
and for virNetworkGetDHCPLeases. Of IPv6 leases dnsmasq writes no MAC address; it is taken from the client's DUID.
"""

import ipaddress
import json

from virtd import constants as c
from virtd.protocol.records import DhcpLease
from virtd.state import files

_HARDWARE_DUIDS = {1: 8, 3: 4}  # RFC 8415: DUID-LLT and DUID-LL, and where the link-layer address begins in them
_ETHERNET = 1
Lease = dict[str, str | int]


def parse(content: bytes) -> list[Lease]:
    """The leases in dnsmasq's file, as libvirt's status file names their parts."""
    found: list[Lease] = []
    server = ""
    for line in content.decode(errors="replace").splitlines():
        fields = line.split(" ")
        if fields[0] == "duid" and len(fields) == 2:
            server = fields[1]
        elif len(fields) == 5 and fields[0].isdigit():
            found.append(_lease(int(fields[0]), *fields[1:], server=server))
    return found


def _lease(expiry: int, second: str, address: str, hostname: str, client: str, *, server: str) -> Lease:
    """A lease: of IPv4 the second field is the MAC address, of IPv6 the IAID."""
    lease: Lease = {"ip-address": address, "expiry-time": expiry}
    if ":" in address:
        mac = _mac_of(client)
        lease |= {"iaid": second.removeprefix("T"), "server-duid": server}
    else:
        # Another kind of hardware than Ethernet stands before the address, with a dash.
        mac = second.rpartition("-")[2]
    for key, value in (("mac-address", mac), ("hostname", hostname), ("client-id", client)):
        if value not in ("", "*"):
            lease[key] = value
    return lease


def _mac_of(duid: str) -> str:
    try:
        raw = bytes.fromhex(duid.replace(":", ""))
    except ValueError:
        return ""
    begin = _HARDWARE_DUIDS.get(int.from_bytes(raw[:2], "big"))
    if begin is None or int.from_bytes(raw[2:4], "big") != _ETHERNET or len(raw) != begin + 6:
        return ""
    return raw[begin:].hex(":")


def publish(lease_file: str, status_file: str) -> None:
    """Make the status file anew from dnsmasq's.

    Raises:
        VirtError: VIR_ERR_SYSTEM_ERROR.
    """
    content = json.dumps(parse(files.read(lease_file) or b""), indent=2) + "\n"
    if files.read(status_file) != content.encode():
        files.replace(status_file, content.encode(), durable=False, mode=0o644)


def records(status_file: str, bridge: str, prefixes: dict[int, int], mac: str | None, now: float) -> list[DhcpLease]:
    """The leases that are valid, as they go over the wire.

    Args:
        status_file: libvirt's status file.
        bridge: the network's bridge.
        prefixes: the lengths of the networks' prefixes, by version (4, 6).
        mac: only the leases of this card, in lower case; None for all.
        now: seconds since the epoch.
    """
    try:
        table = json.loads(files.read(status_file) or b"[]")
    except ValueError:
        return []
    found = []
    for lease in table if isinstance(table, list) else []:
        record = _record(lease, bridge, prefixes) if isinstance(lease, dict) else None
        if record is None or (record.expirytime and record.expirytime < now):
            continue
        if mac is None or record.mac == mac:
            found.append(record)
    return found


def _record(lease: dict[str, object], bridge: str, prefixes: dict[int, int]) -> DhcpLease | None:
    address, expiry = lease.get("ip-address"), lease.get("expiry-time", 0)
    try:
        version = ipaddress.ip_address(str(address)).version
    except ValueError:
        return None
    if not isinstance(expiry, int):
        return None

    def text(key: str) -> str | None:
        value = lease.get(key)
        return value if isinstance(value, str) else None

    return DhcpLease(
        iface=bridge,
        expirytime=expiry,
        type=c.VIR_IP_ADDR_TYPE_IPV6 if version == 6 else c.VIR_IP_ADDR_TYPE_IPV4,
        mac=text("mac-address"),
        iaid=text("iaid"),
        ipaddr=str(address),
        prefix=prefixes.get(version, 0),
        hostname=text("hostname"),
        clientid=text("client-id"),
    )
