"""Jobs of guests that take their time, and migration."""

from __future__ import annotations

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell import states, typed, units
from virtd.shell.command import Args, Command
from virtd.shell.failure import Failure
from virtd.shell.output import Output, Plain, Single
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TYPES = ("None", "Bounded", "Unbounded", "Completed", "Failed", "Cancelled")
_OPERATIONS = (
    "Unknown",
    "Start",
    "Save",
    "Restore",
    "Incoming migration",
    "Outgoing migration",
    "Snapshot",
    "Snapshot revert",
    "Dump",
    "Backup",
    "Snapshot delete",
)
# What domjobinfo shows: the parameter, what it calls it, and how it writes it. Total and processed of an unbounded
# job are shown with the rest.
_SHOWN = (
    ("time_elapsed", "Time elapsed:", "ms"),
    ("time_elapsed_net", "Time elapsed w/o network:", "ms"),
    ("time_remaining", "Time remaining:", "ms"),
    ("data_processed", "Data processed:", "size"),
    ("data_remaining", "Data remaining:", "size"),
    ("data_total", "Data total:", "size"),
    ("memory_processed", "Memory processed:", "size"),
    ("memory_remaining", "Memory remaining:", "size"),
    ("memory_total", "Memory total:", "size"),
    ("memory_bps", "Memory bandwidth:", "rate"),
    ("memory_dirty_rate", "Dirty rate:", "pages/s"),
    ("memory_page_size", "Page size:", "bytes"),
    ("memory_iteration", "Iteration:", ""),
    ("memory_postcopy_requests", "Postcopy requests:", ""),
    ("disk_processed", "File processed:", "size"),
    ("disk_remaining", "File remaining:", "size"),
    ("disk_total", "File total:", "size"),
    ("disk_bps", "File bandwidth:", "rate"),
    ("memory_constant", "Constant pages:", ""),
    ("memory_normal", "Normal pages:", ""),
    ("memory_normal_bytes", "Normal data:", "size"),
    ("downtime", "Total downtime:", "ms"),
    ("downtime_net", "Downtime w/o network:", "ms"),
    ("setup_time", "Setup time:", "ms"),
    ("compression_cache", "Compression cache:", "size"),
    ("compression_bytes", "Compressed data:", "size"),
    ("compression_pages", "Compressed pages:", "long"),
    ("compression_cache_misses", "Compression cache misses:", "long"),
    ("compression_overflow", "Compression overflows:", "long"),
    ("auto_converge_throttle", "Auto converge throttle:", "long"),
    ("disk_temp_used", "Temporary disk space use:", "size"),
    ("disk_temp_total", "Temporary disk space total:", "size"),
)
# These are shown only if there is something of them, as virsh does.
_OPTIONAL = ("data", "memory", "disk")


def domjobinfo(session: Session, args: Args) -> Output:
    """virDomainGetJobStats."""
    args.requires("keep-completed", "completed")
    domain = session.domain(args.required("domain"))
    flags = c.VIR_DOMAIN_JOB_STATS_COMPLETED if args.flag("completed") else 0
    flags |= c.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED if args.flag("keep-completed") else 0
    kind, parameters = _stats(session, domain, flags)
    values = {one.field: one.value.value for one in parameters}
    data = {"type": states.of(_TYPES, kind), **values}
    if args.flag("rawstats"):
        lines = [f"Job type: {kind}", "", *(f"{one.field}: {typed.text(one)}" for one in parameters)]
        return Plain("job", "".join(f"{line}\n" for line in lines), data)
    lines = [f"{'Job type:':<17} {states.of(_TYPES, kind):<12}"]
    over = kind in (c.VIR_DOMAIN_JOB_FAILED, c.VIR_DOMAIN_JOB_CANCELLED)
    if kind == c.VIR_DOMAIN_JOB_NONE or (over and not args.flag("anystats")):
        return Plain("job", f"{lines[0]}\n", data)
    lines.append(f"{'Operation:':<17} {states.of(_OPERATIONS, values.get('operation', 0), 'unknown'):<12}")
    for name, label, form in _SHOWN:
        if name not in values or (name == "time_remaining" and kind != c.VIR_DOMAIN_JOB_BOUNDED):
            continue
        part = name.partition("_")[0]
        counted = name.endswith(("_processed", "_remaining", "_total")) and part in _OPTIONAL
        if counted and not any(values.get(f"{part}_{what}") for what in ("total", "processed", "remaining")):
            continue
        if name == "downtime" and kind not in (c.VIR_DOMAIN_JOB_COMPLETED, c.VIR_DOMAIN_JOB_FAILED):
            label = "Expected downtime:"
        lines.append(f"{label:<17} {_form(values[name], form)}")
    if values.get("errmsg"):
        lines.append(f"{'Error message:':<17} {values['errmsg']}")
    return Plain("job", "".join(f"{line}\n" for line in lines), data)


# The fields of the older call, by the names of the newer one's parameters; the first is the job's type.
_INFO = (
    "time_elapsed",
    "time_remaining",
    "data_total",
    "data_processed",
    "data_remaining",
    "memory_total",
    "memory_processed",
    "memory_remaining",
    "disk_total",
    "disk_processed",
    "disk_remaining",
)


def _stats(session: Session, domain: Any, flags: int) -> tuple[int, list[Any]]:
    """virDomainGetJobStats; where that is not served, virDomainGetJobInfo."""
    try:
        kind, parameters = session.call("domain_get_job_stats", domain, flags)
    except VirtError as error:
        if error.code != c.VIR_ERR_NO_SUPPORT or flags:
            raise
        kind, *numbers = session.call("domain_get_job_info", domain)
        made = zip(_INFO, numbers, strict=True)
        parameters = [typed.make(name, c.VIR_TYPED_PARAM_ULLONG, number) for name, number in made]
    return kind, parameters


def _form(value: int, form: str) -> str:
    if form in ("size", "rate"):
        number, unit = units.pretty(value)
        return f"{number:.3f} {unit}{'/s' if form == 'rate' else ''}"
    return f"{value:<13}" if form == "long" else f"{value:<12}{' ' if form else ''}{form}"


def domjobabort(session: Session, args: Args) -> None:
    """virDomainAbortJob, virDomainAbortJobFlags."""
    domain = session.domain(args.required("domain"))
    if args.flag("postcopy"):
        session.call("domain_abort_job_flags", domain, c.VIR_DOMAIN_ABORT_JOB_POSTCOPY)
    else:
        session.call("domain_abort_job", domain)


# Migration


def setmaxdowntime(session: Session, args: Args) -> None:
    """virDomainMigrateSetMaxDowntime."""
    domain = session.domain(args.required("domain"))
    downtime = args.number("downtime", -(2**63), 2**63 - 1) or 0
    if downtime < 1:
        raise Failure("migrate: Invalid downtime")
    session.call("domain_migrate_set_max_downtime", domain, downtime, 0)


def getmaxdowntime(session: Session, args: Args) -> Output:
    """virDomainMigrateGetMaxDowntime."""
    domain = session.domain(args.required("domain"))
    return Single("max_downtime_ms", session.call("domain_migrate_get_max_downtime", domain, 0))


def compcache(session: Session, args: Args) -> Output:
    """virDomainMigrateGetCompressionCache, virDomainMigrateSetCompressionCache."""
    domain = session.domain(args.required("domain"))
    size = args.natural("size", 2**64 - 1)
    if size is not None:
        session.call("domain_migrate_set_compression_cache", domain, size, 0)
    found = session.call("domain_migrate_get_compression_cache", domain, 0)
    number, unit = units.pretty(found)
    return Plain("compression_cache", f"Compression cache: {number:.3f} {unit}", found)


def _speed_flags(args: Args) -> int:
    return c.VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY if args.flag("postcopy") else 0


def getspeed(session: Session, args: Args) -> Output:
    """virDomainMigrateGetMaxSpeed."""
    domain = session.domain(args.required("domain"))
    return Single("max_speed_mib_s", session.call("domain_migrate_get_max_speed", domain, _speed_flags(args)))


def setspeed(session: Session, args: Args) -> None:
    """virDomainMigrateSetMaxSpeed."""
    domain = session.domain(args.required("domain"))
    session.call("domain_migrate_set_max_speed", domain, args.natural("bandwidth", 2**64 - 1), _speed_flags(args))


def postcopy(session: Session, args: Args) -> None:
    """virDomainMigrateStartPostCopy."""
    session.call("domain_migrate_start_post_copy", session.domain(args.required("domain")), 0)


def migrate(session: Session, args: Args) -> None:
    """virDomainMigrateToURI3, for which there is no call yet at either end."""
    session.domain(args.required("domain"))
    raise VirtError(c.VIR_ERR_NO_SUPPORT, "virDomainMigrateToURI3", domain=c.VIR_FROM_DOMAIN)


_MIGRATE = (
    "<domain> <desturi> [--live] [--offline] [--p2p] [--direct] [--tunnelled] [--persistent] [--undefinesource] "
    "[--suspend] [--copy-storage-all] [--copy-storage-inc] [--copy-storage-synchronous-writes] [--change-protection] "
    "[--unsafe] [--verbose] [--compressed] [--auto-converge] [--rdma-pin-all] [--abort-on-error] [--postcopy] "
    "[--postcopy-after-precopy] [--postcopy-resume] [--zerocopy] [--migrateuri <string>] [--graphicsuri <string>] "
    "[--listen-address <string>] [--dname <string>] [--timeout <number>] [--timeout-suspend] [--timeout-postcopy] "
    "[--xml <string>] [--migrate-disks <string>] [--disks-port <number>] [--disks-uri <string>] "
    "[--comp-methods <string>] [--comp-mt-level <number>] [--comp-mt-threads <number>] [--comp-mt-dthreads <number>] "
    "[--comp-xbzrle-cache <number>] [--auto-converge-initial <number>] [--auto-converge-increment <number>] "
    "[--persistent-xml <string>] [--tls] [--postcopy-bandwidth <number>] [--parallel] "
    "[--parallel-connections <number>] [--bandwidth <number>] [--tls-destination <string>]"
)

COMMANDS = (
    Command("domjobabort", "<domain> [--postcopy]", "cancel a guest's job", domjobabort),
    Command(
        "domjobinfo",
        "<domain> [--completed] [--keep-completed] [--anystats] [--rawstats]",
        "show how far a guest's job is",
        domjobinfo,
    ),
    Command(
        "migrate", _MIGRATE, "move a guest to another host", migrate, kinds={"xml": "path", "persistent-xml": "path"}
    ),
    Command(
        "migrate-compcache", "<domain> [--size =<number>]", "show or set a migration's compression cache", compcache
    ),
    Command("migrate-getmaxdowntime", "<domain>", "show how long a migration may stop a guest", getmaxdowntime),
    Command("migrate-getspeed", "<domain> [--postcopy]", "show how fast a migration may be", getspeed),
    Command("migrate-postcopy", "<domain>", "let a migrating guest run at its destination from now on", postcopy),
    Command(
        "migrate-setmaxdowntime",
        "<domain> <downtime:number>",
        "set how long a migration may stop a guest",
        setmaxdowntime,
    ),
    Command(
        "migrate-setspeed", "<domain> <bandwidth:number> [--postcopy]", "set how fast a migration may be", setspeed
    ),
)
