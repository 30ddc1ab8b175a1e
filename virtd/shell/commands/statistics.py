"""The statistics of many guests at once."""

from virtd import constants as c
from virtd.shell import typed
from virtd.shell.command import Args, Command
from virtd.shell.output import Output, Plain
from virtd.shell.session import Session

_STATS = {
    "state": c.VIR_DOMAIN_STATS_STATE,
    "cpu-total": c.VIR_DOMAIN_STATS_CPU_TOTAL,
    "balloon": c.VIR_DOMAIN_STATS_BALLOON,
    "vcpu": c.VIR_DOMAIN_STATS_VCPU,
    "interface": c.VIR_DOMAIN_STATS_INTERFACE,
    "block": c.VIR_DOMAIN_STATS_BLOCK,
    "perf": c.VIR_DOMAIN_STATS_PERF,
    "iothread": c.VIR_DOMAIN_STATS_IOTHREAD,
    "memory": c.VIR_DOMAIN_STATS_MEMORY,
    "dirtyrate": c.VIR_DOMAIN_STATS_DIRTYRATE,
    "vm": c.VIR_DOMAIN_STATS_VM,
}
_FLAGS = {
    "list-active": c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE,
    "list-inactive": c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_INACTIVE,
    "list-persistent": c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_PERSISTENT,
    "list-transient": c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_TRANSIENT,
    "list-running": c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING,
    "list-paused": c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_PAUSED,
    "list-shutoff": c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_SHUTOFF,
    "list-other": c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_OTHER,
    "enforce": c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS,
    "backing": c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING,
    "nowait": c.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
}


def domstats(session: Session, args: Args) -> Output:
    """virConnectGetAllDomainStats. Values are always shown as they are, with --raw and without."""
    domains = [session.domain(name) for name in args.rest("domain")]
    records = session.call("connect_get_all_domain_stats", domains, args.flags(_STATS), args.flags(_FLAGS))
    blocks = []
    for record in records:
        lines = [f"Domain: '{record.dom.name}'"]
        lines += [f"  {one.field}={typed.text(one)}" for one in record.params]
        blocks.append("".join(f"{line}\n" for line in lines))
    data = [{"domain": record.dom.name, **typed.data(record.params)} for record in records]
    return Plain("domains", "\n".join(blocks), data)


def top(session: Session, args: Args) -> None:
    """What several calls say of running guests, again and again."""
    from virtd.shell import top as screen

    screen.run(session, args.number("delay", 1, 3600) or 2, args.number("count", 1))


COMMANDS = (
    Command(
        "domstats",
        " ".join(f"[--{name}]" for name in (*_STATS, *list(_FLAGS)[:8], "raw", "enforce", "backing", "nowait"))
        + " [<domain>...]",
        "show the statistics of guests",
        domstats,
    ),
    Command("top", "[--delay <number>] [--count <number>]", "watch what guests use", top),
)
