"""How much guests get of what: memory, processor time, disk and network bandwidth."""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell import rates, typed
from virtd.shell.acts import AFFECT_OPTIONS, affect
from virtd.shell.command import JSON, Args, Command
from virtd.shell.failure import Failure, failing
from virtd.shell.output import Output, Plain
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_UINT, _ULLONG, _STRING = c.VIR_TYPED_PARAM_UINT, c.VIR_TYPED_PARAM_ULLONG, c.VIR_TYPED_PARAM_STRING
_MEMORY = ("hard-limit", "soft-limit", "swap-hard-limit", "min-guarantee")
# Options of blkiotune: the parameter of each, and its type.
_BLKIO = {
    "weight": ("weight", _UINT),
    "device-weights": ("device_weight", _STRING),
    "device-read-iops-sec": ("device_read_iops_sec", _STRING),
    "device-write-iops-sec": ("device_write_iops_sec", _STRING),
    "device-read-bytes-sec": ("device_read_bytes_sec", _STRING),
    "device-write-bytes-sec": ("device_write_bytes_sec", _STRING),
}
_BLOCK_IO = (
    "total-bytes-sec", "read-bytes-sec", "write-bytes-sec", "total-iops-sec", "read-iops-sec", "write-iops-sec",
    "total-bytes-sec-max", "read-bytes-sec-max", "write-bytes-sec-max", "total-iops-sec-max", "read-iops-sec-max",
    "write-iops-sec-max", "size-iops-sec", "group-name", "total-bytes-sec-max-length", "read-bytes-sec-max-length",
    "write-bytes-sec-max-length", "total-iops-sec-max-length", "read-iops-sec-max-length",
    "write-iops-sec-max-length",
)  # fmt: skip
_NUMA_MODES = ("strict", "preferred", "interleave", "restrictive")
_DIRTY_RATE_MODES = ("page-sampling", "dirty-bitmap", "dirty-ring")


# What all of libvirt's clients say to a question for parameters: that texts among them will be understood.
_TEXTS = c.VIR_TYPED_PARAM_STRING_OKAY


def _counted(session: Session, noun: str, procedure: str, *args: Any, flags: int) -> list[Any]:
    """The parameters of a procedure which is asked first how many there are.

    Args:
        session: the connection.
        noun: what they are called if they cannot be had.
        procedure: takes args, a number and flags.
        args, flags: its arguments.
    """
    flags |= _TEXTS
    with failing(f"Unable to get number of {noun}"):
        _, count = session.call(procedure, *args, 0, flags)
    with failing(f"Unable to get {noun}"):
        found: list[Any] = session.call(procedure, *args, count, flags)[0] if count else []
    return found


def _shown(found: list[Any], text: Callable[[Any], str] = typed.text) -> Plain:
    """Parameters, one a line."""
    return Plain("parameters", "".join(f"{one.field:<15}: {text(one)}\n" for one in found), typed.data(found))


def _limit(one: Any) -> str:
    return "unlimited" if one.value.value == c.VIR_DOMAIN_MEMORY_PARAM_UNLIMITED else typed.text(one)


def memtune(session: Session, args: Args) -> Output | None:
    """virDomainGetMemoryParameters, virDomainSetMemoryParameters."""
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    wanted = []
    for name in _MEMORY:
        if args.text(name) is None:
            continue
        # Less than nothing is as much as there is.
        try:
            size = -1 if args.required(name) == "-1" else (args.scaled(name, 1024, 2**63 - 1) or 0) // 1024
        except Failure:
            raise Failure(f"Unable to parse integer parameter {name}") from None
        number = c.VIR_DOMAIN_MEMORY_PARAM_UNLIMITED if size < 0 else size
        wanted.append(typed.make(name.replace("-", "_"), _ULLONG, number))
    if wanted:
        with failing("Unable to change memory parameters"):
            session.call("domain_set_memory_parameters", domain, wanted, flags)
        return None
    found = _counted(session, "memory parameters", "domain_get_memory_parameters", domain, flags=flags)
    shown = _shown(found, _limit)
    shown.value = {one.field: None if _limit(one) == "unlimited" else one.value.value for one in found}
    return shown


def blkiotune(session: Session, args: Args) -> Output | None:
    """virDomainGetBlkioParameters, virDomainSetBlkioParameters."""
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    wanted = []
    for option, (name, kind) in _BLKIO.items():
        if args.text(option, empty=True) is None:
            continue
        value: Any = args.number(option) if kind == _UINT else args.text(option, empty=True)
        if option == "weight" and value < 0:
            raise Failure(f"Invalid value of {value} for I/O weight")
        wanted.append(typed.make(name, kind, value))
    if wanted:
        with failing("Unable to change blkio parameters"):
            session.call("domain_set_blkio_parameters", domain, wanted, flags)
        return None
    return _shown(_counted(session, "blkio parameters", "domain_get_blkio_parameters", domain, flags=flags))


def blkdeviotune(session: Session, args: Args) -> Output | None:
    """virDomainGetBlockIoTune, virDomainSetBlockIoTune."""
    flags = affect(args)
    domain, device = session.domain(args.required("domain")), args.required("device")
    wanted = []
    for option in _BLOCK_IO:
        name = option.replace("-", "_")
        if option == "group-name":
            if args.text(option) is not None:
                wanted.append(typed.make(name, _STRING, args.text(option)))
            continue
        sized = "bytes" in option and not option.endswith("length")
        value = args.scaled(option) if sized else args.natural(option, 2**64 - 1)
        if value is not None:
            wanted.append(typed.make(name, _ULLONG, value))
    if wanted:
        with failing("Unable to change block I/O throttle"):
            session.call("domain_set_block_io_tune", domain, device, wanted, flags)
        return None
    flags |= _TEXTS
    with failing("Unable to get number of block I/O throttle parameters"):
        _, count = session.call("domain_get_block_io_tune", domain, None, 0, flags)
    with failing("Unable to get block I/O throttle parameters"):
        return _shown(session.call("domain_get_block_io_tune", domain, device, count, flags)[0])


def domiftune(session: Session, args: Args) -> Output | None:
    """virDomainGetInterfaceParameters, virDomainSetInterfaceParameters."""
    flags = affect(args)
    domain, device = session.domain(args.required("domain")), args.required("interface")
    wanted = []
    for way in ("inbound", "outbound"):
        text = args.text(way)
        if text is None:
            continue
        rate = rates.parse(text)
        if way == "inbound" and not rate.average and not rate.floor and text != "0":
            raise Failure("either inbound average or floor is mandatory")
        if way == "outbound" and not rate.average and text != "0":
            raise Failure("outbound average is mandatory")
        for field, value in rate._asdict().items():
            if value > 2**32 - 1:
                raise Failure(f"{way} rate larger than maximum {2**32 - 1}")
            if (value or field == "average") and not (way == "outbound" and field == "floor"):
                wanted.append(typed.make(f"{way}.{field}", _UINT, value))
    if wanted:
        with failing("Unable to set interface parameters"):
            session.call("domain_set_interface_parameters", domain, device, wanted, flags)
        return None
    noun = "interface parameters"
    return _shown(_counted(session, noun, "domain_get_interface_parameters", domain, device, flags=flags))


def numatune(session: Session, args: Args) -> Output | None:
    """virDomainGetNumaParameters, virDomainSetNumaParameters."""
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    mode, nodes = args.text("mode"), args.text("nodeset")
    wanted = []
    if nodes is not None:
        wanted.append(typed.make("numa_nodeset", _STRING, nodes))
    if mode is not None:
        if mode in _NUMA_MODES:
            number = _NUMA_MODES.index(mode)
        elif mode.isdigit():
            number = int(mode)
        else:
            raise Failure(f"Invalid mode: {mode}")
        wanted.append(typed.make("numa_mode", c.VIR_TYPED_PARAM_INT, number))
    if wanted:
        with failing("Unable to change numa parameters"):
            session.call("domain_set_numa_parameters", domain, wanted, flags)
        return None

    def shown(one: Any) -> str:
        if one.field == "numa_mode" and 0 <= one.value.value < len(_NUMA_MODES):
            return _NUMA_MODES[one.value.value]
        return typed.text(one)

    with failing("Unable to get numa parameters"):
        _, count = session.call("domain_get_numa_parameters", domain, 0, flags | _TEXTS)
        found, _ = session.call("domain_get_numa_parameters", domain, count, flags | _TEXTS)
    return _shown(found, shown)


def perf(session: Session, args: Args) -> Output | None:
    """virDomainGetPerfEvents, virDomainSetPerfEvents."""
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    wanted = [
        typed.make(name, c.VIR_TYPED_PARAM_BOOLEAN, int(option == "enable"))
        for option in ("enable", "disable")
        for name in (args.text(option) or "").split(",")
        if name
    ]
    if wanted:
        with failing("Unable to enable/disable perf events"):
            session.call("domain_set_perf_events", domain, wanted, flags)
        for one in wanted:
            session.write(f"{one.field:<15}: {'enabled' if one.value.value else 'disabled'}\n")
        return None
    with failing("Unable to get perf events"):
        found = session.call("domain_get_perf_events", domain, flags)
    return _shown(found, lambda one: "enabled" if one.value.value else "disabled")


def schedinfo(session: Session, args: Args) -> Output:
    """virDomainGetSchedulerType, virDomainGetSchedulerParametersFlags, virDomainSetSchedulerParametersFlags."""
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    detailed = bool(flags) or args.flag("current")
    kind, count = "Unknown", 0

    def fetch() -> list[Any]:
        if detailed:
            return list(session.call("domain_get_scheduler_parameters_flags", domain, count, flags | _TEXTS))
        return list(session.call("domain_get_scheduler_parameters", domain, count))

    try:
        kind, count = session.call("domain_get_scheduler_type", domain)
        changes = _changes(args)
        if changes:
            wanted = _wanted(changes, fetch())
            if detailed:
                session.call("domain_set_scheduler_parameters_flags", domain, wanted, flags)
            else:
                session.call("domain_set_scheduler_parameters", domain, wanted)
        found = _shown(fetch())
    except (VirtError, Failure):
        if not (session.json or args.flag(JSON)):
            session.write(f"{'Scheduler':<15}: {kind}\n")
        raise
    found.content = f"{'Scheduler':<15}: {kind}\n{found.content}"
    return found


def _changes(args: Args) -> dict[str, str]:
    """What schedinfo is to set, by name."""
    changes: dict[str, str] = {}
    for name in ("weight", "cap"):
        number = args.number(name)
        if number is not None:
            changes[name] = str(number)
    for text in args.rest("set"):
        name, sign, value = text.partition("=")
        if not sign:
            raise Failure("Invalid syntax for --set, expecting name=value")
        changes[name] = value
    return changes


def _wanted(changes: dict[str, str], known: list[Any]) -> list[Any]:
    """The parameters that changes mean, of the types that they have now."""
    kinds = {one.field: one.value.type for one in known}
    for name in changes:
        if name not in kinds:
            raise Failure(f"invalid scheduler option: {name}")
    return [typed.parse(name, kinds[name], value) for name, value in changes.items()]


def setmem(session: Session, args: Args) -> None:
    """virDomainSetMemory, virDomainSetMemoryFlags."""
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    kib = _kib(args)
    if flags or args.flag("current"):
        session.call("domain_set_memory_flags", domain, kib, flags)
    else:
        session.call("domain_set_memory", domain, kib)


def _kib(args: Args) -> int:
    """The size that a command was given, in KiB, rounded up."""
    return -(-(args.scaled("size", 1024, 2**74) or 0) // 1024)


def setmaxmem(session: Session, args: Args) -> None:
    """virDomainSetMaxMemory, virDomainSetMemoryFlags."""
    flags = affect(args)
    domain = session.domain(args.required("domain"))
    kib = _kib(args)
    with failing("Unable to change MaxMemorySize"):
        if flags or args.flag("current"):
            session.call("domain_set_memory_flags", domain, kib, flags | c.VIR_DOMAIN_MEM_MAXIMUM)
        else:
            session.call("domain_set_max_memory", domain, kib)


def set_threshold(session: Session, args: Args) -> None:
    """virDomainSetBlockThreshold."""
    domain = session.domain(args.required("domain"))
    threshold = args.scaled("threshold", 1, 2**64 - 1)
    session.call("domain_set_block_threshold", domain, args.required("dev"), threshold, 0)


def dirty_rate(session: Session, args: Args) -> None:
    """virDomainStartDirtyRateCalc."""
    domain = session.domain(args.required("domain"))
    seconds = args.number("seconds")
    mode = args.text("mode") or _DIRTY_RATE_MODES[0]
    if mode not in _DIRTY_RATE_MODES:
        raise Failure(f"Unknown calculation mode '{mode}'")
    session.call("domain_start_dirty_rate_calc", domain, seconds or 1, _DIRTY_RATE_MODES.index(mode))
    session.say("Start to calculate domain's memory dirty rate successfully.\n")


_INTERFACE = {"interface": "guest-interface"}

COMMANDS = (
    Command(
        "blkdeviotune",
        "<domain> <device> "
        + " ".join(f"[--{name} <{'string' if name == 'group-name' else 'number'}>]" for name in _BLOCK_IO)
        + f" {AFFECT_OPTIONS}",
        "show or set how fast a guest's disk may be",
        blkdeviotune,
        kinds={"device": "disk"},
    ),
    Command(
        "blkiotune",
        "<domain> [--weight <number>] "
        + " ".join(f"[--{name} <string>]" for name in list(_BLKIO)[1:])
        + f" {AFFECT_OPTIONS}",
        "show or set how a guest shares its host's disks with others",
        blkiotune,
    ),
    Command(
        "domblkthreshold",
        "<domain> <dev> <threshold:number>",
        "ask for an event when a disk's image has grown so far",
        set_threshold,
        kinds={"dev": "disk"},
    ),
    Command(
        "domdirtyrate-calc",
        "<domain> [--seconds <number>] [--mode <string>]",
        "measure how fast a guest changes its memory",
        dirty_rate,
        kinds={"mode": "dirty-rate-mode"},
    ),
    Command(
        "domiftune",
        f"<domain> <interface> [--inbound <string>] [--outbound <string>] {AFFECT_OPTIONS}",
        "show or set how fast a guest's interface may be",
        domiftune,
        kinds=_INTERFACE,
    ),
    Command(
        "memtune",
        "<domain> " + " ".join(f"[--{name} <number>]" for name in _MEMORY) + f" {AFFECT_OPTIONS}",
        "show or set the limits of a guest's memory",
        memtune,
    ),
    Command(
        "numatune",
        f"<domain> [--mode <string>] [--nodeset <string>] {AFFECT_OPTIONS}",
        "show or set which NUMA nodes a guest's memory comes from",
        numatune,
        kinds={"mode": "numa-mode"},
    ),
    Command(
        "perf",
        f"<domain> [--enable <string>] [--disable <string>] {AFFECT_OPTIONS}",
        "show or set which performance counters are kept for a guest",
        perf,
    ),
    Command(
        "schedinfo",
        "<domain> [--weight =<number>] [--cap =<number>] [--current] [--config] [--live] [<set>...]",
        "show or set how a guest's processors are scheduled",
        schedinfo,
    ),
    Command("setmaxmem", f"<domain> <size:number> {AFFECT_OPTIONS}", "set how much memory a guest may have", setmaxmem),
    Command("setmem", f"<domain> <size:number> {AFFECT_OPTIONS}", "set how much memory a guest has now", setmem),
)
