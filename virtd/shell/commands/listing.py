"""Which guests there are, and how they are: list, domstate, dominfo."""

from __future__ import annotations

from virtd import constants as c
from virtd import uuids
from virtd.errors import VirtError
from virtd.shell import states
from virtd.shell.command import Args, Command
from virtd.shell.failure import failing
from virtd.shell.output import Cell, Fields, Lines, Output, Single, Table, yes
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What virConnectListAllDomains filters by; more than one word of a kind means any of them.
_FILTERS = {
    "persistent": c.VIR_CONNECT_LIST_DOMAINS_PERSISTENT,
    "transient": c.VIR_CONNECT_LIST_DOMAINS_TRANSIENT,
    "with-managed-save": c.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE,
    "without-managed-save": c.VIR_CONNECT_LIST_DOMAINS_NO_MANAGEDSAVE,
    "autostart": c.VIR_CONNECT_LIST_DOMAINS_AUTOSTART,
    "no-autostart": c.VIR_CONNECT_LIST_DOMAINS_NO_AUTOSTART,
    "with-snapshot": c.VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT,
    "without-snapshot": c.VIR_CONNECT_LIST_DOMAINS_NO_SNAPSHOT,
    "with-checkpoint": c.VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT,
    "without-checkpoint": c.VIR_CONNECT_LIST_DOMAINS_NO_CHECKPOINT,
}
_STATES = {
    "state-running": c.VIR_CONNECT_LIST_DOMAINS_RUNNING,
    "state-paused": c.VIR_CONNECT_LIST_DOMAINS_PAUSED,
    "state-shutoff": c.VIR_CONNECT_LIST_DOMAINS_SHUTOFF,
    "state-other": c.VIR_CONNECT_LIST_DOMAINS_OTHER,
}
_ACTIVE, _INACTIVE = c.VIR_CONNECT_LIST_DOMAINS_ACTIVE, c.VIR_CONNECT_LIST_DOMAINS_INACTIVE


def sort_domains(domains: list[Any]) -> list[Any]:
    """Running guests by id, then the others by name."""
    return sorted(domains, key=lambda domain: (domain.id < 0, domain.id, domain.name.casefold()))


def list_domains(session: Session, args: Args) -> Output:
    """virConnectListAllDomains, and what the table shows of each."""
    for other in ("uuid", "name", "id"):
        args.exclusive("table", other)
    flags = args.flags(_FILTERS)
    by_state = args.flags(_STATES)
    if args.flag("all"):
        flags |= _ACTIVE | _INACTIVE
    elif args.flag("inactive"):
        flags |= _INACTIVE
    elif not by_state:
        flags |= _ACTIVE
    with failing("Failed to list domains"):
        domains = sort_domains(session.call("connect_list_all_domains", 1, flags | by_state)[0])
    if args.flag("uuid") or args.flag("name") or args.flag("id"):
        if not (args.flag("uuid") or args.flag("name")):
            domains = [domain for domain in domains if domain.id >= 0]
        return Lines([_brief(args, domain) for domain in domains])
    columns = [("id", "Id"), ("name", "Name"), ("state", "State")]
    if args.flag("title"):
        columns.append(("title", "Title"))
    table = Table(columns)
    for domain in domains:
        try:
            state = states.domain(session.call("domain_get_state", domain, 0)[0])
        except VirtError as error:
            if error.code != c.VIR_ERR_NO_DOMAIN:
                raise
            continue  # it has gone since
        if args.flag("managed-save") and domain.id < 0 and session.call("domain_has_managed_save_image", domain, 0):
            state = "saved"
        row: list[Any] = [None if domain.id < 0 else domain.id, domain.name, state]
        if args.flag("title"):
            row.append(_title(session, domain))
        table.add(*row)
    return table


def _brief(args: Args, domain: Any) -> Any:
    """A guest in a list of names only."""
    shown: dict[str, Any] = {}
    if args.flag("uuid"):
        shown["uuid"] = uuids.to_text(domain.uuid)
    if args.flag("id"):
        shown["id"] = None if domain.id < 0 else domain.id
    if args.flag("name"):
        shown["name"] = domain.name
    text = " ".join("-" if value is None else str(value) for value in shown.values())
    return Cell(text, shown if len(shown) > 1 else next(iter(shown.values())))


def _title(session: Session, domain: Any) -> str:
    try:
        title: str = session.call("domain_get_metadata", domain, c.VIR_DOMAIN_METADATA_TITLE, None, 0)
    except VirtError as error:
        if error.code not in (c.VIR_ERR_NO_DOMAIN_METADATA, c.VIR_ERR_NO_SUPPORT):
            raise
        return ""
    return title


def domstate(session: Session, args: Args) -> Output:
    """virDomainGetState."""
    domain = session.domain(args.required("domain"))
    state, reason = session.call("domain_get_state", domain, 0)
    if not args.flag("reason"):
        return Single("state", states.domain(state))
    name, why = states.domain(state), states.domain_reason(state, reason)
    return Single("state", Cell(f"{name} ({why})", {"name": name, "reason": why}))


def dominfo(session: Session, args: Args) -> Output:
    """What several calls say of a guest."""
    domain = session.domain(args.required("domain"))
    fields = Fields(15)
    fields.add("Id:", None if domain.id < 0 else domain.id)
    fields.add("Name:", domain.name)
    fields.add("UUID:", uuids.to_text(domain.uuid))
    fields.add("OS Type:", session.call("domain_get_os_type", domain))
    state, maximum, memory, count, time = session.call("domain_get_info", domain)
    fields.add("State:", states.domain(state))
    fields.add("CPU(s):", count, "cpus")
    if time:
        fields.add("CPU time:", Cell(f"{time / 1e9:.1f}s", time), "cpu_time_ns")
    fields.add("Max memory:", Cell("no limit" if maximum == 2**32 - 1 else f"{maximum} KiB", maximum), "max_memory_kib")
    fields.add("Used memory:", Cell(f"{memory} KiB", memory), "used_memory_kib")
    persistent = _answer(session, "domain_is_persistent", domain)
    fields.add("Persistent:", Cell("unknown", None) if persistent is None else yes(persistent))
    autostart = _answer(session, "domain_get_autostart", domain)
    if autostart is not None:
        fields.add("Autostart:", Cell("enable" if autostart else "disable", bool(autostart)))
    saved = _answer(session, "domain_has_managed_save_image", domain, 0)
    fields.add("Managed save:", Cell("unknown", None) if saved is None else yes(saved))
    _security(session, domain, state, fields)
    messages = _answer(session, "domain_get_messages", domain, 0) or []
    if messages:
        fields.add("Messages:", Cell(f"\n{'':16}".join(messages), messages))
    return fields


def _answer(session: Session, name: str, *args: Any) -> Any:
    """What a call answers; None if it fails."""
    try:
        return session.call(name, *args)
    except VirtError:
        return None


def _security(session: Session, domain: Any, state: int, fields: Fields) -> None:
    """The security model, and how it confines a guest that runs."""
    found = _answer(session, "node_get_security_model")
    if found is None or not found[0].rstrip(b"\0"):
        return
    model, doi = (text.rstrip(b"\0").decode(errors="surrogateescape") for text in found)
    fields.add("Security model:", model)
    fields.add("Security DOI:", doi)
    if state not in (c.VIR_DOMAIN_RUNNING, c.VIR_DOMAIN_BLOCKED, c.VIR_DOMAIN_PAUSED):
        return
    label, enforcing = session.call("domain_get_security_label", domain)
    text = label.rstrip(b"\0").decode(errors="surrogateescape")
    if text:
        fields.add("Security label:", f"{text} ({'enforcing' if enforcing else 'permissive'})")


COMMANDS = (
    Command(
        "list",
        "[--inactive] [--all] [--transient] [--persistent] [--with-snapshot] [--without-snapshot] [--with-checkpoint] "
        "[--without-checkpoint] [--state-running] [--state-paused] [--state-shutoff] [--state-other] [--autostart] "
        "[--no-autostart] [--with-managed-save] [--without-managed-save] [--uuid] [--name] [--id] [--table] "
        "[--managed-save] [--title]",
        "show which guests there are",
        list_domains,
    ),
    Command("domstate", "<domain> [--reason]", "show the state of a guest", domstate),
    Command("dominfo", "<domain>", "show the main facts about a guest", dominfo),
)
