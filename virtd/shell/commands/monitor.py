"""How guests' disks, interfaces, memory and clocks do."""

from __future__ import annotations

import time as clock

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell import states, units, xmltext
from virtd.shell.acts import AFFECT_OPTIONS, affect
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Cell, Fields, Output, Plain, Single, Table
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What virsh calls a block statistic: in brief, and in words; in the order it shows them.
_BLOCK_STATS = {
    "rd_operations": ("rd_req", "number of read operations:"),
    "rd_bytes": ("rd_bytes", "number of bytes read:"),
    "wr_operations": ("wr_req", "number of write operations:"),
    "wr_bytes": ("wr_bytes", "number of bytes written:"),
    "errs": ("errs", "error count:"),
    "flush_operations": ("flush_operations", "number of flush operations:"),
    "rd_total_times": ("rd_total_times", "total duration of reads (ns):"),
    "wr_total_times": ("wr_total_times", "total duration of writes (ns):"),
    "flush_total_times": ("flush_total_times", "total duration of flushes (ns):"),
}
_INTERFACE_STATS = ("rx_bytes", "rx_packets", "rx_errs", "rx_drop", "tx_bytes", "tx_packets", "tx_errs", "tx_drop")
# virDomainMemoryStatTags
_MEMORY_STATS = (
    "swap_in",
    "swap_out",
    "major_fault",
    "minor_fault",
    "unused",
    "available",
    "actual",
    "rss",
    "usable",
    "last_update",
    "disk_caches",
    "hugetlb_pgalloc",
    "hugetlb_pgfail",
)
_ADDRESS_SOURCES = ("lease", "agent", "arp")  # virDomainInterfaceAddressesSource
_ADDRESS_TYPES = ("ipv4", "ipv6")  # virIPAddrType


def document_of(session: Session, domain: Any, *, inactive: bool = False) -> Any:
    """The root of a guest's document."""
    flags = c.VIR_DOMAIN_XML_INACTIVE if inactive else 0
    return xmltext.parse(session.call("domain_get_xml_desc", domain, flags))


def source_of(element: Any) -> str | None:
    """What a disk or interface in a document is connected to."""
    source = element.find("source")
    if source is None:
        return None
    if element.get("type") == "nvme":
        address = source.find("address")
        digits = [int(address.get(name, "0"), 16) for name in ("domain", "bus", "slot", "function")]
        return "nvme://{:04x}:{:02x}:{:02x}.{}/".format(*digits) + str(source.get("namespace", ""))
    names = "bridge dev network name path" if element.tag == "interface" else "file dev dir name volume path"
    for name in names.split():
        if source.get(name) is not None:
            return str(source.get(name))
    return None


def domblklist(session: Session, args: Args) -> Output:
    """A guest's disks, from its document."""
    domain = session.domain(args.required("domain"))
    details = args.flag("details")
    columns = [("type", "Type"), ("device", "Device")] if details else []
    table = Table([*columns, ("target", "Target"), ("source", "Source")])
    for disk in document_of(session, domain, inactive=args.flag("inactive")).iterfind("devices/disk"):
        row = [xmltext.attribute(disk, "target", "dev"), source_of(disk)]
        table.add(*([disk.get("type"), disk.get("device")] if details else []), *row)
    return table


def domblkinfo(session: Session, args: Args) -> Output:
    """virDomainGetBlockInfo."""
    domain = session.domain(args.required("domain"))
    device, human = args.text("device"), args.flag("human")
    if args.flag("all"):
        columns = (
            ("target", "Target"),
            ("capacity", "Capacity"),
            ("allocation", "Allocation"),
            ("physical", "Physical"),
        )
        table = Table(columns)
        for disk in document_of(session, domain).iterfind("devices/disk"):
            target = xmltext.attribute(disk, "target", "dev") or ""
            info = _block_info(session, domain, disk, target)
            table.add(target, *([None] * 3 if info is None else (_size(one, human=human) for one in info)))
        return table
    if device is None:
        raise Failure("command 'domblkinfo' requires <device> option")
    allocation, capacity, physical = session.call("domain_get_block_info", domain, device, 0)
    fields = Fields(15)
    fields.add("Capacity:", _size(capacity, human=human))
    fields.add("Allocation:", _size(allocation, human=human))
    fields.add("Physical:", _size(physical, human=human))
    return fields


def _block_info(session: Session, domain: Any, disk: Any, target: str) -> tuple[int, int, int] | None:
    """Capacity, allocation and size of a disk; None where there is nothing in it, or nobody can say."""
    if disk.find("source") is None:
        return None
    try:
        allocation, capacity, physical = session.call("domain_get_block_info", domain, target, 0)
    except VirtError:
        # A network disk can be asked about only while the guest runs.
        if disk.get("type") == "network" and domain.id < 0:
            return None
        raise
    return capacity, allocation, physical


def _size(size: int, *, human: bool) -> Any:
    if not human:
        return size
    number, unit = units.pretty(size)
    return Cell(f"{number:.3f} {unit}", size)


def domblkstat(session: Session, args: Args) -> Output:
    """virDomainBlockStatsFlags; where that is not served, virDomainBlockStats."""
    name, device = args.required("domain"), args.text("device") or ""
    domain = session.domain(name)
    found: dict[str, Any]
    try:
        texts = c.VIR_TYPED_PARAM_STRING_OKAY
        _, count = session.call("domain_block_stats_flags", domain, device, 0, texts)
        parameters, _ = session.call("domain_block_stats_flags", domain, device, count, texts)
        found = {one.field: one.value.value for one in parameters}
    except VirtError as error:
        if error.code != c.VIR_ERR_NO_SUPPORT:
            raise
        with failing(f"Failed to get block stats {name} {device}"):
            numbers = session.call("domain_block_stats", domain, device)
        fields = ("rd_operations", "rd_bytes", "wr_operations", "wr_bytes", "errs")
        found = {field: number for field, number in zip(fields, numbers, strict=True) if number >= 0}
    human = args.flag("human")
    lines = [f"Device: {device}"] if human else []
    order = [
        *(field for field in _BLOCK_STATS if field in found),
        *(field for field in found if field not in _BLOCK_STATS),
    ]
    values = {}
    for field in order:
        brief, wordy = _BLOCK_STATS.get(field, (field, field))
        lines.append(f" {wordy:<31} {found[field]}" if human else f"{device} {brief} {found[field]}")
        values[brief] = found[field]
    return Plain("block", "".join(f"{line}\n" for line in lines), values)


def domblkerror(session: Session, args: Args) -> Output:
    """virDomainGetDiskErrors."""
    domain = session.domain(args.required("domain"))
    _, count = session.call("domain_get_disk_errors", domain, 0, 0)
    errors = session.call("domain_get_disk_errors", domain, count, 0)[0] if count else []
    if not errors:
        return Plain("errors", "No errors found\n", {})
    found = {one.disk: states.of(states.DISK_ERROR, one.error, "unknown error") for one in errors}
    return Plain("errors", "".join(f"{disk}: {error}\n" for disk, error in found.items()), found)


def domcontrol(session: Session, args: Args) -> Output:
    """virDomainGetControlInfo."""
    domain = session.domain(args.required("domain"))
    state, details, since = session.call("domain_get_control_info", domain, 0)
    name = states.of(states.CONTROL, state)
    if state not in (c.VIR_DOMAIN_CONTROL_OK, c.VIR_DOMAIN_CONTROL_ERROR):
        return Single("control", Cell(f"{name} ({since / 1000:.3f}s)", {"state": name, "since_ms": since}))
    if state == c.VIR_DOMAIN_CONTROL_ERROR and details > 0:
        reason = states.of(states.CONTROL_REASONS, details)
        return Single("control", Cell(f"{name}: {reason}", {"state": name, "reason": reason}))
    return Single("control", Cell(name, {"state": name}))


def find_interface(root: Any, name: str) -> Any:
    """The interface of a document that has a MAC address or is called so on the host.

    Raises:
        Failure: there is none, or more than one.
    """
    is_mac = len(name) == 17 and name.count(":") == 5
    found = [
        one
        for one in root.iterfind("devices/interface")
        if (
            (xmltext.attribute(one, "mac", "address") or "").lower() == name.lower()
            if is_mac
            else xmltext.attribute(one, "target", "dev") == name
        )
    ]
    if not found:
        raise Failure(f"Interface ({'mac' if is_mac else 'dev'}: {name}) not found.")
    if len(found) > 1:
        raise Failure("multiple matching interfaces found")
    return found[0]


def domif_getlink(session: Session, args: Args) -> Output:
    """The link state of a guest's interface, from its document."""
    domain, name = session.domain(args.required("domain")), args.required("interface")
    interface = find_interface(document_of(session, domain, inactive=args.flag("config")), name)
    state = xmltext.attribute(interface, "link", "state") or "up"
    return Single("link", Cell(f"{name} {state}", state), end="")


def domiflist(session: Session, args: Args) -> Output:
    """A guest's interfaces, from its document."""
    domain = session.domain(args.required("domain"))
    columns = ("interface", "type", "source", "model", "mac")
    titles = ("Interface", "Type", "Source", "Model", "MAC")
    table = Table(list(zip(columns, titles, strict=True)))
    for one in document_of(session, domain, inactive=args.flag("inactive")).iterfind("devices/interface"):
        table.add(
            xmltext.attribute(one, "target", "dev"),
            one.get("type"),
            source_of(one),
            xmltext.attribute(one, "model", "type"),
            xmltext.attribute(one, "mac", "address"),
        )
    return table


def domifstat(session: Session, args: Args) -> Output:
    """virDomainInterfaceStats."""
    name, device = args.required("domain"), args.required("interface")
    domain = session.domain(name)
    with failing(f"Failed to get interface stats {name} {device}"):
        numbers = session.call("domain_interface_stats", domain, device)
    found = {field: number for field, number in zip(_INTERFACE_STATS, numbers, strict=True) if number != -1}
    return Plain("interface", "".join(f"{device} {field} {number}\n" for field, number in found.items()), found)


def domifaddr(session: Session, args: Args) -> Output:
    """virDomainInterfaceAddresses."""
    domain = session.domain(args.required("domain"))
    only, full = args.text("interface"), args.flag("full")
    source = args.text("source") or "lease"
    if source not in _ADDRESS_SOURCES:
        raise Failure(f"Unknown data source '{source}'")
    with failing("Failed to query for interfaces addresses"):
        interfaces = session.call("domain_interface_addresses", domain, _ADDRESS_SOURCES.index(source), 0)
    lines = [f" {'Name':<10} {'MAC address':<20} {'Protocol':<8}     Address", "-" * 79]
    found = []
    for one in interfaces:
        if only is not None and one.name != only:
            continue
        mac = one.hwaddr or "N/A"
        if not one.addrs:
            lines.append(f" {one.name:<10} {mac:<17}    {'N/A':<12} N/A")
        for number, address in enumerate(one.addrs):
            kind = states.of(_ADDRESS_TYPES, address.type, "")
            shown = (one.name, mac) if full or number == 0 else ("-", "-")
            lines.append(f" {shown[0]:<10} {shown[1]:<17}    {kind:<12} {address.addr}/{address.prefix}")
        addresses = [f"{address.addr}/{address.prefix}" for address in one.addrs]
        found.append({"name": one.name, "mac": one.hwaddr, "addresses": addresses})
    if session.quiet:
        del lines[:2]
    return Plain("interfaces", "".join(f"{line}\n" for line in lines), found)


def dommemstat(session: Session, args: Args) -> Output | None:
    """virDomainMemoryStats, virDomainSetMemoryStatsPeriod."""
    name = args.required("domain")
    flags = affect(args)
    domain = session.domain(name)
    period = args.number("period")
    if period is not None:
        if period < 0:
            raise Failure(f"Invalid collection period value '{period}'")
        with failing("Unable to change balloon collection period."):
            session.call("domain_set_memory_stats_period", domain, period, flags)
        return None
    with failing(f"Failed to get memory statistics for domain {name}"):
        found = session.call("domain_memory_stats", domain, len(_MEMORY_STATS), 0)
    named = {_MEMORY_STATS[one.tag]: one.val for one in found if one.tag < len(_MEMORY_STATS)}
    return Plain("memory", "".join(f"{field} {number}\n" for field, number in named.items()), named)


def domtime(session: Session, args: Args) -> Output | None:
    """virDomainGetTime, virDomainSetTime."""
    for one, other in (("time", "now"), ("time", "sync"), ("now", "sync")):
        args.exclusive(one, other)
    domain = session.domain(args.required("domain"))
    seconds = args.number("time", -(2**63), 2**63 - 1)
    if seconds is not None or args.flag("now") or args.flag("sync"):
        flags = c.VIR_DOMAIN_TIME_SYNC if args.flag("sync") else 0
        wanted = int(clock.time()) if args.flag("now") else seconds or 0
        session.call("domain_set_time", domain, wanted, 0, flags)
        return None
    seconds, _ = session.call("domain_get_time", domain, 0)
    shown = clock.strftime("%Y-%m-%d %H:%M:%S", clock.gmtime(seconds)) if args.flag("pretty") else str(seconds)
    return Single("time", Cell(f"Time: {shown}", seconds), end="")


_DISK = {"device": "disk"}
_INTERFACE = {"interface": "guest-interface"}

COMMANDS = (
    Command("domblkerror", "<domain>", "show which disks of a guest had errors", domblkerror),
    Command(
        "domblkinfo",
        "<domain> [--device <string>] [--human] [--all]",
        "show the sizes of a guest's disks",
        domblkinfo,
        kinds=_DISK,
    ),
    Command("domblklist", "<domain> [--inactive] [--details]", "show a guest's disks", domblklist),
    Command(
        "domblkstat",
        "<domain> [--device <string>] [--human]",
        "show how much a guest reads and writes",
        domblkstat,
        kinds=_DISK,
    ),
    Command("domcontrol", "<domain>", "show whether a guest's monitor is in use", domcontrol),
    Command(
        "domif-getlink",
        "<domain> <interface> [--config]",
        "show whether the link of a guest's interface is up",
        domif_getlink,
        kinds=_INTERFACE,
    ),
    Command(
        "domifaddr",
        "<domain> [--interface <string>] [--full] [--source <string>]",
        "show a guest's addresses",
        domifaddr,
        kinds={**_INTERFACE, "source": "address-source"},
    ),
    Command("domiflist", "<domain> [--inactive]", "show a guest's network interfaces", domiflist),
    Command(
        "domifstat",
        "<domain> <interface>",
        "show how much a guest's interface sends and receives",
        domifstat,
        kinds=_INTERFACE,
    ),
    Command(
        "dommemstat",
        f"<domain> [--period =<number>] {AFFECT_OPTIONS}",
        "show what a guest does with its memory",
        dommemstat,
    ),
    Command(
        "domtime", "<domain> [--now] [--pretty] [--sync] [--time <number>]", "show or set a guest's clock", domtime
    ),
)
